//! The language-model head in a stream: hidden rows meet the vocabulary chunk by chunk, and
//! `[rows, vocabulary]` never exists.

use std::ops::Range;

use super::Want;
use super::aligned::Aligned;
use super::kernel::{Kernels, Mat, MatMut, RowCotangent, RowState, Vocabulary, second_sweep};
use super::listed::{self, Block};
use super::weights::Weights;

/// Rows handled together.
const ROWS: usize = 4096;
/// Elements of one chunk of logits (16 MiB).
const CHUNK: usize = 1 << 22;

/// Hidden rows and the matrix they meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    /// `[R, d]`
    pub(crate) hidden: &'a [f32],
    pub(crate) weights: &'a Weights,
}

impl Side<'_> {
    /// `d`, each side's own.
    fn width(self) -> usize {
        self.weights.places.norm.len()
    }
}

/// The head's work buffers, kept between steps.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    logits: Aligned,
    reference: Aligned,
}

/// What the head computes with.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) kernels: &'a dyn Kernels,
    pub(crate) vocab: usize,
    pub(crate) want: Want,
    pub(crate) policy: Side<'a>,
    pub(crate) reference: Option<Side<'a>>,
    /// Of each row the tokens whose log-probabilities are wanted beside the target's; empty if none are.
    pub(crate) listed: &'a [Vec<u32>],
}

fn columns(rows: usize, vocab: usize) -> usize {
    (CHUNK / rows.max(1) / 64 * 64).clamp(512, 4096).min(vocab)
}

impl Head<'_> {
    /// Most elements of work buffers that `rows` rows need.
    pub(crate) fn scratch(rows: usize, vocab: usize, reference: bool) -> usize {
        let rows = rows.min(ROWS);
        rows * columns(rows, vocab) * if reference { 2 } else { 1 }
    }

    /// What a product of hidden states and the head's matrix is multiplied with.
    fn scale(&self) -> f32 {
        self.want.temperature.map_or(1.0, |temperature| (1.0 / temperature) as f32)
    }

    fn chunk<'c>(&self, logits: &'c [f32], first: usize, columns: usize) -> Vocabulary<'c> {
        let divergence = self.want.divergence.filter(|_| self.reference.is_some());
        Vocabulary { logits, first, columns, entropy: self.want.entropy, divergence }
    }

    /// Calls `visit` for every tile of the logits.
    fn sweep(&self, buffers: &mut Buffers, mut logits: Logits<'_>, mut visit: impl FnMut(Tile<'_>)) {
        let rows = self.policy.hidden.len() / self.policy.width();
        let Buffers { logits: own, reference } = buffers;
        for start in (0..rows).step_by(ROWS) {
            let end = (start + ROWS).min(rows);
            let n = end - start;
            let step = columns(n, self.vocab);
            for first in (0..self.vocab).step_by(step) {
                let columns = step.min(self.vocab - first);
                let place = start * self.vocab + n * first;
                let (out, there) = match &mut logits {
                    Logits::Passing => (own.room(n * columns), false),
                    Logits::Keep(kept) => (&mut kept[place..place + n * columns], false),
                    Logits::Kept(kept) => (&mut kept[place..place + n * columns], true),
                };
                if !there {
                    self.product(self.policy, start..end, first, columns, out);
                }
                let reference = self.reference.map(|side| {
                    let out = reference.room(n * columns);
                    self.product(side, start..end, first, columns, out);
                    &*out
                });
                visit(Tile { rows: start..end, first, columns, logits: out, reference });
            }
        }
    }

    /// One tile of logits.
    fn product(&self, side: Side<'_>, rows: Range<usize>, first: usize, columns: usize, out: &mut [f32]) {
        let (d, n) = (side.width(), rows.len());
        let start = side.weights.places.head.start + first * d;
        let w = side.weights.mat(&(start..start + columns * d), d);
        let x = Mat::new(&side.hidden[rows.start * d..rows.end * d], n, d);
        self.kernels.matmul(MatMut::new(out, n, columns), x, w.t(), self.scale(), false);
    }

    /// Statistics of all rows and the logits of their listed tokens; `targets [R]`. `keep`, if it has `R` times the vocabulary elements, is left with
    /// the logits, for [`Head::backward`].
    pub(crate) fn forward(
        &self,
        targets: &[u32],
        buffers: &mut Buffers,
        mut keep: Option<&mut [f32]>,
    ) -> (Vec<RowState>, listed::Logits) {
        let mut states: Vec<_> = targets.iter().map(|&t| RowState::new(t)).collect();
        let mut logits = listed::room(self.listed);
        self.sweep(buffers, keep.as_deref_mut().map_or(Logits::Passing, Logits::Keep), |tile| {
            let chunk = self.chunk(tile.logits, tile.first, tile.columns);
            self.kernels.softmax_accumulate(chunk, tile.reference, &mut states[tile.rows.clone()]);
            let Tile { rows, first, columns, logits: block, .. } = tile;
            Block { rows, first, columns, logits: block }.read(self.listed, &mut logits);
        });
        let second = self.want.divergence.filter(|&kind| self.reference.is_some() && second_sweep(kind));
        if let Some(kind) = second {
            self.sweep(buffers, keep.map_or(Logits::Passing, Logits::Kept), |tile| {
                if let Some(reference) = tile.reference {
                    let chunk = self.chunk(tile.logits, tile.first, tile.columns);
                    self.kernels.softmax_compare(kind, chunk, reference, &mut states[tile.rows]);
                }
            });
        }
        (states, logits)
    }

    /// Derivative with respect to the hidden rows into `dhidden [R, d]` and, where given, to the head's
    /// matrix into `dweights` (added, or overwritten unless `accumulate`). `listed` are derivatives with respect to log-probabilities of
    /// listed tokens, whose sums are in `cotangents`; empty for none. `kept` are the logits if the forward
    /// pass kept them, and otherwise they are computed again.
    pub(crate) fn backward(
        &self,
        states: &[RowState],
        cotangents: &[RowCotangent],
        listed: &[Vec<f64>],
        dhidden: &mut [f32],
        mut dweights: Option<&mut [f32]>,
        accumulate: bool,
        buffers: &mut Buffers,
        kept: Option<&mut [f32]>,
    ) {
        let d = self.policy.width();
        if let (0, false, Some(dw)) = (states.len(), accumulate, dweights.as_deref_mut()) {
            dw.fill(0.0);
        }
        self.sweep(buffers, kept.map_or(Logits::Passing, Logits::Kept), |tile| {
            let Tile { rows, first, columns, logits, reference } = tile;
            let n = rows.len();
            let chunk = self.chunk(&[], first, columns);
            self.kernels.softmax_backward(
                chunk,
                logits,
                reference,
                &states[rows.clone()],
                &cotangents[rows.clone()],
            );
            Block { rows: rows.clone(), first, columns, logits: &mut *logits }.add(self.listed, listed);
            let dz = Mat::new(logits, n, columns);
            let start = self.policy.weights.places.head.start + first * d;
            let w = self.policy.weights.mat(&(start..start + columns * d), d);
            let own = rows.start * d..rows.end * d;
            self.kernels.matmul(MatMut::new(&mut dhidden[own.clone()], n, d), dz, w, self.scale(), first > 0);
            if let Some(dw) = dweights.as_deref_mut() {
                let part = MatMut::new(&mut dw[first * d..(first + columns) * d], columns, d);
                let h = Mat::new(&self.policy.hidden[own], n, d);
                self.kernels.matmul(part, dz.t(), h, self.scale(), accumulate || rows.start > 0);
            }
        });
    }

    /// The matrix products of [`Head::forward`] and [`Head::backward`] and nothing else: what the head's
    /// time is compared with.
    pub(crate) fn products(&self, dhidden: &mut [f32], dweights: &mut [f32], buffers: &mut Buffers) {
        let d = self.policy.width();
        self.sweep(buffers, Logits::Passing, |_| ());
        self.sweep(buffers, Logits::Passing, |tile| {
            let Tile { rows, first, columns, logits, .. } = tile;
            let dz = Mat::new(logits, rows.len(), columns);
            let start = self.policy.weights.places.head.start + first * d;
            let w = self.policy.weights.mat(&(start..start + columns * d), d);
            let own = rows.start * d..rows.end * d;
            self.kernels.matmul(MatMut::new(&mut dhidden[own.clone()], rows.len(), d), dz, w, 1.0, first > 0);
            let part = MatMut::new(&mut dweights[first * d..(first + columns) * d], columns, d);
            let h = Mat::new(&self.policy.hidden[own], rows.len(), d);
            self.kernels.matmul(part, dz.t(), h, 1.0, rows.start > 0);
        });
    }
}

/// Where a sweep puts the logits.
enum Logits<'a> {
    /// Into one buffer, tile after tile.
    Passing,
    /// Into memory that holds all of them.
    Keep(&'a mut [f32]),
    /// They are there.
    Kept(&'a mut [f32]),
}

/// A block of logits.
struct Tile<'a> {
    rows: Range<usize>,
    first: usize,
    columns: usize,
    logits: &'a mut [f32],
    reference: Option<&'a [f32]>,
}
