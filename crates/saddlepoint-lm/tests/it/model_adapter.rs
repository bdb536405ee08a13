//! LoRA adapters in PEFT's format.

use std::path::Path;

use saddlepoint_lm::Result;
use saddlepoint_lm::engine::{LoraConfig, Shape, Target, TensorSpec};
use saddlepoint_lm::model::adapter;
use serde_json::{Value, json};

use super::model_fixture as fixture;

fn shape() -> Shape {
    Shape { layers: 2, ..fixture::shape("llama") }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature is that of all readers")]
fn read_weights(spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
    out.copy_from_slice(&fixture::weights(spec));
    Ok(())
}

fn write(folder: &Path, config: &LoraConfig) {
    adapter::write(folder, config, "base/model", &config.tensors(&shape()), &read_weights).expect("writable");
}

/// Writes an adapter, changes its configuration, and reads it.
fn changed(change: impl Fn(&mut Value)) -> Result<adapter::Adapter, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = LoraConfig { target_modules: vec![Target::QProj, Target::VProj], ..LoraConfig::default() };
    write(folder.path(), &config);
    let path = folder.path().join("adapter_config.json");
    let mut value = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
    change(&mut value);
    std::fs::write(&path, value.to_string()).expect("writable");
    let shown = format!("{}", folder.path().display());
    adapter::read(folder.path(), &shape()).map_err(|error| error.to_string().replace(&shown, "a"))
}

#[test]
fn what_is_written_is_read() {
    let configs = [
        LoraConfig::default(),
        LoraConfig { r: 3, lora_alpha: 4.5, target_modules: vec![Target::DownProj], use_rslora: true },
    ];
    for config in configs {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), &config);
        let found = adapter::read(folder.path(), &shape()).expect("readable");
        assert_eq!(found.config, config);
        assert_eq!(found.base.as_deref(), Some("base/model"));
        let specs = config.tensors(&shape());
        for spec in &specs {
            let mut out = vec![f32::NAN; spec.len()];
            found.source().read(spec, &mut out).expect("readable");
            assert_eq!(out, fixture::weights(spec), "{}", spec.name);
        }
        assert!(found.source().unused(&specs).is_empty());
    }
}

#[test]
fn targets_may_be_paths_patterns_or_all() {
    let expected = [Target::QProj, Target::VProj];
    for value in [json!(["q_proj", "self_attn.v_proj"]), json!(r".*\.self_attn\.[qv]_proj")] {
        let found = changed(|config| config["target_modules"] = value.clone()).expect("readable");
        assert_eq!(found.config.target_modules, expected);
    }
    let excluded = changed(|config| {
        config["target_modules"] = json!(["q_proj", "v_proj", "k_proj"]);
        config["exclude_modules"] = json!(["k_proj"]);
    });
    assert_eq!(excluded.expect("readable").config.target_modules, expected);
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let cases = [
        ("peft_type", json!("IA3"), "peft_type = \"IA3\": only LORA is supported"),
        ("task_type", json!("SEQ_CLS"), "task_type = \"SEQ_CLS\": only CAUSAL_LM is supported"),
        ("bias", json!("lora_only"), "bias = \"lora_only\": trained biases are not supported"),
        ("use_dora", json!(true), "use_dora = true: is not supported"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out = true: is not supported"),
        ("modules_to_save", json!(["lm_head"]), "modules_to_save = [\"lm_head\"]: is not supported"),
        ("rank_pattern", json!({ "q_proj": 4 }), "rank_pattern = {\"q_proj\":4}: is not supported"),
        ("alpha_pattern", json!({ "q_proj": 4 }), "alpha_pattern = {\"q_proj\":4}: is not supported"),
        ("layers_to_transform", json!([0]), "layers_to_transform = [0]: is not supported"),
        ("target_parameters", json!(["x"]), "target_parameters = [\"x\"]: is not supported"),
        ("a_key_of_the_future", json!(7), "a_key_of_the_future = 7: is not supported"),
        (
            "init_lora_weights",
            json!("pissa"),
            "init_lora_weights = \"pissa\": it changes the base weights; convert the adapter to plain LoRA with \
             PEFT first",
        ),
        ("r", json!(0), "r = 0: must be at least 1"),
        ("r", json!("8"), "r = \"8\": must be a non-negative integer"),
        (
            "target_modules",
            json!("all-linear"),
            "target_modules = \"all-linear\": the file lacks some linear layers",
        ),
        (
            "target_modules",
            json!(["q_proj"]),
            "target_modules = [\"q_proj\"]: the file holds adapters of [\"self_attn.q_proj\", \"self_attn.v_proj\"]",
        ),
        (
            "target_modules",
            json!(["q_proj", "v_proj", "lm_head"]),
            "target_modules = [\"q_proj\",\"v_proj\",\"lm_head\"]: \"lm_head\" is not a projection that we can adapt \
             (q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj)",
        ),
        ("target_modules", json!(null), "target_modules = null: must be a list of modules or a pattern"),
    ];
    for (key, value, expected) in cases {
        let message = changed(|config| config[key] = value.clone()).expect_err(key);
        assert_eq!(message, format!("a/adapter_config.json: {expected}"));
    }
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), &LoraConfig::default());
    let read = |shape: &Shape| {
        let message = adapter::read(folder.path(), shape).expect_err("refused").to_string();
        message.rsplit_once("adapter_model.safetensors: ").expect("names the file").1.to_owned()
    };
    assert_eq!(
        read(&Shape { hidden: 48, ..shape() }),
        "tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has dimensions [16, 32], the base \
         model and r = 16 ask for [16, 48]"
    );
    assert_eq!(
        read(&Shape { layers: 3, ..shape() }),
        "tensor base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight is missing: adapters of some layers \
         only are not supported"
    );
    assert_eq!(
        read(&Shape { layers: 1, ..shape() }),
        "tensor base_model.model.model.layers.1.mlp.down_proj.lora_A.weight is not the adapter of a projection of \
         this model"
    );
}
