//! The page of a reproduction: its claims with their verdicts, and the curves behind them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use saddlepoint_core::reproduce::{Claim, Figure, Outcome};

use super::chart::Chart;
use super::escape;
use super::page::document;
use crate::output::{duration, interval, number};

/// What the page says beside the outcome.
#[derive(Debug)]
pub(crate) struct About<'a> {
    pub(crate) title: &'a str,
    pub(crate) paper: &'a str,
    pub(crate) experiment: &'a str,
    pub(crate) seeds: usize,
    pub(crate) full: bool,
}

/// Writes `report.html` into `directory`, which is made; its path.
pub(crate) fn write(
    directory: &Path,
    about: &About<'_>,
    outcome: &Outcome,
    figures: &[Figure],
) -> Result<PathBuf> {
    let path = directory.join("report.html");
    std::fs::create_dir_all(directory).map_err(|source| saddlepoint_core::Error::Io {
        action: "create",
        path: directory.to_owned(),
        source,
    })?;
    saddlepoint_core::atomic::write(&path, render(about, outcome, figures).as_bytes())?;
    Ok(path)
}

fn render(about: &About<'_>, outcome: &Outcome, figures: &[Figure]) -> String {
    let (state, verdict) = if outcome.holds { ("held", "holds") } else { ("missed", "does not hold") };
    let seeds = format!("{} seeds", about.seeds);
    let size = if about.full { "the full setting" } else { "the default setting" };
    let charts = figures.iter().fold(String::new(), |html, figure| html + &chart(figure).render());
    let mut body = format!(
        r#"<header><p class="brand">saddle reproduce {}</p><h1>{} <span class="verdict {state}">{verdict}</span></h1><p class="facts">{} · {seeds} · {size} · {}</p></header><section><p>{}</p></section>{}"#,
        escape(&outcome.slug),
        escape(about.title),
        escape(about.paper),
        duration(outcome.seconds),
        escape(about.experiment),
        claims(&outcome.claims),
    );
    if !figures.is_empty() {
        let _ = write!(body, r#"<section><h2>Curves</h2><div class="charts">{charts}</div></section>"#);
    }
    document(&outcome.slug, &body)
}

fn claims(claims: &[Claim]) -> String {
    let mut rows = String::new();
    for claim in claims {
        let (class, verdict) = if claim.holds { ("right", "holds") } else { ("wrong", "does not hold") };
        let _ = write!(
            rows,
            r#"<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class="holds {class}">{verdict}</td></tr>"#,
            escape(&claim.claim),
            escape(&claim.paper),
            number(claim.measured),
            interval(claim.interval),
        );
    }
    format!(
        r#"<section><h2>Claims</h2><table class="claims"><thead><tr><th>claim</th><th>in the paper</th><th>here</th><th>95 % interval</th><th></th></tr></thead><tbody>{rows}</tbody></table><p class="note">A claim about a mean holds if the whole interval over seeds is on the claimed side.</p></section>"#
    )
}

fn chart(figure: &Figure) -> Chart<'_> {
    Chart {
        title: &figure.title,
        x: Some(&figure.x),
        curves: figure.curves.clone(),
        limit: figure.limit.as_ref().map(|(value, name)| (*value, name.as_str())),
        crosses: Vec::new(),
        may_log: true,
        noisy: false,
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::reproduce::{Bound, Curve};

    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_is_said_as_plainly_as_one_that_does() {
        let claims = vec![
            Claim::mean("entropy <b>, nats", "rises", &[0.2, 0.25, 0.3], Bound::Above(0.0)),
            Claim::never("outside the box", "never", 3),
        ];
        let curve = Curve { name: "jsd".into(), points: vec![(0.5, 1.0), (0.7, 2.0)] };
        let figure =
            Figure { title: "Reward".into(), x: "divergence, nats".into(), curves: vec![curve], limit: None };
        let outcome = Outcome::new("f-dpo", claims, 61.0);
        let about = About { title: "T", paper: "P", experiment: "E", seeds: 3, full: false };
        let html = render(&about, &outcome, &[figure]);
        for part in [
            r#"<span class="verdict missed">does not hold</span>"#,
            "entropy &lt;b&gt;, nats &gt; 0",
            r#"<td class="holds right">holds</td>"#,
            r#"<td class="holds wrong">does not hold</td>"#,
            "3 seeds · the default setting · 1 min 01 s",
            "to the right: divergence, nats",
        ] {
            assert!(html.contains(part), "{part} is not in {html}");
        }
    }
}
