//! The memory that is planned before a run against the most that the process held.

use std::fs;

use serde_json::Value;

use crate::saddle::Place;

/// A model and a batch so large that the figures mean something.
const BASE: &str = "\
[model]
new = { hidden_size = 320, intermediate_size = 1024, num_hidden_layers = 5, num_attention_heads = 5, num_key_value_heads = 5 }
[data]
generate = { samples = 1000, eval_samples = 200 }
[train]
output_dir = \"base\"
per_device_train_batch_size = 192
max_steps = 2
sample_prompts = 64
max_completion_length = 4
";

const PAIRS: &str = "\
[model]
path = \"base/model\"
[data]
generate = { samples = 1000, eval_samples = 200 }
[method]
name = \"dpo\"
[tether]
budget = 5.0
every = 1
prompts = 64
max_completion_length = 4
[train]
output_dir = \"RUN\"
per_device_train_batch_size = 96
max_steps = 3
";

/// Trains and compares.
#[track_caller]
fn check(place: &Place, run: &str, recipe: &str) {
    place.write("recipe.toml", recipe.replace("RUN", run));
    let ended = place.saddle(&["train", "recipe.toml"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let cost = fs::read_to_string(place.path(run).join("cost.json")).expect("the cost of the run");
    let cost: Value = serde_json::from_str(&cost).expect("JSON");
    let Some(peak) = cost["peak"].as_f64() else {
        eprintln!("SKIPPED: this system does not say what a process holds");
        return;
    };
    let planned = cost["planned"]["total"].as_f64().expect("bytes");
    let off = (planned - peak) / peak;
    eprintln!(
        "{run}: planned {:.1} MB, peak {:.1} MB, off by {:.1} %",
        planned / 1e6,
        peak / 1e6,
        100.0 * off
    );
    assert!(off.abs() <= 0.05, "{run}: {:.1} % off: {cost}", 100.0 * off);
}

#[test]
fn the_plan_is_within_5_percent_of_the_peak() {
    let place = Place::new();
    check(&place, "base", BASE);
    check(&place, "full", PAIRS);
    let adapter = PAIRS.replace("path = \"base/model\"", "path = \"base/model\"\nlora = { r = 16 }");
    check(&place, "adapter", &adapter);
}
