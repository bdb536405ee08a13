//! The CPU: multi-versioned vector code and rayon.

use super::matmul::Threads;
use super::{
    AttentionPlan, HeadLayout, Kernels, Mat, MatMut, NarrowWeights, RowCotangent, RowState, Team, Vocabulary,
    attention, matmul, narrow, norm, rotary, softmax, swiglu,
};
use crate::engine::Divergence;

/// Runs on the current rayon pool with the widest instruction set that the machine has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

impl Kernels for Cpu {
    fn matmul(&self, c: MatMut<'_>, a: Mat<'_>, b: Mat<'_>, scale: f32, accumulate: bool) {
        matmul::matmul(c, a, b, scale, accumulate, Threads::All);
    }

    fn matmul_onto(
        &self,
        c: MatMut<'_>,
        onto: Option<&[f32]>,
        a: Mat<'_>,
        b: Mat<'_>,
        more: Option<(Mat<'_>, Mat<'_>)>,
    ) {
        matmul::matmul_onto(c, onto, a, b, more);
    }

    fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], inv: &mut [f32]) {
        norm::rms_norm(x, weight, eps, out, inv);
    }

    fn rms_norm_again(&self, x: &[f32], weight: &[f32], inv: &[f32], out: &mut [f32]) {
        norm::rms_norm_again(x, weight, inv, out);
    }

    fn rms_norm_backward(
        &self,
        x: &[f32],
        weight: &[f32],
        inv: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: Option<&mut [f32]>,
    ) {
        norm::rms_norm_backward(x, weight, inv, dy, dx, dweight);
    }

    fn add_bias(&self, x: &mut [f32], bias: &[f32]) {
        norm::add_bias(x, bias);
    }

    fn bias_backward(&self, dy: &[f32], dbias: &mut [f32]) {
        norm::bias_backward(dy, dbias);
    }

    fn qk_norm(&self, heads: HeadLayout, qkv: &mut [f32], q: &[f32], k: &[f32], eps: f32, inv: &mut [f32]) {
        norm::qk_norm(heads, qkv, q, k, eps, inv);
    }

    fn qk_norm_backward(
        &self,
        heads: HeadLayout,
        raw: &[f32],
        q: &[f32],
        k: &[f32],
        inv: &[f32],
        dqkv: &mut [f32],
        dqk: Option<(&mut [f32], &mut [f32])>,
    ) {
        norm::qk_norm_backward(heads, raw, q, k, inv, dqkv, dqk);
    }

    fn rotary(&self, heads: HeadLayout, qkv: &mut [f32], cos: &[f32], sin: &[f32], inverse: bool) {
        rotary::rotary(heads, qkv, cos, sin, inverse);
    }

    fn attention(
        &self,
        heads: HeadLayout,
        plan: &AttentionPlan,
        qkv: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
    ) {
        attention::attention(heads, plan, qkv, out, lse);
    }

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
    ) {
        attention::attention_backward(heads, plan, qkv, out, lse, dout, dqkv, scratch);
    }

    fn swiglu(&self, gate_up: &[f32], ffn: usize, out: &mut [f32]) {
        swiglu::swiglu(gate_up, ffn, out);
    }

    fn swiglu_backward(
        &self,
        gate_up: &[f32],
        ffn: usize,
        dout: &[f32],
        dgate_up: &mut [f32],
        out: &mut [f32],
    ) {
        swiglu::swiglu_backward(gate_up, ffn, dout, dgate_up, out);
    }

    fn softmax_accumulate(&self, chunk: Vocabulary<'_>, reference: Option<&[f32]>, rows: &mut [RowState]) {
        softmax::accumulate(chunk, reference, rows);
    }

    fn softmax_compare(
        &self,
        kind: Divergence,
        chunk: Vocabulary<'_>,
        reference: &[f32],
        rows: &mut [RowState],
    ) {
        softmax::compare(kind, chunk, reference, rows);
    }

    fn softmax_backward(
        &self,
        chunk: Vocabulary<'_>,
        logits: &mut [f32],
        reference: Option<&[f32]>,
        rows: &[RowState],
        cotangents: &[RowCotangent],
    ) {
        softmax::backward(chunk, logits, reference, rows, cotangents);
    }

    fn narrow(
        &self,
        team: &Team<'_>,
        w: NarrowWeights<'_>,
        x: &[f32],
        m: usize,
        out: &mut [f32],
        accumulate: bool,
    ) {
        narrow::narrow(team, w, x, m, out, accumulate);
    }
}
