//! How a model's text becomes ids: tokenizer, chat template and the ids that begin and end text.

use super::{Message, Record, Rendered, Template, Tokenizer};
use crate::{Error, Result};

/// Everything that lies between a record and its ids.
#[derive(Debug)]
pub struct Codec {
    /// From `tokenizer.json`.
    pub tokenizer: Tokenizer,
    /// The model's chat template, if it has one.
    pub template: Option<Template>,
    /// Beginning of text.
    pub bos: Option<u32>,
    /// The ids at which generation stops. The first ends plain texts and completions.
    pub eos: Vec<u32>,
    /// Padding. Nothing is padded here; only [`super::doctor`] looks at it.
    pub pad: Option<u32>,
}

impl Codec {
    /// Renders messages of `record` with its tools; with `generation_prompt`, up to where the assistant speaks next.
    pub fn render(&self, record: &Record, messages: &[Message], generation_prompt: bool) -> Result<Rendered> {
        let Some(template) = &self.template else {
            return Err(Error::Config {
                key: "model.chat_template".to_owned(),
                problem: format!(
                    "{}: the records are conversations, but the model has no chat template; give one \
                     (chat_template.jinja in the model's folder), or read plain text with `data.columns`",
                    record.source.path.display()
                ),
            });
        };
        template
            .render(messages, &record.context, generation_prompt)
            .map_err(|e| record.source.error(format!("{e}; correct the record or the model's template")))
    }

    /// Ends plain text as TRL does: with the first stop id, unless it is there already.
    pub(crate) fn end(&self, ids: &mut Vec<u32>) {
        if let Some(&eos) = self.eos.first()
            && ids.last() != Some(&eos)
        {
            ids.push(eos);
        }
    }

    /// Whether generation stops at this id.
    pub fn stops(&self, id: u32) -> bool {
        self.eos.contains(&id)
    }
}
