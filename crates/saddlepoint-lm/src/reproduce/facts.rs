//! A task of reading: a document lists facts, a token each, `k7=v2 k41=v5 ...`; after `? k41` the answer is `v5`, and after
//! `! k41` a value that the model knows by heart, whatever the document says.
//!
//! The model that experiments start from has read short documents only, so that it answers after a short one and often fails
//! after a long one. A chunk of a long document is a short one.

use std::path::Path;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use saddlepoint_core::reproduce::Observer;
use saddlepoint_core::seed::Seed;
use serde_json::json;

use super::base::{Base, word_tokenizer};
use crate::data::{Answered, LongPair};
use crate::engine::{
    Divergence, Forest, GenerateConfig, Generator, Policy, Reference, Setup, Storage, Views, Want,
};
use crate::model::ModelFolder;
use crate::{Error, Result};

/// How large the task and its model are.
#[derive(Debug, Clone)]
pub(super) struct Size {
    /// Width of the model.
    pub(super) width: usize,
    /// Steps of its training.
    pub(super) base_steps: usize,
    /// Different keys.
    pub(super) keys: usize,
    /// Facts of a chunk, and the most of a document that the model has been trained on.
    pub(super) chunk: usize,
    /// Chunks of a long document.
    pub(super) chunks: usize,
    /// Documents of each kind on which a policy is judged.
    pub(super) documents: usize,
}

/// Different values.
const VALUES: usize = 8;
/// Questions about a document, of a pair at most, and to judge.
const QUESTIONS: usize = 4;
/// Questions about a document that the model is trained on; one in three is about what it knows by heart.
const PRACTICE: usize = 8;
/// Tokens of a question, and of its answer: a value and the end.
const TURN: usize = 4;
/// Documents of a batch of the model's training.
const BATCH: usize = 64;
/// Documents that are judged at once.
const ROOM: usize = 32;
/// Base of the rotary frequencies of the policy in that of the model's, as in the paper (1e7 in place of 1e6).
pub(super) const LONGER: f64 = 10.0;

/// Ends an answer.
const END: u32 = 0;
/// Begins a question about the document.
const READ: u32 = 1;
/// Begins a question about what the model knows by heart.
const KNOW: u32 = 2;
/// The first value; the keys follow the values, and the facts the keys.
const FIRST_VALUE: u32 = 3;
const FIRST_KEY: u32 = FIRST_VALUE + VALUES as u32;

/// A key and its value, counted from 0.
type Fact = [u32; 2];

/// The task with the model that experiments start from.
pub(super) struct Reading {
    model: ModelFolder,
    size: Size,
}

/// What is asked about documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The value of a key in the document.
    Read,
    /// The value of a key that the model knows by heart.
    Know,
}

/// Held-out documents and the places of the facts that are asked for.
#[derive(Debug, Clone)]
pub(super) struct Exam {
    asked: Asked,
    documents: Vec<(Vec<Fact>, Vec<usize>)>,
}

impl Reading {
    /// Trains the model unless it is in `cache`.
    ///
    /// # Errors
    /// As [`Base::trained`].
    pub(super) fn open(cache: &Path, size: &Size, observer: Observer) -> Result<Self> {
        let model = ModelFolder::open(&base(size).trained(cache, observer)?)?;
        Ok(Self { model, size: size.clone() })
    }

    /// The model with its own rotary frequencies.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(super) fn model(&self, pairs: usize) -> Result<Policy> {
        let mut policy = self.policy(pairs)?;
        policy.set_rope_theta(self.model.shape.rope.theta);
        Ok(policy)
    }

    /// The model with its rotary frequencies as a policy has them from its first step, and with itself as the reference, for
    /// batches of up to `pairs` documents.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(super) fn policy(&self, pairs: usize) -> Result<Policy> {
        let Size { chunk, chunks, .. } = self.size;
        let (long, turns) = (chunk * chunks, QUESTIONS * TURN);
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::Copy,
            recompute: false,
            // A pair is a document with the turns of both sides, or as many chunks with a question and two answers; what is
            // judged a document with questions, or as many chunks with a question.
            max_tokens: pairs.max(ROOM) * (long + 2 * turns).max(QUESTIONS * (chunk + TURN)),
            max_rows: (pairs * (long + 2 * turns)).max(ROOM * 2 * QUESTIONS),
        };
        let mut policy = Policy::new(self.model.shape.clone(), setup)?;
        policy.load(self.model.source())?;
        policy.set_rope_theta(LONGER * self.model.shape.rope.theta);
        Ok(policy)
    }

    /// Pairs about `count` long documents: to a question about each of some chunks the model's answer after the chunk, and the
    /// policy's before its first step after the document. Those that do not end are left out. Equal ones are not, other than in
    /// `saddle prepare longpo`: where an answer is one value, they are the rule, and without them what the model reads right
    /// would be missing from the data. Their preference cancels; the likelihood has them.
    ///
    /// # Errors
    /// The model cannot be read.
    pub(super) fn pairs(&self, count: usize, seed: u64) -> Result<Vec<LongPair>> {
        let mut rng = Seed::new(seed).stream("reproduce/facts/pairs", &[]);
        let mut policy = self.policy(1)?;
        let angles = [self.model.shape.rope.theta, policy.shape().rope.theta];
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let asked: Vec<(Vec<Fact>, Vec<usize>)> =
                (0..ROOM.max(count - pairs.len())).map(|_| self.document(&mut rng)).collect();
            let before = pairs.len();
            let mut prompts = [Vec::new(), Vec::new()];
            for (facts, places) in &asked {
                for &place in places {
                    prompts[0].push(self.size.prompt(self.size.chunk_of(facts, place), facts[place]));
                    prompts[1].push(self.size.prompt(facts, facts[place]));
                }
            }
            let mut said = Vec::new();
            for (prompts, theta) in prompts.iter().zip(angles) {
                policy.set_rope_theta(theta);
                said.push(say(&policy, prompts)?);
            }
            let mut answered = said[0].iter().zip(&said[1]).zip(&prompts[0]);
            for (facts, places) in &asked {
                let document = self.size.document(facts);
                let [mut chosen, mut rejected] =
                    [(); 2].map(|()| Answered { ids: document.clone(), answers: Vec::new() });
                let mut short = Vec::new();
                for ((better, worse), prompt) in answered.by_ref().take(places.len()) {
                    if [better, worse].iter().any(|answer| answer.last() != Some(&END)) {
                        continue;
                    }
                    short.push(prompt.clone());
                    for (side, answer) in [(&mut chosen, better), (&mut rejected, worse)] {
                        side.ids.extend(&prompt[prompt.len() - 2..]);
                        let start = side.ids.len();
                        side.ids.extend(answer);
                        side.answers.push(start..side.ids.len());
                    }
                }
                if !short.is_empty() {
                    pairs.push(LongPair { chosen, rejected, short });
                }
            }
            if pairs.len() == before {
                let problem = format!(
                    "of {} documents none has a question with two answers that end: the trainer or the engine is \
                     at fault, an experiment's settings are fixed",
                    asked.len()
                );
                return Err(Error::Config { key: "reproduce".to_owned(), problem });
            }
        }
        pairs.truncate(count);
        Ok(pairs)
    }

    /// A long document, and a fact in each of some of its chunks, in their order.
    fn document(&self, rng: &mut ChaCha8Rng) -> (Vec<Fact>, Vec<usize>) {
        let Size { chunk, chunks, .. } = self.size;
        let facts = self.size.facts(chunk * chunks, rng);
        let mut places: Vec<usize> = (0..chunks).map(|c| c * chunk + rng.random_range(0..chunk)).collect();
        let places = places.partial_shuffle(rng, QUESTIONS).0;
        places.sort_unstable();
        let places = places.to_vec();
        (facts, places)
    }

    /// Documents of this many chunks with questions.
    pub(super) fn exam(&self, chunks: usize, asked: Asked, seed: u64) -> Exam {
        let name = format!("reproduce/facts/{asked:?}");
        let mut rng = Seed::new(seed).stream(&name, &[chunks as u64]);
        let count = chunks * self.size.chunk;
        let document = |_| {
            let facts = self.size.facts(count, &mut rng);
            (facts, (0..QUESTIONS).map(|_| rng.random_range(0..count)).collect())
        };
        Exam { asked, documents: (0..self.size.documents).map(document).collect() }
    }

    /// Share of questions of which the most probable answer is the right one.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn right(&self, policy: &mut Policy, exam: &Exam) -> Result<f64> {
        let known = self.size.known();
        let (mut right, mut all) = (0, 0);
        for documents in exam.documents.chunks(ROOM) {
            let mut forest = Forest::default();
            let mut rows = Vec::new();
            for (facts, places) in documents {
                let root = forest.root(&self.size.document(facts));
                for [key, value] in places.iter().map(|&place| facts[place]) {
                    let (asks, value) = match exam.asked {
                        Asked::Read => (READ, value),
                        Asked::Know => (KNOW, known[key as usize]),
                    };
                    let question = forest.child(root, &[asks, FIRST_KEY + key]);
                    rows.push(forest.completion(question, &[FIRST_VALUE + value, END]));
                }
            }
            let top1 = policy.evaluate(&forest, Want::default())?.top1;
            right += rows.iter().filter(|rows| top1[(*rows).clone()].iter().all(|&top1| top1)).count();
            all += rows.len();
        }
        Ok(right as f64 / all as f64)
    }

    /// `KL( π(·|x_L) || π₀(·|x_S) )` of the values that are answered, nats: the policy after a long document against its
    /// reference after the chunk that the question is about.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn apart(&self, policy: &mut Policy, exam: &Exam) -> Result<f64> {
        let (mut sum, mut all) = (0.0, 0);
        for documents in exam.documents.chunks(ROOM) {
            let [mut long, mut short] = [Forest::default(), Forest::default()];
            for (facts, places) in documents {
                let root = long.root(&self.size.document(facts));
                for &place in places {
                    let [key, value] = facts[place];
                    let question = long.child(root, &[READ, FIRST_KEY + key]);
                    long.completion(question, &[FIRST_VALUE + value]);
                    let chunk = self.size.chunk_of(facts, place);
                    let question = short.root(&self.size.prompt(chunk, facts[place]));
                    short.completion(question, &[FIRST_VALUE + value]);
                }
            }
            let want = Want { divergence: Some(Divergence::ReverseKl), ..Want::default() };
            let stats = policy.evaluate(Views { policy: &long, reference: &short }, want)?;
            sum += stats.divergence.iter().sum::<f64>();
            all += stats.divergence.len();
        }
        Ok(sum / all as f64)
    }
}

impl Size {
    /// Facts about different keys.
    fn facts(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<Fact> {
        let mut keys: Vec<u32> = (0..self.keys as u32).collect();
        let keys = keys.partial_shuffle(rng, count).0;
        keys.iter().map(|&key| [key, rng.random_range(0..VALUES as u32)]).collect()
    }

    /// The chunk that a fact is in.
    fn chunk_of<'a>(&self, facts: &'a [Fact], place: usize) -> &'a [Fact] {
        let start = place / self.chunk * self.chunk;
        &facts[start..start + self.chunk]
    }

    /// The tokens of facts.
    fn document(&self, facts: &[Fact]) -> Vec<u32> {
        let first = FIRST_KEY + self.keys as u32;
        facts.iter().map(|[key, value]| first + key * VALUES as u32 + value).collect()
    }

    /// The tokens of facts, and a question about one.
    fn prompt(&self, facts: &[Fact], [key, _]: Fact) -> Vec<u32> {
        [&self.document(facts)[..], &[READ, FIRST_KEY + key]].concat()
    }

    /// The value of each key that the model learns by heart.
    fn known(&self) -> Vec<u32> {
        let mut rng = Seed::new(0).stream("reproduce/facts/known", &[]);
        (0..self.keys).map(|_| rng.random_range(0..VALUES as u32)).collect()
    }

    /// Every token, in the order of the ids.
    fn tokens(&self) -> Vec<String> {
        let mut tokens = vec!["<|end|>".to_owned(), "?".to_owned(), "!".to_owned()];
        tokens.extend((0..VALUES).map(|value| format!("v{value}")));
        tokens.extend((0..self.keys).map(|key| format!("k{key}")));
        tokens
            .extend((0..self.keys).flat_map(|key| (0..VALUES).map(move |value| format!("k{key}=v{value}"))));
        tokens
    }
}

/// The most probable answers.
fn say(policy: &Policy, prompts: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
    let config = GenerateConfig {
        max_new_tokens: TURN - 1,
        temperature: 0.0,
        stop_ids: vec![END],
        max_batch: 64,
        ..GenerateConfig::default()
    };
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let said = Generator::new(policy, config)?.draw(&prompts, 1, Seed::new(0))?;
    Ok(said.into_iter().map(|sample| sample.ids).collect())
}

/// The model that has read short documents.
fn base(size: &Size) -> Base {
    let mut rng = Seed::new(0).stream("reproduce/facts/corpus", &[]);
    let (tokens, known) = (size.tokens(), size.known());
    let words =
        |ids: &[u32]| ids.iter().map(|&id| tokens[id as usize].as_str()).collect::<Vec<_>>().join(" ");
    let mut corpus = String::new();
    for _ in 0..BATCH * size.base_steps {
        // The shortest have one fact: without them it takes far longer until anything is read.
        let facts = size.facts(rng.random_range(1..=size.chunk), &mut rng);
        let mut turns = Vec::new();
        for _ in 0..PRACTICE {
            let [key, value] = facts[rng.random_range(0..facts.len())];
            let (asks, value) =
                if rng.random_range(0..3) == 0 { (KNOW, known[key as usize]) } else { (READ, value) };
            turns.extend([asks, FIRST_KEY + key, FIRST_VALUE + value, END]);
        }
        // The trainer writes the last end.
        turns.pop();
        let text = words(&[size.document(&facts), turns].concat());
        corpus += &json!({ "text": text }).to_string();
        corpus.push('\n');
    }
    let Size { width, base_steps, .. } = size;
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {width}, intermediate_size = {}, num_hidden_layers = 2, \
         num_attention_heads = 4, num_key_value_heads = 4, tie_word_embeddings = false, tokenizer = \"tokenizer.json\" }}\n\
         [data]\npath = \"corpus.jsonl\"\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 5e-3\n\
         [train]\nper_device_train_batch_size = {BATCH}\nmax_steps = {base_steps}\nlr_scheduler_type = \"cosine\"\n\
         warmup_steps = 50\nsave_total_limit = 1\nsample_prompts = 0\n",
        2 * width,
    );
    let [tokenizer, config] = word_tokenizer(&tokens);
    Base { recipe, files: vec![("corpus.jsonl", corpus), tokenizer, config] }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::reproduce) const TINY: Size =
        Size { width: 32, base_steps: 400, keys: 16, chunk: 4, chunks: 4, documents: 32 };

    #[test]
    fn a_prompt_has_a_token_a_fact_and_the_question() {
        let facts = [[2, 5], [0, 1], [3, 7], [1, 1], [4, 0], [5, 5], [6, 6], [7, 7]];
        let tokens = TINY.tokens();
        let text =
            |ids: &[u32]| ids.iter().map(|&id| tokens[id as usize].as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!(text(&TINY.prompt(&facts[..2], facts[1])), "k2=v5 k0=v1 ? k0");
        assert_eq!((TINY.chunk_of(&facts, 3), TINY.chunk_of(&facts, 4)), (&facts[..4], &facts[4..]));
        let mut rng = Seed::new(0).stream("test", &[]);
        let mut keys: Vec<u32> = TINY.facts(16, &mut rng).iter().map(|[key, _]| *key).collect();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..16), "each key once");
    }

    #[test]
    fn pairs_are_the_two_answers_to_questions_about_chunks() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let task = Reading::open(cache.path(), &TINY, &mut |_, _, _| ()).expect("trains");
        let pairs = task.pairs(12, 0).expect("pairs");
        assert!(pairs.len() == 12 && pairs == task.pairs(12, 0).expect("pairs"));
        assert_ne!(pairs, task.pairs(12, 1).expect("pairs"));
        let mut own = task.model(1).expect("loads");
        for LongPair { chosen, rejected, short } in pairs {
            let document = &chosen.ids[..TINY.chunk * TINY.chunks];
            assert!(rejected.ids.starts_with(document) && (1..=QUESTIONS).contains(&short.len()));
            for (k, prompt) in short.iter().enumerate() {
                let [better, worse] = [&chosen, &rejected].map(|side| &side.ids[side.answers[k].clone()]);
                assert!(better.last() == Some(&END) && worse.last() == Some(&END));
                let (chunk, question) = prompt.split_at(TINY.chunk);
                assert!(document.chunks(TINY.chunk).any(|other| other == chunk));
                let before = &chosen.ids[..chosen.answers[k].start];
                assert!(before.ends_with(question) && question[0] == READ);
                let mut forest = Forest::default();
                let root = forest.root(prompt);
                forest.completion(root, better);
                let top1 = own.evaluate(&forest, Want::default()).expect("evaluates").top1;
                assert!(top1.iter().all(|&top1| top1), "the model's most probable answer");
            }
        }
    }
}
