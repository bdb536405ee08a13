//! The corpus of the fuzz targets, run through the same entry points: nothing panics, and what is named
//! `bad-*` is an error. The fuzzers themselves are in `fuzz/`.

use std::path::PathBuf;

use saddlepoint_lm::Result;
use saddlepoint_lm::model::fuzzing;

/// Runs every file of a corpus; returns how many there were.
fn run(target: &str, entry: impl Fn(&[u8]) -> Result<()>) -> usize {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).expect("the corpus is part of the project");
    let mut count = 0;
    for file in files {
        let path = file.expect("readable").path();
        let result = entry(&std::fs::read(&path).expect("readable"));
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("bad-") {
            assert!(result.is_err(), "{target}/{name} was accepted");
        } else if name.starts_with("good-") {
            assert!(result.is_ok(), "{target}/{name}: {result:?}");
        }
        count += 1;
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
