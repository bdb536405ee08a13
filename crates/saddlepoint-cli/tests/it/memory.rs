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

/// A reward model of the base's size.
const JUDGE: &str = "\
[model]
path = \"base/model\"
[data]
generate = { samples = 400, eval_samples = 40 }
[method]
name = \"reward\"
[train]
output_dir = \"RUN\"
per_device_train_batch_size = 64
max_steps = 2
";

/// Rounds in which the reward model reads more tokens than it takes at a time.
const JUDGED: &str = "\
[model]
path = \"base/model\"
[data]
generate = { samples = 400, eval_samples = 40 }
[method]
name = \"grpo\"
[rollout]
num_generations = 8
max_completion_length = 4
[reward]
reward_funcs = [{ name = \"reward_model\", path = \"judge/model\" }]
[train]
output_dir = \"RUN\"
per_device_train_batch_size = 96
gradient_accumulation_steps = 4
max_steps = 2
sample_prompts = 0
";

/// Trains and compares; the parts of the plan.
#[track_caller]
fn check(place: &Place, run: &str, recipe: &str) -> Value {
    place.write("recipe.toml", recipe.replace("RUN", run));
    let ended = place.saddle(&["train", "recipe.toml"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let cost = fs::read_to_string(place.path(run).join("cost.json")).expect("the cost of the run");
    let cost: Value = serde_json::from_str(&cost).expect("JSON");
    let Some(peak) = cost["peak"].as_f64() else {
        eprintln!("SKIPPED: this system does not say what a process holds");
        return cost;
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
    cost
}

#[test]
fn the_plan_is_within_5_percent_of_the_peak() {
    let place = Place::new();
    check(&place, "base", BASE);
    check(&place, "full", PAIRS);
    let adapter = PAIRS.replace("path = \"base/model\"", "path = \"base/model\"\nlora = { r = 16 }");
    check(&place, "adapter", &adapter);
    let judge = check(&place, "judge", JUDGE);
    let judged = check(&place, "judged", JUDGED);
    // So large a part that the plan is not right without it.
    let part = judged["planned"]["reward models"].as_f64().expect("bytes");
    let total = judged["planned"]["total"].as_f64().expect("bytes");
    assert!(part > 0.1 * total, "{judged}");
    assert!(judge["planned"].get("reward models").is_none(), "{judge}");
}
