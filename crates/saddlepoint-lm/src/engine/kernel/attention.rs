//! Causal attention over a forest, forward and backward, in blocks of queries.
//!
//! A token attends to every token of its ancestor segments and to the earlier tokens of its own. With
//! `P = softmax(Q K^T / sqrt(head_dim))`, `O = P V` and `D_i = dO_i . O_i`:
//! `dV = P^T dO`, `dS = P * (dO V^T - D)`, `dQ = dS K / sqrt(head_dim)`, `dK = dS^T Q / sqrt(head_dim)`.
//! Only the log-sum-exp of each row is kept; `P` is computed again in the backward pass.

use std::ops::Range;

use rayon::prelude::*;

use super::lanes::{dot, exp, max, sum};
use super::matmul::{Mat, MatMut, Threads, matmul};
use crate::engine::Forest;

/// Most query rows of one block.
const BLOCK: usize = 64;

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
        (self.heads + h / (self.heads / self.kv_heads)) * self.head_dim
    }

    /// First column of the values that query head `h` reads.
    pub(crate) fn value_column(self, h: usize) -> usize {
        self.key_column(h) + self.kv_heads * self.head_dim
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
    pub fn new(forest: &Forest) -> Self {
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
            for start in own.clone().step_by(BLOCK) {
                let end = (start + BLOCK).min(own.end);
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
        3 * heads.heads * heads.head_dim * tokens
    }
}

fn columns<'a>(x: &'a [f32], rows: &Range<usize>, from: usize, n: usize, width: usize) -> Mat<'a> {
    Mat::strided(&x[rows.start * width + from..(rows.end - 1) * width + from + n], rows.len(), n, width)
}

/// Scores `scale Q K^T` of one block and head into `s [queries, width]`.
fn scores(heads: HeadLayout, block: &QueryBlock, qkv: &[f32], h: usize, s: &mut [f32]) {
    let (hd, width, total) = (heads.head_dim, heads.width(), block.width());
    let q = columns(qkv, &block.queries, h * hd, hd, width);
    let mut at = 0;
    for keys in &block.keys {
        let k = columns(qkv, keys, heads.key_column(h), hd, width);
        let c = MatMut::strided(&mut s[at..], block.queries.len(), keys.len(), total);
        matmul(c, q, k.t(), heads.scale(), false, Threads::One);
        at += keys.len();
    }
}

pub(crate) fn attention(
    heads: HeadLayout,
    plan: &AttentionPlan,
    qkv: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let width = heads.heads * heads.head_dim;
    let mut tasks = Vec::with_capacity(plan.blocks.len());
    let (mut out, mut lse) = (out, lse);
    for block in &plan.blocks {
        let rows = block.queries.len();
        let (o, rest_out) = out.split_at_mut(rows * width);
        let (l, rest_lse) = lse.split_at_mut(rows * heads.heads);
        (out, lse) = (rest_out, rest_lse);
        tasks.push((block, o, l));
    }
    let arch = pulp::Arch::new();
    tasks.into_par_iter().with_max_len(1).for_each_init(Vec::new, |s, (block, out, lse)| {
        let (rows, total, hd) = (block.queries.len(), block.width(), heads.head_dim);
        s.resize(rows * total, 0.0);
        for h in 0..heads.heads {
            scores(heads, block, qkv, h, s);
            arch.dispatch(
                #[inline(always)]
                || {
                    for (i, row) in s.chunks_exact_mut(total).enumerate() {
                        let (seen, hidden) = row.split_at_mut(block.visible(i));
                        let top = max(seen);
                        for v in seen.iter_mut() {
                            *v = exp(*v - top);
                        }
                        let mass = sum(seen);
                        for v in seen.iter_mut() {
                            *v /= mass;
                        }
                        hidden.fill(0.0);
                        lse[i * heads.heads + h] = top + mass.ln();
                    }
                },
            );
            let mut at = 0;
            for (part, keys) in block.keys.iter().enumerate() {
                let p = Mat::strided(&s[at..], rows, keys.len(), total);
                let v = columns(qkv, keys, heads.value_column(h), hd, heads.width());
                let o = MatMut::strided(&mut out[h * hd..], rows, hd, width);
                matmul(o, p, v, 1.0, part > 0, Threads::One);
                at += keys.len();
            }
        }
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
    let hd = heads.head_dim;
    let tokens = plan.trees.last().map_or(0, |tree| tree.tokens.end);
    let scratch = &mut scratch[..AttentionPlan::scratch(heads, tokens)];
    // One task a tree and query head, each with dq, dk, dv of its own: no two tasks write the same place.
    let mut tasks = Vec::with_capacity(plan.trees.len() * heads.heads);
    let mut rest = &mut *scratch;
    for tree in &plan.trees {
        for h in 0..heads.heads {
            let (own, after) = rest.split_at_mut(3 * tree.tokens.len() * hd);
            rest = after;
            tasks.push((tree, h, own));
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each_init(
        || (Vec::new(), Vec::new()),
        |(p, dp), (tree, h, own)| {
            own.fill(0.0);
            for block in &plan.blocks[tree.blocks.clone()] {
                let size = block.queries.len() * block.width();
                p.resize(size, 0.0);
                dp.resize(size, 0.0);
                block_backward(heads, tree, block, h, (qkv, out, lse, dout), own, p, dp);
            }
        },
    );
    gather(heads, plan, scratch, dqkv);
}

/// Adds one block's share of `dq`, `dk`, `dv` (each `[tree tokens, head_dim]` in `own`).
fn block_backward(
    heads: HeadLayout,
    tree: &Tree,
    block: &QueryBlock,
    h: usize,
    (qkv, out, lse, dout): (&[f32], &[f32], &[f32], &[f32]),
    own: &mut [f32],
    p: &mut [f32],
    dp: &mut [f32],
) {
    let (hd, width, total, rows) = (heads.head_dim, heads.width(), block.width(), block.queries.len());
    let out_width = heads.heads * hd;
    let (dq, rest) = own.split_at_mut(tree.tokens.len() * hd);
    let (dk, dv) = rest.split_at_mut(tree.tokens.len() * hd);
    scores(heads, block, qkv, h, p);
    let d_out = columns(dout, &block.queries, h * hd, hd, out_width);
    let mut at = 0;
    for keys in &block.keys {
        let v = columns(qkv, keys, heads.value_column(h), hd, width);
        matmul(
            MatMut::strided(&mut dp[at..], rows, keys.len(), total),
            d_out,
            v.t(),
            1.0,
            false,
            Threads::One,
        );
        at += keys.len();
    }
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (i, (p, dp)) in p.chunks_exact_mut(total).zip(dp.chunks_exact_mut(total)).enumerate() {
                let token = block.queries.start + i;
                let at = token * out_width + h * hd;
                let pull = dot(&out[at..at + hd], &dout[at..at + hd]);
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
    let q = columns(qkv, &block.queries, h * hd, hd, width);
    let local = |r: &Range<usize>| (r.start - tree.tokens.start) * hd..(r.end - tree.tokens.start) * hd;
    let mut at = 0;
    for keys in &block.keys {
        let n = keys.len();
        let pk = Mat::strided(&p[at..], rows, n, total);
        let ds = Mat::strided(&dp[at..], rows, n, total);
        let k = columns(qkv, keys, heads.key_column(h), hd, width);
        matmul(MatMut::new(&mut dv[local(keys)], n, hd), pk.t(), d_out, 1.0, true, Threads::One);
        matmul(MatMut::new(&mut dk[local(keys)], n, hd), ds.t(), q, heads.scale(), true, Threads::One);
        matmul(
            MatMut::new(&mut dq[local(&block.queries)], rows, hd),
            ds,
            k,
            heads.scale(),
            true,
            Threads::One,
        );
        at += n;
    }
}

/// Collects the tasks' results into rows of `dqkv`; the query heads of a group are summed in order.
fn gather(heads: HeadLayout, plan: &AttentionPlan, scratch: &[f32], dqkv: &mut [f32]) {
    let (hd, width, group) = (heads.head_dim, heads.width(), heads.heads / heads.kv_heads);
    for tree in &plan.trees {
        let n = tree.tokens.len();
        let base = 3 * heads.heads * hd * tree.tokens.start;
        let part = |h: usize, which: usize, i: usize| {
            let from = base + (3 * h + which) * n * hd + i * hd;
            &scratch[from..from + hd]
        };
        let rows = &mut dqkv[tree.tokens.start * width..tree.tokens.end * width];
        rows.par_chunks_exact_mut(width).with_min_len(16).enumerate().for_each(|(i, row)| {
            for h in 0..heads.heads {
                row[h * hd..(h + 1) * hd].copy_from_slice(part(h, 0, i));
            }
            for kv in 0..heads.kv_heads {
                for (which, first) in [(1, heads.heads), (2, heads.heads + heads.kv_heads)] {
                    let out = &mut row[(first + kv) * hd..(first + kv + 1) * hd];
                    out.copy_from_slice(part(kv * group, which, i));
                    for h in kv * group + 1..(kv + 1) * group {
                        for (o, &v) in out.iter_mut().zip(part(h, which, i)) {
                            *o += v;
                        }
                    }
                }
            }
        });
    }
}
