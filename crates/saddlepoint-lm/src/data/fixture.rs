//! A small byte-level tokenizer for tests: every byte, a few merges, ChatML's special tokens.

use std::path::Path;

use super::Tokenizer;

pub(crate) fn tokenizer() -> Tokenizer {
    let json = include_bytes!("../../tests/golden/data/tokenizer.json");
    Tokenizer::from_bytes(Path::new("tokenizer.json"), json).expect("the fixture is a tokenizer")
}
