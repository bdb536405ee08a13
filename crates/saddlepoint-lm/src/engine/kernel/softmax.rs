//! The head's row-wise work on a chunk of the vocabulary: log-sum-exp, target log-probability, entropy
//! and divergences in one sweep, and the derivative with respect to the logits in another.

use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::lanes::{exp, ln, max, sum};
use crate::engine::Divergence;

/// Elements handled at once; they stay in the first-level cache.
const PIECE: usize = 512;

/// A chunk of logits `[R, columns]` for the vocabulary ids from `first` on.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// The policy's logits; empty in the backward sweep, which overwrites them.
    pub logits: &'a [f32],
    /// Id of the first column.
    pub first: usize,
    /// Number of columns.
    pub columns: usize,
    /// Whether sums for the entropy are wanted.
    pub entropy: bool,
    /// Which divergence's sums are wanted.
    pub divergence: Option<Divergence>,
}

/// Running state of one row. Sums are relative to the running maximum.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowState {
    /// Target id.
    pub target: u32,
    max: f32,
    mass: f64,
    /// `sum e^(z - max) (z - max)`
    energy: f64,
    ref_max: f32,
    ref_mass: f64,
    /// `sum e^(z - max) (z - r)` or, for the forward divergence, `sum e^(r - ref_max) (r - z)`
    cross: f64,
    target_logit: f32,
    ref_target_logit: f32,
    /// `sum p (ln p - ln m)` and `sum q (ln q - ln m)` of the mixture sweep.
    mixture: [f64; 2],
}

impl RowState {
    /// Before the first chunk.
    pub fn new(target: u32) -> Self {
        Self { target, max: f32::NEG_INFINITY, ref_max: f32::NEG_INFINITY, ..Self::default() }
    }

    /// `ln sum e^z` of the policy.
    pub fn lse(&self) -> f64 {
        f64::from(self.max) + self.mass.ln()
    }

    /// `ln sum e^r` of the reference.
    pub fn ref_lse(&self) -> f64 {
        f64::from(self.ref_max) + self.ref_mass.ln()
    }

    /// Log-probability of the target, nats.
    pub fn logp(&self) -> f64 {
        f64::from(self.target_logit) - self.lse()
    }

    /// The reference's log-probability of the target, nats.
    pub fn ref_logp(&self) -> f64 {
        f64::from(self.ref_target_logit) - self.ref_lse()
    }

    /// Whether no token is more probable than the target.
    pub fn top1(&self) -> bool {
        self.target_logit >= self.max
    }

    /// Entropy, nats.
    pub fn entropy(&self) -> f64 {
        self.mass.ln() - self.energy / self.mass
    }

    /// The divergence whose sums were asked for, nats.
    pub fn divergence(&self, kind: Divergence) -> f64 {
        match kind {
            Divergence::ReverseKl => self.cross / self.mass - self.lse() + self.ref_lse(),
            Divergence::ForwardKl => self.cross / self.ref_mass - self.ref_lse() + self.lse(),
            Divergence::JensenShannon => f64::midpoint(self.mixture[0], self.mixture[1]),
        }
    }

    fn raise(&mut self, top: f32) {
        if top > self.max {
            if self.mass > 0.0 {
                let shift = f64::from(self.max) - f64::from(top);
                let factor = shift.exp();
                self.energy = factor * (self.energy + self.mass * shift);
                self.mass *= factor;
            }
            self.max = top;
        }
    }
}

/// Cotangents of one row.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowCotangent {
    /// With respect to the log-probability of the target.
    pub logp: f64,
    /// With respect to the entropy.
    pub entropy: f64,
    /// With respect to the divergence.
    pub divergence: f64,
}

pub(crate) fn accumulate(chunk: Vocabulary<'_>, reference: Option<&[f32]>, rows: &mut [RowState]) {
    rows.par_iter_mut().enumerate().with_min_len(4).for_each(|(i, state)| {
        let own = i * chunk.columns..(i + 1) * chunk.columns;
        let z = &chunk.logits[own.clone()];
        let r = reference.map(|r| &r[own]);
        vectorized(
            #[inline(always)]
            || accumulate_row(chunk, z, r, state),
        );
    });
}

#[inline(always)]
fn accumulate_row(chunk: Vocabulary<'_>, z: &[f32], reference: Option<&[f32]>, state: &mut RowState) {
    let mut weight = [0.0f32; PIECE];
    let mut term = [0.0f32; PIECE];
    let before = state.max;
    state.raise(max(z));
    let reverse = reference.is_some() && chunk.divergence == Some(Divergence::ReverseKl);
    let forward = reference.is_some() && chunk.divergence == Some(Divergence::ForwardKl);
    if reverse && state.max > before && before > f32::NEG_INFINITY {
        state.cross *= (f64::from(before) - f64::from(state.max)).exp();
    }
    let top = state.max;
    for (piece, z) in z.chunks(PIECE).enumerate() {
        let weight = &mut weight[..z.len()];
        let term = &mut term[..z.len()];
        for (w, &z) in weight.iter_mut().zip(z) {
            *w = exp(z - top);
        }
        state.mass += f64::from(sum(weight));
        if chunk.entropy {
            for ((t, &w), &z) in term.iter_mut().zip(weight.iter()).zip(z) {
                *t = w * (z - top);
            }
            state.energy += f64::from(sum(term));
        }
        if let (true, Some(r)) = (reverse, reference) {
            for (((t, &w), &z), &r) in term.iter_mut().zip(weight.iter()).zip(z).zip(&r[piece * PIECE..]) {
                *t = w * (z - r);
            }
            state.cross += f64::from(sum(term));
        }
    }
    let target = (state.target as usize).checked_sub(chunk.first).filter(|&t| t < chunk.columns);
    if let Some(t) = target {
        state.target_logit = z[t];
    }
    let Some(r) = reference else { return };
    if let Some(t) = target {
        state.ref_target_logit = r[t];
    }
    let ref_top = max(r);
    if ref_top > state.ref_max {
        let factor =
            if state.ref_mass > 0.0 { (f64::from(state.ref_max) - f64::from(ref_top)).exp() } else { 0.0 };
        state.ref_mass *= factor;
        if forward {
            state.cross *= factor;
        }
        state.ref_max = ref_top;
    }
    let ref_top = state.ref_max;
    for (r, z) in r.chunks(PIECE).zip(z.chunks(PIECE)) {
        let weight = &mut weight[..r.len()];
        for (w, &r) in weight.iter_mut().zip(r) {
            *w = exp(r - ref_top);
        }
        state.ref_mass += f64::from(sum(weight));
        if forward {
            let term = &mut term[..r.len()];
            for (((t, &w), &r), &z) in term.iter_mut().zip(weight.iter()).zip(r).zip(z) {
                *t = w * (r - z);
            }
            state.cross += f64::from(sum(term));
        }
    }
}

/// Smallest probability whose logarithm is taken in the mixture: below it `x ln x` vanishes in `f32`.
const TINY: f32 = 1e-37;

pub(crate) fn mixture(chunk: Vocabulary<'_>, reference: &[f32], rows: &mut [RowState]) {
    rows.par_iter_mut().enumerate().with_min_len(4).for_each(|(i, state)| {
        let own = i * chunk.columns..(i + 1) * chunk.columns;
        let (z, r) = (&chunk.logits[own.clone()], &reference[own]);
        let (lse, ref_lse) = (state.lse() as f32, state.ref_lse() as f32);
        vectorized(
            #[inline(always)]
            || {
                let mut from_p = [0.0f32; PIECE];
                let mut from_q = [0.0f32; PIECE];
                for (z, r) in z.chunks(PIECE).zip(r.chunks(PIECE)) {
                    let (a, b) = (&mut from_p[..z.len()], &mut from_q[..z.len()]);
                    for (((a, b), &z), &r) in a.iter_mut().zip(b.iter_mut()).zip(z).zip(r) {
                        let (lp, lq) = (z - lse, r - ref_lse);
                        let (p, q) = (exp(lp), exp(lq));
                        let lm = ln(0.5 * (p + q) + TINY);
                        *a = if p > TINY { p * (lp - lm) } else { 0.0 };
                        *b = if q > TINY { q * (lq - lm) } else { 0.0 };
                    }
                    state.mixture[0] += f64::from(sum(a));
                    state.mixture[1] += f64::from(sum(b));
                }
            },
        );
    });
}

pub(crate) fn backward(
    chunk: Vocabulary<'_>,
    logits: &mut [f32],
    reference: Option<&[f32]>,
    rows: &[RowState],
    cotangents: &[RowCotangent],
) {
    logits.par_chunks_mut(chunk.columns).zip(rows).zip(cotangents).enumerate().with_min_len(4).for_each(
        |(i, ((z, state), cotangent))| {
            let r = reference.map(|r| &r[i * chunk.columns..(i + 1) * chunk.columns]);
            vectorized(
                #[inline(always)]
                || backward_row(chunk, z, r, state, cotangent),
            );
        },
    );
}

/// With `lp = ln p`: `d logp / dz_v = [v = y] - p_v`, `d H / dz_v = -p_v (lp_v + H)`,
/// `d KL(p||q) / dz_v = p_v (lp_v - lq_v - KL)`, `d KL(q||p) / dz_v = p_v - q_v`,
/// `d JS / dz_v = p_v (lp_v - lm_v - sum p (lp - lm)) / 2`.
#[inline(always)]
fn backward_row(
    chunk: Vocabulary<'_>,
    z: &mut [f32],
    reference: Option<&[f32]>,
    state: &RowState,
    c: &RowCotangent,
) {
    let lse = state.lse() as f32;
    let (g_logp, g_entropy, g_divergence) = (c.logp as f32, c.entropy as f32, c.divergence as f32);
    let entropy = if chunk.entropy { state.entropy() as f32 } else { 0.0 };
    match (reference, chunk.divergence) {
        (Some(r), Some(kind)) => {
            let ref_lse = state.ref_lse() as f32;
            let value = state.divergence(kind) as f32;
            let policy_part = state.mixture[0] as f32;
            match kind {
                Divergence::ReverseKl => {
                    for (z, &r) in z.iter_mut().zip(r) {
                        let lp = *z - lse;
                        let slope =
                            g_divergence * (lp - (r - ref_lse) - value) - g_entropy * (lp + entropy) - g_logp;
                        *z = exp(lp) * slope;
                    }
                }
                Divergence::ForwardKl => {
                    for (z, &r) in z.iter_mut().zip(r) {
                        let lp = *z - lse;
                        let slope = g_divergence - g_entropy * (lp + entropy) - g_logp;
                        *z = exp(lp) * slope - g_divergence * exp(r - ref_lse);
                    }
                }
                Divergence::JensenShannon => {
                    for (z, &r) in z.iter_mut().zip(r) {
                        let lp = *z - lse;
                        let p = exp(lp);
                        let lm = ln(0.5 * (p + exp(r - ref_lse)) + TINY);
                        let slope = 0.5 * g_divergence * (lp - lm - policy_part)
                            - g_entropy * (lp + entropy)
                            - g_logp;
                        *z = if p > TINY { p * slope } else { 0.0 };
                    }
                }
            }
        }
        _ => {
            for z in z.iter_mut() {
                let lp = *z - lse;
                *z = exp(lp) * (-g_entropy * (lp + entropy) - g_logp);
            }
        }
    }
    if let Some(t) = (state.target as usize).checked_sub(chunk.first).filter(|&t| t < chunk.columns) {
        z[t] += g_logp;
    }
}

/// `ln sum e^z`, nats.
pub(crate) fn log_sum_exp(z: &[f32]) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let top = max(z);
            let mut weight = [0.0f32; PIECE];
            let mut mass = 0.0f64;
            for z in z.chunks(PIECE) {
                let weight = &mut weight[..z.len()];
                for (w, &z) in weight.iter_mut().zip(z) {
                    *w = exp(z - top);
                }
                mass += f64::from(sum(weight));
            }
            f64::from(top) + mass.ln()
        },
    )
}
