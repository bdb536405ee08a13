//! Memory for the largest arrays, in large pages where the system has them.

use bytemuck::Zeroable;

/// Zeros, in pages that are there only once they are used.
///
/// Products read whole matrices once a pass: in pages of 4 kB every few vectors need another translation of an address,
/// which costs some hundredths of a step.
pub(crate) fn zeros<T: Zeroable>(len: usize) -> Vec<T> {
    let memory = bytemuck::zeroed_vec(len);
    advise(&memory);
    memory
}

/// Asks for large pages wherever a whole one fits. It is a wish: whether it is granted changes no result.
#[cfg(target_os = "linux")]
fn advise<T>(memory: &[T]) {
    /// Bytes of a large page of x86-64 and aarch64.
    const PAGE: usize = 2 << 20;
    let before = memory.as_ptr().cast::<u8>().align_offset(PAGE);
    let whole = size_of_val(memory).saturating_sub(before) / PAGE * PAGE;
    if whole > 0 {
        let start = memory.as_ptr().cast::<u8>().wrapping_add(before).cast_mut().cast();
        #[allow(unsafe_code, reason = "the call takes an address")]
        // SAFETY: the range lies within the slice, and this advice leaves its contents alone.
        let _refused = unsafe { rustix::mm::madvise(start, whole, rustix::mm::Advice::LinuxHugepage) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_memory: &[T]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_zero_whatever_the_size() {
        for len in [0, 1, 1000, (2 << 20) / 4, (9 << 20) / 4 + 3] {
            let memory = zeros::<f32>(len);
            assert_eq!(memory.len(), len);
            assert!(memory.iter().all(|v| v.to_bits() == 0));
        }
    }
}
