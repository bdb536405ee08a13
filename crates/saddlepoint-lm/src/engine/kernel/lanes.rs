//! Elementary functions and reductions written so that the compiler turns them into vector code inside
//! `pulp::Arch::dispatch`, for whichever instruction set the machine has.
//!
//! No fused multiply-add and fixed lane counts: every instruction set gives the same bits.

/// Independent partial sums of a reduction.
pub(crate) const LANES: usize = 32;

/// `e^x` with relative error below 2e-7; 0 below -87.3, finite above 88.3.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 2^23: adding it rounds to an integer held in the low mantissa bits
    let clamped = if x > 88.3 { 88.3 } else { x };
    let clamped = if clamped < -87.3 { -87.3 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.3 { 0.0 } else { p * power }
}

/// `e^x - 1` with its digits near 0; infinite where `f32` ends.
#[inline(always)]
pub(crate) fn exp_m1(x: f32) -> f32 {
    let p = 1.0 + x * (1.0 / 8.0);
    let p = 1.0 + x * (1.0 / 7.0) * p;
    let p = 1.0 + x * (1.0 / 6.0) * p;
    let p = 1.0 + x * (1.0 / 5.0) * p;
    let p = 1.0 + x * (1.0 / 4.0) * p;
    let p = 1.0 + x * (1.0 / 3.0) * p;
    let p = 1.0 + x * (1.0 / 2.0) * p;
    let far = if x > 88.0 { f32::INFINITY } else { exp(x.min(88.0)) - 1.0 };
    if x.abs() < 0.5 { x * p } else { far }
}

/// Natural logarithm of a positive normal number, relative error below 2e-7 away from 1.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let raised = bits.wrapping_sub(0x3f35_04f3); // sqrt(1/2): the mantissa lies in [sqrt(1/2), sqrt(2))
    let exponent = (raised as i32) >> 23;
    let m = f32::from_bits((raised & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let e = exponent as f32;
    let p = 7.037_683_6e-2;
    let p = p * m - 1.151_461e-1;
    let p = p * m + 1.167_699_9e-1;
    let p = p * m - 1.242_014_1e-1;
    let p = p * m + 1.424_932_3e-1;
    let p = p * m - 1.666_805_8e-1;
    let p = p * m + 2.000_071_5e-1;
    let p = p * m - 2.499_999_4e-1;
    let p = p * m + 3.333_333e-1;
    let m2 = m * m;
    let tail = p * m * m2 + e * -2.121_944_4e-4 - 0.5 * m2;
    m + tail + e * 0.693_359_4
}

/// Sum in [`LANES`] interleaved partial sums.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            acc[i] += chunk[i];
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a += v;
    }
    fold(acc)
}

/// Inner product in [`LANES`] interleaved partial sums.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let n = x.len().min(y.len());
    let whole = n - n % LANES;
    for (a, b) in x[..whole].chunks_exact(LANES).zip(y[..whole].chunks_exact(LANES)) {
        for i in 0..LANES {
            acc[i] += a[i] * b[i];
        }
    }
    for ((a, &u), &v) in acc.iter_mut().zip(&x[whole..n]).zip(&y[whole..n]) {
        *a += u * v;
    }
    fold(acc)
}

/// Largest element; negative infinity of nothing.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            acc[i] = if chunk[i] > acc[i] { chunk[i] } else { acc[i] };
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a = if v > *a { v } else { *a };
    }
    acc.into_iter().fold(f32::NEG_INFINITY, |a, v| if v > a { v } else { a })
}

/// Largest magnitude; 0 of nothing.
#[inline(always)]
pub(crate) fn magnitude(x: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..LANES {
            acc[i] = if chunk[i].abs() > acc[i] { chunk[i].abs() } else { acc[i] };
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a = if v.abs() > *a { v.abs() } else { *a };
    }
    acc.into_iter().fold(0.0, |a, v| if v > a { v } else { a })
}

#[inline(always)]
fn fold(mut acc: [f32; LANES]) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            acc[i] += acc[i + width];
        }
    }
    acc[0]
}

/// Asks for the cache line at `address`, which may be anywhere, to come into the first-level cache.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "a prefetch is a hint: it accesses nothing and cannot fault")]
    // SAFETY: every x86-64 has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The same into the second-level cache, which can wait for many more lines at a time.
#[inline(always)]
pub(crate) fn prefetch_second<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "as above")]
    // SAFETY: as above.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Elements in a cache line.
pub(crate) const LINE: usize = 16;
/// Columns that [`add`] sums in registers.
pub(crate) const COLUMNS: usize = 64;

/// `sums += factor row`; a row may have fewer elements than there are sums, or more.
#[inline(always)]
pub(crate) fn add(sums: &mut [f32; COLUMNS], factor: f32, row: &[f32]) {
    match row.first_chunk::<COLUMNS>() {
        Some(row) => sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += factor * v),
        None => sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += factor * v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulps_over_its_range() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "exp({x})");
        }
        assert_eq!(exp(-100.0).to_bits(), 0);
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp_m1_is_accurate_near_zero_and_far_from_it() {
        for i in -4000..=4000 {
            for x in [i as f32 * 1e-4, i as f32 * 0.02] {
                let exact = f64::from(x).exp_m1();
                let error = (f64::from(exp_m1(x)) - exact).abs();
                assert!(error <= 5e-7 * exact.abs(), "{x}: {} against {exact}", exp_m1(x));
            }
        }
        assert!(exp_m1(88.5).is_infinite() && exp_m1(1e4).is_infinite());
    }

    #[test]
    fn ln_is_accurate_over_all_magnitudes() {
        for e in -120..120 {
            for k in 0..200 {
                let x = (1.0 + k as f32 / 200.0) * (e as f32).exp2();
                let exact = f64::from(x).ln();
                assert!((f64::from(ln(x)) - exact).abs() < 3e-7 * exact.abs().max(0.5), "ln({x})");
            }
        }
    }

    #[test]
    fn reductions_agree_with_plain_loops() {
        let x: Vec<f32> = (0..1003).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let y: Vec<f32> = (0..1003).map(|i| ((i * 11) % 7) as f32).collect();
        assert_eq!(sum(&x).to_bits(), x.iter().sum::<f32>().to_bits());
        assert_eq!(dot(&x, &y).to_bits(), x.iter().zip(&y).map(|(a, b)| a * b).sum::<f32>().to_bits());
        assert_eq!(max(&x).to_bits(), 50.0f32.to_bits());
    }
}
