//! Text to ids and back. `tokenizer.json` alone decides, whatever the model type.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::{PostProcessor, PostProcessorWrapper};

use super::DecodeStream;
use crate::{Error, Result};

/// A tokenizer as `tokenizer.json` describes it, except that truncation and padding written there are
/// ignored: nothing is cut or filled behind the caller's back.
#[derive(Debug)]
pub struct Tokenizer {
    origin: PathBuf,
    /// Without its post-processor, which would trim the offsets that masks are made from.
    inner: tokenizers::Tokenizer,
    post_processor: Option<PostProcessorWrapper>,
    /// Token of every id; `None` where the vocabulary has a gap.
    tokens: Vec<Option<Box<str>>>,
    special: Vec<bool>,
    unknown: Option<u32>,
}

/// The part of `tokenizer.json` that names the token of what it does not know, by its text or by its id.
#[derive(Debug, Deserialize)]
struct Described {
    model: Unknown,
}

#[derive(Debug, Deserialize)]
struct Unknown {
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

/// Ids of a text and the bytes of the text that each one covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    pub(crate) offsets: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`; `origin` is the file named in errors.
    pub fn from_bytes(origin: &Path, json: &[u8]) -> Result<Self> {
        let fail = |problem: String| Error::Model { path: origin.to_owned(), problem };
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| fail(format!("not a tokenizer.json that can be read: {e}")))?;
        inner.with_truncation(None).map_err(|e| fail(e.to_string()))?;
        inner.with_padding(None);
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);

        let mut vocabulary: Vec<(String, u32)> = inner.get_vocab(true).into_iter().collect();
        vocabulary.sort_unstable_by_key(|(_, id)| *id);
        let size = vocabulary.last().map_or(0, |(_, id)| *id as usize + 1);
        // An id far beyond the number of tokens is a damaged file; a table of that size would fill the memory.
        if size == 0 || size > 2 * vocabulary.len() + 65_536 {
            return Err(fail(format!(
                "{} tokens with ids up to {size}: the vocabulary is damaged",
                vocabulary.len()
            )));
        }
        let mut tokens = vec![None; size];
        for (token, id) in vocabulary {
            tokens[id as usize] = Some(token.into_boxed_str());
        }
        let mut special = vec![false; size];
        let mut added: Vec<_> = inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_unstable_by_key(|(id, _)| *id);
        for (id, token) in added {
            special[id as usize] = token.special;
        }
        let Described { model } = serde_json::from_slice(json).map_err(|e| fail(e.to_string()))?;
        let unknown = model.unk_id.or_else(|| inner.token_to_id(&model.unk_token?));
        Ok(Self { origin: origin.to_owned(), inner, post_processor, tokens, special, unknown })
    }

    /// The file it was read from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Ids of exactly this text: nothing is put before or after it. For text that a chat template made,
    /// which holds its own special tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(|e| self.failed(&*e))?.get_ids().to_vec())
    }

    /// Ids of a document as the tokenizer frames one: with the tokens that its post-processor adds (BOS for
    /// Llama, nothing for Qwen). For plain text.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| self.failed(&*e))?;
        let encoding = match &self.post_processor {
            Some(post) => post.process(encoding, None, true).map_err(|e| self.failed(&*e))?,
            None => encoding,
        };
        Ok(encoding.get_ids().to_vec())
    }

    /// [`Self::encode`] with the bytes of `text` that each token covers.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Result<Encoded> {
        let encoding = self.inner.encode(text, false).map_err(|e| self.failed(&*e))?;
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok(Encoded { ids: encoding.get_ids().to_vec(), offsets })
    }

    /// Text of the ids without special tokens. Unknown ids are skipped; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.text_of(ids, true)
    }

    /// Text of the ids with special tokens spelled out.
    pub fn decode_with_special_tokens(&self, ids: &[u32]) -> String {
        self.text_of(ids, false)
    }

    /// Decodes token by token, without special tokens.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    fn text_of(&self, ids: &[u32], skip_special: bool) -> String {
        self.inner.decode(ids, skip_special).unwrap_or_else(|_| {
            // A decoder whose pattern fails on this text; the tokens themselves are the best that is left.
            ids.iter().filter_map(|&id| self.token(id)).collect()
        })
    }

    /// The token that stands for text the tokenizer does not know, if it has one.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token of an id, as it is spelled in `tokenizer.json`.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize)?.as_deref()
    }

    /// The id of a token, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether the id is a special token: never part of what a user reads.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Number of ids, added tokens included: the largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Refuses another tokenizer that has another token for an id.
    pub fn check_same(&self, other: &Tokenizer) -> Result<()> {
        let both = self.tokens.iter().zip(&other.tokens).enumerate();
        let named = both.filter_map(|(id, (ours, theirs))| Some((id, ours.as_deref()?, theirs.as_deref()?)));
        let Some((id, ours, theirs)) = named.into_iter().find(|(_, ours, theirs)| ours != theirs) else {
            return Ok(());
        };
        let problem = format!(
            "its token {id} is {theirs:?}, that of {} is {ours:?}: probabilities of the two cannot be compared",
            self.origin.display()
        );
        Err(Error::Model { path: other.origin.clone(), problem })
    }

    /// Refuses a tokenizer that can produce ids beyond the model's `vocab` embeddings.
    pub fn check_vocab(&self, vocab: usize) -> Result<()> {
        let beyond: Vec<(usize, &str)> = self
            .tokens
            .iter()
            .enumerate()
            .skip(vocab)
            .filter_map(|(id, token)| Some((id, token.as_deref()?)))
            .collect();
        let Some((id, token)) = beyond.first() else { return Ok(()) };
        Err(Error::Model {
            path: self.origin.clone(),
            problem: format!(
                "{} tokens have no embedding: the model has {vocab} ids, but `{token}` is {id}; \
                 use the tokenizer that came with the model",
                beyond.len()
            ),
        })
    }

    fn failed(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Model { path: self.origin.clone(), problem: format!("the tokenizer fails: {reason}") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::tokenizer;
    use super::*;

    #[test]
    fn documents_get_bos_and_rendered_text_does_not() {
        let t = tokenizer();
        let bos = t.id("<s>").expect("the fixture has a BOS");
        assert_eq!(t.encode("hi").expect("encodes")[0], t.id("h").expect("a letter"));
        assert_eq!(t.encode_document("hi").expect("encodes")[0], bos);
        assert_eq!(t.encode("<s>").expect("encodes"), [bos]);
    }

    #[test]
    fn text_survives_the_round_trip() {
        let t = tokenizer();
        let text = "naïve 漢字 🦀\n  end";
        let encoded = t.encode_with_offsets(text).expect("encodes");
        assert_eq!(t.decode(&encoded.ids), text);
        assert_eq!(encoded.ids, t.encode(text).expect("encodes"));
        assert!(
            encoded.offsets.iter().all(|o| text.is_char_boundary(o.start) && text.is_char_boundary(o.end))
        );
    }

    #[test]
    fn special_tokens_are_left_out_of_decoded_text() {
        let t = tokenizer();
        let ids = t.encode("<|im_start|>hi<|im_end|>").expect("encodes");
        assert_eq!(t.decode(&ids), "hi");
        assert_eq!(t.decode_with_special_tokens(&ids), "<|im_start|>hi<|im_end|>");
        assert!(t.is_special(ids[0]) && !t.is_special(ids[1]) && !t.is_special(u32::MAX));
    }

    #[test]
    fn a_tokenizer_larger_than_the_model_is_refused() {
        let t = tokenizer();
        assert!(t.check_vocab(t.vocab_size()).is_ok());
        let last = t.vocab_size() - 1;
        let message = t.check_vocab(last).expect_err("one token too many").to_string();
        let name = t.token(last as u32).expect("the last id has a token");
        assert_eq!(
            message,
            format!(
                "tokenizer.json: 1 tokens have no embedding: the model has {last} ids, but `{name}` is {last}; \
                 use the tokenizer that came with the model"
            )
        );
    }

    #[test]
    fn a_damaged_file_is_named() {
        let message =
            Tokenizer::from_bytes(Path::new("m/tokenizer.json"), b"{}").expect_err("no model").to_string();
        assert!(
            message.starts_with("m/tokenizer.json: not a tokenizer.json that can be read: "),
            "{message}"
        );
    }
}
