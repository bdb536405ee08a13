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
use super::adapter::{Adapter, Group, Part, Projection};
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
        self.project(layer, Projection::Qkv, qkv, None, h, &places.qkv, low);
        if let Some(bias) = &places.bias {
            kernels.add_bias(qkv, &weights.vector(bias));
        }
        if let Some((q, k)) = &places.qk_norm {
            arena.raw[at(n, width)].copy_from_slice(qkv);
            let inv = &mut arena.inv_qk[at(n, shape.heads + shape.kv_heads)];
            kernels.qk_norm(layout, qkv, &weights.vector(q), &weights.vector(k), shape.norm_eps, inv);
        }
        kernels.rotary(layout, qkv, &batch.cos, &batch.sin, false);
        let attended = &mut arena.attended[at(n, qw)];
        kernels.attention(layout, &batch.plan, qkv, attended, &mut arena.lse[at(n, shape.heads)]);

        let (mid, h) = (&mut arena.mid[at(m, d)], &mut h[..m * d]);
        let mut x = x;
        if m < n {
            compact(attended, qw, &batch.read);
            for (row, &token) in h.chunks_exact_mut(d).zip(&batch.read) {
                row.copy_from_slice(&x[token * d..][..d]);
            }
            x = h;
        }
        self.project(layer, Projection::O, mid, Some(x), &attended[..m * qw], &places.o, low);

        kernels.rms_norm(mid, &weights.vector(&places.norm2), shape.norm_eps, h, &mut arena.inv2[at(m, 1)]);
        let gate_up = &mut arena.gate_up[at(m, 2 * ffn)];
        self.project(layer, Projection::GateUp, gate_up, None, h, &places.gate_up, low);
        if to.is_none() && self.low_rank(layer, Projection::Down).is_none() {
            return;
        }
        let act = &mut arena.act[..m * ffn];
        kernels.swiglu(gate_up, ffn, act);
        let Some(to) = to else {
            // Only the low-rank activation of the last projection is missing; its output is not needed.
            self.reduce(layer, Projection::Down, act, low);
            return;
        };
        let out = &mut arena.x[to * cap * d..][..m * d];
        self.project(layer, Projection::Down, out, Some(mid), act, &places.down, low);
    }

    /// `y = onto + x W^T + scale (x A^T) B^T`, the last for each adapter of the projection.
    fn project(
        self,
        layer: usize,
        projection: Projection,
        y: &mut [f32],
        onto: Option<&[f32]>,
        x: &[f32],
        w: &Range<usize>,
        low: &mut [f32],
    ) {
        self.reduce(layer, projection, x, low);
        let (input, out) = self.widths(projection);
        let n = x.len() / input;
        let narrow = self.matrix(w);
        if let NarrowWeights::Int8(_) = narrow {
            if let Some(onto) = onto {
                y.copy_from_slice(onto);
            }
            Team::lead(|team| self.kernels.narrow(team, narrow, x, n, y, onto.is_some()));
        }
        for (columns, part) in self.stretches(layer, projection, out) {
            let width = columns.len();
            let low = part.map(|(adapter, b, column)| {
                let b = Mat::new(&adapter.params[b.clone()], width, adapter.r);
                (Mat::strided(&low[column..], n, adapter.r, adapter.width), b.t())
            });
            let c = MatMut::strided(&mut y[columns.start..], n, width, out);
            let elements = columns.start * input..columns.end * input;
            let w = match narrow {
                NarrowWeights::F32(w) => Mat::new(&w[elements], width, input),
                NarrowWeights::Bf16(w) => Mat::bf16(&w[elements], width, input),
                NarrowWeights::Int8(_) => {
                    if let Some((low, b)) = low {
                        self.kernels.matmul(c, low, b, 1.0, true);
                    }
                    continue;
                }
            };
            let onto = onto.map(|onto| &onto[columns.start..]);
            self.kernels.matmul_onto(c, onto, Mat::new(x, n, input), w.t(), low);
        }
    }

    /// Columns that a projection reads and writes.
    fn widths(self, projection: Projection) -> (usize, usize) {
        let Shape { hidden, ffn, .. } = *self.shape;
        match projection {
            Projection::Qkv => (hidden, self.shape.qkv_width()),
            Projection::O => (self.shape.q_width(), hidden),
            Projection::GateUp => (hidden, 2 * ffn),
            Projection::Down => (ffn, hidden),
        }
    }

    /// The columns that a projection writes, cut where one of its adapters begins or ends: each with the adapter, the
    /// place of its `B`, and its first column in the low-rank activations.
    fn stretches(self, layer: usize, projection: Projection, out: usize) -> Vec<Stretch<'a>> {
        let mut stretches = Vec::with_capacity(3);
        let mut next = 0;
        if let Some((adapter, group, _)) = self.low_rank(layer, projection) {
            for (i, Part { b, column, out }) in group.parts.iter().enumerate() {
                if next < *column {
                    stretches.push((next..*column, None));
                }
                next = column + out;
                stretches.push((*column..next, Some((adapter, b, group.column + i * adapter.r))));
            }
        }
        if next < out {
            stretches.push((next..out, None));
        }
        stretches
    }

    /// The adapters of a projection, whose `A` have `rank` rows together; none if it has none.
    fn low_rank(self, layer: usize, projection: Projection) -> Option<(&'a Adapter, &'a Group, usize)> {
        let adapter = self.adapter?;
        let group = adapter.group(layer, projection);
        let rank = group.parts.len() * adapter.r;
        (rank > 0).then_some((adapter, group, rank))
    }

    /// `low = scale x A^T` for all adapters of a projection.
    fn reduce(self, layer: usize, projection: Projection, x: &[f32], low: &mut [f32]) {
        let Some((adapter, group, rank)) = self.low_rank(layer, projection) else { return };
        let input = self.widths(projection).0;
        let n = x.len() / input;
        let c = MatMut::strided(&mut low[group.column..], n, rank, adapter.width);
        let a = Mat::new(&adapter.params[group.a.clone()], rank, input);
        self.kernels.matmul(c, Mat::new(x, n, input), a.t(), adapter.scale, false);
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
        self.reduce_cotangent(layer, Projection::Down, dx, dlow);
        self.pull(layer, Projection::Down, dact, dx, &places.down, dlow);
        let dgate_up = &mut arena.dgate_up[..m * 2 * ffn];
        kernels.swiglu_backward(gate_up, ffn, dact, dgate_up, act);
        self.add_gradients(layer, Projection::Down, dx, act, &places.down, low, dlow, &mut arena.db, grads);

        let mid = &arena.mid[at(m, d)];
        let norm2 = weights.vector(&places.norm2);
        kernels.rms_norm_again(mid, &norm2, &arena.inv2[at(m, 1)], h);
        self.reduce_cotangent(layer, Projection::GateUp, dgate_up, dlow);
        self.pull(layer, Projection::GateUp, dh, dgate_up, &places.gate_up, dlow);
        self.add_gradients(
            layer,
            Projection::GateUp,
            dgate_up,
            h,
            &places.gate_up,
            low,
            dlow,
            &mut arena.db,
            grads,
        );
        kernels.rms_norm_backward(mid, &norm2, &arena.inv2[at(m, 1)], dh, dx, grads.base(&places.norm2));

        let attended = &arena.attended[at(m, qw)];
        let dattended = &mut arena.dattended[..m * qw];
        self.reduce_cotangent(layer, Projection::O, dx, dlow);
        self.pull(layer, Projection::O, dattended, dx, &places.o, dlow);
        self.add_gradients(layer, Projection::O, dx, attended, &places.o, low, dlow, &mut arena.db, grads);

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
        self.reduce_cotangent(layer, Projection::Qkv, dqkv, dlow);
        self.add_gradients(layer, Projection::Qkv, dqkv, h, &places.qkv, low, dlow, &mut arena.db, grads);
        if layer == 0 && !grads.full {
            // Below the first layer nothing is trained.
            return;
        }
        self.pull(layer, Projection::Qkv, dh, dqkv, &places.qkv, dlow);
        kernels.rms_norm_backward(x, &norm1, &arena.inv1[at(n, 1)], dh, dx, grads.base(&places.norm1));
    }

    /// `du = scale dy B` for each adapter of a projection: the cotangent of `u = x A^T`.
    fn reduce_cotangent(self, layer: usize, projection: Projection, dy: &[f32], dlow: &mut [f32]) {
        let out = self.widths(projection).1;
        let n = dy.len() / out;
        for (columns, part) in self.stretches(layer, projection, out) {
            let Some((adapter, b, column)) = part else { continue };
            let du = MatMut::strided(&mut dlow[column..], n, adapter.r, adapter.width);
            let dy = Mat::strided(&dy[columns.start..], n, columns.len(), out);
            let b = Mat::new(&adapter.params[b.clone()], columns.len(), adapter.r);
            self.kernels.matmul(du, dy, b, adapter.scale, false);
        }
    }

    /// `dx = dy W + du A`.
    fn pull(
        self,
        layer: usize,
        projection: Projection,
        dx: &mut [f32],
        dy: &[f32],
        w: &Range<usize>,
        dlow: &[f32],
    ) {
        let (input, out) = self.widths(projection);
        let n = dy.len() / out;
        let low = self.low_rank(layer, projection).map(|(adapter, group, rank)| {
            let du = Mat::strided(&dlow[group.column..], n, rank, adapter.width);
            (du, Mat::new(&adapter.params[group.a.clone()], rank, input))
        });
        let (dx, dy) = (MatMut::new(dx, n, input), Mat::new(dy, n, out));
        self.kernels.matmul_onto(dx, None, dy, self.weights.mat(w, input), low);
    }

    /// Where the base is trained `dW (+)= dy^T x`; with an adapter `dB (+)= dy^T (scale u)` and `dA (+)= du^T x`.
    fn add_gradients(
        self,
        layer: usize,
        projection: Projection,
        dy: &[f32],
        x: &[f32],
        w: &Range<usize>,
        low: &[f32],
        dlow: &[f32],
        scratch: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        let (input, out) = self.widths(projection);
        let n = x.len() / input;
        let (kernels, x) = (self.kernels, Mat::new(x, n, input));
        if grads.full {
            let dw = MatMut::new(&mut grads.values[w.clone()], out, input);
            kernels.matmul(dw, Mat::new(dy, n, out).t(), x, 1.0, grads.accumulate);
        }
        for (columns, part) in self.stretches(layer, projection, out) {
            let Some((adapter, b, column)) = part else { continue };
            let dy = Mat::strided(&dy[columns.start..], n, columns.len(), out);
            let u = Mat::strided(&low[column..], n, adapter.r, adapter.width);
            // Transposed, so that `dy` is read where it lies.
            let transposed = &mut scratch[..b.len()];
            kernels.matmul(MatMut::new(transposed, adapter.r, columns.len()), u.t(), dy, 1.0, false);
            add_transposed(transposed, columns.len(), &mut grads.values[b.clone()], grads.accumulate);
        }
        if let Some((adapter, group, rank)) = self.low_rank(layer, projection) {
            let du = Mat::strided(&dlow[group.column..], n, rank, adapter.width);
            let da = MatMut::new(&mut grads.values[group.a.clone()], rank, input);
            kernels.matmul(da, du.t(), x, 1.0, grads.accumulate);
        }
    }
}

/// Columns of a projection, and what [`Decoder::stretches`] says of their adapter.
type Stretch<'a> = (Range<usize>, Option<(&'a Adapter, &'a Range<usize>, usize)>);

/// `to [columns, rows] (+)= from^T`, with `from [rows, columns]`.
fn add_transposed(from: &[f32], columns: usize, to: &mut [f32], accumulate: bool) {
    let rows = from.len() / columns;
    for (j, to) in to.chunks_exact_mut(rows).enumerate() {
        for (to, &v) in to.iter_mut().zip(from[j..].iter().step_by(columns)) {
            *to = if accumulate { *to + v } else { v };
        }
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
