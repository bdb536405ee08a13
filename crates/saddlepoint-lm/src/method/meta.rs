//! What a method says about itself.

use serde::Serialize;

use super::Input;

/// One row of the table of methods.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Meta {
    /// Name in a recipe.
    pub name: &'static str,
    /// What it learns from.
    pub family: Family,
    /// What the data must be.
    pub input: Input,
    /// Where it was published.
    pub paper: &'static str,
    /// How far it is to be trusted.
    pub status: Status,
    /// Reproduction of its paper, where there is one (`saddle reproduce SLUG`).
    pub slug: Option<&'static str>,
    /// One line.
    pub summary: &'static str,
    /// Learning rate where a recipe gives none: TRL's default for the method, where TRL has it.
    pub learning_rate: f64,
}

/// What a method learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Texts to imitate.
    Supervised,
    /// Completions that are judged: a better and a worse one, or each by itself.
    Preferences,
    /// Rewards of the model's own completions.
    Rewards,
}

/// How far a method is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its settings may change.
    Preview,
    /// Checked against its peer; its settings stay.
    Stable,
}
