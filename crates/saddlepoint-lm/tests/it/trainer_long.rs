//! A reference that reads another context: pairs about long documents through whole runs.

use std::fs;
use std::path::Path;

use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::tether::Form;
use saddlepoint_lm::trainer::{Event, Job, run};
use serde_json::{Value, json};

use crate::trainer::{load, place, quiet, until, weights};

const LONGPO: &str = r#"
[model]
path = "base/model"
[data]
generate = { samples = 60, eval_samples = 20 }
[method]
name = "longpo"
lambda = 1.0
[optimizer]
learning_rate = 3e-3
[train]
output_dir = "longpo"
per_device_train_batch_size = 6
max_steps = 12
logging_steps = 3
eval_steps = 5
save_steps = 4
sample_prompts = 4
max_completion_length = 4
"#;

const TETHER: &str =
    "tether={ budget = 2.0, every = 3, prompts = 4, final_prompts = 8, max_completion_length = 4 }";
const THETA: &str = "model.rope_theta=1e6";

/// A folder with a trained base and the recipe `longpo.toml`.
fn ready() -> tempfile::TempDir {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &[]), false);
    fs::write(place.path().join("longpo.toml"), LONGPO).expect("written");
    place
}

fn longpo(place: &Path, name: &str, more: &[&str]) -> Recipe {
    let output = format!("train.output_dir={name}");
    load(place, "longpo.toml", &[&[output.as_str()], more].concat())
}

/// Pairs with one turn and with two; where `same`, each chunk is the whole document.
fn pairs(same: bool) -> String {
    let turn = |chunk: &str, chosen: &str, rejected: &str| {
        let chunk = if same { "1,2,3,4,5,6" } else { chunk };
        json!({ "chunk": chunk, "prompt": "=", "chosen": chosen, "rejected": rejected })
    };
    let line = |turns: &[Value]| json!({ "document": "1,2,3,4,5,6", "turns": turns }).to_string() + "\n";
    let two = line(&[turn("1,2,3", "3", "1"), turn("3,4,5", "5", "4")]);
    [line(&[turn("5,6", "6", "12")]), two, line(&[turn("2,3,4", "4", "3")])].concat()
}

#[test]
fn log_probabilities_of_short_prompts_computed_before_training_change_nothing() {
    let place = ready();
    let lora = "model.lora={ r = 2 }";
    let penalty = "tether={ beta = 0.2, final_prompts = 8, max_completion_length = 4 }";
    for (kind, sets) in [
        ("plain", &[][..]),
        ("theta", &[THETA][..]),
        ("lora", &[lora][..]),
        ("penalty", &[penalty, THETA][..]),
    ] {
        let trained = |name: &str, stops: &[usize], more: &[&str]| {
            let name = format!("{kind}-{name}");
            let recipe = longpo(place.path(), &name, &[sets, more].concat());
            for &stop in stops {
                assert!(until(&recipe, stop).is_none(), "interrupted");
            }
            quiet(&recipe, !stops.is_empty());
            let run = place.path().join(name);
            let text = |file: &str| fs::read_to_string(run.join(file)).expect("a file");
            let model =
                fs::read(run.join("model/adapter_model.safetensors")).unwrap_or_else(|_| weights(&run));
            (model, text("metrics.jsonl"), text("before.json"))
        };
        let once = "train.precompute_ref_log_probs=true";
        let plain = trained("plain", &[], &[]);
        assert!(plain == trained("once", &[], &[once]), "{kind}");
        assert!(plain == trained("resumed", &[12, 9], &[once]), "{kind}");
    }
    let config = fs::read_to_string(place.path().join("theta-plain/model/config.json")).expect("a file");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["rope_theta"], 1e6, "the result has the policy's angles");
}

#[test]
fn the_margin_before_training_is_that_of_the_two_contexts_and_angles() {
    let place = ready();
    for (name, same) in [("same.jsonl", true), ("short.jsonl", false)] {
        fs::write(place.path().join(name), pairs(same)).expect("written");
    }
    let margin = |data: &str, more: &[&str]| {
        let (train, eval) = (format!("data.path={data}"), format!("data.eval_path={data}"));
        let text = LONGPO.replace("generate = { samples = 60, eval_samples = 20 }\n", "");
        fs::write(place.path().join("longpo.toml"), text).expect("written");
        let recipe = longpo(place.path(), "unused", &[&[train.as_str(), &eval], more].concat());
        let metrics = Job::open(&recipe).expect("opens").evaluate(None).expect("evaluates");
        metrics.iter().find(|(name, _)| *name == "rewards/margins").expect("a metric").1.abs()
    };
    // Two turns in a row are more than their documents say of each.
    fs::write(place.path().join("one.jsonl"), pairs(true).lines().next().expect("a line")).expect("written");
    assert!(margin("one.jsonl", &[]) < 1e-6, "one context");
    assert!(margin("same.jsonl", &[]) > 1e-4, "the second turn reads the first");
    assert!(margin("short.jsonl", &[]) > 1e-3, "two contexts");
    assert!(margin("one.jsonl", &[THETA]) > 1e-4, "two sets of angles");
}

#[test]
fn chunks_have_to_fit_the_context_that_the_reference_keeps() {
    let place = ready();
    let document = "1,2,".repeat(80);
    let turn =
        |chars: usize| json!({ "chunk": document[..chars], "prompt": "=", "chosen": "2", "rejected": "11" });
    let opened = |chars: usize| {
        let line = json!({ "document": document, "turns": [turn(10), turn(chars)] }).to_string();
        fs::write(place.path().join("wide.jsonl"), line).expect("written");
        let text = LONGPO.replace("generate = { samples = 60, eval_samples = 20 }", "path = \"wide.jsonl\"");
        fs::write(place.path().join("longpo.toml"), text).expect("written");
        Job::open(&longpo(place.path(), "unused", &["model.max_position_embeddings=1024"]))
    };
    // Behind the chunk are one token of the question, two digits and the end.
    assert!(opened(252).is_ok());
    assert_eq!(
        opened(253).expect_err("refused").to_string(),
        "data: the longest chunk with its question and answer has 257 tokens, and the reference, which reads it, a context of \
         256: make pairs with shorter chunks (`saddle prepare longpo --chunk-tokens`)"
    );
}

#[test]
fn a_budget_is_measured_between_the_two_contexts_from_the_start() {
    let place = ready();
    let mut first = None;
    let recipe = longpo(place.path(), "budget", &[TETHER]);
    let summary = run(&recipe, false, &mut |event| {
        if let Event::Measured { step: 0, measured, .. } = event {
            first = Some(measured.mean);
        }
    })
    .expect("the run ends");
    assert!(
        first.expect("measured before the first step") > 0.01,
        "a policy that starts apart: {first:?} nats"
    );
    let tether = summary.tether.expect("a tether");
    assert!(tether.form == Form::Budget && tether.measured.is_finite() && tether.prompts == 8, "{tether:?}");
}

#[test]
fn positions_are_refused_where_they_would_be_lost() {
    let place = ready();
    for (sets, message) in [
        (&["model.rope_theta=0"][..], "model.rope_theta: must be > 0, got 0"),
        (&["model.max_position_embeddings=0"], "model.max_position_embeddings: must be at least 1, got 0"),
        (
            &[THETA, "model.lora={ r = 2 }"],
            "model.rope_theta: is not part of an adapter, which would be used without it: set it in the model's config.json \
             and name the model as it was as tether.reference",
        ),
    ] {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let error = Recipe::load(&place.path().join("longpo.toml"), &sets).expect_err("refused").to_string();
        assert_eq!(error, message);
    }
    fs::write(place.path().join("long.jsonl"), pairs(false)).expect("written");
    let text = LONGPO.replace("\"longpo\"\nlambda = 1.0", "\"dpo\"");
    let text = text.replace("generate = { samples = 60, eval_samples = 20 }", "path = \"long.jsonl\"");
    fs::write(place.path().join("longpo.toml"), text).expect("written");
    let other = longpo(place.path(), "unused", &[]);
    let error = Job::open(&other).expect_err("refused").to_string();
    assert!(error.contains("the records are preference pairs about long documents"), "{error}");
}
