//! Which layout a file has: TRL's schemas, and common others that are read as one of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Layout of a record. Recognised by the columns of the first record, or named by `data.schema`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// `document`, `chunk`, `prompt`, `chosen`, `rejected`: a question about a chunk of a document, with two answers.
    LongPreference,
    /// `document` and `turns`, a list of `chunk`, `prompt`, `chosen`, `rejected`: several of them, one after the other.
    LongTurns,
    /// `chosen`, `rejected` and perhaps `prompt`: strings or messages. Without `prompt` it is what both begin with.
    Preference,
    /// `conversations` (`from`, `value`), `chosen`, `rejected`: preference as LLaMA-Factory writes it.
    SharegptPreference,
    /// `instruction`, perhaps `input`, `chosen`, `rejected`: preference as LLaMA-Factory writes it.
    AlpacaPreference,
    /// `chosen`, `rejected` as `Human:` / `Assistant:` transcripts (HH-RLHF), read as messages.
    Transcripts,
    /// `question`, `answer_matching_behavior`, `answer_not_matching_behavior`: read as plain preference.
    Persona,
    /// `prompt`, `completion`, `label`.
    Unpaired,
    /// `messages` and `label`: the last message is what the label judges.
    UnpairedMessages,
    /// `conversations` and `kto_tag`: the last turn is what the tag judges.
    SharegptUnpaired,
    /// `prompt`, `completion`: strings or messages.
    PromptCompletion,
    /// `messages`.
    Messages,
    /// `conversations` (`from`, `value`), perhaps `system`: read as messages.
    Sharegpt,
    /// `instruction`, `output`, perhaps `input`, `system`, `history`: read as a conversation.
    Alpaca,
    /// `question`, `answer` (GSM8K): read as a conversation of one question and its answer.
    QuestionAnswer,
    /// `prompt`: a string or messages, nothing to learn from by itself.
    Prompt,
    /// `text`.
    Text,
}

impl Schema {
    /// All of them. A record is read as the first whose columns it has, so the more specific come first.
    pub const ALL: [Schema; 17] = [
        Schema::LongPreference,
        Schema::LongTurns,
        Schema::SharegptPreference,
        Schema::AlpacaPreference,
        Schema::Transcripts,
        Schema::Preference,
        Schema::Persona,
        Schema::Unpaired,
        Schema::UnpairedMessages,
        Schema::SharegptUnpaired,
        Schema::PromptCompletion,
        Schema::Messages,
        Schema::Sharegpt,
        Schema::Alpaca,
        Schema::QuestionAnswer,
        Schema::Prompt,
        Schema::Text,
    ];

    /// Name as in `data.schema` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Schema::LongPreference => "long_preference",
            Schema::LongTurns => "long_turns",
            Schema::Preference => "preference",
            Schema::SharegptPreference => "sharegpt_preference",
            Schema::AlpacaPreference => "alpaca_preference",
            Schema::Transcripts => "transcripts",
            Schema::Persona => "persona",
            Schema::Unpaired => "unpaired",
            Schema::UnpairedMessages => "unpaired_messages",
            Schema::SharegptUnpaired => "sharegpt_unpaired",
            Schema::PromptCompletion => "prompt_completion",
            Schema::Messages => "messages",
            Schema::Sharegpt => "sharegpt",
            Schema::Alpaca => "alpaca",
            Schema::QuestionAnswer => "question_answer",
            Schema::Prompt => "prompt",
            Schema::Text => "text",
        }
    }

    /// Columns that every record must have.
    pub fn required(self) -> &'static [&'static str] {
        match self {
            Schema::LongPreference => &["document", "chunk", "prompt", "chosen", "rejected"],
            Schema::LongTurns => &["document", "turns"],
            Schema::Preference | Schema::Transcripts => &["chosen", "rejected"],
            Schema::SharegptPreference => &["conversations", "chosen", "rejected"],
            Schema::AlpacaPreference => &["instruction", "chosen", "rejected"],
            Schema::Persona => &["question", "answer_matching_behavior", "answer_not_matching_behavior"],
            Schema::Unpaired => &["prompt", "completion", "label"],
            Schema::UnpairedMessages => &["messages", "label"],
            Schema::SharegptUnpaired => &["conversations", "kto_tag"],
            Schema::PromptCompletion => &["prompt", "completion"],
            Schema::Messages => &["messages"],
            Schema::Sharegpt => &["conversations"],
            Schema::Alpaca => &["instruction", "output"],
            Schema::QuestionAnswer => &["question", "answer"],
            Schema::Prompt => &["prompt"],
            Schema::Text => &["text"],
        }
    }

    /// Columns that a record may have and that are read.
    pub fn optional(self) -> &'static [&'static str] {
        match self {
            Schema::Preference => &["prompt"],
            Schema::SharegptPreference | Schema::SharegptUnpaired | Schema::Sharegpt => &["system"],
            Schema::Alpaca | Schema::AlpacaPreference => &["input", "system", "history"],
            _ => &[],
        }
    }

    /// The layout that a record has by its columns.
    pub(crate) fn recognise(row: &Map<String, Value>) -> Option<Schema> {
        let has_all = |s: &Schema| s.required().iter().all(|c| row.contains_key(*c));
        Schema::ALL.into_iter().filter(has_all).find(|s| *s != Schema::Transcripts || is_transcript(row))
    }

    /// What is accepted, for messages: `{prompt, completion}, ...`.
    pub(crate) fn accepted() -> String {
        let sets: Vec<String> =
            Schema::ALL.iter().filter(|s| **s != Schema::Transcripts).map(|s| s.columns_text()).collect();
        sets.join(", ")
    }

    /// `{prompt?, chosen, rejected}`.
    fn columns_text(self) -> String {
        let optional = self.optional().iter().map(|c| format!("{c}?"));
        let all: Vec<String> = optional.chain(self.required().iter().map(|c| (*c).to_owned())).collect();
        format!("{{{}}}", all.join(", "))
    }

    /// Whether a column is read by some schema, so that `data.columns` may name it.
    pub(crate) fn reads(column: &str) -> bool {
        super::record::CONTEXT_COLUMNS.contains(&column)
            || Schema::ALL.iter().any(|s| s.required().contains(&column) || s.optional().contains(&column))
    }
}

fn is_transcript(row: &Map<String, Value>) -> bool {
    let starts = |c| row.get(c).and_then(Value::as_str).is_some_and(|t| t.starts_with("\n\nHuman:"));
    !row.contains_key("prompt") && starts("chosen") && starts("rejected")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognise(json: &str) -> Option<&'static str> {
        let row: Map<String, Value> = serde_json::from_str(json).expect("an object");
        Schema::recognise(&row).map(Schema::name)
    }

    #[test]
    fn the_most_specific_layout_wins() {
        assert_eq!(recognise(r#"{"prompt": "", "completion": "", "label": true}"#), Some("unpaired"));
        assert_eq!(recognise(r#"{"prompt": "", "completion": ""}"#), Some("prompt_completion"));
        assert_eq!(recognise(r#"{"messages": [], "label": true}"#), Some("unpaired_messages"));
        assert_eq!(
            recognise(r#"{"conversations": [], "chosen": {}, "rejected": {}}"#),
            Some("sharegpt_preference")
        );
        assert_eq!(
            recognise(r#"{"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a"}"#),
            Some("transcripts")
        );
        assert_eq!(recognise(r#"{"chosen": "a", "rejected": "b"}"#), Some("preference"));
        assert_eq!(recognise(r#"{"problem": "a", "answer": "b"}"#), None);
    }

    #[test]
    fn a_schema_is_spelled_in_the_configuration_as_in_reports() {
        for schema in Schema::ALL {
            assert_eq!(serde_json::to_value(schema).expect("a unit variant"), Value::from(schema.name()));
        }
    }

    #[test]
    fn every_schema_recognises_its_own_required_columns_unless_a_value_decides() {
        for schema in Schema::ALL.into_iter().filter(|s| *s != Schema::Transcripts) {
            let row: Map<String, Value> =
                schema.required().iter().map(|c| ((*c).to_owned(), Value::Null)).collect();
            assert_eq!(Schema::recognise(&row), Some(schema));
        }
    }
}
