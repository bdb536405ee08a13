//! Prompts to generate from.

use super::{DropReason, Notes, Outcome, PrepareConfig, PrepareReport, Prompt, all, unfit};
use crate::Result;
use crate::data::record::role;
use crate::data::{Body, Codec, Record, Text};

/// Prepares the prompts of any records that have one; of a conversation, all before the assistant's last turn.
/// `max_length` bounds the prompt.
pub fn prompts(
    codec: &Codec,
    records: &[Record],
    config: &PrepareConfig,
) -> Result<(Vec<Prompt>, PrepareReport)> {
    let bound = config.bound()?;
    all(records, |record| {
        let text = match &record.body {
            Body::Prompt(prompt)
            | Body::Completion { prompt, .. }
            | Body::Preference { prompt, .. }
            | Body::Unpaired { prompt, .. } => match prompt {
                Text::Plain(text) => text.clone(),
                Text::Chat(messages) => codec.render(record, messages, true)?.text,
            },
            Body::Text(Text::Chat(messages)) => {
                let ends = messages.last().is_some_and(|m| role(m) == "assistant");
                codec.render(record, &messages[..messages.len() - usize::from(ends)], true)?.text
            }
            Body::Text(Text::Plain(_)) | Body::Long { .. } => return Err(unfit(record, "a prompt")),
        };
        let plain = !record.body.conversational();
        let mut ids =
            if plain { codec.tokenizer.encode_document(&text)? } else { codec.tokenizer.encode(&text)? };
        let Some(cut) = config.truncation_mode.cut(&mut ids, bound) else {
            return Ok(Outcome::Dropped(DropReason::OverLong));
        };
        if ids.is_empty() {
            return Ok(Outcome::Dropped(DropReason::EmptyPrompt));
        }
        let notes = Notes { tokens: ids.len(), longest: ids.len(), cut, ..Notes::default() };
        Ok(Outcome::Kept(Prompt { ids, text }, notes))
    })
}
