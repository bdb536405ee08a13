//! Which tokens of a conversation are trained.
//!
//! Two rules, both named in the report:
//!
//! - **Continuation** (prompt and completion, preference pairs, the last turn): TRL's. Prompt and whole text are
//!   tokenised separately, and training starts where the ids first differ, so the trained ids are always those of
//!   the whole text. Where that is before the end of the prompt, tokens merge over the border or the template
//!   renders the prompt differently alone; such records are counted.
//! - **Turns** (every assistant turn of a conversation): the bytes of each turn are found in the rendered text,
//!   from the template's generation blocks or, where it has none, by rendering up to the turn, and each token
//!   that touches them is trained.

use std::ops::Range;

use super::record::role;
use super::tokenizer::Encoded;
use super::{Codec, Message, Record, Text};
use crate::{Error, Result};

/// Ids of a text and which of them are trained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Masked {
    pub(crate) ids: Vec<u32>,
    pub(crate) trained: Vec<bool>,
    /// The prompt's own tokens are not all found at the beginning.
    pub(crate) prompt_changed: bool,
    /// Stop tokens right behind a generation block, trained although the template leaves them out.
    pub(crate) ends_added: usize,
}

/// Ids of a prompt alone and of the prompt with its continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Continued {
    pub(crate) prompt: Vec<u32>,
    pub(crate) whole: Vec<u32>,
}

impl Continued {
    /// Number of ids that both begin with: where training starts.
    pub(crate) fn start(&self) -> usize {
        self.prompt.iter().zip(&self.whole).take_while(|(a, b)| a == b).count()
    }
}

/// Tokenises a prompt and its continuation, which are of one kind.
pub(crate) fn continued(
    codec: &Codec,
    record: &Record,
    prompt: &Text,
    completion: &Text,
) -> Result<Continued> {
    match (prompt, completion) {
        (Text::Plain(prompt), Text::Plain(completion)) => {
            let mut whole = codec.tokenizer.encode_document(&format!("{prompt}{completion}"))?;
            codec.end(&mut whole);
            Ok(Continued { prompt: codec.tokenizer.encode_document(prompt)?, whole })
        }
        (Text::Chat(prompt), Text::Chat(completion)) => {
            let all: Vec<Message> = prompt.iter().chain(completion).cloned().collect();
            let prompt = codec.render(record, prompt, true)?.text;
            let whole = codec.render(record, &all, false)?.text;
            Ok(Continued { prompt: codec.tokenizer.encode(&prompt)?, whole: codec.tokenizer.encode(&whole)? })
        }
        _ => Err(record.source.error("prompt and completion must both be strings or both be messages")),
    }
}

/// The continuation rule.
pub(crate) fn continuation(
    codec: &Codec,
    record: &Record,
    prompt: &Text,
    completion: &Text,
) -> Result<Masked> {
    let both = continued(codec, record, prompt, completion)?;
    let start = both.start();
    let trained = (0..both.whole.len()).map(|i| i >= start).collect();
    Ok(Masked { prompt_changed: start < both.prompt.len(), ids: both.whole, trained, ends_added: 0 })
}

/// The turns rule for the assistant turns from message `from` on.
pub(crate) fn turns(codec: &Codec, record: &Record, messages: &[Message], from: usize) -> Result<Masked> {
    let whole = codec.render(record, messages, false)?;
    let marked = codec.template.as_ref().is_some_and(super::Template::marks_generation);
    let spans = if marked && from == 0 {
        whole.generated
    } else {
        (from..messages.len())
            .filter(|&turn| role(&messages[turn]) == "assistant")
            .map(|turn| span(codec, record, messages, turn, &whole.text))
            .collect::<Result<_>>()?
    };
    let encoded = codec.tokenizer.encode_with_offsets(&whole.text)?;
    let mut trained = touching(&encoded, &spans);
    let mut ends_added = 0;
    for i in 1..trained.len() {
        if trained[i - 1] && !trained[i] && codec.stops(encoded.ids[i]) && !codec.stops(encoded.ids[i - 1]) {
            trained[i] = true;
            ends_added += 1;
        }
    }
    Ok(Masked { ids: encoded.ids, trained, prompt_changed: false, ends_added })
}

/// Bytes of one turn in the rendered conversation: from the prompt for it to the render that ends with it.
fn span(
    codec: &Codec,
    record: &Record,
    messages: &[Message],
    turn: usize,
    whole: &str,
) -> Result<Range<usize>> {
    let before = codec.render(record, &messages[..turn], true)?.text;
    let through = codec.render(record, &messages[..=turn], false)?.text;
    for part in [&before, &through] {
        if !whole.starts_with(part.as_str()) {
            return Err(disagreement(record, turn, part, whole));
        }
    }
    Ok(before.len()..through.len().max(before.len()))
}

fn disagreement(record: &Record, turn: usize, part: &str, whole: &str) -> Error {
    let at = part.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
    let at = (0..=at).rev().find(|&i| part.is_char_boundary(i) && whole.is_char_boundary(i)).unwrap_or(0);
    let next = |text: &str| text[at..].chars().next().map_or("its end".to_owned(), |c| format!("{c:?}"));
    record.source.error(format!(
        "the chat template renders the conversation up to message {} differently alone than inside the whole (character {}: {} \
         against {}), so its words cannot be told from the rest; use a template with {{% generation %}} blocks, \
         or train the last turn only (`data.train_on = \"last_turn\"`)",
        turn + 1,
        part[..at].chars().count() + 1,
        next(part),
        next(whole)
    ))
}

/// Which tokens touch one of the spans, which are in order. A token over a border belongs to the span.
fn touching(encoded: &Encoded, spans: &[Range<usize>]) -> Vec<bool> {
    let mut spans = spans.iter().filter(|s| !s.is_empty()).peekable();
    encoded
        .offsets
        .iter()
        .map(|token| {
            while spans.next_if(|span| span.end <= token.start).is_some() {}
            // An empty token (a byte of a character that another token covers) belongs to where it stands.
            spans.peek().is_some_and(|span| token.end.max(token.start + 1) > span.start)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_that_touch_a_span_belong_to_it() {
        let offsets = vec![0..2, 2..5, 5..5, 5..8, 8..9];
        let encoded = Encoded { ids: vec![0; 5], offsets };
        assert_eq!(touching(&encoded, &[3..5, 8..9]), [false, true, false, false, true]);
        let one = |span: Range<usize>| touching(&encoded, std::slice::from_ref(&span));
        assert_eq!(one(5..6), [false, false, true, true, false]);
        assert_eq!(one(4..4), [false; 5]);
    }

    proptest! {
        #[test]
        fn touching_is_the_overlap_of_intervals(lengths in prop::collection::vec(1usize..4, 1..20), cuts in prop::collection::btree_set(0usize..60, 0..8)) {
            let mut end = 0;
            let offsets: Vec<Range<usize>> = lengths.iter().map(|l| { end += l; end - l..end }).collect();
            let cuts: Vec<usize> = cuts.into_iter().collect();
            let spans: Vec<Range<usize>> = cuts.chunks_exact(2).map(|c| c[0]..c[1]).collect();
            let expected: Vec<bool> = offsets
                .iter()
                .map(|t| spans.iter().any(|s| t.start < s.end && s.start < t.end))
                .collect();
            let encoded = Encoded { ids: vec![0; offsets.len()], offsets };
            prop_assert_eq!(touching(&encoded, &spans), expected);
        }
    }
}
