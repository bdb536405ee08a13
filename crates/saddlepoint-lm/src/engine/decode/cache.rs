//! Keys and values of prompts, shared by all samples after them, and of each sample's own tokens.

use std::sync::Arc;

use super::super::Shape;
use super::super::kernel::{Cached, KEYS};

/// Keys and values of tokens in every layer, head by head.
#[derive(Debug)]
struct Cache {
    kv_heads: usize,
    head_dim: usize,
    /// Tokens that there is room for.
    capacity: usize,
    /// Tokens whose keys and values are in every layer.
    len: usize,
    /// `[layers, kv_heads, blocks, head_dim, KEYS]`
    keys: Vec<f32>,
    /// `[layers, kv_heads, capacity, head_dim]`
    values: Vec<f32>,
}

impl Cache {
    fn new(shape: &Shape, capacity: usize) -> Self {
        let width = shape.layers * shape.kv_width();
        Self {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            capacity,
            len: 0,
            keys: vec![0.0; width * capacity.next_multiple_of(KEYS)],
            values: vec![0.0; width * capacity],
        }
    }

    /// Stores the keys and values of a token in a layer, `[2 kv_heads, head_dim]`.
    fn store(&mut self, layer: usize, token: usize, kv: &[f32]) {
        let (keys, values) = kv.split_at(kv.len() / 2);
        let hd = self.head_dim;
        for head in 0..self.kv_heads {
            let own = head * hd..(head + 1) * hd;
            let place = layer * self.kv_heads + head;
            let blocks = &mut self.keys[place * self.capacity.next_multiple_of(KEYS) * hd..];
            let block = &mut blocks[token / KEYS * KEYS * hd..][..KEYS * hd];
            for (row, &key) in block.chunks_exact_mut(KEYS).zip(&keys[own.clone()]) {
                row[token % KEYS] = key;
            }
            let at = (place * self.capacity + token) * hd;
            self.values[at..at + hd].copy_from_slice(&values[own]);
        }
    }

    /// The first `len` tokens of a head in a layer.
    fn head(&self, layer: usize, head: usize, len: usize) -> Cached<'_> {
        let (place, hd) = (layer * self.kv_heads + head, self.head_dim);
        let keys = &self.keys[place * self.capacity.next_multiple_of(KEYS) * hd..];
        let values = &self.values[place * self.capacity * hd..];
        Cached { keys: &keys[..len.next_multiple_of(KEYS) * hd], values: &values[..len * hd], len }
    }
}

/// A computed prompt.
#[derive(Debug)]
pub(super) struct Prefix {
    cache: Cache,
    /// Final normalised hidden state of the last token, `[d]`.
    pub(super) hidden: Vec<f32>,
}

impl Prefix {
    pub(super) fn new(shape: &Shape, len: usize) -> Self {
        let mut cache = Cache::new(shape, len);
        cache.len = len;
        Self { cache, hidden: vec![0.0; shape.hidden] }
    }

    /// Stores the keys and values of a token in a layer, `[2 kv_heads, head_dim]`.
    pub(super) fn store(&mut self, layer: usize, token: usize, kv: &[f32]) {
        self.cache.store(layer, token, kv);
    }
}

/// A sample's own keys and values behind its prompt's.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) prefix: Arc<Prefix>,
    own: Cache,
}

impl Sequence {
    pub(super) fn new(prefix: Arc<Prefix>, capacity: usize, shape: &Shape) -> Self {
        Self { prefix, own: Cache::new(shape, capacity) }
    }

    /// Bytes that the keys and values of this many tokens take.
    pub(crate) fn bytes(shape: &Shape, tokens: usize) -> u64 {
        ((tokens + tokens.next_multiple_of(KEYS)) * shape.layers * shape.kv_width()) as u64 * 4
    }

    /// Position of the next token.
    pub(super) fn position(&self) -> usize {
        self.prefix.cache.len + self.own.len
    }

    /// Stores the next token's keys and values of a layer, `[2 kv_heads, head_dim]`.
    pub(super) fn store(&mut self, layer: usize, kv: &[f32]) {
        self.own.store(layer, self.own.len, kv);
    }

    /// Counts the token whose keys and values were stored in every layer.
    pub(super) fn advance(&mut self) {
        self.own.len += 1;
    }

    /// Keys and values of a head in a layer: the prompt's, and the own ones with the token being computed.
    pub(super) fn parts(&self, layer: usize, head: usize) -> [Cached<'_>; 2] {
        let prefix = &self.prefix.cache;
        [prefix.head(layer, head, prefix.len), self.own.head(layer, head, self.own.len + 1)]
    }
}
