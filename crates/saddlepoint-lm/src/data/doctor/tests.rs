use std::path::Path;

use serde_json::json;

use super::*;
use crate::data::fixture::tokenizer;
use crate::data::{Dropped, Template, Tokenizer};

const CHATML: &str =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

fn codec(template: &str, eos: &[&str]) -> Codec {
    let tokenizer = tokenizer();
    let template = Template::new(Path::new("t"), template, &json!({}), None).expect("it compiles");
    let eos = eos.iter().map(|t| tokenizer.id(t).expect("a token of the fixture")).collect();
    Codec { bos: tokenizer.id("<s>"), pad: None, eos, template: Some(template), tokenizer }
}

fn sample(codec: &Codec, text: &str, trained_from: usize) -> Supervised {
    let ids = codec.tokenizer.encode(text).expect("encodes");
    let supervised = (0..ids.len()).map(|i| i >= trained_from).collect();
    Supervised { ids, supervised }
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|f| format!("{:?}: {f}", f.severity())).collect()
}

#[test]
fn a_sound_set_has_no_findings() {
    let codec = codec(CHATML, &["<|im_end|>"]);
    let good = [sample(&codec, "a<|im_end|>", 1)];
    let vocab = codec.tokenizer.vocab_size();
    let findings = inspect(&codec, vocab, Samples::Supervised(&good), &PrepareReport::default());
    assert_eq!(findings, []);
}

#[test]
fn untrained_stop_tokens_and_empty_masks_are_errors() {
    let codec = codec(CHATML, &["<|im_end|>"]);
    let vocab = codec.tokenizer.vocab_size();
    let report = PrepareReport::default();
    let cut = [sample(&codec, "abc", 1)];
    assert_eq!(
        texts(&inspect(&codec, vocab, Samples::Supervised(&cut), &report)),
        [
            "Error: no trained token is a stop token (<|im_end|>): the model would not learn to end; check the chat \
          template, its generation blocks, and data.max_length"
        ]
    );
    let none = [sample(&codec, "abc", 99)];
    assert_eq!(inspect(&codec, vocab, Samples::Supervised(&none), &report), [Finding::NothingTrained]);
    assert_eq!(inspect(&codec, vocab, Samples::Pairs(&[]), &report), [Finding::NothingTrained]);
}

#[test]
fn doubled_bos_is_an_error() {
    let codec = codec(CHATML, &["<|im_end|>"]);
    let twice = [sample(&codec, "<s><s>a<|im_end|>", 2)];
    let findings = inspect(&codec, 10_000, Samples::Supervised(&twice), &PrepareReport::default());
    assert_eq!(findings, [Finding::DoubleBos { count: 1 }]);
}

#[test]
fn a_template_of_another_model_is_told_by_its_markers_and_ends() {
    let llama = codec("<s>{% for m in messages %}<|eot|>{{ m.content }}</s>{% endfor %}", &["<|im_end|>"]);
    let found = texts(&model(&llama, 10_000));
    assert!(found[0].starts_with("Error: the chat template writes <|eot|>, which the tokenizer does not know as one token but splits into "), "{found:?}");
    assert_eq!(
        found[1..],
        [
            "Warning: the chat template ends an assistant turn with </s>, but generation stops at <|im_end|>; add it to eos_token_id",
            "Info: the chat template writes <s> and the tokenizer adds it to documents; rendered text is tokenised \
             without adding it, and other programs must do the same",
        ]
    );
}

#[test]
fn ids_beyond_the_model_and_padding_by_the_stop_token_are_found() {
    let mut codec = codec(CHATML, &["<|im_end|>"]);
    codec.pad = codec.tokenizer.id("<|im_end|>");
    let last = codec.tokenizer.vocab_size() - 1;
    let found = texts(&model(&codec, last));
    let name = codec.tokenizer.token(last as u32).expect("the last id has a token");
    assert_eq!(
        found,
        [
            format!(
                "Error: 1 tokens have no embedding: the model has {last} ids, but {name} is {last}; use the tokenizer \
                 that came with the model"
            ),
            "Info: padding and stop token are both <|im_end|>; harmless here, where nothing is padded or masked by id, \
             but not in trainers that mask padding"
                .to_owned(),
        ]
    );
}

#[test]
fn a_template_that_fails_is_reported_with_its_reason() {
    let failing = codec("{{ raise_exception('no system message') }}", &["<|im_end|>"]);
    assert_eq!(
        texts(&model(&failing, 10_000)),
        [
            "Warning: a conversation of one question and answer does not render: the chat template refuses this \
          conversation: no system message (template line 1)"
        ]
    );
}

#[test]
fn what_preparation_did_is_told() {
    let dropped = Dropped { reason: super::super::prepare::DropReason::EmptyCompletion, record: 4, line: 5 };
    let report = PrepareReport {
        dropped: vec![dropped; 2],
        truncated: 1,
        truncated_tokens: 9,
        ..PrepareReport::default()
    };
    assert_eq!(
        texts(&preparation(&report)),
        [
            "Warning: 2 records left out: empty completion (first: line 5)",
            "Warning: 1 records cut to data.max_length, 9 tokens lost; raise it if memory allows",
        ]
    );
}

#[test]
fn text_that_the_tokenizer_does_not_know_is_counted() {
    let json = json!({
        "version": "1.0",
        "pre_tokenizer": { "type": "Whitespace" },
        "model": { "type": "WordLevel", "vocab": { "<unk>": 0, "one": 1, "two": 2, "end": 3 }, "unk_token": "<unk>" },
        "added_tokens": [],
    });
    let tokenizer = Tokenizer::from_bytes(Path::new("t"), json.to_string().as_bytes()).expect("a tokenizer");
    let codec = Codec { bos: None, pad: None, eos: vec![3], template: None, tokenizer };
    let known = sample(&codec, "one two end", 1);
    assert_eq!(unknown(&codec, Samples::Supervised(std::slice::from_ref(&known))), None);
    let set = [known, sample(&codec, "one three four end", 3), sample(&codec, "five end", 1)];
    assert_eq!(
        texts(&unknown(&codec, Samples::Supervised(&set)).into_iter().collect::<Vec<_>>()),
        [
            "Warning: 3 tokens of 2 samples are <unk>: the tokenizer does not know what the text says there, and the \
             model reads the same for all of it; use a tokenizer that covers the data"
        ]
    );
}
