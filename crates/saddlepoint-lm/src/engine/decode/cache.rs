//! Keys and values of prompts, shared by all samples after them, and of each sample's own tokens.

use std::sync::Arc;

use super::super::Shape;
use super::super::kernel::Cached;

/// A computed prompt.
#[derive(Debug)]
pub(super) struct Prefix {
    /// Number of tokens.
    pub(super) len: usize,
    /// Keys, then values: `[layers, 2 kv_heads, len, head_dim]`.
    pub(super) kv: Vec<f32>,
    /// Final normalised hidden state of the last token, `[d]`.
    pub(super) hidden: Vec<f32>,
}

/// A sample's own keys and values behind its prompt's.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) prefix: Arc<Prefix>,
    /// `[layers, 2 kv_heads, capacity, head_dim]`
    kv: Vec<f32>,
    capacity: usize,
    /// Own tokens that are in the cache.
    len: usize,
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

    /// Stores the next token's keys and values of a layer, `[2 kv_heads, head_dim]`.
    pub(super) fn store(&mut self, layer: usize, kv: &[f32], head_dim: usize) {
        let block = self.capacity * kv.len();
        let own = &mut self.kv[layer * block..(layer + 1) * block];
        for (head, v) in own.chunks_exact_mut(self.capacity * head_dim).zip(kv.chunks_exact(head_dim)) {
            head[self.len * head_dim..][..head_dim].copy_from_slice(v);
        }
    }

    /// Counts the token whose keys and values were stored in every layer.
    pub(super) fn advance(&mut self) {
        self.len += 1;
    }

    /// Keys and values of a layer: the prompt's and the own ones with the token being computed.
    pub(super) fn parts(&self, layer: usize, width: usize) -> [Cached<'_>; 2] {
        let part = |capacity: usize| layer * capacity * width..(layer + 1) * capacity * width;
        let Prefix { len, kv, .. } = &*self.prefix;
        [
            Cached { kv: &kv[part(*len)], len: *len, capacity: *len },
            Cached { kv: &self.kv[part(self.capacity)], len: self.len + 1, capacity: self.capacity },
        ]
    }
}
