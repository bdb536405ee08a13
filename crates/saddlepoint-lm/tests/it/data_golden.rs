//! Parity with jinja2, transformers and TRL (`tests/golden/data/make.py`).

use std::path::Path;

use saddlepoint_lm::data::{
    Codec, Message, PrepareConfig, ReadConfig, Record, Template, Tokenizer, Truncation, prepare, read_json,
};
use serde_json::{Map, Value};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name);
    serde_json::from_slice(&std::fs::read(&path).expect("a golden file")).expect("golden files are JSON")
}

fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/tokenizer.json");
    Tokenizer::from_bytes(&path, &std::fs::read(&path).expect("a golden file")).expect("it is a tokenizer")
}

fn messages(list: &Value) -> Vec<Message> {
    list.as_array().expect("a list").iter().map(|m| m.as_object().expect("a message").clone()).collect()
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let golden = golden("templates.json");
    let templates: Map<String, Value> = golden["templates"].as_object().expect("sources by name").clone();
    let compiled: Vec<(String, Template)> = templates
        .iter()
        .map(|(name, source)| {
            let source = source.as_str().expect("a template");
            let template = Template::new(Path::new(name), source, &golden["specials"], None);
            (name.clone(), template.expect("it compiles"))
        })
        .collect();
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() > 150);
    for case in cases {
        let (_, template) =
            compiled.iter().find(|(name, _)| case["template"] == *name.as_str()).expect("it is there");
        let conversation = &golden["conversations"][case["conversation"].as_str().expect("a name")];
        let context = conversation.get("context").and_then(Value::as_object).cloned().unwrap_or_default();
        let prompt = case["add_generation_prompt"] == true;
        let what = format!("{} {} {prompt}", case["template"], case["conversation"]);
        let rendered = template.render(&messages(&conversation["messages"]), &context, prompt);
        match (rendered, case.get("text").and_then(Value::as_str)) {
            (Ok(rendered), Some(text)) => {
                assert_eq!(rendered.text, text, "{what}");
                // The golden ranges count characters.
                let chars = |at: usize| text[..at].chars().count();
                let ranges: Vec<Vec<usize>> =
                    rendered.generated.iter().map(|r| vec![chars(r.start), chars(r.end)]).collect();
                assert_eq!(Value::from(ranges), case["generated"], "{what}");
            }
            (Err(error), None) => {
                let words = case["raises"].as_str().expect("a case renders or raises");
                // Words of jinja2 itself differ; those of the template must not.
                if templates[case["template"].as_str().expect("a name")]
                    .as_str()
                    .is_some_and(|t| t.contains(words))
                {
                    assert!(error.to_string().contains(words), "{what}: {error}");
                }
            }
            (got, expected) => panic!("{what}: got {got:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn records_are_prepared_as_trl_prepares_them() {
    let golden = golden("prepare.json");
    let template = |key: &str| {
        let source = golden[key].as_str().expect("a template");
        Template::new(Path::new(key), source, &Value::Null, None).expect("it compiles")
    };
    let codec = |key: &str| {
        let tokenizer = tokenizer();
        Codec {
            bos: tokenizer.id("<s>"),
            pad: tokenizer.id("</s>"),
            eos: vec![tokenizer.id("<|im_end|>").expect("a stop token")],
            template: Some(template(key)),
            tokenizer,
        }
    };
    let (plain, marked) = (codec("template"), codec("training_template"));
    for case in golden["cases"].as_array().expect("cases") {
        let set = case["set"].as_str().expect("a name");
        let rows = golden["sets"][set].to_string();
        let (records, report) =
            read_json(Path::new(set), rows.as_bytes(), &ReadConfig::default()).expect("the set can be read");
        assert!(report.extra_columns.is_empty());
        let config = PrepareConfig {
            max_length: golden["max_length"].as_u64().map(|n| n as usize),
            truncation_mode: match case["truncation_mode"].as_str() {
                Some("keep_end") => Truncation::KeepEnd,
                _ => Truncation::KeepStart,
            },
            ..PrepareConfig::default()
        };
        let codec = if set == "messages" { &marked } else { &plain };
        let got = prepared(codec, &records, &config);
        assert_eq!(got, case["items"], "{set} {}", case["truncation_mode"]);
    }
}

fn prepared(codec: &Codec, records: &[Record], config: &PrepareConfig) -> Value {
    use saddlepoint_lm::data::Body;
    if matches!(records[0].body, Body::Preference { .. }) {
        let (pairs, _) = prepare::preference(codec, records, config).expect("pairs");
        let item = |p: &prepare::Pair| serde_json::json!({ "prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected });
        pairs.iter().map(item).collect()
    } else {
        let (items, _) = prepare::sft(codec, records, config).expect("sequences");
        let item = |s: &prepare::Supervised| serde_json::json!({ "ids": s.ids, "supervised": s.supervised });
        items.iter().map(item).collect()
    }
}
