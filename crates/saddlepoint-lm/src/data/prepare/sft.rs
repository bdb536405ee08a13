//! Sequences for supervised fine-tuning.

use super::{DropReason, Notes, Outcome, PrepareConfig, PrepareReport, Supervised, TrainOn, all, unfit};
use crate::Result;
use crate::data::mask::{self, Masked};
use crate::data::record::{role, says_nothing};
use crate::data::{Body, Codec, Message, Record, Text};

/// Prepares text, conversations, and prompts with completions.
///
/// Plain text ends with the model's stop token and is trained whole. Of conversations the assistant's turns are
/// trained, of prompts with completions the completions, unless `train_on` says otherwise.
pub fn sft(
    codec: &Codec,
    records: &[Record],
    config: &PrepareConfig,
) -> Result<(Vec<Supervised>, PrepareReport)> {
    let bound = config.bound()?;
    all(records, |record| {
        let masked = match masked(codec, record, config.train_on)? {
            Ok(masked) => masked,
            Err(reason) => return Ok(Outcome::Dropped(reason)),
        };
        Ok(finish(masked, config, bound))
    })
}

/// Ids and mask of a record before any cut, or why it teaches nothing.
fn masked(codec: &Codec, record: &Record, train_on: TrainOn) -> Result<Result<Masked, DropReason>> {
    let masked = match &record.body {
        Body::Text(text) | Body::Completion { completion: text, .. } if text.is_empty() => {
            return Ok(Err(DropReason::EmptyCompletion));
        }
        Body::Text(Text::Plain(text)) => {
            let mut ids = codec.tokenizer.encode_document(text)?;
            codec.end(&mut ids);
            Masked { trained: vec![true; ids.len()], ids, ..Masked::default() }
        }
        Body::Text(Text::Chat(messages)) => match conversation(codec, record, messages, train_on)? {
            Ok(masked) => masked,
            Err(reason) => return Ok(Err(reason)),
        },
        Body::Completion { prompt, completion } => match (prompt, completion, train_on) {
            (Text::Chat(prompt), Text::Chat(said), TrainOn::AssistantTurns)
                if said.iter().any(|m| role(m) != "assistant") =>
            {
                let messages: Vec<Message> = prompt.iter().chain(said).cloned().collect();
                mask::turns(codec, record, &messages, prompt.len())?
            }
            (_, _, TrainOn::All) => {
                let mut masked = mask::continuation(codec, record, prompt, completion)?;
                masked.trained.fill(true);
                masked
            }
            _ => mask::continuation(codec, record, prompt, completion)?,
        },
        _ => return Err(unfit(record, "text, a conversation or a prompt with its completion")),
    };
    Ok(Ok(masked))
}

fn conversation(
    codec: &Codec,
    record: &Record,
    messages: &[Message],
    train_on: TrainOn,
) -> Result<Result<Masked, DropReason>> {
    let assistant = |m: &&Message| role(m) == "assistant";
    let Some(last) = messages.iter().rposition(|m| assistant(&m)) else {
        return Ok(Err(DropReason::NoAssistantTurn));
    };
    if messages.iter().filter(assistant).all(says_nothing) {
        return Ok(Err(DropReason::EmptyCompletion));
    }
    Ok(Ok(match train_on {
        TrainOn::AssistantTurns => mask::turns(codec, record, messages, 0)?,
        TrainOn::LastTurn if last + 1 == messages.len() => {
            let (prompt, turn) = messages.split_at(last);
            mask::continuation(codec, record, &Text::Chat(prompt.to_vec()), &Text::Chat(turn.to_vec()))?
        }
        TrainOn::LastTurn => mask::turns(codec, record, messages, last)?,
        TrainOn::All => {
            let ids = codec.tokenizer.encode(&codec.render(record, messages, false)?.text)?;
            Masked { trained: vec![true; ids.len()], ids, ..Masked::default() }
        }
    }))
}

fn finish(masked: Masked, config: &PrepareConfig, bound: usize) -> Outcome<Supervised> {
    let Masked { mut ids, trained: mut supervised, prompt_changed, ends_added } = masked;
    let Some(cut) = config.truncation_mode.cut(&mut ids, bound) else {
        return Outcome::Dropped(DropReason::OverLong);
    };
    config.truncation_mode.cut(&mut supervised, bound);
    if let Some(first) = supervised.first_mut() {
        *first = false;
    }
    let trained = supervised.iter().filter(|&&s| s).count();
    if trained == 0 {
        return Outcome::Dropped(DropReason::NothingTrained);
    }
    let notes = Notes {
        tokens: ids.len(),
        longest: ids.len(),
        trained,
        cut,
        prompt_changed,
        ends_added,
        identical: false,
    };
    Outcome::Kept(Supervised { ids, supervised }, notes)
}
