use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::data::fixture::tokenizer;
use crate::data::{Codec, ReadConfig, Template, doctor, read_json};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// Drops what was said before the last question, as templates of reasoning models do with their thoughts.
const FORGETFUL: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content[:1] }}\
    <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// Leaves the end of the turn outside its generation block.
const ENDLESS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}\
    {{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}";

fn codec(template: Option<&str>) -> Codec {
    let tokenizer = tokenizer();
    let template =
        template.map(|t| Template::new(Path::new("t"), t, &Value::Null, None).expect("it compiles"));
    let eos = vec![tokenizer.id("<|im_end|>").expect("a token of the fixture")];
    Codec { bos: tokenizer.id("<s>"), pad: None, eos, template, tokenizer }
}

fn records(rows: &Value) -> Vec<Record> {
    let rows = rows.to_string();
    read_json(Path::new("d.json"), rows.as_bytes(), &ReadConfig::default()).expect("good rows").0
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

fn assistant(text: &str) -> Value {
    json!({ "role": "assistant", "content": text })
}

fn chat(turns: &[Value]) -> Value {
    json!({ "messages": turns })
}

/// The trained text of the only sequence.
fn trained(codec: &Codec, row: &Value, config: &PrepareConfig) -> Vec<String> {
    let (items, _) = sft(codec, &records(&json!([row])), config).expect("it can be prepared");
    doctor::pieces(&codec.tokenizer, &items[0].ids, &items[0].supervised)
        .into_iter()
        .filter_map(|p| p.trained.then_some(p.text))
        .collect()
}

fn train_on(train_on: TrainOn) -> PrepareConfig {
    PrepareConfig { train_on, ..PrepareConfig::default() }
}

#[test]
fn assistant_turns_are_trained_with_their_ends() {
    let codec = codec(Some(CHATML));
    let row = chat(&[user("Hi"), assistant("Hello."), user("And?"), assistant("Fine.")]);
    let of = |rule| trained(&codec, &row, &train_on(rule));
    assert_eq!(of(TrainOn::AssistantTurns), ["Hello.<|im_end|>\n", "Fine.<|im_end|>\n"]);
    assert_eq!(of(TrainOn::LastTurn), ["Fine.<|im_end|>\n"]);
    assert_eq!(of(TrainOn::All).len(), 1);
}

#[test]
fn the_last_turn_is_trained_where_the_user_has_the_last_word() {
    let row = chat(&[user("Hi"), assistant("Hello."), user("Bye")]);
    assert_eq!(trained(&codec(Some(CHATML)), &row, &train_on(TrainOn::LastTurn)), ["Hello.<|im_end|>\n"]);
}

#[test]
fn of_a_completion_with_other_voices_only_the_assistant_is_trained() {
    let row =
        json!({ "prompt": [user("Hi")], "completion": [assistant("Hello."), user("Hm"), assistant("Yes?")] });
    let texts = trained(&codec(Some(CHATML)), &row, &PrepareConfig::default());
    assert_eq!(texts, ["Hello.<|im_end|>\n", "Yes?<|im_end|>\n"]);
}

#[test]
fn ends_behind_generation_blocks_are_trained_and_counted() {
    let codec = codec(Some(ENDLESS));
    let rows = json!([chat(&[user("Hi"), assistant("Hello."), user("And?"), assistant("Fine.")])]);
    let (_, report) = sft(&codec, &records(&rows), &PrepareConfig::default()).expect("it can be prepared");
    assert_eq!(report.ends_added, 2);
    let texts = trained(&codec, &rows[0], &PrepareConfig::default());
    assert_eq!(texts, ["Hello.<|im_end|>", "Fine.<|im_end|>"]);
}

#[test]
fn a_template_that_rewrites_the_past_is_refused_with_the_difference() {
    let rows = json!([chat(&[user("Hello"), assistant("Hi"), user("And?"), assistant("Fine.")])]);
    let error =
        sft(&codec(Some(FORGETFUL)), &records(&rows), &PrepareConfig::default()).expect_err("it forgets");
    assert_eq!(
        error.to_string(),
        "d.json:1:2: the chat template renders the conversation up to message 2 differently alone than inside the \
         whole (character 19: 'e' against '<'), so its words cannot be told from the rest; use a template with \
         {% generation %} blocks, or train the last turn only (`data.train_on = \"last_turn\"`)"
    );
    let (_, report) =
        sft(&codec(Some(FORGETFUL)), &records(&rows), &train_on(TrainOn::LastTurn)).expect("one turn");
    assert_eq!(report.prompt_changed, 1);
}

#[test]
fn a_template_that_raises_names_the_record() {
    let raising = codec(Some("{{ raise_exception('roles must alternate') }}"));
    let rows = json!([chat(&[user("a"), assistant("b")])]);
    let error = sft(&raising, &records(&rows), &PrepareConfig::default()).expect_err("it raises");
    assert_eq!(
        error.to_string(),
        "d.json:1:2: the chat template refuses this conversation: roles must alternate (template line 1); correct the \
         record or the model's template"
    );
}

#[test]
fn conversations_need_a_template() {
    let rows = json!([chat(&[user("a"), assistant("b")])]);
    let error = sft(&codec(None), &records(&rows), &PrepareConfig::default()).expect_err("no template");
    assert_eq!(
        error.to_string(),
        "model.chat_template: d.json: the records are conversations, but the model has no chat template; give one \
         (chat_template.jinja in the model's folder), or read plain text with `data.columns`"
    );
}

#[test]
fn records_without_anything_to_learn_are_reported_by_line() {
    let rows = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n\
        {\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"\"}]}\n\
        {\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n";
    let (records, _) = read_json(Path::new("d"), rows.as_bytes(), &ReadConfig::default()).expect("good rows");
    let codec = codec(Some(CHATML));
    let (items, report) = sft(&codec, &records, &PrepareConfig::default()).expect("one is good");
    let dropped: Vec<(DropReason, usize)> = report.dropped.iter().map(|d| (d.reason, d.line)).collect();
    assert_eq!(dropped, [(DropReason::NoAssistantTurn, 1), (DropReason::EmptyCompletion, 2)]);
    assert_eq!((items.len(), report.read, report.used, report.kept), (1, 3, 1, vec![2]));

    let error = sft(&codec, &records[..2], &PrepareConfig::default()).expect_err("none is good");
    assert_eq!(
        error.to_string(),
        "d:1:1: none of the 2 records can be used: 1 empty completion (first: line 2), 1 no assistant turn (first: \
         line 1); correct the data or raise `data.max_length`"
    );
}

#[test]
fn empty_sides_and_prompts_of_pairs_are_left_out() {
    let mut bare = codec(None);
    let rows = json!([
        { "prompt": "a", "chosen": "", "rejected": "b" },
        { "prompt": "", "chosen": "a", "rejected": "b" },
        { "prompt": "a", "chosen": "b", "rejected": "b" },
    ]);
    let (pairs, report) =
        preference(&bare, &records(&rows), &PrepareConfig::default()).expect("two are good");
    assert_eq!(report.dropped_by_reason().into_keys().collect::<Vec<_>>(), [DropReason::EmptyCompletion]);
    assert_eq!((pairs.len(), report.identical), (2, 1));
    assert_eq!(pairs[0].prompt, bare.tokenizer.encode("<s>").expect("encodes"));
    // Without a BOS nothing stands before the first token.
    bare.tokenizer = crate::data::fixture::tokenizer_without_bos();
    let (_, report) = preference(&bare, &records(&rows), &PrepareConfig::default()).expect("one is good");
    let dropped: Vec<DropReason> = report.dropped.iter().map(|d| d.reason).collect();
    assert_eq!(dropped, [DropReason::EmptyCompletion, DropReason::EmptyPrompt]);
}

#[test]
fn over_long_samples_are_cut_or_dropped_and_counted() {
    let codec = codec(None);
    let rows = json!([{ "text": "abcdefgh" }, { "text": "ab" }]);
    let with = |truncation_mode, max_length| {
        let config =
            PrepareConfig { max_length: Some(max_length), truncation_mode, ..PrepareConfig::default() };
        sft(&codec, &records(&rows), &config)
    };
    let full = codec.tokenizer.encode_document("abcdefgh").expect("encodes").len() + 1;
    let (items, report) = with(Truncation::KeepStart, 4).expect("cut");
    assert_eq!((items[0].ids.len(), report.truncated, report.truncated_tokens), (4, 1, full - 4));
    let (items, _) = with(Truncation::KeepEnd, 4).expect("cut");
    assert!(codec.stops(items[0].ids[3]) && !items[0].supervised[0]);
    let (items, report) = with(Truncation::Drop, 4).expect("one is short enough");
    assert_eq!((items.len(), report.dropped[0].reason), (1, DropReason::OverLong));
    let error = with(Truncation::Drop, 1).expect_err("no bound at all").to_string();
    assert_eq!(error, "data.max_length: must be at least 2, got 1 (default 1024)");
}

#[test]
fn a_prompt_longer_than_the_bound_leaves_nothing_to_train() {
    let rows = json!([{ "prompt": "a b c d e f", "completion": " g" }]);
    let config = PrepareConfig { max_length: Some(3), ..PrepareConfig::default() };
    let error = sft(&codec(None), &records(&rows), &config).expect_err("only the prompt is left").to_string();
    assert_eq!(
        error,
        "d.json:1:2: none of the 1 records can be used: 1 no trained token left after truncation (first: line 1); \
         correct the data or raise `data.max_length`"
    );
}

#[test]
fn records_that_do_not_fit_the_method_are_refused() {
    let pairs = records(&json!([{ "prompt": "a", "chosen": "b", "rejected": "c" }]));
    let text = records(&json!([{ "text": "a" }]));
    let config = PrepareConfig::default();
    assert_eq!(
        sft(&codec(None), &pairs, &config).expect_err("pairs").to_string(),
        "d.json:1:2: the records are preference pairs, but text, a conversation or a prompt with its completion is \
         needed; use another method, or say what the columns are with `data.columns`"
    );
    assert!(preference(&codec(None), &text, &config).is_err());
    assert!(prompts(&codec(None), &text, &config).is_err());
}

#[test]
fn completions_with_labels_are_read_alone_and_out_of_pairs() {
    let codec = codec(None);
    let rows = json!([
        { "prompt": "a", "completion": " b", "label": true },
        { "prompt": "a", "completion": "", "label": false },
        { "prompt": "c", "completion": " defghi", "label": false },
    ]);
    let (items, report) = unpaired(&codec, &records(&rows), &PrepareConfig::default()).expect("two are good");
    let whole = |text: &str| {
        let mut ids = codec.tokenizer.encode_document(text).expect("encodes");
        ids.push(codec.eos[0]);
        ids
    };
    assert_eq!([&items[0].prompt[..], &items[0].completion].concat(), whole("a b"));
    assert_eq!(items.iter().map(|item| item.label).collect::<Vec<_>>(), [true, false]);
    assert_eq!((report.kept, report.dropped[0].record), (vec![0, 2], 1));
    let cut = PrepareConfig { max_length: Some(items[1].prompt.len() + 2), ..PrepareConfig::default() };
    let (short, report) = unpaired(&codec, &records(&rows), &cut).expect("one is cut");
    assert_eq!((&short[1].completion[..], report.truncated), (&items[1].completion[..2], 1));

    let pairs = records(&json!([
        { "prompt": "a", "chosen": " b", "rejected": " c" },
        { "prompt": "d", "chosen": " e", "rejected": "" },
    ]));
    let (items, report) = unpaired(&codec, &pairs, &PrepareConfig::default()).expect("three are good");
    let (both, _) = preference(&codec, &pairs, &PrepareConfig::default()).expect("one is good");
    assert_eq!((&items[0].completion, items[0].label), (&both[0].chosen, true));
    assert_eq!((&items[1].completion, items[1].label), (&both[0].rejected, false));
    assert_eq!((report.kept, report.dropped[0].record, report.read), (vec![0, 0, 1], 1, 4));

    let text = records(&json!([{ "text": "a" }]));
    let error = unpaired(&codec, &text, &PrepareConfig::default()).expect_err("text").to_string();
    assert!(
        error
            .contains("the records are text, but a completion with a label, or a preference pair, is needed")
    );
}

#[test]
fn prompts_end_where_the_assistant_speaks() {
    let codec = codec(Some(CHATML));
    let rows = json!([chat(&[user("Hi"), assistant("Hello.")])]);
    let (made, report) = prompts(&codec, &records(&rows), &PrepareConfig::default()).expect("a prompt");
    assert_eq!(made[0].text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(made[0].ids, codec.tokenizer.encode(&made[0].text).expect("encodes"));
    assert_eq!((report.tokens, report.trained_tokens), (made[0].ids.len(), 0));
}

proptest! {
    #[test]
    fn every_rule_trains_the_whole_of_each_answer(
        turns in prop::collection::vec(("[a-z é🦀\n]{1,12}", "[A-Z 漢\n]{1,12}"), 1..4),
        max_length in prop::option::of(2usize..40),
    ) {
        let codec = codec(Some(CHATML));
        let messages: Vec<Value> = turns.iter().flat_map(|(q, a)| [user(q), assistant(a)]).collect();
        let rows = records(&json!([chat(&messages)]));
        let config = PrepareConfig { max_length, ..PrepareConfig::default() };
        if let Ok((items, report)) = sft(&codec, &rows, &config) {
            let item = &items[0];
            prop_assert_eq!(item.ids.len(), item.supervised.len());
            prop_assert!(item.ids.len() <= max_length.unwrap_or(usize::MAX));
            prop_assert!(!item.supervised[0] && item.supervised.contains(&true));
            prop_assert_eq!(report.trained_tokens, item.supervised.iter().filter(|s| **s).count());
            if report.truncated == 0 {
                let texts = trained(&codec, &chat(&messages), &config);
                for ((_, answer), text) in turns.iter().zip(&texts) {
                    prop_assert!(text.contains(&format!("{answer}<|im_end|>")), "{text:?} lacks {answer:?}");
                }
                let stops = item.ids.iter().zip(&item.supervised).filter(|(id, s)| **s && codec.stops(**id)).count();
                prop_assert_eq!(stops, turns.len());
            }
        } else {
            prop_assert!(max_length.is_some());
        }
    }

    #[test]
    fn pairs_are_the_ids_of_the_whole_text(prompt in "[a-z ]{0,10}", chosen in "[a-z ]{1,10}", rejected in "[a-z ]{1,10}") {
        let codec = codec(None);
        let rows = records(&json!([{ "prompt": prompt, "chosen": chosen, "rejected": rejected }]));
        let (pairs, _) = preference(&codec, &rows, &PrepareConfig::default()).expect("a pair");
        for (said, ids) in [(&chosen, &pairs[0].chosen), (&rejected, &pairs[0].rejected)] {
            let mut whole = codec.tokenizer.encode_document(&format!("{prompt}{said}")).expect("encodes");
            whole.push(codec.eos[0]);
            prop_assert_eq!([pairs[0].prompt.as_slice(), ids.as_slice()].concat(), whole);
        }
    }
}
