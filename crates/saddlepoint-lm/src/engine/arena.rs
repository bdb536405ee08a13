//! Activations at fixed places, allocated once and reused by every step.

use rayon::prelude::*;

use super::Shape;
use super::aligned::Aligned;
use super::kernel::{AttentionPlan, HeadLayout};

/// What one pass may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) tokens: usize,
    /// Layers whose inner activations are kept: all, or one when they are recomputed.
    pub(crate) slots: usize,
    /// Layer inputs that are kept; two suffice when there is no backward pass.
    pub(crate) inputs: usize,
    /// Low-rank activations a token and layer.
    pub(crate) lora: usize,
    /// Elements of the largest `B` of an adapter.
    pub(crate) largest_b: usize,
    /// Whether there are buffers for the backward pass.
    pub(crate) backward: bool,
}

/// `[slot, N, width]` each, and scratch of one layer.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) room: Room,
    pub(crate) x: Aligned,
    pub(crate) inv1: Aligned,
    /// Projections before QK-norm (Qwen3 only).
    pub(crate) raw: Aligned,
    pub(crate) inv_qk: Aligned,
    pub(crate) qkv: Aligned,
    pub(crate) attended: Aligned,
    pub(crate) lse: Aligned,
    pub(crate) mid: Aligned,
    pub(crate) inv2: Aligned,
    pub(crate) gate_up: Aligned,
    /// Low-rank activations `scale x A^T`.
    pub(crate) low: Aligned,
    pub(crate) h: Aligned,
    pub(crate) act: Aligned,
    pub(crate) dx: Aligned,
    pub(crate) dh: Aligned,
    pub(crate) dqkv: Aligned,
    pub(crate) dattended: Aligned,
    pub(crate) dact: Aligned,
    pub(crate) dgate_up: Aligned,
    pub(crate) dlow: Aligned,
    /// The gradient of a `B`, transposed.
    pub(crate) db: Aligned,
    pub(crate) attention: Aligned,
}

pub(crate) fn heads(shape: &Shape) -> HeadLayout {
    HeadLayout { heads: shape.heads, kv_heads: shape.kv_heads, head_dim: shape.head_dim }
}

/// Number of elements of each buffer, in the order of [`Arena`]'s fields.
fn sizes(shape: &Shape, room: Room) -> [usize; 22] {
    let Room { tokens: n, slots, inputs, lora, largest_b, backward } = room;
    let raw = usize::from(shape.qk_norm);
    let b = usize::from(backward);
    [
        inputs * n * shape.hidden,
        slots * n,
        raw * slots * n * shape.qkv_width(),
        raw * slots * n * (shape.heads + shape.kv_heads),
        slots * n * shape.qkv_width(),
        slots * n * shape.q_width(),
        slots * n * shape.heads,
        slots * n * shape.hidden,
        slots * n,
        slots * n * 2 * shape.ffn,
        slots * n * lora,
        n * shape.hidden,
        n * shape.ffn,
        b * n * shape.hidden,
        b * n * shape.hidden,
        b * n * shape.qkv_width(),
        b * n * shape.q_width(),
        b * n * shape.ffn,
        b * n * 2 * shape.ffn,
        b * n * lora,
        b * largest_b,
        b * AttentionPlan::scratch(heads(shape), n),
    ]
}

/// Zeroes memory from all threads, so that pages are there before the first step.
fn touched(len: usize) -> Aligned {
    let mut out = Aligned::new(len);
    out.par_chunks_mut(1 << 16).for_each(|part| {
        for page in part.chunks_mut(1024) {
            // A plain zero would be optimised away on memory that is known to be zero.
            page[0] = std::hint::black_box(0.0);
        }
    });
    out
}

impl Arena {
    pub(crate) fn new(shape: &Shape, room: Room) -> Self {
        let [
            x,
            inv1,
            raw,
            inv_qk,
            qkv,
            attended,
            lse,
            mid,
            inv2,
            gate_up,
            low,
            h,
            act,
            dx,
            dh,
            dqkv,
            dattended,
            dact,
            dgate_up,
            dlow,
            db,
            attention,
        ] = sizes(shape, room).map(touched);
        Self {
            room,
            x,
            inv1,
            raw,
            inv_qk,
            qkv,
            attended,
            lse,
            mid,
            inv2,
            gate_up,
            low,
            h,
            act,
            dx,
            dh,
            dqkv,
            dattended,
            dact,
            dgate_up,
            dlow,
            db,
            attention,
        }
    }

    /// Bytes of [`Arena::new`].
    pub(crate) fn bytes(shape: &Shape, room: Room) -> u64 {
        sizes(shape, room).iter().sum::<usize>() as u64 * 4
    }

    /// Whether it has room for what `wanted` asks.
    pub(crate) fn fits(&self, wanted: Room) -> bool {
        let have = self.room;
        have.tokens >= wanted.tokens
            && have.slots >= wanted.slots
            && have.inputs >= wanted.inputs
            && have.lora >= wanted.lora
            && have.largest_b >= wanted.largest_b
            && have.backward >= wanted.backward
    }
}
