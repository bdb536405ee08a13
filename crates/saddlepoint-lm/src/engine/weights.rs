//! The parameters of a decoder at fixed offsets, in full precision or with frozen matrices in bf16.

use std::collections::BTreeMap;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::kernel::{Mat, NarrowWeights};
use super::pages::zeros;
use super::shape::SCORE;
use super::{Shape, TensorSpec, WeightSource};
use crate::Result;

/// How weights that are not trained are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// 32-bit floats.
    #[default]
    F32,
    /// Matrices as bf16 (half the memory), widened as products read them; arithmetic stays `f32`.
    Bf16,
}

/// Where the tensors of one layer lie.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlaces {
    pub(crate) norm1: Range<usize>,
    pub(crate) qkv: Range<usize>,
    pub(crate) bias: Option<Range<usize>>,
    pub(crate) qk_norm: Option<(Range<usize>, Range<usize>)>,
    pub(crate) o: Range<usize>,
    pub(crate) norm2: Range<usize>,
    pub(crate) gate_up: Range<usize>,
    pub(crate) down: Range<usize>,
}

/// Where everything lies.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) embedding: Range<usize>,
    pub(crate) layers: Vec<LayerPlaces>,
    pub(crate) norm: Range<usize>,
    /// The head's matrix; the embedding where tied, and where there is none.
    pub(crate) head: Range<usize>,
    /// The weights of the score, if there is one.
    pub(crate) score: Option<Range<usize>>,
    pub(crate) len: usize,
}

impl Places {
    pub(crate) fn new(shape: &Shape, specs: &[TensorSpec]) -> Self {
        let by_name: BTreeMap<&str, Range<usize>> =
            specs.iter().map(|s| (s.name.as_str(), s.range())).collect();
        let find = |name: &str| by_name.get(name).expect("the shape lists its own tensors").clone();
        let layers = (0..shape.layers)
            .map(|layer| {
                let part = |name: &str| find(&format!("model.layers.{layer}.{name}"));
                let span = |first: &str, last: &str| part(first).start..part(last).end;
                LayerPlaces {
                    norm1: part("input_layernorm.weight"),
                    qkv: span("self_attn.q_proj.weight", "self_attn.v_proj.weight"),
                    bias: shape.qkv_bias.then(|| span("self_attn.q_proj.bias", "self_attn.v_proj.bias")),
                    qk_norm: shape
                        .qk_norm
                        .then(|| (part("self_attn.q_norm.weight"), part("self_attn.k_norm.weight"))),
                    o: part("self_attn.o_proj.weight"),
                    norm2: part("post_attention_layernorm.weight"),
                    gate_up: span("mlp.gate_proj.weight", "mlp.up_proj.weight"),
                    down: part("mlp.down_proj.weight"),
                }
            })
            .collect();
        let embedding = find("model.embed_tokens.weight");
        let own_head = !shape.tied && shape.readout.vocabulary();
        let head = if own_head { find("lm_head.weight") } else { embedding.clone() };
        Self {
            embedding,
            layers,
            norm: find("model.norm.weight"),
            head,
            score: shape.readout.score().then(|| find(SCORE)),
            len: specs.last().map_or(0, |s| s.range().end),
        }
    }
}

#[derive(Debug, Clone)]
enum Store {
    F32(Vec<f32>),
    Bf16 { matrices: Vec<bf16>, vectors: BTreeMap<usize, Vec<f32>> },
}

/// All parameters of a decoder.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) places: Places,
    pub(crate) specs: Vec<TensorSpec>,
    store: Store,
}

impl Weights {
    pub(crate) fn new(shape: &Shape, storage: Storage) -> Self {
        let specs = shape.tensors();
        let places = Places::new(shape, &specs);
        let store = match storage {
            Storage::F32 => Store::F32(zeros(places.len)),
            Storage::Bf16 => Store::Bf16 { matrices: zeros(places.len), vectors: BTreeMap::new() },
        };
        Self { places, specs, store }
    }

    /// Bytes that [`Weights::new`] will hold.
    pub(crate) fn bytes(shape: &Shape, storage: Storage) -> u64 {
        let width = match storage {
            Storage::F32 => 4,
            Storage::Bf16 => 2,
        };
        shape.parameters() as u64 * width
    }

    pub(crate) fn load(&mut self, source: &dyn WeightSource) -> Result<()> {
        let specs = std::mem::take(&mut self.specs);
        let mut buffer = Vec::new();
        let read = specs.iter().try_for_each(|spec| {
            if let Store::F32(all) = &mut self.store {
                return source.read(spec, &mut all[spec.range()]);
            }
            buffer.resize(spec.len(), 0.0);
            source.read(spec, &mut buffer)?;
            self.write(spec, &buffer);
            Ok(())
        });
        self.specs = specs;
        read
    }

    /// Overwrites one tensor.
    pub(crate) fn write(&mut self, spec: &TensorSpec, values: &[f32]) {
        match &mut self.store {
            Store::F32(all) => all[spec.range()].copy_from_slice(values),
            Store::Bf16 { matrices, vectors } => {
                if spec.dims.len() == 1 {
                    vectors.insert(spec.offset, values.to_vec());
                } else {
                    (&mut matrices[spec.range()], values)
                        .into_par_iter()
                        .for_each(|(o, &v)| *o = bf16::from_f32(v));
                }
            }
        }
    }

    /// Reads one tensor out.
    pub(crate) fn read(&self, spec: &TensorSpec, out: &mut [f32]) {
        if spec.dims.len() == 1 {
            out.copy_from_slice(&self.vector(&spec.range()));
        } else {
            let mut wide = Vec::new();
            out.copy_from_slice(self.matrix(&spec.range(), &mut wide));
        }
    }

    /// Matrix elements as `f32`, widened into `wide` where they are stored narrower.
    pub(crate) fn matrix<'a>(&'a self, range: &Range<usize>, wide: &'a mut Vec<f32>) -> &'a [f32] {
        match &self.store {
            Store::F32(all) => &all[range.clone()],
            Store::Bf16 { matrices, .. } => {
                wide.resize(range.len(), 0.0);
                (&mut wide[..], &matrices[range.clone()])
                    .into_par_iter()
                    .with_min_len(1 << 14)
                    .for_each(|(o, v)| *o = v.to_f32());
                wide
            }
        }
    }

    /// Matrix elements as stored.
    pub(crate) fn stored(&self, range: &Range<usize>) -> NarrowWeights<'_> {
        match &self.store {
            Store::F32(all) => NarrowWeights::F32(&all[range.clone()]),
            Store::Bf16 { matrices, .. } => NarrowWeights::Bf16(&matrices[range.clone()]),
        }
    }

    /// A matrix `[rows, columns]`, as stored.
    pub(crate) fn mat(&self, range: &Range<usize>, columns: usize) -> Mat<'_> {
        let rows = range.len() / columns;
        match &self.store {
            Store::F32(all) => Mat::new(&all[range.clone()], rows, columns),
            Store::Bf16 { matrices, .. } => Mat::bf16(&matrices[range.clone()], rows, columns),
        }
    }

    /// A norm weight or the biases of q, k and v (which lie one after another).
    pub(crate) fn vector(&self, range: &Range<usize>) -> std::borrow::Cow<'_, [f32]> {
        match &self.store {
            Store::F32(all) => all[range.clone()].into(),
            Store::Bf16 { vectors, .. } => vectors
                .range(range.clone())
                .flat_map(|(_, part)| part.iter().copied())
                .collect::<Vec<_>>()
                .into(),
        }
    }

    /// The row of a matrix that starts at element `from`, copied out.
    pub(crate) fn copy_row(&self, from: usize, out: &mut [f32]) {
        match &self.store {
            Store::F32(all) => out.copy_from_slice(&all[from..from + out.len()]),
            Store::Bf16 { matrices, .. } => {
                for (o, v) in out.iter_mut().zip(&matrices[from..]) {
                    *o = v.to_f32();
                }
            }
        }
    }

    /// All parameters, for the optimizer, and where each tensor lies.
    pub(crate) fn trainable(&mut self) -> (&mut [f32], &[TensorSpec]) {
        match &mut self.store {
            Store::F32(all) => (all, &self.specs),
            Store::Bf16 { .. } => unreachable!("weights that are trained are stored as f32"),
        }
    }
}
