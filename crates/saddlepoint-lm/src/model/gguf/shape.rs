//! From GGUF metadata to a [`Shape`].

use std::f64::consts::PI;

use super::file::Gguf;
use crate::Result;
use crate::engine::{Readout, Rope, RopeScaling, Shape};
use crate::model::{bad, config};

/// Factors on the rotary frequencies, one a pair of dimensions: the trace that Llama 3's scaling leaves.
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// Reads the shape; whatever the metadata ask for and we cannot do is an error.
pub(in crate::model) fn shape(file: &Gguf) -> Result<Shape> {
    let meta = file.metadata();
    let why = "the model cannot be described without it";
    let family =
        meta.text("general.architecture")?.ok_or_else(|| meta.refuse("general.architecture", why))?;
    if !["llama", "qwen2", "qwen3"].contains(&family) {
        let why = "this architecture is not supported (llama, qwen2 and qwen3 are)";
        return Err(meta.refuse("general.architecture", why));
    }
    let key = |name: &str| format!("{family}.{name}");
    for unsupported in ["expert_count", "attention.sliding_window"] {
        if meta.count(&key(unsupported))?.is_some_and(|n| n > 0) {
            return Err(meta.refuse(&key(unsupported), "is not supported"));
        }
    }
    let hidden = meta.need_count(&key("embedding_length"))?;
    let heads = meta.need_count(&key("attention.head_count"))?;
    let head_dim = match meta.count(&key("attention.key_length"))? {
        Some(width) => width,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    for same in ["attention.value_length", "rope.dimension_count"] {
        if meta.count(&key(same))?.is_some_and(|width| width != head_dim) {
            let why = format!("must equal the width of a head, {head_dim}");
            return Err(meta.refuse(&key(same), &why));
        }
    }
    let epsilon = key("attention.layer_norm_rms_epsilon");
    let norm_eps = meta.number(&epsilon)?.ok_or_else(|| meta.refuse(&epsilon, why))?;
    let Some(&[vocab, _]) = file.dims("token_embd.weight") else {
        return Err(bad(file.path(), "tensor token_embd.weight is missing or not a matrix"));
    };
    let theta = meta.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(meta.refuse(&key("rope.freq_base"), "must be positive"));
    }
    let mut shape = Shape {
        vocab,
        hidden,
        layers: meta.need_count(&key("block_count"))?,
        heads,
        kv_heads: meta.count(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        ffn: meta.need_count(&key("feed_forward_length"))?,
        norm_eps: norm_eps as f32,
        rope: Rope { theta, scaling: RopeScaling::None },
        qkv_bias: family == "qwen2",
        qk_norm: family == "qwen3",
        tied: file.dims("output.weight").is_none(),
        context: meta.need_count(&key("context_length"))?,
        readout: Readout::Vocabulary,
    };
    config::check(file.path(), &shape)?;
    shape.rope.scaling = scaling(file, family, &shape)?;
    Ok(shape)
}

fn scaling(file: &Gguf, family: &str, shape: &Shape) -> Result<RopeScaling> {
    let meta = file.metadata();
    let kind = format!("{family}.rope.scaling.type");
    let attention = format!("{family}.rope.scaling.attn_factor");
    if !matches!(meta.number(&attention)?, None | Some(1.0)) {
        return Err(meta.refuse(&attention, "is not supported"));
    }
    let named = match meta.text(&kind)? {
        None | Some("none") => None,
        Some("linear") => {
            let factor = format!("{family}.rope.scaling.factor");
            match meta.number(&factor)? {
                Some(value) if value.is_finite() && value > 0.0 => Some(RopeScaling::Linear(value)),
                _ => return Err(meta.refuse(&factor, "linear scaling needs a positive factor")),
            }
        }
        Some(_) => {
            return Err(meta.refuse(&kind, "this rotary scaling is not supported (none and linear are)"));
        }
    };
    let Some(dims) = file.dims(FACTORS) else { return Ok(named.unwrap_or(RopeScaling::None)) };
    if named.is_some() || dims != [shape.head_dim / 2] {
        let problem = format!("tensor {FACTORS} of dimensions {dims:?} does not fit the rotary metadata");
        return Err(bad(file.path(), problem));
    }
    let mut factors = vec![0.0; shape.head_dim / 2];
    file.read(FACTORS, &[shape.head_dim / 2], &mut factors)?;
    llama3(&factors, shape).ok_or_else(|| {
        bad(
            file.path(),
            format!(
                "tensor {FACTORS} does not hold the factors of Llama 3 (1, 4, 8192), the only known ones"
            ),
        )
    })
}

/// Recovers the published scaling from its factors. The file keeps the division only; the bounds are those
/// of every Llama 3 model.
fn llama3(factors: &[f32], shape: &Shape) -> Option<RopeScaling> {
    let (low, high, original) = (1.0, 4.0, 8_192);
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    if factors.iter().all(|x| matches!(x, 1.0)) {
        return Some(RopeScaling::None);
    }
    let expected = |i: usize| {
        let wavelength = 2.0 * PI * shape.rope.theta.powf(2.0 * i as f64 / shape.head_dim as f64);
        let turns = original as f64 / wavelength;
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let smooth = (turns - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let near = |(i, &x): (usize, &f32)| (f64::from(x) / expected(i) - 1.0).abs() < 1e-4;
    let all = factors.iter().enumerate().all(near);
    all.then_some(RopeScaling::Llama3 { factor, low, high, original })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors as llama.cpp's converter computes them for `rope_theta` 500,000 and factor 32, from its formula.
    #[test]
    fn llama3_scaling_is_recognised_and_anything_else_is_not() {
        let shape = Shape {
            vocab: 1,
            hidden: 8,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 64,
            ffn: 1,
            norm_eps: 1e-5,
            rope: Rope { theta: 5e5, scaling: RopeScaling::None },
            qkv_bias: false,
            qk_norm: false,
            tied: true,
            context: 1,
            readout: Readout::Vocabulary,
        };
        let mut factors: Vec<f32> = (0..32)
            .map(|i| {
                let frequency = 5e5_f64.powf(-2.0 * f64::from(i) / 64.0);
                let wavelength = 2.0 * PI / frequency;
                if wavelength < 8_192.0 / 4.0 {
                    1.0
                } else if wavelength > 8_192.0 {
                    32.0
                } else {
                    let smooth = (8_192.0 / wavelength - 1.0) / 3.0;
                    (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
                }
            })
            .collect();
        let expected = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8_192 };
        assert_eq!(llama3(&factors, &shape), Some(expected));
        factors[14] *= 1.01;
        assert_eq!(llama3(&factors, &shape), None);
        assert_eq!(llama3(&[1.0; 32], &shape), Some(RopeScaling::None));
    }
}
