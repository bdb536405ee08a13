//! What a run must not depend on: the number of threads, the division of a step into passes, the day it is done.
//! Each is shown on whole runs: fine-tuning, DPO of an adapter, DPO of all weights under a budget, HyPO, which learns from its
//! own samples, GRPO, which learns from rewards of them; division also on KTO, which has a mean over the step in its loss, and on LongPO, whose reference reads another
//! context.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use saddlepoint_core::test::assert_close;
use saddlepoint_lm::engine::{TensorSpec, WeightSource};
use saddlepoint_lm::model::SafeTensors;
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::trainer::run;
use serde_json::Value;

use crate::trainer::lines;

/// Large enough that every kernel has work for several threads.
const SFT: &str = r#"
[model]
new = { hidden_size = 64, intermediate_size = 160, num_hidden_layers = 2, num_attention_heads = 4, num_key_value_heads = 2 }
[data]
generate = { samples = 120, eval_samples = 24 }
[optimizer]
learning_rate = 3e-3
weight_decay = 0.1
[train]
output_dir = "sft"
per_device_train_batch_size = 8
max_steps = 10
logging_steps = 1
eval_steps = 5
save_steps = 4
sample_prompts = 8
max_completion_length = 4
"#;

/// What both recipes of pairs share.
const PAIRS: &str = r#"
[model]
path = "sft/model"
[data]
generate = { samples = 80, eval_samples = 24 }
[method]
name = "dpo"
label_smoothing = 0.1
[optimizer]
learning_rate = 1e-3
[train]
output_dir = "dpo"
per_device_train_batch_size = 8
max_steps = 8
logging_steps = 1
eval_steps = 4
save_steps = 4
sample_prompts = 8
max_completion_length = 4
"#;

const ADAPTER: [&str; 2] = ["model.lora={ r = 4 }", "model.dtype=bf16"];

const BUDGET: [&str; 1] =
    ["tether={ budget = 0.5, every = 3, prompts = 8, final_prompts = 16, max_completion_length = 4 }"];

/// What `dpo.toml` has to say of the method, for one that samples in training.
const SAMPLING: &str = "name = \"hypo\"\nlambda = 0.3\nnum_generations = 3\nevery = 2\n";

/// The same for one that learns from rewards.
const REWARDED: &str = "name = \"grpo\"\nbeta = 0.1\n[rollout]\nnum_generations = 4\nmax_completion_length = 4\n\
                        num_iterations = 2\n[reward]\nreward_funcs = [{ name = \"task_reward\" }]\n";

/// A folder with the recipes, in which the result of the first is there.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().expect("a temporary folder"));
        fs::write(place.path().join("sft.toml"), SFT).expect("written");
        fs::write(place.path().join("dpo.toml"), PAIRS).expect("written");
        let judged = PAIRS.replace("name = \"dpo\"\nlabel_smoothing = 0.1", "name = \"kto\"");
        fs::write(place.path().join("kto.toml"), judged).expect("written");
        let sampling = PAIRS.replace("name = \"dpo\"\nlabel_smoothing = 0.1\n", SAMPLING);
        fs::write(place.path().join("hypo.toml"), sampling).expect("written");
        let rewarded = PAIRS.replace("name = \"dpo\"\nlabel_smoothing = 0.1\n", REWARDED);
        fs::write(place.path().join("grpo.toml"), rewarded).expect("written");
        let long = PAIRS.replace("name = \"dpo\"\nlabel_smoothing = 0.1", "name = \"longpo\"\nlambda = 1.0");
        fs::write(place.path().join("longpo.toml"), long).expect("written");
        place.train("sft.toml", "sft", &[]);
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a recipe into the folder `out`.
    fn train(&self, recipe: &str, out: &str, sets: &[&str]) {
        let mut sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        sets.push(format!("train.output_dir={out}"));
        let recipe = Recipe::load(&self.path().join(recipe), &sets).expect("a recipe");
        run(&recipe, false, &mut |_| {}).expect("the run ends");
    }

    /// Every file of a run in which neither times nor the run's own settings stand.
    fn files(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let apart = |name: &str| {
            name.starts_with("events.")
                || ["config.toml", "meta.json", "summary.json", ".lock"].contains(&name)
        };
        let mut found = BTreeMap::new();
        let mut folders = vec![self.path().join(out)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(self.path().join(out)).expect("inside").to_string_lossy();
                if path.is_dir() {
                    folders.push(path);
                } else if !apart(&name) {
                    found.insert(name.into_owned(), fs::read(&path).expect("a file"));
                }
            }
        }
        found
    }

    /// The trained weights: tensors of the model or of the adapter by name.
    fn weights(&self, out: &str) -> BTreeMap<String, Vec<f32>> {
        let file = ["model.safetensors", "adapter_model.safetensors"]
            .map(|name| self.path().join(out).join("model").join(name))
            .into_iter()
            .find(|path| path.is_file())
            .expect("weights");
        let file = SafeTensors::open(&file).expect("a weight file");
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        let read = |name: String| {
            let dims = file.dims(&name).expect("dimensions").to_vec();
            let mut values = vec![0.0; dims.iter().product()];
            let spec = TensorSpec { name: name.clone(), dims, offset: 0 };
            file.read(&spec, &mut values).expect("a tensor");
            (name, values)
        };
        names.into_iter().map(read).collect()
    }

    fn metrics(&self, out: &str) -> Vec<Value> {
        lines(self.path().join(out).join("metrics.jsonl"))
    }

    /// One and several threads, and the same once more, give the same bytes; another seed gives others.
    fn is_the_same_for_any_number_of_threads(&self, recipe: &str, sets: &[&str]) {
        for (out, varied) in [
            ("one", "train.threads=1"),
            ("two", "train.threads=2"),
            ("again", "train.threads=2"),
            ("three", "train.threads=3"),
            ("other", "train.seed=7"),
        ] {
            self.train(recipe, out, &[sets, &[varied]].concat());
        }
        let one = self.files("one");
        let weights = |name: &&String| name.ends_with("model.safetensors");
        assert!(one.keys().filter(weights).count() >= 3, "checkpoints and the model: {:?}", one.keys());
        for file in ["metrics.jsonl", "samples.jsonl"] {
            assert!(one.contains_key(file), "{file}");
        }
        for out in ["two", "again", "three"] {
            let run = self.files(out);
            assert!(run.keys().eq(one.keys()), "{out}: other files");
            let differ: Vec<&String> = one.keys().filter(|&name| run[name] != one[name]).collect();
            assert!(differ.is_empty(), "{out}: {differ:?} differ");
        }
        assert_ne!(self.files("other")["metrics.jsonl"], one["metrics.jsonl"]);
    }

    /// A step of eight records gives the same metrics and weights however it is divided into passes.
    ///
    /// AdamW moves a weight whose gradient is nothing but rounding as far as any other; an epsilon above the rounding
    /// keeps that from being compared.
    fn is_the_same_for_any_division(&self, recipe: &str, sets: &[&str]) {
        for (size, parts) in [(8, 1), (1, 8), (2, 4)] {
            let division = [
                format!("train.per_device_train_batch_size={size}"),
                format!("train.gradient_accumulation_steps={parts}"),
                "optimizer.adam_epsilon=1e-6".to_owned(),
            ];
            let sets: Vec<&str> = sets.iter().copied().chain(division.iter().map(String::as_str)).collect();
            self.train(recipe, &format!("in-{parts}"), &sets);
        }
        let (whole, metrics) = (self.weights("in-1"), self.metrics("in-1"));
        for out in ["in-8", "in-4"] {
            for (name, values) in &self.weights(out) {
                let size = norm(whole[name].iter().copied());
                let error = norm(values.iter().zip(&whole[name]).map(|(a, b)| a - b));
                assert!(error <= 1e-5 * size, "{out}, {name}: off by {:.1e} of its norm", error / size);
            }
            let divided = self.metrics(out);
            assert_eq!(divided.len(), metrics.len());
            for (a, b) in divided.iter().zip(&metrics) {
                let (a, b) = (a.as_object().expect("an object"), b.as_object().expect("an object"));
                assert!(a.keys().eq(b.keys()));
                let values = |of: &serde_json::Map<String, Value>| -> Vec<f64> {
                    of.values().map(|value| value.as_f64().expect("a number")).collect()
                };
                // Rewards are differences of sums of log-probabilities that are themselves near 10 nats.
                assert_close!(values(a), values(b), rtol = 1e-5, atol = 1e-5);
            }
        }
    }
}

pub(crate) fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn threads_do_not_change_a_byte_of_fine_tuning() {
    Place::new().is_the_same_for_any_number_of_threads("sft.toml", &[]);
}

#[test]
fn threads_do_not_change_a_byte_of_an_adapter() {
    Place::new().is_the_same_for_any_number_of_threads("dpo.toml", &ADAPTER);
}

#[test]
fn threads_do_not_change_a_byte_under_a_budget() {
    Place::new().is_the_same_for_any_number_of_threads("dpo.toml", &BUDGET);
}

#[test]
fn division_does_not_matter_to_fine_tuning() {
    Place::new().is_the_same_for_any_division("sft.toml", &[]);
}

#[test]
fn division_does_not_matter_to_an_adapter() {
    Place::new().is_the_same_for_any_division("dpo.toml", &ADAPTER);
}

#[test]
fn division_does_not_matter_to_a_baseline_of_other_completions() {
    Place::new().is_the_same_for_any_division("kto.toml", &[]);
}

#[test]
fn division_does_not_matter_to_two_contexts() {
    Place::new().is_the_same_for_any_division("longpo.toml", &[]);
}

#[test]
fn division_does_not_matter_under_a_budget() {
    Place::new().is_the_same_for_any_division("dpo.toml", &BUDGET);
}

#[test]
fn threads_do_not_change_a_byte_of_learning_from_samples() {
    Place::new().is_the_same_for_any_number_of_threads("hypo.toml", &[]);
}

#[test]
fn threads_do_not_change_a_byte_of_learning_from_rewards() {
    Place::new().is_the_same_for_any_number_of_threads("grpo.toml", &[]);
}

#[test]
fn division_does_not_matter_to_learning_from_rewards() {
    Place::new().is_the_same_for_any_division("grpo.toml", &[]);
}

#[test]
fn division_does_not_matter_to_learning_from_samples() {
    Place::new().is_the_same_for_any_division("hypo.toml", &[]);
}
