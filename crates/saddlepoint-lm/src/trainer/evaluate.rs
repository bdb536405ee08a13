//! The method's metrics on held-out examples.

use super::example::{Example, batch};
use super::job::Part;
use crate::Result;
use crate::engine::{Cotangent, Policy, Want};
use crate::method::{Method, Norm, Sums, View};
use crate::tether::Tether;

/// Metrics of `part`, named as in training, over batches of `size`; independent of `size`.
pub(super) fn evaluate(
    policy: &mut Policy,
    method: &dyn Method,
    tether: Option<&Tether>,
    want: Want,
    part: &Part,
    size: usize,
) -> Result<Vec<(&'static str, f64)>> {
    let mut norm = Norm::default();
    for example in &part.examples {
        example.count(&mut norm);
    }
    let mut sums = Sums::default();
    for examples in part.examples.chunks(size) {
        let batch = batch(&examples.iter().collect::<Vec<&Example>>());
        let stats = policy.evaluate(&batch.forest, want)?;
        let beta = tether.and_then(Tether::method_beta);
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
