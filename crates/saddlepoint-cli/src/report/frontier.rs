//! Reward against divergence over several runs: one point a run, with the curve of the best of `N` beside them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use saddlepoint_core::interval::Mean;
use saddlepoint_core::reproduce::Curve;
use saddlepoint_lm::trainer::BestOf;
use serde::Serialize;
use serde_json::Value;

use super::chart::{Chart, Cross};
use super::page::document;
use super::{escape, run};
use crate::exit::Usage;
use crate::output::{interval, number};

/// What is drawn, and printed as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Frontier {
    /// What the reward is.
    pub(crate) reward: String,
    /// What the divergence is of.
    pub(crate) divergence: String,
    /// The runs, by divergence.
    pub(crate) points: Vec<Point>,
    /// The best of `N` samples of the reference; empty if it was not asked for.
    pub(crate) best_of: Vec<BestOf>,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Point {
    /// Folder of the run.
    pub(crate) run: PathBuf,
    /// Its method.
    pub(crate) method: String,
    /// The budget, if it had one.
    pub(crate) budget: Option<f64>,
    /// The last coefficient of the divergence.
    pub(crate) beta: f64,
    /// Divergence on held-out prompts, nats a sequence or token.
    pub(crate) divergence: f64,
    /// Its 95 % interval.
    pub(crate) divergence_interval: [f64; 2],
    /// Mean reward.
    pub(crate) reward: f64,
    /// Its 95 % interval over prompts, where the reward of each is known.
    pub(crate) reward_interval: Option<[f64; 2]>,
    /// Whether the budget held.
    pub(crate) held: Option<bool>,
    /// Which divergence from which reference, and its unit.
    #[serde(skip)]
    pub(crate) of: String,
    /// What the reward is.
    #[serde(skip)]
    pub(crate) rewarded: String,
}

/// The point of a run: the share of right samples after training, or the metric of the evaluation with this name.
pub(crate) fn read(directory: &Path, metric: Option<&str>) -> Result<Point> {
    let run = run::Run::read(directory)?;
    let refuse = |problem: &str| Usage(format!("{}: {problem}", directory.display()));
    let summary =
        run.summary.as_ref().ok_or_else(|| refuse("the run has not ended; continue it with --resume"))?;
    let tether =
        summary.tether.as_ref().ok_or_else(|| refuse("has no [tether], so its divergence is not known"))?;
    let right: Vec<f64> =
        run.samples.iter().filter_map(|s| s.after_right).map(|right| f64::from(u8::from(right))).collect();
    let (rewarded, reward, reward_interval) = if let (None, false) = (metric, right.is_empty()) {
        let Mean { value, interval } = Mean::of(&right);
        ("share of right samples".to_owned(), value, Some(interval))
    } else {
        let name = metric.unwrap_or("rewards/accuracies").trim_start_matches("eval_");
        let after = summary.evaluation.as_ref().map(|evaluation| &evaluation.after);
        let value = after.and_then(|after| after.get(name)).and_then(Value::as_f64);
        let known =
            after.map(|after| after.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
        let missing = format!("has no held-out metric {name}; choose one with --metric: {known}");
        (format!("held-out {name}"), value.ok_or_else(|| refuse(&missing))?, None)
    };
    Ok(Point {
        run: directory.to_owned(),
        method: run.setting("method.name").unwrap_or_default().to_owned(),
        budget: tether.budget,
        beta: tether.beta,
        divergence: tether.measured,
        divergence_interval: tether.interval,
        reward,
        reward_interval,
        held: tether.held,
        of: format!("{} from the {} reference, {}", tether.divergence, tether.reference, tether.per),
        rewarded,
    })
}

/// Writes the page.
pub(crate) fn write(path: &Path, frontier: &Frontier) -> Result<()> {
    Ok(saddlepoint_core::atomic::write(path, render(frontier).as_bytes())?)
}

fn render(frontier: &Frontier) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for point in &frontier.points {
        if !methods.contains(&point.method.as_str()) {
            methods.push(&point.method);
        }
    }
    let of = |method: &str| {
        let points = frontier.points.iter().filter(|point| point.method == method);
        Curve {
            name: method.to_owned(),
            points: points.map(|point| (point.divergence, point.reward)).collect(),
        }
    };
    let mut curves: Vec<Curve> = methods.iter().map(|method| of(method)).collect();
    if !frontier.best_of.is_empty() {
        let points = frontier.best_of.iter().map(|best| (best.divergence, best.reward)).collect();
        curves.push(Curve { name: "best of N".to_owned(), points });
    }
    let crosses = frontier.points.iter().map(|point| Cross {
        curve: methods.iter().position(|method| *method == point.method).unwrap_or_default(),
        x: point.divergence_interval,
        y: point.reward_interval.unwrap_or([point.reward; 2]),
        at: (point.divergence, point.reward),
    });
    let best = frontier.best_of.iter().map(|best| Cross {
        curve: methods.len(),
        x: [best.divergence; 2],
        y: best.interval,
        at: (best.divergence, best.reward),
    });
    let chart = Chart {
        title: &frontier.reward,
        x: Some(&frontier.divergence),
        curves,
        crosses: crosses.chain(best).collect(),
        limit: None,
        may_log: false,
        noisy: false,
    };
    let mut rows = String::new();
    for point in &frontier.points {
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} {}</td><td>{} {}</td></tr>",
            escape(&point.run.display().to_string()),
            escape(&point.method),
            point.budget.map_or_else(|| "–".to_owned(), number),
            number(point.beta),
            number(point.divergence),
            interval(point.divergence_interval),
            number(point.reward),
            point.reward_interval.map(interval).unwrap_or_default(),
        );
    }
    let body = format!(
        r#"<header><p class="brand">saddle frontier</p><h1>Reward against divergence</h1><p class="facts">{} runs</p></header><section><div class="charts">{}</div><p class="note">Crosses are 95 % intervals over held-out prompts.</p></section><section><h2>Runs</h2><table class="claims"><thead><tr><th>run</th><th>method</th><th>budget</th><th>beta</th><th>divergence</th><th>{}</th></tr></thead><tbody>{rows}</tbody></table></section>"#,
        frontier.points.len(),
        chart.render(),
        escape(&frontier.reward),
    );
    document("frontier", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_a_point_with_its_intervals_and_the_best_of_n_a_curve() {
        let point = |method: &str, divergence: f64| Point {
            run: PathBuf::from("runs/<a>"),
            method: method.to_owned(),
            budget: Some(0.5),
            beta: 0.1,
            divergence,
            divergence_interval: [divergence - 0.1, divergence + 0.1],
            reward: 0.7,
            reward_interval: Some([0.6, 0.8]),
            held: Some(true),
            of: String::new(),
            rewarded: String::new(),
        };
        let best = BestOf { n: 2, reward: 0.6, interval: [0.5, 0.7], divergence: 0.2, bound: 0.3 };
        let html = render(&Frontier {
            reward: "share of right samples".to_owned(),
            divergence: "reverse_kl from the initial reference, nats a sequence".to_owned(),
            points: vec![point("dpo", 0.2), point("dpo", 0.4), point("ipo", 0.3)],
            best_of: vec![best],
        });
        assert_eq!(html.matches(r#"<circle class="c0""#).count(), 2, "{html}");
        assert_eq!(html.matches(r#"<polyline class="c1 bar""#).count(), 2);
        assert!(html.contains(r#"<span class="key c2">best of N</span>"#) && html.contains("runs/&lt;a&gt;"));
    }
}
