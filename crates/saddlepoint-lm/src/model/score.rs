//! What reward models have beside a decoder: weights that score the last hidden state, and the scale of what they say.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ModelFolder, bad, json, put, unreadable};
use crate::Result;
use crate::engine::{SCORE, TensorSpec, WeightSource};

/// File of a [`ScoreScale`] in the folder of a reward model.
const SCALE: &str = "score_scale.json";

/// The weights of a model with those of a score that its files do not have.
#[derive(Debug)]
pub struct Scored<'a> {
    /// The model.
    pub model: &'a ModelFolder,
    /// Weights of the score, `[d]`.
    pub score: Vec<f32>,
}

impl WeightSource for Scored<'_> {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
        if spec.name != SCORE {
            return self.model.source().read(spec, out);
        }
        out.copy_from_slice(&self.score);
        Ok(())
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        self.model.source().unused(specs)
    }
}

/// Mean and standard deviation of a reward model's scores of held-out completions: what makes the scores of several models
/// comparable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreScale {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of a sample (`n - 1`).
    pub std: f64,
    /// Of so many completions.
    pub completions: usize,
}

impl ScoreScale {
    /// The scale of scores; none of fewer than two, or of equal ones.
    pub fn of(scores: &[f64]) -> Option<Self> {
        let completions = scores.len();
        let mean = scores.iter().sum::<f64>() / completions as f64;
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        let std = (squares / (completions as f64 - 1.0)).sqrt();
        (completions > 1 && std > 0.0 && std.is_finite()).then_some(Self { mean, std, completions })
    }

    /// `(score - mean) / std`.
    pub fn normalized(&self, score: f64) -> f64 {
        (score - self.mean) / self.std
    }

    /// Reads it from the folder of a reward model; none if there is none.
    ///
    /// # Errors
    /// The file cannot be read or is no scale.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(SCALE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(unreadable(&path, source)),
        };
        let scale: Self = serde_json::from_slice(&bytes)
            .map_err(|error| bad(&path, format!("is no scale of scores: {error}")))?;
        if !(scale.mean.is_finite() && scale.std > 0.0 && scale.std.is_finite()) {
            return Err(bad(&path, format!("must have a finite mean and a positive std, has {scale:?}")));
        }
        Ok(Some(scale))
    }

    /// Writes it into the folder of a reward model.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let value = serde_json::to_value(self).expect("numbers are JSON");
        put(&folder.join(SCALE), &json::to_bytes(value.as_object().expect("a struct")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_on_their_scale_have_mean_0_and_deviation_1() {
        let scores = [1.0, 4.0, 2.5, -3.0];
        let scale = ScoreScale::of(&scores).expect("they differ");
        let normalized: Vec<f64> = scores.iter().map(|&score| scale.normalized(score)).collect();
        let again = ScoreScale::of(&normalized).expect("they differ");
        assert!(again.mean.abs() < 1e-15 && (again.std - 1.0).abs() < 1e-15, "{again:?}");
        assert_eq!((ScoreScale::of(&[1.0]), ScoreScale::of(&[2.0, 2.0])), (None, None));
    }

    #[test]
    fn a_scale_survives_its_file_and_a_bad_one_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(ScoreScale::read(folder.path()).expect("no file is fine"), None);
        let scale = ScoreScale { mean: 0.1, std: 0.7, completions: 12 };
        scale.write(folder.path()).expect("writable");
        assert_eq!(ScoreScale::read(folder.path()).expect("readable"), Some(scale));
        ScoreScale { std: 0.0, ..scale }.write(folder.path()).expect("writable");
        let told = ScoreScale::read(folder.path()).expect_err("refused").to_string();
        assert!(told.contains("score_scale.json: must have a finite mean and a positive std"), "{told}");
    }
}
