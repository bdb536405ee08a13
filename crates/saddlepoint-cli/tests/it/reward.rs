//! `saddle reward`: what the rewards of a recipe say of completions.

use serde_json::json;

use crate::saddle::Place;

const RECIPE: &str = "[reward]\nreward_funcs = [{ name = \"accuracy_reward\" }, { name = \"think_format_reward\", weight = 0.5 }]\n";

fn place() -> Place {
    let place = Place::new();
    place.write("recipe.toml", RECIPE);
    let lines = [
        json!({"prompt": "1+1=", "completion": "<think>so</think> \\boxed{2}", "solution": "2"}),
        json!({"prompt": "1+1=", "completion": "3", "solution": "2"}),
        json!({"prompt": "2+2=", "completion": "4"}),
    ];
    place.write("data.jsonl", lines.map(|line| line.to_string()).join("\n"));
    place
}

#[test]
fn each_completion_has_a_line_with_its_parts() {
    let ended = place().saddle(&["reward", "recipe.toml", "--data", "data.jsonl", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(
        ended.objects(),
        [
            json!({"index": 0, "reward": 1.5, "rewards": {"accuracy_reward": 1.0, "think_format_reward": 1.0}, "failed": []}),
            json!({"index": 1, "reward": 0.0, "rewards": {"accuracy_reward": 0.0, "think_format_reward": 0.0}, "failed": []}),
            json!({"index": 2, "reward": 0.0, "rewards": {"accuracy_reward": null, "think_format_reward": 0.0}, "failed": []}),
        ]
    );
    let people = place().saddle(&["reward", "recipe.toml", "--data", "data.jsonl"]);
    assert!(people.stdout.contains("accuracy_reward none"), "{}", people.stdout);
    assert!(people.stdout.contains("rewards/accuracy_reward/mean"), "{}", people.stdout);
}

#[test]
fn what_is_missing_is_told() {
    let place = place();
    let refuses = |sets: &[&str], message: &str| {
        place.refuses(&[&["reward", "recipe.toml", "--data", "data.jsonl"], sets].concat(), message);
    };
    refuses(
        &["--set", "reward.reward_funcs=[{ name = \"task_reward\" }]"],
        "reward `task_reward`: reads the column `task`, which no record has (columns beside the prompt: solution); correct \
         the name, or rename with `data.columns`",
    );
    place.write("empty.toml", "");
    place.refuses(
        &["reward", "empty.toml", "--data", "data.jsonl"],
        "reward: is missing: name rewards in reward.reward_funcs",
    );
}
