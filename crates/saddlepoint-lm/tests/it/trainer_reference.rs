//! What a policy is held to: every reference that is the same one gives the same bytes, and those that move continue
//! exactly.

use std::fs;
use std::path::Path;

use saddlepoint_lm::engine::{TensorSpec, WeightSource};
use saddlepoint_lm::model::{ModelFolder, Soup};
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::tether::Form;
use saddlepoint_lm::trainer::{Event, Job, run};

use crate::trainer::{load, place, quiet, until, weights};

const LORA: &str = "model.lora={ r = 2 }";

/// The recipe `dpo.toml` with a constant coefficient and this reference, in a folder of its own name.
fn held_to(place: &Path, name: &str, reference: &str, more: &[&str]) -> Recipe {
    let text = fs::read_to_string(place.join("dpo.toml")).expect("a recipe");
    let file = format!("{name}.toml");
    fs::write(
        place.join(&file),
        text.replace("budget = 0.5", "beta = 0.2").replace("label_smoothing = 0.1\n", ""),
    )
    .expect("written");
    let (output, reference) = (format!("train.output_dir={name}"), format!("tether.reference={reference}"));
    load(place, &file, &[&[output.as_str(), &reference], more].concat())
}

/// The trained weights or adapter.
fn bytes(run: &Path) -> Vec<u8> {
    fs::read(run.join("model/adapter_model.safetensors")).unwrap_or_else(|_| weights(run))
}

#[test]
fn references_that_are_the_same_give_the_same_bytes() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &[]), false);
    for (kind, lora) in [("full", &[][..]), ("lora", &[LORA][..])] {
        let result = |name: &str, reference: &str| {
            let name = format!("{kind}-{name}");
            quiet(&held_to(place.path(), &name, reference, lora), false);
            bytes(&place.path().join(name))
        };
        let initial = result("initial", "\"initial\"");
        assert!(initial == result("checkpoint", "{ checkpoint = \"base/model\" }"), "{kind}");
        let soup = "{ soup = [{ path = \"base/model\" }, { path = \"base/model\", weight = 3.0 }] }";
        assert!(initial == result("soup", soup), "{kind}");
        assert!(initial == result("late", "{ previous = 1000 }"), "{kind}: it does not move within the run");
        let previous = result("previous", "{ previous = 4 }");
        assert!(previous != initial, "{kind}: it moves");
        assert!(previous == result("ema", "{ ema = { decay = 0.0, every = 4 } }"), "{kind}");
        assert!(previous != result("slow", "{ ema = { decay = 0.5, every = 4 } }"), "{kind}");
    }
}

#[test]
fn a_reference_that_moves_continues_exactly() {
    for lora in [&[][..], &[LORA][..]] {
        let trained = |stops: &[usize]| {
            let place = place(str::to_owned);
            let recipe = held_to(place.path(), "run", "{ ema = { decay = 0.7, every = 2 } }", lora);
            for &stop in stops {
                assert!(until(&recipe, stop).is_none(), "interrupted");
            }
            let measured = quiet(&recipe, !stops.is_empty()).tether.expect("a tether").measured;
            (bytes(&place.path().join("run")), measured.to_bits())
        };
        assert!(trained(&[]) == trained(&[60, 9, 12]));
    }
}

#[test]
fn a_soup_is_the_weighted_mean_of_each_tensor() {
    let place = place(str::to_owned);
    let mut folders = Vec::new();
    for seed in [1, 2] {
        let (set, output) = (format!("train.seed={seed}"), format!("train.output_dir=base{seed}"));
        quiet(&load(place.path(), "base.toml", &[&set, &output, "train.max_steps=1"]), false);
        folders.push(ModelFolder::open(&place.path().join(format!("base{seed}/model"))).expect("a model"));
    }
    let specs = folders[0].shape.tensors();
    let read = |source: &dyn WeightSource, spec: &TensorSpec| {
        let mut out = vec![0.0; spec.len()];
        source.read(spec, &mut out).expect("a tensor");
        out
    };
    let soup = Soup::new(folders.iter().map(|folder| (folder, 1.0)).collect()).expect("of one shape");
    let message = soup.check_related(&specs).expect_err("from different random weights").to_string();
    assert!(message.contains("base2/model: was not fine-tuned from the same model as"), "{message}");
    let all: Vec<_> =
        specs.iter().map(|s| (read(folders[0].source(), s), read(folders[1].source(), s))).collect();
    let soup = Soup::new(folders.iter().zip([1.0, 3.0]).collect()).expect("of one shape");
    for (spec, (a, b)) in specs.iter().zip(all) {
        for ((got, a), b) in read(&soup, spec).into_iter().zip(a).zip(b) {
            let mean = (0.25 * f64::from(a) + 0.75 * f64::from(b)) as f32;
            assert!(got.to_bits() == mean.to_bits(), "{}: {got} for {mean}", spec.name);
        }
    }
}

#[test]
fn a_reference_elsewhere_is_measured_before_the_first_step() {
    let place = place(str::to_owned);
    let sets = ["train.output_dir=far", "train.seed=5", "train.max_steps=1"];
    quiet(&load(place.path(), "base.toml", &sets), false);
    let reference = "tether.reference={ checkpoint = \"far/model\" }";
    let recipe = load(place.path(), "dpo.toml", &[reference, "train.max_steps=1"]);
    let mut first = None;
    let summary = run(&recipe, false, &mut |event| {
        if let Event::Measured { step: 0, measured, .. } = event {
            first = Some(measured.mean);
        }
    })
    .expect("the run ends");
    let first = first.expect("measured before the first step");
    assert!(first > 1.0, "two models that have nothing in common: {first} nats");
    let tether = summary.tether.expect("a tether");
    assert_eq!((tether.form, tether.held), (Form::Budget, Some(false)));
}

/// A reference may have another shape, and what it says before training is what it says in training.
#[test]
fn a_reference_of_another_shape_holds_as_well() {
    let place = place(str::to_owned);
    let wide = ["train.output_dir=wide", "model.new.num_hidden_layers=1", "model.new.hidden_size=48"];
    quiet(&load(place.path(), "base.toml", &wide), false);
    let run = |name: &str, more: &[&str]| {
        let recipe = held_to(place.path(), name, "{ checkpoint = \"wide/model\" }", more);
        let tether = quiet(&recipe, false).tether.expect("a tether");
        assert!(tether.measured > 0.0 && tether.measured < 3.0, "{}", tether.measured);
        (bytes(&place.path().join(name)), tether.measured.to_bits())
    };
    assert!(run("in-training", &[]) == run("before", &["train.precompute_ref_log_probs=true"]));
}

#[test]
fn models_that_cannot_be_compared_are_refused() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &["train.max_steps=1"]), false);
    let wide = ["train.output_dir=wide", "train.max_steps=1", "model.new.num_hidden_layers=1"];
    quiet(&load(place.path(), "base.toml", &wide), false);
    let refusal = |reference: &str| {
        let mut recipe = held_to(place.path(), "run", reference, &[]);
        (recipe.model.path, recipe.model.recipe) = (Some(place.path().join("base/model")), None);
        Job::open(&recipe).expect_err("refused").to_string()
    };
    let (wide, base) = (place.path().join("wide/model"), place.path().join("base/model"));
    let message = refusal("{ soup = [{ path = \"base/model\" }, { path = \"wide/model\" }] }");
    let expected = format!(
        "{}: has another shape (1 layers of width 32 and 14 tokens) than {} (2 layers of width 32 and 14 tokens): their \
         weights have no mean",
        wide.display(),
        base.display()
    );
    assert_eq!(message, expected);
    let larger = ["train.output_dir=larger", "train.max_steps=1", "data.generate.task=\"arithmetic\""];
    quiet(&load(place.path(), "base.toml", &larger), false);
    let message = refusal("{ checkpoint = \"larger/model\" }");
    let expected = format!(
        "{}: predicts 16 tokens and {} 14: probabilities of the two cannot be compared",
        place.path().join("larger/model").display(),
        base.display()
    );
    assert_eq!(message, expected);

    let tokenizer = place.path().join("wide/model/tokenizer.json");
    let other = place.path().join("other");
    fs::create_dir(&other).expect("a folder");
    for entry in fs::read_dir(&base).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, other.join(path.file_name().expect("a name"))).expect("copied");
    }
    let text = fs::read_to_string(tokenizer).expect("a tokenizer");
    fs::write(other.join("tokenizer.json"), swapped(&text)).expect("written");
    let message = refusal("{ checkpoint = \"other\" }");
    assert!(message.contains("probabilities of the two cannot be compared"), "{message}");
}

/// The tokenizer with the ids of `1` and `2` exchanged.
fn swapped(text: &str) -> String {
    let mut json: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let vocabulary = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let (one, two) = (vocabulary["1"].clone(), vocabulary["2"].clone());
    vocabulary.insert("1".to_owned(), two);
    vocabulary.insert("2".to_owned(), one);
    json.to_string()
}

#[test]
fn log_probabilities_computed_before_training_change_nothing() {
    let place = place(str::to_owned);
    quiet(&load(place.path(), "base.toml", &[]), false);
    let shared = place.path().join("shared");
    for (kind, lora, method) in [
        ("full", &[][..], "{ name = \"dpo\" }"),
        ("lora", &[LORA][..], "{ name = \"f-dpo\", f_divergence_type = \"js_divergence\" }"),
        ("ipo", &[][..], "{ name = \"ipo\" }"),
    ] {
        let trained = |name: &str, tether: bool, stops: &[usize], more: &[&str]| {
            let (name, method) = (format!("{kind}-{name}-{tether}"), format!("method={method}"));
            let sets = [&[method.as_str(), "data.generate.samples=60"], lora, more].concat();
            let mut recipe = held_to(place.path(), &name, "\"initial\"", &sets);
            recipe.tether = recipe.tether.filter(|_| tether);
            for &stop in stops {
                assert!(until(&recipe, stop).is_none(), "interrupted");
            }
            quiet(&recipe, !stops.is_empty());
            let run = place.path().join(name);
            let text = |file: &str| fs::read_to_string(run.join(file)).expect("a file");
            (bytes(&run), text("metrics.jsonl"), text("before.json"))
        };
        let (once, dir) = ("train.precompute_ref_log_probs=true", "train.ref_log_probs_dir=shared");
        for tether in [true, false] {
            let plain = trained("plain", tether, &[], &[]);
            assert!(plain == trained("own", tether, &[], &[once]), "{kind}");
            assert!(plain == trained("resumed", tether, &[20, 9], &[once]), "{kind}");
            assert!(plain == trained("first", tether, &[], &[once, dir]), "{kind}");
            assert!(plain == trained("again", tether, &[], &[once, dir, "train.seed=42"]), "{kind}");
        }
    }
    // Base and examples are the same for all of them.
    let files: Vec<_> =
        fs::read_dir(&shared).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let whole = fs::read(&files[0]).expect("a file");
    let again = |name: &str| {
        let sets = [
            "train.precompute_ref_log_probs=true",
            "train.ref_log_probs_dir=shared",
            "data.generate.samples=60",
        ];
        let recipe = held_to(place.path(), name, "\"initial\"", &sets);
        let mut computed = 0;
        run(&recipe, false, &mut |event| {
            computed += usize::from(matches!(event, Event::Precomputing { .. }));
        })
        .expect("the run ends");
        assert!(fs::read(&files[0]).expect("a file") == whole, "{name}");
        computed
    };
    assert_eq!(again("found"), 0);
    fs::write(&files[0], &whole[..whole.len() / 2]).expect("written");
    assert!(again("torn") > 0, "half a file is computed again");
    let mut other = whole.clone();
    other[8 + header(&whole)..].iter_mut().step_by(8).for_each(|byte| *byte ^= 1);
    fs::write(&files[0], other).expect("written");
    assert!(again("other") > 0, "other numbers are not believed");
}

/// Bytes of the header of a safetensors file.
fn header(file: &[u8]) -> usize {
    u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize
}
