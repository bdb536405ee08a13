//! `tokenizer.json` and `tokenizer_config.json` from the metadata of a GGUF file.
//!
//! Byte-level BPE only. The file names the rule that splits text before merging (`tokenizer.ggml.pre`);
//! the rules below are those of the published `tokenizer.json` of each family.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::file::Gguf;
use super::metadata::Metadata;
use crate::Result;
use crate::model::json::Object;

/// What a GGUF file says about text.
#[derive(Debug)]
pub(in crate::model) struct Synthesised {
    pub(in crate::model) tokenizer: Object,
    pub(in crate::model) config: Object,
    pub(in crate::model) generation: Object,
    pub(in crate::model) template: Option<String>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";
const PRE: &str = "tokenizer.ggml.pre";
const REMEDY: &str =
    "put the model's own tokenizer.json into a folder with the GGUF file and open the folder";

/// Token types of the format that matter here; all others are ordinary.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a family prepares text before merging.
struct Rule {
    normalizer: Value,
    pre_tokenizer: Value,
    /// A piece that is a token as it stands is not merged from bytes.
    ignore_merges: bool,
    /// Whether a beginning-of-sequence token is added unless the file says otherwise.
    bos: bool,
}

fn rule(meta: &Metadata) -> Result<Rule> {
    let space = meta.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": use_regex });
    let split = |regex: &str| {
        let split = json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
        json!({ "type": "Sequence", "pretokenizers": [split, byte_level(false)] })
    };
    let plain =
        Rule { normalizer: Value::Null, pre_tokenizer: byte_level(true), ignore_merges: false, bos: false };
    Ok(match meta.text(PRE)? {
        Some("gpt-2" | "gpt2" | "default") => plain,
        Some("smollm") => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            let sequence = json!({ "type": "Sequence", "pretokenizers": [digits, byte_level(true)] });
            Rule { pre_tokenizer: sequence, ..plain }
        }
        Some("qwen2" | "deepseek-r1-qwen") => {
            Rule { normalizer: json!({ "type": "NFC" }), pre_tokenizer: split(QWEN2_SPLIT), ..plain }
        }
        Some("llama-bpe" | "llama3" | "llama-v3") => {
            Rule { pre_tokenizer: split(LLAMA3_SPLIT), ignore_merges: true, bos: true, ..plain }
        }
        _ => {
            let known = "gpt-2, smollm, qwen2 and llama-bpe are known";
            return Err(meta.refuse(PRE, &format!("it is unknown how to split text ({known}); {REMEDY}")));
        }
    })
}

/// Builds what a Hugging Face folder would say. `vocab` is the number of rows of the embedding, `context`
/// the model's length in tokens.
pub(in crate::model) fn synthesise(file: &Gguf, vocab: usize, context: usize) -> Result<Synthesised> {
    let meta = file.metadata();
    if meta.text("tokenizer.ggml.model")? != Some("gpt2") {
        let why = format!("only byte-level BPE (gpt2) can be rebuilt; {REMEDY}");
        return Err(meta.refuse("tokenizer.ggml.model", &why));
    }
    let rule = rule(meta)?;
    let tokens = meta.texts(TOKENS)?.ok_or_else(|| meta.refuse(TOKENS, REMEDY))?;
    if tokens.len() > vocab {
        return Err(meta.refuse(TOKENS, &format!("the embedding has only {vocab} rows")));
    }
    let types = meta.numbers(TYPES)?.unwrap_or(&[]);
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(meta.refuse(TYPES, &format!("there are {} tokens", tokens.len())));
    }
    let ids = vocabulary(meta, tokens, types)?;
    let added = added_tokens(tokens, types);
    let merges = merges(meta, &ids)?;
    let specials = Specials::read(meta, tokens)?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": rule.normalizer,
        "pre_tokenizer": rule.pre_tokenizer,
        "post_processor": specials.post_processor(meta, rule.bos)?,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": rule.ignore_merges,
            "vocab": ids.iter().map(|(token, id)| ((*token).to_owned(), Value::from(*id))).collect::<Object>(),
            "merges": merges,
        },
    });
    let Value::Object(tokenizer) = tokenizer else { unreachable!("the literal above is an object") };
    Ok(Synthesised {
        tokenizer,
        config: specials.tokenizer_config(&added, context),
        generation: specials.generation_config(),
        template: meta.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}

/// Tokens with their ids in the order of the ids. Unused ids stand for rows of the embedding that no text
/// reaches; they get no token.
fn vocabulary<'a>(meta: &Metadata, tokens: &'a [String], types: &[f64]) -> Result<Vec<(&'a str, usize)>> {
    let mut seen = BTreeMap::new();
    let mut ids = Vec::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| kind(types, *id) != UNUSED) {
        if let Some(first) = seen.insert(token.as_str(), id) {
            return Err(meta.refuse(TOKENS, &format!("tokens {first} and {id} are both {token:?}; {REMEDY}")));
        }
        ids.push((token.as_str(), id));
    }
    Ok(ids)
}

/// Type of a token; files without types have ordinary ones only.
fn kind(types: &[f64], id: usize) -> i64 {
    types.get(id).map_or(NORMAL, |&kind| kind as i64)
}

/// The tokens that are found in a text before it is split, as `tokenizer.json` lists them.
fn added_tokens(tokens: &[String], types: &[f64]) -> Vec<Value> {
    let added = |id: &usize| [CONTROL, USER_DEFINED].contains(&kind(types, *id));
    let entry = |id: usize| {
        json!({
            "id": id,
            "content": tokens[id],
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": kind(types, id) == CONTROL,
        })
    };
    (0..tokens.len()).filter(added).map(entry).collect()
}

/// The merges in the form that every version of the tokenizers library reads.
fn merges(meta: &Metadata, ids: &[(&str, usize)]) -> Result<Vec<String>> {
    let known: std::collections::BTreeSet<&str> = ids.iter().map(|(token, _)| *token).collect();
    let merges = meta.texts(MERGES)?.ok_or_else(|| meta.refuse(MERGES, REMEDY))?;
    for (number, merge) in merges.iter().enumerate() {
        let parts: Vec<&str> = merge.split(' ').collect();
        let fits = parts.len() == 2 && parts.iter().all(|part| known.contains(part));
        if !fits || !known.contains(parts.concat().as_str()) {
            let why = format!("merge {number} ({merge:?}) does not join two tokens to a third; {REMEDY}");
            return Err(meta.refuse(MERGES, &why));
        }
    }
    Ok(merges.to_vec())
}

/// Tokens with a role, as `(id, token)`.
struct Specials<'a> {
    bos: Option<(usize, &'a str)>,
    eos: Option<(usize, &'a str)>,
    end_of_turn: Option<(usize, &'a str)>,
    unknown: Option<(usize, &'a str)>,
    padding: Option<(usize, &'a str)>,
}

impl<'a> Specials<'a> {
    fn read(meta: &Metadata, tokens: &'a [String]) -> Result<Self> {
        let role = |key: &str| match meta.count(key)? {
            None => Ok(None),
            Some(id) => match tokens.get(id) {
                Some(token) => Ok(Some((id, token.as_str()))),
                None => Err(meta.refuse(key, &format!("there are only {} tokens", tokens.len()))),
            },
        };
        Ok(Self {
            bos: role("tokenizer.ggml.bos_token_id")?,
            eos: role("tokenizer.ggml.eos_token_id")?,
            end_of_turn: role("tokenizer.ggml.eot_token_id")?,
            unknown: role("tokenizer.ggml.unknown_token_id")?,
            padding: role("tokenizer.ggml.padding_token_id")?,
        })
    }

    /// The template that adds begin and end tokens around a text, or nothing if none are added.
    fn post_processor(&self, meta: &Metadata, bos: bool) -> Result<Value> {
        let wanted = |key: &str, default: bool, token: Option<(usize, &'a str)>| {
            let add = meta.flag(key)?.unwrap_or(default);
            if add && token.is_none() {
                return Err(meta.refuse(key, "there is no such token in the metadata"));
            }
            Ok(token.filter(|_| add))
        };
        let before = wanted("tokenizer.ggml.add_bos_token", bos && self.bos.is_some(), self.bos)?;
        let after = wanted("tokenizer.ggml.add_eos_token", false, self.eos)?;
        if before.is_none() && after.is_none() {
            return Ok(Value::Null);
        }
        let around = |sequence: &str, kind: usize| {
            let special =
                |(_, token): (usize, &str)| json!({ "SpecialToken": { "id": token, "type_id": kind } });
            let text = json!({ "Sequence": { "id": sequence, "type_id": kind } });
            before.map(special).into_iter().chain([text]).chain(after.map(special)).collect::<Vec<_>>()
        };
        let special_tokens: Object = [before, after]
            .into_iter()
            .flatten()
            .map(|(id, token)| (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] })))
            .collect();
        let pair = [around("A", 0), around("B", 1)].concat();
        Ok(json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": special_tokens,
        }))
    }

    fn tokenizer_config(&self, added: &[Value], context: usize) -> Object {
        let decoder: Object = added
            .iter()
            .filter_map(|token| {
                let mut token = token.as_object()?.clone();
                let id = token.remove("id")?;
                Some((id.to_string(), Value::Object(token)))
            })
            .collect();
        let mut config = Map::new();
        config.insert("added_tokens_decoder".into(), Value::Object(decoder));
        let roles = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("pad_token", self.padding),
            ("unk_token", self.unknown),
        ];
        for (key, role) in roles {
            config.insert(key.into(), role.map_or(Value::Null, |(_, token)| token.into()));
        }
        config.insert("clean_up_tokenization_spaces".into(), false.into());
        config.insert("model_max_length".into(), context.into());
        config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        config
    }

    fn generation_config(&self) -> Object {
        let mut config = Map::new();
        if let Some((id, _)) = self.bos {
            config.insert("bos_token_id".into(), id.into());
        }
        match (self.eos, self.end_of_turn) {
            (Some((eos, _)), Some((turn, _))) if turn != eos => {
                config.insert("eos_token_id".into(), json!([eos, turn]))
            }
            (Some((id, _)), _) | (None, Some((id, _))) => config.insert("eos_token_id".into(), id.into()),
            (None, None) => None,
        };
        if let Some((id, _)) = self.padding {
            config.insert("pad_token_id".into(), id.into());
        }
        config
    }
}
