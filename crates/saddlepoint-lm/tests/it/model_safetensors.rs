//! Safetensors files: damaged in every way that a header can be wrong.

use std::path::Path;

use proptest::prelude::*;
use saddlepoint_lm::engine::{TensorSpec, WeightSource};
use saddlepoint_lm::model::{SafeTensors, fuzzing};
use serde_json::json;

use super::model_fixture as fixture;

fn parse(bytes: &[u8]) -> Result<SafeTensors, String> {
    SafeTensors::parse(Path::new("f"), Box::new(bytes.to_vec())).map_err(|error| error.to_string())
}

fn entry(shape: &[usize], from: usize, to: usize) -> serde_json::Value {
    json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, to] })
}

#[test]
fn wrong_headers_are_explained() {
    let header = |header: serde_json::Value, data: usize| {
        parse(&fixture::with_header(&header, &vec![0; data])).expect_err("refused")
    };
    let cases = [
        (json!({ "a": entry(&[2], 0, 8) }), 12, "4 bytes follow the last tensor: the file is damaged"),
        (
            json!({ "a": entry(&[2], 0, 8), "b": entry(&[2], 4, 12) }),
            12,
            "tensor b overlaps the tensor before it (byte 4 of the data)",
        ),
        (json!({ "a": entry(&[1], 4, 8) }), 8, "tensor a follows a gap (byte 4 of the data)"),
        (json!({ "a": entry(&[3], 0, 8) }), 8, "tensor a of F32 [3] has 8 bytes, which does not fit"),
        (json!({ "a": entry(&[2], 8, 0) }), 8, "tensor a ends (byte 0) before it starts (byte 8)"),
        (
            json!({ "a": entry(&[4], 0, 16) }),
            8,
            "tensor a ends at byte 16 of the data, of which there are 8: the file is truncated; download or write \
             it again",
        ),
        (
            json!({ "a": entry(&[usize::MAX, 8], 0, 8) }),
            8,
            "tensor a of F32 [18446744073709551615, 8] has 8 bytes, which does not fit",
        ),
        (
            json!({ "a": { "dtype": "F32", "shape": [1] } }),
            4,
            "the header's entry for tensor a is wrong: missing field `data_offsets`",
        ),
        (json!([]), 0, "must hold a JSON object ({...})"),
    ];
    for (value, data, expected) in cases {
        assert_eq!(header(value, data), format!("f: {expected}"));
    }
    assert_eq!(
        parse(b"\xff\xff\xff\xff\0\0\0\0{}").expect_err("refused"),
        "f: a header of 4294967295 bytes is announced: this is not a safetensors file"
    );
    assert_eq!(
        parse(b"\x05\0\0\0\0\0\0\0{}").expect_err("refused"),
        "f: its header takes 5 bytes and 2 follow: the file is truncated; download or write it again"
    );
    assert_eq!(
        parse(b"\x03\0\0\0\0\0\0\0{x}").expect_err("refused"),
        "f: is not valid JSON: key must be a string at line 1 column 2"
    );
}

#[test]
fn unreadable_tensors_are_explained() {
    let header = json!({
        "__metadata__": { "format": "pt" },
        "a": entry(&[1, 2], 0, 8),
        "b": { "dtype": "I64", "shape": [1], "data_offsets": [8, 16] },
    });
    let data = [0, 0, 128, 63, 0, 0, 128, 127, 0, 0, 0, 0, 0, 0, 0, 0];
    let file = parse(&fixture::with_header(&header, &data)).expect("readable");
    let read = |name: &str, dims: &[usize]| {
        let spec = TensorSpec { name: name.into(), dims: dims.to_vec(), offset: 0 };
        file.read(&spec, &mut vec![0.0; spec.len()]).expect_err("refused").to_string()
    };
    assert_eq!(
        read("a", &[1, 2]),
        "f: element [0, 1] of tensor a is not finite (inf); the file is damaged or the run that wrote it had \
         diverged: use another checkpoint"
    );
    assert_eq!(read("a", &[2]), "f: tensor a has dimensions [1, 2], the configuration asks for [2]");
    assert_eq!(read("b", &[1]), "f: tensor b is stored as I64; F32, F16 and BF16 can be read");
    assert_eq!(read("c", &[1]), "f: tensor c is missing (the file has 2)");
    assert_eq!(
        read("lm_head.weight", &[1]),
        "f: tensor lm_head.weight is missing (the file has 2); if the head shares the embedding, set \
         tie_word_embeddings to true in config.json"
    );
}

fn small() -> Vec<u8> {
    let tensor =
        |name: &str, dims: &[usize]| (name.to_owned(), dims.to_vec(), vec![0.5; dims.iter().product()]);
    fixture::safetensors(&[tensor("a", &[2, 3]), tensor("empty", &[0]), tensor("b", &[4])])
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small();
    fuzzing::safetensors(&bytes).expect("the whole file is fine");
    for length in 0..bytes.len() {
        let error = fuzzing::safetensors(&bytes[..length]).expect_err("truncated");
        assert!(error.to_string().starts_with("fuzz.safetensors: "), "{length}: {error}");
    }
}

proptest! {
    /// Whatever the bytes, reading ends with tensors or a message.
    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((0_usize..240, any::<u8>()), 1..6)) {
        let mut bytes = small();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Err(error) = fuzzing::safetensors(&bytes) {
            prop_assert!(error.to_string().contains("fuzz.safetensors"));
        }
    }
}
