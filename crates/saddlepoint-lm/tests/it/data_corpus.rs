//! The corpora of the fuzz targets `jsonl` and `template`: nothing panics, `bad-*` is refused, `good-*` is not.

use std::path::PathBuf;

use saddlepoint_lm::Result;
use saddlepoint_lm::data::fuzzing;

fn run(target: &str, entry: impl Fn(&[u8]) -> Result<()>) -> usize {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).expect("the corpus is part of the project") {
        let path = file.expect("readable").path();
        let result = entry(&std::fs::read(&path).expect("readable"));
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(!name.starts_with("bad-") || result.is_err(), "{target}/{name} was accepted");
        assert!(!name.starts_with("good-") || result.is_ok(), "{target}/{name}: {result:?}");
        count += 1;
    }
    count
}

#[test]
fn jsonl() {
    assert!(run("jsonl", fuzzing::jsonl) >= 10);
}

#[test]
fn template() {
    assert!(run("template", fuzzing::template) >= 10);
}
