//! The engine against transformers, PEFT and torch autograd on tiny random models of each family.
//! `tests/golden/engine/README.md` says what the files hold.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;

use saddlepoint_core::seed::Seed;
use saddlepoint_lm::engine::{
    Cotangent, Divergence, Forest, GenerateConfig, Generator, LoraConfig, Policy, Prompt, Reference, Setup,
    Storage, TensorSpec, Want, WeightSource,
};
use saddlepoint_lm::model::{ModelFolder, SafeTensors, adapter};
use serde_json::Value;

const ALL: Want = Want {
    entropy: true,
    ref_logp: true,
    divergence: Some(Divergence::ReverseKl),
    temperature: None,
    score: false,
};

pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/engine").join(name)
}

/// `golden.json` of a folder; an absolute `name` is one outside the project.
pub(crate) fn golden(name: &str) -> Value {
    let text = std::fs::read_to_string(folder(name).join("golden.json")).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

pub(crate) fn setup(lora: Option<LoraConfig>, recompute: bool) -> Setup {
    let reference = if lora.is_some() { Reference::AdapterOff } else { Reference::Other };
    Setup { lora, frozen: Storage::F32, reference, recompute, max_tokens: 512, max_rows: 512 }
}

/// The policy of a golden folder with its second model as the reference.
pub(crate) fn policy(name: &str, recompute: bool) -> Policy {
    let model = ModelFolder::open(&folder(name).join("policy")).expect("a model");
    let mut policy = Policy::new(model.shape.clone(), setup(None, recompute)).expect("a policy");
    policy.load(model.source()).expect("weights");
    let reference = ModelFolder::open(&folder(name).join("reference")).expect("a model");
    policy.load_reference(&reference.shape, reference.source()).expect("weights");
    policy
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("a number")).collect()
}

pub(crate) fn close(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{what}[{i}]: {g} against {w}");
    }
}

/// Both completions of each pair behind their shared prompt: chosen and rejected rows.
pub(crate) fn pairs(golden: &Value) -> (Forest, Vec<[Range<usize>; 2]>) {
    let mut forest = Forest::default();
    let rows = golden["preference"]["pairs"]
        .as_array()
        .expect("pairs")
        .iter()
        .map(|pair| {
            let root = forest.root(&ids(&pair["prompt"]));
            let chosen = forest.completion(root, &ids(&pair["chosen"]));
            [chosen, forest.completion(root, &ids(&pair["rejected"]))]
        })
        .collect();
    (forest, rows)
}

/// Largest error of a tensor relative to its norm, over all tensors of a gradient file.
fn worst_gradient(specs: &[TensorSpec], grads: &[f32], file: &str, model: &str) -> f64 {
    let stored = SafeTensors::open(&folder(model).join(file)).expect("gradients");
    let mut worst = 0.0f64;
    for spec in specs {
        let mut want = vec![0.0; spec.len()];
        stored.read(spec, &mut want).expect("the gradient of every parameter");
        let norm = want.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let error =
            want.iter().zip(&grads[spec.range()]).map(|(w, g)| f64::from(w - g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "{}: the golden gradient is not zero", spec.name);
        assert!(error / norm <= 1e-4, "{model}, {file}: {} is off by {:.2e}", spec.name, error / norm);
        worst = worst.max(error / norm);
    }
    worst
}

/// Mean DPO loss of the pairs and its cotangent.
pub(crate) fn dpo(logp: &[f64], ref_logp: &[f64], rows: &[[Range<usize>; 2]], beta: f64) -> (f64, Cotangent) {
    let mut cotangent = vec![0.0; logp.len()];
    let mut loss = 0.0;
    for pair in rows {
        let reward = |r: &Range<usize>| beta * r.clone().map(|i| logp[i] - ref_logp[i]).sum::<f64>();
        let margin = reward(&pair[0]) - reward(&pair[1]);
        loss += (1.0 + (-margin).exp()).ln() / rows.len() as f64;
        let slope = -beta / (1.0 + margin.exp()) / rows.len() as f64;
        for i in pair[0].clone() {
            cotangent[i] = slope;
        }
        for i in pair[1].clone() {
            cotangent[i] = -slope;
        }
    }
    (loss, Cotangent { logp: cotangent, ..Cotangent::default() })
}

#[test]
fn log_probabilities_entropy_and_top1_agree_with_transformers() {
    for name in ["llama", "qwen2", "qwen3", "llama3-rope"] {
        let golden = golden(name);
        let mut policy = policy(name, false);
        for sequence in golden["sequences"].as_array().expect("sequences") {
            let tokens = ids(&sequence["ids"]);
            let mut supervised = vec![true; tokens.len()];
            supervised[0] = false;
            let mut forest = Forest::default();
            forest.sequence(&tokens, &supervised);
            let stats = policy.evaluate(&forest, ALL).expect("statistics");
            close(&stats.logp, &numbers(&sequence["logps"]), 2e-5, &format!("{name} logp"));
            close(&stats.entropy, &numbers(&sequence["entropy"]), 2e-5, &format!("{name} entropy"));
            for (i, &top) in ids(&sequence["top1"]).iter().enumerate() {
                assert_eq!(stats.top1[i], top == tokens[i + 1], "{name} top1[{i}]");
            }
        }
    }
}

#[test]
fn divergences_over_the_vocabulary_are_exact() {
    for name in ["llama", "qwen2", "qwen3", "llama3-rope"] {
        let golden = golden(name);
        let mut policy = policy(name, false);
        let (forest, rows) = pairs(&golden);
        for (kind, key) in [
            (Divergence::ReverseKl, "reverse_kl"),
            (Divergence::ForwardKl, "forward_kl"),
            (Divergence::JensenShannon, "jensen_shannon"),
        ] {
            let want = Want { divergence: Some(kind), ..ALL };
            let stats = policy.evaluate(&forest, want).expect("statistics");
            for (i, pair) in rows.iter().enumerate() {
                for (range, side) in pair.iter().zip(["chosen", "rejected"]) {
                    let exact = &golden["statistics"][i][side];
                    close(&stats.divergence[range.clone()], &numbers(&exact[key]), 2e-5, key);
                    close(&stats.entropy[range.clone()], &numbers(&exact["entropy"]), 2e-5, "entropy");
                    let values = &golden["preference"]["pairs"][i][format!("{side}_values")];
                    close(&stats.ref_logp[range.clone()], &numbers(&values["ref_logps"]), 2e-5, "ref_logp");
                }
            }
        }
    }
}

#[test]
fn every_gradient_of_the_dpo_loss_agrees_with_autograd() {
    for name in ["llama", "qwen2", "qwen3", "llama3-rope"] {
        for recompute in [false, true] {
            let golden = golden(name);
            let mut policy = policy(name, recompute);
            let (forest, rows) = pairs(&golden);
            let want = Want { ref_logp: true, ..Want::default() };
            let stats = policy.forward(&forest, want).expect("statistics");
            let (loss, cotangent) = dpo(&stats.logp, &stats.ref_logp, &rows, 0.1);
            close(&[loss], &[golden["preference"]["loss"].as_f64().expect("a loss")], 1e-5, "loss");
            policy.backward(&cotangent).expect("gradients");
            let trainable = policy.trainable();
            worst_gradient(trainable.tensors, trainable.grads, "gradient-dpo.safetensors", name);
        }
    }
}

#[test]
fn gradients_of_entropy_and_divergences_agree_with_autograd() {
    for name in ["llama", "qwen3"] {
        let golden = golden(name);
        let mut policy = policy(name, false);
        let (forest, _) = pairs(&golden);
        for (file, kind) in [
            ("entropy", None),
            ("reverse_kl", Some(Divergence::ReverseKl)),
            ("forward_kl", Some(Divergence::ForwardKl)),
            ("jensen_shannon", Some(Divergence::JensenShannon)),
        ] {
            let want = Want { entropy: kind.is_none(), divergence: kind, ..Want::default() };
            let stats = policy.forward(&forest, want).expect("statistics");
            let ones = vec![1.0; forest.rows.len()];
            let (value, cotangent) = if kind.is_none() {
                (stats.entropy, Cotangent { entropy: ones, ..Cotangent::default() })
            } else {
                (stats.divergence, Cotangent { divergence: ones, ..Cotangent::default() })
            };
            let exact = golden["objectives"][file].as_f64().expect("a value");
            close(&[value.iter().sum()], &[exact], 1e-5, file);
            policy.zero_grads();
            policy.backward(&cotangent).expect("gradients");
            let trainable = policy.trainable();
            let file = format!("gradient-{file}.safetensors");
            worst_gradient(trainable.tensors, trainable.grads, &file, name);
        }
    }
}

#[test]
fn an_adapter_and_its_gradients_agree_with_peft() {
    let golden = golden("llama");
    let model = ModelFolder::open(&folder("llama/policy")).expect("a model");
    let stored = adapter::read(&folder("llama/adapter"), &model.shape).expect("an adapter");
    for recompute in [false, true] {
        let mut policy = Policy::new(model.shape.clone(), setup(Some(stored.config.clone()), recompute))
            .expect("a policy");
        policy.load(model.source()).expect("weights");
        policy.load_adapter(stored.source()).expect("an adapter");
        let (forest, rows) = pairs(&golden);
        let stats = policy.forward(&forest, Want { ref_logp: true, ..Want::default() }).expect("statistics");
        for (i, pair) in rows.iter().enumerate() {
            for (range, side) in pair.iter().zip(["chosen_values", "rejected_values"]) {
                let exact = &golden["adapter"]["pairs"][i][side];
                close(&stats.logp[range.clone()], &numbers(&exact["logps"]), 2e-5, "logp");
                close(&stats.ref_logp[range.clone()], &numbers(&exact["ref_logps"]), 2e-5, "ref_logp");
            }
        }
        let (loss, cotangent) = dpo(&stats.logp, &stats.ref_logp, &rows, 0.1);
        close(&[loss], &[golden["adapter"]["loss"].as_f64().expect("a loss")], 1e-5, "loss");
        policy.backward(&cotangent).expect("gradients");
        let trainable = policy.trainable();
        worst_gradient(trainable.tensors, trainable.grads, "adapter-gradient-dpo.safetensors", "llama");
    }
}

#[test]
fn greedy_decoding_agrees_with_transformers() {
    for name in ["llama", "qwen2", "qwen3", "llama3-rope"] {
        let golden = golden(name);
        let policy = policy(name, false);
        check_greedy(&policy, &golden["greedy"], name);
    }
    let model = ModelFolder::open(&folder("llama/policy")).expect("a model");
    let stored = adapter::read(&folder("llama/adapter"), &model.shape).expect("an adapter");
    let mut policy =
        Policy::new(model.shape.clone(), setup(Some(stored.config.clone()), false)).expect("a policy");
    policy.load(model.source()).expect("weights");
    policy.load_adapter(stored.source()).expect("an adapter");
    check_greedy(&policy, &golden("llama")["adapter"]["greedy"], "llama with adapter");
}

fn check_greedy(policy: &Policy, golden: &Value, name: &str) {
    let prompt = ids(&golden["prompt"]);
    let config = GenerateConfig { max_new_tokens: 12, temperature: 0.0, ..GenerateConfig::default() };
    let asked = [Prompt { ids: prompt, samples: 3 }];
    let mut generator = Generator::new(policy, config).expect("a generator");
    let samples = generator.run(&asked, Seed::new(1), &mut |_| ControlFlow::Continue(())).expect("samples");
    assert_eq!(samples.len(), 3);
    for sample in samples {
        assert_eq!(sample.ids, ids(&golden["ids"]), "{name}");
    }
}
