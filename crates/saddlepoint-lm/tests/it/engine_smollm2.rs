//! The engine at SmolLM2-135M's shape against torch autograd, both on the same random weights. The golden files take
//! 2 GB and are not kept: `make.py smollm2-shape --out $SADDLE_MODELS` makes them.

use std::collections::BTreeMap;

use saddlepoint_lm::engine::{Forest, Want, WeightSource};
use saddlepoint_lm::model::SafeTensors;

use crate::engine_golden::{close, dpo, golden, ids, numbers, pairs, policy};
use crate::model_smollm2::large;

/// `self_attn.q_proj` of `model.layers.7.self_attn.q_proj.weight`.
fn kind(name: &str) -> &str {
    let name = name.trim_start_matches("model.").trim_end_matches(".weight");
    name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, kind)| kind)
}

#[test]
fn every_gradient_of_the_dpo_loss_agrees_with_autograd_at_the_size_of_smollm2() {
    let Some(path) = large("smollm2-shape") else { return };
    let path = path.canonicalize().expect("a folder that is there");
    let name = path.to_str().expect("a folder with a readable name");
    let golden = golden(name);
    let mut policy = policy(name, false);

    for sequence in golden["sequences"].as_array().expect("sequences") {
        let tokens = ids(&sequence["ids"]);
        let mut supervised = vec![true; tokens.len()];
        supervised[0] = false;
        let mut forest = Forest::default();
        forest.sequence(&tokens, &supervised);
        let stats = policy.evaluate(&forest, Want { entropy: true, ..Want::default() }).expect("statistics");
        close(&stats.logp, &numbers(&sequence["logps"]), 1e-4, "logp");
        close(&stats.entropy, &numbers(&sequence["entropy"]), 1e-4, "entropy");
    }

    let (forest, rows) = pairs(&golden);
    let stats = policy.forward(&forest, Want { ref_logp: true, ..Want::default() }).expect("statistics");
    let (loss, cotangent) = dpo(&stats.logp, &stats.ref_logp, &rows, 0.1);
    close(&[loss], &[golden["preference"]["loss"].as_f64().expect("a loss")], 1e-4, "loss");
    policy.backward(&cotangent).expect("gradients");

    let stored = SafeTensors::open(&path.join("gradient-dpo.safetensors")).expect("gradients");
    let trainable = policy.trainable();
    let mut worst: BTreeMap<&str, (f64, &str)> = BTreeMap::new();
    for spec in trainable.tensors {
        let mut want = vec![0.0; spec.len()];
        stored.read(spec, &mut want).expect("the gradient of every parameter");
        let square = |difference: &mut dyn Iterator<Item = f64>| difference.map(|d| d * d).sum::<f64>();
        let norm = square(&mut want.iter().map(|w| f64::from(*w)));
        let got = &trainable.grads[spec.range()];
        let error = (square(&mut want.iter().zip(got).map(|(w, g)| f64::from(g - w))) / norm).sqrt();
        let entry = worst.entry(kind(&spec.name)).or_insert((0.0, &spec.name));
        if error.total_cmp(&entry.0).is_gt() {
            *entry = (error, &spec.name);
        }
    }
    for (kind, (error, name)) in &worst {
        eprintln!("{kind:<28} {error:.2e}  {name}");
    }
    for (error, name) in worst.values() {
        assert!(*error <= 1e-4, "{name} is off by {error:.2e}");
    }
}
