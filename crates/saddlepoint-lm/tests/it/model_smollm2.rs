//! SmolLM2-135M-Instruct from its GGUF file, against what transformers makes of it.

use std::path::PathBuf;

use saddlepoint_lm::model::ModelFolder;
use serde_json::Value;
use tokenizers::Tokenizer;

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The file or folder `name` in the folder `SADDLE_MODELS` or in a folder of it. `None`, with a line on standard error,
/// where it is absent.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where large files are")]
pub(crate) fn large(name: &str) -> Option<PathBuf> {
    let find = || {
        let models = PathBuf::from(std::env::var_os("SADDLE_MODELS")?);
        let inside = std::fs::read_dir(&models).ok()?.filter_map(|entry| Some(entry.ok()?.path().join(name)));
        let mut places = std::iter::once(models.join(name)).chain(inside);
        places.find(|path| path.exists())
    };
    let found = find();
    if found.is_none() {
        eprintln!("skipped: set SADDLE_MODELS to a folder that holds {name}");
    }
    found
}

#[test]
fn weights_tokens_and_settings_are_those_of_transformers() {
    let Some(path) = large(FILE) else { return };
    let golden: Value = serde_json::from_str(include_str!("../golden/model/smollm2.json")).expect("JSON");
    let model = ModelFolder::open(&path).expect("readable");
    assert_eq!(model.shape.parameters(), 134_515_008);
    assert_eq!((model.eos_ids(), model.bos_id(), model.pad_id()), (vec![2], Some(1), Some(2)));
    assert!(
        model.chat_template().is_some_and(|template| template.contains("SmolLM, trained by Hugging Face"))
    );

    let tokenizer = Tokenizer::from_bytes(model.tokenizer_json()).expect("a tokenizer");
    for (text, expected) in golden["ids"].as_object().expect("an object") {
        let ids = tokenizer.encode(text.as_str(), true).expect("encodes").get_ids().to_vec();
        assert_eq!(serde_json::json!(ids), *expected, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), *text);
    }

    let specs = model.shape.tensors();
    assert!(model.source().unused(&specs).is_empty());
    let checksums = golden["checksums"].as_object().expect("an object");
    assert_eq!(checksums.len(), specs.len());
    for spec in &specs {
        let mut values = vec![0.0_f32; spec.len()];
        model.source().read(spec, &mut values).expect("readable");
        let sum = values
            .iter()
            .zip(1_u64..)
            .fold(0_u64, |sum, (x, i)| sum.wrapping_add(i.wrapping_mul(u64::from(x.to_bits()))));
        assert_eq!(checksums[&spec.name], sum.to_string(), "{}", spec.name);
    }
}
