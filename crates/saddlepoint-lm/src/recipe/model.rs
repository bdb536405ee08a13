//! `[model]`: what is trained.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::Result;
use crate::engine::{LoraConfig, Readout, Rope, RopeScaling, Shape};
use crate::model::adapter::MAX_RANK;

/// What is trained. Exactly one of `path`, `recipe` and `new` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A Hugging Face folder or a `.gguf` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Another recipe: it is run first (unless its result is there), and its result is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// A new model with random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<NewModel>,
    /// Train a low-rank adapter instead of the weights, which then stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Base of the rotary frequencies, > 0, in place of the model's: a larger one reaches further. The initial policy as a
    /// reference keeps the model's. Not with `new`, which has its own, nor with `lora`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Longest context in tokens, in place of the model's. Not with `new`, which has its own, nor with `lora`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// How weights that stay as they are are kept in memory. `bf16` needs half the memory and `lora`.
    pub dtype: FrozenDtype,
}

/// Storage of weights that are not trained. Arithmetic is f32 in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrozenDtype {
    /// 4 bytes a weight.
    #[default]
    F32,
    /// 2 bytes a weight, rounded to 8 significant bits.
    Bf16,
}

/// A model from nothing. Names and meanings are those of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewModel {
    /// Architecture.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the head shares the embedding matrix.
    pub tie_word_embeddings: bool,
    /// A `tokenizer.json`; without it the one of `data.generate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
}

impl Default for NewModel {
    fn default() -> Self {
        Self {
            family: Family::Llama,
            hidden_size: 128,
            intermediate_size: 384,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 256,
            rope_theta: 10_000.0,
            tie_word_embeddings: true,
            tokenizer: None,
        }
    }
}

/// Architectures of new models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// As SmolLM2 and TinyLlama.
    #[default]
    Llama,
    /// Llama with biases on q, k and v.
    Qwen2,
    /// Llama with normalised q and k.
    Qwen3,
}

impl NewModel {
    /// The shape for a vocabulary of `vocab` tokens.
    pub fn shape(&self, vocab: usize) -> Shape {
        Shape {
            vocab,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.hidden_size / self.num_attention_heads,
            ffn: self.intermediate_size,
            norm_eps: 1e-6,
            rope: Rope { theta: self.rope_theta, scaling: RopeScaling::None },
            qkv_bias: self.family == Family::Qwen2,
            qk_norm: self.family == Family::Qwen3,
            tied: self.tie_word_embeddings,
            context: self.max_position_embeddings,
            readout: Readout::Vocabulary,
        }
    }

    fn check(&self) -> Result<()> {
        let key = |name: &str| format!("model.new.{name}");
        for (name, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 {
                return Err(refused(&key(name), "must be at least 1, got 0"));
            }
        }
        if !self.hidden_size.is_multiple_of(2 * self.num_attention_heads) {
            let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
            let problem =
                format!("must be a multiple of 2 x num_attention_heads = {}, got {hidden}", 2 * heads);
            return Err(refused(&key("hidden_size"), problem));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
            let problem = format!("must divide num_attention_heads = {heads}, got {kv}");
            return Err(refused(&key("num_key_value_heads"), problem));
        }
        if !(self.rope_theta > 0.0 && self.rope_theta.is_finite()) {
            return Err(refused(&key("rope_theta"), format!("must be > 0, got {}", self.rope_theta)));
        }
        Ok(())
    }
}

impl ModelConfig {
    fn check_positions(&self) -> Result<()> {
        let given = [
            ("rope_theta", self.rope_theta.is_some()),
            ("max_position_embeddings", self.max_position_embeddings.is_some()),
        ];
        if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
            let key = format!("model.{key}");
            if self.new.is_some() {
                return Err(refused(&key, "a new model has its own: set it in model.new"));
            }
            if self.lora.is_some() {
                let problem = "is not part of an adapter, which would be used without it: set it in the model's config.json \
                               and name the model as it was as tether.reference";
                return Err(refused(&key, problem));
            }
        }
        if let Some(theta) = self.rope_theta.filter(|theta| !(*theta > 0.0 && theta.is_finite())) {
            return Err(refused("model.rope_theta", format!("must be > 0, got {theta}")));
        }
        if self.max_position_embeddings == Some(0) {
            return Err(refused("model.max_position_embeddings", "must be at least 1, got 0"));
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        let given = [self.path.is_some(), self.recipe.is_some(), self.new.is_some()];
        match given.into_iter().filter(|&given| given).count() {
            1 => {}
            0 => return Err(refused("model", "needs one of `path`, `recipe` and `new`")),
            _ => return Err(refused("model", "takes one of `path`, `recipe` and `new`, got several")),
        }
        self.check_positions()?;
        if let Some(new) = &self.new {
            new.check()?;
            if self.lora.is_some() {
                return Err(refused("model.lora", "an adapter on random weights learns nothing; remove it"));
            }
        }
        match &self.lora {
            None if self.dtype == FrozenDtype::Bf16 => {
                let problem =
                    "`bf16` is for weights that are not trained: add `lora`, or use `f32` (default)";
                return Err(refused("model.dtype", problem));
            }
            Some(lora) if lora.r == 0 => {
                return Err(refused("model.lora.r", "must be at least 1 (default 16)"));
            }
            Some(lora) if lora.r > MAX_RANK => {
                let problem = format!("must be at most {MAX_RANK}, got {} (default 16)", lora.r);
                return Err(refused("model.lora.r", problem));
            }
            Some(lora) if !(lora.lora_alpha > 0.0 && lora.lora_alpha.is_finite()) => {
                let problem = format!("must be > 0, got {} (default 32)", lora.lora_alpha);
                return Err(refused("model.lora.lora_alpha", problem));
            }
            Some(lora) if lora.target_modules.is_empty() => {
                return Err(refused("model.lora.target_modules", "is empty, so nothing would be trained"));
            }
            _ => {}
        }
        Ok(())
    }
}
