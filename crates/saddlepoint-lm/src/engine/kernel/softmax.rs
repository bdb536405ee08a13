//! The head's row-wise work on a chunk of the vocabulary: log-sum-exp, target log-probability, entropy
//! and divergences in one sweep, and the derivative with respect to the logits in another.

use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::lanes::{exp, exp_m1, ln, max, sum};
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
    /// `sum q f(p/q)` of the second sweep.
    divergence: f64,
    /// `sum p f'(p/q)` of the second sweep.
    slope: f64,
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
            _ => self.divergence,
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
    /// The sum of those with respect to log-probabilities of other tokens, of which the sweep does the part that all tokens share.
    pub listed: f64,
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

/// Smallest probability whose logarithm is taken in a mixture: below it `x ln x` vanishes in `f32`.
const TINY: f32 = 1e-37;

/// Whether a divergence takes a sweep of its own, once both normalisers are known.
pub(crate) fn second_sweep(kind: Divergence) -> bool {
    !matches!(kind, Divergence::ReverseKl | Divergence::ForwardKl)
}

/// Calls `sweep` with the function that gives `q f(p/q)` and `p f'(p/q)` from `ln p` and `ln q`, each in a form that keeps
/// its digits near `p = q` and is finite in both tails where the divergence is.
macro_rules! with_terms {
    ($kind:expr, $sweep:expr) => {
        match $kind {
            // Their sums come with the normalisers, and their derivatives have forms of their own.
            Divergence::ReverseKl | Divergence::ForwardKl => (),
            Divergence::JensenShannon => $sweep(
                #[inline(always)]
                |lp, lq| {
                    let (p, q) = (exp(lp), exp(lq));
                    let lm = ln(0.5 * (p + q) + TINY);
                    let from_p = if p > TINY { 0.5 * p * (lp - lm) } else { 0.0 };
                    let from_q = if q > TINY { 0.5 * q * (lq - lm) } else { 0.0 };
                    (from_p + from_q, from_p)
                },
            ),
            Divergence::Alpha(a) => {
                let a = a as f32;
                $sweep(
                    #[inline(always)]
                    |lp, lq| {
                        let (p, q, l) = (exp(lp), exp(lq), lp - lq);
                        let geometric = exp((1.0 - a) * lp + a * lq);
                        let slope = if (a * l).abs() < 0.5 { -p * exp_m1(-a * l) } else { p - geometric } / a;
                        let rest = if ((1.0 - a) * l).abs() < 0.5 {
                            q * exp_m1((1.0 - a) * l)
                        } else {
                            geometric - q
                        };
                        let value = if a < 0.5 {
                            (slope - (p - q)) / (1.0 - a)
                        } else {
                            ((p - q) - rest / (1.0 - a)) / a
                        };
                        (value, slope)
                    },
                )
            }
            Divergence::Jeffreys => $sweep(
                #[inline(always)]
                |lp, lq| {
                    let (p, q, l) = (exp(lp), exp(lq), lp - lq);
                    ((p - q) * l, p * l + p - q)
                },
            ),
            Divergence::TotalVariation => $sweep(
                #[inline(always)]
                |lp, lq| {
                    let (p, l) = (exp(lp), lp - lq);
                    let side = if l > 0.0 {
                        0.5
                    } else if l < 0.0 {
                        -0.5
                    } else {
                        0.0
                    };
                    (side * (p - exp(lq)), side * p)
                },
            ),
            Divergence::ChiSquared => $sweep(
                #[inline(always)]
                |lp, lq| {
                    let (p, l) = (exp(lp), lp - lq);
                    let less = exp_m1(l);
                    // p = 0 in f32 where the ratio may still be infinite.
                    if p > 0.0 { ((p - exp(lq)) * less, 2.0 * p * less) } else { (exp(lq), 0.0) }
                },
            ),
            Divergence::Hellinger => $sweep(
                #[inline(always)]
                |lp, lq| {
                    let (root_p, root_q) = (exp(0.5 * lp), exp(0.5 * lq));
                    let apart = root_p - root_q;
                    (0.5 * apart * apart, 0.5 * root_p * apart)
                },
            ),
        }
    };
}

/// The second sweep: adds a chunk to `sum q f(p/q)` and `sum p f'(p/q)`.
pub(crate) fn compare(kind: Divergence, chunk: Vocabulary<'_>, reference: &[f32], rows: &mut [RowState]) {
    rows.par_iter_mut().enumerate().with_min_len(4).for_each(|(i, state)| {
        let own = i * chunk.columns..(i + 1) * chunk.columns;
        let (z, r) = (&chunk.logits[own.clone()], &reference[own]);
        vectorized(
            #[inline(always)]
            || with_terms!(kind, |term| compare_row(z, r, state, term)),
        );
    });
}

#[inline(always)]
fn compare_row(z: &[f32], r: &[f32], state: &mut RowState, term: impl Fn(f32, f32) -> (f32, f32)) {
    let (lse, ref_lse) = (state.lse() as f32, state.ref_lse() as f32);
    let (mut values, mut slopes) = ([0.0f32; PIECE], [0.0f32; PIECE]);
    for (z, r) in z.chunks(PIECE).zip(r.chunks(PIECE)) {
        let (values, slopes) = (&mut values[..z.len()], &mut slopes[..z.len()]);
        for (((value, slope), &z), &r) in values.iter_mut().zip(slopes.iter_mut()).zip(z).zip(r) {
            (*value, *slope) = term(z - lse, r - ref_lse);
        }
        state.divergence += f64::from(sum(values));
        state.slope += f64::from(sum(slopes));
    }
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

/// With `lp = ln p`: `d logp / dz_v = [v = y] - p_v`, `d H / dz_v = -p_v (lp_v + H)` and for a divergence `sum q f(p/q)`
/// `dD / dz_v = p_v (f'_v - sum_w p_w f'_w)`, which is `p_v (lp_v - lq_v - KL)` for `KL(p||q)` and `p_v - q_v` for `KL(q||p)`. What is
/// asked for by log-probabilities of tokens other than the target is here in its part `-p_v` alone.
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
    let g_logps = (c.logp + c.listed) as f32;
    let entropy = if chunk.entropy { state.entropy() as f32 } else { 0.0 };
    match (reference, chunk.divergence) {
        (Some(r), Some(kind)) => {
            let ref_lse = state.ref_lse() as f32;
            match kind {
                Divergence::ReverseKl => {
                    let value = state.divergence(kind) as f32;
                    for (z, &r) in z.iter_mut().zip(r) {
                        let lp = *z - lse;
                        let slope = g_divergence * (lp - (r - ref_lse) - value)
                            - g_entropy * (lp + entropy)
                            - g_logps;
                        *z = exp(lp) * slope;
                    }
                }
                Divergence::ForwardKl => {
                    for (z, &r) in z.iter_mut().zip(r) {
                        let lp = *z - lse;
                        let slope = g_divergence - g_entropy * (lp + entropy) - g_logps;
                        *z = exp(lp) * slope - g_divergence * exp(r - ref_lse);
                    }
                }
                _ => {
                    let shared = -g_divergence * state.slope as f32 - g_logps;
                    with_terms!(kind, |term| apart(
                        z,
                        r,
                        [lse, ref_lse],
                        [g_divergence, g_entropy, shared],
                        entropy,
                        term
                    ));
                }
            }
        }
        _ => {
            for z in z.iter_mut() {
                let lp = *z - lse;
                *z = exp(lp) * (-g_entropy * (lp + entropy) - g_logps);
            }
        }
    }
    if let Some(t) = (state.target as usize).checked_sub(chunk.first).filter(|&t| t < chunk.columns) {
        z[t] += g_logp;
    }
}

/// The derivative where the divergence's part of it is not a multiple of `p`.
#[inline(always)]
fn apart(
    z: &mut [f32],
    r: &[f32],
    [lse, ref_lse]: [f32; 2],
    [g_divergence, g_entropy, shared]: [f32; 3],
    entropy: f32,
    term: impl Fn(f32, f32) -> (f32, f32),
) {
    for (z, &r) in z.iter_mut().zip(r) {
        let lp = *z - lse;
        let (_, slope) = term(lp, r - ref_lse);
        *z = exp(lp) * (shared - g_entropy * (lp + entropy)) + g_divergence * slope;
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

#[cfg(test)]
mod tests {
    use super::super::filled;
    use super::*;

    const COLUMNS: usize = 700;
    const TARGET: u32 = 600;

    fn log_softmax(z: &[f64]) -> Vec<f64> {
        let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
        z.iter().map(|z| z - lse).collect()
    }

    /// `sum q f(p/q)` from logits, in double precision, from log-ratios as they are.
    fn exact(kind: Divergence, z: &[f64], r: &[f64]) -> f64 {
        let terms = log_softmax(z).into_iter().zip(log_softmax(r));
        terms.map(|(lp, lq)| lq.exp() * kind.f(lp - lq)).sum()
    }

    /// Policies near their reference and far from it, in logits. The total variation has no derivative where `p = q`.
    fn rows(kind: Divergence) -> Vec<(Vec<f64>, Vec<f64>)> {
        let r: Vec<f64> = filled(COLUMNS, 1).into_iter().map(|v| f64::from(4.0 * v)).collect();
        [1e-3, 0.1, 2.0, 8.0]
            .into_iter()
            .filter(|&far| far > 0.01 || kind != Divergence::TotalVariation)
            .map(|far: f64| {
                let moved = filled(COLUMNS, 2)
                    .into_iter()
                    .zip(&r)
                    .map(|(v, r)| f64::from((r + far * f64::from(v)) as f32));
                (moved.collect(), r.clone())
            })
            .collect()
    }

    fn empty(kind: Divergence) -> Vocabulary<'static> {
        Vocabulary { logits: &[], first: 0, columns: COLUMNS, entropy: true, divergence: Some(kind) }
    }

    #[test]
    fn divergences_and_their_derivatives_agree_with_double_precision() {
        let alphas = [1e-4, 0.3, 0.7, 1.0 - 1e-4].map(Divergence::Alpha);
        for kind in Divergence::ALL.into_iter().chain(alphas) {
            for (z, r) in rows(kind) {
                let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
                let (mut logits, reference) = (narrow(&z), narrow(&r));
                let r: Vec<f64> = reference.iter().map(|&v| f64::from(v)).collect();
                let mut states = [RowState::new(TARGET)];
                let chunk = Vocabulary { logits: &logits, ..empty(kind) };
                accumulate(chunk, Some(&reference), &mut states);
                if second_sweep(kind) {
                    compare(kind, chunk, &reference, &mut states);
                }
                let value = exact(kind, &z, &r);
                let got = states[0].divergence(kind);
                assert!((got - value).abs() < 2e-6 * value + 2e-7, "{kind}: {got} against {value}");

                let cotangent = RowCotangent { logp: 0.3, entropy: -0.2, divergence: 0.7, listed: 0.0 };
                let scalar = |z: &[f64]| {
                    let lp = log_softmax(z);
                    let entropy: f64 = lp.iter().map(|lp| -lp.exp() * lp).sum();
                    cotangent.logp * lp[TARGET as usize]
                        + cotangent.entropy * entropy
                        + cotangent.divergence * exact(kind, z, &r)
                };
                backward(empty(kind), &mut logits, Some(&reference), &states, &[cotangent]);
                let largest = logits.iter().fold(0.0f32, |a, v| a.max(v.abs()));
                for at in (0..COLUMNS).step_by(25) {
                    let moved = |step: f64| {
                        let mut z = z.clone();
                        z[at] += step;
                        scalar(&z)
                    };
                    let numeric = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                    let error = (f64::from(logits[at]) - numeric).abs();
                    assert!(
                        error < 2e-5 * f64::from(largest),
                        "{kind} at {at}: {} against {numeric}",
                        logits[at]
                    );
                }
            }
        }
    }

    #[test]
    fn a_divergence_without_bound_is_infinite_and_one_with_a_bound_stays_within_it() {
        let (mut z, mut r) = (vec![0.0f32; COLUMNS], vec![0.0f32; COLUMNS]);
        (z[3], r[5]) = (200.0, 200.0);
        for kind in Divergence::ALL {
            let mut states = [RowState::new(TARGET)];
            let chunk = Vocabulary { logits: &z, ..empty(kind) };
            accumulate(chunk, Some(&r), &mut states);
            if second_sweep(kind) {
                compare(kind, chunk, &r, &mut states);
            }
            let got = states[0].divergence(kind);
            let expected = match kind {
                Divergence::ReverseKl | Divergence::ForwardKl => 200.0,
                Divergence::Jeffreys => 400.0,
                Divergence::ChiSquared => f64::INFINITY,
                Divergence::JensenShannon => 2.0_f64.ln(),
                Divergence::Alpha(a) => 1.0 / (a * (1.0 - a)),
                Divergence::TotalVariation | Divergence::Hellinger => 1.0,
            };
            let same = got.is_infinite() && expected.is_infinite();
            assert!(same || (got - expected).abs() < 1e-4 * expected, "{kind}: {got} against {expected}");
        }
    }
}
