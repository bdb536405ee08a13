//! `saddle train`, `doctor` and `config`: recipes.

use std::fs;

use serde_json::{Value, json};

use crate::saddle::{Place, names};

/// A small model that learns sums, in a few steps.
pub(crate) const BASE: &str = "\
[model]
new = { hidden_size = 32, intermediate_size = 64, num_hidden_layers = 2, num_attention_heads = 2, num_key_value_heads = 1 }
[data]
generate = { samples = 200, eval_samples = 20 }
[optimizer]
learning_rate = 1e-2
[train]
output_dir = \"base\"
per_device_train_batch_size = 8
max_steps = 20
logging_steps = 4
eval_steps = 10
save_steps = 7
sample_prompts = 4
max_completion_length = 4
";

/// Pairs on top of it, under a budget.
pub(crate) const PAIRS: &str = "\
[model]
recipe = \"base.toml\"
[data]
generate = { samples = 120, eval_samples = 30 }
[method]
name = \"dpo\"
label_smoothing = 0.1
[tether]
budget = 5.0
every = 3
prompts = 4
final_prompts = 8
max_completion_length = 4
[optimizer]
learning_rate = 1e-3
[train]
output_dir = \"pairs\"
per_device_train_batch_size = 6
max_steps = 12
logging_steps = 3
eval_steps = 6
save_steps = 4
";

/// Rewards on top of it, from rounds of four steps.
pub(crate) const REWARDS: &str = "\
[model]
recipe = \"base.toml\"
[data]
generate = { samples = 120, eval_samples = 8 }
[method]
name = \"grpo\"
[rollout]
num_generations = 4
max_completion_length = 4
steps_per_generation = 4
[reward]
reward_funcs = [{ name = \"task_reward\" }]
[optimizer]
learning_rate = 1e-3
[train]
output_dir = \"rewards\"
per_device_train_batch_size = 8
max_steps = 90
logging_steps = 3
eval_steps = 30
save_steps = 6
sample_prompts = 4
max_completion_length = 4
";

const USED: &str = "pairs is not empty; continue the run in it with --resume, or choose another output_dir";

pub(crate) fn place() -> Place {
    let place = Place::new();
    place.write("base.toml", BASE);
    place.write("pairs.toml", PAIRS);
    place
}

#[test]
fn a_run_ends_with_its_summary_and_its_report() {
    let place = place();
    let ended = place.saddle(&["train", "pairs.toml", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let lines = ended.objects();
    assert_eq!(lines.len(), 1, "standard output holds the summary only");
    let summary = &lines[0];
    for key in ["run_dir", "steps", "seconds", "metrics", "tether", "report"] {
        assert!(summary.get(key).is_some(), "{key}: {summary}");
    }
    assert_eq!((&summary["run_dir"], &summary["steps"]), (&json!("pairs"), &json!(12)));
    assert!(summary["metrics"]["loss"].is_f64());
    let tether = &summary["tether"];
    assert_eq!(
        (&tether["divergence"], &tether["reference"], &tether["form"], &tether["budget"], &tether["held"]),
        (&json!("reverse_kl"), &json!("initial"), &json!("budget"), &json!(5.0), &json!(true))
    );
    let [low, measured, high] = [&tether["interval"][0], &tether["measured"], &tether["interval"][1]]
        .map(|v| v.as_f64().expect("a number"));
    assert!(low <= measured && measured <= high);
    for run in ["base", "pairs"] {
        let report = fs::read_to_string(place.path(run).join("report.html")).expect("a report of each run");
        assert!(report.ends_with("</html>\n"));
    }
    let half = names(&place.path("pairs")).into_iter().find(|name| name.contains(".partial-"));
    assert_eq!(half, None);

    // The same again is refused; resumed, it is complete already.
    place.refuses(&["train", "pairs.toml"], USED);
    let again = place.saddle(&["train", "pairs.toml", "--resume", "--json"]);
    assert_eq!((again.code, &again.objects()[0]["tether"]), (0, tether));
}

#[test]
fn a_used_directory_is_refused_before_the_recipe_that_comes_first_is_run() {
    let place = place();
    place.write("pairs/notes.txt", "kept");
    place.refuses(&["train", "pairs.toml"], USED);
    assert_eq!(place.names(), ["base.toml", "pairs", "pairs.toml"], "nothing was begun");
}

#[test]
fn before_and_after_are_of_the_first_and_the_final_weights() {
    let place = place();
    let ended = place.saddle(&["train", "pairs.toml", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let summary = &ended.objects()[0];
    let eval = place.saddle(&["eval", "pairs.toml", "--json"]);
    assert_eq!(summary["evaluation"], eval.objects()[0], "the same as measured from the files");
    assert_eq!(summary["evaluation"]["before"]["rewards/margins"], json!(0.0));
    assert_eq!(summary["evaluation"]["after"]["loss"], summary["metrics"]["eval_loss"]);
}

#[test]
fn the_report_loads_nothing_from_elsewhere() {
    let place = place();
    assert_eq!(place.saddle(&["train", "base.toml"]).code, 0);
    let report = fs::read_to_string(place.path("base/report.html")).expect("a report");
    for outside in ["http://", "https://", "src=", "href=", "@import", "url("] {
        assert!(!report.contains(outside), "{outside}");
    }
    assert!(report.contains("default-src 'none'"));
}

#[test]
fn a_budget_that_does_not_hold_is_code_1() {
    let place = place();
    let sets = [
        "--set",
        "tether.budget=1e-9",
        "--set",
        "tether.initial_beta=0.1",
        "--set",
        "optimizer.learning_rate=0.02",
    ];
    let ended = place.saddle(&[&["train", "pairs.toml", "--json"][..], &sets].concat());
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(ended.objects()[0]["tether"]["held"], json!(false));
}

#[test]
fn numbers_that_cease_to_be_finite_are_code_1() {
    let place = place();
    let sets = ["--set", "optimizer.learning_rate=1e38", "--set", "optimizer.max_grad_norm=0"];
    let ended = place.saddle(&[&["train", "base.toml"][..], &sets].concat());
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(" is not finite ("), "{}", ended.stderr);
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = place();
    let ended = place.saddle(&["train", "base.toml", "--dry-run", "--json"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let plan = &ended.objects()[0];
    assert_eq!((&plan["steps"], &plan["train"]["prepared"]["used"]), (&json!(20), &json!(200)));
    assert!(plan["memory"]["total"].as_u64().is_some_and(|bytes| bytes > 0), "{plan}");
    let words = place.saddle(&["train", "pairs.toml", "--dry-run"]);
    assert_eq!(words.code, 0, "{}", words.stderr);
    assert!(words.stdout.starts_with("starts from base.toml, which is run first:\n"), "{}", words.stdout);
    assert_eq!(place.names(), ["base.toml", "pairs.toml"]);
}

#[test]
fn wrong_recipes_are_told_by_file_line_and_key() {
    let place = place();
    place.write("typo.toml", "[model]\npath = \"m\"\n[method]\nname = \"dpo\"\nbetta = 0.1\n");
    place.write("broken.toml", "[model\n");
    place
        .refuses(&["train", "typo.toml"], "typo.toml:5: unknown key method.betta; did you mean method.beta?");
    for (arguments, message) in [
        (&["train", "broken.toml"][..], "broken.toml:1:"),
        (&["train", "nowhere.toml"], "cannot read nowhere.toml: No such file or directory"),
        (
            &["train", "base.toml", "--set", "train.max_steps=soon"],
            "--set train.max_steps=soon: train.max_steps: ",
        ),
        (&["train", "base.toml", "--set", "nonsense"], "--set nonsense: expected KEY=VALUE"),
        (
            &["train", "base.toml", "--set", "method={name=\"dpo\",beta=-1}"],
            "method.beta: must be > 0, got -1",
        ),
        (&["doctor", "typo.toml"], "typo.toml:5: unknown key method.betta"),
    ] {
        let ended = place.saddle(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("saddle: {message}")), "{}", ended.stderr);
    }
    assert_eq!(place.names(), ["base.toml", "broken.toml", "pairs.toml", "typo.toml"]);
}

#[test]
fn a_place_that_cannot_be_written_is_told() {
    let place = place();
    place.write("file", "kept");
    let ended = place.saddle(&["train", "base.toml", "--set", "train.output_dir=file/run"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("saddle: cannot create file/run: Not a directory"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(place.path("file")).expect("a file"), "kept");
}

#[test]
fn doctor_shows_what_is_trained_and_stops_on_an_error() {
    let place = place();
    let well = place.saddle(&["doctor", "base.toml", "--samples", "1"]);
    assert!(well.stdout.contains("=["), "the completion stands in brackets: {}", well.stdout);
    crate::model::write(&place, "m");
    // A template that never writes the token at which generation stops.
    place.write(
        "m/chat_template.jinja",
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}",
    );
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    place.write("chat.jsonl", json!({ "messages": turns }).to_string());
    place.write("chat.toml", "[model]\npath = \"m\"\n[data]\npath = \"chat.jsonl\"\n");
    let ill = place.saddle(&["doctor", "chat.toml", "--json"]);
    assert_eq!(ill.code, 2, "{}", ill.stderr);
    let findings = ill.objects();
    assert_eq!(
        (&findings[0]["severity"], &findings[0]["finding"]),
        (&json!("error"), &json!("stop_never_trained"))
    );
    assert!(ill.stderr.starts_with("saddle: chat.toml: "), "{}", ill.stderr);
}

#[test]
fn eval_of_a_recipe_compares_before_and_after() {
    let place = place();
    assert_eq!(place.saddle(&["train", "pairs.toml"]).code, 0);
    let ended = place.saddle(&["eval", "pairs.toml", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let object = &ended.objects()[0];
    assert_eq!(
        object["before"]["rewards/margins"],
        json!(0.0),
        "before training the policy is the reference"
    );
    let last: Value = fs::read_to_string(place.path("pairs/metrics.jsonl"))
        .expect("metrics")
        .lines()
        .rev()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .find(|line: &Value| line.get("eval_rewards/margins").is_some())
        .expect("an evaluation");
    assert_eq!(object["after"]["rewards/margins"], last["eval_rewards/margins"]);
}

#[test]
fn a_printed_recipe_is_the_default() {
    let place = Place::new();
    let listed = place.saddle(&["methods", "--json"]);
    let names =
        listed.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["name"].clone());
    let names: Vec<String> = names.map(|name| name.as_str().expect("a name").to_owned()).collect();
    assert!(names.len() > 2);
    for method in &names {
        let ended = place.saddle(&["config", method]);
        assert_eq!(ended.code, 0);
        place.write("recipe.toml", &ended.stdout);
        // It only lacks what has no default.
        place.refuses(&["train", "recipe.toml"], "model: needs one of `path`, `recipe` and `new`");
    }
    place.refuses(&["config", "dop"], &format!("there is no method dop; there are {}", names.join(", ")));
}
