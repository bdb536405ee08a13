//! The closed list of operations a decoder needs. A second backend implements this trait once more.
//!
//! Every operation is deterministic: a reduction's order depends on the shapes alone, never on the
//! number of threads. Slices are row-major; `N` tokens, `R` rows.

#![allow(
    clippy::inline_always,
    reason = "code inside `pulp::Arch::dispatch` is compiled for the instruction set only where it is inlined"
)]

mod attend;
mod attention;
mod cpu;
mod gemm;
mod lanes;
mod matmul;
mod narrow;
mod norm;
mod raise;
mod rotary;
mod softmax;
mod swiglu;
mod team;

use std::fmt::Debug;

pub(crate) use attend::{Cached, KEYS, attend};
pub use attention::{AttentionPlan, HeadLayout};
pub use cpu::Cpu;
pub(crate) use gemm::packed_bytes;
pub use matmul::{Mat, MatMut};
pub use narrow::{NarrowWeights, Quantized};
pub(crate) use raise::raise;
pub use softmax::{RowCotangent, RowState, Vocabulary};
pub(crate) use softmax::{log_sum_exp, second_sweep};
pub use team::Team;

use crate::engine::Divergence;

/// What the engine asks of a device.
pub trait Kernels: Debug + Send + Sync {
    /// `c = scale a b`, or `c += scale a b` with `accumulate`.
    fn matmul(&self, c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool);

    /// `c = onto + a b + a' b'`, with zeros for what is not given. `onto` lies as `c`; the rows of `a'` are in order.
    fn matmul_onto(
        &self,
        c: MatMut<'_>,
        onto: Option<&[f32]>,
        a: Mat<'_>,
        b: Mat<'_>,
        more: Option<(Mat<'_>, Mat<'_>)>,
    );

    /// `out[i, :] = x[i, :] inv[i] weight` with `inv[i] = 1 / sqrt(mean(x[i, :]^2) + eps)`; keeps `inv`.
    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], inv: &mut [f32]);

    /// The same with `inv` known, for recomputation.
    fn rms_norm_again(&self, x: &[f32], weight: &[f32], inv: &[f32], out: &mut [f32]);

    /// `dx += J^T dy` for [`Kernels::rms_norm`]; adds the weight's gradient to `dweight` where given.
    fn rms_norm_backward(
        &self,
        x: &[f32],
        weight: &[f32],
        inv: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: Option<&mut [f32]>,
    );

    /// Adds `bias` to every row.
    fn add_bias(&self, x: &mut [f32], bias: &[f32]);

    /// Adds the column sums of `dy` to `dbias`.
    fn bias_backward(&self, dy: &[f32], dbias: &mut [f32]);

    /// RMS-normalises each query and key head of `qkv` in place (Qwen3), keeping the inverse norms
    /// `[N, heads + kv_heads]`.
    fn qk_norm(&self, heads: HeadLayout, qkv: &mut [f32], q: &[f32], k: &[f32], eps: f32, inv: &mut [f32]);

    /// Backward of [`Kernels::qk_norm`]: `dqkv` in place, from the unnormalised `raw`.
    fn qk_norm_backward(
        &self,
        heads: HeadLayout,
        raw: &[f32],
        q: &[f32],
        k: &[f32],
        inv: &[f32],
        dqkv: &mut [f32],
        dqk: Option<(&mut [f32], &mut [f32])>,
    );

    /// Rotates query and key heads of `qkv` in place by the angles of `cos`, `sin` `[N, head_dim / 2]`;
    /// `inverse` turns back, which is also the backward pass.
    fn rotary(&self, heads: HeadLayout, qkv: &mut [f32], cos: &[f32], sin: &[f32], inverse: bool);

    /// Causal attention over the forest. `out [N, heads head_dim]`, `lse [N, heads]`.
    fn attention(
        &self,
        heads: HeadLayout,
        plan: &AttentionPlan,
        qkv: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
    );

    /// Overwrites `dqkv` with the gradient of attention, given its result and `dout`.
    fn attention_backward(
        &self,
        heads: HeadLayout,
        plan: &AttentionPlan,
        qkv: &[f32],
        out: &[f32],
        lse: &[f32],
        dout: &[f32],
        dqkv: &mut [f32],
        scratch: &mut [f32],
    );

    /// `out = silu(gate) up` with `gate_up [N, 2 ffn]`.
    fn swiglu(&self, gate_up: &[f32], ffn: usize, out: &mut [f32]);

    /// Overwrites `dgate_up` given `dout [N, ffn]`, and `out` with the result of [`Kernels::swiglu`] once more.
    fn swiglu_backward(
        &self,
        gate_up: &[f32],
        ffn: usize,
        dout: &[f32],
        dgate_up: &mut [f32],
        out: &mut [f32],
    );

    /// Folds one vocabulary chunk of logits (and reference logits) into the running state of each row.
    fn softmax_accumulate(&self, chunk: Vocabulary<'_>, reference: Option<&[f32]>, rows: &mut [RowState]);

    /// Second sweep, for the divergences that need both normalisers first.
    fn softmax_compare(
        &self,
        kind: Divergence,
        chunk: Vocabulary<'_>,
        reference: &[f32],
        rows: &mut [RowState],
    );

    /// Overwrites a chunk of logits with the derivative of the loss with respect to them.
    fn softmax_backward(
        &self,
        chunk: Vocabulary<'_>,
        logits: &mut [f32],
        reference: Option<&[f32]>,
        rows: &[RowState],
        cotangents: &[RowCotangent],
    );

    /// `out[m, n] (+)= sum_k w[n, k] x[m, k]` for few rows `m`, or any number with 8-bit weights: `w` is read
    /// once. A row's result does not depend on how many other rows there are.
    fn narrow(
        &self,
        team: &Team<'_>,
        w: NarrowWeights<'_>,
        x: &[f32],
        m: usize,
        out: &mut [f32],
        accumulate: bool,
    );
}

/// Numbers in [-1, 1) without a pattern, the same for the same seed.
#[cfg(test)]
fn filled(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}
