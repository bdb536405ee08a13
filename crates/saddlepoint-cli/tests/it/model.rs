//! A tiny Llama model on the disk: byte-level tokenizer, ChatML template, weights from a fixed sequence.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::saddle::Place;

/// Ids of `<|im_start|>` and `<|im_end|>`, behind the 256 bytes.
pub(crate) const END: usize = 257;
const VOCAB: usize = 258;
const HIDDEN: usize = 16;
const FFN: usize = 24;
const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + \
                        '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A tensor: name, dimensions, values.
pub(crate) type Tensor = (String, Vec<usize>, Vec<f32>);

/// Writes the model into the folder `name`.
pub(crate) fn write(place: &Place, name: &str) {
    write_files(place, name);
    place.write(&format!("{name}/model.safetensors"), safetensors(&tensors()));
}

/// Everything but the weights.
pub(crate) fn write_files(place: &Place, name: &str) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "max_position_embeddings": 256, "eos_token_id": END, "torch_dtype": "float32",
    });
    place.write(&format!("{name}/config.json"), config.to_string());
    place.write(&format!("{name}/tokenizer.json"), tokenizer().to_string());
    place.write(&format!("{name}/tokenizer_config.json"), json!({"eos_token": "<|im_end|>"}).to_string());
    place.write(&format!("{name}/generation_config.json"), json!({"eos_token_id": END}).to_string());
    place.write(&format!("{name}/chat_template.jinja"), TEMPLATE);
}

/// The model's weights, in the order of their names.
pub(crate) fn tensors() -> Vec<Tensor> {
    let mut sequence = Sequence(7);
    let mut list = Vec::new();
    let mut add = |name: String, dims: &[usize]| {
        let values = match dims {
            [n] => vec![1.0; *n],
            _ => (0..dims.iter().product()).map(|_| sequence.next() * 0.2).collect(),
        };
        list.push((name, dims.to_vec(), values));
    };
    add("model.embed_tokens.weight".into(), &[VOCAB, HIDDEN]);
    for layer in 0..2 {
        for (name, dims) in [
            ("input_layernorm", &[HIDDEN][..]),
            ("mlp.down_proj", &[HIDDEN, FFN]),
            ("mlp.gate_proj", &[FFN, HIDDEN]),
            ("mlp.up_proj", &[FFN, HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("self_attn.k_proj", &[8, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, 16]),
            ("self_attn.q_proj", &[16, HIDDEN]),
            ("self_attn.v_proj", &[8, HIDDEN]),
        ] {
            add(format!("model.layers.{layer}.{name}.weight"), dims);
        }
    }
    add("model.norm.weight".into(), &[HIDDEN]);
    list
}

/// The bytes of a safetensors file.
pub(crate) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for (name, dims, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": dims, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

/// The tensors of a safetensors file in F32, in the order of their names.
pub(crate) fn read_safetensors(path: &Path) -> Vec<Tensor> {
    let bytes = fs::read(path).expect("a weight file");
    let (size, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(size.try_into().expect("8 bytes")) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).expect("a header");
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    let mut list: Vec<Tensor> = header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| {
            assert_eq!(entry["dtype"], "F32");
            let dims = entry["shape"].as_array().expect("dimensions").iter().map(number).collect();
            let range = number(&entry["data_offsets"][0])..number(&entry["data_offsets"][1]);
            let values =
                data[range].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")));
            (name.clone(), dims, values.collect())
        })
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

/// Numbers in [-1, 1), the same on every machine.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1_u64 << 23) as f32) - 1.0
    }
}

/// A byte-level BPE without merges: every byte is a token.
fn tokenizer() -> Value {
    // Bytes without a printable character of their own are spelled by the characters from U+0100 on.
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256;
    let mut vocab = Map::new();
    for byte in 0..=255_u8 {
        let spelled = if printable(byte) {
            char::from(byte)
        } else {
            spare += 1;
            char::from_u32(spare - 1).expect("a character")
        };
        vocab.insert(spelled.to_string(), byte.into());
    }
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false})
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(256, "<|im_start|>"), special(END, "<|im_end|>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": []},
    })
}
