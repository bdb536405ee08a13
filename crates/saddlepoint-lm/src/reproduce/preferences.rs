//! Training on pairs of the two-digit task, looked at on the way: the setting that papers on preference losses share.

use saddlepoint_core::reproduce::{Curve, Figure};
use saddlepoint_opt::optimizer::{AdamWConfig, OptimizerConfig};

use super::learner::Learner;
use super::two_digits::{Shown, TwoDigits};
use crate::Result;
use crate::engine::Policy;
use crate::method::Method;
use crate::trainer::Example;

/// How large an experiment is.
pub(super) struct Size {
    pub(super) width: usize,
    pub(super) base_steps: usize,
    pub(super) steps: usize,
    pub(super) prompts: usize,
}

impl Size {
    /// The default setting, or the larger one.
    pub(super) fn of(full: bool) -> &'static Self {
        if full { &FULL } else { &DEFAULT }
    }
}

const DEFAULT: Size = Size { width: 64, base_steps: 800, steps: 400, prompts: 64 };
const FULL: Size = Size { width: 128, base_steps: 2000, steps: 2000, prompts: 256 };

#[cfg(test)]
pub(super) const TINY: Size = Size { width: 32, base_steps: 200, steps: 100, prompts: 16 };

/// Strength of the pull to the reference.
pub(super) const BETA: f64 = 0.1;
/// Pairs of a batch.
pub(super) const PAIRS: usize = 32;
/// Most samples after a prompt, for methods that learn from samples.
pub(super) const SAMPLES: usize = 2;
/// How a policy is trained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    /// Largest learning rate. It falls to 0, so that the end of a run does not depend on its last batches.
    pub(super) rate: f64,
    /// Evaluations before the end, about.
    pub(super) looks: usize,
}

/// On pairs of digits.
pub(super) const COURSE: Course = Course { rate: 2e-4, looks: 20 };

/// The model before the first step, with itself as the reference, for batches and evaluations of this size.
///
/// # Errors
/// As [`TwoDigits::policy`].
pub(super) fn start(task: &TwoDigits, size: &Size) -> Result<Policy> {
    task.policy(PAIRS, SAMPLES, size.prompts)
}

/// A policy with a new optimizer, AdamW.
///
/// # Errors
/// As [`Learner::new`].
pub(super) fn learner(policy: Policy) -> Result<Learner> {
    Learner::new(policy, OptimizerConfig::Adamw(AdamWConfig::default()))
}

/// The pairs of a run, the same for every method.
///
/// # Errors
/// As [`TwoDigits::pairs`].
pub(super) fn pairs(task: &TwoDigits, size: &Size, seed: u64) -> Result<Vec<Example>> {
    task.pairs(PAIRS * size.steps, Shown::All, seed)
}

/// Held-out prompts, and the distributions after them before the first step.
pub(super) type HeldOut = (Vec<[u32; 4]>, Vec<Vec<f64>>);

/// The held-out prompts of a run.
///
/// # Errors
/// As [`TwoDigits::distributions`].
pub(super) fn held_out(task: &TwoDigits, size: &Size, seed: u64) -> Result<HeldOut> {
    let prompts = TwoDigits::prompts(size.prompts, seed);
    let before = task.distributions(&mut start(task, size)?, &prompts)?;
    Ok((prompts, before))
}

/// Trains on the pairs once. What `look` sees after so many steps, from before the first to after the last.
///
/// # Errors
/// As [`Learner::step`], or those of `look`.
pub(super) fn train<L>(
    learner: &mut Learner,
    method: &dyn Method,
    pairs: &[Example],
    course: Course,
    mut look: impl FnMut(usize, &mut Policy) -> Result<L>,
) -> Result<Vec<L>> {
    let steps = pairs.len().div_ceil(PAIRS);
    let mut seen = Vec::new();
    for (step, batch) in pairs.chunks(PAIRS).enumerate() {
        if step.is_multiple_of((steps / course.looks).max(1)) {
            seen.push(look(step, &mut learner.policy)?);
        }
        let (warm, left) = ((step + 1) as f64 / 20.0, 1.0 - step as f64 / steps as f64);
        learner.step(method, &batch.iter().collect::<Vec<_>>(), course.rate * warm.min(left))?;
    }
    seen.push(look(steps, &mut learner.policy)?);
    Ok(seen)
}

/// A curve for each run through a point for each look, from left to right.
pub(super) fn figure<'a, L>(
    title: &str,
    x: &str,
    names: impl IntoIterator<Item = &'a str>,
    runs: &[Vec<L>],
    point: fn(&L) -> (f64, f64),
) -> Figure {
    let curve = |(name, looks): (&str, &Vec<L>)| {
        let mut points: Vec<_> = looks.iter().map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Curve { name: name.to_owned(), points }
    };
    let curves = names.into_iter().zip(runs).map(curve).collect();
    Figure { title: format!("{title} (seed 0)"), x: x.to_owned(), curves, limit: None }
}

/// The height of a frontier where it first has gone as far as `x`, between the two points `(x, y)` around it.
pub(super) fn height_at(frontier: &[(f64, f64)], x: f64) -> f64 {
    let Some(pair) = frontier.windows(2).find(|pair| pair[1].0 >= x) else { return f64::NAN };
    let share = (x - pair[0].0) / (pair[1].0 - pair[0].0);
    pair[0].1 + share * (pair[1].1 - pair[0].1)
}

/// How far a frontier goes.
pub(super) fn reach(frontier: &[(f64, f64)]) -> f64 {
    frontier.iter().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontier_is_read_between_two_points() {
        let frontier = [(0.0, 1.0), (0.4, 2.0), (0.3, 5.0), (0.8, 4.0)];
        assert!((height_at(&frontier, 0.1) - 1.25).abs() < 1e-12);
        assert!((height_at(&frontier, 0.8) - 4.0).abs() < 1e-12);
        assert!(height_at(&frontier, 0.9).is_nan());
        assert!((reach(&frontier) - 0.8).abs() < 1e-15);
    }
}
