//! Weights of 8 bits against inputs of 16: integers, so that every instruction set gives the same bits.
//!
//! An input row is rounded to `2 top + 1` levels, of which the largest magnitude takes the last. `top` is chosen so
//! that no sum of `k` products leaves 32 bits: `127 k top < 2^31`. For `k` up to 8,192 there are at least 4,000 levels
//! where the weights have 255.
//!
//! Vectors multiply 16 bits by 16, and Intel's matrix unit 8 by 8: it takes the two bytes of an input apart (see
//! [`tiles`]). Both read the weights in one order.

#[cfg(target_arch = "x86_64")]
mod tiles;

use pulp::{Arch, NullaryFnOnce, Scalar, Simd, WithSimd};
use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::super::lanes::{magnitude, prefetch_second};
use super::super::team::Team;
use super::{AHEAD, groups};
use crate::engine::pages::zeros;

/// Rows of a panel.
const PANEL: usize = 16;
/// Rows of a piece of a product are a multiple of this, the most that are multiplied together.
pub(super) const ROWS: usize = 2 * PANEL;
/// Neighbours in a row that lie beside each other in a panel.
const QUAD: usize = 4;
/// Rows of weights are filled up with zeros to a multiple of this length, that of a step of the matrix unit.
const STEP: usize = 64;
/// Largest level of an input: two bytes with signs, `256 * 127 + 127`.
const LARGEST: i32 = 32_639;

/// Eight-bit weights with one scale a row: `w[n, k] = scale[n] level[n, k]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quantized {
    /// `[panels, quads, PANEL, QUAD]`: four neighbours in a row, then the next row. Zeros fill the last panel and step.
    levels: Vec<i8>,
    /// `[panels, PANEL]`
    scales: Vec<f32>,
}

impl Quantized {
    /// Rounds each row to the nearest of 255 levels, the largest magnitude at 127.
    pub fn new(w: &[f32], columns: usize) -> Self {
        let quads = quads(columns);
        let panels = (w.len() / columns).div_ceil(PANEL);
        let size = quads * PANEL * QUAD;
        let mut out = Self { levels: zeros(panels * size), scales: vec![0.0; panels * PANEL] };
        let own = out.levels.par_chunks_exact_mut(size);
        (w.par_chunks(PANEL * columns), own, out.scales.par_chunks_exact_mut(PANEL))
            .into_par_iter()
            .for_each(|(w, levels, scales)| {
                for (i, (row, scale)) in w.chunks_exact(columns).zip(scales).enumerate() {
                    let top = row.iter().fold(0.0f32, |a, v| a.max(v.abs()));
                    *scale = top / 127.0;
                    let inverse = if top > 0.0 { 127.0 / top } else { 0.0 };
                    for (quad, v) in levels.chunks_exact_mut(PANEL * QUAD).zip(row.chunks(QUAD)) {
                        for (level, &v) in quad[QUAD * i..].iter_mut().zip(v) {
                            *level = (v * inverse).round() as i8;
                        }
                    }
                }
            });
        out
    }

    /// The panel that begins with a row, a multiple of [`PANEL`]; empty behind the last.
    fn panel(&self, row: usize) -> &[i8] {
        let size = self.levels.len() / self.scales.len() * PANEL;
        self.levels.get(row / PANEL * size..).unwrap_or_default().get(..size).unwrap_or_default()
    }

    /// The weights that the levels stand for, `[n, k]`.
    #[cfg(test)]
    pub(super) fn widened(&self, n: usize, k: usize) -> Vec<f32> {
        let place = |row: usize, column: usize| {
            ((row / PANEL * quads(k) + column / QUAD) * PANEL + row % PANEL) * QUAD + column % QUAD
        };
        (0..n * k).map(|i| f32::from(self.levels[place(i / k, i % k)]) * self.scales[i / k]).collect()
    }
}

/// Quads of a row of weights.
fn quads(columns: usize) -> usize {
    columns.next_multiple_of(STEP) / QUAD
}

/// What an instruction set does with `ROWS` rows at a time.
trait Integers: Copy {
    const ROWS: usize;
    /// Four integers of 16 bits for each row.
    type Quads: Copy;
    /// Two sums of 32 bits for each row, those of the first and of the second half of its quads.
    type Sums: Copy;

    fn zero(self) -> Self::Sums;
    fn weights(self, quads: &[i8]) -> Self::Quads;
    /// The same four integers for each row, the first in the lowest place.
    fn input(self, quad: i64) -> Self::Quads;
    /// Adds the products of both.
    fn add(self, sums: Self::Sums, w: Self::Quads, x: Self::Quads) -> Self::Sums;
    /// Both sums together, of the rows of two vectors one after the other.
    fn read(self, sums: [Self::Sums; 2], out: &mut [i32; PANEL]);
}

impl Integers for Scalar {
    const ROWS: usize = 1;
    type Quads = [i32; QUAD];
    type Sums = [i32; 2];

    fn zero(self) -> [i32; 2] {
        [0; 2]
    }

    #[inline(always)]
    fn weights(self, quads: &[i8]) -> [i32; QUAD] {
        std::array::from_fn(|i| quads[i].into())
    }

    #[inline(always)]
    fn input(self, quad: i64) -> [i32; QUAD] {
        std::array::from_fn(|i| ((quad >> (16 * i)) as i16).into())
    }

    #[inline(always)]
    fn add(self, sums: [i32; 2], w: [i32; QUAD], x: [i32; QUAD]) -> [i32; 2] {
        [sums[0] + w[0] * x[0] + w[1] * x[1], sums[1] + w[2] * x[2] + w[3] * x[3]]
    }

    #[inline(always)]
    fn read(self, sums: [[i32; 2]; 2], out: &mut [i32; PANEL]) {
        for (out, [first, second]) in out.iter_mut().zip(sums) {
            *out = first + second;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256i, __m512i};

    use pulp::x86::{V3, V4};
    use pulp::{cast, simd_type};

    use super::{Integers, PANEL};

    simd_type! {
        /// AVX-512 with the instruction that [`Integers::add`] is as a whole; the compiler takes it where it may.
        pub(super) struct Vnni {
            avx512f: "avx512f",
            avx512bw: "avx512bw",
            avx512dq: "avx512dq",
            avx512vl: "avx512vl",
            avx512vnni: "avx512vnni",
        }
    }

    impl Integers for V3 {
        const ROWS: usize = 4;
        type Quads = __m256i;
        type Sums = __m256i;

        #[inline(always)]
        fn zero(self) -> __m256i {
            self.avx._mm256_setzero_si256()
        }

        #[inline(always)]
        fn weights(self, quads: &[i8]) -> __m256i {
            let quads: [i8; 16] = *quads.first_chunk().expect("four rows");
            self.avx2._mm256_cvtepi8_epi16(cast(quads))
        }

        #[inline(always)]
        fn input(self, quad: i64) -> __m256i {
            self.avx._mm256_set1_epi64x(quad)
        }

        #[inline(always)]
        fn add(self, sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
            self.avx2._mm256_add_epi32(sums, self.avx2._mm256_madd_epi16(w, x))
        }

        #[inline(always)]
        fn read(self, sums: [__m256i; 2], out: &mut [i32; PANEL]) {
            // Within halves of a register: two rows of the first vector, then two of the second.
            let rows = self.avx2._mm256_hadd_epi32(sums[0], sums[1]);
            let rows = self.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(rows);
            out[..8].copy_from_slice(&cast::<_, [i32; 8]>(rows));
        }
    }

    impl Integers for V4 {
        const ROWS: usize = 8;
        type Quads = __m512i;
        type Sums = __m512i;

        #[inline(always)]
        fn zero(self) -> __m512i {
            self.avx512f._mm512_setzero_si512()
        }

        #[inline(always)]
        fn weights(self, quads: &[i8]) -> __m512i {
            let quads: [i8; 32] = *quads.first_chunk().expect("eight rows");
            self.avx512bw._mm512_cvtepi8_epi16(cast(quads))
        }

        #[inline(always)]
        fn input(self, quad: i64) -> __m512i {
            self.avx512f._mm512_set1_epi64(quad)
        }

        #[inline(always)]
        fn add(self, sums: __m512i, w: __m512i, x: __m512i) -> __m512i {
            self.avx512f._mm512_add_epi32(sums, self.avx512bw._mm512_madd_epi16(w, x))
        }

        #[inline(always)]
        fn read(self, sums: [__m512i; 2], out: &mut [i32; PANEL]) {
            let even: [i32; 16] = std::array::from_fn(|i| 2 * i as i32);
            let odd = even.map(|i| i + 1);
            let [first, second] =
                [even, odd].map(|half| self.avx512f._mm512_permutex2var_epi32(sums[0], cast(half), sums[1]));
            *out = cast(self.avx512f._mm512_add_epi32(first, second));
        }
    }
}

/// The rounded rows of `x`.
pub(super) enum Inputs {
    Vectors(Vec<Group>),
    #[cfg(target_arch = "x86_64")]
    Tiles(tiles::Inputs),
}

/// One to eight rows.
#[derive(Default)]
pub(super) struct Group {
    first: usize,
    rows: usize,
    /// `[quads, rows]`
    quads: Vec<i64>,
    /// What a level is, for each row.
    scales: Vec<f32>,
}

impl Inputs {
    pub(super) fn new(team: &Team<'_>, x: &[f32], k: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if tiles::available() {
            return Self::Tiles(tiles::Inputs::new(team, x, k));
        }
        Self::vectors(team, x, k)
    }

    fn vectors(team: &Team<'_>, x: &[f32], k: usize) -> Self {
        // Sixteen accumulators leave AVX-512 its other registers for what they take in, eight do so for AVX2.
        let widest = if Arch::new().dispatch(Bits) == 512 { 8 } else { 4 };
        let cut: Vec<_> = groups(x.len() / k, widest).collect();
        let mut groups: Vec<_> = cut.iter().map(|_| Group::default()).collect();
        team.share(groups.iter_mut().zip(cut), |_, (group, (first, rows))| {
            *group = Group::new(&x[first * k..(first + rows) * k], first, rows);
        });
        Self::Vectors(groups)
    }
}

impl Group {
    fn new(x: &[f32], first: usize, rows: usize) -> Self {
        let k = x.len() / rows;
        let mut levels = vec![0; k.next_multiple_of(QUAD)];
        let mut quads = vec![0; levels.len() / QUAD * rows];
        let scale = |(row, x): (usize, _)| {
            let scale = round(x, &mut levels);
            for (quads, levels) in quads.chunks_exact_mut(rows).zip(levels.chunks_exact(QUAD)) {
                let [a, b, c, d] =
                    [levels[0], levels[1], levels[2], levels[3]].map(|level| i64::from(level as u16));
                quads[row] = a | b << 16 | c << 32 | d << 48;
            }
            scale
        };
        let scales = x.chunks_exact(k).enumerate().map(scale).collect();
        Self { first, rows, quads, scales }
    }
}

/// Width of a vector.
struct Bits;

impl WithSimd for Bits {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        8 * size_of::<S::u32s>()
    }
}

/// Rounds a row to levels; returns what a level is, not a number where the row has values that are none.
fn round(x: &[f32], out: &mut [i16]) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 2^23: adding it rounds to an integer held in the low mantissa bits
    let top = (i32::MAX / 127 / x.len() as i32).min(LARGEST) as f32;
    vectorized(
        #[inline(always)]
        || {
            let finite = x.iter().fold(true, |all, v| all & v.is_finite());
            let largest = magnitude(x);
            let inverse = if largest > 0.0 { top / largest } else { 0.0 };
            for (o, &v) in out.iter_mut().zip(x) {
                *o = (v * inverse + MAGIC).to_bits() as i16;
            }
            if finite { largest / top } else { f32::NAN }
        },
    )
}

/// The panels from row `first` on against all inputs; `out` has the part of each input's row that belongs to them. The matrix unit asks
/// the memory for those from row `then` on at the end.
pub(super) fn product(
    w: &Quantized,
    first: usize,
    then: usize,
    inputs: &Inputs,
    out: &mut [&mut [f32]],
    accumulate: bool,
) {
    let _ = then;
    let groups = match inputs {
        Inputs::Vectors(groups) => groups,
        #[cfg(target_arch = "x86_64")]
        Inputs::Tiles(inputs) => return tiles::product(w, first, then, inputs, out, accumulate),
    };
    let arch = Arch::new();
    let piece = Piece { w, first, groups, out, accumulate };
    match arch {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => match x86::Vnni::try_new() {
            Some(vnni) => vnni.vectorize(With(simd, piece)),
            None => arch.dispatch(With(simd, piece)),
        },
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => arch.dispatch(With(simd, piece)),
        _ => arch.dispatch(With(Scalar::new(), piece)),
    }
}

/// `out = value`, or with `accumulate` `out += value`, of sums in levels: `scales` of the weights and that of the input.
#[inline(always)]
fn place(out: &mut [f32], sums: impl IntoIterator<Item = i32>, scales: &[f32], input: f32, accumulate: bool) {
    for ((o, sum), &scale) in out.iter_mut().zip(sums).zip(scales) {
        let value = sum as f32 * (scale * input);
        *o = if accumulate { *o + value } else { value };
    }
}

/// A piece with the instructions to compute it.
struct With<'a, 'b, I>(I, Piece<'a, 'b>);

impl<I: Integers> NullaryFnOnce for With<'_, '_, I> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        self.1.run(self.0);
    }
}

/// A piece of a product.
struct Piece<'a, 'b> {
    w: &'a Quantized,
    first: usize,
    groups: &'a [Group],
    out: &'a mut [&'b mut [f32]],
    accumulate: bool,
}

impl Piece<'_, '_> {
    #[inline(always)]
    fn run<I: Integers>(&mut self, simd: I) {
        let rows = self.out[0].len();
        for first in (0..rows).step_by(ROWS) {
            for group in self.groups {
                // A group that is in the first-level cache meets two panels.
                for row in (first..rows.min(first + ROWS)).step_by(PANEL) {
                    match group.rows {
                        8 => self.panel::<I, 8>(simd, row, group),
                        4 => self.panel::<I, 4>(simd, row, group),
                        2 => self.panel::<I, 2>(simd, row, group),
                        _ => self.panel::<I, 1>(simd, row, group),
                    }
                }
            }
        }
    }

    /// The panel whose first row is `row` of the piece against the `M` input rows of a group.
    #[inline(always)]
    fn panel<I: Integers, const M: usize>(&mut self, simd: I, row: usize, group: &Group) {
        let panel = self.w.panel(self.first + row);
        let rows = PANEL.min(self.out[0].len() - row);
        for part in (0..rows).step_by(2 * I::ROWS) {
            let mut sums = [[simd.zero(); M]; 2];
            for (levels, inputs) in panel.chunks_exact(PANEL * QUAD).zip(group.quads.chunks_exact(M)) {
                prefetch_second(levels.as_ptr().wrapping_add(AHEAD));
                let own = &levels[QUAD * part..];
                let w = [simd.weights(own), simd.weights(&own[QUAD * I::ROWS..])];
                for m in 0..M {
                    let x = simd.input(inputs[m]);
                    for i in 0..2 {
                        sums[i][m] = simd.add(sums[i][m], w[i], x);
                    }
                }
            }
            let rows = row + part..row + rows.min(part + 2 * I::ROWS);
            let scales = &self.w.scales[self.first + rows.start..];
            for m in 0..M {
                let mut read = [0; PANEL];
                simd.read([sums[0][m], sums[1][m]], &mut read);
                let out = &mut self.out[group.first + m][rows.clone()];
                place(out, read, scales, group.scales[m], self.accumulate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let (n, k, m) = (71, 101, 29);
        let w: Vec<f32> = (0..n * k).map(|i| ((i * 89) % 255) as f32 - 127.3).collect();
        let w = Quantized::new(&w, k);
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 37) % 101) as f32 - 49.7).collect();
        let inputs = Team::lead(|team| [Inputs::vectors(team, &x, k), Inputs::new(team, &x, k)]);
        let Inputs::Vectors(groups) = &inputs[0] else { unreachable!("asked for") };
        let run = |run: &dyn Fn(&mut Piece<'_, '_>)| {
            let mut out = vec![0.0f32; n * m];
            let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(n).collect();
            run(&mut Piece { w: &w, first: 0, groups, out: &mut rows, accumulate: false });
            out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let scalar = run(&|piece| piece.run(Scalar::new()));
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            if let Some(simd) = V3::try_new() {
                assert_eq!(run(&|piece| piece.run(simd)), scalar);
            }
            if let Some(simd) = V4::try_new() {
                assert_eq!(run(&|piece| piece.run(simd)), scalar);
            }
        }
        for inputs in &inputs {
            let own = run(&|Piece { w, first, out, accumulate, .. }| {
                product(w, *first, 0, inputs, out, *accumulate);
            });
            assert_eq!(own, scalar);
        }
        assert!(scalar.iter().any(|&bits| bits != 0));
    }

    #[test]
    fn the_largest_sum_fits_and_what_is_no_number_stays_none() {
        for k in [1, 3, 576, 100_000] {
            let inputs = Team::lead(|team| Inputs::new(team, &vec![-1e30; k], k));
            let mut out = [0.0];
            product(&Quantized::new(&vec![-127.0; k], k), 0, 0, &inputs, &mut [&mut out[..]], false);
            assert!((f64::from(out[0]) / (127e30 * k as f64) - 1.0).abs() < 1e-6, "{k} inputs: {}", out[0]);
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut out = [0.0];
            let x = [[1.0; 39].as_slice(), &[bad]].concat();
            let inputs = Team::lead(|team| Inputs::new(team, &x, 40));
            product(&Quantized::new(&[1.0; 40], 40), 0, 0, &inputs, &mut [&mut out[..]], false);
            assert!(out[0].is_nan());
        }
    }

    #[test]
    fn quantisation_errs_by_half_a_level_at_most() {
        let (n, k) = (40, 65);
        let w: Vec<f32> = (0..n * k).map(|i| ((i * 89) % 1001) as f32 / 500.0 - 1.0).collect();
        let q = Quantized::new(&w, k);
        for (i, (&v, near)) in w.iter().zip(q.widened(n, k)).enumerate() {
            assert!((near - v).abs() <= 0.5001 * q.scales[i / k]);
        }
    }
}
