//! The language-model head in a stream: hidden rows meet the vocabulary chunk by chunk, and
//! `[rows, vocabulary]` never exists.

use super::kernel::{Kernels, Mat, MatMut, RowCotangent, RowState, Vocabulary};
use super::weights::Weights;
use super::{Divergence, Want};

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

/// The head's work buffers, kept between steps.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    logits: Vec<f32>,
    reference: Vec<f32>,
    wide: Vec<f32>,
}

/// What the head computes with.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) kernels: &'a dyn Kernels,
    pub(crate) hidden: usize,
    pub(crate) vocab: usize,
    pub(crate) want: Want,
    pub(crate) policy: Side<'a>,
    pub(crate) reference: Option<Side<'a>>,
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

    fn chunk<'c>(&self, logits: &'c [f32], first: usize, columns: usize) -> Vocabulary<'c> {
        let divergence = self.want.divergence.filter(|_| self.reference.is_some());
        Vocabulary { logits, first, columns, entropy: self.want.entropy, divergence }
    }

    /// Calls `visit(row range, first column, columns, logits, reference logits)` for every tile.
    fn sweep(&self, buffers: &mut Buffers, mut visit: impl FnMut(Tile<'_>)) {
        let d = self.hidden;
        let rows = self.policy.hidden.len() / d;
        for start in (0..rows).step_by(ROWS) {
            let end = (start + ROWS).min(rows);
            let step = columns(end - start, self.vocab);
            for first in (0..self.vocab).step_by(step) {
                let columns = step.min(self.vocab - first);
                let own = start * d..end * d;
                let logits = self.logits(
                    self.policy,
                    own.clone(),
                    first,
                    columns,
                    &mut buffers.logits,
                    &mut buffers.wide,
                );
                let reference = self.reference.map(|side| {
                    &*self.logits(side, own, first, columns, &mut buffers.reference, &mut buffers.wide)
                });
                visit(Tile { rows: start..end, first, columns, logits, reference });
            }
        }
    }

    fn logits<'b>(
        &self,
        side: Side<'_>,
        own: std::ops::Range<usize>,
        first: usize,
        columns: usize,
        out: &'b mut Vec<f32>,
        wide: &mut Vec<f32>,
    ) -> &'b mut [f32] {
        let d = self.hidden;
        let n = own.len() / d;
        if out.len() < n * columns {
            out.resize(n * columns, 0.0);
        }
        let out = &mut out[..n * columns];
        let start = side.weights.places.head.start + first * d;
        let w = Mat::new(side.weights.matrix(&(start..start + columns * d), wide), columns, d);
        self.kernels.matmul(
            MatMut::new(out, n, columns),
            Mat::new(&side.hidden[own], n, d),
            w.t(),
            1.0,
            false,
        );
        out
    }

    /// Statistics of all rows; `targets [R]`.
    pub(crate) fn forward(&self, targets: &[u32], buffers: &mut Buffers) -> Vec<RowState> {
        let mut states: Vec<_> = targets.iter().map(|&t| RowState::new(t)).collect();
        self.sweep(buffers, |tile| {
            let chunk = self.chunk(tile.logits, tile.first, tile.columns);
            self.kernels.softmax_accumulate(chunk, tile.reference, &mut states[tile.rows]);
        });
        if self.want.divergence == Some(Divergence::JensenShannon) && self.reference.is_some() {
            self.sweep(buffers, |tile| {
                if let Some(reference) = tile.reference {
                    let chunk = self.chunk(tile.logits, tile.first, tile.columns);
                    self.kernels.softmax_mixture(chunk, reference, &mut states[tile.rows]);
                }
            });
        }
        states
    }

    /// Derivative with respect to the hidden rows into `dhidden [R, d]` and, where given, to the head's
    /// matrix into `dweights` (added, or overwritten unless `accumulate`).
    pub(crate) fn backward(
        &self,
        states: &[RowState],
        cotangents: &[RowCotangent],
        dhidden: &mut [f32],
        mut dweights: Option<&mut [f32]>,
        accumulate: bool,
        buffers: &mut Buffers,
    ) {
        let d = self.hidden;
        if let (0, false, Some(dw)) = (states.len(), accumulate, dweights.as_deref_mut()) {
            dw.fill(0.0);
        }
        let mut wide = Vec::new();
        self.sweep(buffers, |tile| {
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
            let dz = Mat::new(logits, n, columns);
            let start = self.policy.weights.places.head.start + first * d;
            let w =
                Mat::new(self.policy.weights.matrix(&(start..start + columns * d), &mut wide), columns, d);
            let own = rows.start * d..rows.end * d;
            self.kernels.matmul(MatMut::new(&mut dhidden[own.clone()], n, d), dz, w, 1.0, first > 0);
            if let Some(dw) = dweights.as_deref_mut() {
                let part = MatMut::new(&mut dw[first * d..(first + columns) * d], columns, d);
                let h = Mat::new(&self.policy.hidden[own], n, d);
                self.kernels.matmul(part, dz.t(), h, 1.0, accumulate || rows.start > 0);
            }
        });
    }

    /// The matrix products of [`Head::forward`] and [`Head::backward`] and nothing else: what the head's
    /// time is compared with.
    pub(crate) fn products(&self, dhidden: &mut [f32], dweights: &mut [f32], buffers: &mut Buffers) {
        let d = self.hidden;
        self.sweep(buffers, |_| ());
        self.sweep(buffers, |tile| {
            let Tile { rows, first, columns, logits, .. } = tile;
            let dz = Mat::new(logits, rows.len(), columns);
            let start = self.policy.weights.places.head.start + first * d;
            let mut wide = Vec::new();
            let w =
                Mat::new(self.policy.weights.matrix(&(start..start + columns * d), &mut wide), columns, d);
            let own = rows.start * d..rows.end * d;
            self.kernels.matmul(MatMut::new(&mut dhidden[own.clone()], rows.len(), d), dz, w, 1.0, first > 0);
            let part = MatMut::new(&mut dweights[first * d..(first + columns) * d], columns, d);
            let h = Mat::new(&self.policy.hidden[own], rows.len(), d);
            self.kernels.matmul(part, dz.t(), h, 1.0, rows.start > 0);
        });
    }
}

/// A block of logits.
struct Tile<'a> {
    rows: std::ops::Range<usize>,
    first: usize,
    columns: usize,
    logits: &'a mut [f32],
    reference: Option<&'a [f32]>,
}
