//! Hyperparameters of a decoder, one struct for the Llama, Qwen2, Qwen2.5 and Qwen3 families.

use serde::{Deserialize, Serialize};

use super::TensorSpec;

/// Name of the weights of the score, as transformers has it.
pub(crate) const SCORE: &str = "score.weight";

/// What distinguishes one decoder from another. Built from `config.json` or GGUF metadata by [`crate::model`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Vocabulary size `V` (rows of the embedding).
    pub vocab: usize,
    /// Width of the residual stream `d`.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even. Not always `hidden / heads` (Qwen3).
    pub head_dim: usize,
    /// Width of the gated feed-forward network.
    pub ffn: usize,
    /// Epsilon inside every RMSNorm.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether the q, k and v projections have biases (Qwen2).
    pub qkv_bias: bool,
    /// Whether q and k are RMS-normalised per head before the rotation (Qwen3).
    pub qk_norm: bool,
    /// Whether the head shares the embedding matrix.
    pub tied: bool,
    /// Longest context the model was made for, in tokens.
    pub context: usize,
    /// What is read from the last hidden states.
    #[serde(default)]
    pub readout: Readout,
}

/// What is read from the last hidden states, after the last norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Readout {
    /// A distribution over the vocabulary.
    #[default]
    Vocabulary,
    /// A number by one row of weights, `score.weight`, and nothing else: a reward model.
    Score,
    /// Both: a policy with a head for values.
    Both,
}

impl Readout {
    /// Whether there is a distribution over the vocabulary.
    pub fn vocabulary(self) -> bool {
        self != Self::Score
    }

    /// Whether there is a score.
    pub fn score(self) -> bool {
        self != Self::Vocabulary
    }
}

/// Rotary embedding in the half-split convention: dimension `i` is paired with `i + head_dim / 2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the geometric frequencies.
    pub theta: f64,
    /// Change of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

/// Published changes of the rotary frequencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor.
    Linear(f64),
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Division of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are divided.
        low: f64,
        /// Wavelengths below `original / high` are kept.
        high: f64,
        /// Context of the original training, in tokens.
        original: usize,
    },
}

impl Shape {
    /// Whether weights of this shape can be read as those of `other`: they differ at most in the angles of positions
    /// and in the longest context.
    pub fn same_weights(&self, other: &Self) -> bool {
        *other == Self { rope: other.rope.clone(), context: other.context, ..self.clone() }
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of the merged q, k, v projection.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Every parameter tensor by its Hugging Face name, in arena order: q, k, v adjacent and gate, up
    /// adjacent, so that each group is one matrix product.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = TensorSpec::list();
        list.matrix("model.embed_tokens.weight", self.vocab, self.hidden);
        for layer in 0..self.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            list.vector(name("input_layernorm.weight"), self.hidden);
            list.matrix(name("self_attn.q_proj.weight"), self.q_width(), self.hidden);
            list.matrix(name("self_attn.k_proj.weight"), self.kv_width(), self.hidden);
            list.matrix(name("self_attn.v_proj.weight"), self.kv_width(), self.hidden);
            if self.qkv_bias {
                list.vector(name("self_attn.q_proj.bias"), self.q_width());
                list.vector(name("self_attn.k_proj.bias"), self.kv_width());
                list.vector(name("self_attn.v_proj.bias"), self.kv_width());
            }
            if self.qk_norm {
                list.vector(name("self_attn.q_norm.weight"), self.head_dim);
                list.vector(name("self_attn.k_norm.weight"), self.head_dim);
            }
            list.matrix(name("self_attn.o_proj.weight"), self.hidden, self.q_width());
            list.vector(name("post_attention_layernorm.weight"), self.hidden);
            list.matrix(name("mlp.gate_proj.weight"), self.ffn, self.hidden);
            list.matrix(name("mlp.up_proj.weight"), self.ffn, self.hidden);
            list.matrix(name("mlp.down_proj.weight"), self.hidden, self.ffn);
        }
        list.vector("model.norm.weight", self.hidden);
        if !self.tied && self.readout.vocabulary() {
            list.matrix("lm_head.weight", self.vocab, self.hidden);
        }
        if self.readout.score() {
            list.matrix(SCORE, 1, self.hidden);
        }
        list.finish()
    }

    /// The same decoder without a score.
    #[must_use]
    pub fn without_score(&self) -> Self {
        Self { readout: Readout::Vocabulary, ..self.clone() }
    }

    /// Whether the head over the vocabulary is the embedding, so that its gradient is part of the embedding's.
    pub fn head_is_embedding(&self) -> bool {
        self.tied && self.readout.vocabulary()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(TensorSpec::len).sum()
    }
}
