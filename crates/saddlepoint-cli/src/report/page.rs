//! The report's HTML.

use std::fmt::Write as _;

use super::chart::Chart;
use super::escape;
use super::panel;
use saddlepoint_lm::tether::{self, Verdict};

use super::run::{Pair, Run, Summary};
use crate::output::{bytes, duration, number, word};

/// The whole page.
pub(super) fn render(run: &Run) -> String {
    let summary = run.summary.as_ref();
    let tether = summary.and_then(|s| s.tether.as_ref());
    let budget = tether
        .and_then(|t| t.budget)
        .or_else(|| run.setting("tether.budget").and_then(|text| text.parse().ok()));
    let (charts, further) = panel::charts(&run.curves, budget);
    let mut body = header(run, tether);
    if let Some(summary) = summary {
        body += &measures(summary);
    }
    if let Some(tether) = tether {
        body += &gauge(tether);
    }
    body += &curves(&charts, &further);
    body += &samples(&run.samples);
    if let Some(summary) = summary {
        body += &cost(summary);
    }
    body += &settings(run);
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
        escape(&run.name),
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
    for key in ["model.path", "data.path"] {
        if let Some(value) = run.setting(key) {
            facts.push(escape(value));
        }
    }
    if let Some(summary) = &run.summary {
        facts.push(format!("{} steps", summary.steps));
        facts.push(duration(summary.seconds));
    }
    format!(
        r#"<header><p class="brand">saddle · {}</p><h1>{} <span class="verdict {state}">{verdict}</span></h1><p class="facts">{}</p></header>"#,
        escape(&run.name),
        escape(&method.to_uppercase()),
        facts.join(" · "),
    )
}

/// The held-out measures, before and after.
fn measures(summary: &Summary) -> String {
    let mut cards = String::new();
    for (name, after) in &summary.after {
        let change = summary.before.get(name).map_or_else(String::new, |before| {
            format!(r#"<span class="from">{} →</span> "#, number(*before))
        });
        let _ = write!(
            cards,
            r#"<div class="card"><p>{}</p><p class="value">{change}{}</p></div>"#,
            escape(name),
            number(*after),
        );
    }
    if cards.is_empty() {
        return cards;
    }
    format!(
        r#"<section><h2>Held-out measures, before → after</h2><div class="cards">{cards}</div></section>"#
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
        "{} from the {} reference, nats a sequence: mean of {} samples of {} held-out prompts",
        word(&tether.divergence),
        word(&tether.reference),
        tether.samples,
        tether.prompts,
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

fn samples(pairs: &[Pair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let column = |when: &str, step: u64, text: &str| {
        format!(r#"<div><p class="when">{when} · step {step}</p><pre>{}</pre></div>"#, escape(text))
    };
    let mut html = "<section><h2>Samples</h2>".to_owned();
    for pair in pairs {
        let _ = write!(
            html,
            r#"<article><pre class="prompt">{}</pre><div class="pair">"#,
            escape(&pair.before.prompt)
        );
        html += &column("before", pair.before.step, &pair.before.completion);
        if pair.after.step > pair.before.step {
            html += &column("after", pair.after.step, &pair.after.completion);
        }
        html += "</div></article>";
    }
    html + "</section>"
}

fn cost(summary: &Summary) -> String {
    let memory = rows(summary.memory.iter().map(|(part, size)| (part.as_str(), bytes(*size))));
    let time = rows(summary.timing.iter().map(|(phase, seconds)| (phase.as_str(), duration(*seconds))));
    let mut html = String::new();
    for (title, rows) in [("Memory", memory), ("Time", time)] {
        if !rows.is_empty() {
            let _ = write!(html, "<div><h2>{title}</h2><table>{rows}</table></div>");
        }
    }
    if html.is_empty() { html } else { format!(r#"<section class="two">{html}</section>"#) }
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
