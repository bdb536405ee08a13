//! Operands rearranged in the order in which tiles read them, and widened.

use std::ops::Range;

use half::bf16;

/// A type that matrices are stored in.
pub(super) trait Element: Copy {
    fn wide(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// A part of a matrix: element `(k, i)` is at `k along + i across`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a, T> {
    pub(super) data: &'a [T],
    pub(super) along: usize,
    pub(super) across: usize,
}

impl<T: Element> Part<'_, T> {
    #[inline(always)]
    fn get(self, k: usize, i: usize) -> f32 {
        self.data[k * self.along + i * self.across].wide()
    }

    /// Elements `(k, i)` to `(k + 3, i)`, where they are neighbours.
    #[inline(always)]
    fn four(self, k: usize, i: usize) -> [f32; 4] {
        let four: &[T; 4] =
            self.data[k + i * self.across..].first_chunk().expect("rows of the matrix are as long");
        four.map(T::wide)
    }
}

/// Columns `i` of `part` as a panel `[k, width]`, with zeros behind the last.
#[inline(always)]
pub(super) fn panel<T: Element>(
    part: Part<'_, T>,
    k: Range<usize>,
    i: Range<usize>,
    width: usize,
    out: &mut [f32],
) {
    let n = i.len();
    let rows = out.chunks_exact_mut(width).zip(k.clone());
    if part.across == 1 {
        for (out, k) in rows {
            let from = &part.data[k * part.along + i.start..][..n];
            for (o, v) in out.iter_mut().zip(from) {
                *o = v.wide();
            }
            out[n..].fill(0.0);
        }
    } else if part.along == 1 {
        squares(part, &k, &i, width, out);
    } else {
        for (out, k) in rows {
            for (o, i) in out.iter_mut().zip(i.clone()) {
                *o = part.get(k, i);
            }
            out[n..].fill(0.0);
        }
    }
}

/// The same where neighbours lie along `k`: by squares of four.
#[inline(always)]
fn squares<T: Element>(part: Part<'_, T>, k: &Range<usize>, i: &Range<usize>, width: usize, out: &mut [f32]) {
    let (n, whole) = (i.len(), i.len() / 4);
    let mut fours = out[..k.len() * width].chunks_exact_mut(4 * width);
    for (rows, k) in (&mut fours).zip(k.clone().step_by(4)) {
        let [a, b, c, d] = quarters(rows, width);
        let squares = a.as_chunks_mut().0.iter_mut().zip(b.as_chunks_mut().0).zip(c.as_chunks_mut().0);
        for ((((a, b), c), d), i) in squares.zip(d.as_chunks_mut().0).take(whole).zip(i.clone().step_by(4)) {
            [*a, *b, *c, *d] =
                transpose([part.four(k, i), part.four(k, i + 1), part.four(k, i + 2), part.four(k, i + 3)]);
        }
        for (row, k) in [a, b, c, d].into_iter().zip(k..) {
            for j in 4 * whole..n {
                row[j] = part.get(k, i.start + j);
            }
            row[n..].fill(0.0);
        }
    }
    for (row, k) in fours.into_remainder().chunks_exact_mut(width).zip(k.end - k.len() % 4..) {
        for (o, i) in row.iter_mut().zip(i.clone()) {
            *o = part.get(k, i);
        }
        row[n..].fill(0.0);
    }
}

#[inline(always)]
fn quarters(rows: &mut [f32], width: usize) -> [&mut [f32]; 4] {
    let (first, second) = rows.split_at_mut(2 * width);
    let (a, b) = first.split_at_mut(width);
    let (c, d) = second.split_at_mut(width);
    [a, b, c, d]
}

/// Transposes a square. The compiler finds no vector code for it by itself.
#[inline(always)]
fn transpose(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        let [a, b, c, d] = rows.map(bytemuck::cast);
        #[allow(unsafe_code, reason = "every x86-64 has these instructions")]
        // SAFETY: they are part of the base instruction set.
        unsafe {
            let (low, more) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (high, most) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(low, more),
                _mm_movehl_ps(more, low),
                _mm_movelh_ps(high, most),
                _mm_movehl_ps(most, high),
            ]
            .map(bytemuck::cast)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|k| std::array::from_fn(|i| rows[i][k]))
}

/// Rows `i` of `part` as groups `[k, tall]` of `tall` rows, one after another, with zeros behind the last row.
#[inline(always)]
pub(super) fn groups<T: Element>(
    part: Part<'_, T>,
    k: Range<usize>,
    i: Range<usize>,
    tall: usize,
    out: &mut [f32],
) {
    let size = tall * k.len();
    let whole = i.len() / tall;
    if part.across == 1 && tall == 8 {
        // Row by row of what is read, so that each of its cache lines is read once.
        for (at, k) in k.clone().enumerate() {
            let from = part.data[k * part.along + i.start..][..i.len()].as_chunks::<8>().0;
            let to = out.as_chunks_mut::<8>().0[at..].iter_mut().step_by(size / 8);
            for (to, from) in to.zip(from) {
                *to = from.map(T::wide);
            }
        }
    } else {
        for group in 0..whole {
            let first = i.start + group * tall;
            panel(part, k.clone(), first..first + tall, tall, &mut out[group * size..][..size]);
        }
    }
    if whole * tall < i.len() {
        let first = i.start + whole * tall;
        panel(part, k, first..i.end, tall, &mut out[whole * size..][..size]);
    }
}
