//! `saddle doctor`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Args;
use saddlepoint_lm::data::doctor::{Piece, Severity};
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::trainer::{self, Job};
use serde_json::{Value, json};

use crate::describe;
use crate::exit::{Usage, Verdict};
use crate::output::Output;

const TRAINED: Style = AnsiColor::Green.on_default().bold();
const GIVEN: Style = Style::new().dimmed();

/// Show which tokens a recipe trains, and find what would fail silently
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle doctor examples/smollm2-dpo.toml")]
pub(crate) struct Arguments {
    /// Recipe (TOML)
    recipe: PathBuf,
    /// Change a key of the recipe; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Training examples to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let recipe = Recipe::load(&self.recipe, &self.sets)?;
        let job = Job::open(&trainer::resolved(&recipe)?)?;
        let mut findings: Vec<Line> =
            job.findings().iter().map(|f| (f.severity(), f.to_string(), json!(f))).collect();
        if !output.json() {
            output.say(format!("{}\n", describe::job(&job)?))?;
            for sequence in job.shown(self.samples) {
                output.say(format!("{}\n", shown(&sequence, output.colours())))?;
            }
            let legend = if output.colours() { "in colour" } else { "in brackets" };
            output.say(format!("{legend}: trained\n"))?;
        }
        // With nothing to train there is no gradient to look at.
        if !findings.iter().any(|finding| finding.0 == Severity::Error) {
            findings.splice(0..0, unreachable(&job.unreachable()?));
        }
        for (severity, message, object) in &findings {
            let mut line = json!({ "severity": severity, "message": message });
            if let (Some(line), Some(object)) = (line.as_object_mut(), object.as_object()) {
                line.extend(object.clone());
            }
            output.object(&line)?;
            if !output.json() {
                output.say(format!("{} {message}", badge(*severity)))?;
            }
        }
        if findings.iter().any(|finding| finding.0 == Severity::Error) {
            let problem =
                format!("{}: what is marked as error has to be put right first", self.recipe.display());
            return Err(Usage(problem).into());
        }
        if findings.is_empty() && !output.json() {
            output.say("nothing looks wrong")?;
        }
        Ok(Verdict::Done)
    }
}

/// Severity, words and numbers of a finding.
type Line = (Severity, String, Value);

/// The finding about tensors that get no gradient, if there are any.
fn unreachable(names: &[String]) -> Option<Line> {
    let first = names.first()?;
    let message = match names.len() {
        1 => format!("{first} gets no gradient and would stay as it is"),
        n => format!("{n} tensors get no gradient and would stay as they are, the first of them {first}"),
    };
    Some((Severity::Error, message, json!({ "finding": "unreachable", "tensors": names })))
}

/// Text as the model sees it, the trained parts in colour, or in brackets where there is none.
fn shown(sequence: &[Piece], colours: bool) -> String {
    let mut text = String::new();
    for Piece { text: piece, trained } in sequence {
        let _ = match (trained, colours) {
            (true, true) => write!(text, "{TRAINED}{piece}{TRAINED:#}"),
            (true, false) => write!(text, "[{piece}]"),
            (false, true) => write!(text, "{GIVEN}{piece}{GIVEN:#}"),
            (false, false) => write!(text, "{piece}"),
        };
    }
    text
}

fn badge(severity: Severity) -> String {
    let (colour, word) = match severity {
        Severity::Error => (AnsiColor::Red, "error"),
        Severity::Warning => (AnsiColor::Yellow, "warning"),
        Severity::Info => (AnsiColor::Cyan, "note"),
    };
    let style = colour.on_default().bold();
    format!("{style}{word}:{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_without_gradient_are_one_finding() {
        let names = |n: usize| (0..n).map(|i| format!("layer.{i}")).collect::<Vec<_>>();
        assert!(unreachable(&names(0)).is_none());
        let message = |n| unreachable(&names(n)).expect("a finding").1;
        assert_eq!(message(1), "layer.0 gets no gradient and would stay as it is");
        assert_eq!(
            message(3),
            "3 tensors get no gradient and would stay as they are, the first of them layer.0"
        );
    }

    #[test]
    fn what_is_trained_is_marked_with_and_without_colours() {
        let piece = |text: &str, trained| Piece { text: text.to_owned(), trained };
        let sequence = [piece("<|im_start|>user\nHi", false), piece("Hello.<|im_end|>", true)];
        assert_eq!(shown(&sequence, false), "<|im_start|>user\nHi[Hello.<|im_end|>]");
        let coloured = shown(&sequence, true);
        assert!(coloured.ends_with("\u{1b}[1m\u{1b}[32mHello.<|im_end|>\u{1b}[0m"), "{coloured:?}");
    }
}
