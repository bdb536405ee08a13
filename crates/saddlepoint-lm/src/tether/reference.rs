//! What a policy is held to.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::setting;
use crate::Result;

/// What the policy is held to. Log-probabilities of the reference that a method reads are of the same one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferenceConfig {
    /// The policy as it was before the first step. With an adapter it is the base with the adapter off, and costs no
    /// memory.
    #[default]
    Initial,
    /// Another model with the same tokenizer, of any shape: a Hugging Face folder or a `.gguf` file.
    Checkpoint(
        /// Another model with the same tokenizer, of any shape: a Hugging Face folder or a `.gguf` file.
        PathBuf,
    ),
    /// The weighted mean of the weights of several models that were fine-tuned from the same one (a model soup; SALSA,
    /// arXiv:2411.01798).
    Soup(
        /// The models whose weighted mean it is. They have one shape, and were fine-tuned from the same model.
        Vec<Ingredient>,
    ),
    /// A moving average of the policy's trained weights. TR-DPO (arXiv:2404.09656) is `decay = 0.4, every = 512`.
    Ema(Ema),
    /// The policy as it was at the last step that is a multiple of this number: a trust region around a recent iterate.
    Previous(
        /// Optimizer steps between two copies of the policy, at least 1.
        u64,
    ),
}

/// A model of a soup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ingredient {
    /// A Hugging Face folder or a `.gguf` file.
    pub path: PathBuf,
    /// Its share, > 0; shares are divided by their sum.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

/// A moving average: after every `every` steps `reference <- decay reference + (1 - decay) policy`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ema {
    /// Share of the past that stays, in [0, 1).
    pub decay: f64,
    /// Optimizer steps between two moves, at least 1.
    pub every: u64,
}

impl Default for Ema {
    fn default() -> Self {
        Self { decay: 0.99, every: 1 }
    }
}

impl ReferenceConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |key: &str, problem: String| Err(setting(&format!("reference.{key}"), problem));
        match self {
            Self::Soup(parts) if parts.is_empty() => refuse("soup", "names no model".to_owned()),
            Self::Soup(parts) => match parts
                .iter()
                .find(|part| !(part.weight > 0.0 && part.weight.is_finite()))
            {
                Some(part) => refuse("soup.weight", format!("must be > 0, got {} (default 1)", part.weight)),
                None => Ok(()),
            },
            Self::Ema(Ema { decay, .. }) if !(0.0..1.0).contains(decay) => {
                refuse("ema.decay", format!("must be in [0, 1), got {decay} (default 0.99)"))
            }
            Self::Ema(Ema { every: 0, .. }) => {
                refuse("ema.every", "must be at least 1, got 0 (default 1)".to_owned())
            }
            Self::Previous(0) => refuse("previous", "must be at least 1, got 0".to_owned()),
            Self::Initial | Self::Checkpoint(_) | Self::Ema(_) | Self::Previous(_) => Ok(()),
        }
    }

    /// Whether its weights are those that the policy starts with.
    pub fn starts_at_policy(&self) -> bool {
        !matches!(self, Self::Checkpoint(_) | Self::Soup(_))
    }

    /// Whether it moves while the policy is trained.
    pub fn moves(&self) -> bool {
        matches!(self, Self::Ema(_) | Self::Previous(_))
    }

    /// The share of itself that it keeps after step `step` (counted from 1), if it moves then.
    pub fn decay_after(&self, step: u64) -> Option<f32> {
        let (decay, every) = match *self {
            Self::Ema(Ema { decay, every }) => (decay as f32, every),
            Self::Previous(every) => (0.0, every),
            _ => return None,
        };
        step.is_multiple_of(every).then_some(decay)
    }

    /// The files that it names.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Checkpoint(path) => vec![path],
            Self::Soup(parts) => parts.iter_mut().map(|part| &mut part.path).collect(),
            _ => Vec::new(),
        }
    }
}

/// As in `from the ... reference`.
impl fmt::Display for ReferenceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Initial => write!(f, "initial"),
            Self::Checkpoint(path) => write!(f, "{}", path.display()),
            Self::Soup(parts) => write!(f, "soup of {}", parts.len()),
            Self::Ema(ema) => write!(f, "moving average ({})", ema.decay),
            Self::Previous(_) => write!(f, "previous"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_moves_after_the_steps_that_it_names() {
        let moves =
            |reference: ReferenceConfig| (1..=6).map(|step| reference.decay_after(step)).collect::<Vec<_>>();
        assert_eq!(moves(ReferenceConfig::Initial), [None; 6]);
        let ema = ReferenceConfig::Ema(Ema { decay: 0.5, every: 2 });
        assert_eq!(moves(ema), [None, Some(0.5), None, Some(0.5), None, Some(0.5)]);
        assert_eq!(moves(ReferenceConfig::Previous(3)), [None, None, Some(0.0), None, None, Some(0.0)]);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let soup = |weight| ReferenceConfig::Soup(vec![Ingredient { path: PathBuf::from("a"), weight }]);
        for (reference, message) in [
            (ReferenceConfig::Soup(Vec::new()), "tether.reference.soup: names no model"),
            (soup(0.0), "tether.reference.soup.weight: must be > 0, got 0 (default 1)"),
            (
                ReferenceConfig::Ema(Ema { decay: 1.0, every: 1 }),
                "tether.reference.ema.decay: must be in [0, 1), got 1 (default 0.99)",
            ),
            (
                ReferenceConfig::Ema(Ema { decay: 0.5, every: 0 }),
                "tether.reference.ema.every: must be at least 1, got 0 (default 1)",
            ),
            (ReferenceConfig::Previous(0), "tether.reference.previous: must be at least 1, got 0"),
        ] {
            assert_eq!(reference.check().expect_err("refused").to_string(), message);
        }
    }
}
