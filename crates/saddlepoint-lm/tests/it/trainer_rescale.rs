//! `tether.rescale`: the update of an adapter, scaled at the end until the divergence meets the budget.

use std::path::Path;

use saddlepoint_lm::engine::{TensorSpec, WeightSource as _};
use saddlepoint_lm::model::SafeTensors;
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::tether::Report;

use crate::trainer::{load, place, quiet};

/// A controller that does nothing, so that what is learned does not depend on the budget.
fn recipe(place: &Path, name: &str, more: &[&str]) -> Recipe {
    let output = format!("train.output_dir={name}");
    let all = [
        output.as_str(),
        "model.lora={ r = 4 }",
        "tether.kp=0",
        "tether.ki=0",
        "tether.kd=0",
        "tether.initial_beta=0.2",
        "tether.every=100",
        "tether.final_prompts=30",
        "tether.samples=64",
        "optimizer.learning_rate=1e-2",
        "train.max_steps=24",
    ];
    load(place, "dpo.toml", &[&all, more].concat())
}

fn tether(recipe: &Recipe) -> Report {
    quiet(recipe, false).tether.expect("a tether")
}

/// The adapter's `B`, one after another.
fn updates(adapter: &Path) -> Vec<f32> {
    let file = SafeTensors::open(&adapter.join("adapter_model.safetensors")).expect("an adapter");
    let read = |name: &str| {
        let dims = file.dims(name).expect("it is there").to_vec();
        let spec = TensorSpec { name: name.to_owned(), dims, offset: 0 };
        let mut values = vec![0.0; spec.len()];
        file.read(&spec, &mut values).expect("numbers");
        values
    };
    file.names().filter(|name| name.ends_with("lora_B.weight")).flat_map(read).collect()
}

#[test]
fn an_update_is_scaled_until_it_meets_its_budget() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &[]), false);
    let free = tether(&recipe(place.path(), "free", &["tether.budget=100"])).interval[1];
    assert!(free > 0.05, "something is learned: {free}");
    for (name, share) in [("down", 0.4), ("up", 1.3)] {
        let budget = share * free;
        let sets = ["tether.rescale=true".to_owned(), format!("tether.budget={budget}")];
        let report = tether(&recipe(place.path(), name, &sets.each_ref().map(String::as_str)));
        let scale = report.scale.expect("it was scaled");
        assert!(if share < 1.0 { scale < 0.9 } else { scale > 1.0 && scale <= 1.25 }, "{name}: {scale}");
        let upper = report.interval[1] / budget;
        assert!((upper - 0.97).abs() < 0.1, "{name}: the upper end is {upper} of the budget");

        let dir = place.path().join(name);
        let (last, model) = (updates(&dir.join("checkpoint-24")), updates(&dir.join("model")));
        assert!(last.iter().any(|b| *b != 0.0));
        for (last, scaled) in last.iter().zip(&model) {
            let exact = scale as f32 * last;
            assert!((scaled - exact).abs() <= 1e-6 * exact.abs(), "{name}: {scaled} for {exact}");
        }
    }
    // Far below the budget the policy stays near to what was trained.
    let far = tether(&recipe(place.path(), "far", &["tether.rescale=true", "tether.budget=50"]));
    assert_eq!(far.scale, Some(1.25));
    assert_eq!(far.held, Some(true));
}

#[test]
fn what_it_cannot_scale_is_refused() {
    let place = place(str::to_owned);
    let (asked, lora) = ("tether.rescale=true", "model.lora={ r = 4 }");
    for (sets, needs) in [
        (&[asked][..], "an adapter"),
        (&[asked, lora, "tether.reference={ previous = 2 }"], "reference = \"initial\""),
    ] {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let refused = Recipe::load(&place.path().join("dpo.toml"), &sets).expect_err(needs).to_string();
        assert!(refused.starts_with(&format!("tether.rescale: needs {needs}")), "{refused}");
    }
}
