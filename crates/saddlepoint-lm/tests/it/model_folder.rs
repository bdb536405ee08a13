//! Hugging Face folders in and out.

use std::collections::BTreeMap;
use std::path::Path;

use saddlepoint_lm::engine::TensorSpec;
use saddlepoint_lm::model::{Dtype, Format, ModelFolder, write_folder};
use saddlepoint_lm::{Error, Result};
use serde_json::{Value, json};

use super::model_fixture as fixture;

fn folder(family: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fixture::write_folder(folder.path(), family);
    folder
}

fn fails(folder: &Path) -> String {
    let shown = format!("{}", folder.display());
    ModelFolder::open(folder).expect_err("refused").to_string().replace(&shown, "m")
}

fn copy(from: &ModelFolder, to: &Path, format: Format) {
    let read = |spec: &TensorSpec, out: &mut [f32]| from.source().read(spec, out);
    write_folder(to, from, &from.shape.tensors(), &read, format).expect("writable");
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    entries
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("readable"))
        })
        .collect()
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn assert_weights(model: &ModelFolder) {
    for spec in model.shape.tensors() {
        let mut out = vec![f32::NAN; spec.len()];
        model.source().read(&spec, &mut out).expect("readable");
        assert_eq!(out, fixture::weights(&spec), "{}", spec.name);
    }
}

#[test]
fn every_family_is_read_and_written() {
    for family in ["llama", "qwen2", "qwen3"] {
        let source = folder(family);
        let model = ModelFolder::open(source.path()).expect("readable");
        assert_eq!(model.shape, fixture::shape(family));
        assert_eq!(model.eos_ids(), [fixture::END]);
        assert_eq!(model.chat_template(), Some(fixture::TEMPLATE));
        assert_weights(&model);

        let place = tempfile::tempdir().expect("a temporary folder");
        copy(&model, &place.path().join("a"), Format::default());
        let again = ModelFolder::open(&place.path().join("a")).expect("readable");
        assert_weights(&again);
        copy(&again, &place.path().join("b"), Format::default());
        let (first, second) = (files(&place.path().join("a")), files(&place.path().join("b")));
        assert_eq!(first, second, "a copy of a copy is the copy");

        let original = files(source.path());
        assert_eq!(first.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
        for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            assert_eq!(first[name], original[name], "{name} is kept to the byte");
        }
        let mut expected = json_of(&original["config.json"]);
        expected["dtype"] = json!("float32");
        assert_eq!(json_of(&first["config.json"]), expected);
    }
}

#[test]
fn half_precision_and_shards_hold_the_same_weights() {
    let source = folder("qwen2");
    let model = ModelFolder::open(source.path()).expect("readable");
    for (dtype, name) in [(Dtype::F32, "float32"), (Dtype::Bf16, "bfloat16"), (Dtype::F16, "float16")] {
        let place = tempfile::tempdir().expect("a temporary folder");
        let target = place.path().join("m");
        copy(&model, &target, Format { dtype, shard_bytes: 16_000 });
        let written = files(&target);
        let shards: Vec<_> = written.keys().filter(|name| name.starts_with("model-")).collect();
        assert!(shards.len() > 2 && !written.contains_key("model.safetensors"));
        assert_eq!(*shards[0], format!("model-00001-of-{:05}.safetensors", shards.len()));
        let index = json_of(&written["model.safetensors.index.json"]);
        assert_eq!(index["metadata"]["total_size"], model.shape.parameters() * dtype.size());
        assert_eq!(json_of(&written["config.json"])["dtype"], name);
        assert_weights(&ModelFolder::open(&target).expect("readable"));
    }
}

#[test]
fn a_gguf_file_becomes_a_folder() {
    for family in ["llama", "qwen2", "qwen3"] {
        let place = tempfile::tempdir().expect("a temporary folder");
        let file = place.path().join("m.gguf");
        std::fs::write(&file, fixture::gguf(family).bytes()).expect("writable");
        let model = ModelFolder::open(&file).expect("readable");
        copy(&model, &place.path().join("m"), Dtype::F32.into());
        let again = ModelFolder::open(&place.path().join("m")).expect("readable");
        assert_eq!(again.shape, model.shape);
        assert_eq!(again.tokenizer_json(), model.tokenizer_json());
        assert_eq!(again.tokenizer_config(), model.tokenizer_config());
        assert_eq!(again.chat_template(), Some(fixture::TEMPLATE));
        assert_eq!(again.eos_ids(), [fixture::END]);
        assert_weights(&again);
    }
}

#[test]
fn a_new_model_is_described_and_written() {
    let shape = fixture::shape("qwen3");
    let generation = json!({ "eos_token_id": [5, 6] });
    let tokenizer = b"{\"added_tokens\":[]}".to_vec();
    let model =
        ModelFolder::new(shape.clone(), tokenizer, &json!({}), &generation, Some("t")).expect("a model");
    assert_eq!(model.eos_ids(), [5, 6]);
    let spec = &shape.tensors()[0];
    let message = model.source().read(spec, &mut vec![0.0; spec.len()]).expect_err("none").to_string();
    assert_eq!(message, "new model: has no tensor model.embed_tokens.weight yet: initialise its weights");
    let place = tempfile::tempdir().expect("a temporary folder");
    let read = |spec: &TensorSpec, out: &mut [f32]| -> Result<()> {
        out.copy_from_slice(&fixture::weights(spec));
        Ok(())
    };
    let target = place.path().join("m");
    write_folder(&target, &model, &shape.tensors(), &read, Format::default()).expect("writable");
    let again = ModelFolder::open(&target).expect("readable");
    assert_eq!((again.shape.clone(), again.eos_ids(), again.chat_template()), (shape, vec![5, 6], Some("t")));
    assert_weights(&again);
}

#[test]
fn what_is_missing_is_named() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(fails(empty.path()), "m: is not a model: it has neither config.json nor a .gguf file");
    std::fs::write(empty.path().join("adapter_config.json"), b"{}").expect("writable");
    assert_eq!(fails(empty.path()), "m: holds a LoRA adapter: give the base model, and this as its adapter");
    let nowhere = fails(&empty.path().join("nowhere"));
    assert!(nowhere.starts_with("cannot read m: No such file or directory"), "{nowhere}");

    let source = folder("llama");
    std::fs::remove_file(source.path().join("model.safetensors")).expect("there");
    assert_eq!(fails(source.path()), "m: has neither model.safetensors nor model.safetensors.index.json");
    std::fs::write(source.path().join("pytorch_model.bin"), b"").expect("writable");
    assert_eq!(
        fails(source.path()),
        "m: has neither model.safetensors nor model.safetensors.index.json; pickled weights are not read, save \
         them with safe_serialization=True"
    );
    std::fs::remove_file(source.path().join("tokenizer.json")).expect("there");
    assert_eq!(fails(source.path()), "m: has no tokenizer.json, which says how text becomes tokens");
    std::fs::write(source.path().join("config.json"), b"{\n \"model_type\": llama }").expect("writable");
    assert_eq!(fails(source.path()), "m/config.json: is not valid JSON: expected value at line 2 column 16");
}

#[test]
fn a_wrong_index_is_explained() {
    let source = folder("llama");
    let weights = source.path().join("model.safetensors");
    std::fs::rename(&weights, source.path().join("a.safetensors")).expect("there");
    let index = |value: Value| {
        let path = source.path().join("model.safetensors.index.json");
        std::fs::write(path, value.to_string()).expect("writable");
        fails(source.path())
    };
    assert_eq!(
        index(json!({})),
        "m/model.safetensors.index.json: weight_map is missing: it says which file holds which tensor"
    );
    for outside in ["../a.safetensors", "/etc/passwd", "", "."] {
        assert_eq!(
            index(json!({ "weight_map": { "x": outside } })),
            format!(
                "m/model.safetensors.index.json: weight_map.x = \"{outside}\": must be the name of a file in the \
                 same folder"
            )
        );
    }
    assert_eq!(
        index(json!({ "weight_map": { "x": "a.safetensors" } })),
        "m/model.safetensors.index.json: weight_map says that a.safetensors holds tensor x, but it does not"
    );
}

#[test]
fn a_tied_head_that_differs_is_refused_and_an_equal_one_is_reported() {
    let source = folder("llama");
    let mut tensors = fixture::tensors("llama");
    let mut head = tensors[0].clone();
    head.0 = "lm_head.weight".into();
    tensors.push(head);
    let weights = source.path().join("model.safetensors");
    std::fs::write(&weights, fixture::safetensors(&tensors)).expect("writable");
    let model = ModelFolder::open(source.path()).expect("readable");
    assert_eq!(model.source().unused(&model.shape.tensors()), ["lm_head.weight"]);
    tensors.last_mut().expect("the head").2[7] += 1.0;
    std::fs::write(&weights, fixture::safetensors(&tensors)).expect("writable");
    assert_eq!(
        fails(source.path()),
        "m/config.json: tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight: \
         set it to false"
    );
}

#[test]
fn unknown_tensors_of_a_layer_are_refused_and_others_reported() {
    let source = folder("llama");
    let mut tensors = fixture::tensors("llama");
    tensors.push(("score.weight".into(), vec![1], vec![0.0]));
    tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![1], vec![0.0]));
    let weights = source.path().join("model.safetensors");
    std::fs::write(&weights, fixture::safetensors(&tensors)).expect("writable");
    let model = ModelFolder::open(source.path()).expect("readable");
    let unused = model.source().unused(&model.shape.tensors());
    assert_eq!(unused, ["model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"]);
    tensors.push(("model.layers.0.self_attn.o_proj.bias".into(), vec![1], vec![0.0]));
    std::fs::write(&weights, fixture::safetensors(&tensors)).expect("writable");
    assert_eq!(
        fails(source.path()),
        "m: tensor model.layers.0.self_attn.o_proj.bias is not part of this architecture as we know it: not supported"
    );
}

#[test]
fn a_failed_write_leaves_nothing() {
    let source = folder("llama");
    let model = ModelFolder::open(source.path()).expect("readable");
    let place = tempfile::tempdir().expect("a temporary folder");
    let target = place.path().join("m");
    let read = |spec: &TensorSpec, out: &mut [f32]| -> Result<()> {
        out.fill(1.0);
        if spec.name == "model.norm.weight" {
            out[3] = f32::NAN;
        }
        Ok(())
    };
    let specs = model.shape.tensors();
    let error = write_folder(&target, &model, &specs, &read, Format::default()).expect_err("not finite");
    assert!(matches!(error, Error::NotFinite { .. }));
    let message = error.to_string();
    let expected = "model.safetensors: element [3] of tensor model.norm.weight is not finite (NaN); the model has \
                    diverged: resume from an earlier checkpoint with a lower learning rate";
    assert!(message.ends_with(expected), "{message}");
    assert_eq!(files(place.path()).len(), 0);

    copy(&model, &target, Format::default());
    let before = files(&target);
    let error =
        write_folder(&target, &model, &specs, &read, Format::default()).expect_err("taken").to_string();
    assert!(error.contains("already exists and is not an empty directory"), "{error}");
    assert_eq!(files(&target), before);
}
