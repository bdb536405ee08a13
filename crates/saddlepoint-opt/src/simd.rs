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
