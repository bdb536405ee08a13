//! Completions that are judged one by one.

use super::preference::fit;
use super::{DropReason, Labelled, Notes, Outcome, PrepareConfig, PrepareReport, all, unfit};
use crate::Result;
use crate::data::mask;
use crate::data::{Body, Codec, Record};

/// Prepares completions with a label as TRL 1.16 does: prompt and whole text are tokenised, and the completion begins where
/// they first differ. Plain completions end with the stop token. A preference pair becomes two: the chosen completion is
/// desirable, the rejected one is not; both count in the report under the pair's index and line.
///
/// `max_length` bounds prompt and completion together. `keep_start` cuts the completion and leaves out what has a prompt that
/// fills the bound; `keep_end` cuts the beginning of the prompt.
pub fn unpaired(
    codec: &Codec,
    records: &[Record],
    config: &PrepareConfig,
) -> Result<(Vec<Labelled>, PrepareReport)> {
    let bound = config.bound()?;
    let mut origins = Vec::with_capacity(records.len());
    let mut judged = Vec::with_capacity(records.len());
    for (origin, record) in records.iter().enumerate() {
        if let Body::Preference { prompt, chosen, rejected } = &record.body {
            for (completion, label) in [(chosen, true), (rejected, false)] {
                let (prompt, completion) = (prompt.clone(), completion.clone());
                let body = Body::Unpaired { prompt, completion, label };
                judged.push(Record { body, ..record.clone() });
                origins.push(origin);
            }
        } else {
            judged.push(record.clone());
            origins.push(origin);
        }
    }
    let (items, mut report) = all(&judged, |record| {
        let Body::Unpaired { prompt, completion, label } = &record.body else {
            return Err(unfit(record, "a completion with a label, or a preference pair,"));
        };
        if completion.is_empty() {
            return Ok(Outcome::Dropped(DropReason::EmptyCompletion));
        }
        let both = mask::continued(codec, record, prompt, completion)?;
        let start = both.start();
        let mut notes = Notes { prompt_changed: start < both.prompt.len(), ..Notes::default() };
        let (mut prompt, mut completion) = (both.whole[..start].to_vec(), both.whole[start..].to_vec());
        if let Some(reason) =
            fit(&mut prompt, &mut [&mut completion], &mut notes, config.truncation_mode, bound)
        {
            return Ok(Outcome::Dropped(reason));
        }
        Ok(Outcome::Kept(Labelled { prompt, completion, label: *label }, notes))
    })?;
    report.kept.iter_mut().for_each(|index| *index = origins[*index]);
    report.dropped.iter_mut().for_each(|dropped| dropped.record = origins[dropped.record]);
    Ok((items, report))
}
