//! The corpus of the fuzz targets, run through the same entry points: nothing panics, and what is named
//! `bad-*` is an error. The fuzzers themselves are in `fuzz/`.

use saddlepoint_core::test::corpus;
use saddlepoint_lm::Result;
use saddlepoint_lm::model::fuzzing;

/// Runs every file of a corpus; returns how many there were.
pub(crate) fn run(target: &str, entry: impl Fn(&[u8]) -> Result<()>) -> usize {
    let files = corpus(target);
    let count = files.len();
    for (name, path) in files {
        let result = entry(&std::fs::read(path).expect("readable"));
        if name.starts_with("bad-") {
            assert!(result.is_err(), "{target}/{name} was accepted");
        } else if name.starts_with("good-") {
            assert!(result.is_ok(), "{target}/{name}: {result:?}");
        }
    }
    count
}

#[test]
fn safetensors() {
    assert!(run("safetensors", fuzzing::safetensors) >= 10);
}

#[test]
fn gguf() {
    assert!(run("gguf", fuzzing::gguf) >= 10);
}
