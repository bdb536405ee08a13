//! Reward models: the same scores and gradients as transformers, runs that train them, and their use as a reward.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use saddlepoint_lm::engine::{Cotangent, Forest, Policy, Reference, Row, Setup, Storage, Want};
use saddlepoint_lm::model::{ModelFolder, SafeTensors, ScoreScale, adapter};
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::reward::model::scores;
use saddlepoint_lm::reward::{Case, Rewards};
use saddlepoint_lm::trainer::Summary;
use serde_json::Value;

use crate::engine_golden::{close, folder, golden, ids, numbers};
use crate::trainer::{lines, load, place, quiet, until, weights};

fn setup(rows: usize) -> Setup {
    let (lora, frozen, reference) = (None, Storage::F32, Reference::None);
    Setup { lora, frozen, reference, recompute: false, max_tokens: 512, max_rows: rows }
}

fn open(path: &Path) -> (ModelFolder, Policy) {
    let model = ModelFolder::open(path).expect("a model");
    let mut policy = Policy::new(model.shape.clone(), setup(64)).expect("a policy");
    policy.load(model.source()).expect("weights");
    (model, policy)
}

#[test]
fn scores_and_gradients_are_those_of_transformers() {
    for name in ["llama", "qwen2", "qwen3"] {
        let name = format!("reward/{name}");
        let golden = golden(&name);
        let (model, mut policy) = open(&folder(&name).join("model"));
        let sequences: Vec<Vec<u32>> =
            golden["sequences"].as_array().expect("a list").iter().map(ids).collect();
        let expected = numbers(&golden["scores"]);
        let read: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let got = scores(&mut policy, &read, model.scoring_pad(), 512).expect("scores");
        close(&got, &expected, 1e-5, &name);

        // One tree a sequence, read at the last token that is not padding.
        let mut forest = Forest::default();
        for ids in &sequences {
            let root = forest.root(ids);
            let last = ids.iter().rposition(|id| Some(*id) != model.scoring_pad()).expect("a token");
            forest.rows.push(Row { at: forest.segments[root].tokens.start + last, target: 0 });
        }
        let stats = policy.forward(&forest, Want { score: true, ..Want::default() }).expect("a pass");
        close(&stats.score, &expected, 1e-5, &name);
        assert!(stats.logp.is_empty() && stats.top1.is_empty(), "there is no vocabulary");
        let mut slopes = vec![0.0; 6];
        let mut loss = 0.0;
        for pair in 0..3 {
            let gap = expected[2 * pair] - expected[2 * pair + 1];
            loss += (1.0 + (-gap).exp()).ln() / 3.0;
            slopes[2 * pair] = -1.0 / (1.0 + gap.exp()) / 3.0;
            slopes[2 * pair + 1] = -slopes[2 * pair];
        }
        close(&[loss], &[golden["loss"].as_f64().expect("a number")], 1e-9, &name);
        policy.backward(&Cotangent { score: slopes, ..Cotangent::default() }).expect("gradients");
        let stored = SafeTensors::open(&folder(&name).join("gradient.safetensors")).expect("gradients");
        let trainable = policy.trainable();
        for spec in trainable.tensors {
            use saddlepoint_lm::engine::WeightSource;
            let mut want = vec![0.0; spec.len()];
            stored.read(spec, &mut want).expect("the gradient of every parameter");
            let norm = |values: &mut dyn Iterator<Item = f32>| {
                values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
            };
            let size = norm(&mut want.iter().copied());
            let error = norm(&mut want.iter().zip(&trainable.grads[spec.range()]).map(|(a, b)| a - b));
            assert!(size > 0.0 && error <= 1e-4 * size, "{name} {}: {error:.2e} of {size:.2e}", spec.name);
        }
    }
}

const REWARD: &str = r#"
[model]
recipe = "base.toml"
[data]
generate = { samples = 300, eval_samples = 60, noise = 0.0 }
[method]
name = "reward"
center_rewards_coefficient = 0.01
[optimizer]
learning_rate = 5e-3
[train]
output_dir = "rm"
per_device_train_batch_size = 12
max_steps = 75
logging_steps = 5
eval_steps = 25
save_steps = 30
"#;

fn recipe(place: &Path, sets: &[&str]) -> Recipe {
    fs::write(place.join("rm.toml"), REWARD).expect("written");
    load(place, "rm.toml", sets)
}

fn held_out(summary: &Summary, name: &str) -> [f64; 2] {
    let evaluation = summary.evaluation.as_ref().expect("something is held out");
    [&evaluation.before, &evaluation.after].map(|means| means[name].as_f64().expect("a number"))
}

fn case(prompt: &str, completion: &str) -> Case {
    Case {
        prompt: prompt.to_owned(),
        completion: completion.to_owned(),
        completion_ids: Vec::new(),
        finished: true,
        columns: Arc::default(),
    }
}

/// The rewards of a recipe that has this table.
fn rewards(place: &Path, table: &str) -> saddlepoint_lm::Result<Rewards> {
    fs::write(place.join("reward.toml"), table).expect("written");
    Recipe::rewards(&place.join("reward.toml"), &[])
}

fn values(rewards: &Rewards, cases: &[Case]) -> Vec<f64> {
    let scores = rewards.score(cases.to_vec(), &[]).expect("judged");
    scores.sums.into_iter().map(|sum| sum.expect("a reward")).collect()
}

#[test]
fn a_reward_model_is_trained_continued_read_by_others_and_used_as_a_reward() {
    let place = place(str::to_owned);
    let one = recipe(place.path(), &[]);
    let summary = quiet(&one, false);
    let accuracy = held_out(&summary, "accuracy");
    assert!(accuracy[1] > 0.8 && accuracy[1] > accuracy[0], "it learns: {accuracy:?}");
    assert!(summary.samples.is_none() && summary.tether.is_none());
    let metrics = lines(place.path().join("rm/metrics.jsonl"));
    for name in ["loss", "accuracy", "margin", "mean_reward", "num_tokens"] {
        assert!(metrics[0].get(name).is_some_and(Value::is_number), "{name}: {}", metrics[0]);
    }

    // Killed in the middle and continued, it ends with the same bytes.
    let killed = recipe(place.path(), &["train.output_dir=killed"]);
    let stop = (1..).step_by(40).find(|&stop| until(&killed, stop).is_some()).expect("it ends");
    assert!(stop > 1, "it was interrupted at least once");
    assert!(weights(&place.path().join("killed")) == weights(&place.path().join("rm")), "same bytes");

    // Another seed is another member.
    let two = recipe(place.path(), &["train.output_dir=other", "train.seed=7"]);
    quiet(&two, false);
    let config = fs::read_to_string(place.path().join("rm/model/config.json")).expect("text");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
    assert_eq!(config["id2label"].as_object().map(serde_json::Map::len), Some(1));
    assert!(config["pad_token_id"].is_number());

    let cases = [case("4,9,2,7=", "9"), case("4,9,2,7=", "4"), case("1,0,3,2=", "3")];
    let table = |body: &str| format!("[reward]\nreward_funcs = [{{ name = \"reward_model\", {body} }}]\n");
    let of = |body: &str| values(&rewards(place.path(), &table(body)).expect("rewards"), &cases);
    let single = of("path = \"rm/model\"");
    assert!(single[0] > single[1], "right is worth more: {single:?}");

    // The same by hand: the last token that is not padding, which here is the end token.
    let (model, mut policy) = open(&place.path().join("rm/model"));
    let tokenizer = saddlepoint_lm::data::Tokenizer::from_bytes(model.path(), model.tokenizer_json());
    let ids = tokenizer.expect("a tokenizer").encode("4,9,2,7=9").expect("ids");
    assert_eq!(model.scoring_pad(), model.eos_ids().first().copied());
    let mut forest = Forest::default();
    forest.root(&ids);
    forest.rows.push(Row { at: ids.len() - 1, target: 0 });
    let stats = policy.evaluate(&forest, Want { score: true, ..Want::default() }).expect("a pass");
    assert!((stats.score[0] - single[0]).abs() < 1e-5, "{:?} against {single:?}", stats.score);

    // An ensemble on the scale of each member.
    let scales = ["rm", "other"].map(|run| {
        let folder = place.path().join(run).join("model");
        ScoreScale::read(&folder).expect("readable").expect("it was measured")
    });
    let other = of("path = \"other/model\"");
    assert_ne!(single, other);
    let both: Vec<[f64; 2]> = single
        .iter()
        .zip(&other)
        .map(|(a, b)| [scales[0].normalized(*a), scales[1].normalized(*b)])
        .collect();
    let paths = "paths = [\"rm/model\", \"other/model\"]";
    let expected: Vec<f64> = both.iter().map(|[a, b]| a.min(*b)).collect();
    close(&of(&format!("{paths}, aggregate = \"worst_case\"")), &expected, 1e-9, "worst case");
    let expected: Vec<f64> =
        both.iter().map(|[a, b]| (a + b) / 2.0 - 0.5 * ((a - b) / 2.0).powi(2)).collect();
    let weighted = format!("{paths}, aggregate = \"uncertainty_weighted\", uncertainty_coefficient = 0.5");
    close(&of(&weighted), &expected, 1e-9, "uncertainty weighted");

    // Without its scale a member cannot be compared; with an end too far away a case fails.
    fs::remove_file(place.path().join("other/model/score_scale.json")).expect("it was there");
    let told = rewards(place.path(), &table(paths)).expect_err("refused").to_string();
    assert!(
        told.contains("reward.reward_funcs[0].normalize: ") && told.contains("has no score_scale.json"),
        "{told}"
    );
    let short = rewards(place.path(), &table("path = \"rm/model\", max_length = 5")).expect("rewards");
    let told = short.score(cases.to_vec(), &[]).expect_err("too long").to_string();
    assert!(told.contains("have 10 tokens, the reward model reads 1 to 5"), "{told}");
    let told = rewards(place.path(), &table("path = \"base/model\"")).expect_err("refused").to_string();
    assert!(told.contains("is a language model and no reward model"), "{told}");

    // A policy learns from it.
    let on_policy = format!(
        "[model]\nrecipe = \"base.toml\"\n[data]\ngenerate = {{ samples = 64, eval_samples = 20 }}\n[method]\nname = \"rloo\"\n\
         [rollout]\nnum_generations = 4\nmax_completion_length = 4\n{}[optimizer]\nlearning_rate = 1e-3\n\
         [train]\noutput_dir = \"rl\"\nper_device_train_batch_size = 16\nmax_steps = 4\nsample_prompts = 0\n",
        table("path = \"rm/model\"")
    );
    fs::write(place.path().join("rl.toml"), on_policy).expect("written");
    let summary = quiet(&load(place.path(), "rl.toml", &[]), false);
    assert!(summary.metrics["rewards/reward_model/mean"].is_number(), "{:?}", summary.metrics);

    // And neither is mistaken for the other.
    let mistaken = |text: &str| {
        fs::write(place.path().join("bad.toml"), text).expect("written");
        let recipe = Recipe::load(&place.path().join("bad.toml"), &[])?;
        saddlepoint_lm::trainer::run(&recipe, false, &mut |_| {}).map(|_| ())
    };
    let data = "[data]\ngenerate = { samples = 20, eval_samples = 8 }\n";
    let told = mistaken(&format!(
        "[model]\npath = \"rm/model\"\n{data}[method]\nname = \"dpo\"\n[train]\noutput_dir = \"bad\"\n"
    ));
    let told = told.expect_err("refused").to_string();
    assert!(told.contains("is a reward model: it has no distribution over tokens"), "{told}");
    let told = mistaken(&format!(
        "[model]\nrecipe = \"base.toml\"\n{data}[method]\nname = \"reward\"\n[tether]\nbudget = 1.0\n[train]\noutput_dir = \"bad\"\n"
    ));
    let told = told.expect_err("refused").to_string();
    assert!(told.starts_with("tether: has no use: `reward` makes a reward model"), "{told}");
}

#[test]
fn an_adapter_brings_its_own_score() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &[]), false);
    let text = REWARD.replace("recipe = \"base.toml\"", "path = \"base/model\"\nlora = { r = 4 }");
    fs::write(place.path().join("rm.toml"), text).expect("written");
    let summary = quiet(&load(place.path(), "rm.toml", &[]), false);
    let accuracy = held_out(&summary, "accuracy");
    assert!(accuracy[1] > 0.6, "it learns: {accuracy:?}");
    let path = place.path().join("rm/model");
    let config: Value =
        serde_json::from_slice(&fs::read(path.join("adapter_config.json")).expect("a file")).expect("JSON");
    assert_eq!((&config["task_type"], &config["modules_to_save"][0]), (&"SEQ_CLS".into(), &"score".into()));
    let stored = SafeTensors::open(&path.join("adapter_model.safetensors")).expect("weights");
    assert_eq!(stored.dims("base_model.model.score.weight"), Some(&[1, 32][..]));

    // It is refused on its base as a language model, and read on it as a reward model.
    let base = ModelFolder::open(&place.path().join("base/model")).expect("a model");
    let told = adapter::read(&path, &base.shape).expect_err("refused").to_string();
    assert!(told.contains("task_type = \"SEQ_CLS\": only CAUSAL_LM is supported on this model"), "{told}");
    let table = "[reward]\nreward_funcs = [{ name = \"reward_model\", path = \"rm/model\" }]\n";
    let got = values(
        &rewards(place.path(), table).expect("rewards"),
        &[case("4,9,2,7=", "9"), case("4,9,2,7=", "2")],
    );
    let scale = ScoreScale::read(&path).expect("readable").expect("measured");
    assert!(
        got.iter().all(|score| scale.normalized(*score).abs() < 10.0) && (got[0] - got[1]).abs() > 1e-6,
        "{got:?}"
    );
}
