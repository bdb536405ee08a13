//! Products with few rows, as decoding makes them: bound by reading the weights once. Those with 8-bit weights may have
//! many: the rows of a prompt.
//!
//! Weights of 32 and 16 bits keep the `[out, in]` layout of the files. Vectors widen what is narrow in registers; Intel's matrix unit
//! takes it as it is. Every output is summed in the same order however many rows there are.

mod eight;
mod words;

pub use eight::Quantized;
use half::bf16;

use super::team::Team;

/// A weight matrix `[out, in]` in one of the types that decoding reads.
#[derive(Debug, Clone, Copy)]
pub enum NarrowWeights<'a> {
    /// Full precision.
    F32(&'a [f32]),
    /// The upper half of each `f32`.
    Bf16(&'a [bf16]),
    /// Eight bits and a scale a row.
    Int8(&'a Quantized),
}

/// Bytes between what is read and what is asked the memory for.
const AHEAD: usize = 8192;
/// Pieces of a product for each thread: one that is held up does not keep the others.
const PIECES: usize = 4;

/// `out[m, n] = sum_k w[n, k] x[m, k]`, added to `out` with `accumulate`.
pub(crate) fn narrow(
    team: &Team<'_>,
    w: NarrowWeights<'_>,
    x: &[f32],
    m: usize,
    out: &mut [f32],
    accumulate: bool,
) {
    if m == 0 || out.is_empty() {
        return;
    }
    let (n, k) = (out.len() / m, x.len() / m);
    let unit = if matches!(w, NarrowWeights::Int8(_)) { eight::ROWS } else { words::PIECE };
    let step = n.div_ceil(PIECES * team.threads()).next_multiple_of(unit);
    // Piece by piece: its part of every output row.
    let mut rows: Vec<_> = out.chunks_exact_mut(n).map(|row| row.chunks_mut(step)).collect();
    let mut parts: Vec<&mut [f32]> = Vec::with_capacity(m * n.div_ceil(step));
    for _ in 0..n.div_ceil(step) {
        parts.extend(rows.iter_mut().filter_map(Iterator::next));
    }
    let own = |piece: usize, out: &[&mut [f32]]| piece * step * k..(piece * step + out[0].len()) * k;
    // First row of the piece that a thread probably takes next.
    let threads = team.threads();
    let then = |piece: usize| (piece + threads) * step;
    match w {
        NarrowWeights::F32(w) => {
            let inputs = words::Inputs::<1>::new(x, k);
            team.share(parts.chunks_mut(m), |piece, out| {
                words::product(&w[own(piece, out)], &inputs, out, accumulate);
            });
        }
        NarrowWeights::Bf16(w) => {
            let inputs = words::Halves::new(x, k, n);
            team.share(parts.chunks_mut(m), |piece, out| {
                let then = w.get(then(piece) * k..).unwrap_or_default();
                inputs.product(&w[own(piece, out)], then, out, accumulate);
            });
        }
        NarrowWeights::Int8(w) => {
            let inputs = eight::Inputs::new(team, x, k);
            team.share(parts.chunks_mut(m), |piece, out| {
                eight::product(w, piece * step, then(piece), &inputs, out, accumulate);
            });
        }
    }
}

/// Input rows that are multiplied together: first row and number, which is a power of two.
fn groups(m: usize, widest: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = (m - first).min(widest);
        let rows = 1 << left.checked_ilog2()?;
        first += rows;
        Some((first - rows, rows))
    })
}

#[cfg(test)]
mod tests {
    use super::super::filled;
    use super::*;

    #[test]
    fn every_type_agrees_with_its_widened_weights_and_rows_do_not_depend_on_the_batch() {
        for (n, k) in [(7, 5), (64, 33), (64, 34), (197, 576)] {
            let w = filled(n * k, 1);
            let half: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
            let eight = Quantized::new(&w, k);
            let all = filled(9 * k, 2);
            let kinds: [(NarrowWeights<'_>, Vec<f32>); 3] = [
                (NarrowWeights::F32(&w), w.clone()),
                (NarrowWeights::Bf16(&half), half.iter().map(|v| v.to_f32()).collect()),
                (NarrowWeights::Int8(&eight), eight.widened(n, k)),
            ];
            for (kind, exact) in kinds {
                // Inputs are rounded too where weights are.
                let rounding = if matches!(kind, NarrowWeights::Int8(_)) { 1e-3 } else { 0.0 };
                let narrow = |m: usize, out: &mut [f32], add| {
                    Team::lead(|team| narrow(team, kind, &all[..m * k], m, out, add));
                };
                let mut single = vec![0.0; n];
                narrow(1, &mut single, false);
                for m in [1, 3, 4, 8, 9] {
                    let mut out = vec![1.0; n * m];
                    narrow(m, &mut out, false);
                    let once = out.clone();
                    narrow(m, &mut out, true);
                    for i in 0..n {
                        for j in 0..m {
                            let want: f64 =
                                (0..k).map(|l| f64::from(exact[i * k + l]) * f64::from(all[j * k + l])).sum();
                            let got = once[j * n + i];
                            assert!(
                                (f64::from(got) - want).abs() < 1e-4 + rounding,
                                "{n}x{k}, {m} rows at {i},{j}"
                            );
                            assert_eq!(out[j * n + i].to_bits(), (got + got).to_bits(), "added");
                        }
                        assert_eq!(once[i].to_bits(), single[i].to_bits(), "row 0 of {m}");
                    }
                }
            }
        }
    }
}
