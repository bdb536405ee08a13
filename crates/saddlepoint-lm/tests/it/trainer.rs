//! Whole runs of small models: what they write, that they continue exactly, and that layout does not matter.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use saddlepoint_lm::Error;
use saddlepoint_lm::data::doctor::Severity;
use saddlepoint_lm::model::{ModelFolder, SafeTensors};
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::tether::Verdict;
use saddlepoint_lm::trainer::{Event, Job, Summary, resolved, run};
use serde_json::{Value, json};

const BASE: &str = r#"
[model]
new = { hidden_size = 32, intermediate_size = 64, num_hidden_layers = 2, num_attention_heads = 2, num_key_value_heads = 1 }
[data]
generate = { samples = 200, eval_samples = 20 }
[optimizer]
learning_rate = 1e-2
[train]
output_dir = "base"
per_device_train_batch_size = 8
num_train_epochs = 1
logging_steps = 4
eval_steps = 10
save_steps = 7
sample_prompts = 4
max_completion_length = 4
"#;

const DPO: &str = r#"
[model]
recipe = "base.toml"
[data]
generate = { samples = 120, eval_samples = 30 }
[method]
name = "dpo"
label_smoothing = 0.1
[tether]
budget = 0.5
every = 3
prompts = 4
final_prompts = 16
max_completion_length = 4
[optimizer]
learning_rate = 3e-3
[train]
output_dir = "dpo"
per_device_train_batch_size = 6
max_steps = 13
logging_steps = 3
eval_steps = 5
save_steps = 4
"#;

/// A folder with both recipes, changed by `change`.
pub(crate) fn place(change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary folder");
    fs::write(place.path().join("base.toml"), change(BASE)).expect("written");
    fs::write(place.path().join("dpo.toml"), change(DPO)).expect("written");
    place
}

pub(crate) fn load(place: &Path, name: &str, sets: &[&str]) -> Recipe {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    Recipe::load(&place.join(name), &sets).expect("a valid recipe")
}

pub(crate) fn quiet(recipe: &Recipe, resume: bool) -> Summary {
    run(recipe, resume, &mut |_| {}).expect("the run ends")
}

/// Starts or continues a run and interrupts it at its event `stop`; its summary if it ends before that.
pub(crate) fn until(recipe: &Recipe, stop: usize) -> Option<Summary> {
    let mut left = stop;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run(recipe, true, &mut |_| {
            left -= 1;
            assert!(left > 0, "interrupted on purpose");
        })
    }));
    outcome.ok().map(|result| result.expect("the run ends"))
}

pub(crate) fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model/model.safetensors")).expect("weights")
}

/// A file of one JSON value a line.
pub(crate) fn lines(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_run_writes_what_it_promises() {
    let place = place(str::to_owned);
    let recipe = load(place.path(), "base.toml", &[]);
    let mut kinds = Vec::new();
    let summary = run(&recipe, false, &mut |event| {
        kinds.push(match event {
            Event::Opened { resumed: None, .. } => "opened",
            Event::Sampling { prompts: 4 } => "sampling",
            Event::Step { total: 25, .. } => "step",
            Event::Logged { .. } => "logged",
            Event::Saved { .. } => "saved",
            Event::Ended => "ended",
            other => panic!("unexpected {other:?}"),
        });
    })
    .expect("the run ends");
    assert_eq!(kinds.iter().filter(|kind| **kind == "step").count(), 25);
    assert_eq!(kinds.last(), Some(&"ended"));
    assert_eq!((summary.steps, summary.model_step, summary.reached()), (25, 25, true));

    let dir = place.path().join("base");
    let metrics = lines(dir.join("metrics.jsonl"));
    let steps = |name: &str| -> Vec<u64> {
        metrics
            .iter()
            .filter(|l| l.get(name).is_some())
            .map(|l| l["step"].as_u64().expect("a step"))
            .collect()
    };
    assert_eq!(steps("loss"), [4, 8, 12, 16, 20, 24, 25]);
    assert_eq!(steps("eval_loss"), [10, 20, 25]);
    for name in ["entropy", "mean_token_accuracy", "grad_norm", "learning_rate", "num_tokens", "epoch"] {
        assert_eq!(steps(name).first(), Some(&4), "{name}");
    }
    let loss = |line: &Value| line["loss"].as_f64().expect("a number");
    let losses: Vec<f64> = metrics.iter().filter(|l| l.get("loss").is_some()).map(loss).collect();
    assert!(losses[5] < 0.95 * losses[0], "it learns: {losses:?}");
    assert_eq!(
        summary.metrics["num_tokens"],
        metrics.iter().rev().find_map(|l| l.get("num_tokens")).expect("there").clone()
    );

    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("a folder")
            .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
            .filter(|name| !name.starts_with("events.out"))
            .collect();
        names.sort();
        names
    };
    let checkpoints = ["checkpoint-14", "checkpoint-21", "checkpoint-25", "checkpoint-7"];
    let files = [
        "before.json",
        "config.toml",
        "events.jsonl",
        "meta.json",
        "metrics.jsonl",
        "model",
        "samples.jsonl",
        "summary.json",
    ];
    assert_eq!(names(&dir), [&[".lock"], &files[..1], &checkpoints[..], &files[1..]].concat());
    for part in checkpoints.iter().chain(&["model"]) {
        ModelFolder::open(&dir.join(part)).expect("a model that loads");
    }
    let state: Value =
        serde_json::from_slice(&fs::read(dir.join("checkpoint-25/trainer_state.json")).expect("a file"))
            .expect("JSON");
    assert_eq!(state["global_step"], 25);
    assert_eq!(state["epoch"], 1.0);
    assert_eq!(state["log_history"].as_array().expect("lines").len(), metrics.len());
    let samples = lines(dir.join("samples.jsonl"));
    assert_eq!(samples.len(), 4);
    assert!(
        samples.iter().all(|l| l["prompt"].is_string() && l["before"].is_string() && l["after"].is_string())
    );
    let read: Summary =
        serde_json::from_slice(&fs::read(dir.join("summary.json")).expect("a file")).expect("JSON");
    assert_eq!(read, summary);
}

#[test]
fn a_run_interrupted_anywhere_ends_with_the_bytes_of_the_uninterrupted_one() {
    let whole = place(str::to_owned);
    let summary = quiet(&load(whole.path(), "dpo.toml", &[]), false);
    let (tether, evaluation) = (summary.tether.expect("a tether"), summary.evaluation);
    assert!(tether.measured > 0.0 && tether.beta > 0.0);
    assert!(evaluation.as_ref().is_some_and(|evaluation| evaluation.before != evaluation.after));
    // Interrupted after 3, 4, 5 ... events: inside steps, between checkpoints, while sampling, in both stages.
    let broken = place(str::to_owned);
    let mut interruptions = 0;
    loop {
        let recipe = load(broken.path(), "dpo.toml", &[]);
        if until(&recipe, 3 + interruptions).is_some() {
            break;
        }
        interruptions += 1;
        assert!(interruptions < 100, "it gets on");
    }
    assert!(interruptions > 10, "{interruptions}");
    for name in ["base", "dpo"] {
        let (a, b) = (whole.path().join(name), broken.path().join(name));
        assert!(weights(&a) == weights(&b), "{name}: the weights differ");
        for file in ["metrics.jsonl", "samples.jsonl", "before.json"] {
            let text = |dir: &Path| fs::read_to_string(dir.join(file)).expect("a file");
            assert_eq!(text(&a), text(&b), "{name}/{file}");
        }
    }
    let again = quiet(&load(broken.path(), "dpo.toml", &[]), true);
    assert_eq!(
        (again.tether.expect("a tether"), again.evaluation),
        (tether, evaluation),
        "a finished run is not run again"
    );
}

/// Every optimizer, interrupted between two checkpoints and continued with other threads, ends with the bytes of the
/// uninterrupted run; its state is in the checkpoint under the names that others know.
#[test]
fn every_optimizer_continues_exactly() {
    for (optimizer, parts) in [
        ("{ learning_rate = 1e-2, weight_decay = 0.1 }", &["exp_avg", "exp_avg_sq"][..]),
        ("{ name = \"lion\", learning_rate = 1e-3, weight_decay = 1.0 }", &["exp_avg"]),
        (
            "{ name = \"lion\", learning_rate = 1e-2, decay = \"implicit\", kappa = { name = \"nuclear\" } }",
            &["exp_avg"],
        ),
        ("{ name = \"lion\", learning_rate = 1e-2, kappa = { name = \"top-k\", k = 100 } }", &["exp_avg"]),
        ("{ name = \"sgd\", learning_rate = 0.1, momentum = 0.9, nesterov = true }", &["momentum_buffer"]),
        ("{ name = \"sign-sgd\", learning_rate = 1e-3 }", &["momentum_buffer"]),
    ] {
        let of = |threads: &str, stops: &[usize]| {
            let place = place(|text| text.replace("[optimizer]\nlearning_rate = 1e-2\n", ""));
            let optimizer = format!("optimizer={optimizer}");
            let sets =
                [&optimizer, threads, "train.max_steps=10", "train.save_steps=4", "train.sample_prompts=0"];
            let recipe = load(place.path(), "base.toml", &sets);
            for &stop in stops {
                assert!(until(&recipe, stop).is_none(), "{optimizer} was interrupted");
            }
            let summary = quiet(&recipe, !stops.is_empty());
            let dir = place.path().join("base");
            let state = SafeTensors::open(&dir.join("checkpoint-10/optimizer.safetensors")).expect("state");
            let known = |name: &str| parts.iter().any(|part| name.starts_with(&format!("{part}.")));
            assert!(state.names().all(known), "{optimizer}: {:?}", state.names().next());
            let file = |name: &str| fs::read(dir.join(name)).expect("a file");
            let first = &lines(dir.join("metrics.jsonl"))[0]["loss"];
            let [first, last] =
                [first, &summary.metrics["loss"]].map(|loss| loss.as_f64().expect("a number"));
            assert!(last < first, "{optimizer}: the loss goes from {first} to {last}");
            (file("checkpoint-10/optimizer.safetensors"), weights(&dir), file("metrics.jsonl"))
        };
        let (whole, broken) = (of("train.threads=1", &[]), of("train.threads=2", &[7, 6]));
        assert!(whole == broken, "{optimizer}");
    }
}

/// Samples of a step are a function of its weights, seed and number: a run that is interrupted draws them again.
#[test]
fn a_method_that_samples_continues_exactly_and_without_its_samples_is_dpo() {
    let of = |method: &str, stops: &[usize]| {
        let place = place(|text| text.replace("name = \"dpo\"\nlabel_smoothing = 0.1\n", method));
        let recipe = load(place.path(), "dpo.toml", &["train.logging_steps=1"]);
        for &stop in stops {
            assert!(until(&recipe, stop).is_none(), "it was interrupted");
        }
        quiet(&recipe, !stops.is_empty());
        let dir = place.path().join("dpo");
        (weights(&dir), lines(dir.join("metrics.jsonl")))
    };
    let sampling = "name = \"hypo\"\nlambda = 0.3\nevery = 2\nmax_completion_length = 3\nclip = 2.0\n";
    let whole = of(sampling, &[]);
    assert!(whole == of(sampling, &[60, 9, 12]), "continued, it ends with other bytes");
    let steps: Vec<u64> = whole
        .1
        .iter()
        .filter(|line| line.get("kl").is_some())
        .filter_map(|line| line["step"].as_u64())
        .collect();
    assert_eq!(steps, [1, 3, 5, 7, 9, 11, 13]);

    let dpo = of("name = \"dpo\"\n", &[]);
    assert!(of("name = \"hypo\"\nlambda = 0.0\n", &[]) == dpo, "lambda = 0 is dpo to the bit");
    assert!(whole.0 != dpo.0);
}

#[test]
fn a_method_that_samples_needs_room_for_them() {
    let place = place(|text| text.replace("name = \"dpo\"\nlabel_smoothing = 0.1\n", "name = \"hypo\"\n"));
    quiet(&load(place.path(), "base.toml", &[]), false);
    let open = |length: usize| {
        let set = format!("method.max_completion_length={length}");
        Job::open(&resolved(&load(place.path(), "dpo.toml", &[&set])).expect("a recipe"))
    };
    let bytes = |length| open(length).expect("it fits").memory().expect("a plan").bytes();
    assert!(bytes(64) > bytes(8));
    let error = open(1 << 20).expect_err("refused").to_string();
    assert!(error.starts_with("method.max_completion_length: a prompt of "), "{error}");
}

#[test]
fn threads_do_not_change_a_byte() {
    let runs = ["1", "2"].map(|threads| {
        let place = place(str::to_owned);
        let set = format!("train.threads={threads}");
        quiet(&load(place.path(), "base.toml", &[&set]), false);
        (
            weights(&place.path().join("base")),
            fs::read(place.path().join("base/metrics.jsonl")).expect("a file"),
        )
    });
    assert!(runs[0] == runs[1]);
}

#[test]
fn how_a_step_is_divided_does_not_matter() {
    let runs = [("8", "1"), ("1", "8"), ("3", "8")].map(|(size, parts)| {
        let place = place(str::to_owned);
        let (size, parts) = (
            format!("train.per_device_train_batch_size={size}"),
            format!("train.gradient_accumulation_steps={parts}"),
        );
        let sets = [
            size.as_str(),
            &parts,
            "train.max_steps=3",
            "train.logging_steps=1",
            "optimizer.learning_rate=1e-4",
        ];
        quiet(&load(place.path(), "base.toml", &sets), false);
        lines(place.path().join("base/metrics.jsonl"))
    });
    for (a, b) in runs[0].iter().zip(&runs[1]) {
        for (name, value) in a.as_object().expect("an object") {
            let (x, y) = (value.as_f64().expect("a number"), b[name].as_f64().expect("a number"));
            assert!((x - y).abs() <= 1e-5 * x.abs().max(1e-3), "{name}: {x} against {y}");
        }
    }
    assert_ne!(runs[0][0], runs[2][0], "24 records a step are another run");
}

#[test]
fn a_recipe_starts_from_the_result_of_another() {
    let place = place(str::to_owned);
    let recipe = load(place.path(), "dpo.toml", &[]);
    quiet(&recipe, false);
    let mut reused = false;
    let half = place.path().join("base/cost.json.partial-12-3");
    fs::write(&half, "{").expect("written");
    let recipe = load(place.path(), "dpo.toml", &["train.output_dir=second"]);
    run(&recipe, false, &mut |event| reused |= matches!(event, Event::Reused { .. })).expect("the run ends");
    assert!(reused, "the first stage is not run twice");
    assert!(!half.exists(), "what a kill left half-written is removed");
    assert_eq!(weights(&place.path().join("dpo")), weights(&place.path().join("second")));

    // By another name of the same place.
    let mut reused = false;
    let recipe = load(&place.path().join("second/.."), "dpo.toml", &["train.output_dir=third"]);
    run(&recipe, false, &mut |event| reused |= matches!(event, Event::Reused { .. })).expect("the run ends");
    assert!(reused, "the first stage is not run again");

    let changed = BASE.replace("1e-2", "2e-2");
    fs::write(place.path().join("base.toml"), changed).expect("written");
    let recipe = load(place.path(), "dpo.toml", &["train.output_dir=fourth"]);
    let message = run(&recipe, false, &mut |_| {}).expect_err("refused").to_string();
    let expected = format!(
        "model.recipe: {}: {} holds a run with other settings; remove it or change train.output_dir",
        place.path().join("base.toml").display(),
        place.path().join("base").display()
    );
    assert_eq!(message, expected);
}

#[test]
fn a_recipe_cannot_start_from_itself() {
    let place = place(|text| text.replace("base.toml", "dpo.toml"));
    let message =
        run(&load(place.path(), "dpo.toml", &[]), false, &mut |_| {}).expect_err("refused").to_string();
    assert!(message.ends_with("dpo.toml: starts from itself"), "{message}");
}

#[test]
fn the_best_evaluation_is_kept() {
    let place = place(str::to_owned);
    // A learning rate that grows far too large: the first evaluations are the best.
    let sets = [
        "train.load_best_model_at_end=true",
        "train.eval_steps=5",
        "train.save_total_limit=1",
        "optimizer.learning_rate=0.5",
        "train.warmup_steps=25",
        "train.lr_scheduler_type=constant",
    ];
    let summary = quiet(&load(place.path(), "base.toml", &sets), false);
    let dir = place.path().join("base");
    let evals: Vec<(u64, f64)> = lines(dir.join("metrics.jsonl"))
        .iter()
        .filter_map(|l| Some((l["step"].as_u64()?, l.get("eval_loss")?.as_f64()?)))
        .collect();
    let best = evals.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("evaluations").0;
    assert!(best < 25, "{evals:?}");
    assert_eq!(summary.model_step, best);
    let kept = fs::read(dir.join(format!("checkpoint-{best}/model.safetensors")))
        .expect("the best checkpoint stays");
    assert!(kept == weights(&dir));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_anything_is_changed() {
    let place = place(str::to_owned);
    let sets = [
        "optimizer.learning_rate=1e30",
        "train.logging_steps=1",
        "train.save_steps=1",
        "optimizer.max_grad_norm=0",
    ];
    let recipe = load(place.path(), "base.toml", &sets);
    let error = run(&recipe, false, &mut |_| {}).expect_err("stops");
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(" of step ") && message.contains("(records "), "{message}");
    let dir = place.path().join("base");
    let last = lines(dir.join("metrics.jsonl")).pop().expect("a line");
    assert!(last["loss"].is_number(), "no line after the last good step: {last}");
    assert!(!dir.join("model").exists() && !dir.join("summary.json").exists());
    let step = last["step"].as_u64().expect("a step");
    assert!(message.contains(&format!("of step {}", step + 1)), "{message}");
}

#[test]
fn settings_that_are_refused_leave_no_folder() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &[]), false);
    for (set, message) in [
        ("tether.beta=1.0", "tether: takes `budget` or `beta`, not both; remove one"),
        ("tether.every=0", "tether.every: must be at least 1"),
        ("train.warmup_ratio=1.5", "train.warmup_ratio: must be in [0, 1]"),
    ] {
        let refused = Recipe::load(&place.path().join("dpo.toml"), &[set.to_owned()])
            .and_then(|recipe| run(&recipe, false, &mut |_| {}))
            .expect_err(set);
        assert!(refused.to_string().starts_with(message), "{refused}");
        assert!(!place.path().join("dpo").exists(), "{set}");
    }
}

#[test]
fn a_used_folder_and_a_changed_recipe_are_refused() {
    let place = place(str::to_owned);
    let recipe = load(place.path(), "base.toml", &["train.max_steps=3"]);
    quiet(&recipe, false);
    let before = weights(&place.path().join("base"));
    let message = run(&recipe, false, &mut |_| {}).expect_err("refused").to_string();
    assert!(message.contains("is not empty; continue the run in it with --resume"), "{message}");
    let other = load(place.path(), "base.toml", &["train.max_steps=4"]);
    let message = run(&other, true, &mut |_| {}).expect_err("refused").to_string();
    assert!(
        message.contains("first difference: train.max_steps = 3 there, train.max_steps = 4 now"),
        "{message}"
    );
    assert!(before == weights(&place.path().join("base")));
    // The order of the settings is not a difference.
    let config = place.path().join("base/config.toml");
    let text = fs::read_to_string(&config).expect("a file");
    let line = "learning_rate = 0.01\n";
    let turned = text.replace(line, "").replace("[optimizer]\n", &format!("[optimizer]\n{line}"));
    assert_ne!(turned, text);
    fs::write(&config, turned).expect("written");
    quiet(&recipe, true);
}

#[test]
fn nothing_is_written_before_model_and_data_are_read() {
    let place = place(str::to_owned);
    fs::write(place.path().join("bad.jsonl"), "{\"prompt\": \"1,1,1,1=\", \"completion\": \"2\"}\n{oops\n")
        .expect("written");
    let text = BASE.replace("generate = { samples = 200, eval_samples = 20 }", "path = \"bad.jsonl\"");
    fs::write(place.path().join("bad.toml"), text).expect("written");
    let message =
        run(&load(place.path(), "bad.toml", &[]), false, &mut |_| {}).expect_err("refused").to_string();
    assert!(message.starts_with("model.new.tokenizer: is needed"), "{message}");
    assert!(!place.path().join("base").exists());
}

#[test]
fn a_fraction_is_held_out_without_sharing_prompts() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &["train.max_steps=1"]), false);
    let pair = |i: usize| json!({ "prompt": format!("{},1,1,1=", i % 10), "chosen": "5", "rejected": format!("7{i}") });
    let pairs: Vec<String> = (0..40).map(|i| pair(i).to_string()).collect();
    fs::write(place.path().join("pairs.jsonl"), pairs.join("\n")).expect("written");
    let text = "[model]\npath = \"base/model\"\n[data]\npath = \"pairs.jsonl\"\neval_fraction = 0.25\n[method]\nname = \"dpo\"\n";
    fs::write(place.path().join("file.toml"), text).expect("written");
    let job = Job::open(&load(place.path(), "file.toml", &[])).expect("opens");
    let eval = job.eval().expect("held out");
    assert_eq!((job.train().len(), eval.len()), (28, 12), "prompts come in groups of four");
    assert_eq!(job.steps(), 3 * 4);
}

#[test]
fn pairs_are_judged_one_by_one_where_the_method_wants_that() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &["train.max_steps=1"]), false);
    let pair = |i: usize| json!({ "prompt": format!("{},1,1,1=", i % 10), "chosen": "5", "rejected": format!("7{i}") });
    let pairs: Vec<String> = (0..40).map(|i| pair(i).to_string()).collect();
    fs::write(place.path().join("pairs.jsonl"), pairs.join("\n")).expect("written");
    let text = "[model]\npath = \"base/model\"\n[data]\npath = \"pairs.jsonl\"\neval_fraction = 0.25\n[method]\nname = \"kto\"\n";
    fs::write(place.path().join("file.toml"), text).expect("written");
    let job = Job::open(&load(place.path(), "file.toml", &[])).expect("opens");
    let eval = job.eval().expect("held out");
    assert_eq!((job.train().len(), eval.len()), (56, 24), "both completions of a prompt stay on one side");
    assert!(job.findings().iter().all(|finding| finding.severity() == Severity::Info));
    assert_eq!(job.shown(2).len(), 2);
    assert_eq!(job.unreachable().expect("computes"), Vec::<String>::new());
}

#[test]
fn a_baseline_is_the_mean_over_completions_of_others() {
    let place = place(str::to_owned);
    for (out, rate) in [("base", "1e-2"), ("other", "3e-3")] {
        let sets = [format!("train.output_dir={out}"), format!("optimizer.learning_rate={rate}")];
        quiet(&load(place.path(), "base.toml", &sets.each_ref().map(String::as_str)), false);
    }
    let (prompts, completions) = (["1,2,3,4=", "7=", "0,9="], ["4", "70,7", "9,9"]);
    let file = |name: &str, shift: usize| {
        let row = |i: usize| json!({ "prompt": prompts[i], "completion": completions[(i + shift) % 3], "label": true });
        let rows: Vec<String> = (0..3).map(|i| row(i).to_string()).collect();
        fs::write(place.path().join(name), rows.join("\n")).expect("written");
    };
    file("own.jsonl", 0);
    file("swapped.jsonl", 2);
    let metric = |data: &str, from: &str, to: &str, name: &str, sets: &[&str]| -> f64 {
        let text = format!(
            "[model]\npath = \"{from}/model\"\n[data]\npath = \"{data}\"\neval_path = \"{data}\"\n[method]\nname = \"kto\"\nbeta = 1.0\n"
        );
        fs::write(place.path().join("file.toml"), text).expect("written");
        let job = Job::open(&load(place.path(), "file.toml", sets)).expect("opens");
        let means = job.evaluate(Some(&place.path().join(to).join("model"))).expect("evaluates");
        means.iter().find(|(known, _)| *known == name).expect("a metric").1
    };
    let mean = metric("swapped.jsonl", "base", "other", "rewards/chosen", &[]);
    assert!(mean.abs() > 1e-3, "the two models differ: {mean}");
    for (from, to, mean) in [("base", "other", mean), ("other", "base", -mean)] {
        for size in ["1", "2", "3"] {
            let sets = [format!("train.per_device_eval_batch_size={size}")];
            let sets = sets.each_ref().map(String::as_str);
            let kl = metric("own.jsonl", from, to, "kl", &sets);
            assert!((kl - mean.max(0.0)).abs() < 1e-5, "{from} to {to} in {size}: {kl} against {mean}");
            let clamped = metric("own.jsonl", from, to, "kl/clamped", &sets);
            assert!((clamped - f64::from(mean < 0.0)).abs() < 1e-12);
        }
    }
    // The first row has 9 tokens; the completion before it, put under its prompt, would make 11.
    let long = ["data.max_length=9"];
    assert!(metric("own.jsonl", "base", "other", "kl/truncated", &long) > 0.3);
    assert!(metric("own.jsonl", "base", "other", "kl/truncated", &[]) == 0.0);
}

#[test]
fn a_step_of_one_completion_has_no_baseline() {
    let place = place(str::to_owned);
    let open = |sets: &[&str]| {
        let sets = [&["method.name=kto"], sets].concat();
        Job::open(&load(place.path(), "base.toml", &sets)).map(drop).map_err(|error| error.to_string())
    };
    let message = "train.per_device_train_batch_size: 9 examples in steps of 4 leave a step of one, which has no completion of \
                   another example for the baseline of `kto`; choose another size, or loss_type = \"apo_zero_unpaired\", \
                   which has none";
    let nine = ["data.generate.samples=9", "train.per_device_train_batch_size=4"];
    assert_eq!(open(&nine), Err(message.to_owned()));
    assert_eq!(open(&[&nine[..], &["method.loss_type=apo_zero_unpaired"]].concat()), Ok(()));
    assert_eq!(open(&["data.generate.samples=9", "train.per_device_train_batch_size=3"]), Ok(()));
    assert!(open(&["train.per_device_train_batch_size=1"]).is_err());
    assert_eq!(
        open(&["data.generate.eval_samples=1"]),
        Err("data: the baseline of `kto` needs at least 2 held-out examples, there is 1".to_owned())
    );
}

#[test]
fn a_tether_needs_several_prompts() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &["train.max_steps=1"]), false);
    let pair = json!({ "prompt": "1,1,1,1=", "chosen": "2", "rejected": "3" }).to_string();
    fs::write(place.path().join("pairs.jsonl"), &pair).expect("written");
    let text = "[model]\npath = \"base/model\"\n[data]\npath = \"pairs.jsonl\"\neval_path = \"pairs.jsonl\"\n\
                [method]\nname = \"dpo\"\n[tether]\nbudget = 1.0\n";
    fs::write(place.path().join("file.toml"), text).expect("written");
    let message = Job::open(&load(place.path(), "file.toml", &[])).expect_err("refused").to_string();
    let expected = "an interval needs at least 2 different prompts to train on and 2 held out, there are 1";
    assert_eq!(message, format!("tether: {expected}"));
}

#[test]
fn a_run_that_leaves_its_budget_ends_with_the_last_weights_within_it() {
    let place = place(str::to_owned);
    // A controller that does nothing and measures at every step, on steps so small that the first ones are within
    // the budget: the divergence grows past it.
    let sets = [
        "tether.kp=0",
        "tether.ki=0",
        "tether.kd=0",
        "tether.every=1",
        "tether.prompts=16",
        "tether.budget=0.3",
        "tether.initial_beta=0.1",
        "train.lr_scheduler_type=constant",
        "optimizer.learning_rate=1e-3",
        "train.max_steps=24",
    ];
    let mut held = Vec::new();
    let summary = run(&load(place.path(), "dpo.toml", &sets), false, &mut |event| {
        if let Event::Measured { step, verdict: Some(Verdict::Held), .. } = event {
            held.push(*step);
        }
    })
    .expect("the run ends");
    let dir = place.path().join("dpo");
    assert!(summary.model_step < summary.steps, "the budget is left: {summary:?}");
    assert_eq!(held.last(), Some(&summary.model_step), "{held:?}");
    assert!(
        weights(&dir) != fs::read(dir.join("checkpoint-24/model.safetensors")).expect("the last weights")
    );
    let (tether, evaluation) = (summary.tether.expect("a tether"), summary.evaluation.expect("held out"));
    assert_eq!(tether.held, Some(tether.interval[1] <= 0.3));
    assert_ne!(evaluation.after["loss"], summary.metrics["eval_loss"], "not that of the last step");
    let job = Job::open(&resolved(&load(place.path(), "dpo.toml", &sets)).expect("a recipe")).expect("opens");
    let means = job.evaluate(Some(&dir.join("model"))).expect("evaluates");
    assert!(means.iter().all(|(name, value)| evaluation.after[name] == json!(value)), "{means:?}");
    let state: Value =
        serde_json::from_slice(&fs::read(dir.join("checkpoint-24/state.json")).expect("a file"))
            .expect("JSON");
    assert_eq!(state["kept"]["step"], summary.model_step);
    assert!(dir.join("checkpoint-24/kept.safetensors").is_file());
}

#[test]
fn a_tether_holds_a_method_without_a_coefficient_of_its_own() {
    let runs = ["0.0001", "30.0"].map(|beta| {
        let place = place(|text| text.replace("name = \"dpo\"\nlabel_smoothing = 0.1", "name = \"sft\""));
        let beta = format!("tether.beta={beta}");
        let text =
            fs::read_to_string(place.path().join("dpo.toml")).expect("a file").replace("budget = 0.5", "");
        fs::write(place.path().join("dpo.toml"), text).expect("written");
        let summary = quiet(
            &load(
                place.path(),
                "dpo.toml",
                &[&beta, "data.generate.right=1.0", "optimizer.learning_rate=1e-2"],
            ),
            false,
        );
        assert!(summary.metrics["tether/divergence_data"].is_number());
        let tether = summary.tether.expect("a tether");
        assert_eq!((tether.held, tether.budget), (None, None));
        tether.measured
    });
    assert!(runs[1] < 0.5 * runs[0], "a stronger penalty holds it closer: {runs:?}");
}
