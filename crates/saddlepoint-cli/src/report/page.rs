//! The report's HTML.

use std::fmt::Write as _;

use super::chart::Chart;
use super::escape;
use super::measure::{self, Measure};
use super::panel;
use saddlepoint_lm::tether::{self, Verdict};
use saddlepoint_lm::trainer::Summary;

use super::run::{Cost, Run, Sample};
use crate::output::{bytes, duration, number};

/// Samples that are shown at once.
const SAMPLES: usize = 12;

/// The whole page.
pub(super) fn render(run: &Run) -> String {
    let summary = run.summary.as_ref();
    let tether = summary.and_then(|s| s.tether.as_ref());
    let budget = tether
        .and_then(|t| t.budget)
        .or_else(|| run.setting("tether.budget").and_then(|text| text.parse().ok()));
    let (charts, further) = panel::charts(&run.curves, budget);
    let mut body = header(run, tether);
    body += &summary.map_or(String::new(), measures);
    if let Some(tether) = tether {
        body += &gauge(tether);
    }
    body += &curves(&charts, &further);
    body += &samples(&run.samples);
    body += &cost(&run.cost);
    body += &settings(run);
    document(&run.name, &body)
}

/// A self-contained page.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{} · saddle</title>
<style>{}</style></head>
<body><main>{body}</main><script>{}</script></body></html>
"#,
        escape(title),
        include_str!("page.css"),
        include_str!("page.js"),
    )
}

fn header(run: &Run, tether: Option<&tether::Report>) -> String {
    let (state, verdict) = match (&run.summary, tether.and_then(|t| t.verdict)) {
        (None, _) => ("open", "not finished"),
        (Some(_), None) => ("open", "finished"),
        (Some(_), Some(Verdict::Held)) => ("held", "budget held"),
        (Some(_), Some(Verdict::Undecided)) => ("open", "budget undecided"),
        (Some(_), Some(Verdict::NotHeld)) => ("missed", "budget not held"),
    };
    let method = run.setting("method.name").unwrap_or("run");
    let mut facts = Vec::new();
    for key in ["model.path", "model.recipe", "data.path", "data.generate.task"] {
        if let Some(value) = run.setting(key) {
            facts.push(escape(value));
        }
    }
    if let Some(summary) = &run.summary {
        facts.push(format!("{} steps", summary.steps));
        if summary.model_step != summary.steps {
            facts.push(format!("ends with the weights of step {}", summary.model_step));
        }
        facts.push(duration(summary.seconds));
    }
    format!(
        r#"<header><p class="brand">saddle · {}</p><h1>{} <span class="verdict {state}">{verdict}</span></h1><p class="facts">{}</p></header>"#,
        escape(&run.name),
        escape(&method.to_uppercase()),
        facts.join(" · "),
    )
}

/// What changed on data that was not trained on.
fn measures(summary: &Summary) -> String {
    let mut cards = String::new();
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
    for Measure { name, before, after } in measure::measures(summary) {
        let _ = write!(
            cards,
            r#"<div class="card"><p>{}</p><p class="value"><span class="from">{} →</span> {}</p></div>"#,
            escape(&name),
            shown(before),
            shown(after),
        );
    }
    if cards.is_empty() {
        return cards;
    }
    format!(
        r#"<section><h2>Before and after</h2><div class="cards">{cards}</div><p class="note">before the first step → with the weights of step {}</p></section>"#,
        summary.model_step
    )
}

/// The measured divergence with its interval on a bar that ends beyond the budget.
fn gauge(tether: &tether::Report) -> String {
    let [low, high] = tether.interval;
    let end = 1.15 * high.max(tether.measured).max(tether.budget.unwrap_or(0.0));
    let at = |value: f64| if end > 0.0 { (value / end * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    let state = match tether.verdict {
        Some(Verdict::Held) => "held",
        Some(Verdict::NotHeld) => "missed",
        Some(Verdict::Undecided) | None => "open",
    };
    let (mark, against) = match tether.budget {
        Some(budget) => (
            format!(
                r#"<i class="room" style="width:{0:.2}%"></i><i class="budget" style="left:{0:.2}%"></i>"#,
                at(budget)
            ),
            format!("budget <b>{}</b> nats", number(budget)),
        ),
        None => (String::new(), format!("penalty with beta <b>{}</b>", number(tether.beta))),
    };
    let mut source = format!(
        "{} from the {} reference, {}: mean of {} samples of {} held-out prompts",
        tether.divergence, tether.reference, tether.per, tether.samples, tether.prompts,
    );
    if tether.truncated > 0 {
        let _ = write!(source, ", {} of them cut at the longest length", tether.truncated);
    }
    format!(
        r#"<section><h2>Divergence from the reference</h2><div class="gauge {state}">{mark}<i class="interval" style="left:{:.2}%;width:{:.2}%"></i><i class="measured" style="left:{:.2}%"></i></div><p class="reading"><span>measured <b>{}</b> nats, 95 % interval {} to {}</span><span>{against}</span></p><p class="note">{}</p></section>"#,
        at(low),
        at(high) - at(low),
        at(tether.measured),
        number(tether.measured),
        number(low),
        number(high),
        escape(&source),
    )
}

fn curves(charts: &[Chart<'_>], further: &[Chart<'_>]) -> String {
    let figures = |charts: &[Chart<'_>]| charts.iter().map(Chart::render).collect::<String>();
    let mut html = String::new();
    if !charts.is_empty() {
        let _ = write!(
            html,
            r#"<section><h2>Curves over optimizer steps</h2><div class="charts">{}</div></section>"#,
            figures(charts)
        );
    }
    if !further.is_empty() {
        let _ = write!(
            html,
            r#"<details><summary>{} further metrics</summary><div class="charts">{}</div></details>"#,
            further.len(),
            figures(further)
        );
    }
    html
}

/// The first samples; the others are folded away.
fn samples(samples: &[Sample]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let (shown, folded) = samples.split_at(samples.len().min(SAMPLES));
    let articles = |samples: &[Sample]| {
        samples.iter().fold(r#"<div class="samples">"#.to_owned(), |html, s| html + &article(s)) + "</div>"
    };
    let mut html = format!("<section><h2>Samples</h2>{}", articles(shown));
    if !folded.is_empty() {
        let _ = write!(
            html,
            "<details><summary>{} further samples</summary>{}</details>",
            folded.len(),
            articles(folded)
        );
    }
    html + "</section>"
}

fn article(sample: &Sample) -> String {
    let column = |when: &str, text: Option<&String>, right: Option<bool>| {
        let Some(text) = text else { return String::new() };
        let judged = match right {
            Some(true) => r#" · <span class="right">right</span>"#,
            Some(false) => r#" · <span class="wrong">wrong</span>"#,
            None => "",
        };
        format!(r#"<div><p class="when">{when}{judged}</p><pre>{}</pre></div>"#, escape(text))
    };
    format!(
        r#"<article><pre class="prompt">{}</pre><div class="pair">{}{}</div></article>"#,
        escape(&sample.prompt),
        column("before", sample.before.as_ref(), sample.before_right),
        column("after", sample.after.as_ref(), sample.after_right),
    )
}

fn cost(cost: &Cost) -> String {
    let planned = cost.planned.iter().filter_map(|(part, size)| Some((part.as_str(), bytes(size.as_u64()?))));
    let peak = cost.peak.map(|peak| ("most held by the process", bytes(peak)));
    let memory = rows(planned.chain(peak));
    if memory.is_empty() {
        memory
    } else {
        format!("<section><h2>Memory</h2><table>{memory}</table></section>")
    }
}

fn settings(run: &Run) -> String {
    let config = rows(run.config.iter().map(|(key, value)| (key.as_str(), value.clone())));
    let meta = rows(run.meta.iter().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (key.as_str(), text)
    }));
    let mut html = String::new();
    for (title, rows) in [("Configuration", config), ("Provenance", meta)] {
        if !rows.is_empty() {
            let _ = write!(html, "<details><summary>{title}</summary><table>{rows}</table></details>");
        }
    }
    html
}

fn rows<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut html = String::new();
    for (name, value) in pairs {
        let _ = write!(html, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(&value));
    }
    html
}
