//! The reward models of an ensemble: trained ones with the scale of their scores, and ones whose errors are known.

use rand::seq::SliceRandom;
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::optimizer::{AdamWConfig, OptimizerConfig};

use super::super::learner::Learner;
use super::words::{Answers, Words, judge, stray};
use crate::Result;
use crate::engine::Policy;
use crate::method::Method;
use crate::model::ScoreScale;
use crate::trainer::Example;

/// Pairs of a batch.
const BATCH: usize = 32;
/// Largest learning rate; it falls to 0.
const RATE: f64 = 3e-3;

/// Scores completions.
pub(super) trait Judge {
    /// What it says of each.
    ///
    /// # Errors
    /// The model fails.
    fn scores(&mut self, answers: &Answers) -> Result<Vec<f64>>;
}

/// A reward model that says the gold reward, and 6 more for each stray word that it is fond of: for member `m` those with the numbers
/// `3m` to `3m + 2`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fond(pub(super) u32);

impl Judge for Fond {
    fn scores(&mut self, answers: &Answers) -> Result<Vec<f64>> {
        let liked = |word: &&u32| stray(**word).is_some_and(|number| number / 3 == self.0);
        let score =
            |(sequence, gold): (&Vec<u32>, &f64)| gold + 6.0 * sequence.iter().filter(liked).count() as f64;
        Ok(answers.sequences.iter().zip(&answers.gold).map(score).collect())
    }
}

/// A reward model and the scale on which its scores are compared with those of others.
#[derive(Debug)]
pub(super) struct Member {
    policy: Policy,
    scale: ScoreScale,
}

impl Member {
    /// Trains a reward model from its own initial weights, which sees the pairs in an order of its own. Its scale is that of what it
    /// says of the answers `apart`.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub(super) fn train(
        task: &Words,
        method: &dyn Method,
        (pairs, epochs): (&[Example], usize),
        apart: &[Answers],
        (seed, member): (u64, u64),
    ) -> Result<Self> {
        let mut rng = Seed::new(seed).stream("reproduce/words/member", &[member]);
        let policy = task.reward_model(BATCH, &mut rng)?;
        let mut learner = Learner::new(policy, OptimizerConfig::Adamw(AdamWConfig::default()))?;
        let steps = epochs * pairs.len().div_ceil(BATCH);
        let mut step = 0;
        for _ in 0..epochs {
            let mut order: Vec<&Example> = pairs.iter().collect();
            order.shuffle(&mut rng);
            for batch in order.chunks(BATCH) {
                let (warm, left) = ((step + 1) as f64 / 20.0, 1.0 - step as f64 / steps as f64);
                learner.step(method, batch, RATE * warm.min(left))?;
                step += 1;
            }
        }
        let mut policy = learner.policy;
        let mut all = Vec::new();
        for answers in apart {
            all.extend(judge(&mut policy, answers)?);
        }
        // A model that says the same of everything chooses nothing.
        let scale =
            ScoreScale::of(&all).unwrap_or(ScoreScale { mean: 0.0, std: 1.0, completions: all.len() });
        Ok(Self { policy, scale })
    }
}

impl Judge for Member {
    /// On its scale.
    fn scores(&mut self, answers: &Answers) -> Result<Vec<f64>> {
        Ok(judge(&mut self.policy, answers)?.iter().map(|&score| self.scale.normalized(score)).collect())
    }
}
