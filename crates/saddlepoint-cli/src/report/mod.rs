//! `report.html`: one self-contained page about a run, made from the files of its directory alone.
//!
//! The page loads nothing: style, script and figures are inside, and its own policy forbids the rest.

mod chart;
mod frontier;
mod measure;
mod page;
mod panel;
mod reproduction;
mod run;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use frontier::{Frontier, Point, read as read_point, write as write_frontier};
pub(crate) use measure::Measure;
pub(crate) use reproduction::{About, write as write_reproduction};

/// File beside the others of a run that says what memory it took.
pub(crate) const COST: &str = "cost.json";

/// Writes `report.html` into the run directory; its path, and what the run changed on held-out data.
pub(crate) fn write(directory: &Path) -> Result<(PathBuf, Vec<Measure>)> {
    let path = directory.join("report.html");
    let run = run::Run::read(directory)?;
    saddlepoint_core::atomic::write(&path, page::render(&run).as_bytes())?;
    Ok((path, run.summary.as_ref().map(measure::measures).unwrap_or_default()))
}

/// Text as HTML, also inside quoted attributes.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_text() {
        assert_eq!(escape(r#"<script>"a" & 'b'"#), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
    }
}
