//! Methods on rewards of the policy's own completions: that they learn, what they write down, that a run continues exactly.

use std::fs;
use std::path::Path;

use saddlepoint_lm::method::MethodConfig;
use saddlepoint_lm::model::SafeTensors;
use saddlepoint_lm::trainer::Summary;
use serde_json::Value;

use crate::trainer::{lines, load, quiet, until, weights};

/// Says the largest of four digits, in two cases of three.
const BASE: &str = r#"
[model]
new = { hidden_size = 48, intermediate_size = 96, num_hidden_layers = 2, num_attention_heads = 2, num_key_value_heads = 1 }
[data]
generate = { samples = 4000, eval_samples = 20, right = 0.5 }
[optimizer]
learning_rate = 5e-3
[train]
output_dir = "base"
per_device_train_batch_size = 32
max_steps = 120
sample_prompts = 0
"#;

/// METHOD stands for a method with its settings.
const REWARDED: &str = r#"
[model]
recipe = "base.toml"
[data]
generate = { samples = 400, eval_samples = 100 }
[method]
METHOD
[rollout]
num_generations = 4
max_completion_length = 4
[reward]
reward_funcs = [{ name = "task_reward" }]
[optimizer]
learning_rate = 1e-3
[train]
output_dir = "run"
per_device_train_batch_size = 32
max_steps = 40
logging_steps = 1
save_steps = 0
sample_prompts = 8
max_completion_length = 4
"#;

pub(crate) fn place(method: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary folder");
    fs::write(place.path().join("base.toml"), BASE).expect("written");
    fs::write(place.path().join("run.toml"), REWARDED.replace("METHOD", method)).expect("written");
    place
}

/// Another place with the same base, and the same teacher if there is one.
fn beside(place: &Path, method: &str) -> tempfile::TempDir {
    let other = self::place(method);
    for folder in ["base", "teacher"].into_iter().filter(|folder| place.join(folder).is_dir()) {
        let (from, to) = (place.join(folder), other.path().join(folder));
        fs::create_dir_all(to.join("model")).expect("a folder");
        for file in ["config.toml", "summary.json"] {
            fs::copy(from.join(file), to.join(file)).expect("copied");
        }
        for entry in fs::read_dir(from.join("model")).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), to.join("model").join(entry.file_name())).expect("copied");
        }
        // Its recipe names its own folder.
        let config = fs::read_to_string(to.join("config.toml")).expect("text");
        let moved = config.replace(&place.display().to_string(), &other.path().display().to_string());
        fs::write(to.join("config.toml"), moved).expect("written");
    }
    other
}

fn held_out(summary: &Summary, name: &str) -> [f64; 2] {
    let evaluation = summary.evaluation.as_ref().expect("something is held out");
    [&evaluation.before, &evaluation.after].map(|means| means[name].as_f64().expect("a number"))
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"))
}

/// Every method makes right answers more frequent on problems that it has not seen, and the log-probabilities that it trains
/// are those that it sampled with.
#[test]
fn success_rises() {
    let methods = [
        "name = \"grpo\"",
        "name = \"rloo\"\nbeta = 0.0",
        "name = \"reinforce\"",
        "name = \"disco\"",
        "name = \"ppo\"",
    ];
    let first = place(methods[0]);
    for method in methods {
        let place = if method == methods[0] { None } else { Some(beside(first.path(), method)) };
        let path = place.as_ref().map_or(first.path(), tempfile::TempDir::path);
        let sets = ["train.max_steps=100", "data.generate.samples=800", "data.generate.eval_samples=400"];
        let summary = quiet(&load(path, "run.toml", &sets), false);
        let [before, after] = held_out(&summary, "reward");
        assert!(after > before + 0.15, "{method}: from {before} to {after}");
        let metrics = lines(path.join("run/metrics.jsonl"));
        for line in metrics.iter().filter(|line| line.get("loss").is_some()) {
            assert!(number(line, "sampling/sampling_logp_difference/max") < 1e-4, "{line}");
            let clipped = line["clip_ratio/region_mean"].as_f64();
            assert!(clipped.is_none_or(|share| share < 1e-12), "new samples: {line}");
            assert_eq!(line["reward"], line["rewards/task_reward/mean"]);
        }
    }
}

/// Each completion that was trained on stands in `samples.jsonl`, and what is said there is what the metrics say.
#[test]
fn every_completion_is_written_down() {
    let place = place("name = \"grpo\"\nscale_rewards = \"none\"");
    let recipe = load(place.path(), "run.toml", &["train.max_steps=3"]);
    let summary = quiet(&recipe, false);
    let run = place.path().join("run");
    let (samples, metrics) = (lines(run.join("samples.jsonl")), lines(run.join("metrics.jsonl")));
    let (trained, compared): (Vec<&Value>, Vec<&Value>) =
        samples.iter().partition(|line| line.get("step").is_some());
    assert_eq!((trained.len(), compared.len()), (3 * 32, 8));
    assert!(compared.iter().all(|line| line["before"].is_string() && line["after"].is_string()));
    for step in 1..=3 {
        let of_step: Vec<&Value> = trained.iter().filter(|line| line["step"] == step).copied().collect();
        assert_eq!(of_step.len(), 32);
        let line =
            metrics.iter().find(|line| line["step"] == step && line.get("loss").is_some()).expect("metrics");
        let mean = |name: &str| of_step.iter().map(|sample| number(sample, name)).sum::<f64>() / 32.0;
        assert!((mean("reward") - number(line, "reward")).abs() < 1e-12);
        assert!((mean("tokens") - number(line, "completions/mean_length")).abs() < 1e-12);
        let mut equal = 0;
        for group in of_step.chunks(4) {
            assert!(
                group
                    .iter()
                    .all(|sample| sample["prompt"] == group[0]["prompt"]
                        && sample["group"] == group[0]["group"])
            );
            let mean = group.iter().map(|sample| number(sample, "reward")).sum::<f64>() / 4.0;
            for sample in group {
                assert!((number(sample, "advantage") - (number(sample, "reward") - mean)).abs() < 1e-12);
                assert_eq!(sample["rewards"]["task_reward"], sample["reward"]);
                assert!(number(sample, "logp") < 0.0);
            }
            equal += usize::from(group.iter().all(|sample| sample["reward"] == group[0]["reward"]));
        }
        assert!((equal as f64 / 8.0 - number(line, "frac_reward_zero_std")).abs() < 1e-12);
    }
    assert!(number(&Value::Object(summary.metrics.clone()), "epoch") > 0.0);
}

/// Interrupted anywhere, also between steps that go on with the completions of a round, a run ends with the same bytes.
#[test]
fn a_run_continues_exactly_in_the_middle_of_a_round() {
    let sets = [
        "train.max_steps=11",
        "train.save_steps=1",
        "train.per_device_train_batch_size=4",
        "train.gradient_accumulation_steps=2",
        "rollout.steps_per_generation=4",
        "rollout.num_iterations=2",
        "data.generate.eval_samples=8",
        "data.generate.samples=20",
    ];
    let method = "name = \"grpo\"\nloss_type = \"grpo\"\nbeta = 0.1";
    let whole = place(method);
    quiet(&load(whole.path(), "run.toml", &sets), false);
    let broken = beside(whole.path(), method);
    let recipe = load(broken.path(), "run.toml", &sets);
    let mut interruptions = 0;
    while until(&recipe, 3 + interruptions).is_none() {
        interruptions += 1;
        assert!(interruptions < 100, "it gets on");
    }
    assert!(interruptions > 5, "{interruptions}");
    let [a, b] = [&whole, &broken].map(|place| place.path().join("run"));
    assert!(weights(&a) == weights(&b), "the weights differ");
    for file in ["metrics.jsonl", "samples.jsonl", "before.json", "checkpoint-10/rollouts.json"] {
        assert!(fs::read(a.join(file)).expect(file) == fs::read(b.join(file)).expect(file), "{file}");
    }
    let there = |step: u64| a.join(format!("checkpoint-{step}/rollouts.json")).is_file();
    assert_eq!((1..=11).filter(|&step| there(step)).collect::<Vec<_>>(), [1, 2, 3, 5, 6, 7, 9, 10, 11]);
    let metrics = lines(a.join("metrics.jsonl"));
    let sampled = |line: &&Value| line.get("reward").is_some();
    let steps: Vec<u64> =
        metrics.iter().filter(sampled).map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [1, 5, 9], "a round is judged once");
    let later: Vec<f64> = metrics.iter().filter_map(|line| line["clip_ratio/region_mean"].as_f64()).collect();
    assert_eq!(later.len(), 11);
}

/// What values are learned beside the policy is continued too, and is no part of the model.
#[test]
fn values_are_continued_and_not_published() {
    let sets = [
        "train.max_steps=5",
        "train.save_steps=1",
        "train.per_device_train_batch_size=8",
        "rollout.steps_per_generation=2",
        "rollout.num_iterations=2",
        "data.generate.eval_samples=8",
        "data.generate.samples=20",
    ];
    for lora in ["", "path = \"base/model\"\nlora = { r = 4 }"] {
        let method = "name = \"ppo\"\nvf_coef = 0.5";
        let whole = place(method);
        let adapt = |place: &Path| {
            if !lora.is_empty() {
                if !place.join("base/summary.json").is_file() {
                    quiet(&load(place, "base.toml", &[]), false);
                }
                let text = fs::read_to_string(place.join("run.toml")).expect("text");
                fs::write(place.join("run.toml"), text.replace("recipe = \"base.toml\"", lora))
                    .expect("written");
            }
        };
        adapt(whole.path());
        quiet(&load(whole.path(), "run.toml", &sets), false);
        let run = whole.path().join("run");
        let file = if lora.is_empty() { "model.safetensors" } else { "adapter_model.safetensors" };
        let published = SafeTensors::open(&run.join("model").join(file)).expect("weights");
        assert!(published.names().all(|name| !name.contains("score")));
        let values = SafeTensors::open(&run.join("checkpoint-5/value_head.safetensors")).expect("values");
        assert_eq!(values.names().count(), 1);
        for line in lines(run.join("metrics.jsonl")).iter().filter(|line| line.get("loss").is_some()) {
            assert!(
                number(line, "loss/value_avg") >= 0.0 && number(line, "val/clipfrac_avg") <= 1.0,
                "{line}"
            );
            assert_eq!(line.get("returns/mean").is_some(), line.get("reward").is_some(), "{line}");
        }

        let broken = beside(whole.path(), method);
        adapt(broken.path());
        let recipe = load(broken.path(), "run.toml", &sets);
        let mut stop = 4;
        while until(&recipe, stop).is_none() {
            stop += 1;
            assert!(stop < 60, "it gets on");
        }
        let bytes = |run: &Path| fs::read(run.join("model").join(file)).expect("weights");
        assert!(bytes(&run) == bytes(&broken.path().join("run")), "the weights differ");
    }
}

/// Completions without a reward and those that were cut are counted, and nothing is learned from them.
#[test]
fn what_cannot_be_judged_teaches_nothing() {
    let place = place("name = \"grpo\"");
    let line = |i: usize| {
        let solution = if i.is_multiple_of(2) { "\"9\"" } else { "null" };
        format!("{{\"prompt\": \"4,9,2,{}=\", \"solution\": {solution}}}\n", i % 10)
    };
    let data = (0..40).map(line).collect::<Vec<_>>().concat();
    fs::write(place.path().join("prompts.jsonl"), data).expect("written");
    let recipe = fs::read_to_string(place.path().join("run.toml")).expect("text");
    let recipe = recipe
        .replace("generate = { samples = 400, eval_samples = 100 }", "path = \"prompts.jsonl\"")
        .replace("name = \"task_reward\"", "name = \"exact_match\"");
    fs::write(place.path().join("run.toml"), recipe).expect("written");
    quiet(&load(place.path(), "run.toml", &["train.max_steps=2", "train.output_dir=half"]), false);
    for line in
        lines(place.path().join("half/samples.jsonl")).iter().filter(|line| line.get("step").is_some())
    {
        assert_eq!(line["advantage"].is_null(), line["reward"].is_null());
    }
    let metrics = lines(place.path().join("half/metrics.jsonl"));
    assert!(number(&metrics[0], "rewards/unjudged") > 0.0);
    assert!(number(&metrics[0], "grad_norm") > 0.0);

    // Cut after one token, every completion is left out.
    let sets = [
        "train.max_steps=2",
        "train.output_dir=cut",
        "rollout.max_completion_length=1",
        "rollout.mask_truncated_completions=true",
        "rollout.top_k=1",
    ];
    quiet(&load(place.path(), "run.toml", &sets), false);
    let metrics = lines(place.path().join("cut/metrics.jsonl"));
    assert_eq!((number(&metrics[0], "completions/masked"), number(&metrics[0], "grad_norm")), (32.0, 0.0));
    assert!(number(&metrics[0], "completions/clipped_ratio") > 1.0 - 1e-12);
    assert_eq!((number(&metrics[0], "loss"), metrics[0].get("entropy")), (0.0, None));
}

/// A budget bounds how far a method on rewards goes, which goes further without it, and is used.
#[test]
fn a_budget_holds() {
    let first = place("name = \"grpo\"");
    let tether = |how: &str| {
        format!(
            "tether={{ {how}, every = 2, prompts = 128, final_prompts = 400, max_completion_length = 4 }}"
        )
    };
    let run = |place: &Path, tether: &str| {
        let sets = ["train.max_steps=100", "data.generate.eval_samples=400", tether];
        quiet(&load(place, "run.toml", &sets), false)
    };
    let free = run(first.path(), &tether("beta = 1e-6"));
    let held =
        run(beside(first.path(), "name = \"grpo\"").path(), &tether("budget = 0.15, initial_beta = 0.5"));
    let [before, after] = held_out(&held, "reward");
    assert!(after > before + 0.15, "from {before} to {after}");
    let [free, held] = [free, held].map(|summary| summary.tether.expect("a tether"));
    assert!(free.measured > 0.3, "{free:?}");
    assert!(held.held == Some(true) && held.measured > 0.12, "{held:?}");
}

/// A filter keeps rounds full, counts what it cost, and a run with one continues exactly.
#[test]
fn a_filter_fills_rounds_and_counts_what_it_cost() {
    let method = "name = \"grpo\"";
    let whole = place(method);
    let sets = [
        "train.max_steps=4",
        "train.save_steps=1",
        "rollout.num_generations=8",
        "rollout.filter={ low = 0.3, high = 0.7, max_attempts = 3 }",
        "data.generate.eval_samples=8",
    ];
    quiet(&load(whole.path(), "run.toml", &sets), false);
    let run = whole.path().join("run");
    let (mut sampled, mut kept) = (0.0, 0);
    let samples = lines(run.join("samples.jsonl"));
    for line in lines(run.join("metrics.jsonl")).iter().filter(|line| line.get("loss").is_some()) {
        let of_step: Vec<&Value> = samples.iter().filter(|sample| sample["step"] == line["step"]).collect();
        assert_eq!(of_step.len(), 32, "always as many");
        let inside = |group: &[&Value]| {
            let share = group.iter().map(|sample| number(sample, "reward")).sum::<f64>() / 8.0;
            (0.3..=0.7).contains(&share)
        };
        let outside = of_step.chunks(8).filter(|group| !inside(group)).count();
        assert!((outside as f64 - number(line, "filter/filled")).abs() < 1e-12);
        kept += 4 - outside;
        sampled += number(line, "filter/prompts");
        assert!((number(line, "num_completions") - 8.0 * sampled).abs() < 1e-9);
        assert!(number(line, "filter/prompts") <= 12.0);
    }
    assert!(sampled > 16.0 && kept > 0, "{sampled} prompts, {kept} within the band");

    let broken = beside(whole.path(), method);
    let recipe = load(broken.path(), "run.toml", &sets);
    let mut stop = 4;
    while until(&recipe, stop).is_none() {
        stop += 1;
        assert!(stop < 60, "it gets on");
    }
    assert!(weights(&run) == weights(&broken.path().join("run")));
}

#[test]
fn every_method_on_rewards_is_refused_without_them_and_no_other_takes_them() {
    let place = place("name = \"grpo\"");
    for config in MethodConfig::defaults() {
        let method = config.build().expect("valid");
        let name = method.meta().name;
        let mut recipe = REWARDED.replace("METHOD", &format!("name = \"{name}\""));
        if method.teacher().is_some() {
            recipe.push_str("[teacher]\npath = \"teacher\"\n");
        }
        let without = recipe.replace("[reward]\nreward_funcs = [{ name = \"task_reward\" }]\n", "");
        for (text, expected) in [(&recipe, method.on_policy().is_some()), (&without, false)] {
            fs::write(place.path().join("run.toml"), text).expect("written");
            let outcome = saddlepoint_lm::recipe::Recipe::load(&place.path().join("run.toml"), &[]);
            assert_eq!(
                outcome.is_ok(),
                expected,
                "{name}: {:?}",
                outcome.err().map(|error| error.to_string())
            );
        }
    }
}

/// Right more often than the base, and of another shape.
pub(crate) fn with_teacher(place: &Path) {
    let text = BASE
        .replace("right = 0.5", "right = 0.9")
        .replace("hidden_size = 48", "hidden_size = 64")
        .replace("\"base\"", "\"teacher\"");
    fs::write(place.join("teacher.toml"), text).expect("written");
    let recipe = fs::read_to_string(place.join("run.toml")).expect("text");
    fs::write(place.join("run.toml"), recipe + "[teacher]\nrecipe = \"teacher.toml\"\n").expect("written");
}

/// A teacher's recipe is run first. The student comes near it, by either estimate; with a reward as well, which draws it
/// elsewhere, it is nearer to what is right.
#[test]
fn a_student_comes_near_its_teacher() {
    let alone = "name = \"kdrl\"\nmode = \"sequential\"\nkd_steps = 1000";
    let full = format!("{alone}\nkl_estimator = \"full\"");
    let joint = "name = \"kdrl\"\nbeta_init = 1.0\nbeta_min = 0.2\nbeta_delta = 0.02";
    let first = place(alone);
    let mut outcomes = Vec::new();
    for method in [alone, &full, joint] {
        let place = if method == alone { None } else { Some(beside(first.path(), method)) };
        let path = place.as_ref().map_or(first.path(), tempfile::TempDir::path);
        with_teacher(path);
        let sets = ["train.max_steps=60", "data.generate.samples=480", "data.generate.eval_samples=400"];
        let summary = quiet(&load(path, "run.toml", &sets), false);
        assert!(path.join("teacher/summary.json").is_file());
        let metrics = lines(path.join("run/metrics.jsonl"));
        let of = |name: &str| -> Vec<f64> {
            metrics.iter().filter_map(|line| line.get(name).and_then(Value::as_f64)).collect()
        };
        let kl = of("kl");
        assert_eq!(kl.len(), 60, "{method}");
        let (early, late) = (kl[..5].iter().sum::<f64>(), kl[55..].iter().sum::<f64>());
        assert!(late < early || method == joint, "{method}: {early} and {late}");
        let [before, after] = held_out(&summary, "reward");
        assert!(after > before + 0.1, "{method}: from {before} to {after}");
        outcomes.push(after);
    }
    assert!(outcomes[2] > outcomes[0], "{outcomes:?}");
}

/// The weight of the teacher is a function of the step, so that a run continues exactly; with LoRA the teacher is a model
/// beside the base.
#[test]
fn a_run_with_a_teacher_continues_exactly() {
    let method = "name = \"kdrl\"\nbeta_init = 0.5\nbeta_min = 0.1\nbeta_delta = 0.1\nmask = \"group\"";
    let first = place(method);
    with_teacher(first.path());
    for (output, lora) in [("full", &[][..]), ("lora", &["model.lora={ r = 2 }"][..])] {
        let output = format!("train.output_dir={output}");
        let sets = [
            &[output.as_str(), "train.max_steps=5", "train.save_steps=1", "data.generate.eval_samples=8"],
            lora,
        ]
        .concat();
        quiet(&load(first.path(), "run.toml", &sets), false);
        let broken = beside(first.path(), method);
        with_teacher(broken.path());
        let recipe = load(broken.path(), "run.toml", &sets);
        let mut interruptions = 0;
        while until(&recipe, 4 + interruptions).is_none() {
            interruptions += 1;
            assert!(interruptions < 40, "it gets on");
        }
        let [a, b] = [&first, &broken].map(|place| place.path().join(&output["train.output_dir=".len()..]));
        let model = |run: &Path| {
            fs::read(run.join("model/adapter_model.safetensors")).unwrap_or_else(|_| weights(run))
        };
        assert!(interruptions > 2 && model(&a) == model(&b), "{output}");
        for file in ["metrics.jsonl", "samples.jsonl"] {
            assert!(fs::read(a.join(file)).expect(file) == fs::read(b.join(file)).expect(file), "{file}");
        }
        let metrics = lines(a.join("metrics.jsonl"));
        let beta: Vec<f64> = metrics.iter().filter_map(|line| line["kdrl/beta"].as_f64()).collect();
        let expected = [0.5, 0.4, 0.3, 0.2, 0.1];
        assert!(beta.len() == 5 && beta.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{beta:?}");
    }
}

/// Sampled by 8-bit weights the model learns as well, the ratios are those of the policy to what sampled, and a run that stops
/// within a round goes on exactly.
#[test]
fn narrower_weights_sample_and_are_corrected_for() {
    let method = "name = \"grpo\"";
    let whole = place(method);
    let sets = [
        "train.max_steps=100",
        "data.generate.samples=800",
        "data.generate.eval_samples=400",
        "rollout.weights=\"int8\"",
    ];
    let summary = quiet(&load(whole.path(), "run.toml", &sets), false);
    let [before, after] = held_out(&summary, "reward");
    assert!(after > before + 0.15, "from {before} to {after}");
    let ratio =
        |line: &Value, name: &str| number(line, &format!("sampling/importance_sampling_ratio/{name}"));
    let apart = |line: &Value| number(line, "sampling/sampling_logp_difference/max");
    let metrics = lines(whole.path().join("run/metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|line| line.get("loss").is_some()).collect();
    assert!(steps.iter().map(|line| apart(line)).fold(0.0, f64::max) > 1e-4, "another distribution");
    for line in steps {
        assert!((ratio(line, "mean") - 1.0).abs() < 0.05, "{line}");
        assert!(ratio(line, "min") >= (-apart(line)).exp() - 1e-9, "{line}");
        assert!(ratio(line, "max") <= apart(line).exp() + 1e-9, "{line}");
        let clipped = number(line, "clip_ratio/region_mean");
        assert!(clipped < 1e-12, "the ratio of the surrogate is that of the policy to itself: {line}");
    }

    let again = [
        "train.max_steps=6",
        "train.save_steps=1",
        "train.output_dir=again",
        "rollout.weights=\"int8\"",
        "rollout.steps_per_generation=3",
        "rollout.importance_sampling_mode=\"sequence_mask\"",
    ];
    quiet(&load(whole.path(), "run.toml", &again), false);
    let broken = beside(whole.path(), method);
    let recipe = load(broken.path(), "run.toml", &again);
    let mut stop = 4;
    while until(&recipe, stop).is_none() {
        stop += 1;
        assert!(stop < 60, "it gets on");
    }
    assert!(weights(&whole.path().join("again")) == weights(&broken.path().join("again")));
}
