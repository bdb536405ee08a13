//! What the chat template writes around the simplest conversation.

use std::collections::BTreeSet;

use serde_json::{Map, json};

use super::Finding;
use crate::data::{Codec, Message};

const ANSWER: &str = "Blue.";

/// Findings about the template and whether tokenizer and stop ids fit it.
pub(super) fn template(codec: &Codec) -> Vec<Finding> {
    let Some(template) = &codec.template else { return Vec::new() };
    let mut findings = Vec::new();
    let rendered = template.render(&conversation(), &Map::new(), false).map_err(|e| e.to_string());
    let (text, ids) = match rendered
        .and_then(|r| codec.tokenizer.encode(&r.text).map(|ids| (r.text, ids)).map_err(|e| e.to_string()))
    {
        Ok(both) => both,
        Err(reason) => return vec![Finding::TemplateFails { reason }],
    };
    for marker in markers(&text) {
        let pieces = codec.tokenizer.encode(marker).unwrap_or_default();
        if pieces.len() > 1 {
            let pieces =
                pieces.iter().map(|&id| codec.tokenizer.token(id).unwrap_or_default().to_owned()).collect();
            findings.push(Finding::SplitMarker { marker: marker.to_owned(), pieces });
        }
    }
    if let Some(end) = turn_end(codec, &text)
        && !codec.stops(end)
    {
        let name = |id: u32| codec.tokenizer.token(id).unwrap_or_default().to_owned();
        findings.push(Finding::EndIsNoStop {
            end: name(end),
            stops: codec.eos.iter().map(|&id| name(id)).collect(),
        });
    }
    let adds_bos = |bos: u32| codec.tokenizer.encode_document("a").is_ok_and(|ids| ids.first() == Some(&bos));
    if let Some(bos) = codec.bos.filter(|&bos| ids.first() == Some(&bos) && adds_bos(bos)) {
        findings.push(Finding::BosInTemplate {
            token: codec.tokenizer.token(bos).unwrap_or_default().to_owned(),
        });
    }
    findings
}

fn conversation() -> Vec<Message> {
    [("user", "What color is the sky?"), ("assistant", ANSWER)]
        .into_iter()
        .filter_map(|(role, content)| json!({ "role": role, "content": content }).as_object().cloned())
        .collect()
}

/// The special token with which the template ends the assistant's turn.
fn turn_end(codec: &Codec, text: &str) -> Option<u32> {
    let tail = &text[text.rfind(ANSWER)? + ANSWER.len()..];
    codec
        .tokenizer
        .encode(tail.trim_start())
        .ok()?
        .first()
        .copied()
        .filter(|&id| codec.tokenizer.is_special(id))
}

/// What looks like a special token: `<|...|>` without spaces.
fn markers(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(start) = rest.find("<|") {
        rest = &rest[start..];
        let Some(end) = rest.find("|>") else { break };
        let marker = &rest[..end + 2];
        if !marker.contains(char::is_whitespace) && marker.len() > 4 {
            found.insert(marker);
        }
        rest = &rest[2..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_words_in_bars() {
        let found: Vec<&str> = markers("<|a|>x <| b |> <|c <|d|>|> <||>").into_iter().collect();
        assert_eq!(found, ["<|a|>", "<|d|>"]);
    }
}
