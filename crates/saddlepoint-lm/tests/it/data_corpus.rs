//! The corpora of the fuzz targets `jsonl` and `template`: nothing panics, `bad-*` is refused, `good-*` is not.

use saddlepoint_lm::data::fuzzing;

use crate::fuzz_corpus::run;

#[test]
fn jsonl() {
    assert!(run("jsonl", fuzzing::jsonl) >= 10);
}

#[test]
fn template() {
    assert!(run("template", fuzzing::template) >= 10);
}
