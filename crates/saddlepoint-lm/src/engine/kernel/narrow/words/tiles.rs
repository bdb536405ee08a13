//! Weights of bf16 on Intel's matrix unit, which multiplies them as they are stored.
//!
//! An `f32` of the inputs is the exact sum of three bf16, its bits from the upper eight down: `x = h + m + l`. Eight inputs are the
//! columns of two tiles, those of `h` and `m` and those of `l`; 32 rows of weights are the rows of two others. The unit adds up each of
//! the three for itself. It counts numbers below `2^-126` as zero.

use std::arch::asm;
use std::arch::x86_64::{
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use half::bf16;

use crate::engine::aligned::Aligned;
use crate::engine::kernel::gemm::{Tiles, ask_tile, available, transposed};

/// Rows of weights that are multiplied together: two tiles.
pub(super) const ROWS: usize = 32;
/// Inputs of a group.
const INPUTS: usize = 8;
/// Depth of a step, in numbers and in pairs of them.
const STEP: usize = 32;
const PAIRS: usize = STEP / 2;
/// Words of 32 bits in a tile.
const TILE: usize = PAIRS * 16;

/// The rows of `x`, in groups of eight.
pub(super) struct Inputs {
    /// For each group and step the tile of `h` and `m`, columns `[PAIRS, 2, INPUTS]`, and that of `l`, `[PAIRS, INPUTS]` and as many zeros.
    tiles: Aligned,
    m: usize,
    k: usize,
}

impl Inputs {
    /// Nothing where the unit is not there or the rows do not fill its steps.
    pub(super) fn new(x: &[f32], k: usize) -> Option<Self> {
        if !(available() && k.is_multiple_of(STEP)) {
            return None;
        }
        let m = x.len() / k;
        let mut tiles = Aligned::new(m.div_ceil(INPUTS) * k / STEP * 2 * TILE);
        for (group, x) in tiles.chunks_exact_mut(k / STEP * 2 * TILE).zip(x.chunks(INPUTS * k)) {
            for (step, tiles) in group.chunks_exact_mut(2 * TILE).enumerate() {
                #[allow(unsafe_code, reason = "instructions that not every machine has")]
                // SAFETY: processors with the unit have these instructions.
                unsafe {
                    pack(&x[step * STEP..], k, tiles);
                }
            }
        }
        Some(Self { tiles, m, k })
    }
}

/// A step of at most eight rows of `x`, which are `k` apart, as two tiles.
#[target_feature(enable = "avx512f,avx512bw")]
#[allow(unsafe_code, reason = "loads and stores take addresses")]
fn pack(x: &[f32], k: usize, tiles: &mut [f32]) {
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    // The upper halves of the numbers of two registers.
    let mut halves = [0_i16; 32];
    halves.iter_mut().enumerate().for_each(|(i, half)| *half = 2 * i as i16 + 1);
    // SAFETY: 32 numbers of 16 bits.
    let halves = unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) };
    let mut squares = [[_mm512_setzero_ps(); 16]; 2];
    for (row, x) in x.chunks(k).enumerate() {
        let x = &x[..STEP];
        // SAFETY: 16 numbers each.
        let (mut first, mut second) =
            unsafe { (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x[PAIRS..].as_ptr())) };
        for (square, row) in [(0, row), (0, INPUTS + row), (1, row)] {
            let bits = [first, second].map(|x| _mm512_and_si512(_mm512_castps_si512(x), upper));
            squares[square][row] = _mm512_castsi512_ps(_mm512_permutex2var_epi16(bits[0], halves, bits[1]));
            first = _mm512_sub_ps(first, _mm512_castsi512_ps(bits[0]));
            second = _mm512_sub_ps(second, _mm512_castsi512_ps(bits[1]));
        }
    }
    for (square, tile) in squares.into_iter().zip(tiles.chunks_exact_mut(TILE)) {
        for (row, out) in transposed(square).into_iter().zip(tile.chunks_exact_mut(16)) {
            // SAFETY: 16 numbers.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), row) };
        }
    }
}

/// Sums of 32 rows: `h` and `m` of the first 16, their `l`, and those of the others.
#[repr(align(64))]
#[derive(Default)]
struct Sums([[[[f32; INPUTS]; 2]; 16]; 4]);

/// As [`super::product`] for the first rows, as many as fill whole tiles; returns their number. Asks the memory for the beginning of `then`
/// at the end.
pub(super) fn product(
    w: &[bf16],
    then: &[bf16],
    inputs: &Inputs,
    out: &mut [&mut [f32]],
    accumulate: bool,
) -> usize {
    let unit = Tiles::configured();
    let (k, whole) = (inputs.k, out[0].len() / ROWS * ROWS);
    let mut sums = Sums::default();
    let groups = inputs.tiles.chunks_exact(k / STEP * 2 * TILE);
    for (row, w) in (0..whole).step_by(ROWS).zip(w.chunks_exact(ROWS * k)) {
        let ahead = if row + ROWS < whole { w[ROWS * k..].as_ptr() } else { then.as_ptr() };
        for (group, tiles) in groups.clone().enumerate() {
            sum(&unit, w, tiles, k, ahead, &mut sums);
            for (half, [big, small]) in sums.0.as_chunks::<2>().0.iter().enumerate() {
                let first = group * INPUTS;
                for (column, out) in out[first..inputs.m.min(first + INPUTS)].iter_mut().enumerate() {
                    let out = out[row + half * 16..].iter_mut();
                    for ((o, big), small) in out.zip(big).zip(small) {
                        let value = small[0][column] + big[1][column] + big[0][column];
                        *o = if accumulate { *o + value } else { value };
                    }
                }
            }
        }
    }
    whole
}

/// The products of 32 rows of weights and a group of inputs. Asks for as many at `ahead`, into the second-level cache.
///
/// # Panics
/// An operand is shorter than its steps.
#[allow(unsafe_code, reason = "instructions that the compiler does not know")]
fn sum(_configured: &Tiles, w: &[bf16], inputs: &[f32], k: usize, ahead: *const bf16, sums: &mut Sums) {
    assert!(w.len() >= ROWS * k && inputs.len() >= k / STEP * 2 * TILE && k.is_multiple_of(STEP));
    let line = k * size_of::<bf16>();
    // SAFETY: the tiles are configured; every step reads two tiles of 16 rows of `w`, `line` bytes apart, and two of `inputs`, and the
    // four tiles of sums have room in `sums`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{x} + {own}]",
            "tileloadd tmm4, [{w0} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            ask_tile!(0),
            "tileloadd tmm7, [{x} + {own} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{w1} + {line}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            ask_tile!(1024),
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {w0}, 64",
            "add {w1}, 64",
            "add {x}, 2048",
            "add {p}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {own}], tmm0",
            "tilestored [{c} + {own} + 1024], tmm1",
            "tilestored [{c} + {own} + 2048], tmm2",
            "tilestored [{c} + {own} + 3072], tmm3",
            w0 = inout(reg) w.as_ptr() => _,
            w1 = inout(reg) w[16 * k..].as_ptr() => _,
            x = inout(reg) inputs.as_ptr() => _,
            p = inout(reg) ahead => _,
            c = in(reg) sums,
            steps = inout(reg) k / STEP => _,
            line = in(reg) line,
            own = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernel::filled;

    /// `x` times the unit matrix.
    fn same(x: &[f32], k: usize) -> Option<Vec<f32>> {
        let inputs = Inputs::new(x, k)?;
        let w: Vec<_> =
            (0..k * k).map(|i| bf16::from_f32(if i % (k + 1) == 0 { 1.0 } else { 0.0 })).collect();
        let mut out = vec![9.0; x.len()];
        let mut rows: Vec<_> = out.chunks_exact_mut(k).collect();
        assert_eq!(product(&w, &[], &inputs, &mut rows, false), k);
        Some(out)
    }

    #[test]
    fn the_three_parts_are_the_number_to_the_bit() {
        let k = 64;
        for m in [1, 7, 8, 19] {
            let sizes = filled(m * k, 2);
            let x: Vec<f32> =
                filled(m * k, 1).iter().zip(sizes).map(|(x, size)| x * (40.0 * size).exp2()).collect();
            let Some(out) = same(&x, k) else { return };
            for (i, (x, out)) in x.iter().zip(&out).enumerate() {
                assert_eq!(x.to_bits(), out.to_bits(), "{x} of row {} of {m} became {out}", i / k);
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)] {
            let mut x = filled(3 * 32, 1);
            x[32 + 5] = bad;
            let Some(out) = same(&x, 32) else { return };
            for (row, out) in out.chunks_exact(32).enumerate() {
                assert!(out.iter().all(|v| v.is_finite() == (row != 1)), "{bad} in row {row}");
            }
        }
    }
}
