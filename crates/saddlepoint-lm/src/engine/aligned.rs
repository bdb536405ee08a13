//! Memory that begins with a cache line: a vector register that crosses two lines is written at half the rate.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector register.
const LINE: usize = 64;

/// Numbers at a fixed place.
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: Vec<f32>,
    from: usize,
    len: usize,
}

impl Aligned {
    /// Zeros, in pages that are there only once they are used.
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0.0f32; len + LINE / size_of::<f32>()];
        let from = memory.as_ptr().align_offset(LINE);
        Self { memory, from, len }
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
    fn begins_with_a_line_and_has_the_length() {
        for len in [0, 1, 17, 4096] {
            let memory = Aligned::new(len);
            assert_eq!((memory.len(), memory.as_ptr() as usize % LINE), (len, 0));
        }
    }
}
