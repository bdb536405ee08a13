//! The method's metrics on held-out examples.

use super::cached::{Cached, Side};
use super::example::{Example, batch};
use super::job::{Job, Part};
use super::mismatched::Mismatched;
use super::setup::Run;
use crate::Result;
use crate::engine::{Cotangent, Policy};
use crate::method::{Norm, Sums};
use crate::tether::Tether;

/// Means over held-out examples by name.
pub(super) type Means = Vec<(String, f64)>;

impl Run<'_> {
    /// Metrics of the policy as it is now on the held-out examples, if there are any.
    pub(super) fn evaluate(&mut self) -> Result<Option<Means>> {
        let job = self.job;
        let Some(part) = &job.eval else { return Ok(None) };
        let cached = self.cached.as_ref();
        evaluate(&mut self.policy, job, self.tether.as_ref(), cached, part).map(Some)
    }
}

/// Metrics of `part`, named as in training; where the method learns from rewards, those of a completion of each prompt. The size of
/// batches matters only if the method couples their sequences. The coefficient is the one of the configuration, not the one that a budget moves, so that evaluations after different steps compare.
pub(super) fn evaluate(
    policy: &mut Policy,
    job: &Job,
    tether: Option<&Tether>,
    cached: Option<&Cached>,
    part: &Part,
) -> Result<Means> {
    if job.plan.is_some() {
        return job.rewarded(policy, part);
    }
    let (mut want, size) = (job.want(tether), job.eval_batch());
    want.ref_logp &= cached.is_none();
    let mut norm = Norm::default();
    for example in &part.examples {
        example.count(&mut norm);
    }
    let beta = tether.and_then(Tether::constant_beta);
    let examples: Vec<&Example> = part.examples.iter().collect();
    let mismatched = Mismatched::of(job, policy, &examples, size)?;
    let mut sums = Sums::default();
    let all: Vec<usize> = (0..examples.len()).collect();
    for (examples, indices) in examples.chunks(size).zip(all.chunks(size)) {
        let batch = batch(examples);
        let mut stats = batch.evaluate(policy, want)?;
        if let Some(cached) = cached {
            cached.complete(Side::Eval, indices, &batch, &mut stats);
        }
        let view = batch.view(&stats, norm, beta, mismatched.mean);
        // The derivatives are not used; the method computes both at once.
        let mut cotangent = Cotangent::default();
        let mut metrics = job.method.loss(&view, &mut cotangent);
        if let Some(tether) = tether {
            tether.penalize(&view, &mut cotangent, &mut metrics);
        }
        sums.merge(&metrics);
    }
    mismatched.report(&mut sums);
    Ok(named(sums.means(norm)))
}

/// Names that can be kept.
pub(super) fn named(means: Vec<(&'static str, f64)>) -> Means {
    means.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
