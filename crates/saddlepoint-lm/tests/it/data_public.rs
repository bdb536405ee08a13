//! The public data sets, where they are present.

use std::path::PathBuf;

use saddlepoint_lm::data::{Body, Codec, PrepareConfig, Template, Text, Tokenizer, prepare, read_records};
use serde_json::Value;

fn data(name: &str) -> Option<PathBuf> {
    saddlepoint_core::test::data(&format!("lm/{name}"))
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

#[test]
fn every_demo_pair_can_be_trained_on() {
    let Some(path) = data("dpo_en_demo.json") else { return };
    let (records, _) = read_records(&path).expect("a public data set");
    let json = include_bytes!("../golden/data/tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(std::path::Path::new("tokenizer.json"), json).expect("a tokenizer");
    let chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let template =
        Template::new(std::path::Path::new("chatml"), chatml, &Value::Null, None).expect("it compiles");
    let stop = tokenizer.id("<|im_end|>").expect("a stop token");
    let codec = Codec { tokenizer, template: Some(template), bos: None, eos: vec![stop], pad: None };
    let config = PrepareConfig { max_length: None, ..PrepareConfig::default() };
    let (pairs, report) = prepare::preference(&codec, &records, &config).expect("pairs");
    assert_eq!((pairs.len(), report.dropped.len(), report.prompt_changed), (300, 0, 0));
    assert!(pairs.iter().all(|p| p.chosen.contains(&stop) && p.rejected.contains(&stop)));
}
