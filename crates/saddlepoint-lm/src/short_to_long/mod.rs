//! Pairs about long documents from a model's own answers (LongPO, arXiv:2502.13922, section 3).
//!
//! ```text
//! document C_L ── chunks C_S ── question I about one, drawn from the model
//!     chosen:   most probable answer after [C_S; I]      (the model has the right passage before it)
//!     rejected: most probable answer after [C_L; I]      (and here it has to find it)
//! ```
//! Nobody judges the answers: that the first is better is declared. So what is obviously no answer is left out by rules, and
//! everything left out is counted ([`Left`]). A document is a function of its text, its place and the settings, whatever else
//! is asked; so work can be interrupted between two documents and continued.

mod documents;
mod filter;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::seed::Seed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use documents::{Document, documents};
pub use filter::Left;

use crate::data::{Codec, Message, Template, Tokenizer};
use crate::engine::{Finish, GenerateConfig, Generator, Policy, Prompt, Weights};
use crate::{Error, Result};

/// How pairs are made. The defaults are the paper's, but for lengths, which are those of small models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Longest chunk, in tokens.
    pub chunk_tokens: usize,
    /// Most chunks of a document, each with one question.
    pub chunks: usize,
    /// Longest document, in tokens; of a longer one the beginning is used.
    pub document_tokens: usize,
    /// Longest answer, in tokens; what has not ended by then is left out.
    pub answer_tokens: usize,
    /// Temperature at which questions are drawn.
    pub temperature: f64,
    /// Questions are drawn from the most probable tokens that together have this probability.
    pub top_p: f64,
    /// Base of the rotary frequencies while whole documents are answered; the model's if none.
    pub rope_theta: Option<f64>,
    /// Seed of chunks and questions.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chunk_tokens: 1024,
            chunks: 4,
            document_tokens: 8192,
            answer_tokens: 256,
            temperature: 0.7,
            top_p: 0.9,
            rope_theta: None,
            seed: 0,
        }
    }
}

/// What is asked for after a chunk.
const ASK: &str = "Write 5 questions that can be answered from the text above alone. Write one question a line and nothing else.";
/// Longest list of questions, in tokens.
const QUESTION_TOKENS: usize = 256;
/// What the chat template may add to a prompt, in tokens.
const FRAME: usize = 128;

impl Settings {
    /// Longest document, in tokens, that leaves room for a question and an answer in a context.
    pub fn document_room(context: usize, answer_tokens: usize) -> usize {
        context.saturating_sub(QUESTION_TOKENS + FRAME + answer_tokens)
    }

    /// Checks the ranges, and that everything fits: documents into a context of `context` tokens, chunks into the model's own
    /// of `own`, in which the reference reads them again.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn check(&self, context: usize, own: usize) -> Result<()> {
        let refuse = |key: &str, problem: String| Err(Error::Config { key: key.to_owned(), problem });
        for (key, value) in [
            ("chunk-tokens", self.chunk_tokens),
            ("chunks", self.chunks),
            ("answer-tokens", self.answer_tokens),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1, got 0".to_owned());
            }
        }
        if self.document_tokens < 2 * self.chunk_tokens {
            let (document, chunk) = (self.document_tokens, self.chunk_tokens);
            let problem = format!("must be at least twice chunk-tokens = {chunk}, got {document}");
            return refuse("document-tokens", problem);
        }
        // Behind a document or a chunk come a question (which the list of questions bounds) and its answer.
        let needed = self.chunk_tokens + QUESTION_TOKENS + FRAME + self.answer_tokens;
        if needed > own {
            let problem = format!(
                "a chunk of {} tokens with a question and an answer needs {needed}, and the model's own context, in which the \
                 reference reads it, has {own}: lower it, or answer-tokens",
                self.chunk_tokens
            );
            return refuse("chunk-tokens", problem);
        }
        let needed = self.document_tokens + QUESTION_TOKENS + FRAME + self.answer_tokens;
        if needed > context {
            let problem = format!(
                "a document of {} tokens with a question and an answer needs {needed}, and the model's context has {context}: \
                 lower it, or raise max-position-embeddings (and rope-theta)",
                self.document_tokens
            );
            return refuse("document-tokens", problem);
        }
        match self.rope_theta {
            Some(theta) if !(theta > 0.0 && theta.is_finite()) => {
                refuse("rope-theta", format!("must be > 0, got {theta}"))
            }
            _ => Ok(()),
        }
    }
}

/// What became of one document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The record: `document` and `turns`; none if no turn is left.
    pub record: Option<Value>,
    /// Pairs in it.
    pub pairs: usize,
    /// Whether only its beginning was used.
    pub cut: bool,
    /// What was left out, and how often.
    pub left: BTreeMap<Left, usize>,
}

/// How something is said.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// A list of questions, drawn by this seed.
    Questions(Seed),
    /// The most probable answer after a chunk.
    AfterChunk,
    /// The most probable answer after a whole document.
    AfterDocument,
}

/// Who says something to each user's turn.
trait Speaker {
    fn say(&mut self, turns: &[String], manner: Manner) -> Result<Vec<Said>>;
}

/// A chunk with a question about it.
struct Turn {
    chunk: Range<usize>,
    question: String,
}

/// A model that asks and answers.
#[derive(Debug)]
pub struct Author<'a> {
    model: Model<'a>,
    settings: Settings,
}

impl<'a> Author<'a> {
    /// `policy` reads its weights as `weights` and answers `batch` prompts at once; `own` is the context that its model was
    /// made for.
    ///
    /// # Errors
    /// A setting is outside its range, or the model has no chat template.
    pub fn new(
        policy: &'a mut Policy,
        codec: &'a Codec,
        own: usize,
        settings: Settings,
        weights: Weights,
        batch: usize,
    ) -> Result<Self> {
        settings.check(policy.shape().context, own)?;
        let Some(template) = &codec.template else {
            let problem =
                "the model has none, so it cannot be asked; use a model that was trained on conversations";
            return Err(Error::Config { key: "chat template".to_owned(), problem: problem.to_owned() });
        };
        let model = Model { policy, codec, template, settings: settings.clone(), weights, batch };
        Ok(Self { model, settings })
    }

    /// The pairs about `document`, the `index`-th.
    ///
    /// # Errors
    /// The text cannot be tokenised or rendered, or a sampling setting is outside its range.
    pub fn pairs(&mut self, document: &Document, index: u64) -> Result<Made> {
        let tokenizer = &self.model.codec.tokenizer;
        pairs(tokenizer, &self.settings, &mut self.model, document, index)
    }
}

fn pairs(
    tokenizer: &Tokenizer,
    settings: &Settings,
    speaker: &mut dyn Speaker,
    document: &Document,
    index: u64,
) -> Result<Made> {
    let mut made = Made::default();
    let mut rng = Seed::new(settings.seed).stream("short-to-long", &[index]);
    let (text, chunks) = chunks(tokenizer, settings, &document.text, &mut made, &mut rng)?;
    let asked: Vec<String> =
        chunks.iter().map(|chunk| format!("{}\n\n{ASK}", &text[chunk.clone()])).collect();
    let lists = speaker.say(&asked, Manner::Questions(Seed::new(rng.next_u64())))?;
    let mut turns = Vec::new();
    for (chunk, list) in chunks.into_iter().zip(lists) {
        let mut questions = filter::questions(&list);
        if questions.is_empty() {
            *made.left.entry(Left::NoQuestion).or_default() += 1;
            continue;
        }
        let question = questions.swap_remove(rng.random_range(0..questions.len()));
        turns.push(Turn { chunk, question });
    }

    let question = |turn: &Turn| format!("\n\n{}", turn.question);
    let short: Vec<String> =
        turns.iter().map(|turn| text[turn.chunk.clone()].to_owned() + &question(turn)).collect();
    let long: Vec<String> = turns.iter().map(|turn| text.to_owned() + &question(turn)).collect();
    let better = speaker.say(&short, Manner::AfterChunk)?;
    let worse = speaker.say(&long, Manner::AfterDocument)?;
    let mut kept = Vec::new();
    for ((turn, chosen), rejected) in turns.iter().zip(better).zip(worse) {
        if let Some(reason) = filter::pair(&chosen, &rejected) {
            *made.left.entry(reason).or_default() += 1;
            continue;
        }
        kept.push(json!({
            "chunk": text[turn.chunk.clone()],
            "prompt": [message("user", &question(turn))],
            "chosen": [message("assistant", &chosen.text)],
            "rejected": [message("assistant", &rejected.text)],
        }));
    }
    made.pairs = kept.len();
    if !kept.is_empty() {
        made.record = Some(json!({ "document": text, "source": document.name, "turns": kept }));
    }
    Ok(made)
}

/// The part of the text that is used, and chunks of it in their order; none if it is too short to have two.
fn chunks<'t>(
    tokenizer: &Tokenizer,
    settings: &Settings,
    text: &'t str,
    made: &mut Made,
    rng: &mut ChaCha8Rng,
) -> Result<(&'t str, Vec<Range<usize>>)> {
    let text = text.trim();
    let offsets = tokenizer.encode_with_offsets(text)?.offsets;
    // The last byte that so many tokens reach without cutting a character.
    let end = |tokens: usize| {
        let reached = offsets[..tokens].iter().map(|token| token.end).max().unwrap_or(0);
        (0..=reached).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
    };
    let (size, used) = (settings.chunk_tokens, offsets.len().min(settings.document_tokens));
    if used < 2 * size {
        *made.left.entry(Left::ShortDocument).or_default() += 1;
        return Ok((text, Vec::new()));
    }
    made.cut = used < offsets.len();
    let text = text[..end(used)].trim_end();
    let bounds = |i: usize| end(i * size).min(text.len())..end((i + 1) * size).min(text.len());
    let mut chunks: Vec<Range<usize>> = (0..used / size).map(bounds).collect();
    chunks.retain(|chunk| !text[chunk.clone()].trim().is_empty());
    let mut drawn = chunks.partial_shuffle(rng, settings.chunks).0.to_vec();
    drawn.sort_unstable_by_key(|chunk| chunk.start);
    Ok((text, drawn))
}

/// A policy with everything that it takes to ask it.
#[derive(Debug)]
struct Model<'a> {
    policy: &'a mut Policy,
    codec: &'a Codec,
    template: &'a Template,
    settings: Settings,
    weights: Weights,
    batch: usize,
}

impl Speaker for Model<'_> {
    fn say(&mut self, turns: &[String], manner: Manner) -> Result<Vec<Said>> {
        if turns.is_empty() {
            return Ok(Vec::new());
        }
        let own = self.policy.shape().rope.theta;
        if let (Manner::AfterDocument, Some(theta)) = (manner, self.settings.rope_theta) {
            self.policy.set_rope_theta(theta);
        }
        let said = self.generate(turns, manner);
        self.policy.set_rope_theta(own);
        said
    }
}

impl Model<'_> {
    fn generate(&self, turns: &[String], manner: Manner) -> Result<Vec<Said>> {
        let prompts: Vec<Prompt> = turns
            .iter()
            .map(|turn| Ok(Prompt { ids: self.ids(turn)?, samples: 1 }))
            .collect::<Result<_>>()?;
        let Settings { temperature, top_p, answer_tokens, .. } = self.settings;
        let (temperature, top_p, most, seed) = match manner {
            Manner::Questions(seed) => (temperature, top_p, QUESTION_TOKENS, seed),
            Manner::AfterChunk | Manner::AfterDocument => (0.0, 1.0, answer_tokens, Seed::new(0)),
        };
        let context = self.policy.shape().context;
        if let Some(long) =
            prompts.iter().map(|prompt| prompt.ids.len()).find(|tokens| tokens + most > context)
        {
            let problem = format!(
                "a prompt of {long} tokens and {most} of what follows exceed the model's context of {context}: lower it"
            );
            return Err(Error::Config { key: "document-tokens".to_owned(), problem });
        }
        let config = GenerateConfig {
            max_new_tokens: most,
            temperature,
            top_p,
            stop_ids: self.codec.eos.clone(),
            max_batch: self.batch.min(prompts.len()),
            weights: self.weights,
            ..GenerateConfig::default()
        };
        let drawn =
            Generator::new(self.policy, config)?.run(&prompts, seed, &mut |_| ControlFlow::Continue(()))?;
        Ok(drawn
            .into_iter()
            .map(|sample| Said {
                text: self.codec.tokenizer.decode(&sample.ids).trim().to_owned(),
                ended: sample.finish == Finish::Stop,
            })
            .collect())
    }

    fn ids(&self, turn: &str) -> Result<Vec<u32>> {
        let rendered = self.template.render(&[message("user", turn)], &Map::new(), true);
        let refuse = |e| Error::Config {
            key: "chat template".to_owned(),
            problem: format!("{e}; correct the model's template"),
        };
        self.codec.tokenizer.encode(&rendered.map_err(refuse)?.text)
    }
}

/// What the model said.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    text: String,
    /// Whether it ended by itself.
    ended: bool,
}

fn message(role: &str, content: &str) -> Message {
    [("role", role), ("content", content)]
        .map(|(key, text)| (key.to_owned(), text.into()))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::fixture::tokenizer;
    use crate::data::{ReadConfig, prepare, read_json};

    /// Asks for the first word of a chunk; finds it in the chunk, and takes the document's instead.
    struct Script;

    impl Speaker for Script {
        fn say(&mut self, turns: &[String], manner: Manner) -> Result<Vec<Said>> {
            let first = |turn: &str| turn.split_whitespace().next().unwrap_or_default().to_owned();
            let said: fn(String) -> String = match manner {
                Manner::Questions(_) => |word| format!("1. What comes after {word}?\n2. And what is it?"),
                Manner::AfterChunk => |word| format!("In the chunk it is {word}."),
                Manner::AfterDocument => |word| format!("In the document it is {word}."),
            };
            Ok(turns.iter().map(|turn| Said { text: said(first(turn)), ended: true }).collect())
        }
    }

    /// Has no questions, or the same answer whatever it reads.
    struct Poor(&'static str);

    impl Speaker for Poor {
        fn say(&mut self, turns: &[String], _: Manner) -> Result<Vec<Said>> {
            Ok(turns.iter().map(|_| Said { text: self.0.to_owned(), ended: true }).collect())
        }
    }

    fn document(words: usize) -> Document {
        let text = (0..words).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ");
        Document { name: "a".to_owned(), text: format!("  {text}\n") }
    }

    fn settings() -> Settings {
        Settings { chunk_tokens: 40, chunks: 3, document_tokens: 400, ..Settings::default() }
    }

    fn made(settings: &Settings, document: &Document, index: u64) -> Made {
        pairs(&tokenizer(), settings, &mut Script, document, index).expect("pairs")
    }

    #[test]
    fn a_document_becomes_a_record_that_can_be_trained_on() {
        let document = document(50);
        let made = made(&settings(), &document, 0);
        assert_eq!((made.pairs, made.cut, made.left.len()), (3, false, 0));
        let record = made.record.expect("a record");
        let (records, _) =
            read_json(Path::new("d.jsonl"), record.to_string().as_bytes(), &ReadConfig::default())
                .expect("it can be read");
        assert_eq!(record["document"], document.text.trim());
        let chunks: Vec<&str> = record["turns"]
            .as_array()
            .expect("turns")
            .iter()
            .map(|turn| turn["chunk"].as_str().expect("text"))
            .collect();
        let places: Vec<usize> =
            chunks.iter().map(|chunk| document.text.find(chunk).expect("a part of it")).collect();
        assert!(places.is_sorted() && chunks.iter().all(|chunk| chunk.len() > 20), "{chunks:?}");
        let first = chunks[0].split_whitespace().next().expect("a word");
        assert_eq!(record["turns"][0]["chosen"][0]["content"], format!("In the chunk it is {first}."));
        assert_eq!(record["turns"][0]["rejected"][0]["content"], "In the document it is word0.");

        let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let template = Template::new(Path::new("t"), template, &Value::Null, None).expect("it compiles");
        let tokenizer = tokenizer();
        let eos = vec![tokenizer.id("<|im_end|>").expect("a token of the fixture")];
        let codec = Codec { bos: None, pad: None, eos, template: Some(template), tokenizer };
        let (pairs, _) =
            prepare::long(&codec, &records, &prepare::PrepareConfig::default()).expect("it can be prepared");
        assert_eq!(pairs[0].short.len(), 3);
    }

    #[test]
    fn place_and_seed_decide_and_nothing_else_does() {
        let (settings, document) = (settings(), document(60));
        let first = made(&settings, &document, 3);
        assert_eq!(first, made(&settings, &document, 3));
        assert_ne!(first, made(&settings, &document, 4));
        assert_ne!(first, made(&Settings { seed: 1, ..settings }, &document, 3));
    }

    #[test]
    fn what_is_not_used_is_counted() {
        let short = made(&settings(), &document(8), 0);
        assert_eq!(short, Made { left: [(Left::ShortDocument, 1)].into(), ..Made::default() });
        let long = made(&settings(), &document(500), 0);
        let text = long.record.as_ref().expect("a record")["document"].as_str().expect("text").to_owned();
        assert!(long.cut && document(500).text.trim().starts_with(&text));
        let tokens = tokenizer().encode(&text).expect("encodes").len();
        assert!((390..=400).contains(&tokens), "{tokens}");

        for (said, reason) in
            [("Nothing.", Left::NoQuestion), ("What is the question here?", Left::Identical)]
        {
            let made = pairs(&tokenizer(), &settings(), &mut Poor(said), &document(50), 0).expect("pairs");
            assert_eq!(made, Made { left: [(reason, 3)].into(), ..Made::default() });
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = Settings::default();
        for (settings, message) in [
            (Settings { chunks: 0, ..d.clone() }, "chunks: must be at least 1, got 0"),
            (
                Settings { document_tokens: 1500, ..d.clone() },
                "document-tokens: must be at least twice chunk-tokens = 1024, got 1500",
            ),
            (
                d.clone(),
                "document-tokens: a document of 8192 tokens with a question and an answer needs 8832, and the model's context \
                 has 8800: lower it, or raise max-position-embeddings (and rope-theta)",
            ),
            (
                Settings { chunk_tokens: 1500, document_tokens: 4096, ..d.clone() },
                "chunk-tokens: a chunk of 1500 tokens with a question and an answer needs 2140, and the model's own context, in \
                 which the reference reads it, has 2048: lower it, or answer-tokens",
            ),
            (
                Settings { rope_theta: Some(-1.0), document_tokens: 4096, ..d },
                "rope-theta: must be > 0, got -1",
            ),
        ] {
            assert_eq!(settings.check(8800, 2048).expect_err("refused").to_string(), message);
        }
    }
}
