//! From a file's own layout to TRL's schemas.

use serde_json::{Map, Value};

use super::json::Step;
use super::record::Turn;
use super::record::{CONTEXT_COLUMNS, role};
use super::row::Row;
use super::{Body, Message, Record, Schema, Text};
use crate::Result;

impl Row<'_> {
    /// Reads the row as a record of `schema`.
    pub(crate) fn record(mut self, schema: Schema) -> Result<Record> {
        self.check(schema)?;
        let context = self.context()?;
        let body = match schema {
            Schema::Text => Body::Text(Text::Plain(self.string("text")?)),
            Schema::Prompt => Body::Prompt(self.text("prompt")?),
            Schema::PromptCompletion => {
                let (prompt, completion) = (self.text("prompt")?, self.text("completion")?);
                self.same_kind("prompt", &prompt, "completion", &completion)?;
                Body::Completion { prompt, completion }
            }
            Schema::Unpaired => {
                let (prompt, completion) = (self.text("prompt")?, self.text("completion")?);
                self.same_kind("prompt", &prompt, "completion", &completion)?;
                Body::Unpaired { prompt, completion, label: self.flag("label")? }
            }
            Schema::Messages => {
                let items = self.array("messages")?;
                Body::Text(Text::Chat(self.messages("messages", items)?))
            }
            Schema::UnpairedMessages => {
                let items = self.array("messages")?;
                let messages = self.messages("messages", items)?;
                self.judged("messages", messages, "label")?
            }
            Schema::Sharegpt => Body::Text(Text::Chat(self.conversation()?)),
            Schema::SharegptUnpaired => {
                let messages = self.conversation()?;
                self.judged("conversations", messages, "kto_tag")?
            }
            Schema::SharegptPreference => {
                let prompt = Text::Chat(self.conversation()?);
                Body::Preference { prompt, chosen: self.turn("chosen")?, rejected: self.turn("rejected")? }
            }
            Schema::Preference => self.preference()?,
            Schema::LongPreference => self.long_pair()?,
            Schema::LongTurns => self.long_turns()?,
            Schema::Transcripts => self.transcripts()?,
            Schema::Persona => Body::Preference {
                prompt: Text::Plain(self.string("question")?),
                chosen: Text::Plain(self.string("answer_matching_behavior")?),
                rejected: Text::Plain(self.string("answer_not_matching_behavior")?),
            },
            Schema::Alpaca => {
                let prompt = self.instruction()?;
                Body::Completion { prompt, completion: self.answer("output")? }
            }
            Schema::AlpacaPreference => {
                let prompt = self.instruction()?;
                Body::Preference {
                    prompt,
                    chosen: self.answer("chosen")?,
                    rejected: self.answer("rejected")?,
                }
            }
            Schema::QuestionAnswer => Body::Completion {
                prompt: Text::Chat(vec![message("user", self.string("question")?)]),
                completion: self.answer("answer")?,
            },
        };
        Ok(Record { source: self.source, body, context, extra: self.columns })
    }

    /// A string or messages.
    fn text(&mut self, column: &str) -> Result<Text> {
        match self.take(column) {
            Some(Value::String(text)) => Ok(Text::Plain(text)),
            Some(Value::Array(items)) => Ok(Text::Chat(self.messages(column, items)?)),
            other => {
                let got = super::json::kind(&other.unwrap_or(Value::Null));
                Err(self.error(
                    &[Step::Key(column)],
                    &format!("must be a string or a list of messages, got {got}"),
                ))
            }
        }
    }

    fn same_kind(&self, first: &str, a: &Text, second: &str, b: &Text) -> Result<()> {
        if kind(a) == kind(b) {
            return Ok(());
        }
        let problem = format!("is {} but `{first}` is {}; both must be the same", kind(b), kind(a));
        Err(self.error(&[Step::Key(second)], &problem))
    }

    fn preference(&mut self) -> Result<Body> {
        let prompt = if self.columns.contains_key("prompt") { Some(self.text("prompt")?) } else { None };
        let (chosen, rejected) = (self.text("chosen")?, self.text("rejected")?);
        self.same_kind("chosen", &chosen, "rejected", &rejected)?;
        match (prompt, chosen, rejected) {
            // Some sets repeat the prompt as a string although the conversations hold it (TRL's `maybe_extract_prompt`).
            (prompt @ (None | Some(Text::Plain(_))), Text::Chat(chosen), Text::Chat(rejected)) => {
                let at = shared_messages(&chosen, &rejected);
                if at == 0 && prompt.is_some() {
                    let problem = "is a string, but `chosen` and `rejected` are messages that do not begin with it; \
                                   write it as messages";
                    return Err(self.error(&[Step::Key("prompt")], problem));
                }
                let (prompt, chosen) = split(chosen, at);
                Ok(Body::Preference { prompt, chosen, rejected: split(rejected, at).1 })
            }
            (None, Text::Plain(chosen), Text::Plain(rejected)) => {
                let at = shared_text(&chosen, &rejected);
                Ok(Body::Preference {
                    prompt: Text::Plain(chosen[..at].to_owned()),
                    chosen: Text::Plain(chosen[at..].to_owned()),
                    rejected: Text::Plain(rejected[at..].to_owned()),
                })
            }
            (prompt, chosen, rejected) => {
                let prompt = prompt.unwrap_or_else(|| Text::Plain(String::new()));
                self.same_kind("prompt", &prompt, "chosen", &chosen)?;
                Ok(Body::Preference { prompt, chosen, rejected })
            }
        }
    }

    fn long_pair(&mut self) -> Result<Body> {
        let document = self.string("document")?;
        let columns = std::mem::take(&mut self.columns);
        let (own, rest) = columns.into_iter().partition(|(name, _)| TURN.contains(&name.as_str()));
        self.columns = rest;
        let turn = self.asked(&[], own, &document)?;
        Ok(Body::Long { document, turns: vec![turn] })
    }

    fn long_turns(&mut self) -> Result<Body> {
        let document = self.string("document")?;
        let mut turns: Vec<Turn> = Vec::new();
        for (i, item) in self.array("turns")?.into_iter().enumerate() {
            let here = [Step::Key("turns"), Step::Index(i)];
            let Value::Object(fields) = item else {
                return Err(self.mismatch(&here, "a turn {chunk, prompt, chosen, rejected}", &item));
            };
            let turn = self.asked(&here, fields, &document)?;
            if turns.first().is_some_and(|first| kind(&first.prompt) != kind(&turn.prompt)) {
                let problem =
                    format!("has {} but the first turn {}", kind(&turn.prompt), kind(&turns[0].prompt));
                return Err(self.error(&here, &format!("{problem}; all must be the same")));
            }
            turns.push(turn);
        }
        if turns.is_empty() {
            return Err(self.error(&[Step::Key("turns")], "has no turns"));
        }
        Ok(Body::Long { document, turns })
    }

    /// One question about `document`, at `place` of the record.
    fn asked(&self, place: &[Step<'_>], mut fields: Message, document: &str) -> Result<Turn> {
        let at = |name: &'static str| [place, &[Step::Key(name)]].concat();
        let mut take = |name: &'static str| match fields.shift_remove(name) {
            None => Err(self.error(place, &format!("has no `{name}`; a turn needs {}", TURN.join(", ")))),
            Some(value) => Ok(value),
        };
        let text = |name, value| match value {
            Value::String(text) => Ok(Text::Plain(text)),
            Value::Array(items) => Ok(Text::Chat(self.messages_at(&at(name), items)?)),
            other => Err(self.mismatch(&at(name), "a string or a list of messages", &other)),
        };
        let chunk = match take("chunk")? {
            Value::String(chunk) if !chunk.is_empty() && document.contains(&chunk) => chunk,
            Value::String(_) => {
                let problem = "must be a part of `document`, letter by letter, and not empty";
                return Err(self.error(&at("chunk"), problem));
            }
            other => return Err(self.mismatch(&at("chunk"), "a string", &other)),
        };
        let prompt = text("prompt", take("prompt")?)?;
        if let Text::Chat(messages) = &prompt
            && !messages.iter().any(|message| role(message) == "user")
        {
            return Err(self
                .error(&at("prompt"), "has no message of the user, before which the document could stand"));
        }
        let [chosen, rejected] = ["chosen", "rejected"].map(|name| {
            let said = text(name, take(name)?)?;
            if kind(&said) == kind(&prompt) {
                return Ok(said);
            }
            let problem =
                format!("is {} but `prompt` is {}; both must be the same", kind(&said), kind(&prompt));
            Err(self.error(&at(name), &problem))
        });
        Ok(Turn { chunk, chosen: chosen?, rejected: rejected?, prompt })
    }

    fn transcripts(&mut self) -> Result<Body> {
        let (chosen, rejected) = (self.transcript("chosen")?, self.transcript("rejected")?);
        let at = shared_messages(&chosen, &rejected);
        let (prompt, chosen) = split(chosen, at);
        Ok(Body::Preference { prompt, chosen, rejected: split(rejected, at).1 })
    }

    fn transcript(&mut self, column: &str) -> Result<Vec<Message>> {
        let text = self.string(column)?;
        parse_transcript(&text).ok_or_else(|| {
            self.error(&[Step::Key(column)], "must begin with \"\\n\\nHuman:\" or \"\\n\\nAssistant:\"")
        })
    }

    fn conversation(&mut self) -> Result<Vec<Message>> {
        let items = self.array("conversations")?;
        let mut messages = self.turns("conversations", items)?;
        let system = self.string("system")?;
        if !system.is_empty() {
            messages.insert(0, message("system", system));
        }
        Ok(messages)
    }

    /// One ShareGPT turn, a list of them, or a string said by the assistant.
    fn turn(&mut self, column: &str) -> Result<Text> {
        match self.take(column) {
            Some(Value::String(text)) => Ok(Text::Chat(vec![message("assistant", text)])),
            Some(Value::Array(items)) => Ok(Text::Chat(self.turns(column, items)?)),
            Some(turn @ Value::Object(_)) => Ok(Text::Chat(self.turns(column, vec![turn])?)),
            _ => Err(self.error(&[Step::Key(column)], "must be a turn {from, value}")),
        }
    }

    fn answer(&mut self, column: &str) -> Result<Text> {
        Ok(Text::Chat(vec![message("assistant", self.string(column)?)]))
    }

    /// Alpaca's prompt: `system`, the pairs of `history`, then `instruction` and `input` on lines of their own.
    fn instruction(&mut self) -> Result<Text> {
        let mut messages = Vec::new();
        let system = self.string("system")?;
        if !system.is_empty() {
            messages.push(message("system", system));
        }
        for (i, pair) in self.array("history")?.into_iter().enumerate() {
            let said = |at: usize| pair.get(at).and_then(Value::as_str).map(str::to_owned);
            let (Some(user), Some(assistant)) = (said(0), said(1)) else {
                return Err(
                    self.error(&[Step::Key("history"), Step::Index(i)], "must be [instruction, output]")
                );
            };
            messages.extend([message("user", user), message("assistant", assistant)]);
        }
        let (mut text, input) = (self.string("instruction")?, self.string("input")?);
        if !input.is_empty() {
            text.push('\n');
            text.push_str(&input);
        }
        messages.push(message("user", text));
        Ok(Text::Chat(messages))
    }

    /// A conversation whose last turn the flag judges.
    fn judged(&mut self, column: &str, mut messages: Vec<Message>, flag: &str) -> Result<Body> {
        let label = self.flag(flag)?;
        match messages.pop() {
            Some(last) if role(&last) == "assistant" => {
                Ok(Body::Unpaired { prompt: Text::Chat(messages), completion: Text::Chat(vec![last]), label })
            }
            _ => Err(self.error(
                &[Step::Key(column)],
                &format!("must end with the assistant's turn that `{flag}` judges"),
            )),
        }
    }

    /// `tools` (a list, or a string of JSON), `documents`, and `chat_template_kwargs`.
    fn context(&mut self) -> Result<Map<String, Value>> {
        let mut context = Map::new();
        for column in CONTEXT_COLUMNS {
            let Some(mut value) = self.take(column) else { continue };
            if let Value::String(text) = &value {
                value = serde_json::from_str(text).map_err(|e| {
                    self.error(&[Step::Key(column)], &format!("is a string, but not of JSON: {e}"))
                })?;
            }
            match value {
                Value::Object(kwargs) if column == "chat_template_kwargs" => context.extend(kwargs),
                Value::Array(_) if column != "chat_template_kwargs" => {
                    context.insert(column.to_owned(), value);
                }
                Value::Null => {}
                _ => {
                    let wanted = if column == "chat_template_kwargs" {
                        "must be an object"
                    } else {
                        "must be an array"
                    };
                    return Err(self.error(&[Step::Key(column)], wanted));
                }
            }
        }
        Ok(context)
    }
}

/// What a turn about a document has.
const TURN: [&str; 4] = ["chunk", "prompt", "chosen", "rejected"];

/// Of a text, for messages.
fn kind(text: &Text) -> &'static str {
    if matches!(text, Text::Plain(_)) { "a string" } else { "messages" }
}

fn message(role: &str, content: String) -> Message {
    let mut message = Message::new();
    message.insert("role".to_owned(), role.into());
    message.insert("content".to_owned(), content.into());
    message
}

fn split(mut messages: Vec<Message>, at: usize) -> (Text, Text) {
    let rest = messages.split_off(at);
    (Text::Chat(messages), Text::Chat(rest))
}

/// How many turns both conversations begin with, leaving each at least one.
fn shared_messages(a: &[Message], b: &[Message]) -> usize {
    let shorter = a.len().min(b.len()).saturating_sub(1);
    (0..shorter).find(|&i| a[i] != b[i]).unwrap_or(shorter)
}

/// Bytes that both strings begin with, as TRL's `extract_prompt` counts: a space before the first difference
/// belongs to the completions, and where one string is the beginning of the other its last character does.
fn shared_text(a: &str, b: &str) -> usize {
    let mut last = (0, None);
    let mut previous = None;
    for ((at, x), y) in a.char_indices().zip(b.chars()) {
        last = (at, previous);
        if x != y {
            break;
        }
        previous = Some(x);
    }
    match last {
        (at, Some(' ')) if a[at..].chars().next() != b[at..].chars().next() => at - 1,
        (at, _) => at,
    }
}

/// Turns of an HH-RLHF transcript; neighbouring turns of one speaker become one.
fn parse_transcript(text: &str) -> Option<Vec<Message>> {
    const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
    let next = |from: usize| {
        SPEAKERS
            .iter()
            .filter_map(|&(mark, role)| text[from..].find(mark).map(|at| (from + at, mark.len(), role)))
            .min_by_key(|found| found.0)
    };
    let (0, mut length, mut speaker) = next(0)? else { return None };
    let mut start = 0;
    let mut turns: Vec<(&str, String)> = Vec::new();
    loop {
        let body = start + length;
        let following = next(body);
        let said = text[body..following.map_or(text.len(), |f| f.0)].trim();
        match turns.last_mut() {
            Some((role, before)) if *role == speaker => {
                before.push_str("\n\n");
                before.push_str(said);
            }
            _ => turns.push((speaker, said.to_owned())),
        }
        let Some(found) = following else { break };
        (start, length, speaker) = found;
    }
    Some(turns.into_iter().map(|(role, said)| message(role, said)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extract(a: &str, b: &str) -> (String, String, String) {
        let at = shared_text(a, b);
        (a[..at].to_owned(), a[at..].to_owned(), b[at..].to_owned())
    }

    /// The values were computed with TRL 1.16's `extract_prompt`.
    #[test]
    fn implicit_prompts_are_cut_as_trl_cuts_them() {
        let is = |a, b, prompt: &str, x: &str, y: &str| {
            assert_eq!(extract(a, b), (prompt.to_owned(), x.to_owned(), y.to_owned()));
        };
        is("The sky is blue.", "The sky is green.", "The sky is", " blue.", " green.");
        is("sky: blue", "sky: black", "sky: bl", "ue", "ack");
        is("abc", "abcdef", "ab", "c", "cdef");
        is("a b", "a b c", "a ", "b", "b c");
        is("日本語", "日本人", "日本", "語", "人");
    }

    #[test]
    fn strings_that_share_nothing_have_no_prompt() {
        assert_eq!(extract("x ", "y "), (String::new(), "x ".to_owned(), "y ".to_owned()));
        assert_eq!(extract("", "y"), (String::new(), String::new(), "y".to_owned()));
    }

    #[test]
    fn transcripts_become_turns() {
        let turns = parse_transcript(
            "\n\nHuman: hi\n\nthere\n\nAssistant: Hello.\n\nHuman: a\n\nHuman: b\n\nAssistant:",
        )
        .expect("a transcript");
        let read: Vec<(&str, &str)> =
            turns.iter().map(|m| (role(m), m["content"].as_str().expect("a string"))).collect();
        assert_eq!(
            read,
            [("user", "hi\n\nthere"), ("assistant", "Hello."), ("user", "a\n\nb"), ("assistant", "")]
        );
        assert!(parse_transcript("Human: hi").is_none());
    }
}
