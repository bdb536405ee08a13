//! Everything about a run beside weights and moments, in a form that continues exactly.

use saddlepoint_core::metrics::Metrics;
use saddlepoint_opt::dual::Duals;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::rollout::Round;
use crate::tether::Measurement;

/// Version of `state.json`.
pub(super) const VERSION: u32 = 4;

/// What `state.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) version: u32,
    /// Optimizer steps done.
    pub(super) step: u64,
    /// Tokens seen, as TRL counts them.
    pub(super) num_tokens: u64,
    /// Means since the last line of metrics.
    pub(super) window: Window,
    /// The tether's multiplier.
    pub(super) duals: Option<Duals>,
    /// The best evaluation.
    pub(super) best: Option<Best>,
    /// The latest iterate that was measured within the budget.
    pub(super) kept: Option<Kept>,
    /// Prompts that were taken from the epochs, for completions.
    pub(super) prompts: u64,
    /// Last value of every metric.
    pub(super) last: Map<String, Value>,
    /// Every line of metrics, for `trainer_state.json`.
    #[serde(skip)]
    pub(super) history: Vec<Value>,
    /// The completions that later steps will go on with; in a file of its own.
    #[serde(skip)]
    pub(super) round: Option<Round>,
}

/// The best evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    pub(super) step: u64,
    pub(super) value: f64,
}

/// The latest iterate that was measured within the budget; its weights are kept beside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) step: u64,
    pub(super) measured: Measurement,
}

/// Means since the last line of metrics, of each metric over the steps that had it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    /// Name, sum, and the number of steps that had the metric.
    sums: Vec<(String, f64, u64)>,
}

impl Window {
    pub(super) fn add(&mut self, values: &[(impl AsRef<str>, f64)]) {
        for (name, value) in values {
            let (name, value) = (name.as_ref(), *value);
            match self.sums.iter_mut().find(|(known, ..)| known == name) {
                Some((_, sum, steps)) => (*sum, *steps) = (*sum + value, *steps + 1),
                None => self.sums.push((name.to_owned(), value, 1)),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// The means; the window is empty afterwards.
    pub(super) fn take(&mut self) -> Metrics {
        let window = std::mem::take(self);
        let mut metrics = Metrics::new();
        for (name, sum, steps) in window.sums {
            metrics.set(name, sum / steps as f64);
        }
        metrics
    }
}

impl State {
    /// Remembers a line of metrics.
    pub(super) fn logged(&mut self, metrics: &Metrics) {
        let mut line = Map::new();
        for (name, value) in metrics.iter() {
            line.insert(name.to_owned(), Value::from(value));
            self.last.insert(name.to_owned(), Value::from(value));
        }
        line.insert("step".to_owned(), self.step.into());
        self.history.push(Value::Object(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_averages_over_its_steps_and_survives_a_checkpoint() {
        let mut window = Window::default();
        window.add(&[("loss", 0.1), ("entropy", 3.0)]);
        let text = serde_json::to_string(&window).expect("serialises");
        let mut window: Window = serde_json::from_str(&text).expect("parses");
        window.add(&[("loss", 0.2), ("entropy", 1.0), ("rare", 5.0)]);
        let metrics = window.take();
        assert_eq!(metrics.get("loss").map(f64::to_bits), Some((0.3_f64 / 2.0).next_up().to_bits()));
        assert_eq!(metrics.get("entropy"), Some(2.0));
        assert_eq!(metrics.get("rare"), Some(5.0), "the mean of the steps that had it");
        assert!(window.is_empty());
    }
}
