//! What a run changed on data that it did not train on.

use saddlepoint_lm::trainer::Summary;
use serde_json::Value;

/// A measure before the first step and with the weights that the run ended with.
#[derive(Debug, PartialEq)]
pub(crate) struct Measure {
    /// What is measured.
    pub(crate) name: String,
    /// Before the first step.
    pub(crate) before: Option<f64>,
    /// With the final weights.
    pub(crate) after: Option<f64>,
}

/// Metrics of an evaluation that describe rather than judge; they are among the curves.
const DESCRIBING: [&str; 6] =
    ["rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "entropy", "reward_std"];

/// Whether a metric of an evaluation only describes: how rewards of completions spread, and how long they are but for the mean.
fn describes(name: &str) -> bool {
    let length =
        name.starts_with("completions/") && name.ends_with("_length") && name != "completions/mean_length";
    DESCRIBING.contains(&name) || length || name.starts_with("rewards/") && name.ends_with("/std")
}

/// The share of right samples, where a rule says what is right, and the metrics of the evaluations.
pub(super) fn measures(summary: &Summary) -> Vec<Measure> {
    let mut measures = Vec::new();
    if let Some(samples) = summary.samples.as_ref().filter(|samples| samples.accuracy_after.is_some()) {
        let of = if samples.held_out { "held-out prompts" } else { "training prompts" };
        let name = format!("right samples of {} {of}", samples.prompts);
        measures.push(Measure { name, before: samples.accuracy_before, after: samples.accuracy_after });
    }
    if let Some(evaluation) = &summary.evaluation {
        for (name, after) in evaluation.after.iter().filter(|(name, _)| !describes(name)) {
            // An implicit reward compares with the reference: where the policy still is the reference, it says nothing.
            let implicit = name.starts_with("rewards/") && !name.ends_with("/mean");
            let idle = |value: f64| value == 0.0 && implicit;
            let before = evaluation.before.get(name).and_then(Value::as_f64).filter(|&value| !idle(value));
            measures.push(Measure { name: format!("held-out {name}"), before, after: after.as_f64() });
        }
    }
    measures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn measures_are_those_of_the_two_models() {
        let summary = json!({
            "run_dir": "r", "steps": 30, "seconds": 1.0, "metrics": {"eval_loss": 9.0}, "model_step": 20,
            "samples": {"prompts": 8, "held_out": true, "accuracy_before": 0.5, "accuracy_after": 0.75},
            "evaluation": {
                "before": {"loss": 2.0, "entropy": 3.0, "rewards/accuracies": 0.0, "rewards/right/mean": 0.0},
                "after": {
                    "loss": 1.5, "entropy": 2.5, "rewards/accuracies": 0.75, "rewards/right/mean": 0.5,
                    "rewards/right/std": 0.5, "completions/max_length": 4.0,
                },
            },
        });
        let summary = serde_json::from_value(summary).expect("a summary");
        let measure = |name: &str, before, after| Measure { name: name.into(), before, after: Some(after) };
        assert_eq!(
            measures(&summary),
            [
                measure("right samples of 8 held-out prompts", Some(0.5), 0.75),
                measure("held-out loss", Some(2.0), 1.5),
                measure("held-out rewards/accuracies", None, 0.75),
                measure("held-out rewards/right/mean", Some(0.0), 0.5),
            ]
        );
    }
}
