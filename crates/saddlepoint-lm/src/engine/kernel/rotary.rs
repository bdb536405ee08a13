//! Rotary position embedding, half-split convention.

use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::attention::HeadLayout;

pub(crate) fn rotary(heads: HeadLayout, qkv: &mut [f32], cos: &[f32], sin: &[f32], inverse: bool) {
    let half = heads.head_dim / 2;
    let rotated = (heads.heads + heads.kv_heads) * heads.head_dim;
    let sign = if inverse { -1.0 } else { 1.0 };
    (qkv.par_chunks_mut(heads.width()), cos.par_chunks(half), sin.par_chunks(half))
        .into_par_iter()
        .with_min_len(32)
        .for_each(|(row, cos, sin)| {
            vectorized(
                #[inline(always)]
                || {
                    for head in row[..rotated].chunks_exact_mut(2 * half) {
                        let (low, high) = head.split_at_mut(half);
                        for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                            let s = s * sign;
                            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                        }
                    }
                },
            );
        });
}
