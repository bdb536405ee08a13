//! Plain loops compiled once for each instruction set.
#![allow(clippy::inline_always, reason = "that is what this module is for")]

use pulp::{Arch, Simd, WithSimd};

/// Runs `work` as code for the widest instruction set that the machine has. `work` and all that it calls must be
/// `#[inline(always)]`: what stays a function of its own is compiled for the oldest machine.
#[inline(always)]
pub fn vectorized<R>(work: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Work(work))
}

/// Called as the `FnMut` it is: a closure that `dispatch` gets itself is called through the `FnOnce` that the compiler
/// makes of it, a function of its own.
struct Work<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// `e^x` of each, within one unit in the last place, and the same bits on every machine, which a system's library does not promise.
pub fn exp(values: &mut [f64]) {
    vectorized(
        #[inline(always)]
        || values.iter_mut().for_each(|x| *x = exp_of(*x)),
    );
}

/// `2^n e^r` with `n = round(x / ln 2)` and `|r| <= ln 2 / 2`; `e^r = 1 + 2r / (2 − R)` with `R = r − r² P(r²)`, the minimax polynomial of
/// FreeBSD's `e_exp.c`.
#[inline(always)]
fn exp_of(x: f64) -> f64 {
    /// Adding it leaves the nearest integer in the last bits.
    const SHIFT: f64 = 1.5 * (1_u64 << 52) as f64;
    /// `ln 2` in two parts; products of the first with an exponent are exact.
    const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    const P: [f64; 5] = [
        1.666_666_666_666_660_2e-1,
        -2.777_777_777_701_559_3e-3,
        6.613_756_321_437_934e-5,
        -1.653_390_220_546_525_2e-6,
        4.138_136_797_057_238_5e-8,
    ];
    // Beyond these it is 0 or infinite; what is no number stays so.
    let x = x.clamp(-746.0, 710.0);
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let exponent = (shifted.to_bits() as i64).wrapping_sub(SHIFT.to_bits() as i64);
    let n = shifted - SHIFT;
    let (high, low) = (x - n * LN2[0], n * LN2[1]);
    let r = high - low;
    let square = r * r;
    let rest = r - square * (P[0] + square * (P[1] + square * (P[2] + square * (P[3] + square * P[4]))));
    let power = 1.0 - ((low - r * rest / (2.0 - rest)) - high);
    // In two factors, of which neither overflows.
    let half = exponent >> 1;
    let two_to = |n: i64| f64::from_bits((n.wrapping_add(1023) << 52) as u64);
    power * two_to(half) * two_to(exponent.wrapping_sub(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_a_unit_in_the_last_place() {
        let mut all: Vec<f64> = (-200_000..200_000).map(|i| f64::from(i) * 3.4e-3 + 1e-5).collect();
        all.extend((0..2000).map(|i| f64::from(i - 1000) * 1e-7));
        let mut got = all.clone();
        exp(&mut got);
        for (x, got) in all.iter().zip(&got) {
            let exact = x.exp();
            let apart = (exact.to_bits() as i64 - got.to_bits() as i64).abs();
            assert!(apart <= 1, "e^{x} is {exact}, not {got}");
        }
    }

    #[test]
    fn ends_of_the_numbers() {
        let mut ends = [
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            709.8,
            -745.2,
            -745.0,
            f64::MAX,
            f64::MIN,
            f64::NAN,
        ];
        exp(&mut ends);
        let least = f64::from_bits(1);
        assert_eq!(ends[..9], [1.0, 1.0, f64::INFINITY, 0.0, f64::INFINITY, 0.0, least, f64::INFINITY, 0.0]);
        assert!(ends[9].is_nan());
    }
}
