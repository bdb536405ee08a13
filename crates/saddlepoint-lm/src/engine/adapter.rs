//! Low-rank adapters in the arena: which columns each reads and writes.

use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::shape::SCORE;
use super::{LoraConfig, Shape, Target, TensorSpec};

/// One adapter of a merged projection.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// `B [out, r]` in the adapter's arena.
    pub(crate) b: Range<usize>,
    /// First output column in the merged projection.
    pub(crate) column: usize,
    /// Number of output columns.
    pub(crate) out: usize,
}

/// The adapters of one merged projection; their `A` matrices lie one after another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// All `A` as one matrix `[parts r, in]`.
    pub(crate) a: Range<usize>,
    pub(crate) parts: Vec<Part>,
    /// First of its columns in the row of low-rank activations.
    pub(crate) column: usize,
}

/// Index of a merged projection in [`Adapter::layers`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Projection {
    Qkv,
    O,
    GateUp,
    Down,
}

#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) r: usize,
    pub(crate) scale: f32,
    pub(crate) specs: Vec<TensorSpec>,
    pub(crate) params: Vec<f32>,
    /// Per layer, by [`Projection`].
    pub(crate) layers: Vec<[Group; 4]>,
    /// Low-rank activations a token and layer.
    pub(crate) width: usize,
    /// The weights of the score, if there is one, which are trained whole.
    pub(crate) score: Option<Range<usize>>,
}

impl Adapter {
    pub(crate) fn new(shape: &Shape, config: &LoraConfig) -> Self {
        let specs = config.tensors(shape);
        let len = specs.last().map_or(0, |s| s.range().end);
        let find = |name: String| specs.iter().find(|s| s.name == name).map(TensorSpec::range);
        let mut width = 0;
        let layers = (0..shape.layers)
            .map(|layer| {
                width = 0;
                LoraConfig::GROUPS.map(|targets| {
                    let mut group = Group { column: width, ..Group::default() };
                    let mut column = 0;
                    for &target in targets {
                        let name = |part: &str| {
                            format!(
                                "base_model.model.model.layers.{layer}.{}.lora_{part}.weight",
                                target.path()
                            )
                        };
                        let out = target.dims(shape).0;
                        if let (Some(a), Some(b)) = (find(name("A")), find(name("B"))) {
                            let start = if group.parts.is_empty() { a.start } else { group.a.start };
                            group.a = start..a.end;
                            group.parts.push(Part { b, column, out });
                        }
                        column += out;
                    }
                    width += group.parts.len() * config.r;
                    group
                })
            })
            .collect();
        let score = find(format!("base_model.model.{SCORE}"));
        Self {
            r: config.r,
            scale: config.scale() as f32,
            params: vec![0.0; len],
            specs,
            layers,
            width,
            score,
        }
    }

    pub(crate) fn group(&self, layer: usize, projection: Projection) -> &Group {
        &self.layers[layer][projection as usize]
    }

    /// `A` uniform in `±1 / sqrt(in)` and `B` zero, as PEFT starts: the policy equals the base. A score is left to whoever knows
    /// the base's.
    pub(crate) fn init(&mut self, rng: &mut ChaCha8Rng) {
        for spec in &self.specs {
            let values = &mut self.params[spec.range()];
            if spec.name.ends_with("lora_A.weight") {
                let bound = 1.0 / (spec.dims[1] as f32).sqrt();
                values.fill_with(|| rng.random_range(-bound..bound));
            } else {
                values.fill(0.0);
            }
        }
    }
}

impl LoraConfig {
    /// Projections that are computed as one product, in arena order.
    pub(crate) const GROUPS: [&'static [Target]; 4] = [
        &[Target::QProj, Target::KProj, Target::VProj],
        &[Target::OProj],
        &[Target::GateProj, Target::UpProj],
        &[Target::DownProj],
    ];
}
