//! One axis of a chart: values to pixels, and ticks at round numbers. For whoever draws: reports of runs, plots in documents.

/// A linear or logarithmic map from values to pixels.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    start: f64,
    end: f64,
}

impl Axis {
    /// An axis over `low..=high`, drawn from pixel `start` to pixel `end`. `log` needs `low > 0`.
    /// An empty range is widened, so that a constant is drawn in the middle.
    pub fn new(low: f64, high: f64, log: bool, start: f64, end: f64) -> Self {
        let (low, high) = if high > low {
            (low, high)
        } else if log {
            (low / 2.0, low * 2.0)
        } else {
            let half = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
            (low - half, low + half)
        };
        Axis { low, high, log, start, end }
    }

    /// The pixel of a value.
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.start + share * (self.end - self.start)
    }

    /// Round values inside the range with their labels, about `wanted` of them.
    pub fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        if self.log {
            let ticks = self.powers(wanted);
            if ticks.len() >= 2 {
                return ticks.into_iter().map(|v| (v, label(v, v, v))).collect();
            }
        }
        self.spaced(round_step((self.high - self.low) / wanted as f64))
    }

    /// The same at whole numbers only, for an axis that counts.
    pub fn whole_ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        self.spaced(round_step((self.high - self.low) / wanted as f64).max(1.0))
    }

    fn spaced(&self, step: f64) -> Vec<(f64, String)> {
        let largest = self.low.abs().max(self.high.abs());
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|k| (k as f64 * step, label(k as f64 * step, step, largest))).collect()
    }

    /// Ticks of a logarithmic axis: 1, 2, 5 of each decade where there are few decades, else every n-th power of ten.
    fn powers(&self, wanted: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let decades = (last - first) as usize;
        let every = decades.div_ceil(wanted).max(1);
        let factors: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let slack = 1e-9;
        (first..=last)
            .step_by(every)
            .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
            .filter(|v| *v >= self.low * (1.0 - slack) && *v <= self.high * (1.0 + slack))
            .collect()
    }
}

/// The 1, 2 or 5 times a power of ten next above `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// A tick's label, with the decimals that `step` needs; all in powers of ten where the `largest` needs it.
fn label(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e5).contains(&largest) {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, wanted: usize) -> Vec<String> {
        axis.ticks(wanted).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ends_of_the_range_are_ends_of_the_axis() {
        for log in [false, true] {
            let axis = Axis::new(0.1, 10.0, log, 50.0, 250.0);
            assert!((axis.place(0.1) - 50.0).abs() < 1e-9);
            assert!((axis.place(10.0) - 250.0).abs() < 1e-9);
        }
        assert!((Axis::new(0.1, 10.0, true, 0.0, 200.0).place(1.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            labels(&Axis::new(0.0, 1.0, false, 0.0, 1.0), 5),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(&Axis::new(1.0, 300.0, false, 0.0, 1.0), 4), ["100", "200", "300"]);
        assert_eq!(labels(&Axis::new(-1e-4, 0.0011, false, 0.0, 1.0), 3), ["0", "0.0005", "0.0010"]);
        let counted: Vec<_> = Axis::new(1.0, 3.0, false, 0.0, 1.0).whole_ticks(5);
        assert_eq!(counted.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(labels(&Axis::new(1e-6, 3e-5, false, 0.0, 1.0), 3), ["1e-5", "2e-5", "3e-5"]);
        assert_eq!(labels(&Axis::new(0.02, 30.0, true, 0.0, 1.0), 4), ["0.1", "1", "10"]);
        assert_eq!(labels(&Axis::new(1.0, 6.0, true, 0.0, 1.0), 4), ["1", "2", "5"]);
    }

    #[test]
    fn a_constant_is_drawn_in_the_middle() {
        for (value, log) in [(0.0, false), (3.0, false), (-2.0, false), (3.0, true)] {
            let axis = Axis::new(value, value, log, 0.0, 100.0);
            assert!((axis.place(value) - 50.0).abs() < 1e-9, "{value} {log}");
            assert!(!axis.ticks(4).is_empty());
        }
    }
}
