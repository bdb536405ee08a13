//! A run directory as the report needs it. A file that is absent leaves its part empty: a report of an
//! interrupted run shows what there is.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use saddlepoint_core::config;
use saddlepoint_core::reproduce::Curve;
use saddlepoint_lm::trainer::Summary;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::exit::Usage;

/// What the files of a run say.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Name of the directory.
    pub(super) name: String,
    /// Resolved configuration as `(dotted key, value)`, in the file's order.
    pub(super) config: Vec<(String, String)>,
    /// Program, machine and seed.
    pub(super) meta: Map<String, Value>,
    /// Every logged metric.
    pub(super) curves: Vec<Curve>,
    /// Samples before and after training.
    pub(super) samples: Vec<Sample>,
    /// Memory, planned and measured.
    pub(super) cost: Cost,
    /// The outcome; absent while a run has not ended.
    pub(super) summary: Option<Summary>,
}

/// A line of `samples.jsonl`: what the model says to a prompt before and after training.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sample {
    /// The prompt.
    pub(super) prompt: String,
    /// What it said before training.
    pub(super) before: Option<String>,
    /// What it says after.
    pub(super) after: Option<String>,
    /// Whether that was right, where a rule says what is.
    pub(super) before_right: Option<bool>,
    /// The same after.
    pub(super) after_right: Option<bool>,
    /// The step at which it was trained on, of a completion that was.
    step: Option<u64>,
}

/// The samples before and after training, without those that were trained on.
fn compared(samples: Vec<Sample>) -> Vec<Sample> {
    samples.into_iter().filter(|sample| sample.step.is_none()).collect()
}

/// What a run cost.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cost {
    /// Memory by part, in bytes, as planned before the run.
    pub(super) planned: Map<String, Value>,
    /// Most memory that the process held, in bytes; none where the system does not say.
    pub(super) peak: Option<u64>,
}

impl Run {
    /// Reads a run directory.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let Some(config) = read(directory, "config.toml", toml)? else {
            let problem = format!("{}: no config.toml; not a run directory", directory.display());
            return Err(Usage(problem).into());
        };
        let plain = |value: toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rows = config::leaves(&config).into_iter().map(|(path, value)| (path, plain(value))).collect();
        Ok(Run {
            name: directory.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            config: rows,
            meta: read(directory, "meta.json", json)?.unwrap_or_default(),
            curves: curves(&read(directory, "metrics.jsonl", lines)?.unwrap_or_default()),
            samples: read(directory, "samples.jsonl", lines)?.map_or_else(Vec::new, compared),
            cost: read(directory, super::COST, json)?.unwrap_or_default(),
            summary: read(directory, "summary.json", json)?,
        })
    }

    /// A value of the configuration.
    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        self.config.iter().find(|row| row.0 == key).map(|row| row.1.as_str())
    }
}

/// `parse` gives the value, or the line and what is wrong there.
fn read<T>(
    directory: &Path,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, (usize, String)>,
) -> Result<Option<T>> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => match parse(&text) {
            Ok(value) => Ok(Some(value)),
            Err((line, problem)) => Err(saddlepoint_core::Error::Damaged { path, line, problem }.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn toml(text: &str) -> Result<toml::Table, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        (text[..start].lines().count().max(1), error.message().to_owned())
    })
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, (usize, String)> {
    serde_json::from_str(text).map_err(|error| (error.line(), problem(&error)))
}

/// Complete lines only: the last one of a running run may be half written.
fn lines<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, (usize, String)> {
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |(i, line)| serde_json::from_str(line).map_err(|error| (i + 1, problem(&error)));
    complete.lines().enumerate().map(line).collect()
}

/// What the parser met, without the place that it appends.
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(problem, _)| problem.to_owned())
}

/// The metrics by name, in the order in which they first appear; values that were not finite are left out here
/// because the recorder has counted them.
fn curves(lines: &[Map<String, Value>]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for line in lines {
        let step = line.get("step").and_then(Value::as_f64).unwrap_or_default();
        for (name, value) in line.iter().filter(|(name, _)| *name != "step") {
            let Some(value) = value.as_f64() else { continue };
            match curves.iter_mut().find(|curve| curve.name == *name) {
                Some(curve) => curve.points.push((step, value)),
                None => curves.push(Curve { name: name.clone(), points: vec![(step, value)] }),
            }
        }
    }
    curves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_become_curves_and_gaps_stay_gaps() {
        let text =
            "{\"step\":1,\"loss\":2.0,\"kl\":null}\n{\"step\":2,\"loss\":1.0,\"kl\":0.5}\n{\"step\":3,\"lo";
        let curves = curves(&lines(text).expect("two complete lines"));
        assert_eq!(curves[0].points, [(1.0, 2.0), (2.0, 1.0)]);
        assert_eq!((curves[1].name.as_str(), curves[1].points.as_slice()), ("kl", &[(2.0, 0.5)][..]));
    }

    #[test]
    fn completions_that_were_trained_on_are_not_compared() {
        let text = "{\"step\":1,\"prompt\":\"a\"}\n{\"prompt\":\"b\",\"before\":\"x\",\"after\":\"y\"}\n";
        let samples = compared(lines(text).expect("two lines"));
        assert_eq!((samples.len(), samples[0].prompt.as_str()), (1, "b"));
    }

    #[test]
    fn a_folder_without_configuration_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Run::read(folder.path()).expect_err("not a run");
        assert!(error.to_string().ends_with("no config.toml; not a run directory"), "{error}");
    }
}
