//! Models that experiments start from: trained once by the project's own trainer and kept.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rand_chacha::rand_core::Rng;
use saddlepoint_core::atomic;
use saddlepoint_core::reproduce::Observer;
use saddlepoint_core::seed::Seed;
use serde_json::{Map, Value, json};

use crate::recipe::Recipe;
use crate::trainer::{self, Event};
use crate::{Error, Result};

/// Raised when what a recipe trains changes; models that are kept are then trained again.
const VERSION: u64 = 1;
/// The recipe's file in the folder of the model.
const RECIPE: &str = "recipe.toml";

/// A recipe and the files that it names.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The recipe without `train.output_dir`; paths in it are names of `files`.
    pub(super) recipe: String,
    /// Names and contents.
    pub(super) files: Vec<(&'static str, String)>,
}

impl Base {
    /// The folder of the trained model below `cache`. A training that was interrupted is continued.
    ///
    /// # Errors
    /// As [`trainer::run`]; or a file cannot be written.
    pub(super) fn trained(&self, cache: &Path, observer: Observer) -> Result<PathBuf> {
        let folder = cache.join(self.key());
        std::fs::create_dir_all(&folder).map_err(|source| {
            Error::from(saddlepoint_core::Error::Io { action: "create", path: folder.clone(), source })
        })?;
        for (name, text) in self.named() {
            atomic::write(&folder.join(name), text.as_bytes())?;
        }
        let recipe = Recipe::load(&folder.join(RECIPE), &["train.output_dir=run".to_owned()])?;
        trainer::once(&recipe, &mut |event| {
            if let Event::Step { step, total, .. } = event {
                observer(*step, *total, "training the base model");
            }
        })
    }

    fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().map(|(name, text)| (*name, text.as_str()));
        std::iter::once((RECIPE, self.recipe.as_str())).chain(files)
    }

    /// 32 hexadecimal digits that recipe, files and version decide, by the fixed function behind random streams.
    fn key(&self) -> String {
        let mut whole = String::new();
        for (name, text) in self.named() {
            let _ = write!(whole, "{name} {}\n{text}", text.len());
        }
        let mut stream = Seed::new(VERSION).stream(&whole, &[]);
        format!("{:016x}{:016x}", stream.next_u64(), stream.next_u64())
    }
}

/// `tokenizer.json` and `tokenizer_config.json` of a vocabulary of words between white space, in the order of their ids. The first
/// word ends a text.
pub(super) fn word_tokenizer(words: &[String]) -> [(&'static str, String); 2] {
    let vocab: Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| (word.clone(), id.into())).collect();
    let end = &words[0];
    let special = json!({
        "id": 0, "content": end, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": end }
    });
    let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end });
    [("tokenizer.json", tokenizer.to_string()), ("tokenizer_config.json", config.to_string())]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn base() -> Base {
        let recipe = "[model]\nnew = { hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }\n\
                      [data]\ngenerate = { samples = 20, eval_samples = 0 }\n\
                      [method]\nname = \"sft\"\n[train]\nmax_steps = 3\n";
        Base { recipe: recipe.to_owned(), files: vec![("notes.txt", "a".to_owned())] }
    }

    #[test]
    fn a_model_is_trained_once_and_again_when_anything_has_changed() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let mut steps = 0;
        let mut trained = |base: &Base| {
            steps = 0;
            let folder = base.trained(cache.path(), &mut |_, _, _| steps += 1).expect("trains");
            (steps, fs::read(folder.join("model.safetensors")).expect("a model"), folder)
        };
        let (first, bytes, folder) = trained(&base());
        assert_eq!(first, 3);
        let (again, same, _) = trained(&base());
        assert_eq!((again, same == bytes), (0, true), "kept");
        let (other, _, elsewhere) = trained(&Base { files: vec![("notes.txt", "b".to_owned())], ..base() });
        assert_eq!((other, elsewhere == folder), (3, false));

        // As a kill leaves it: checkpoints, but no summary.
        fs::remove_file(folder.with_file_name("summary.json")).expect("it was complete");
        let (_, same, _) = trained(&base());
        assert!(same == bytes, "continued to the same bytes");
    }
}
