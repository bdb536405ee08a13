//! Tiny models as files, written here byte by byte so that the readers are not checked against our own writer.

use std::path::Path;

use rand::RngExt;
use saddlepoint_lm::engine::{Readout, Rope, RopeScaling, Shape, TensorSpec};
use serde_json::{Value, json};

/// One layer, 300 tokens; `family` is llama, qwen2 or qwen3.
pub(crate) fn shape(family: &str) -> Shape {
    Shape {
        vocab: 300,
        hidden: 32,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: if family == "qwen3" { 32 } else { 16 },
        ffn: 64,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        qkv_bias: family == "qwen2",
        qk_norm: family == "qwen3",
        tied: family == "llama",
        context: 128,
        readout: Readout::Vocabulary,
    }
}

/// Weights that BF16 and F16 hold exactly, different for every tensor and element.
pub(crate) fn weights(spec: &TensorSpec) -> Vec<f32> {
    let name: Vec<u64> = spec.name.bytes().map(u64::from).collect();
    let mut rng = saddlepoint_core::seed::Seed::new(3).stream("weights", &name);
    (0..spec.len()).map(|_| f32::from(rng.random_range(-100_i8..=100)) / 64.0).collect()
}

/// The letters that GPT-2's byte-level tokenizers use for the 256 bytes.
fn byte_letters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 256..;
    let mut letter = |byte| if printable(byte) { Some(byte) } else { others.next() };
    (0..256)
        .map(|byte| {
            letter(byte).and_then(char::from_u32).expect("the range is endless and below the surrogates")
        })
        .collect()
}

/// 256 bytes, the pieces of " hello", two control tokens and a user-defined one; then unused ids.
pub(crate) fn tokens() -> Vec<(String, i32)> {
    let mut tokens: Vec<(String, i32)> = byte_letters().into_iter().map(|c| (c.to_string(), 1)).collect();
    tokens.extend(["he", "ll", "hell", "hello", "\u{120}hello"].map(|token| (token.to_owned(), 1)));
    tokens.extend(
        [("<|start|>", 3), ("<|end|>", 3), ("<think>", 4)].map(|(token, kind)| (token.to_owned(), kind)),
    );
    tokens.extend((tokens.len()..300).map(|id| (format!("[PAD{id}]"), 5)));
    tokens
}

pub(crate) const START: u32 = 261;
pub(crate) const END: u32 = 262;
pub(crate) const TEMPLATE: &str = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}";

/// A GGUF value with its type.
pub(crate) enum Item {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'static str),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

/// A GGUF file in the making.
pub(crate) struct GgufFile {
    pub(crate) version: u32,
    pub(crate) values: Vec<(String, Item)>,
    /// Name, dimensions as Hugging Face gives them, type, data.
    pub(crate) tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl GgufFile {
    pub(crate) fn set(&mut self, key: &str, item: Item) {
        self.values.retain(|(name, _)| name != key);
        self.values.push((key.to_owned(), item));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.values.retain(|(name, _)| name != key);
        self.tensors.retain(|(name, ..)| name != key);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.values.len() as u64).to_le_bytes());
        for (key, item) in &self.values {
            text(&mut out, key);
            match item {
                Item::U32(x) => out.extend([4_u32.to_le_bytes(), x.to_le_bytes()].concat()),
                Item::F32(x) => out.extend([6_u32.to_le_bytes(), x.to_le_bytes()].concat()),
                Item::Bool(x) => out.extend([&7_u32.to_le_bytes()[..], &[u8::from(*x)]].concat()),
                Item::Text(x) => {
                    out.extend(8_u32.to_le_bytes());
                    text(&mut out, x);
                }
                Item::Texts(list) => {
                    out.extend([9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat());
                    out.extend((list.len() as u64).to_le_bytes());
                    for x in list {
                        text(&mut out, x);
                    }
                }
                Item::I32s(list) => {
                    out.extend([9_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
                    out.extend((list.len() as u64).to_le_bytes());
                    out.extend(list.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
        let mut offset = 0;
        for (name, dims, kind, data) in &self.tensors {
            text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            out.extend(dims.iter().rev().flat_map(|&dim| (dim as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += data.len().next_multiple_of(32);
        }
        for (.., data) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(data);
        }
        out
    }
}

/// The converter's reordering of the rows of a head: `[2, head_dim / 2]` becomes `[head_dim / 2, 2]`.
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

/// The GGUF name of a tensor, spelled out.
fn gguf_name(name: &str) -> String {
    let name = name.replace("model.layers.", "blk.").replace("self_attn.", "").replace("mlp.", "");
    let name = name.replace("model.embed_tokens", "token_embd").replace("model.norm", "output_norm");
    let name = name.replace("lm_head", "output").replace("post_attention_layernorm", "ffn_norm");
    let name = name.replace("input_layernorm", "attn_norm").replace("o_proj", "attn_output");
    let name = name.replace("q_proj", "attn_q").replace("k_proj", "attn_k").replace("v_proj", "attn_v");
    let name = name.replace("q_norm", "attn_q_norm").replace("k_norm", "attn_k_norm");
    name.replace("gate_proj", "ffn_gate").replace("up_proj", "ffn_up").replace("down_proj", "ffn_down")
}

/// The model of [`shape`] and [`weights`] as llama.cpp's converter would write it, in F32.
pub(crate) fn gguf(family: &'static str) -> GgufFile {
    let shape = shape(family);
    let key = |name: &str| format!("{family}.{name}");
    let tokens = tokens();
    let values = vec![
        ("general.architecture".into(), Item::Text(family)),
        (key("block_count"), Item::U32(shape.layers as u32)),
        (key("context_length"), Item::U32(shape.context as u32)),
        (key("embedding_length"), Item::U32(shape.hidden as u32)),
        (key("feed_forward_length"), Item::U32(shape.ffn as u32)),
        (key("attention.head_count"), Item::U32(shape.heads as u32)),
        (key("attention.head_count_kv"), Item::U32(shape.kv_heads as u32)),
        (key("attention.key_length"), Item::U32(shape.head_dim as u32)),
        (key("attention.layer_norm_rms_epsilon"), Item::F32(shape.norm_eps)),
        (key("rope.freq_base"), Item::F32(10_000.0)),
        ("tokenizer.ggml.model".into(), Item::Text("gpt2")),
        ("tokenizer.ggml.pre".into(), Item::Text("smollm")),
        (
            "tokenizer.ggml.tokens".into(),
            Item::Texts(tokens.iter().map(|(token, _)| token.clone()).collect()),
        ),
        ("tokenizer.ggml.token_type".into(), Item::I32s(tokens.iter().map(|(_, kind)| *kind).collect())),
        (
            "tokenizer.ggml.merges".into(),
            Item::Texts(["h e", "l l", "he ll", "hell o", "\u{120} hello"].map(str::to_owned).to_vec()),
        ),
        ("tokenizer.ggml.bos_token_id".into(), Item::U32(START)),
        ("tokenizer.ggml.eos_token_id".into(), Item::U32(END)),
        ("tokenizer.ggml.add_bos_token".into(), Item::Bool(false)),
        ("tokenizer.chat_template".into(), Item::Text(TEMPLATE)),
    ];
    let tensors = shape.tensors().into_iter().map(|spec| {
        let mut values = weights(&spec);
        let rotated = spec.name.ends_with("q_proj.weight") || spec.name.ends_with("k_proj.weight");
        if family == "llama" && rotated {
            values = permute(&values, shape.head_dim, shape.hidden);
        }
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        (gguf_name(&spec.name), spec.dims, 0, data)
    });
    GgufFile { version: 3, values, tensors: tensors.collect() }
}

/// A safetensors file of F32 tensors.
pub(crate) fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, dims, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({ "dtype": "F32", "shape": dims, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    with_header(&Value::Object(header), &data)
}

/// A file with this header, whatever it says.
pub(crate) fn with_header(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// `config.json` of [`shape`] as transformers 5 writes it.
pub(crate) fn config(family: &str) -> Value {
    let shape = shape(family);
    json!({
        "architectures": ["x"],
        "model_type": family,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_parameters": { "rope_theta": 10_000.0, "rope_type": "default" },
        "tie_word_embeddings": shape.tied,
        "eos_token_id": END,
        "dtype": "bfloat16",
        "unknown_to_us": { "kept": 1 },
    })
}

/// All tensors of the family by their Hugging Face names.
pub(crate) fn tensors(family: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    shape(family)
        .tensors()
        .into_iter()
        .map(|spec| (spec.name.clone(), spec.dims.clone(), weights(&spec)))
        .collect()
}

/// Makes a Hugging Face folder of [`shape`] and [`weights`] in `folder`.
pub(crate) fn write_folder(folder: &Path, family: &str) {
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("a temporary folder");
    write("config.json", config(family).to_string().as_bytes());
    write("model.safetensors", &safetensors(&tensors(family)));
    write("tokenizer.json", json!({ "added_tokens": [], "model": {} }).to_string().as_bytes());
    // Not the layout that we would write, so that a copy shows.
    write(
        "tokenizer_config.json",
        b"{\"eos_token\":\"<|end|>\",   \"model_max_length\": 1000000000000000019884624838656}",
    );
    write("chat_template.jinja", TEMPLATE.as_bytes());
}
