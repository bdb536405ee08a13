//! The only place that reads a clock, so that nothing else can depend on the time.
#![allow(clippy::disallowed_methods, reason = "every other module is sent here")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Measures elapsed time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start; never decreases.
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Seconds since 1970-01-01 UTC; 0 when the system's clock is set to an earlier time.
pub fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let watch = Stopwatch::start();
        let (first, second) = (watch.seconds(), watch.seconds());
        assert!(0.0 <= first && first <= second);
        assert!(unix_seconds() > 1.7e9, "after 2023");
    }
}
