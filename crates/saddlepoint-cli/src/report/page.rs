//! The report's HTML.

use std::fmt::Write as _;

use super::chart::Chart;
use super::escape;
use super::panel;
use super::run::{Pair, Run, Summary, Tether};
use crate::output::{bytes, duration, number};

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

fn header(run: &Run, tether: Option<&Tether>) -> String {
    let verdict = match (run.summary.is_some(), tether.and_then(|t| t.held)) {
        (false, _) => r#"<span class="verdict open">not finished</span>"#,
        (true, Some(true)) => r#"<span class="verdict held">budget held</span>"#,
        (true, Some(false)) => r#"<span class="verdict missed">budget not held</span>"#,
        (true, None) => r#"<span class="verdict open">finished</span>"#,
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
        r#"<header><p class="brand">saddle · {}</p><h1>{} {verdict}</h1><p class="facts">{}</p></header>"#,
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
fn gauge(tether: &Tether) -> String {
    let [low, high] = tether.interval.unwrap_or([tether.measured; 2]);
    let budget = tether.budget;
    let end = high.max(tether.measured).max(budget.unwrap_or(0.0)) * 1.15;
    let at = |value: f64| if end > 0.0 { (value / end * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    let state = match tether.held {
        Some(true) => "held",
        Some(false) => "missed",
        None => "open",
    };
    let interval = tether
        .interval
        .map(|[low, high]| format!(", 95 % interval {} to {}", number(low), number(high)))
        .unwrap_or_default();
    let mark = budget
        .map(|b| {
            format!(
                r#"<i class="room" style="width:{:.2}%"></i><i class="budget" style="left:{:.2}%"></i>"#,
                at(b),
                at(b)
            )
        })
        .unwrap_or_default();
    let against = match budget {
        Some(budget) => format!("budget <b>{}</b> nats", number(budget)),
        None => "no budget: a penalty".to_owned(),
    };
    format!(
        r#"<section><h2>Divergence from the reference</h2><div class="gauge {state}">{mark}<i class="interval" style="left:{:.2}%;width:{:.2}%"></i><i class="measured" style="left:{:.2}%"></i></div><p class="reading"><span>measured <b>{}</b> nats{interval}</span><span>{against}</span></p><p class="note">{} from the {} reference, on held-out prompts and the model's own samples</p></section>"#,
        at(low),
        at(high) - at(low),
        at(tether.measured),
        number(tether.measured),
        escape(&tether.divergence),
        escape(&tether.reference),
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
