//! The same sums on Intel's matrix unit, to the bit: it multiplies bytes and sums in 32 bits.
//!
//! A level of an input is `256 h + l` with two bytes `h` and `l`, so that `sum w x = 256 sum w h + sum w l`. Eight inputs are a
//! tile of 16 rows: the upper bytes, then the lower ones. One step of a tile does 16 x 16 x 64 multiply-adds in the time of 16 vector
//! instructions, of which each does 32 with twice the bits: eight times as many.

use std::arch::asm;

use bytemuck::{cast_slice, cast_slice_mut};
use saddlepoint_opt::simd::vectorized;

use super::{PANEL, Quantized, ROWS, STEP, place, round};
use crate::engine::aligned::Aligned;
pub(super) use crate::engine::kernel::gemm::available;
use crate::engine::kernel::gemm::{Tiles, ask_tile};
use crate::engine::kernel::team::Team;

/// Inputs of a tile.
const INPUTS: usize = 8;
/// Bytes of a tile.
const TILE: usize = 16 * STEP;

/// The rounded rows, in tiles.
pub(in super::super) struct Inputs {
    /// Bytes of a tile for each step: `[tiles, steps, 2 (upper, lower), INPUTS, STEP]`.
    tiles: Aligned,
    steps: usize,
    /// What a level is, for each row.
    scales: Vec<f32>,
}

impl Inputs {
    pub(super) fn new(team: &Team<'_>, x: &[f32], k: usize) -> Self {
        let (m, steps) = (x.len() / k, k.div_ceil(STEP));
        let mut tiles = Aligned::new(m.div_ceil(INPUTS) * steps * TILE / size_of::<f32>());
        let mut scales = vec![0.0; m];
        let own = tiles.chunks_exact_mut(steps * TILE / size_of::<f32>());
        let parts = x.chunks(INPUTS * k).zip(scales.chunks_mut(INPUTS)).zip(own);
        team.share(parts, |_, ((x, scales), tile)| {
            let tile: &mut [i8] = cast_slice_mut(tile);
            let mut levels = vec![0; steps * STEP];
            for (row, (x, scale)) in x.chunks_exact(k).zip(scales).enumerate() {
                *scale = round(x, &mut levels);
                for (levels, tile) in levels.chunks_exact(STEP).zip(tile.chunks_exact_mut(TILE)) {
                    let (upper, lower) = tile.split_at_mut(INPUTS * STEP);
                    apart(levels, &mut upper[row * STEP..][..STEP], &mut lower[row * STEP..][..STEP]);
                }
            }
        });
        Self { tiles, steps, scales }
    }
}

/// The two bytes of each level, both with a sign.
fn apart(levels: &[i16], upper: &mut [i8], lower: &mut [i8]) {
    vectorized(
        #[inline(always)]
        || {
            for ((&level, upper), lower) in levels.iter().zip(&mut *upper).zip(&mut *lower) {
                *lower = level as i8;
                *upper = ((level - i16::from(*lower)) >> 8) as i8;
            }
        },
    );
}

/// Two tiles of inputs against two panels: `sums[input tile][panel]`.
#[repr(align(64))]
#[derive(Default)]
struct Sums([[[[i32; PANEL]; 2 * INPUTS]; 2]; 2]);

/// As [`super::product`].
pub(super) fn product(
    w: &Quantized,
    first: usize,
    then: usize,
    inputs: &Inputs,
    out: &mut [&mut [f32]],
    accumulate: bool,
) {
    let unit = Tiles::configured();
    let mut sums = Sums::default();
    let (all, size): (&[i8], _) = (cast_slice(&inputs.tiles), inputs.steps * TILE);
    let rows = out[0].len();
    for row in (0..rows).step_by(ROWS) {
        let left = rows - row;
        let second = first + row + if left > PANEL { PANEL } else { 0 };
        let panels = [w.panel(first + row), w.panel(second)];
        let next = if left > ROWS { first + row + ROWS } else { then };
        let mut ahead = w.panel(next).as_ptr();
        for (pair, tiles) in all.chunks(2 * size).enumerate() {
            let tiles = [&tiles[..size], &tiles[tiles.len() - size..]];
            let taken = sum(&unit, tiles, panels, inputs.steps, ahead, &mut sums);
            ahead = ahead.wrapping_add(taken);
            let levels = inputs.scales.chunks(INPUTS).enumerate().skip(2 * pair).take(2);
            for ((tile, levels), sums) in levels.zip(&sums.0) {
                for (own, sums) in sums.iter().enumerate() {
                    let columns = (row + own * PANEL).min(rows)..(row + (own + 1) * PANEL).min(rows);
                    let scales = &w.scales[first + columns.start..];
                    let (upper, lower) = sums.split_at(INPUTS);
                    for (i, level) in levels.iter().enumerate() {
                        let out = &mut out[tile * INPUTS + i][columns.clone()];
                        let bytes = upper[i].iter().zip(&lower[i]);
                        let sums = bytes.map(|(upper, lower)| upper.wrapping_mul(256).wrapping_add(*lower));
                        place(out, sums, scales, *level, accumulate);
                    }
                }
            }
        }
    }
}

/// The products of two tiles of inputs, of which the second may be the first, and two panels. Asks for what lies at `ahead`, into the
/// second-level cache; returns how many bytes.
///
/// # Panics
/// An operand is shorter than its steps.
#[allow(unsafe_code, reason = "instructions that the compiler does not know")]
fn sum(
    _configured: &Tiles,
    inputs: [&[i8]; 2],
    panels: [&[i8]; 2],
    steps: usize,
    ahead: *const i8,
    sums: &mut Sums,
) -> usize {
    assert!(inputs.iter().chain(&panels).all(|tiles| tiles.len() >= steps * TILE));
    let alone = std::ptr::eq(inputs[0], inputs[1]);
    // SAFETY: the tiles are configured; every step reads a tile of each operand, and the four tiles of sums have room in `sums`.
    unsafe {
        if alone {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{a} + {line}]",
                "tileloadd tmm6, [{b0} + {line}]",
                "tdpbssd tmm0, tmm4, tmm6",
                ask_tile!(0),
                "tileloadd tmm7, [{b1} + {line}]",
                "tdpbssd tmm1, tmm4, tmm7",
                ask_tile!(1024),
                "add {a}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "add {p}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {line}], tmm0",
                "tilestored [{c} + {line} + 1024], tmm1",
                a = inout(reg) inputs[0].as_ptr() => _,
                b0 = inout(reg) panels[0].as_ptr() => _,
                b1 = inout(reg) panels[1].as_ptr() => _,
                p = inout(reg) ahead => _,
                c = in(reg) sums,
                steps = inout(reg) steps => _,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
            2 * steps * TILE
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{b0} + {line}]",
                "tileloadd tmm4, [{a0} + {line}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "prefetcht1 [{p}]",
                "tileloadd tmm7, [{b1} + {line}]",
                "tdpbssd tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 64]",
                "tileloadd tmm5, [{a1} + {line}]",
                "tdpbssd tmm2, tmm5, tmm6",
                "prefetcht1 [{p} + 128]",
                "tdpbssd tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 192]",
                "add {a0}, 1024",
                "add {a1}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "add {p}, 256",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {line}], tmm0",
                "tilestored [{c} + {line} + 1024], tmm1",
                "tilestored [{c} + {line} + 2048], tmm2",
                "tilestored [{c} + {line} + 3072], tmm3",
                a0 = inout(reg) inputs[0].as_ptr() => _,
                a1 = inout(reg) inputs[1].as_ptr() => _,
                b0 = inout(reg) panels[0].as_ptr() => _,
                b1 = inout(reg) panels[1].as_ptr() => _,
                p = inout(reg) ahead => _,
                c = in(reg) sums,
                steps = inout(reg) steps => _,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
            256 * steps
        }
    }
}
