//! The global gradient norm and the clipping that follows from it.

use rayon::prelude::*;

use crate::simd::vectorized;

/// Elements of one partial sum; fixed, so that the order of the additions is.
const CHUNK: usize = 1 << 14;
/// Independent sums inside a chunk, one vector register of `f64` or more.
const LANES: usize = 16;

/// `sqrt(Σ g²)`, summed in `f64` in a fixed order: the same for any number of threads.
/// NaN or infinite if an element is.
pub fn global_norm(grads: &[f32]) -> f64 {
    let partial: Vec<f64> = grads
        .par_chunks(CHUNK)
        .map(|chunk| {
            vectorized(
                #[inline(always)]
                || sum_of_squares(chunk),
            )
        })
        .collect();
    partial.iter().sum::<f64>().sqrt()
}

#[allow(clippy::inline_always, reason = "compiled once for each instruction set, inside the dispatch")]
#[inline(always)]
fn sum_of_squares(chunk: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (full, rest) = chunk.as_chunks::<LANES>();
    for group in full {
        for (lane, &g) in lanes.iter_mut().zip(group) {
            *lane += f64::from(g) * f64::from(g);
        }
    }
    for (lane, &g) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(g) * f64::from(g);
    }
    lanes.iter().sum()
}

/// Factor on the gradients that brings their norm to at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`
/// computes it: `min(1, max_norm / (norm + 1e-6))`. A `max_norm` of 0 means no clipping, as in transformers.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norm_is_exact_and_independent_of_threads() {
        let grads: Vec<f32> = (0..100_003_u32).map(|i| ((i * 37 % 1_001) as f32 - 500.0) * 1e-3).collect();
        let exact = grads.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
            pool.install(|| global_norm(&grads))
        };
        assert!((with(1) - exact).abs() < 1e-12 * exact);
        assert_eq!(with(1).to_bits(), with(2).to_bits());
        assert_eq!(with(1).to_bits(), with(3).to_bits());
    }

    #[test]
    fn a_single_bad_element_shows() {
        let mut grads = vec![0.5_f32; 40_000];
        grads[39_999] = f32::NAN;
        assert!(global_norm(&grads).is_nan());
        grads[39_999] = f32::NEG_INFINITY;
        assert!(global_norm(&grads).is_infinite());
    }

    #[test]
    fn clipping_follows_torch() {
        assert!((clip_factor(4.0, 1.0) - 1.0 / 4.000_001).abs() < 1e-15);
        assert!((clip_factor(0.5, 1.0) - 1.0).abs() < 1e-15);
        assert!((clip_factor(4.0, 0.0) - 1.0).abs() < 1e-15);
    }
}
