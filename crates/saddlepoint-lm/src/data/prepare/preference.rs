//! Pairs for preference methods.

use super::{DropReason, Notes, Outcome, Pair, PrepareConfig, PrepareReport, Truncation, all, unfit};
use crate::Result;
use crate::data::mask;
use crate::data::{Body, Codec, Record};

/// Prepares preference pairs as TRL 1.16 does: prompt, prompt + chosen and prompt + rejected are tokenised, and the
/// completions begin where the first of them differs from the prompt. Plain completions end with the stop token.
///
/// `max_length` bounds prompt and completion together. `keep_start` cuts the completions and leaves out pairs
/// whose prompt fills the bound. `keep_end` cuts the beginning of the prompt, by the same number of tokens for
/// both sides, since they share it; TRL cuts each side by its own length.
pub fn preference(
    codec: &Codec,
    records: &[Record],
    config: &PrepareConfig,
) -> Result<(Vec<Pair>, PrepareReport)> {
    let bound = config.bound()?;
    all(records, |record| {
        let Body::Preference { prompt, chosen, rejected } = &record.body else {
            return Err(unfit(record, "a preference pair (chosen and rejected)"));
        };
        if chosen.is_empty() || rejected.is_empty() {
            return Ok(Outcome::Dropped(DropReason::EmptyCompletion));
        }
        let chosen = mask::continued(codec, record, prompt, chosen)?;
        let rejected = mask::continued(codec, record, prompt, rejected)?;
        let start = chosen.start().min(rejected.start());
        let pair = Pair {
            prompt: chosen.whole[..start].to_vec(),
            chosen: chosen.whole[start..].to_vec(),
            rejected: rejected.whole[start..].to_vec(),
        };
        let notes = Notes {
            prompt_changed: start < chosen.prompt.len(),
            identical: pair.chosen == pair.rejected,
            ..Notes::default()
        };
        Ok(finish(pair, notes, config.truncation_mode, bound))
    })
}

fn finish(mut pair: Pair, mut notes: Notes, rule: Truncation, bound: usize) -> Outcome<Pair> {
    let Pair { prompt, chosen, rejected } = &mut pair;
    match fit(prompt, &mut [chosen, rejected], &mut notes, rule, bound) {
        Some(reason) => Outcome::Dropped(reason),
        None => Outcome::Kept(pair, notes),
    }
}

/// Cuts a prompt and its completions to `bound` tokens each together, and counts; or says why they are left out.
pub(super) fn fit(
    prompt: &mut Vec<u32>,
    completions: &mut [&mut Vec<u32>],
    notes: &mut Notes,
    rule: Truncation,
    bound: usize,
) -> Option<DropReason> {
    if prompt.is_empty() {
        return Some(DropReason::EmptyPrompt);
    }
    if completions.iter().any(|completion| completion.is_empty()) {
        return Some(DropReason::EmptyCompletion);
    }
    let longest = completions.iter().map(|completion| completion.len()).max().unwrap_or(0);
    let over = (prompt.len() + longest).saturating_sub(bound);
    if over > 0 {
        match rule {
            Truncation::KeepStart if prompt.len() < bound => {
                let room = bound - prompt.len();
                for completion in &mut *completions {
                    notes.cut += completion.len().saturating_sub(room);
                    completion.truncate(room);
                }
            }
            Truncation::KeepStart => return Some(DropReason::NothingTrained),
            Truncation::KeepEnd if over < prompt.len() => {
                prompt.drain(..over);
                notes.cut = over;
            }
            Truncation::KeepEnd | Truncation::Drop => return Some(DropReason::OverLong),
        }
    }
    notes.trained = completions.iter().map(|completion| completion.len()).sum();
    notes.tokens = prompt.len() + notes.trained;
    notes.longest = prompt.len() + completions.iter().map(|completion| completion.len()).max().unwrap_or(0);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(rule: Truncation, bound: usize) -> Option<(Pair, usize)> {
        let pair = Pair { prompt: vec![1, 2, 3], chosen: vec![4, 5, 6], rejected: vec![7] };
        match finish(pair, Notes::default(), rule, bound) {
            Outcome::Kept(pair, notes) => Some((pair, notes.cut)),
            Outcome::Dropped(_) => None,
        }
    }

    #[test]
    fn keep_start_cuts_completions_and_needs_room_after_the_prompt() {
        let (pair, cut_off) = cut(Truncation::KeepStart, 5).expect("there is room");
        assert_eq!((pair.chosen, pair.rejected, cut_off), (vec![4, 5], vec![7], 1));
        assert!(cut(Truncation::KeepStart, 3).is_none());
    }

    #[test]
    fn keep_end_cuts_the_shared_prompt_and_keeps_one_token_of_it() {
        let (pair, cut_off) = cut(Truncation::KeepEnd, 4).expect("one token of the prompt stays");
        assert_eq!((pair.prompt, pair.chosen, pair.rejected, cut_off), (vec![3], vec![4, 5, 6], vec![7], 2));
        assert!(cut(Truncation::KeepEnd, 3).is_none());
    }

    #[test]
    fn drop_leaves_out_what_does_not_fit() {
        assert!(cut(Truncation::Drop, 5).is_none());
        assert_eq!(cut(Truncation::Drop, 6).expect("it fits").1, 0);
    }
}
