//! The weights as decoding reads them.

use std::collections::BTreeMap;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::super::decoder::Decoder;
use super::super::kernel::{NarrowWeights, Quantized};
use super::super::weights::Weights as Stored;
use super::Weights;

/// Matrices in the policy's own storage or in a narrower copy, by the offset of their first element.
#[derive(Debug)]
pub(super) struct DecodeWeights<'a> {
    stored: &'a Stored,
    half: BTreeMap<usize, Vec<bf16>>,
    eight: BTreeMap<usize, Quantized>,
}

impl<'a> DecodeWeights<'a> {
    pub(super) fn new(decoder: Decoder<'a>, kind: Weights) -> Self {
        let stored = decoder.weights;
        let mut out = Self { stored, half: BTreeMap::new(), eight: BTreeMap::new() };
        let (places, d) = (&stored.places, decoder.shape.hidden);
        let mut matrices = vec![(places.head.clone(), d)];
        for layer in &places.layers {
            matrices.push((layer.qkv.clone(), d));
            matrices.push((layer.o.clone(), decoder.shape.q_width()));
            matrices.push((layer.gate_up.clone(), d));
            matrices.push((layer.down.clone(), decoder.shape.ffn));
        }
        let mut wide = Vec::new();
        for (range, columns) in matrices {
            match kind {
                Weights::F32 => {}
                Weights::Bf16 if stored.narrow(&range).is_some() => {}
                Weights::Bf16 => {
                    let narrowed =
                        stored.matrix(&range, &mut wide).par_iter().map(|&v| bf16::from_f32(v)).collect();
                    out.half.insert(range.start, narrowed);
                }
                Weights::Int8 => {
                    let quantized = Quantized::new(stored.matrix(&range, &mut wide), columns);
                    out.eight.insert(range.start, quantized);
                }
            }
        }
        out
    }

    pub(super) fn matrix(&self, range: &Range<usize>) -> NarrowWeights<'_> {
        if let Some(q) = self.eight.get(&range.start) {
            return NarrowWeights::Int8(q);
        }
        if let Some(w) = self.half.get(&range.start) {
            return NarrowWeights::Bf16(w);
        }
        match (self.stored.narrow(range), self.stored.full()) {
            (Some(w), _) => NarrowWeights::Bf16(w),
            (None, Some(all)) => NarrowWeights::F32(&all[range.clone()]),
            (None, None) => unreachable!("weights are stored as f32 or as bf16"),
        }
    }
}
