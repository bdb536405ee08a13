//! Pairs about long documents: the policy reads the document, the reference a chunk of it.

use std::ops::Range;

use super::{DropReason, Notes, Outcome, PrepareConfig, PrepareReport, Truncation, all, unfit};
use crate::Result;
use crate::data::record::role;
use crate::data::tokenizer::Encoded;
use crate::data::{Body, Codec, Message, Record, Text, Turn};

/// Questions about a document with a better and a worse answer to each. Answers have the same ids wherever they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongPair {
    /// Document, questions and better answers.
    pub chosen: Answered,
    /// With the worse answers. Both begin with the same prompt.
    pub rejected: Answered,
    /// For each question what the reference reads before its answers: chunk and question.
    pub short: Vec<Vec<u32>>,
}

/// A sequence that holds answers and ends with the last of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Where the answers are, end tokens included; none is empty, and none is at the beginning.
    pub answers: Vec<Range<usize>>,
}

/// Prepares pairs about long documents. Document or chunk come right before the question, in a conversation at the beginning of
/// its first user's message. Each answer is tokenised once and ends with the stop token.
///
/// `max_length` bounds each sequence. Longer ones lose tokens of the document, never of a chunk, a question or an answer:
/// `keep_start` takes them from the document's end, `keep_end` from its beginning. What is still too long is left out.
///
/// # Errors
/// A record holds something else, or its chat template changes what it is given.
pub fn long(
    codec: &Codec,
    records: &[Record],
    config: &PrepareConfig,
) -> Result<(Vec<LongPair>, PrepareReport)> {
    let bound = config.bound()?;
    all(records, |record| {
        let Body::Long { document, turns } = &record.body else {
            return Err(unfit(record, "a document with a chunk, a question and two answers"));
        };
        if turns.iter().any(|turn| turn.chosen.is_empty() || turn.rejected.is_empty()) {
            return Ok(Outcome::Dropped(DropReason::EmptyCompletion));
        }
        let mut short = Vec::new();
        let [mut better, mut worse] = [Vec::new(), Vec::new()];
        for turn in turns {
            let (prompt, [chosen, rejected]) = answered(codec, record, turn)?;
            short.push(prompt);
            better.push(chosen);
            worse.push(rejected);
        }
        let (first, between) = asked(codec, record, document, turns, &better, |turn| &turn.chosen)?;
        let (_, between_worse) = asked(codec, record, document, turns, &worse, |turn| &turn.rejected)?;

        let prompt = framed(codec, &first, plain(&turns[0]))?;
        if better.iter().chain(&worse).any(|answer| answer.ids.is_empty()) {
            return Ok(Outcome::Dropped(DropReason::EmptyCompletion));
        }
        if short.iter().chain([&prompt.ids]).any(Vec::is_empty) {
            return Ok(Outcome::Dropped(DropReason::EmptyPrompt));
        }
        let longest_after = tokens(&better, &between).max(tokens(&worse, &between_worse));
        let over = (prompt.ids.len() + longest_after).saturating_sub(bound);
        let answers = short.iter().zip(better.iter().zip(&worse));
        let longest_short = answers.map(|(prompt, (a, b))| prompt.len() + a.ids.len().max(b.ids.len())).max();
        let cut = Cut { rule: config.truncation_mode, over };
        let Some(prompt) =
            cut.document(record, prompt, &first, document, turns)?.filter(|_| longest_short <= Some(bound))
        else {
            return Ok(Outcome::Dropped(DropReason::OverLong));
        };

        let pair = LongPair {
            chosen: joined(&prompt, &better, &between),
            rejected: joined(&prompt, &worse, &between_worse),
            short,
        };
        let notes = Notes {
            tokens: pair.chosen.ids.len() + pair.rejected.ids.len() - prompt.len(),
            longest: pair.chosen.ids.len().max(pair.rejected.ids.len()),
            trained: tokens(&better, &[]) + tokens(&worse, &[]),
            cut: over,
            identical: pair.chosen == pair.rejected,
            ..Notes::default()
        };
        Ok(Outcome::Kept(pair, notes))
    })
}

/// An answer, tokenised.
struct Answer {
    text: String,
    ids: Vec<u32>,
    /// What the chat template writes after the stop token.
    tail: Vec<u32>,
}

fn plain(turn: &Turn) -> bool {
    matches!(turn.prompt, Text::Plain(_))
}

/// What the reference reads before the answers of a turn, and the two answers.
fn answered(codec: &Codec, record: &Record, turn: &Turn) -> Result<(Vec<u32>, [Answer; 2])> {
    let mut prompt = String::new();
    let mut answer = |said| {
        let mut transcript = Transcript { codec, record, text: String::new(), messages: Vec::new() };
        prompt = transcript.ask(&turn.prompt, &turn.chunk)?;
        let text = transcript.answer(said)?;
        let mut ids = codec.tokenizer.encode(&text)?;
        let mut tail = Vec::new();
        if plain(turn) {
            codec.end(&mut ids);
        } else if let Some(stop) = ids.iter().position(|&id| codec.stops(id)) {
            tail = ids.split_off(stop + 1);
        }
        Ok::<_, crate::Error>(Answer { text, ids, tail })
    };
    let answers = [answer(&turn.chosen)?, answer(&turn.rejected)?];
    Ok((framed(codec, &prompt, plain(turn))?.ids, answers))
}

/// The text before the first answer of a side, and the ids between each answer and the next.
fn asked(
    codec: &Codec,
    record: &Record,
    document: &str,
    turns: &[Turn],
    answers: &[Answer],
    side: fn(&Turn) -> &Text,
) -> Result<(String, Vec<Vec<u32>>)> {
    let mut transcript = Transcript { codec, record, text: String::new(), messages: Vec::new() };
    let first = transcript.ask(&turns[0].prompt, document)?;
    let mut between = Vec::new();
    for (i, (turn, answer)) in turns.iter().zip(answers).enumerate() {
        if i > 0 {
            let next = transcript.ask(&turn.prompt, "")?;
            between.push([&answers[i - 1].tail[..], &codec.tokenizer.encode(&next)?].concat());
        }
        if transcript.answer(side(turn))? != answer.text {
            return Err(record.source.error(
                "the chat template renders an answer differently after the document than after its chunk, so the two \
                 cannot be compared; use a template that renders a turn by itself",
            ));
        }
    }
    Ok((first, between))
}

/// One side of a conversation while it grows.
struct Transcript<'a> {
    codec: &'a Codec,
    record: &'a Record,
    /// What is rendered so far.
    text: String,
    messages: Vec<Message>,
}

impl Transcript<'_> {
    /// The text that a question adds, up to where the answer begins; `context` comes before what the user says.
    fn ask(&mut self, prompt: &Text, context: &str) -> Result<String> {
        match prompt {
            Text::Plain(prompt) => Ok(format!("{context}{prompt}")),
            Text::Chat(prompt) => {
                let from = self.messages.len();
                self.messages.extend(prompt.iter().cloned());
                if let Some(first) = self.messages[from..].iter_mut().find(|message| role(message) == "user")
                {
                    let content =
                        first.get("content").and_then(|content| content.as_str()).unwrap_or_default();
                    let content = format!("{context}{content}");
                    first.insert("content".to_owned(), content.into());
                }
                self.rendered(true)
            }
        }
    }

    /// The text that an answer adds.
    fn answer(&mut self, said: &Text) -> Result<String> {
        match said {
            Text::Plain(said) => Ok(said.clone()),
            Text::Chat(said) => {
                self.messages.extend(said.iter().cloned());
                self.rendered(false)
            }
        }
    }

    fn rendered(&mut self, generation_prompt: bool) -> Result<String> {
        let text = self.codec.render(self.record, &self.messages, generation_prompt)?.text;
        let Some(new) = text.strip_prefix(&self.text) else {
            return Err(self.record.source.error(format!(
                "the chat template renders the conversation of {} messages so that it does not begin with what it renders \
                 of fewer, so answers cannot be told from the rest; use a template that renders a turn by itself",
                self.messages.len()
            )));
        };
        let new = new.to_owned();
        self.text = text;
        Ok(new)
    }
}

/// Ids of the beginning of a sequence; what the tokenizer puts before a document covers nothing.
fn framed(codec: &Codec, text: &str, plain: bool) -> Result<Encoded> {
    let mut encoded = codec.tokenizer.encode_with_offsets(text)?;
    if plain && !encoded.ids.is_empty() {
        let whole = codec.tokenizer.encode_document(text)?;
        let before = whole.windows(encoded.ids.len()).position(|ids| ids == encoded.ids).unwrap_or(0);
        encoded.ids.splice(..0, whole[..before].iter().copied());
        encoded.offsets.splice(..0, std::iter::repeat_n(0..0, before));
    }
    Ok(encoded)
}

/// Tokens of answers and of what stands between them.
fn tokens(answers: &[Answer], between: &[Vec<u32>]) -> usize {
    answers.iter().map(|answer| answer.ids.len()).sum::<usize>() + between.iter().map(Vec::len).sum::<usize>()
}

fn joined(prompt: &[u32], answers: &[Answer], between: &[Vec<u32>]) -> Answered {
    let mut side = Answered { ids: prompt.to_vec(), answers: Vec::with_capacity(answers.len()) };
    for (i, answer) in answers.iter().enumerate() {
        if i > 0 {
            side.ids.extend_from_slice(&between[i - 1]);
        }
        let start = side.ids.len();
        side.ids.extend_from_slice(&answer.ids);
        side.answers.push(start..side.ids.len());
    }
    side
}

/// How many tokens a document has to lose, and where.
struct Cut {
    rule: Truncation,
    over: usize,
}

impl Cut {
    /// The ids of `prompt`, whose text is `text`, without tokens of the document beside the chunks; `None` if those are too few.
    fn document(
        &self,
        record: &Record,
        prompt: Encoded,
        text: &str,
        document: &str,
        turns: &[Turn],
    ) -> Result<Option<Vec<u32>>> {
        if self.over == 0 {
            return Ok(Some(prompt.ids));
        }
        let Some(start) = text.find(document) else {
            return Err(record.source.error(
                "the chat template changes the document, so that it cannot be shortened; raise data.max_length, or remove \
                 spaces at its beginning and end",
            ));
        };
        let chunks: Vec<Range<usize>> = turns
            .iter()
            .filter_map(|turn| document.find(&turn.chunk).map(|at| start + at..start + at + turn.chunk.len()))
            .collect();
        let beside = |token: &Range<usize>| {
            let inside = !token.is_empty() && token.start >= start && token.end <= start + document.len();
            inside && chunks.iter().all(|chunk| token.end <= chunk.start || token.start >= chunk.end)
        };
        let beside: Vec<usize> = (0..prompt.ids.len()).filter(|&i| beside(&prompt.offsets[i])).collect();
        if self.over > beside.len() || self.rule == Truncation::Drop {
            return Ok(None);
        }
        let lost = match self.rule {
            Truncation::KeepEnd => &beside[..self.over],
            _ => &beside[beside.len() - self.over..],
        };
        let mut lost = lost.iter().copied().peekable();
        let mut ids = prompt.ids;
        let mut place = 0..;
        ids.retain(|_| lost.next_if_eq(&place.next().expect("without end")).is_none());
        Ok(Some(ids))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::data::fixture::{tokenizer, tokenizer_without_bos};
    use crate::data::{ReadConfig, Template, read_json};

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn codec(template: Option<&str>) -> Codec {
        let tokenizer = tokenizer();
        let template =
            template.map(|t| Template::new(Path::new("t"), t, &Value::Null, None).expect("it compiles"));
        let eos = vec![tokenizer.id("<|im_end|>").expect("a token of the fixture")];
        Codec { bos: tokenizer.id("<s>"), pad: None, eos, template, tokenizer }
    }

    fn prepared(
        codec: &Codec,
        row: &Value,
        config: &PrepareConfig,
    ) -> Result<(Vec<LongPair>, PrepareReport)> {
        let rows = json!([row]).to_string();
        let (records, _) = read_json(Path::new("d.json"), rows.as_bytes(), &ReadConfig::default())?;
        long(codec, &records, config)
    }

    fn one(codec: &Codec, row: &Value, config: &PrepareConfig) -> (LongPair, PrepareReport) {
        let (mut pairs, report) = prepared(codec, row, config).expect("it can be prepared");
        (pairs.remove(0), report)
    }

    fn turns(row: &Value) -> Value {
        json!({ "document": "one two three four five", "turns": row })
    }

    fn turn(chunk: &str, prompt: &str, chosen: &str, rejected: &str) -> Value {
        json!({ "chunk": chunk, "prompt": prompt, "chosen": chosen, "rejected": rejected })
    }

    fn spoken(chunk: &str, prompt: &str, chosen: &str, rejected: &str) -> Value {
        let said = |role: &str, text: &str| json!([{ "role": role, "content": text }]);
        let [chosen, rejected] = [chosen, rejected].map(|text| said("assistant", text));
        json!({ "chunk": chunk, "prompt": said("user", prompt), "chosen": chosen, "rejected": rejected })
    }

    fn text(codec: &Codec, ids: &[u32]) -> String {
        codec.tokenizer.decode_with_special_tokens(ids)
    }

    fn answers(codec: &Codec, side: &Answered) -> Vec<String> {
        side.answers.iter().map(|answer| text(codec, &side.ids[answer.clone()])).collect()
    }

    /// Every answer has the same ids after the document and after the chunk, whose prompts are `short`.
    fn check(codec: &Codec, pair: &LongPair, row: &Value, kind: &str) {
        for (k, turn) in row["turns"].as_array().expect("turns").iter().enumerate() {
            let content = |name: &str| {
                let value = &turn[name];
                value.as_str().or_else(|| value[0]["content"].as_str()).expect("text").to_owned()
            };
            let asked = format!("{}{}", content("chunk"), content("prompt"));
            let expected = match kind {
                "plain" => format!("<s>{asked}"),
                _ => format!("<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"),
            };
            assert_eq!(text(codec, &pair.short[k]), expected);
            for (side, name) in [(&pair.chosen, "chosen"), (&pair.rejected, "rejected")] {
                assert_eq!(answers(codec, side)[k], content(name) + "<|im_end|>");
            }
        }
    }

    #[test]
    fn the_policy_reads_the_document_and_the_reference_the_chunks() {
        let codec = codec(Some(CHATML));
        let plain = turns(&json!([turn("two ", "? ", "a b", "c"), turn("five", "! ", "d", "e f g")]));
        let (pair, report) = one(&codec, &plain, &PrepareConfig::default());
        check(&codec, &pair, &plain, "plain");
        assert_eq!(
            [&pair.chosen, &pair.rejected].map(|side| text(&codec, &side.ids)),
            [
                "<s>one two three four five? a b<|im_end|>! d<|im_end|>",
                "<s>one two three four five? c<|im_end|>! e f g<|im_end|>"
            ]
        );
        assert_eq!(
            (report.longest, report.truncated),
            (pair.rejected.ids.len().max(pair.chosen.ids.len()), 0)
        );

        let chat = turns(&json!([spoken("two", " ?", "a b", "c"), spoken("five", "!", "d", "e f g")]));
        let (pair, _) = one(&codec, &chat, &PrepareConfig::default());
        check(&codec, &pair, &chat, "chat");
        assert_eq!(
            text(&codec, &pair.rejected.ids),
            "<|im_start|>user\none two three four five ?<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n\
             <|im_start|>user\n!<|im_end|>\n<|im_start|>assistant\ne f g<|im_end|>"
        );
    }

    #[test]
    fn a_single_turn_may_stand_in_columns_of_its_own() {
        let codec = codec(None);
        let mut row = turn("two ", "? ", "a b", "c");
        let (same, _) = one(&codec, &turns(&json!([row])), &PrepareConfig::default());
        row["document"] = json!("one two three four five");
        row["source"] = json!("kept");
        assert_eq!(one(&codec, &row, &PrepareConfig::default()).0, same);
    }

    fn shortened(rule: Truncation, bound: usize) -> Option<(String, PrepareReport)> {
        let tokenizer = tokenizer_without_bos();
        let eos = vec![tokenizer.id("<|im_end|>").expect("a token of the fixture")];
        let codec = Codec { bos: None, pad: None, eos, template: None, tokenizer };
        let row = json!({
            "document": "0123456789", "turns": [turn("34", "?", "a", "bc"), turn("7", "!", "d", "e")]
        });
        let config =
            PrepareConfig { max_length: Some(bound), truncation_mode: rule, ..PrepareConfig::default() };
        let (pair, report) = prepared(&codec, &row, &config).ok()?;
        Some((text(&codec, &pair[0].rejected.ids), report))
    }

    #[test]
    fn a_long_document_is_cut_beside_its_chunks() {
        // Ten digits, two questions, three letters and two ends.
        for (rule, bound, left) in [
            (Truncation::KeepStart, 17, "0123456789"),
            (Truncation::KeepStart, 15, "01234567"),
            (Truncation::KeepStart, 13, "012347"),
            (Truncation::KeepStart, 10, "347"),
            (Truncation::KeepEnd, 15, "23456789"),
            (Truncation::KeepEnd, 13, "346789"),
        ] {
            let (text, report) = shortened(rule, bound).expect("it can be cut");
            assert_eq!(text, format!("{left}?bc<|im_end|>!e<|im_end|>"), "{rule:?} {bound}");
            assert_eq!((report.truncated, report.truncated_tokens), (usize::from(bound < 17), 17 - bound));
            assert_eq!(report.longest, bound);
        }
        assert!(
            shortened(Truncation::KeepStart, 9).is_none(),
            "nothing but chunks, questions and answers is left"
        );
        assert!(shortened(Truncation::Drop, 16).is_none());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_place() {
        let good = turn("two", "?", "a", "b");
        let with = |name: &str, value: Value| {
            let mut row = good.clone();
            row[name] = value;
            turns(&json!([good, row]))
        };
        let mut without = good.clone();
        without.as_object_mut().expect("an object").remove("chosen");
        for (row, message) in [
            (turns(&json!([])), "`turns` has no turns"),
            (
                turns(&json!([good, 3])),
                "`turns[1]` must be a turn {chunk, prompt, chosen, rejected}, got a number",
            ),
            (
                turns(&json!([without])),
                "`turns[0]` has no `chosen`; a turn needs chunk, prompt, chosen, rejected",
            ),
            (
                with("chunk", json!("six")),
                "`turns[1].chunk` must be a part of `document`, letter by letter, and not empty",
            ),
            (
                with("chunk", json!("")),
                "`turns[1].chunk` must be a part of `document`, letter by letter, and not empty",
            ),
            (
                with("prompt", json!(1)),
                "`turns[1].prompt` must be a string or a list of messages, got a number",
            ),
            (
                with("chosen", json!([{ "role": "assistant", "content": "a" }])),
                "`turns[1].chosen` is messages but `prompt` is a string; both must be the same",
            ),
            (
                turns(&json!([good, spoken("two", "?", "a", "b")])),
                "`turns[1]` has messages but the first turn a string; all must be the same",
            ),
            (
                with("prompt", json!([{ "role": "user" }])),
                "`turns[1].prompt[0]` has no `content` (fields: role)",
            ),
        ] {
            let error =
                prepared(&codec(None), &row, &PrepareConfig::default()).expect_err("refused").to_string();
            assert!(error.starts_with("d.json:1:") && error.ends_with(message), "{error}\n{message}");
        }
        let plain = json!({ "prompt": "a", "chosen": "b", "rejected": "c" });
        let error =
            prepared(&codec(None), &plain, &PrepareConfig::default()).expect_err("refused").to_string();
        assert!(error.contains("a document with a chunk, a question and two answers is needed"), "{error}");
    }

    proptest! {
        #[test]
        fn chunks_questions_and_answers_survive_any_cut(
            before in "[a-z ]{0,30}", chunk in "[A-Z]{1,8}", after in "[a-z ]{0,30}", bound in 8usize..80, end in any::<bool>(),
        ) {
            let codec = codec(None);
            let row = json!({
                "document": format!("{before}{chunk}{after}"), "chunk": chunk, "prompt": "?", "chosen": "1", "rejected": "23"
            });
            let rule = if end { Truncation::KeepEnd } else { Truncation::KeepStart };
            let config = PrepareConfig { max_length: Some(bound), truncation_mode: rule, ..PrepareConfig::default() };
            if let Ok((pairs, _)) = prepared(&codec, &row, &config) {
                for (side, said) in [(&pairs[0].chosen, "1"), (&pairs[0].rejected, "23")] {
                    let text = text(&codec, &side.ids);
                    prop_assert!(side.ids.len() <= bound);
                    prop_assert!(text.contains(&chunk), "{text}");
                    prop_assert!(text.ends_with(&format!("?{said}<|im_end|>")), "{text}");
                }
            }
        }
    }
}
