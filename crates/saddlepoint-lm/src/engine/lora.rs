//! Low-rank adapters: `y = x Wᵀ + (alpha / r) (x Aᵀ) Bᵀ` with `A [r, in]`, `B [out, r]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shape::SCORE;
use super::{Shape, TensorSpec};

/// Which adapter to train. Names and defaults follow PEFT and TRL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// The update is scaled by `lora_alpha / r` (or `lora_alpha / sqrt(r)` with `use_rslora`).
    pub lora_alpha: f64,
    /// Projections that get an adapter.
    pub target_modules: Vec<Target>,
    /// Scale by `lora_alpha / sqrt(r)` (arXiv:2312.03732).
    pub use_rslora: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { r: 16, lora_alpha: 32.0, target_modules: Target::ALL.to_vec(), use_rslora: false }
    }
}

/// A linear projection of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of the Hugging Face modules")]
pub enum Target {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl Target {
    /// All of them, in arena order.
    pub const ALL: [Target; 7] = [
        Target::QProj,
        Target::KProj,
        Target::VProj,
        Target::OProj,
        Target::GateProj,
        Target::UpProj,
        Target::DownProj,
    ];

    /// Module path inside a layer, for example `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Target::QProj => "self_attn.q_proj",
            Target::KProj => "self_attn.k_proj",
            Target::VProj => "self_attn.v_proj",
            Target::OProj => "self_attn.o_proj",
            Target::GateProj => "mlp.gate_proj",
            Target::UpProj => "mlp.up_proj",
            Target::DownProj => "mlp.down_proj",
        }
    }

    /// Output and input width.
    pub fn dims(self, shape: &Shape) -> (usize, usize) {
        match self {
            Target::QProj => (shape.q_width(), shape.hidden),
            Target::KProj | Target::VProj => (shape.kv_width(), shape.hidden),
            Target::OProj => (shape.hidden, shape.q_width()),
            Target::GateProj | Target::UpProj => (shape.ffn, shape.hidden),
            Target::DownProj => (shape.hidden, shape.ffn),
        }
    }
}

impl LoraConfig {
    /// Factor on the low-rank update.
    pub fn scale(&self) -> f64 {
        if self.use_rslora {
            self.lora_alpha / (self.r as f64).sqrt()
        } else {
            self.lora_alpha / self.r as f64
        }
    }

    /// The adapter's tensors by their PEFT names, in arena order: the `A` matrices of projections that
    /// read the same input are adjacent, so that they are one product. A score is trained whole beside them, as PEFT's
    /// `modules_to_save` has it.
    pub fn tensors(&self, shape: &Shape) -> Vec<TensorSpec> {
        let mut list = TensorSpec::list();
        for layer in 0..shape.layers {
            for group in Self::GROUPS {
                let targets = || group.iter().filter(|t| self.target_modules.contains(t));
                let name = |target: &Target, part: &str| {
                    format!("base_model.model.model.layers.{layer}.{}.lora_{part}.weight", target.path())
                };
                for target in targets() {
                    list.matrix(name(target, "A"), self.r, target.dims(shape).1);
                }
                for target in targets() {
                    list.matrix(name(target, "B"), target.dims(shape).0, self.r);
                }
            }
        }
        if shape.readout.score() {
            list.matrix(format!("base_model.model.{SCORE}"), 1, shape.hidden);
        }
        list.finish()
    }
}
