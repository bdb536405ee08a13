//! Which metrics share a chart, and how each chart is drawn.

use saddlepoint_core::reproduce::Curve;

use super::chart::Chart;

/// A chart of the report by the metrics that belong on it.
struct Panel {
    title: &'static str,
    names: &'static [&'static str],
    may_log: bool,
    noisy: bool,
    /// Whether the budget is drawn as a line.
    budget: bool,
}

const fn panel(title: &'static str, names: &'static [&'static str]) -> Panel {
    Panel { title, names, may_log: false, noisy: false, budget: false }
}

const PANELS: &[Panel] = &[
    Panel { noisy: true, ..panel("Loss", &["loss", "eval_loss"]) },
    Panel { noisy: true, ..panel("Reward of a completion", &["reward", "eval_reward"]) },
    Panel {
        noisy: true,
        ..panel(
            "Tokens of a completion",
            &["completions/min_length", "completions/mean_length", "completions/max_length"],
        )
    },
    Panel {
        noisy: true,
        ..panel(
            "Share of completions",
            &["frac_reward_zero_std", "completions/clipped_ratio", "eval_completions/clipped_ratio"],
        )
    },
    Panel {
        noisy: true,
        ..panel("Implicit rewards", &["rewards/chosen", "rewards/rejected", "rewards/margins"])
    },
    Panel {
        noisy: true,
        ..panel(
            "Accuracy",
            &[
                "rewards/accuracies",
                "eval_rewards/accuracies",
                "mean_token_accuracy",
                "eval_mean_token_accuracy",
            ],
        )
    },
    Panel {
        budget: true,
        ..panel(
            "Divergence from the reference, nats",
            &[
                "tether/divergence",
                "tether/divergence_low",
                "tether/divergence_high",
                "tether/divergence_data",
            ],
        )
    },
    Panel { may_log: true, ..panel("Strength of the tether", &["tether/beta"]) },
    Panel { noisy: true, ..panel("Log-probabilities, nats", &["logps/chosen", "logps/rejected"]) },
    panel("Learning rate", &["learning_rate"]),
    Panel { may_log: true, noisy: true, ..panel("Gradient norm", &["grad_norm"]) },
];

/// The charts of a run: the known ones in their order, then one for each further metric.
pub(super) fn charts(curves: &[Curve], budget: Option<f64>) -> (Vec<Chart<'_>>, Vec<Chart<'_>>) {
    let mut known = Vec::new();
    for panel in PANELS {
        let mine: Vec<Curve> =
            panel.names.iter().filter_map(|name| curves.iter().find(|c| c.name == *name).cloned()).collect();
        if !mine.is_empty() {
            known.push(Chart {
                title: panel.title,
                x: None,
                curves: mine,
                limit: budget.filter(|_| panel.budget).map(|value| (value, "budget")),
                crosses: Vec::new(),
                may_log: panel.may_log,
                noisy: panel.noisy,
            });
        }
    }
    // Of the other metrics, an evaluation's is drawn with the one of training.
    let others: Vec<&Curve> = curves
        .iter()
        .filter(|c| !PANELS.iter().any(|panel| panel.names.contains(&c.name.as_str())))
        .collect();
    let evaluated =
        |name: &str| others.iter().find(|c| c.name.strip_prefix("eval_") == Some(name)).map(|c| (*c).clone());
    let trained = |name: &str| name.strip_prefix("eval_").is_some_and(|n| others.iter().any(|c| c.name == n));
    let further = others
        .iter()
        .filter(|curve| !trained(&curve.name))
        .map(|curve| Chart {
            title: &curve.name,
            x: None,
            curves: [Some((*curve).clone()), evaluated(&curve.name)].into_iter().flatten().collect(),
            limit: None,
            crosses: Vec::new(),
            may_log: false,
            noisy: false,
        })
        .collect();
    (known, further)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_on_exactly_one_chart() {
        let names = [
            "loss",
            "tether/divergence",
            "grad_norm",
            "num_tokens",
            "rewards/chosen",
            "rewards/rejected",
            "odd",
            "entropy",
            "eval_entropy",
        ];
        let curves: Vec<Curve> =
            names.iter().map(|name| Curve { name: (*name).into(), points: vec![(1.0, 1.0)] }).collect();
        let (known, further) = charts(&curves, Some(3.0));
        let mut drawn: Vec<_> =
            known.iter().chain(&further).flat_map(|c| c.curves.iter().map(|c| c.name.as_str())).collect();
        drawn.sort_unstable();
        let mut names = names.to_vec();
        names.sort_unstable();
        assert_eq!(drawn, names);
        let limits: Vec<_> =
            known.iter().filter(|c| c.limit.is_some()).map(|c| c.curves[0].name.as_str()).collect();
        assert_eq!(limits, ["tether/divergence"]);
    }
}
