//! Keys and values of prompts, shared by all samples after them, and of each sample's own tokens.

use std::sync::Arc;

use super::super::Shape;

/// A computed prompt.
#[derive(Debug)]
pub(super) struct Prefix {
    /// Number of tokens.
    pub(super) len: usize,
    /// Keys and values `[layers, len, 2 kv_width]`.
    pub(super) kv: Vec<f32>,
    /// Final normalised hidden state of the last token, `[d]`.
    pub(super) hidden: Vec<f32>,
}

/// A sample's own keys and values behind its prompt's.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) prefix: Arc<Prefix>,
    /// `[layers, capacity, 2 kv_width]`
    pub(super) kv: Vec<f32>,
    pub(super) capacity: usize,
    /// Own tokens that are in the cache.
    pub(super) len: usize,
}

impl Sequence {
    pub(super) fn new(prefix: Arc<Prefix>, capacity: usize, shape: &Shape) -> Self {
        let kv = vec![0.0; shape.layers * capacity * 2 * shape.kv_width()];
        Self { prefix, kv, capacity, len: 0 }
    }

    /// Position of the next token.
    pub(super) fn position(&self) -> usize {
        self.prefix.len + self.len
    }

    /// Where the next token's keys and values of a layer go.
    pub(super) fn slot(&mut self, layer: usize, width: usize) -> &mut [f32] {
        let from = (layer * self.capacity + self.len) * width;
        &mut self.kv[from..from + width]
    }

    /// Keys and values of a layer: the prompt's and the own ones with the token being computed.
    pub(super) fn parts(&self, layer: usize, width: usize) -> [&[f32]; 2] {
        let shared = &self.prefix.kv[layer * self.prefix.len * width..(layer + 1) * self.prefix.len * width];
        let own = &self.kv[layer * self.capacity * width..][..(self.len + 1) * width];
        [shared, own]
    }
}
