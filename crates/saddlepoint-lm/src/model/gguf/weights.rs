//! Tensors of a GGUF file by their Hugging Face names.

use std::collections::BTreeSet;

use super::file::Gguf;
use super::shape::FACTORS;
use crate::Result;
use crate::engine::{Shape, TensorSpec, WeightSource};

/// Parts of a layer: Hugging Face name and GGUF name.
const PARTS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// GGUF name of a tensor; its own name if it has none, so that the message about it makes sense.
fn gguf_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let found = name.strip_prefix("model.layers.").and_then(|rest| {
        let (layer, rest) = rest.split_once('.')?;
        let (part, leaf) = rest.rsplit_once('.')?;
        let (_, theirs) = PARTS.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("blk.{layer}.{theirs}.{leaf}"))
    });
    found.unwrap_or_else(|| name.to_owned())
}

/// The weights of a GGUF file.
#[derive(Debug)]
pub(in crate::model) struct GgufWeights {
    file: Gguf,
    /// Width of a head if the rows of q and k are permuted, as they are for the architecture `llama`.
    permuted: Option<usize>,
}

impl GgufWeights {
    pub(in crate::model) fn new(file: Gguf, shape: &Shape) -> Self {
        let permuted = (!shape.qkv_bias && !shape.qk_norm).then_some(shape.head_dim);
        Self { file, permuted }
    }
}

impl WeightSource for GgufWeights {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
        let name = gguf_name(&spec.name);
        self.file.read(&name, &spec.dims, out)?;
        match self.permuted {
            Some(head_dim) if name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight") => {
                unpermute(out, head_dim, spec.dims[1]);
            }
            _ => {}
        }
        Ok(())
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        let mut used: BTreeSet<_> = specs.iter().map(|spec| gguf_name(&spec.name)).collect();
        used.insert(FACTORS.to_owned());
        self.file.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect()
    }
}

/// Undoes llama.cpp's reordering of the rows of each head: it stores pairs of rotated dimensions next to
/// each other (`2 i`, `2 i + 1`), we want them half a head apart (`i`, `i + head_dim / 2`).
fn unpermute(matrix: &mut [f32], head_dim: usize, columns: usize) {
    let mut head = vec![0.0; head_dim * columns];
    for rows in matrix.chunks_exact_mut(head_dim * columns) {
        head.copy_from_slice(rows);
        for (stored, row) in head.chunks_exact(columns).enumerate() {
            let wanted = stored / 2 + stored % 2 * (head_dim / 2);
            rows[wanted * columns..][..columns].copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Readout, Rope, RopeScaling};

    /// The converter's `permute`: `[head, 2, head_dim / 2]` becomes `[head, head_dim / 2, 2]`.
    fn permute(matrix: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
        let mut out = Vec::new();
        for head in matrix.chunks(head_dim * columns) {
            for i in 0..head_dim / 2 {
                for half in 0..2 {
                    out.extend_from_slice(&head[(half * head_dim / 2 + i) * columns..][..columns]);
                }
            }
        }
        out
    }

    #[test]
    fn the_permutation_of_the_converter_is_undone() {
        let (heads, head_dim, columns) = (3, 6, 5);
        let original: Vec<f32> = (0..heads * head_dim * columns).map(|i| i as f32).collect();
        let mut matrix = permute(&original, head_dim, columns);
        assert_ne!(matrix, original);
        unpermute(&mut matrix, head_dim, columns);
        assert_eq!(matrix, original);
    }

    #[test]
    fn every_tensor_of_every_family_has_a_name() {
        for (qkv_bias, qk_norm) in [(false, false), (true, false), (false, true)] {
            let shape = Shape {
                vocab: 2,
                hidden: 2,
                layers: 11,
                heads: 1,
                kv_heads: 1,
                head_dim: 2,
                ffn: 2,
                norm_eps: 1e-5,
                rope: Rope { theta: 1e4, scaling: RopeScaling::None },
                qkv_bias,
                qk_norm,
                tied: false,
                context: 1,
                readout: Readout::Vocabulary,
            };
            for spec in shape.tensors() {
                let name = gguf_name(&spec.name);
                assert_ne!(name, spec.name);
                assert_eq!(name.starts_with("blk."), spec.name.contains("layers"), "{name}");
            }
        }
        assert_eq!(gguf_name("model.layers.10.self_attn.q_proj.bias"), "blk.10.attn_q.bias");
    }
}
