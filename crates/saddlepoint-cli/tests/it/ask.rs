//! `saddle generate`, `score` and `eval`: a model is asked.

use std::fs;

use serde_json::{Value, json};

use crate::model;
use crate::saddle::{Ended, Place};

fn place() -> Place {
    let place = Place::new();
    model::write(&place, "m");
    place
}

#[track_caller]
fn ask(place: &Place, arguments: &[&str]) -> Ended {
    let ended = place.saddle(arguments);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn generate_gives_one_line_a_sample_and_the_same_for_the_same_seed() {
    let place = place();
    let arguments = [
        "generate",
        "--model",
        "m",
        "--prompt",
        "one",
        "--prompt",
        "two",
        "--num-samples",
        "3",
        "--max-new-tokens",
        "7",
        "--json",
    ];
    let first = ask(&place, &arguments);
    let lines = first.objects();
    assert_eq!(lines.len(), 6);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(keys(line), ["index", "prompt", "completion", "token_ids", "logps", "finish_reason"]);
        assert_eq!(line["index"], i);
        assert_eq!(line["prompt"], if i < 3 { "one" } else { "two" });
        let (ids, logps) = (numbers(&line["token_ids"]), numbers(&line["logps"]));
        assert_eq!(ids.len(), logps.len());
        assert!(logps.iter().all(|logp| *logp < 0.0));
        let stopped = ids.last() == Some(&(model::END as f64));
        assert_eq!(line["finish_reason"], if stopped { "stop" } else { "length" });
        assert!(stopped || ids.len() == 7);
    }
    assert_eq!(ask(&place, &arguments).stdout, first.stdout, "same seed, same bytes");
    let other = [&arguments[..], &["--seed", "1"]].concat();
    assert_ne!(ask(&place, &other).stdout, first.stdout);
}

/// A model that counts: after every byte, the byte after it is the most probable. Its layers add nothing to the
/// residual stream, the embeddings have length 1, and a row of the head is the embedding of the byte before.
fn counting() -> Place {
    let place = Place::new();
    model::write_files(&place, "m");
    let config = fs::read_to_string(place.path("m/config.json")).expect("a configuration");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["tie_word_embeddings"] = json!(false);
    place.write("m/config.json", config.to_string());
    let mut tensors = model::tensors();
    for (name, _, values) in &mut tensors {
        if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            values.fill(0.0);
        }
    }
    let (_, dims, rows) = &mut tensors[0];
    let width = dims[1];
    for row in rows.chunks_exact_mut(width) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in row {
            *x /= length;
        }
    }
    let mut head = rows.clone();
    head.rotate_right(width);
    let head = ("lm_head.weight".to_owned(), dims.clone(), head);
    tensors.insert(0, head);
    place.write("m/model.safetensors", model::safetensors(&tensors));
    place
}

#[test]
fn a_stop_text_ends_a_completion() {
    let place = counting();
    let line = |stops: &[&str]| {
        let base =
            ["generate", "--model", "m", "--prompt", "a", "--temperature", "0", "--max-new-tokens", "9"];
        let stops: Vec<&str> = stops.iter().flat_map(|stop| ["--stop", stop]).collect();
        ask(&place, &[&base[..], &["--json"], &stops].concat()).objects().remove(0)
    };
    for (stops, completion, tokens, reason) in [
        (&[][..], "bcdefghij", 9, "length"),
        (&["e"][..], "bcd", 4, "stop"),
        // Over several tokens, and the earliest of several.
        (&["efg"], "bcd", 6, "stop"),
        (&["hi", "dx", "fg"], "bcde", 6, "stop"),
        // What only begins a stop text belongs to the completion.
        (&["jk", "dx"], "bcdefghij", 9, "length"),
    ] {
        let line = line(stops);
        assert_eq!((&line["completion"], &line["finish_reason"]), (&json!(completion), &json!(reason)));
        let ids: Vec<f64> = (0..tokens).map(|i| f64::from(b'b' + i)).collect();
        assert_eq!(numbers(&line["token_ids"]), ids, "the tokens up to the one that completes the stop text");
        assert_eq!(numbers(&line["logps"]).len(), ids.len());
    }
}

#[test]
fn chat_prompts_go_through_the_template() {
    let place = place();
    let ended = ask(
        &place,
        &["generate", "--model", "m", "--prompt", "Hi", "--chat", "--max-new-tokens", "1", "--json"],
    );
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(ended.objects()[0]["prompt"], prompt);
    place.write("p.jsonl", json!({"prompt": [{"role": "user", "content": "Hi"}]}).to_string());
    let file = ["generate", "--model", "m", "--prompts", "p.jsonl", "--max-new-tokens", "1", "--json"];
    assert_eq!(ask(&place, &file).stdout, ended.stdout);
}

#[test]
fn score_covers_the_completion_and_its_divergence_from_itself_is_zero() {
    let place = place();
    place.write("text.jsonl", "{\"text\": \"abc\"}\n{\"text\": \"de\"}\n");
    let lines = ask(&place, &["score", "--model", "m", "--data", "text.jsonl", "--json"]).objects();
    assert_eq!(lines.len(), 2);
    assert_eq!(keys(&lines[0]), ["index", "token_ids", "logps", "sum_logp"]);
    let ids = json!(["abc".bytes().map(usize::from).collect(), vec![model::END]].concat());
    assert_eq!(lines[0]["token_ids"], ids, "the text and the token that ends it");
    let logps = numbers(&lines[0]["logps"]);
    assert_eq!(logps.len(), 3, "all but the first");
    assert!((lines[0]["sum_logp"].as_f64().expect("a number") - logps.iter().sum::<f64>()).abs() < 1e-12);

    place.write("pairs.jsonl", "{\"prompt\": \"q\", \"chosen\": \"yes\", \"rejected\": \"no\"}\n");
    let arguments = ["score", "--model", "m", "--data", "pairs.jsonl", "--reference", "m", "--json"];
    let lines = ask(&place, &arguments).objects();
    assert_eq!([&lines[0]["part"], &lines[1]["part"]], ["chosen", "rejected"]);
    for (line, tokens) in lines.iter().zip([4, 3]) {
        assert_eq!(line["index"], 0);
        assert_eq!(numbers(&line["logps"]).len(), tokens);
        let divergence = numbers(&line["divergence"]);
        assert_eq!(divergence.len(), tokens);
        assert!(divergence.iter().all(|d| d.abs() < 1e-6), "{divergence:?}");
    }
}

#[test]
fn eval_agrees_with_score() {
    let place = place();
    place.write("pairs.jsonl", "{\"prompt\": \"q\", \"chosen\": \"yes\", \"rejected\": \"no\"}\n".repeat(3));
    let scored = ask(&place, &["score", "--model", "m", "--data", "pairs.jsonl", "--json"]).objects();
    let eval = &ask(&place, &["eval", "--model", "m", "--data", "pairs.jsonl", "--json"]).objects()[0];
    assert_eq!((&eval["samples"], &eval["tokens"]), (&json!(3), &json!(3 * (4 + 3))));
    let sum = |i: usize| scored[i]["sum_logp"].as_f64().expect("a number");
    let metric = |name: &str| eval["metrics"][name].as_f64().expect("a number");
    assert!((metric("pair_margin") - (sum(0) - sum(1))).abs() < 1e-9);
    assert!((metric("loss") + (sum(0) + sum(1)) / 7.0).abs() < 1e-9);
    assert!((metric("perplexity") - metric("loss").exp()).abs() < 1e-9);
    let preferred = f64::from(u8::from(sum(0) > sum(1)));
    assert!((metric("pair_accuracy") - preferred).abs() < 1e-12);
}

#[test]
fn bad_data_is_told_by_line_and_column() {
    let place = place();
    for (content, message) in [
        (&b"{\"text\": \"a\"}\n{\"text\": }\n"[..], "d.jsonl:2:10: "),
        (b"{\"txet\": \"a\"}\n", "d.jsonl:1:1: "),
        (b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", "d.jsonl:2:11: "),
        (b"", "d.jsonl:1:1: "),
        (
            b"{\"prompt\": \"q\", \"completion\": \"\"}\n",
            "d.jsonl:1:1: none of the 1 records can be used: 1 empty completion",
        ),
    ] {
        place.write("d.jsonl", content);
        let ended = place.saddle(&["score", "--model", "m", "--data", "d.jsonl", "--json"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("saddle: {message}")), "{}", ended.stderr);
    }
    let long = "x".repeat(300);
    place.write("d.jsonl", format!("{{\"text\": \"{long}\"}}\n"));
    place.refuses(
        &["score", "--model", "m", "--data", "d.jsonl"],
        "d.jsonl: record 0 has 301 tokens, but the model's context is 256; shorten it or leave it out",
    );
}

#[test]
fn a_template_that_raises_is_quoted() {
    let place = place();
    place.write("m/chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
    place.write("d.jsonl", json!({"messages": [{"role": "assistant", "content": "a"}]}).to_string());
    place.refuses(
        &["score", "--model", "m", "--data", "d.jsonl"],
        "d.jsonl:1:1: the chat template refuses this conversation: roles must alternate (template line 1); correct the \
         record or the model's template",
    );
}
