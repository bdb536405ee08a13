//! Causal attention over a forest, forward and backward, in blocks of queries.
//!
//! A token attends to every token of its ancestor segments and to the earlier tokens of its own. With
//! `P = softmax(Q K^T / sqrt(head_dim))`, `O = P V` and `D_i = dO_i . O_i`:
//! `dV = P^T dO`, `dS = P * (dO V^T - D)`, `dQ = dS K / sqrt(head_dim)`, `dK = dS^T Q / sqrt(head_dim)`.
//! Only the log-sum-exp of each row is kept; `P` is computed again in the backward pass.
//!
//! The query heads that share keys are one matrix, a row for each token and head of the group, so that a block's keys
//! and values are packed once for all of them.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::lanes::{dot, exp, max, sum};
use super::matmul::{Mat, MatMut, Threads, matmul};
use crate::engine::Forest;
use crate::engine::aligned::Aligned;

/// Rows of one block, queries times heads that share keys: more of them share the packing of keys and values, fewer
/// leave less of the square on the diagonal to compute for nothing.
const ROWS: usize = 144;

/// How heads lie in a row of `qkv`: query heads, then key heads, then value heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

impl HeadLayout {
    /// Width of a row of `qkv`.
    pub fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// First column of the keys that query head `h` reads.
    pub(crate) fn key_column(self, h: usize) -> usize {
        (self.heads + h / self.group()) * self.head_dim
    }

    /// First column of the values that query head `h` reads.
    pub(crate) fn value_column(self, h: usize) -> usize {
        self.key_column(h) + self.kv_heads * self.head_dim
    }

    /// Query heads that share keys.
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Most queries of one block.
    fn queries(self) -> usize {
        (ROWS / self.group()).next_multiple_of(16)
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Consecutive queries of one segment and the key ranges they see.
#[derive(Debug, Clone, PartialEq, Eq)]
struct QueryBlock {
    queries: Range<usize>,
    /// Ancestors' tokens, then the own segment's up to the last query.
    keys: Vec<Range<usize>>,
}

impl QueryBlock {
    fn width(&self) -> usize {
        self.keys.iter().map(Range::len).sum()
    }

    /// The key ranges, each with the column of a row of scores at which it begins.
    fn ranges(&self) -> impl Iterator<Item = (usize, &Range<usize>)> {
        self.keys.iter().scan(0, |next, keys| {
            let at = *next;
            *next += keys.len();
            Some((at, keys))
        })
    }

    /// Keys that query `i` of the block sees; they are the first ones.
    fn visible(&self, i: usize) -> usize {
        self.width() - (self.queries.len() - 1 - i)
    }
}

/// The blocks of a forest, grouped by tree.
#[derive(Debug, Clone, Default)]
pub struct AttentionPlan {
    blocks: Vec<QueryBlock>,
    trees: Vec<Tree>,
}

#[derive(Debug, Clone)]
struct Tree {
    tokens: Range<usize>,
    blocks: Range<usize>,
}

impl AttentionPlan {
    /// Cuts every segment of the forest into blocks of queries.
    pub fn new(forest: &Forest, heads: HeadLayout) -> Self {
        let queries = heads.queries();
        let mut plan = Self::default();
        for (index, segment) in forest.segments.iter().enumerate() {
            let mut ancestors: Vec<_> =
                forest.chain(index).into_iter().map(|s| forest.segments[s].tokens.clone()).collect();
            ancestors.pop();
            if plan.trees.len() <= segment.tree {
                let (token, block) = (segment.tokens.start, plan.blocks.len());
                plan.trees.push(Tree { tokens: token..token, blocks: block..block });
            }
            let own = segment.tokens.clone();
            for start in own.clone().step_by(queries) {
                let end = (start + queries).min(own.end);
                let mut keys = ancestors.clone();
                keys.push(own.start..end);
                plan.blocks.push(QueryBlock { queries: start..end, keys });
            }
            let tree = &mut plan.trees[segment.tree];
            tree.tokens.end = own.end;
            tree.blocks.end = plan.blocks.len();
        }
        plan
    }

    /// Scratch that [`attention_backward`] needs, in elements.
    pub(crate) fn scratch(heads: HeadLayout, tokens: usize) -> usize {
        heads.width() * tokens
    }
}

fn columns<'a>(x: &'a [f32], rows: &Range<usize>, from: usize, n: usize, width: usize) -> Mat<'a> {
    Mat::strided(&x[rows.start * width + from..(rows.end - 1) * width + from + n], rows.len(), n, width)
}

/// What a thread works on: a row for each query of a block and head of a group.
#[derive(Debug, Default)]
struct Work {
    q: Aligned,
    /// Scores, then probabilities.
    p: Aligned,
    dp: Aligned,
    /// Outputs, or their gradients.
    out: Aligned,
    mass: Aligned,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

/// A block of queries and a group of heads that share keys.
#[derive(Clone, Copy)]
struct Part<'a> {
    heads: HeadLayout,
    block: &'a QueryBlock,
    kv: usize,
    qkv: &'a [f32],
}

impl<'a> Part<'a> {
    fn rows(&self) -> usize {
        self.block.queries.len() * self.heads.group()
    }

    /// First of the group's columns, in the queries and in the output, and how many there are.
    fn place(&self) -> (usize, usize) {
        let n = self.heads.group() * self.heads.head_dim;
        (self.kv * n, n)
    }

    /// The group's columns of the block's rows of `x`, in order.
    fn collect<'b>(&self, x: &[f32], width: usize, to: &'b mut Aligned) -> &'b [f32] {
        let (from, n) = self.place();
        let to = to.room(self.block.queries.len() * n);
        for (to, row) in to.chunks_exact_mut(n).zip(self.block.queries.clone()) {
            to.copy_from_slice(&x[row * width + from..][..n]);
        }
        to
    }

    fn keys(&self, range: &Range<usize>) -> Mat<'a> {
        let first = self.heads.key_column(self.kv * self.heads.group());
        columns(self.qkv, range, first, self.heads.head_dim, self.heads.width())
    }

    fn values(&self, range: &Range<usize>) -> Mat<'a> {
        let first = self.heads.value_column(self.kv * self.heads.group());
        columns(self.qkv, range, first, self.heads.head_dim, self.heads.width())
    }

    /// `out [rows, width] = scale x Y^T`, where `Y` are the keys or the values.
    fn against(&self, x: &[f32], y: impl Fn(&Self, &Range<usize>) -> Mat<'a>, scale: f32, out: &mut [f32]) {
        let (rows, total) = (self.rows(), self.block.width());
        for (at, keys) in self.block.ranges() {
            let c = MatMut::strided(&mut out[at..], rows, keys.len(), total);
            matmul(c, Mat::new(x, rows, self.heads.head_dim), y(self, keys).t(), scale, false, Threads::One);
        }
    }

    /// `out [rows, head_dim] = scale x Y`.
    fn with(&self, x: &[f32], y: impl Fn(&Self, &Range<usize>) -> Mat<'a>, scale: f32, out: &mut [f32]) {
        let (rows, total) = (self.rows(), self.block.width());
        for (at, keys) in self.block.ranges() {
            let c = MatMut::new(out, rows, self.heads.head_dim);
            let x = Mat::strided(&x[at..], rows, keys.len(), total);
            matmul(c, x, y(self, keys), scale, at > 0, Threads::One);
        }
    }

    /// Writes the group's columns of the block's rows of the output and of the log-sum-exps.
    fn forward(&self, work: &mut Work, out: &mut [f32], lse: &mut [f32]) {
        let Self { heads, block, kv, .. } = *self;
        let (rows, total, group) = (self.rows(), block.width(), heads.group());
        let p = work.p.room(rows * total);
        let q = self.collect(self.qkv, heads.width(), &mut work.q);
        self.against(q, Self::keys, heads.scale(), p);
        let mass = work.mass.room(rows);
        vectorized(
            #[inline(always)]
            || {
                for (r, (row, mass)) in p.chunks_exact_mut(total).zip(&mut *mass).enumerate() {
                    let (i, h) = (r / group, kv * group + r % group);
                    let (seen, hidden) = row.split_at_mut(block.visible(i));
                    let top = max(seen);
                    for v in seen.iter_mut() {
                        *v = exp(*v - top);
                    }
                    hidden.fill(0.0);
                    *mass = sum(seen);
                    lse[i * heads.heads + h] = top + mass.ln();
                }
            },
        );
        let attended = work.out.room(rows * heads.head_dim);
        self.with(p, Self::values, 1.0, attended);
        let ((from, n), width) = (self.place(), heads.heads * heads.head_dim);
        vectorized(
            #[inline(always)]
            || {
                let attended = attended.chunks_exact(n).zip(mass.chunks_exact(group));
                for (out, (attended, mass)) in out.chunks_exact_mut(width).zip(attended) {
                    let heads_out = out[from..][..n].chunks_exact_mut(heads.head_dim);
                    for ((out, attended), mass) in
                        heads_out.zip(attended.chunks_exact(heads.head_dim)).zip(mass)
                    {
                        for (out, v) in out.iter_mut().zip(attended) {
                            *out = v / mass;
                        }
                    }
                }
            },
        );
    }

    /// Writes the group's `dq` of the block's queries, and adds the block's share of `dk` and `dv`; all of `own` are
    /// of the tree's tokens, of which the first is `first`.
    fn backward(
        &self,
        work: &mut Work,
        out: &[f32],
        lse: &[f32],
        dout: &[f32],
        own: &mut Own<'_>,
        first: usize,
    ) {
        let Self { heads, block, kv, .. } = *self;
        let (rows, total, group, hd) = (self.rows(), block.width(), heads.group(), heads.head_dim);
        let width = heads.heads * hd;
        let q = self.collect(self.qkv, heads.width(), &mut work.q);
        let dout_rows = self.collect(dout, width, &mut work.out);
        let (p, dp) = (work.p.room(rows * total), work.dp.room(rows * total));
        self.against(q, Self::keys, heads.scale(), p);
        self.against(dout_rows, Self::values, 1.0, dp);
        vectorized(
            #[inline(always)]
            || {
                for (r, (p, dp)) in p.chunks_exact_mut(total).zip(dp.chunks_exact_mut(total)).enumerate() {
                    let (i, h) = (r / group, kv * group + r % group);
                    let token = block.queries.start + i;
                    let pull = dot(&out[token * width + h * hd..][..hd], &dout_rows[r * hd..][..hd]);
                    let lse = lse[token * heads.heads + h];
                    let seen = block.visible(i);
                    for (p, ds) in p[..seen].iter_mut().zip(&mut dp[..seen]) {
                        *p = exp(*p - lse);
                        *ds = *p * (*ds - pull);
                    }
                    p[seen..].fill(0.0);
                    dp[seen..].fill(0.0);
                }
            },
        );
        let Own { dq, dk, dv } = own;
        let from = (block.queries.start - first) * group * hd;
        self.with(dp, Self::keys, heads.scale(), &mut dq[from..][..rows * hd]);
        for (at, keys) in block.ranges() {
            let n = keys.len();
            let local = (keys.start - first) * hd..(keys.end - first) * hd;
            for (to, left, right, scale) in
                [(&mut **dv, &*p, dout_rows, 1.0), (&mut **dk, &*dp, q, heads.scale())]
            {
                let left = Mat::strided(&left[at..], rows, n, total).t();
                let c = MatMut::new(&mut to[local.clone()], n, hd);
                matmul(c, left, Mat::new(right, rows, hd), scale, true, Threads::One);
            }
        }
    }
}

/// Gradients of one group of heads on the tokens of one tree.
struct Own<'a> {
    /// `[tokens, group, head_dim]`
    dq: &'a mut [f32],
    /// `[tokens, head_dim]`
    dk: &'a mut [f32],
    /// `[tokens, head_dim]`
    dv: &'a mut [f32],
}

impl<'a> Own<'a> {
    /// Of `(group + 2) * head_dim` elements a token.
    fn of(heads: HeadLayout, memory: &'a mut [f32]) -> Self {
        let kv = memory.len() / (heads.group() + 2);
        let (dq, rest) = memory.split_at_mut(memory.len() - 2 * kv);
        let (dk, dv) = rest.split_at_mut(kv);
        Self { dq, dk, dv }
    }
}

pub(crate) fn attention(
    heads: HeadLayout,
    plan: &AttentionPlan,
    qkv: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let mut tasks = Vec::with_capacity(plan.blocks.len());
    let (mut out, mut lse) = (out, lse);
    for block in &plan.blocks {
        let rows = block.queries.len();
        let (o, rest_out) = out.split_at_mut(rows * heads.heads * heads.head_dim);
        let (l, rest_lse) = lse.split_at_mut(rows * heads.heads);
        (out, lse) = (rest_out, rest_lse);
        tasks.push((block, o, l));
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(block, out, lse)| {
        WORK.with_borrow_mut(|work| {
            for kv in 0..heads.kv_heads {
                Part { heads, block, kv, qkv }.forward(work, out, lse);
            }
        });
    });
}

pub(crate) fn attention_backward(
    heads: HeadLayout,
    plan: &AttentionPlan,
    qkv: &[f32],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dqkv: &mut [f32],
    scratch: &mut [f32],
) {
    let tokens = plan.trees.last().map_or(0, |tree| tree.tokens.end);
    let scratch = &mut scratch[..AttentionPlan::scratch(heads, tokens)];
    // One task a tree and group of heads, each with memory of its own: no two tasks write the same place.
    let mut tasks = Vec::with_capacity(plan.trees.len() * heads.kv_heads);
    let mut rest = scratch;
    for tree in &plan.trees {
        for kv in 0..heads.kv_heads {
            let (own, after) = rest.split_at_mut(tree.tokens.len() * heads.width() / heads.kv_heads);
            rest = after;
            tasks.push((tree, kv, Own::of(heads, own)));
        }
    }
    tasks.par_iter_mut().with_max_len(1).for_each(|(tree, kv, own)| {
        own.dk.fill(0.0);
        own.dv.fill(0.0);
        WORK.with_borrow_mut(|work| {
            for block in &plan.blocks[tree.blocks.clone()] {
                Part { heads, block, kv: *kv, qkv }.backward(work, out, lse, dout, own, tree.tokens.start);
            }
        });
    });
    for groups in tasks.chunks(heads.kv_heads) {
        gather(heads, groups, dqkv);
    }
}

/// Puts the results of one tree into its rows of `dqkv`.
fn gather(heads: HeadLayout, groups: &[(&Tree, usize, Own<'_>)], dqkv: &mut [f32]) {
    let (hd, width, group) = (heads.head_dim, heads.width(), heads.group());
    let Some((tree, ..)) = groups.first() else { return };
    let rows = &mut dqkv[tree.tokens.start * width..tree.tokens.end * width];
    rows.par_chunks_exact_mut(width).with_min_len(16).enumerate().for_each(|(i, row)| {
        for (_, kv, Own { dq, dk, dv }) in groups {
            let h = kv * group;
            row[h * hd..][..group * hd].copy_from_slice(&dq[i * group * hd..][..group * hd]);
            row[heads.key_column(h)..][..hd].copy_from_slice(&dk[i * hd..][..hd]);
            row[heads.value_column(h)..][..hd].copy_from_slice(&dv[i * hd..][..hd]);
        }
    });
}
