//! Narrower copies of the weights, as sampling reads them.

use std::collections::BTreeMap;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::decode::Weights as Kind;
use super::kernel::{NarrowWeights, Quantized};
use super::pages::zeros;
use super::shape::Shape;
use super::weights::Weights;

/// Copies of matrices, by the offset of the first element. What has none is read as it is stored.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    half: BTreeMap<usize, Vec<bf16>>,
    eight: BTreeMap<usize, Quantized>,
}

impl Copies {
    /// Of the head's matrix and those of the layers.
    pub(crate) fn new(stored: &Weights, shape: &Shape, kind: Kind) -> Self {
        let mut out = Self::default();
        let (places, d) = (&stored.places, shape.hidden);
        let mut matrices = vec![(places.head.clone(), d)];
        for layer in &places.layers {
            matrices.push((layer.qkv.clone(), d));
            matrices.push((layer.o.clone(), shape.q_width()));
            matrices.push((layer.gate_up.clone(), d));
            matrices.push((layer.down.clone(), shape.ffn));
        }
        let mut wide = Vec::new();
        for (range, columns) in matrices {
            match (kind, stored.stored(&range)) {
                (Kind::F32, _) | (Kind::Bf16, NarrowWeights::Bf16(_)) => {}
                (Kind::Bf16, _) => {
                    let mut narrowed = zeros(range.len());
                    let from = stored.matrix(&range, &mut wide);
                    narrowed.par_iter_mut().zip(from).for_each(|(out, &v)| *out = bf16::from_f32(v));
                    out.half.insert(range.start, narrowed);
                }
                (Kind::Int8, _) => {
                    let quantized = Quantized::new(stored.matrix(&range, &mut wide), columns);
                    out.eight.insert(range.start, quantized);
                }
            }
        }
        out
    }

    /// Bytes of the copies of weights that are stored as `f32`.
    pub(crate) fn bytes(shape: &Shape, kind: Kind) -> u64 {
        let layer = shape.hidden * (shape.qkv_width() + shape.q_width() + 3 * shape.ffn);
        let elements = (layer * shape.layers + shape.hidden * shape.vocab) as u64;
        let outputs = shape.layers * (shape.qkv_width() + 2 * shape.hidden + 2 * shape.ffn) + shape.vocab;
        match kind {
            Kind::F32 => 0,
            Kind::Bf16 => 2 * elements,
            Kind::Int8 => elements + 4 * outputs as u64,
        }
    }

    /// The copy of a matrix.
    pub(crate) fn get(&self, range: &Range<usize>) -> Option<NarrowWeights<'_>> {
        let half = || self.half.get(&range.start).map(|w| NarrowWeights::Bf16(w));
        self.eight.get(&range.start).map(NarrowWeights::Int8).or_else(half)
    }
}
