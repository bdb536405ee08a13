//! How long a solver may go on, and what is told meanwhile.

use clap::Args;
use saddlepoint_core::metrics::Metrics;
use saddlepoint_opt::solver::Stop;

use crate::output::{note, number};

/// What can be typed.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Limits {
    /// Most iterations [default: the method's own]
    #[arg(long, value_name = "N")]
    iterations: Option<u64>,
    /// Most seconds
    #[arg(long, value_name = "S")]
    pub(super) seconds: Option<f64>,
    /// Tell of every Nth iteration on standard error
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    log: Option<u64>,
}

impl Limits {
    /// Whether any of them was given.
    pub(super) fn any(&self) -> bool {
        let Self { iterations, seconds, log } = self;
        iterations.is_some() || seconds.is_some() || log.is_some()
    }

    /// Whether a log is asked for.
    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// What is given, and the method's own for the rest.
    pub(super) fn stop(&self, tolerance: Option<f64>, own: Stop) -> Stop {
        Stop {
            tolerance: tolerance.unwrap_or(own.tolerance),
            iterations: self.iterations.unwrap_or(own.iterations),
        }
    }

    /// Writes a line of the log, if one is due.
    pub(super) fn tell(&self, iteration: u64, measures: &Metrics) {
        if self.log.is_some_and(|every| iteration.is_multiple_of(every)) {
            // Trouble with showing is no reason to stop.
            let _ = note(format!("{iteration:>6}  {}", line(measures)));
        }
    }
}

/// Names and values, one after the other.
pub(super) fn line(measures: &Metrics) -> String {
    measures.iter().map(|(name, value)| format!("{name} {}", number(value))).collect::<Vec<_>>().join("  ")
}
