//! RMS normalisation of rows and of query and key heads, and biases.

use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::attention::HeadLayout;
use super::lanes::dot;

/// Rows handled by one task; also the unit of the fixed reduction order of column sums.
const BLOCK: usize = 32;

pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], inv: &mut [f32]) {
    let d = weight.len();
    (x.par_chunks(BLOCK * d), out.par_chunks_mut(BLOCK * d), inv.par_chunks_mut(BLOCK))
        .into_par_iter()
        .for_each(|(x, out, inv)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((x, out), inv) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(inv.iter_mut())
                    {
                        *inv = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
                        for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
                            *o = v * *inv * w;
                        }
                    }
                },
            );
        });
}

pub(crate) fn rms_norm_again(x: &[f32], weight: &[f32], inv: &[f32], out: &mut [f32]) {
    let d = weight.len();
    (x.par_chunks(BLOCK * d), out.par_chunks_mut(BLOCK * d), inv.par_chunks(BLOCK)).into_par_iter().for_each(
        |(x, out, inv)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((x, out), &inv) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(inv) {
                        for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
                            *o = v * inv * w;
                        }
                    }
                },
            );
        },
    );
}

/// `dx += inv (w dy) - x inv^3 / d sum(w dy x)`.
pub(crate) fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    inv: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let d = weight.len();
    (x.par_chunks(BLOCK * d), dy.par_chunks(BLOCK * d), dx.par_chunks_mut(BLOCK * d), inv.par_chunks(BLOCK))
        .into_par_iter()
        .for_each(|(x, dy, dx, inv)| {
            let mut weighted = vec![0.0; d];
            vectorized(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).zip(inv);
                    for (((x, dy), dx), &inv) in rows {
                        row_backward(x, weight, inv, dy, &mut weighted, dx);
                    }
                },
            );
        });
    if let Some(dweight) = dweight {
        let partial = blocks(x, d).zip(blocks(dy, d)).zip(inv.par_chunks(BLOCK)).map(|((x, dy), inv)| {
            let mut sum = vec![0.0; d];
            vectorized(
                #[inline(always)]
                || {
                    for ((x, dy), &inv) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(inv) {
                        for ((s, &v), &g) in sum.iter_mut().zip(x).zip(dy) {
                            *s += v * inv * g;
                        }
                    }
                },
            );
            sum
        });
        add_in_order(partial.collect(), dweight);
    }
}

#[inline(always)]
fn row_backward(x: &[f32], weight: &[f32], inv: f32, dy: &[f32], weighted: &mut [f32], dx: &mut [f32]) {
    for ((t, &w), &g) in weighted.iter_mut().zip(weight).zip(dy) {
        *t = w * g;
    }
    let pull = dot(weighted, x) * inv * inv * inv / x.len() as f32;
    for ((o, &t), &v) in dx.iter_mut().zip(weighted.iter()).zip(x) {
        *o += inv * t - pull * v;
    }
}

fn blocks(x: &[f32], width: usize) -> rayon::slice::Chunks<'_, f32> {
    x.par_chunks(BLOCK * width)
}

fn add_in_order(partial: Vec<Vec<f32>>, into: &mut [f32]) {
    for block in partial {
        for (o, v) in into.iter_mut().zip(block) {
            *o += v;
        }
    }
}

pub(crate) fn add_bias(x: &mut [f32], bias: &[f32]) {
    x.par_chunks_mut(BLOCK * bias.len()).for_each(|rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (v, &b) in row.iter_mut().zip(bias) {
                *v += b;
            }
        }
    });
}

pub(crate) fn bias_backward(dy: &[f32], dbias: &mut [f32]) {
    let width = dbias.len();
    let partial = blocks(dy, width).map(|rows| {
        let mut sum = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            for (s, &v) in sum.iter_mut().zip(row) {
                *s += v;
            }
        }
        sum
    });
    add_in_order(partial.collect(), dbias);
}

pub(crate) fn qk_norm(heads: HeadLayout, qkv: &mut [f32], q: &[f32], k: &[f32], eps: f32, inv: &mut [f32]) {
    let hd = heads.head_dim;
    let normed = heads.heads + heads.kv_heads;
    (qkv.par_chunks_mut(BLOCK * heads.width()), inv.par_chunks_mut(BLOCK * normed)).into_par_iter().for_each(
        |(rows, inv)| {
            for (row, inv) in rows.chunks_exact_mut(heads.width()).zip(inv.chunks_exact_mut(normed)) {
                for (h, (head, inv)) in row.chunks_exact_mut(hd).zip(inv).enumerate() {
                    let weight = if h < heads.heads { q } else { k };
                    *inv = 1.0 / (dot(head, head) / hd as f32 + eps).sqrt();
                    for (v, &w) in head.iter_mut().zip(weight) {
                        *v = *v * *inv * w;
                    }
                }
            }
        },
    );
}

pub(crate) fn qk_norm_backward(
    heads: HeadLayout,
    raw: &[f32],
    q: &[f32],
    k: &[f32],
    inv: &[f32],
    dqkv: &mut [f32],
    dqk: Option<(&mut [f32], &mut [f32])>,
) {
    let hd = heads.head_dim;
    let normed = heads.heads + heads.kv_heads;
    let width = heads.width();
    let partial =
        (raw.par_chunks(BLOCK * width), dqkv.par_chunks_mut(BLOCK * width), inv.par_chunks(BLOCK * normed))
            .into_par_iter()
            .map(|(raw, dqkv, inv)| {
                let mut sums = vec![0.0; 2 * hd];
                let mut weighted = vec![0.0; hd];
                let mut dx = vec![0.0; hd];
                let rows =
                    raw.chunks_exact(width).zip(dqkv.chunks_exact_mut(width)).zip(inv.chunks_exact(normed));
                for ((raw, dqkv), inv) in rows {
                    let parts = raw.chunks_exact(hd).zip(dqkv.chunks_exact_mut(hd)).zip(inv);
                    for (h, ((x, dy), &inv)) in parts.enumerate() {
                        let (weight, sum) =
                            if h < heads.heads { (q, &mut sums[..hd]) } else { (k, &mut sums[hd..]) };
                        for ((s, &v), &g) in sum.iter_mut().zip(x).zip(dy.iter()) {
                            *s += v * inv * g;
                        }
                        dx.fill(0.0);
                        row_backward(x, weight, inv, dy, &mut weighted, &mut dx);
                        dy.copy_from_slice(&dx);
                    }
                }
                sums
            })
            .collect::<Vec<_>>();
    if let Some((dq, dk)) = dqk {
        for block in partial {
            for (o, v) in dq.iter_mut().chain(dk.iter_mut()).zip(block) {
                *o += v;
            }
        }
    }
}
