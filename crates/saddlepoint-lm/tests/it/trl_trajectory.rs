//! Twenty optimizer steps against TRL's `DPOTrainer` on the same model and the same batches, through the trainer
//! itself: data, tokenizer, forest, method, clipping, schedule, optimizer, recorder and checkpoint are all those of a
//! run. `tests/golden/engine/README.md` says what the files hold.

use std::fs;

use rand_chacha::rand_core::Rng;
use saddlepoint_core::seed::Seed;
use saddlepoint_core::test::assert_close;
use saddlepoint_lm::engine::WeightSource;
use saddlepoint_lm::model::{ModelFolder, SafeTensors};
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::trainer::run;
use serde_json::Value;

use crate::engine_golden::folder;
use crate::run_invariance::norm;
use crate::trainer::lines;

const SEED: u64 = 42;

/// The order in which the trainer goes through `len` records in its first epoch.
fn order(len: usize) -> Vec<usize> {
    let mut rng = Seed::new(SEED).stream("data/order", &[0]);
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        order.swap(i, ((u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64) as usize);
    }
    order
}

/// TRL's run as a recipe. The data is one epoch that holds TRL's batches, arranged so that the trainer's own shuffle
/// puts them into TRL's order.
fn recipe(place: &tempfile::TempDir, settings: &Value, division: [u64; 2]) -> Recipe {
    let count = |key: &str| settings[key].as_u64().expect("a count") as usize;
    let text = fs::read_to_string(folder("trl_dpo/pairs.jsonl")).expect("the pairs");
    let pairs: Vec<&str> = text.lines().collect();
    let mut lines = vec![""; count("max_steps") * count("per_device_train_batch_size")];
    for (i, at) in order(lines.len()).into_iter().enumerate() {
        lines[at] = pairs[i % pairs.len()];
    }
    fs::write(place.path().join("pairs.jsonl"), lines.join("\n")).expect("written");
    let file = place.path().join("trl.toml");
    fs::write(&file, "[data]\npath = \"pairs.jsonl\"\n[method]\nname = \"dpo\"\n").expect("written");

    let model = folder("trl_dpo/initial");
    let mut sets = vec![
        format!("model.path={}", model.display()),
        format!("train.seed={SEED}"),
        format!("train.per_device_train_batch_size={}", division[0]),
        format!("train.gradient_accumulation_steps={}", division[1]),
        "train.output_dir=run".to_owned(),
        "train.logging_steps=1".to_owned(),
        "train.sample_prompts=0".to_owned(),
    ];
    for (table, keys) in [
        ("data", &["max_length"][..]),
        ("method", &["beta"]),
        (
            "optimizer",
            &["learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"],
        ),
        ("train", &["max_steps", "lr_scheduler_type"]),
    ] {
        sets.extend(keys.iter().map(|key| format!("{table}.{key}={}", settings[key])));
    }
    Recipe::load(&file, &sets).expect("a recipe")
}

#[test]
fn twenty_steps_agree_with_trl() {
    let golden = fs::read_to_string(folder("trl_dpo/golden.json")).expect("a golden file");
    let golden: Value = serde_json::from_str(&golden).expect("JSON");
    let steps = golden["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 20);
    // As TRL divided its steps, and in four passes.
    for division in [[4, 1], [1, 4]] {
        let place = tempfile::tempdir().expect("a temporary folder");
        run(&recipe(&place, &golden["settings"], division), false, &mut |_| {}).expect("the run ends");

        let lines = lines(place.path().join("run/metrics.jsonl"));
        assert_eq!(lines.len(), steps.len());
        for name in [
            "loss",
            "grad_norm",
            "rewards/chosen",
            "rewards/rejected",
            "rewards/margins",
            "rewards/accuracies",
            "logps/chosen",
            "logps/rejected",
            "mean_token_accuracy",
        ] {
            let curve = |of: &[Value]| -> Vec<f64> {
                of.iter()
                    .map(|line| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {line}")))
                    .collect()
            };
            // Before the first step the rewards are zero on both sides, up to rounding of sums of about 60 nats.
            assert_close!(curve(&lines), curve(steps), rtol = 1e-3, atol = 2e-6);
        }

        let ours = ModelFolder::open(&place.path().join("run/model")).expect("a model");
        let trl = SafeTensors::open(&folder("trl_dpo/final.safetensors")).expect("TRL's weights");
        for spec in ours.shape.tensors() {
            let [mut a, mut b] = [vec![0.0; spec.len()], vec![0.0; spec.len()]];
            ours.source().read(&spec, &mut a).expect("our weights");
            trl.read(&spec, &mut b).expect("TRL's weights");
            let error = norm(a.iter().zip(&b).map(|(a, b)| a - b)) / norm(b.iter().copied());
            assert!(error <= 1e-3, "{}: off by {error:.1e} of its norm", spec.name);
        }
    }
}
