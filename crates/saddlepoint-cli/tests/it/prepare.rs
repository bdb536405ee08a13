//! `saddle prepare longpo`: what it refuses before any work, and that everything left out is counted.

use std::fs;

use serde_json::{Value, json};

use crate::model;
use crate::saddle::Place;

/// The model with a context of `context` tokens of its own.
fn write_wide(place: &Place, name: &str, context: usize) {
    model::write(place, name);
    let config = fs::read(place.path(&format!("{name}/config.json"))).expect("written");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    config["max_position_embeddings"] = context.into();
    place.write(&format!("{name}/config.json"), config.to_string());
}

#[test]
fn what_cannot_be_used_is_refused_before_any_work() {
    let place = Place::new();
    model::write(&place, "m");
    write_wide(&place, "wide", 2048);
    place.write("there.jsonl", "");
    place.write("a.txt", "text");
    let short = "document-tokens: must be at least twice chunk-tokens = 1024, got 0";
    let chunk = "chunk-tokens: a chunk of 1024 tokens with a question and an answer needs 1664, and the model's own context, \
                 in which the reference reads it, has 256: lower it, or answer-tokens";
    let positions = ["--max-position-embeddings", "9000"];
    let of = |model: &'static str| ["--model", model, "--data", "absent.txt", "--out", "new.jsonl"];
    for (arguments, message) in [
        (&[&of("m")[..], &positions].concat()[..], chunk),
        (&[&of("wide")[..], &positions].concat(), "cannot read absent.txt"),
        (&["--model", "m", "--data", "a.txt", "--out", "there.jsonl"][..], "there.jsonl exists already"),
        (&["--model", "absent", "--data", "a.txt", "--out", "new.jsonl"], "cannot read absent"),
        (&["--model", "m", "--data", "a.txt", "--out", "new.jsonl"], short),
    ] {
        let said = place.saddle(&[&["prepare", "longpo"], arguments].concat());
        assert!(said.code == 2 && said.stderr.contains(message), "{said:?}");
    }
    assert_eq!(place.names(), ["a.txt", "m", "there.jsonl", "wide"]);
}

/// A model with random weights asks nothing.
#[test]
fn what_leaves_no_pair_is_counted_and_writes_nothing() {
    let place = Place::new();
    write_wide(&place, "m", 512);
    place.write("texts/short.txt", "too short");
    place.write("texts/whole.txt", "twenty letters a line".repeat(8));
    let arguments = [
        "prepare",
        "longpo",
        "--model",
        "m",
        "--data",
        "texts",
        "--out",
        "pairs.jsonl",
        "--chunk-tokens",
        "40",
        "--chunks",
        "3",
        "--document-tokens",
        "100",
        "--answer-tokens",
        "8",
        "--max-position-embeddings",
        "1024",
        "--json",
    ];
    let said = place.saddle(&arguments);
    let mut object: Value = serde_json::from_str(said.stdout.trim()).expect("one object");
    object.as_object_mut().expect("an object").remove("seconds");
    let expected = json!({
        "out": null, "documents": 2, "cut": 1, "records": 0, "pairs": 0,
        "dropped": { "short_document": 1, "no_question": 2 },
    });
    assert_eq!((said.code, object), (1, expected));
    assert_eq!(place.names(), ["m", "texts"]);
}
