use saddlepoint_opt::optimizer::{AdamW, AdamWConfig};
use saddlepoint_opt::schedule::{Kind, Schedule, Warmup};
use serde::Deserialize;

#[derive(Deserialize)]
struct Trajectory {
    weight_decay: f64,
    decayed: usize,
    start: Vec<f32>,
    lr: Vec<f64>,
    grads: Vec<Vec<f32>>,
    params: Vec<Vec<f32>>,
}

#[test]
fn adamw_follows_torch() {
    let golden: Trajectory = serde_json::from_str(include_str!("../golden/adamw.json")).expect("golden file");
    let config = AdamWConfig { weight_decay: golden.weight_decay, ..AdamWConfig::default() };
    let decayed = std::iter::once(0..golden.decayed).collect();
    let mut optimizer = AdamW::new(config, golden.start.len(), decayed).expect("valid");
    let mut params = golden.start;
    for (t, expected) in golden.params.iter().enumerate() {
        optimizer.update(&mut params, &golden.grads[t], golden.lr[t], 1.0);
        for (i, (p, e)) in params.iter().zip(expected).enumerate() {
            assert!((p - e).abs() <= 5e-7 * e.abs().max(0.1), "step {t}, element {i}: {p} against {e}");
        }
    }
}

#[derive(Deserialize)]
struct Schedules {
    steps: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    kind: Kind,
    warmup: u64,
    min_lr_rate: f64,
    factors: Vec<f64>,
}

#[test]
fn schedules_follow_transformers() {
    let golden: Schedules =
        serde_json::from_str(include_str!("../golden/schedule.json")).expect("golden file");
    for case in golden.cases {
        let schedule = Schedule::new(case.kind, golden.steps, Warmup::Steps(case.warmup), case.min_lr_rate);
        let schedule = schedule.expect("valid");
        // Past the last step transformers' cosine rises again; a run never gets there.
        for (t, expected) in case.factors.iter().enumerate().take(golden.steps as usize + 1) {
            let got = schedule.factor(t as u64);
            assert!((got - expected).abs() < 1e-14, "{:?} at {t}: {got} against {expected}", case.kind);
        }
    }
}
