//! Memory that begins with a cache line: a vector register that crosses two lines is written at half the rate.

use std::ops::{Deref, DerefMut};

use super::pages::zeros;

/// Bytes of a cache line, and of the widest vector register.
const LINE: usize = 64;

/// Numbers at a fixed place.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    memory: Vec<f32>,
    from: usize,
    len: usize,
}

impl Aligned {
    /// Zeros, in pages that are there only once they are used.
    pub(crate) fn new(len: usize) -> Self {
        let memory: Vec<f32> = zeros(len + LINE / size_of::<f32>());
        let from = memory.as_ptr().align_offset(LINE);
        Self { memory, from, len }
    }

    /// The first `len` numbers of a work buffer, which grows to the most that was ever asked for. What they are is
    /// not said.
    pub(crate) fn room(&mut self, len: usize) -> &mut [f32] {
        if self.len < len {
            // Never two at a time.
            *self = Self::default();
            *self = Self::new(len);
        }
        &mut self[..len]
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.from..self.from + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_buffer_grows_and_stays() {
        let mut buffer = Aligned::default();
        for (asked, there) in [(0, 0), (100, 100), (7, 100), (101, 101)] {
            assert_eq!(buffer.room(asked).len(), asked);
            assert_eq!(buffer.len(), there);
        }
    }

    #[test]
    fn begins_with_a_line_and_has_the_length() {
        for len in [0, 1, 17, 4096] {
            let memory = Aligned::new(len);
            assert_eq!((memory.len(), memory.as_ptr() as usize % LINE), (len, 0));
        }
    }
}
