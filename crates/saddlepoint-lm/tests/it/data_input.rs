//! Bad input: each case has its place and its words, and nothing is read half.

use std::path::Path;

use proptest::prelude::*;
use saddlepoint_lm::data::{Body, ReadConfig, Record, Schema, Text, read_json, read_records};
use serde_json::{Value, json};

fn read(content: impl AsRef<[u8]>) -> Result<Vec<Record>, String> {
    read_as(content, &ReadConfig::default())
}

fn read_as(content: impl AsRef<[u8]>, config: &ReadConfig) -> Result<Vec<Record>, String> {
    read_json(Path::new("d.jsonl"), content.as_ref(), config)
        .map(|(records, _)| records)
        .map_err(|e| e.to_string())
}

fn error(content: impl AsRef<[u8]>) -> String {
    read(content).expect_err("the input is bad")
}

#[test]
fn malformed_json_has_line_and_column() {
    assert_eq!(
        error("{\"text\": \"a\"}\n{\"text\": oops}\n"),
        "d.jsonl:2:10: malformed JSON: expected value"
    );
    assert_eq!(
        error("{\"text\":\n\"a\"}"),
        "d.jsonl:1:8: malformed JSON: EOF while parsing a value; in JSONL each line holds one whole object"
    );
    assert_eq!(error("{\"text\": \"a\"} x"), "d.jsonl:1:15: malformed JSON: trailing characters");
    assert_eq!(
        error("{\"text\": \"a\", \"text\": \"b\"}"),
        "d.jsonl:1:20: malformed JSON: the key `text` appears twice"
    );
    assert_eq!(error("{\"text\": 1e999}"), "d.jsonl:1:14: malformed JSON: number out of range");
    assert!(error("[".repeat(10_000)).contains("malformed JSON: recursion limit exceeded"));
}

#[test]
fn malformed_arrays_have_line_and_column() {
    let good = "\n[\n {\"text\": \"a\"},\n {\"text\": \"b\"}\n]\n";
    let lines: Vec<(usize, usize)> =
        read(good).expect("an array").iter().map(|r| (r.source.line, r.source.column)).collect();
    assert_eq!(lines, [(3, 2), (4, 2)]);
    assert_eq!(
        error("[{\"text\": \"a\"},\n {\"text\": oops}]"),
        "d.jsonl:2:11: malformed JSON: expected value"
    );
    assert_eq!(error("[{\"text\":\n \"a\",\n oops}]"), "d.jsonl:3:2: malformed JSON: key must be a string");
    assert_eq!(
        error("[{\"text\": \"a\"}"),
        "d.jsonl:1:15: malformed JSON: the array is not closed; `]` is missing"
    );
    assert_eq!(
        error("[{\"text\": \"a\"},]"),
        "d.jsonl:1:16: malformed JSON: a record is missing after the comma"
    );
    assert_eq!(
        error("[{\"text\": \"a\"} {}]"),
        "d.jsonl:1:16: malformed JSON: expected `,` or `]` after a record"
    );
    assert_eq!(
        error("[{\"text\": \"a\"}]\nx"),
        "d.jsonl:2:1: malformed JSON: something follows the closing `]`"
    );
    assert_eq!(
        error("[{\"text\": \"a\"},\n  7]"),
        "d.jsonl:2:3: a record must be an object like {\"prompt\": ..., \"completion\": ...}, got a number"
    );
}

#[test]
fn files_without_records_are_refused() {
    let empty =
        "d.jsonl:1:1: the file holds no records; it needs one JSON object a line, or an array of them";
    assert_eq!([error(""), error("\n \n"), error("[]"), error("\u{FEFF}")], [empty; 4]);
}

#[test]
fn records_must_be_objects() {
    assert_eq!(
        error("\"text\""),
        "d.jsonl:1:1: a record must be an object like {\"prompt\": ..., \"completion\": ...}, got a string"
    );
}

#[test]
fn invalid_utf8_has_line_column_and_offset() {
    assert_eq!(
        error(b"{\"text\": \"a\"}\n{\"text\": \"caf\xE9\"}\n"),
        "d.jsonl:2:14: invalid UTF-8: byte 0xE9 at offset 27; save the file as UTF-8"
    );
    assert_eq!(
        error(b"[{\"text\":\n \"\xFF\"}]"),
        "d.jsonl:2:3: invalid UTF-8: byte 0xFF at offset 12; save the file as UTF-8"
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_harmless() {
    let records = read("\u{FEFF}{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}\r\n").expect("two records");
    let texts: Vec<&Body> = records.iter().map(|r| &r.body).collect();
    let text = |t: &str| Body::Text(Text::Plain(t.to_owned()));
    assert_eq!(texts, [&text("a"), &text("b")]);
    assert_eq!(error("\u{FEFF}{\"text\": 1}"), "d.jsonl:1:10: `text` must be a string, got a number");
}

#[test]
fn unknown_columns_are_named_with_what_is_accepted() {
    let message = error(r#"{"problem": "1+1", "answer": "2"}"#);
    assert!(
        message.starts_with("d.jsonl:1:1: no known schema has these columns: problem, answer; accepted are "),
        "{message}"
    );
    assert!(message.contains("{prompt?, chosen, rejected}, ") && message.contains("{text}"), "{message}");
    assert!(message.ends_with(
        "rename them with `data.columns`, for example { prompt = \"question\", completion = \"answer\" }"
    ));
}

#[test]
fn a_record_that_lacks_a_column_is_named() {
    assert_eq!(
        error("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"reply\": \"b\"}"),
        "d.jsonl:2:1: missing column completion (columns: prompt, reply); the file is read as `prompt_completion`, so \
         each record needs prompt, completion"
    );
}

#[test]
fn wrong_types_point_at_the_field() {
    assert_eq!(
        error(r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 7}]}"#),
        "d.jsonl:1:82: `messages[1].content` must be a string or a list of text blocks, got a number"
    );
    assert_eq!(
        error(r#"{"messages": "hi"}"#).as_str(),
        "d.jsonl:1:14: `messages` must be an array, got a string"
    );
    assert_eq!(error(r#"{"messages": []}"#), "d.jsonl:1:14: `messages` has no messages");
    assert_eq!(
        error(r#"{"messages": [{"content": "a"}]}"#),
        "d.jsonl:1:15: `messages[0]` has no `role` (fields: content)"
    );
    assert_eq!(
        error(r#"{"messages": [{"role": "user"}]}"#),
        "d.jsonl:1:15: `messages[0]` has no `content` (fields: role)"
    );
    assert_eq!(
        error(r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#),
        "d.jsonl:1:44: `messages[0].content[0]` is not a text block {\"type\": \"text\", \"text\": ...}; only text is read"
    );
    assert_eq!(
        error(r#"{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}"#),
        "d.jsonl:1:31: `completion` is messages but `prompt` is a string; both must be the same"
    );
    assert_eq!(
        error(
            r#"{"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}]}"#
        ),
        "d.jsonl:1:12: `prompt` is a string, but `chosen` and `rejected` are messages that do not begin with it; write \
         it as messages"
    );
    assert_eq!(
        error(r#"{"prompt": "a", "completion": "b", "label": "yes"}"#),
        "d.jsonl:1:45: `label` must be true or false, got a string"
    );
    assert_eq!(
        error(r#"{"conversations": [{"from": "martian", "value": "hi"}]}"#),
        "d.jsonl:1:29: `conversations[0].from` is `martian`; it must be human, user, gpt, assistant, system, observation or tool"
    );
    assert_eq!(
        error(r#"{"text": "a", "tools": "[oops"}"#),
        "d.jsonl:1:24: `tools` is a string, but not of JSON: expected value at line 1 column 2"
    );
}

#[test]
fn columns_can_be_renamed_and_errors_use_the_files_names() {
    let columns = |pairs: &[(&str, &str)]| ReadConfig {
        columns: pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        schema: None,
    };
    let qa = columns(&[("prompt", "question"), ("completion", "answer")]);
    let records = read_as(r#"{"question": "1+1", "answer": "2", "id": 7}"#, &qa).expect("renamed");
    let plain = |t: &str| Text::Plain(t.to_owned());
    assert_eq!(records[0].body, Body::Completion { prompt: plain("1+1"), completion: plain("2") });
    assert_eq!(Value::Object(records[0].extra.clone()), json!({ "id": 7 }));
    assert_eq!(
        read_as(r#"{"question": "1+1", "answer": 2}"#, &qa).expect_err("a number"),
        "d.jsonl:1:31: `answer` must be a string or a list of messages, got a number"
    );
    assert_eq!(
        read_as(r#"{"q": "1+1"}"#, &qa).expect_err("no such column"),
        "d.jsonl:1:1: no column `answer`, which `data.columns` reads as `completion` (columns: q); correct `data.columns`"
    );
    let message = read_as("{}", &columns(&[("promt", "q")])).expect_err("a typo");
    assert!(
        message.starts_with("data.columns.promt: no schema reads a column `promt`; accepted: "),
        "{message}"
    );
}

#[test]
fn a_schema_can_be_asked_for() {
    let config = ReadConfig { schema: Some(Schema::Preference), ..ReadConfig::default() };
    let row = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}"#;
    assert!(!read_as(row, &config).expect("strings")[0].body.conversational());
    assert!(read(row).expect("a transcript")[0].body.conversational());
}

#[test]
fn a_missing_file_is_named() {
    let message = read_records(Path::new("/no/such/file.jsonl")).expect_err("it is not there").to_string();
    assert_eq!(
        message,
        "cannot read /no/such/file.jsonl: No such file or directory (os error 2); check the path"
    );
}

#[test]
fn parquet_is_refused_with_the_remedy_or_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("d.parquet");
    std::fs::write(&path, b"PAR1 and then nothing").expect("written");
    let message = read_records(&path).expect_err("it is cut off").to_string();
    assert!(message.contains("d.parquet:1:1: "), "{message}");
    assert!(message.contains("Parquet"), "{message}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_rows_are_records() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/messages.parquet");
    let (records, report) = read_records(&path).expect("two rows");
    assert_eq!((report.schema, report.conversational, report.records), (Schema::PromptCompletion, true, 2));
    assert_eq!(records[1].source.line, 2);
    let message = |role: &str, content: &str| {
        let value = json!({ "role": role, "content": content });
        Text::Chat(vec![value.as_object().expect("an object").clone()])
    };
    assert_eq!(
        records[1].body,
        Body::Completion { prompt: message("user", "Ü"), completion: message("assistant", "b") }
    );
    assert_eq!(Value::Object(records[0].extra.clone()), json!({ "n": 1 }));
    assert!(records[1].extra.is_empty());
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    any_scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\é]{0,4}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(texts in prop::collection::vec(any::<String>(), 1..8), extra in any_json(), pretty: bool) {
        let rows: Vec<Value> = texts.iter().map(|t| json!({ "text": t, "note": extra })).collect();
        let lines = rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let array = if pretty { serde_json::to_string_pretty(&rows) } else { serde_json::to_string(&rows) };
        let from_lines = read(lines).expect("JSONL");
        let from_array = read(array.expect("JSON")).expect("an array");
        for (i, text) in texts.iter().enumerate() {
            let body = Body::Text(Text::Plain(text.clone()));
            prop_assert_eq!(&from_lines[i].body, &body);
            prop_assert_eq!(&from_array[i].body, &body);
            prop_assert_eq!(from_lines[i].source.line, i + 1);
            prop_assert_eq!(&from_lines[i].extra, &from_array[i].extra);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_with_a_place_inside_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(message) = read(&bytes) {
            prop_assert!(message.starts_with("d.jsonl:"), "{}", message);
        }
    }

    #[test]
    fn a_bad_line_is_found_wherever_it_is(before in 0usize..5, bad in any_scalar()) {
        let content = format!("{}{bad}\n", "{\"text\": \"a\"}\n".repeat(before));
        let place = format!("d.jsonl:{}:1: a record must be an object", before + 1);
        prop_assert!(error(content).starts_with(&place));
    }
}
