//! `config.json` and [`Shape`]: which decoders we can honour, and how ours are described to others.

use std::path::Path;

use serde_json::{Value, json};

use super::bad;
use super::json::{Keys, Object};
use crate::Result;
use crate::engine::{Readout, Rope, RopeScaling, Shape};

/// No dimension of a model comes near this, and products of two of them fit in a `usize`.
const MOST: usize = 1 << 24;
const MOST_LAYERS: usize = 1 << 12;

/// Defaults of the configuration classes of transformers 5 where they differ between families.
struct Defaults {
    vocab: usize,
    ffn: usize,
    /// `None`: as many as there are query heads.
    kv_heads: Option<usize>,
    /// `None`: `hidden_size / num_attention_heads`.
    head_dim: Option<usize>,
    context: usize,
}

const LLAMA: Defaults =
    Defaults { vocab: 32_000, ffn: 11_008, kv_heads: None, head_dim: None, context: 2_048 };
const QWEN2: Defaults =
    Defaults { vocab: 151_936, ffn: 22_016, kv_heads: Some(32), head_dim: None, context: 32_768 };
const QWEN3: Defaults = Defaults { head_dim: Some(128), ..QWEN2 };

/// Reads the shape from a `config.json`; whatever it asks for and we cannot do is an error.
pub(super) fn shape(path: &Path, config: &Object) -> Result<Shape> {
    let keys = Keys::new(path, config);
    let family = keys.text("model_type")?.ok_or_else(|| bad(path, "model_type is missing"))?;
    let defaults = match family {
        "llama" => LLAMA,
        "qwen2" => QWEN2,
        "qwen3" => QWEN3,
        _ => {
            return Err(
                keys.refuse("model_type", "this family is not supported (llama, qwen2 and qwen3 are)")
            );
        }
    };
    refuse_unsupported(keys)?;
    let count = |key, default| Ok::<usize, crate::Error>(keys.count(key)?.unwrap_or(default));
    let hidden = count("hidden_size", 4_096)?;
    let layers = count("num_hidden_layers", 32)?;
    let heads = count("num_attention_heads", 32)?;
    // An explicit null means as many as there are query heads, in every family.
    let kv_default = if config.contains_key("num_key_value_heads") { None } else { defaults.kv_heads };
    let kv_heads = count("num_key_value_heads", kv_default.unwrap_or(heads))?;
    let head_dim = count("head_dim", defaults.head_dim.or(hidden.checked_div(heads)).unwrap_or(0))?;
    let context = count("max_position_embeddings", defaults.context)?;
    refuse_windows(keys, family, layers)?;
    let shape = Shape {
        vocab: count("vocab_size", defaults.vocab)?,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        ffn: count("intermediate_size", defaults.ffn)?,
        norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: super::rope::read(keys, context)?,
        qkv_bias: family == "qwen2",
        qk_norm: family == "qwen3",
        tied: keys.flag("tie_word_embeddings")?,
        context,
        readout: readout(keys)?,
    };
    check(path, &shape)?;
    Ok(shape)
}

fn refuse_unsupported(keys: Keys) -> Result<()> {
    if keys.get("quantization_config").is_some() {
        let why = "quantised Hugging Face weights cannot be read; use the unquantised model or a GGUF file";
        return Err(keys.refuse("quantization_config", why));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if keys.flag(key)? {
            return Err(keys.refuse(key, "biases on these projections are not supported"));
        }
    }
    if keys.text("hidden_act")?.is_some_and(|act| act != "silu" && act != "swish") {
        return Err(keys.refuse("hidden_act", "only silu is supported"));
    }
    Ok(())
}

/// What the class that the file names reads from the hidden states. A reward model is a classifier of sequences with one
/// label.
fn readout(keys: Keys) -> Result<Readout> {
    let classes = keys.get("architectures").and_then(Value::as_array);
    let classifies = |class: &Value| class.as_str().is_some_and(|class| class.ends_with(CLASSIFIER));
    if !classes.is_some_and(|classes| classes.iter().any(classifies)) {
        return Ok(Readout::Vocabulary);
    }
    // transformers has two labels unless a file says something else.
    let labels = match keys.object("id2label")? {
        Some(labels) => labels.len(),
        None => keys.count("num_labels")?.unwrap_or(2),
    };
    if labels == 1 {
        Ok(Readout::Score)
    } else {
        let why =
            format!("classifiers of sequences are supported with one label (reward models), got {labels}");
        Err(keys.refuse("architectures", &why))
    }
}

/// How the names of transformers' classes for sequences end.
const CLASSIFIER: &str = "ForSequenceClassification";

/// Makes the description of a decoder that of a reward model. `pad` is the token behind which transformers looks for the last one of
/// a sequence.
pub(super) fn set_score(config: &mut Object, pad: Option<u32>) {
    let family = match config.get("model_type").and_then(Value::as_str) {
        Some("qwen2") => "Qwen2",
        Some("qwen3") => "Qwen3",
        _ => "Llama",
    };
    config.insert("architectures".into(), json!([format!("{family}{CLASSIFIER}")]));
    config.insert("id2label".into(), json!({ "0": "LABEL_0" }));
    config.insert("label2id".into(), json!({ "LABEL_0": 0 }));
    config.insert("pad_token_id".into(), pad.into());
}

/// Sliding windows are refused where a layer would use one (transformers: layers from
/// `max_window_layers` on, unless `layer_types` says otherwise; Llama has none).
fn refuse_windows(keys: Keys, family: &str, layers: usize) -> Result<()> {
    if let Some(types) = keys.get("layer_types") {
        let full = types.as_array().is_some_and(|list| list.iter().all(|kind| kind == "full_attention"));
        return if full {
            Ok(())
        } else {
            Err(keys.refuse("layer_types", "only full_attention is supported"))
        };
    }
    let window = keys.get("sliding_window").is_some() || !keys.object.contains_key("sliding_window");
    let from = keys.count("max_window_layers")?.unwrap_or(28);
    if family != "llama" && keys.flag("use_sliding_window")? && window && from < layers {
        return Err(keys.refuse("use_sliding_window", "sliding-window attention is not supported"));
    }
    Ok(())
}

/// Checks what every later computation relies on, whatever file the shape came from.
pub(super) fn check(path: &Path, shape: &Shape) -> Result<()> {
    let dims = [
        ("vocabulary", shape.vocab, MOST),
        ("hidden size", shape.hidden, MOST),
        ("number of layers", shape.layers, MOST_LAYERS),
        ("number of attention heads", shape.heads, MOST_LAYERS),
        ("number of key-value heads", shape.kv_heads, MOST_LAYERS),
        ("head width", shape.head_dim, MOST_LAYERS),
        ("feed-forward width", shape.ffn, MOST),
        ("context length", shape.context, usize::MAX),
    ];
    for (what, value, most) in dims {
        if value == 0 || value > most {
            return Err(bad(path, format!("the {what} must be between 1 and {most}, got {value}")));
        }
    }
    if !shape.heads.is_multiple_of(shape.kv_heads) {
        let (q, kv) = (shape.heads, shape.kv_heads);
        return Err(bad(path, format!("{q} attention heads cannot share {kv} key-value heads equally")));
    }
    if !shape.head_dim.is_multiple_of(2) {
        return Err(bad(path, format!("the head width must be even, got {}", shape.head_dim)));
    }
    if !(shape.norm_eps.is_finite() && shape.norm_eps > 0.0) {
        return Err(bad(path, format!("rms_norm_eps must be positive, got {}", shape.norm_eps)));
    }
    Ok(())
}

/// The shape as a `config.json` that transformers, vLLM and llama.cpp's converter read. The rotary keys
/// take their older form, which all versions understand.
pub(super) fn to_json(path: &Path, shape: &Shape) -> Result<Object> {
    let (family, class) = match (shape.qkv_bias, shape.qk_norm) {
        (false, false) => ("llama", "LlamaForCausalLM"),
        (true, false) => ("qwen2", "Qwen2ForCausalLM"),
        (false, true) => ("qwen3", "Qwen3ForCausalLM"),
        (true, true) => {
            return Err(bad(path, "no published family has both biases and norms on queries and keys"));
        }
    };
    let Rope { theta, scaling } = &shape.rope;
    let scaling = match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear(factor) => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low, high, original } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }),
    };
    let config = json!({
        "architectures": [class],
        "attention_dropout": 0.0,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context,
        "model_type": family,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shortest(shape.norm_eps),
        "rope_scaling": scaling,
        "rope_theta": theta,
        "tie_word_embeddings": shape.tied,
        "use_cache": true,
        "vocab_size": shape.vocab,
    });
    let Value::Object(config) = config else { unreachable!("the literal above is an object") };
    Ok(config)
}

/// The `f64` with the shortest decimal form that reads as this `f32`: 1e-5 rather than 9.99999974e-6.
pub(super) fn shortest(value: f32) -> f64 {
    value.to_string().parse().expect("a printed float parses")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Shape, String> {
        let object = value.as_object().expect("an object");
        shape(Path::new("config.json"), object).map_err(|error| error.to_string())
    }

    #[test]
    fn absent_keys_take_the_defaults_of_transformers() {
        let llama = read(&json!({ "model_type": "llama" })).expect("readable");
        assert_eq!((llama.vocab, llama.ffn, llama.kv_heads, llama.head_dim), (32_000, 11_008, 32, 128));
        assert_eq!((llama.context, llama.rope.theta, llama.tied), (2_048, 10_000.0, false));
        let qwen = json!({ "model_type": "qwen2", "num_attention_heads": 64, "num_key_value_heads": null });
        let qwen = read(&qwen).expect("readable");
        assert_eq!((qwen.kv_heads, qwen.head_dim, qwen.qkv_bias, qwen.qk_norm), (64, 64, true, false));
        let qwen = read(&json!({ "model_type": "qwen3", "hidden_size": 1024 })).expect("readable");
        assert_eq!((qwen.kv_heads, qwen.head_dim, qwen.qkv_bias, qwen.qk_norm), (32, 128, false, true));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let cases = [
            (json!({ "model_type": "gemma3" }), "model_type = \"gemma3\": this family is not supported"),
            (json!({ "model_type": "llama", "attention_bias": true }), "attention_bias = true: biases on"),
            (json!({ "model_type": "llama", "mlp_bias": true }), "mlp_bias = true: biases on"),
            (json!({ "model_type": "llama", "hidden_act": "gelu" }), "hidden_act = \"gelu\": only silu"),
            (
                json!({ "model_type": "llama", "hidden_size": "x" }),
                "hidden_size = \"x\": must be a non-negative",
            ),
            (json!({ "model_type": "llama", "hidden_size": 0 }), "the hidden size must be between 1 and"),
            (json!({ "model_type": "llama", "num_key_value_heads": 5 }), "32 attention heads cannot share 5"),
            (json!({ "model_type": "llama", "head_dim": 63 }), "the head width must be even, got 63"),
            (json!({ "model_type": "llama", "rms_norm_eps": -1.0 }), "rms_norm_eps must be positive, got -1"),
            (
                json!({ "model_type": "qwen2", "quantization_config": { "bits": 4 } }),
                "quantization_config = {\"bits\":4}: quantised Hugging Face weights cannot be read",
            ),
            (
                json!({ "model_type": "qwen2", "use_sliding_window": true, "max_window_layers": 21 }),
                "use_sliding_window = true: sliding-window attention is not supported",
            ),
            (
                json!({ "model_type": "llama", "architectures": ["LlamaForSequenceClassification"] }),
                "architectures = [\"LlamaForSequenceClassification\"]: classifiers of sequences are supported with one label",
            ),
            (
                json!({ "model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"] }),
                "layer_types = [\"full_attention\",\"sliding_attention\"]: only full_attention is supported",
            ),
        ];
        for (config, expected) in cases {
            let message = read(&config).expect_err("refused");
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_window_that_no_layer_uses_is_fine() {
        let config = json!({
            "model_type": "qwen2", "use_sliding_window": true, "max_window_layers": 32, "sliding_window": 4096
        });
        assert!(read(&config).is_ok());
        let config = json!({ "model_type": "qwen2", "use_sliding_window": true, "sliding_window": null });
        assert!(read(&config).is_ok());
    }

    #[test]
    fn a_shape_survives_its_own_config() {
        let scalings = [
            RopeScaling::None,
            RopeScaling::Linear(4.0),
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8_192 },
        ];
        for (scaling, (qkv_bias, qk_norm)) in
            scalings.into_iter().zip([(false, false), (true, false), (false, true)])
        {
            let shape = Shape {
                vocab: 50,
                hidden: 24,
                layers: 2,
                heads: 3,
                kv_heads: 1,
                head_dim: 10,
                ffn: 40,
                norm_eps: 1e-5,
                rope: Rope { theta: 5e5, scaling },
                qkv_bias,
                qk_norm,
                tied: qk_norm,
                context: 77,
                readout: Readout::Vocabulary,
            };
            let config = to_json(Path::new("config.json"), &shape).expect("a family");
            assert_eq!(super::shape(Path::new("config.json"), &config).expect("readable"), shape);
            let mut config = config;
            set_score(&mut config, Some(3));
            let scored = Shape { readout: Readout::Score, ..shape };
            assert_eq!(super::shape(Path::new("config.json"), &config).expect("readable"), scored);
        }
    }
}
