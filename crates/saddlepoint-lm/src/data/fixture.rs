//! A small byte-level tokenizer for tests: every byte, a few merges, ChatML's special tokens.

use std::path::Path;

use super::Tokenizer;

pub(crate) fn tokenizer() -> Tokenizer {
    let json = include_bytes!("../../tests/golden/data/tokenizer.json");
    Tokenizer::from_bytes(Path::new("tokenizer.json"), json).expect("the fixture is a tokenizer")
}

/// The same without its post-processor: documents get no BOS, as with Qwen.
pub(crate) fn tokenizer_without_bos() -> Tokenizer {
    let json = include_bytes!("../../tests/golden/data/tokenizer.json");
    let mut value: serde_json::Value = serde_json::from_slice(json).expect("the fixture is JSON");
    value["post_processor"] = serde_json::Value::Null;
    Tokenizer::from_bytes(Path::new("tokenizer.json"), value.to_string().as_bytes())
        .expect("still a tokenizer")
}
