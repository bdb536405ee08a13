//! Tokenizer, chat template and generation settings of a model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::json::{self, Object};
use super::{bad, unreadable};
use crate::Result;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";

/// Files about text that a folder may hold; they are written as they were read.
const FILES: [&str; 9] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    GENERATION_CONFIG,
    TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Contents of files by their names.
pub(super) type Files = BTreeMap<&'static str, Vec<u8>>;

/// What the files say.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) files: Files,
    pub(super) tokenizer_config: Value,
    pub(super) generation_config: Value,
    pub(super) template: Option<String>,
    pub(super) eos: Vec<u32>,
    pub(super) bos: Option<u32>,
    pub(super) pad: Option<u32>,
}

/// Reads those of [`FILES`] that the folder has.
pub(super) fn read_files(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    for name in FILES {
        let path = folder.join(name);
        if path.is_file() {
            files.insert(name, std::fs::read(&path).map_err(|source| unreadable(&path, source))?);
        }
    }
    Ok(files)
}

impl Text {
    /// Interprets `files` of `folder`; `config` is the model's and `vocab` its number of tokens.
    pub(super) fn new(folder: &Path, files: Files, config: &Object, vocab: usize) -> Result<Self> {
        if !files.contains_key(TOKENIZER) {
            let hint = if files.contains_key("tokenizer.model") || files.contains_key("vocab.json") {
                "; have transformers write one: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            } else {
                ""
            };
            return Err(bad(folder, format!("has no {TOKENIZER}, which says how text becomes tokens{hint}")));
        }
        let object = |name: &str| match files.get(name) {
            Some(bytes) => json::parse(&folder.join(name), bytes),
            None => Ok(Object::new()),
        };
        let tokenizer_config = object(TOKENIZER_CONFIG)?;
        let generation_config = object(GENERATION_CONFIG)?;
        let template = match files.get(TEMPLATE) {
            Some(bytes) => {
                let text = String::from_utf8(bytes.clone());
                Some(text.map_err(|_| bad(&folder.join(TEMPLATE), "is not valid UTF-8"))?)
            }
            None => template(&folder.join(TOKENIZER_CONFIG), &tokenizer_config)?,
        };
        let roles = Roles {
            folder,
            files: &files,
            config,
            tokenizer: &tokenizer_config,
            generation: &generation_config,
        };
        let in_vocabulary = |role: &str, id: u32| {
            if (id as usize) < vocab {
                return Ok(id);
            }
            Err(bad(folder, format!("{role}_token_id is {id}, but the model has only {vocab} tokens")))
        };
        let eos = roles.ids("eos")?.into_iter().map(|id| in_vocabulary("eos", id)).collect::<Result<_>>()?;
        let bos = roles.ids("bos")?.first().map(|&id| in_vocabulary("bos", id)).transpose()?;
        // Nothing is padded here, and some published models have a padding token outside the vocabulary.
        let pad = roles.ids("pad")?.first().copied().filter(|&id| (id as usize) < vocab);
        let (tokenizer_config, generation_config) = (tokenizer_config.into(), generation_config.into());
        Ok(Self { files, tokenizer_config, generation_config, template, eos, bos, pad })
    }
}

/// The template inside `tokenizer_config.json`: a string, or a list of named ones of which `default` counts.
fn template(path: &Path, config: &Object) -> Result<Option<String>> {
    let named = |name: &str, list: &[Value]| {
        list.iter()
            .find(|entry| entry["name"] == name)
            .and_then(|entry| entry["template"].as_str())
            .map(str::to_owned)
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) => match named("default", list) {
            Some(text) => Ok(Some(text)),
            None => Err(bad(path, "chat_template: none of the templates in the list is named default")),
        },
        Some(_) => Err(bad(path, "chat_template: must be a string or a list of named templates")),
    }
}

/// Where the ids of tokens with a role are looked up.
struct Roles<'a> {
    folder: &'a Path,
    files: &'a Files,
    config: &'a Object,
    tokenizer: &'a Object,
    generation: &'a Object,
}

impl Roles<'_> {
    /// Ids of a role from the generation config, else the model's, else the tokenizer's; as transformers
    /// resolves them when it generates.
    fn ids(&self, role: &str) -> Result<Vec<u32>> {
        let key = format!("{role}_token_id");
        for (file, object) in [(GENERATION_CONFIG, self.generation), ("config.json", self.config)] {
            let list = match object.get(&key) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(list)) => list.as_slice(),
                Some(one) => std::slice::from_ref(one),
            };
            let ids = list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
            return match ids {
                Some(ids) => Ok(ids),
                // Older configurations say "none" with -1.
                None if list.iter().all(|id| id == -1) => continue,
                None => {
                    Err(bad(&self.folder.join(file), format!("{key}: must be a token id or a list of them")))
                }
            };
        }
        let token = match self.tokenizer.get(&format!("{role}_token")) {
            Some(Value::String(token)) => token,
            Some(Value::Object(token)) => match token.get("content") {
                Some(Value::String(token)) => token,
                _ => return Ok(Vec::new()),
            },
            _ => return Ok(Vec::new()),
        };
        Ok(self.added_token(token)?.into_iter().collect())
    }

    /// Id of an added token by the list in `tokenizer.json`.
    fn added_token(&self, token: &str) -> Result<Option<u32>> {
        #[derive(Deserialize)]
        struct Tokenizer {
            #[serde(default)]
            added_tokens: Vec<Added>,
        }
        #[derive(Deserialize)]
        struct Added {
            id: u32,
            content: String,
        }
        let bytes = self.files.get(TOKENIZER).map_or(&[][..], Vec::as_slice);
        let tokenizer: Tokenizer = serde_json::from_slice(bytes)
            .map_err(|error| bad(&self.folder.join(TOKENIZER), format!("is not a tokenizer: {error}")))?;
        Ok(tokenizer.added_tokens.into_iter().find(|added| added.content == token).map(|added| added.id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(files: &[(&'static str, Value)], config: &Value) -> Result<Text, String> {
        let mut all = Files::new();
        let added = json!([{ "id": 7, "content": "</s>" }, { "id": 8, "content": "<s>" }]);
        all.insert(TOKENIZER, json!({ "added_tokens": added }).to_string().into_bytes());
        for (name, value) in files {
            all.insert(name, value.to_string().into_bytes());
        }
        let config = config.as_object().expect("an object");
        Text::new(Path::new("m"), all, config, 10).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_come_from_the_first_file_that_names_them() {
        let tokenizer = (TOKENIZER_CONFIG, json!({ "eos_token": "</s>", "bos_token": { "content": "<s>" } }));
        let found = text(std::slice::from_ref(&tokenizer), &json!({ "pad_token_id": -1 })).expect("readable");
        assert_eq!((found.eos, found.bos, found.pad), (vec![7], Some(8), None));
        let config = json!({ "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 99 });
        let found = text(std::slice::from_ref(&tokenizer), &config).expect("readable");
        assert_eq!((found.eos, found.bos, found.pad), (vec![3], Some(2), None));
        let generation = (GENERATION_CONFIG, json!({ "eos_token_id": [4, 5], "bos_token_id": null }));
        let found = text(&[tokenizer, generation], &config).expect("readable");
        assert_eq!((found.eos, found.bos, found.pad), (vec![4, 5], Some(2), None));
    }

    #[test]
    fn wrong_ids_are_named() {
        let message = text(&[], &json!({ "eos_token_id": 10 })).expect_err("refused");
        assert_eq!(message, "m: eos_token_id is 10, but the model has only 10 tokens");
        let message = text(&[], &json!({ "eos_token_id": "x" })).expect_err("refused");
        assert_eq!(message, "m/config.json: eos_token_id: must be a token id or a list of them");
    }

    #[test]
    fn the_file_wins_over_the_configuration_and_default_over_others() {
        let inside = json!({ "chat_template": "inside" });
        let list = json!({ "chat_template": [
            { "name": "tools", "template": "t" }, { "name": "default", "template": "d" }
        ] });
        let none = json!({ "chat_template": [{ "name": "tools", "template": "t" }] });
        let template =
            |value: &Value| text(&[(TOKENIZER_CONFIG, value.clone())], &json!({})).map(|text| text.template);
        assert_eq!(template(&inside), Ok(Some("inside".into())));
        assert_eq!(template(&list), Ok(Some("d".into())));
        assert_eq!(template(&json!({})), Ok(None));
        assert!(
            template(&none)
                .expect_err("refused")
                .contains("none of the templates in the list is named default")
        );
        let mut files = Files::new();
        files.insert(TOKENIZER, b"{}".to_vec());
        files.insert(TOKENIZER_CONFIG, inside.to_string().into_bytes());
        files.insert(TEMPLATE, b"file".to_vec());
        let text = Text::new(Path::new("m"), files, &Object::new(), 10).expect("readable");
        assert_eq!(text.template.as_deref(), Some("file"));
    }

    #[test]
    fn a_missing_tokenizer_is_an_error_with_a_remedy() {
        let mut files = Files::new();
        files.insert("tokenizer.model", Vec::new());
        let message = Text::new(Path::new("m"), files, &Object::new(), 10).expect_err("refused").to_string();
        assert_eq!(
            message,
            "m: has no tokenizer.json, which says how text becomes tokens; have transformers write one: \
             AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        );
    }
}
