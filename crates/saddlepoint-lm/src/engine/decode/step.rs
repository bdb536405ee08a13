//! One decoding step of a batch, and the computation of prompts.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::super::Forest;
use super::super::adapter::Projection;
use super::super::arena::{Arena, Room, heads};
use super::super::decoder::Decoder;
use super::super::kernel::{NarrowWeights, Team, attend, raise};
use super::super::policy::prepare;
use super::super::rope::RopeTable;
use super::Active;
use super::cache::{Prefix, Sequence};
use super::sampler::Sampler;

/// Columns for rows of a matrix of so many columns.
fn turned(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix[column..].iter().step_by(columns).copied()).collect()
}

/// The model and its work buffers.
#[derive(Debug)]
pub(super) struct Step<'a> {
    decoder: Decoder<'a>,
    rope: RopeTable,
    arena: Option<Arena>,
    /// Each `B` of the adapter as `[r, out]`, by the offset of its first element.
    turned: BTreeMap<usize, Vec<f32>>,
    logits: Vec<f32>,
}

impl<'a> Step<'a> {
    pub(super) fn new(decoder: Decoder<'a>, rope: RopeTable) -> Self {
        let parts = decoder.adapter.into_iter().flat_map(|adapter| {
            let parts = adapter.layers.iter().flatten().flat_map(|group| &group.parts);
            parts.map(|part| (part.b.start, turned(&adapter.params[part.b.clone()], adapter.r)))
        });
        Self { decoder, rope, arena: None, turned: parts.collect(), logits: Vec::new() }
    }

    /// Computes prompts, each a tree of its own. The values of one do not depend on the others: every product
    /// sums in an order that the number of rows has no part in (see `kernel::matmul`).
    pub(super) fn prefill(&mut self, prompts: &[&[u32]]) -> Vec<Prefix> {
        let Decoder { shape, kernels, weights, adapter, .. } = self.decoder;
        let mut forest = Forest::default();
        let tokens: Vec<Range<usize>> = prompts
            .iter()
            .map(|ids| {
                let first = forest.len();
                forest.root(ids);
                first..forest.len()
            })
            .collect();
        let mut batch = prepare(&forest, self.decoder.shape, &mut self.rope);
        batch.read = tokens.iter().map(|tokens| tokens.end - 1).collect();
        let lora = adapter.map_or(0, |a| a.width);
        let room = Room { tokens: forest.len(), slots: 1, inputs: 2, lora, largest_b: 0, backward: false };
        if !self.arena.as_ref().is_some_and(|arena| arena.fits(room)) {
            self.arena = Some(Arena::new(shape, room));
        }
        let arena = self.arena.as_mut().expect("allocated above");
        let (qw, width) = (shape.q_width(), shape.qkv_width());
        let mut prefixes: Vec<Prefix> = prompts.iter().map(|ids| Prefix::new(shape, ids.len())).collect();
        let slot = self.decoder.forward(&batch, arena, false, &mut |layer, qkv| {
            (&mut prefixes, &tokens).into_par_iter().with_max_len(1).for_each(|(prefix, tokens)| {
                let rows = &qkv[tokens.start * width..tokens.end * width];
                for (token, row) in rows.chunks_exact(width).enumerate() {
                    prefix.store(layer, token, &row[qw..]);
                }
            });
        });
        let d = shape.hidden;
        let norm = weights.vector(&weights.places.norm);
        let last = arena.x[slot * arena.room.tokens * d..].chunks_exact(d);
        for (prefix, last) in prefixes.iter_mut().zip(last) {
            kernels.rms_norm(last, &norm, shape.norm_eps, &mut prefix.hidden, &mut [0.0]);
        }
        prefixes
    }

    /// `y += scale (x A^T) B^T`.
    fn adapt(
        &self,
        team: &Team<'_>,
        layer: usize,
        projection: Projection,
        x: &[f32],
        m: usize,
        y: &mut [f32],
    ) {
        let Some(adapter) = self.decoder.adapter else { return };
        let group = adapter.group(layer, projection);
        let rank = group.parts.len() * adapter.r;
        if rank == 0 {
            return;
        }
        let mut low = vec![0.0; m * rank];
        let a = NarrowWeights::F32(&adapter.params[group.a.clone()]);
        self.decoder.kernels.narrow(team, a, x, m, &mut low, false);
        for low in &mut low {
            *low *= adapter.scale;
        }
        let (out, turned) = (y.len() / m, &self.turned);
        team.share(y.chunks_exact_mut(out).zip(low.chunks_exact(rank)), |_, (y, low)| {
            for (part, low) in group.parts.iter().zip(low.chunks_exact(adapter.r)) {
                raise(low, &turned[&part.b.start], &mut y[part.column..][..part.out]);
            }
        });
    }

    /// Feeds each sequence its newest token; returns the final hidden states `[m, d]`.
    pub(super) fn hidden(&mut self, team: &Team<'_>, active: &mut [Active], m: usize) -> Vec<f32> {
        if m == 0 {
            return Vec::new();
        }
        let Decoder { shape, kernels, weights, .. } = self.decoder;
        let (d, ffn, layout) = (shape.hidden, shape.ffn, heads(shape));
        let (qw, width) = (shape.q_width(), shape.qkv_width());
        let mut x = vec![0.0; m * d];
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for (row, one) in x.chunks_exact_mut(d).zip(active.iter()) {
            let token = *one.sample.ids.last().expect("a sequence in the batch has a first token");
            weights.copy_row(weights.places.embedding.start + token as usize * d, row);
            self.rope.push(one.sequence.position(), &mut cos, &mut sin);
        }
        let mut sequences: Vec<&mut Sequence> = active.iter_mut().map(|one| &mut one.sequence).collect();
        let (mut h, mut inv) = (vec![0.0; m * d], vec![0.0; m]);
        let (mut qkv, mut attended) = (vec![0.0; m * width], vec![0.0; m * qw]);
        let (mut gate_up, mut act) = (vec![0.0; m * 2 * ffn], vec![0.0; m * ffn]);
        let mut inv_qk = vec![0.0; m * (shape.heads + shape.kv_heads)];
        for (layer, places) in weights.places.layers.iter().enumerate() {
            kernels.rms_norm(&x, &weights.vector(&places.norm1), shape.norm_eps, &mut h, &mut inv);
            kernels.narrow(team, self.decoder.matrix(&places.qkv), &h, m, &mut qkv, false);
            if let Some(bias) = &places.bias {
                kernels.add_bias(&mut qkv, &weights.vector(bias));
            }
            self.adapt(team, layer, Projection::Qkv, &h, m, &mut qkv);
            if let Some((q, k)) = &places.qk_norm {
                let (q, k) = (weights.vector(q), weights.vector(k));
                kernels.qk_norm(layout, &mut qkv, &q, &k, shape.norm_eps, &mut inv_qk);
            }
            kernels.rotary(layout, &mut qkv, &cos, &sin, false);
            let rows = qkv.chunks_exact(width).zip(attended.chunks_exact_mut(qw));
            team.share(sequences.iter_mut().zip(rows), |_, (sequence, (row, out))| {
                let (queries, kv) = row.split_at(qw);
                sequence.store(layer, kv);
                let group = qw / shape.kv_heads;
                let heads = queries.chunks_exact(group).zip(out.chunks_exact_mut(group));
                for (head, (query, out)) in heads.enumerate() {
                    attend(shape.head_dim, query, sequence.parts(layer, head), out);
                }
            });
            kernels.narrow(team, self.decoder.matrix(&places.o), &attended, m, &mut x, true);
            self.adapt(team, layer, Projection::O, &attended, m, &mut x);
            kernels.rms_norm(&x, &weights.vector(&places.norm2), shape.norm_eps, &mut h, &mut inv);
            kernels.narrow(team, self.decoder.matrix(&places.gate_up), &h, m, &mut gate_up, false);
            self.adapt(team, layer, Projection::GateUp, &h, m, &mut gate_up);
            kernels.swiglu(&gate_up, ffn, &mut act);
            kernels.narrow(team, self.decoder.matrix(&places.down), &act, m, &mut x, true);
            self.adapt(team, layer, Projection::Down, &act, m, &mut x);
        }
        sequences.into_iter().for_each(Sequence::advance);
        kernels.rms_norm(&x, &weights.vector(&weights.places.norm), shape.norm_eps, &mut h, &mut inv);
        h
    }

    /// Draws the next token of each sequence.
    pub(super) fn draw(
        &mut self,
        team: &Team<'_>,
        hidden: &[f32],
        sampler: &Sampler,
        active: &mut [Active],
    ) -> Vec<(u32, f64)> {
        let m = active.len();
        let vocab = self.decoder.shape.vocab;
        let head = self.decoder.matrix(&self.decoder.weights.places.head);
        self.logits.resize(m * vocab, 0.0);
        self.decoder.kernels.narrow(team, head, hidden, m, &mut self.logits, false);
        let mut draws = vec![(0, 0.0); m];
        let rows = active.iter_mut().zip(self.logits.chunks_exact(vocab)).zip(&mut draws);
        team.share(rows, |_, ((one, logits), draw)| *draw = sampler.draw(logits, &mut one.rng));
        draws
    }
}
