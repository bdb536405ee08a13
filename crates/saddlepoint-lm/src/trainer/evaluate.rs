//! The method's metrics on held-out examples.

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
        let want = job.want(self.tether.as_ref());
        evaluate(&mut self.policy, &*job.method, self.tether.as_ref(), want, part, job.eval_batch()).map(Some)
    }
}

/// Metrics of `part`, named as in training, over batches of `size`; independent of `size` unless the method couples the
/// sequences of a batch. The coefficient is the one of the configuration, not the one that a budget moves, so that evaluations after different steps compare.
pub(super) fn evaluate(
    policy: &mut Policy,
    method: &dyn Method,
    tether: Option<&Tether>,
    want: Want,
    part: &Part,
    size: usize,
) -> Result<Means> {
    let mut norm = Norm::default();
    for example in &part.examples {
        example.count(&mut norm);
    }
    let beta = tether.and_then(Tether::constant_beta);
    let mut sums = Sums::default();
    for examples in part.examples.chunks(size) {
        let batch = batch(&examples.iter().collect::<Vec<&Example>>());
        let stats = policy.evaluate(&batch.forest, want)?;
        let view = View { sequences: &batch.sequences, stats: &stats, norm, beta };
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
