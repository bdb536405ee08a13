//! The method's metrics on held-out examples.

use super::cached::{Cached, Side};
use super::example::{Example, batch};
use super::job::Part;
use super::setup::Run;
use crate::Result;
use crate::engine::{Cotangent, Policy, Want};
use crate::method::{Method, Norm, Sums, View};
use crate::tether::Tether;

/// Means over held-out examples by name.
pub(super) type Means = Vec<(&'static str, f64)>;

impl Run<'_> {
    /// Metrics of the policy as it is now on the held-out examples, if there are any.
    pub(super) fn evaluate(&mut self) -> Result<Option<Means>> {
        let job = self.job;
        let Some(part) = &job.eval else { return Ok(None) };
        let (want, cached) = (self.want(), self.cached.as_ref());
        let tether = self.tether.as_ref();
        evaluate(&mut self.policy, &*job.method, tether, want, cached, part, job.eval_batch()).map(Some)
    }
}

/// Metrics of `part`, named as in training, over batches of `size`; independent of `size`. The coefficient is the
/// one of the configuration, not the one that a budget moves, so that evaluations after different steps compare.
pub(super) fn evaluate(
    policy: &mut Policy,
    method: &dyn Method,
    tether: Option<&Tether>,
    want: Want,
    cached: Option<&Cached>,
    part: &Part,
    size: usize,
) -> Result<Means> {
    let mut norm = Norm::default();
    for example in &part.examples {
        example.count(&mut norm);
    }
    let beta = tether.and_then(Tether::constant_beta);
    let mut sums = Sums::default();
    let all: Vec<usize> = (0..part.examples.len()).collect();
    for indices in all.chunks(size) {
        let examples: Vec<&Example> = indices.iter().map(|&i| &part.examples[i]).collect();
        let batch = batch(&examples, &[]);
        let mut stats = policy.evaluate(&batch.forest, want)?;
        if let Some(cached) = cached {
            cached.complete(Side::Eval, indices, &batch, &mut stats);
        }
        let view = View { sequences: &batch.sequences, stats: &stats, norm, beta, samples: &[] };
        // The derivatives are not used; the method computes both at once.
        let mut cotangent = Cotangent::default();
        let mut metrics = method.loss(&view, &mut cotangent);
        if let Some(tether) = tether {
            tether.penalize(&view, &mut cotangent, &mut metrics);
        }
        sums.merge(&metrics);
    }
    Ok(sums.means(norm))
}
