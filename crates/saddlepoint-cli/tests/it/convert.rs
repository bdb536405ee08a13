//! `saddle convert`: models in, Hugging Face folders out.

use std::fs;

use crate::model::{self, Tensor};
use crate::saddle::Place;

#[test]
fn what_is_not_a_model_is_refused_and_nothing_is_made() {
    let place = Place::new();
    place.write("empty/readme.txt", "hello");
    place.write("short.gguf", b"GGUF\x03\0\0\0");
    place.refuses(
        &["convert", "nowhere", "out"],
        "cannot read nowhere: No such file or directory (os error 2); check the path",
    );
    place.refuses(
        &["convert", "empty", "out"],
        "empty: is not a model: it has neither config.json nor a .gguf file",
    );
    let ended = place.saddle(&["convert", "short.gguf", "out"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.starts_with("saddle: short.gguf: "), "{}", ended.stderr);
    assert_eq!(place.names(), ["empty", "short.gguf"]);
}

#[test]
fn an_adapter_without_its_base_model_is_told_what_to_do() {
    let place = Place::new();
    place.write("lora/adapter_config.json", r#"{"base_model_name_or_path": "somewhere/model"}"#);
    place.refuses(
        &["convert", "lora", "out"],
        "lora/adapter_config.json: names somewhere/model as its base model, which is not here; use saddle convert \
         BASE OUT --merge lora",
    );
    place.refuses(
        &["convert", "lora", "out", "--merge", "lora"],
        "lora is an adapter already: give its base model with --merge",
    );
    fs::write(place.path("lora/adapter_config.json"), "{").expect("a file");
    let ended = place.saddle(&["convert", "lora", "out"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.starts_with("saddle: lora/adapter_config.json: not valid JSON: "),
        "{}",
        ended.stderr
    );
    assert_eq!(place.names(), ["lora"]);
}

/// Converts the model `m` after `change` was made to its tensors; the message, with nothing left behind.
fn refusal(change: impl FnOnce(&mut Vec<Tensor>)) -> String {
    let place = Place::new();
    model::write_files(&place, "m");
    let mut tensors = model::tensors();
    change(&mut tensors);
    place.write("m/model.safetensors", model::safetensors(&tensors));
    let ended = place.saddle(&["convert", "m", "out"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
    assert_eq!(place.names(), ["m"], "nothing is left half-written");
    ended.stderr
}

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let place = Place::new();
    model::write(&place, "m");
    let ended = place.saddle(&["convert", "m", "out", "--json"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let parameters: usize = model::tensors().iter().map(|tensor| tensor.2.len()).sum();
    assert_eq!(
        ended.objects(),
        [serde_json::json!({
            "out": "out", "parameters": parameters, "tensors": 20, "dtype": "float32", "soup": null
        })]
    );
    assert_eq!(model::read_safetensors(&place.path("out/model.safetensors")), model::tensors());
    let [from, to] = ["m", "out"].map(|folder| crate::saddle::names(&place.path(folder)));
    assert_eq!(from, to);
    place.refuses(
        &["convert", "m", "out"],
        "out already exists and is not an empty directory; choose another name or remove it first",
    );
}

#[test]
fn weights_that_cannot_be_used_are_told_by_name() {
    let nan = refusal(|tensors| tensors[1].2[3] = f32::NAN);
    assert_eq!(
        nan,
        "saddle: m/model.safetensors: element [3] of tensor model.layers.0.input_layernorm.weight is not finite (NaN); \
         the file is damaged or the run that wrote it had diverged: use another checkpoint\n"
    );
    let shape = refusal(|tensors| {
        tensors[0].1 = vec![129, 32];
    });
    assert_eq!(
        shape,
        "saddle: m/model.safetensors: tensor model.embed_tokens.weight has dimensions [129, 32], the configuration \
         asks for [258, 16]\n"
    );
    let missing = refusal(|tensors| {
        tensors.pop();
    });
    assert_eq!(
        missing,
        "saddle: m/model.safetensors: tensor model.norm.weight is missing (the file has 19)\n"
    );
}

#[test]
fn a_truncated_file_is_told() {
    let place = Place::new();
    model::write(&place, "m");
    let path = place.path("m/model.safetensors");
    let bytes = fs::read(&path).expect("weights");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("half of them");
    place.refuses(
        &["convert", "m", "out"],
        "m/model.safetensors: tensor model.embed_tokens.weight ends at byte 16512 of the data, of which there are \
         15103: the file is truncated; download or write it again",
    );
    assert_eq!(place.names(), ["m"]);
}

#[test]
fn an_adapter_is_merged() {
    let place = Place::new();
    model::write(&place, "m");
    let name = "base_model.model.model.layers.1.self_attn.k_proj";
    let a: Vec<f32> = (0..2 * 16).map(|i| i as f32 / 64.0).collect();
    let b: Vec<f32> = (0..8 * 2).map(|i| 1.0 - i as f32 / 8.0).collect();
    let mut adapter = Vec::new();
    for layer in 0..2 {
        let prefix = format!("base_model.model.model.layers.{layer}.self_attn.k_proj");
        let zero = vec![0.0; 16];
        adapter.push((format!("{prefix}.lora_A.weight"), vec![2, 16], a.clone()));
        adapter.push((
            format!("{prefix}.lora_B.weight"),
            vec![8, 2],
            if prefix == name { b.clone() } else { zero },
        ));
    }
    place.write("lora/adapter_model.safetensors", model::safetensors(&adapter));
    let config = serde_json::json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["k_proj"], "base_model_name_or_path": "m",
    });
    place.write("lora/adapter_config.json", config.to_string());
    // Named as the input, and named to be merged: the same model.
    for arguments in [&["convert", "lora", "one"][..], &["convert", "m", "two", "--merge", "lora"]] {
        let ended = place.saddle(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        let merged = model::read_safetensors(&place.path(arguments[2]).join("model.safetensors"));
        for (before, after) in model::tensors().iter().zip(&merged) {
            let changed = before.0 == "model.layers.1.self_attn.k_proj.weight";
            for (i, (w, m)) in before.2.iter().zip(&after.2).enumerate() {
                let (row, column) = (i / 16, i % 16);
                let update = || 3.0 * (b[row * 2] * a[column] + b[row * 2 + 1] * a[16 + column]);
                let expected = if changed { w + update() } else { *w };
                assert!((m - expected).abs() < 1e-6, "{} {i}: {m} {expected}", before.0);
            }
        }
    }
}

#[test]
fn a_soup_is_the_mean_of_models_that_were_fine_tuned_from_the_same_one() {
    let place = Place::new();
    let moved = |by: f32| {
        let mut tensors = model::tensors();
        tensors.iter_mut().flat_map(|tensor| &mut tensor.2).enumerate().for_each(|(i, value)| {
            *value += by * if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        });
        tensors
    };
    for (name, by) in [("a", 0.01), ("b", -0.02)] {
        model::write_files(&place, name);
        place.write(&format!("{name}/model.safetensors"), model::safetensors(&moved(by)));
    }
    let ended = place.saddle(&["convert", "a", "out", "--soup", "b", "--weights", "3,1", "--json"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let soup = &ended.objects()[0]["soup"];
    let cosine = soup["cosine"].as_f64().expect("a number");
    assert!(soup["models"] == 2 && cosine > 0.9 && cosine < 1.0, "{soup}");
    let made = model::read_safetensors(&place.path("out/model.safetensors"));
    for ((made, a), b) in made.iter().zip(moved(0.01)).zip(moved(-0.02)) {
        for ((&got, a), b) in made.2.iter().zip(a.2).zip(b.2) {
            let mean = (0.75 * f64::from(a) + 0.25 * f64::from(b)) as f32;
            assert_eq!(got.to_bits(), mean.to_bits(), "{}", made.0);
        }
    }
    // The mean of a model and itself is that model, to the bit.
    assert_eq!(place.saddle(&["convert", "a", "same", "--soup", "a"]).code, 0);
    assert_eq!(model::read_safetensors(&place.path("same/model.safetensors")), moved(0.01));

    place.refuses(
        &["convert", "a", "x", "--soup", "b", "--weights", "1"],
        "--weights needs one for IN and one for each --soup, 2 in all; there are 1",
    );
    place.refuses(&["convert", "a", "x", "--soup", "b", "--weights", "1,0"], "--weights must be > 0, got 0");
    let mut other = moved(0.0);
    let matrices = other.iter_mut().filter(|tensor| tensor.1.len() > 1);
    matrices.flat_map(|tensor| &mut tensor.2).for_each(|value| *value = -*value);
    model::write_files(&place, "c");
    place.write("c/model.safetensors", model::safetensors(&other));
    let ended = place.saddle(&["convert", "a", "x", "--soup", "c"]);
    assert!(
        ended.code == 2 && ended.stderr.contains("c: was not fine-tuned from the same model as a (cosine of"),
        "{}",
        ended.stderr
    );
}
