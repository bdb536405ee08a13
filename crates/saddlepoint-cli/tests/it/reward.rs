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

#[test]
fn the_best_of_n_is_chosen_by_the_sum_and_shown_by_every_reward() {
    let place = Place::new();
    // Longer is chosen; what counts is whether there is a 7.
    let recipe = "[reward]\nreward_funcs = [{ name = \"length\", target = 6, alpha = 1.0 }, { name = \"regex\", pattern = \"7\", weight = 0.0 }]\n";
    place.write("recipe.toml", recipe);
    let line =
        |prompt: &str, completion: &str| json!({"prompt": prompt, "completion": completion}).to_string();
    let lines = [
        line("a", "1"),
        line("a", "777"),
        line("a", "77"),
        line("a", "1234"),
        line("b", "7"),
        line("b", "12"),
    ];
    place.write("data.jsonl", lines.join("\n"));
    let arguments = ["reward", "recipe.toml", "--data", "data.jsonl", "--best-of", "--json"];
    let ended = place.saddle(&arguments);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let objects = ended.objects();
    assert_eq!(objects.len(), 2, "up to the smallest group: {objects:?}");
    let number = |line: usize, path: &[&str]| {
        path.iter().fold(&objects[line], |value, key| &value[key]).as_f64().expect("a number")
    };
    let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12, "{got} against {expected}");
    close(number(0, &["divergence_bound"]), 0.0);
    close(number(0, &["rewards", "regex"]), 0.5);
    // Of the six choices of two of the first prompt three have 1234 as the longest, two 777, one 77.
    close(number(1, &["rewards", "regex"]), 0.25);
    close(number(1, &["reward"]), ((3.0 * -2.0 + 2.0 * -3.0 - 4.0) / 6.0 - 4.0) / 2.0);
    close(number(1, &["divergence_bound"]), 2.0_f64.ln() - 0.5);
    let people = place.saddle(&arguments[..5]);
    assert!(people.stdout.contains("2 prompts"), "{}", people.stdout);
}
