//! The layers, forward and backward, by hand.
//!
//! ```text
//! h = norm1(x)         qkv = h Wqkv^T + b      q, k = rope(qk_norm(q, k))      a = attention(q, k, v)
//! m = x + a Wo^T       [g, u] = norm2(m) Wgu^T                                 x' = m + (silu(g) u) Wdown^T
//! ```
//! Kept a layer: `x, qkv, a, lse, m, [g, u]` and the inverse norms; `h`, `norm2(m)` and `silu(g) u` are
//! cheap and computed again in the backward pass. The last layer computes what follows its attention only for the
//! tokens that the head reads.

use std::borrow::Cow;
use std::ops::Range;

use super::Shape;
use super::adapter::{Adapter, Projection};
use super::arena::{Arena, heads};
use super::copies::Copies;
use super::kernel::{AttentionPlan, Kernels, Mat, MatMut, NarrowWeights, Team};
use super::weights::Weights;

/// A forest made ready for the layers.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) tokens: &'a [u32],
    /// Tokens whose result is read, ascending.
    pub(crate) read: Vec<usize>,
    pub(crate) plan: AttentionPlan,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

/// One model, with or without its adapter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'a> {
    pub(crate) kernels: &'a dyn Kernels,
    pub(crate) shape: &'a Shape,
    pub(crate) weights: &'a Weights,
    /// What is read in place of the matrices' own elements.
    pub(crate) copies: Option<&'a Copies>,
    pub(crate) adapter: Option<&'a Adapter>,
}

/// Gradients of the base (`full`) or of the adapter, laid out as its parameters.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    pub(crate) values: &'a mut [f32],
    /// Add to what is there; otherwise overwrite.
    pub(crate) accumulate: bool,
    /// Whether these are the base's.
    pub(crate) full: bool,
}

impl Gradients<'_> {
    /// A vector's gradient, ready to be added to, where the base is trained.
    pub(crate) fn base(&mut self, range: &Range<usize>) -> Option<&mut [f32]> {
        let fresh = !self.accumulate;
        self.full.then(|| {
            let part = &mut self.values[range.clone()];
            if fresh {
                part.fill(0.0);
            }
            part
        })
    }
}

impl<'a> Decoder<'a> {
    /// A matrix as the forward pass reads it.
    pub(crate) fn matrix(self, range: &Range<usize>) -> NarrowWeights<'a> {
        let copy = self.copies.and_then(|copies| copies.get(range));
        copy.unwrap_or_else(|| self.weights.stored(range))
    }

    /// Where the weights of the score lie in what is trained: the adapter if there is one, else the base.
    pub(crate) fn score_place(self) -> Option<Range<usize>> {
        self.adapter.map_or_else(|| self.weights.places.score.clone(), |adapter| adapter.score.clone())
    }

    /// The weights of the score `[d]`, if there is one.
    pub(crate) fn score(self) -> Option<Cow<'a, [f32]>> {
        let place = self.score_place()?;
        if let Some(adapter) = self.adapter {
            return Some(adapter.params[place].into());
        }
        let mut wide = Vec::new();
        Some(self.weights.matrix(&place, &mut wide).to_vec().into())
    }

    /// Runs all layers; returns which input slot of the arena holds the result, a row for each token that is read.
    /// `keep` keeps what the backward pass needs; `seen` is shown the rotated `qkv` of each layer.
    pub(crate) fn forward(
        self,
        batch: &Prepared<'_>,
        arena: &mut Arena,
        keep: bool,
        seen: &mut dyn FnMut(usize, &[f32]),
    ) -> usize {
        let (n, d) = (batch.tokens.len(), self.shape.hidden);
        let embedding = self.weights.places.embedding.start;
        for (row, &token) in arena.x[..n * d].chunks_exact_mut(d).zip(batch.tokens) {
            self.weights.copy_row(embedding + token as usize * d, row);
        }
        for layer in 0..self.shape.layers {
            let (from, to) = if keep { (layer, layer + 1) } else { (layer % 2, (layer + 1) % 2) };
            let slot = if keep && arena.room.slots > 1 { layer } else { 0 };
            self.layer(layer, batch, arena, from, Some(to), slot);
            let width = self.shape.qkv_width();
            let first = slot * arena.room.tokens * width;
            seen(layer, &arena.qkv[first..first + n * width]);
        }
        if keep { self.shape.layers } else { self.shape.layers % 2 }
    }

    /// Rows that a layer has after its attention.
    fn rows(self, layer: usize, batch: &Prepared<'_>) -> usize {
        if layer + 1 == self.shape.layers { batch.read.len() } else { batch.tokens.len() }
    }

    /// One layer from input slot `from` to input slot `to` (or only its inner activations), kept in `slot`.
    fn layer(
        self,
        layer: usize,
        batch: &Prepared<'_>,
        arena: &mut Arena,
        from: usize,
        to: Option<usize>,
        slot: usize,
    ) {
        let Self { kernels, shape, weights, .. } = self;
        let places = &weights.places.layers[layer];
        let (n, d, ffn, cap) = (batch.tokens.len(), shape.hidden, shape.ffn, arena.room.tokens);
        let (qw, width, layout) = (shape.q_width(), shape.qkv_width(), heads(shape));
        let m = self.rows(layer, batch);
        let at = |rows: usize, w: usize| slot * cap * w..slot * cap * w + rows * w;
        let h = &mut arena.h[..n * d];
        let low = &mut arena.low[slot * cap * arena.room.lora..][..n * arena.room.lora];

        let x = &arena.x[from * cap * d..][..n * d];
        kernels.rms_norm(x, &weights.vector(&places.norm1), shape.norm_eps, h, &mut arena.inv1[at(n, 1)]);
        let qkv = &mut arena.qkv[at(n, width)];
        self.product(qkv, width, h, d, &places.qkv, false);
        if let Some(bias) = &places.bias {
            kernels.add_bias(qkv, &weights.vector(bias));
        }
        self.adapt(layer, Projection::Qkv, qkv, width, h, d, low);
        if let Some((q, k)) = &places.qk_norm {
            arena.raw[at(n, width)].copy_from_slice(qkv);
            let inv = &mut arena.inv_qk[at(n, shape.heads + shape.kv_heads)];
            kernels.qk_norm(layout, qkv, &weights.vector(q), &weights.vector(k), shape.norm_eps, inv);
        }
        kernels.rotary(layout, qkv, &batch.cos, &batch.sin, false);
        let attended = &mut arena.attended[at(n, qw)];
        kernels.attention(layout, &batch.plan, qkv, attended, &mut arena.lse[at(n, shape.heads)]);

        let mid = &mut arena.mid[at(m, d)];
        if m < n {
            compact(attended, qw, &batch.read);
            for (row, &token) in mid.chunks_exact_mut(d).zip(&batch.read) {
                row.copy_from_slice(&x[token * d..][..d]);
            }
        } else {
            mid.copy_from_slice(x);
        }
        let (attended, h) = (&attended[..m * qw], &mut h[..m * d]);
        self.product(mid, d, attended, qw, &places.o, true);
        self.adapt(layer, Projection::O, mid, d, attended, qw, low);

        kernels.rms_norm(mid, &weights.vector(&places.norm2), shape.norm_eps, h, &mut arena.inv2[at(m, 1)]);
        let gate_up = &mut arena.gate_up[at(m, 2 * ffn)];
        self.product(gate_up, 2 * ffn, h, d, &places.gate_up, false);
        self.adapt(layer, Projection::GateUp, gate_up, 2 * ffn, h, d, low);
        if to.is_none() && self.adapter.is_none_or(|a| a.group(layer, Projection::Down).parts.is_empty()) {
            return;
        }
        let act = &mut arena.act[..m * ffn];
        kernels.swiglu(gate_up, ffn, act);
        let Some(to) = to else {
            // Only the low-rank activation of the last projection is missing; its output is not needed.
            self.reduce(layer, Projection::Down, act, ffn, low);
            return;
        };
        let out = &mut arena.x[to * cap * d..][..m * d];
        out.copy_from_slice(mid);
        self.product(out, d, act, ffn, &places.down, true);
        self.adapt(layer, Projection::Down, out, d, act, ffn, low);
    }

    /// `y (+)= x W^T`.
    fn product(self, y: &mut [f32], out: usize, x: &[f32], input: usize, w: &Range<usize>, accumulate: bool) {
        let n = x.len() / input;
        let w = match self.matrix(w) {
            NarrowWeights::F32(w) => Mat::new(w, out, input),
            NarrowWeights::Bf16(w) => Mat::bf16(w, out, input),
            w @ NarrowWeights::Int8(_) => {
                return Team::lead(|team| self.kernels.narrow(team, w, x, n, y, accumulate));
            }
        };
        self.kernels.matmul(MatMut::new(y, n, out), Mat::new(x, n, input), w.t(), 1.0, accumulate);
    }

    /// `low = x A^T` for all adapters of a projection.
    fn reduce(self, layer: usize, projection: Projection, x: &[f32], input: usize, low: &mut [f32]) {
        let Some(adapter) = self.adapter else { return };
        let group = adapter.group(layer, projection);
        let rank = group.parts.len() * adapter.r;
        if rank == 0 {
            return;
        }
        let n = x.len() / input;
        let c = MatMut::strided(&mut low[group.column..], n, rank, adapter.width);
        let a = Mat::new(&adapter.params[group.a.clone()], rank, input);
        self.kernels.matmul(c, Mat::new(x, n, input), a.t(), 1.0, false);
    }

    /// `y += scale (x A^T) B^T` for each adapter of a projection.
    fn adapt(
        self,
        layer: usize,
        projection: Projection,
        y: &mut [f32],
        out: usize,
        x: &[f32],
        input: usize,
        low: &mut [f32],
    ) {
        let Some(adapter) = self.adapter else { return };
        self.reduce(layer, projection, x, input, low);
        let n = x.len() / input;
        let group = adapter.group(layer, projection);
        for (i, part) in group.parts.iter().enumerate() {
            let a = Mat::strided(&low[group.column + i * adapter.r..], n, adapter.r, adapter.width);
            let b = Mat::new(&adapter.params[part.b.clone()], part.out, adapter.r);
            let c = MatMut::strided(&mut y[part.column..], n, part.out, out);
            self.kernels.matmul(c, a, b.t(), adapter.scale, true);
        }
    }

    /// From the gradient of the last layer's output in `arena.dx`, a row for each token that is read, to the
    /// gradients of all parameters below the head.
    pub(crate) fn backward(self, batch: &Prepared<'_>, arena: &mut Arena, grads: &mut Gradients<'_>) {
        let recompute = arena.room.slots == 1 && self.shape.layers > 1;
        for layer in (0..self.shape.layers).rev() {
            if recompute {
                self.layer(layer, batch, arena, layer, None, 0);
            }
            self.layer_backward(layer, batch, arena, if recompute { 0 } else { layer }, grads);
        }
        if grads.full {
            let d = self.shape.hidden;
            let embedding = &mut grads.values[self.weights.places.embedding.clone()];
            if !self.shape.head_is_embedding() && !grads.accumulate {
                embedding.fill(0.0);
            }
            for (row, &token) in arena.dx.chunks_exact(d).zip(batch.tokens) {
                for (g, &v) in embedding[token as usize * d..][..d].iter_mut().zip(row) {
                    *g += v;
                }
            }
        }
    }

    fn layer_backward(
        self,
        layer: usize,
        batch: &Prepared<'_>,
        arena: &mut Arena,
        slot: usize,
        grads: &mut Gradients<'_>,
    ) {
        let Self { kernels, shape, weights, .. } = self;
        let places = &weights.places.layers[layer];
        let (n, d, ffn, cap) = (batch.tokens.len(), shape.hidden, shape.ffn, arena.room.tokens);
        let (qw, width, layout) = (shape.q_width(), shape.qkv_width(), heads(shape));
        let m = self.rows(layer, batch);
        let at = |rows: usize, w: usize| slot * cap * w..slot * cap * w + rows * w;
        let low = &arena.low[slot * cap * arena.room.lora..][..n * arena.room.lora];
        let dlow = &mut arena.dlow[..n * arena.room.lora];

        let (h, dh, dx) = (&mut arena.h[..m * d], &mut arena.dh[..m * d], &mut arena.dx[..m * d]);
        let gate_up = &arena.gate_up[at(m, 2 * ffn)];
        let (act, dact) = (&mut arena.act[..m * ffn], &mut arena.dact[..m * ffn]);
        kernels.swiglu(gate_up, ffn, act);
        self.product_backward(dact, dx, d, act, ffn, &places.down, grads);
        self.adapt_backward(layer, Projection::Down, dact, dx, d, act, ffn, low, dlow, grads);
        let dgate_up = &mut arena.dgate_up[..m * 2 * ffn];
        kernels.swiglu_backward(gate_up, ffn, dact, dgate_up);

        let mid = &arena.mid[at(m, d)];
        let norm2 = weights.vector(&places.norm2);
        kernels.rms_norm_again(mid, &norm2, &arena.inv2[at(m, 1)], h);
        self.product_backward(dh, dgate_up, 2 * ffn, h, d, &places.gate_up, grads);
        self.adapt_backward(layer, Projection::GateUp, dh, dgate_up, 2 * ffn, h, d, low, dlow, grads);
        kernels.rms_norm_backward(mid, &norm2, &arena.inv2[at(m, 1)], dh, dx, grads.base(&places.norm2));

        let attended = &arena.attended[at(m, qw)];
        let dattended = &mut arena.dattended[..m * qw];
        self.product_backward(dattended, dx, d, attended, qw, &places.o, grads);
        self.adapt_backward(layer, Projection::O, dattended, dx, d, attended, qw, low, dlow, grads);

        let (h, dh, dx) = (&mut arena.h[..n * d], &mut arena.dh[..n * d], &mut arena.dx[..n * d]);
        let (attended, dattended) = (&mut arena.attended[at(n, qw)], &mut arena.dattended[..n * qw]);
        if m < n {
            spread(attended, qw, &batch.read);
            spread(dattended, qw, &batch.read);
            spread(dx, d, &batch.read);
        }
        let dqkv = &mut arena.dqkv[..n * width];
        let (qkv, lse) = (&arena.qkv[at(n, width)], &arena.lse[at(n, shape.heads)]);
        kernels.attention_backward(
            layout,
            &batch.plan,
            qkv,
            attended,
            lse,
            dattended,
            dqkv,
            &mut arena.attention,
        );
        kernels.rotary(layout, dqkv, &batch.cos, &batch.sin, true);
        if let Some((q, k)) = &places.qk_norm {
            let (raw, inv) = (&arena.raw[at(n, width)], &arena.inv_qk[at(n, shape.heads + shape.kv_heads)]);
            let both = q.start.min(k.start)..q.end.max(k.end);
            let dqk = grads.base(&both).map(|part| part.split_at_mut(shape.head_dim));
            kernels.qk_norm_backward(layout, raw, &weights.vector(q), &weights.vector(k), inv, dqkv, dqk);
        }
        if let Some(dbias) = places.bias.as_ref().and_then(|bias| grads.base(bias)) {
            kernels.bias_backward(dqkv, dbias);
        }

        let x = &arena.x[layer * cap * d..][..n * d];
        let norm1 = weights.vector(&places.norm1);
        kernels.rms_norm_again(x, &norm1, &arena.inv1[at(n, 1)], h);
        self.product_backward(dh, dqkv, width, h, d, &places.qkv, grads);
        self.adapt_backward(layer, Projection::Qkv, dh, dqkv, width, h, d, low, dlow, grads);
        kernels.rms_norm_backward(x, &norm1, &arena.inv1[at(n, 1)], dh, dx, grads.base(&places.norm1));
    }

    /// `dx = dy W` and, where the base is trained, `dW (+)= dy^T x`.
    fn product_backward(
        self,
        dx: &mut [f32],
        dy: &[f32],
        out: usize,
        x: &[f32],
        input: usize,
        w: &Range<usize>,
        grads: &mut Gradients<'_>,
    ) {
        let n = x.len() / input;
        let dy = Mat::new(dy, n, out);
        let weights = self.weights.mat(w, input);
        self.kernels.matmul(MatMut::new(dx, n, input), dy, weights, 1.0, false);
        if grads.full {
            let dw = MatMut::new(&mut grads.values[w.clone()], out, input);
            self.kernels.matmul(dw, dy.t(), Mat::new(x, n, input), 1.0, grads.accumulate);
        }
    }

    /// With `u = x A^T`: `du = scale dy B`, `dB (+)= scale dy^T u`, `dA (+)= du^T x`, `dx += du A`.
    fn adapt_backward(
        self,
        layer: usize,
        projection: Projection,
        dx: &mut [f32],
        dy: &[f32],
        out: usize,
        x: &[f32],
        input: usize,
        low: &[f32],
        dlow: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        let Some(adapter) = self.adapter else { return };
        let group = adapter.group(layer, projection);
        let rank = group.parts.len() * adapter.r;
        if rank == 0 {
            return;
        }
        let n = x.len() / input;
        let kernels = self.kernels;
        for (i, part) in group.parts.iter().enumerate() {
            let column = group.column + i * adapter.r;
            let dy = Mat::strided(&dy[part.column..], n, part.out, out);
            let b = Mat::new(&adapter.params[part.b.clone()], part.out, adapter.r);
            let du = MatMut::strided(&mut dlow[column..], n, adapter.r, adapter.width);
            kernels.matmul(du, dy, b, adapter.scale, false);
            let u = Mat::strided(&low[column..], n, adapter.r, adapter.width);
            let db = MatMut::new(&mut grads.values[part.b.clone()], part.out, adapter.r);
            kernels.matmul(db, dy.t(), u, adapter.scale, grads.accumulate);
        }
        let du = Mat::strided(&dlow[group.column..], n, rank, adapter.width);
        let da = MatMut::new(&mut grads.values[group.a.clone()], rank, input);
        kernels.matmul(da, du.t(), Mat::new(x, n, input), 1.0, grads.accumulate);
        let a = Mat::new(&adapter.params[group.a.clone()], rank, input);
        kernels.matmul(MatMut::new(dx, n, input), du, a, 1.0, true);
    }
}

/// Moves the rows `read` to the front.
fn compact(values: &mut [f32], width: usize, read: &[usize]) {
    for (to, &from) in read.iter().enumerate() {
        values.copy_within(from * width..(from + 1) * width, to * width);
    }
}

/// Moves the first rows back to where `read` says; the others become zero.
fn spread(values: &mut [f32], width: usize, read: &[usize]) {
    let mut end = values.len();
    for (from, &to) in read.iter().enumerate().rev() {
        values.copy_within(from * width..(from + 1) * width, to * width);
        values[(to + 1) * width..end].fill(0.0);
        end = to * width;
    }
    values[..end].fill(0.0);
}
