//! The public data sets, where they are present.

use std::path::PathBuf;

use saddlepoint_lm::data::{Body, Text, read_records};

fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SADDLE_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = root.join("lm").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent; set SADDLE_DATA to the folder of the public data sets", path.display());
    None
}

#[test]
fn each_set_is_recognised() {
    for (name, schema, body, records) in [
        ("dpo_en_demo.json", "sharegpt_preference", "preference pairs", 300),
        ("kto_en_demo.json", "unpaired_messages", "labelled completions", 300),
        ("alpaca_en_demo.json", "alpaca", "prompt and completion", 999),
        ("gsm8k-test.jsonl", "question_answer", "prompt and completion", 1319),
        ("hh-harmless-test.jsonl", "transcripts", "preference pairs", 2312),
        ("persona/agreeableness.jsonl", "persona", "preference pairs", 1000),
    ] {
        let Some(path) = data(name) else { continue };
        let (_, report) = read_records(&path).expect("a public data set");
        assert_eq!((report.schema.name(), report.body, report.records), (schema, body, records), "{name}");
    }
}

#[test]
fn transcripts_end_with_the_assistant() {
    let Some(path) = data("hh-harmless-test.jsonl") else { return };
    let (records, _) = read_records(&path).expect("a public data set");
    let last_is_assistant = |text: &Text| match text {
        Text::Chat(messages) => messages.last().is_some_and(|m| m["role"] == "assistant"),
        Text::Plain(_) => false,
    };
    for record in &records {
        let Body::Preference { chosen, rejected, .. } = &record.body else { panic!("{:?}", record.source) };
        assert!(last_is_assistant(chosen) && last_is_assistant(rejected), "line {}", record.source.line);
    }
}
