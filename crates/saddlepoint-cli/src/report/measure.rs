//! What a run changed on data that it did not train on.

use super::run::Run;

/// A held-out measure at two steps of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Measure {
    /// What is measured.
    pub(crate) name: String,
    /// The first step at which it was, and its value then; none if it was measured once.
    pub(crate) first: Option<(u64, f64)>,
    /// The last step at which it was, up to that of the final weights, and its value then.
    pub(crate) last: (u64, f64),
}

/// Metrics of an evaluation that describe rather than judge; they are among the curves.
const DESCRIBING: [&str; 5] = [
    "eval_rewards/chosen",
    "eval_rewards/rejected",
    "eval_logps/chosen",
    "eval_logps/rejected",
    "eval_entropy",
];

/// The share of right samples, where a rule says what is right, and the metrics of an evaluation.
pub(super) fn measures(run: &Run) -> Vec<Measure> {
    let mut measures = Vec::new();
    let end = run.summary.as_ref().map_or(u64::MAX, |summary| summary.model_step);
    if let Some(samples) = run.summary.as_ref().and_then(|summary| summary.samples.as_ref())
        && let Some(after) = samples.accuracy_after
    {
        let of = if samples.held_out { "held-out prompts" } else { "training prompts" };
        measures.push(Measure {
            name: format!("right samples of {} {of}", samples.prompts),
            first: samples.accuracy_before.map(|before| (0, before)),
            last: (end, after),
        });
    }
    let judging = |name: &str| name.starts_with("eval_") && !DESCRIBING.contains(&name);
    for curve in run.curves.iter().filter(|curve| judging(&curve.name)) {
        let points: Vec<(u64, f64)> =
            curve.points.iter().map(|(step, value)| (*step as u64, *value)).collect();
        let Some(last) = points.iter().rev().find(|point| point.0 <= end).or(points.first()) else {
            continue;
        };
        let first = points.first().filter(|first| first.0 < last.0);
        measures.push(Measure { name: curve.name.clone(), first: first.copied(), last: *last });
    }
    measures
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::chart::Curve;
    use super::*;

    #[test]
    fn measures_are_those_of_the_final_weights() {
        let summary = json!({
            "run_dir": "r", "steps": 30, "seconds": 1.0, "metrics": {}, "model_step": 20,
            "samples": {"prompts": 8, "held_out": true, "accuracy_before": 0.5, "accuracy_after": 0.75},
        });
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.into(), points: points.to_vec() };
        let run = Run {
            summary: serde_json::from_value(summary).expect("a summary"),
            curves: vec![
                curve("loss", &[(1.0, 3.0)]),
                curve("eval_loss", &[(10.0, 2.0), (20.0, 1.5), (30.0, 1.0)]),
                curve("eval_entropy", &[(20.0, 2.5)]),
                curve("eval_reward", &[(20.0, 0.5)]),
            ],
            ..Run::default()
        };
        let measure = |name: &str, first, last| Measure { name: name.into(), first, last };
        assert_eq!(
            measures(&run),
            [
                measure("right samples of 8 held-out prompts", Some((0, 0.5)), (20, 0.75)),
                measure("eval_loss", Some((10, 2.0)), (20, 1.5)),
                measure("eval_reward", None, (20, 0.5)),
            ]
        );
    }
}
