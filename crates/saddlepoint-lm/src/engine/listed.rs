//! Log-probabilities of tokens beside the targets: what the head's sweeps read of them and put back.

use std::ops::Range;

use super::kernel::RowState;

/// Logits of the tokens that [`Forest::listed`](super::Forest) names, row by row; empty where none are.
pub(super) type Logits = Vec<Vec<f32>>;

/// A block of logits `[rows, columns]` for the vocabulary ids from `first` on.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// Which rows.
    pub(super) rows: Range<usize>,
    /// Id of the first column.
    pub(super) first: usize,
    /// Number of columns.
    pub(super) columns: usize,
    /// Row by row.
    pub(super) logits: &'a mut [f32],
}

impl Block<'_> {
    /// Calls `visit` with row, place in its list and logit of every listed token of the block.
    fn each(&mut self, listed: &[Vec<u32>], mut visit: impl FnMut(usize, usize, &mut f32)) {
        let Self { rows, first, columns, logits } = self;
        for (row, logits) in rows.clone().zip(logits.chunks_exact_mut(*columns)) {
            for (place, &id) in listed[row].iter().enumerate() {
                if let Some(logit) = (id as usize).checked_sub(*first).and_then(|at| logits.get_mut(at)) {
                    visit(row, place, logit);
                }
            }
        }
    }

    /// Reads the block's listed tokens.
    pub(super) fn read(mut self, listed: &[Vec<u32>], into: &mut Logits) {
        if !listed.is_empty() {
            self.each(listed, |row, place, logit| into[row][place] = *logit);
        }
    }

    /// Adds derivatives by the listed tokens' log-probabilities to what are by now derivatives by logits: their part that falls
    /// on each token itself. The part that falls on all tokens, `−p` times their sum, is that of the sweep.
    pub(super) fn add(mut self, listed: &[Vec<u32>], slopes: &[Vec<f64>]) {
        if !(listed.is_empty() || slopes.is_empty()) {
            self.each(listed, |row, place, slope| *slope += slopes[row][place] as f32);
        }
    }
}

/// Room for the logits of these tokens.
pub(super) fn room(listed: &[Vec<u32>]) -> Logits {
    listed.iter().map(|ids| vec![0.0; ids.len()]).collect()
}

/// `ln p` of the listed tokens, nats.
pub(super) fn logps(states: &[RowState], logits: &Logits) -> Vec<Vec<f64>> {
    let row = |(state, logits): (&RowState, &Vec<f32>)| {
        let lse = state.lse();
        logits.iter().map(|&logit| f64::from(logit) - lse).collect()
    };
    states.iter().zip(logits).map(row).collect()
}
