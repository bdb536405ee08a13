//! A task of choosing words: a completion has eight. A gold reward counts the good ones, up to three, and takes one off for every stray
//! one.
//!
//! The pairs that reward models learn from have none of those words, so that what a model says of them is up to its initial weights.
//! The policy says them, once in seven words. That is a policy which has moved on from the data of its reward model, in small.

use std::path::Path;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use saddlepoint_core::reproduce::Observer;
use saddlepoint_core::seed::Seed;
use serde_json::json;

use super::super::base::{Base, word_tokenizer};
use crate::Result;
use crate::data::Pair;
use crate::engine::{GenerateConfig, Generator, Policy, Readout, Reference, Setup, Storage};
use crate::method::pairs::sigmoid_loss;
use crate::model::{ModelFolder, Scored};
use crate::reward::model::scores;
use crate::trainer::{Compared, Example};

/// How large the task and its models are.
#[derive(Debug, Clone)]
pub(super) struct Size {
    /// Width of the policy and of the reward models.
    pub(super) width: usize,
    /// Steps of the policy's training.
    pub(super) base_steps: usize,
    /// Pairs that reward models learn from.
    pub(super) pairs: usize,
    /// How often they see them.
    pub(super) epochs: usize,
    /// Completions of each prompt.
    pub(super) completions: usize,
    /// Most completions from which one is chosen.
    pub(super) most: usize,
    /// Members of an ensemble.
    pub(super) members: usize,
    /// Pairs among them from which the reward models of PPO learn in as many steps.
    pub(super) few: usize,
    /// Rounds of PPO.
    pub(super) rounds: usize,
}

/// Ends a completion.
pub(super) const END: u32 = 0;
/// Tokens of which a prompt has two.
const ASKED: u32 = 4;
/// Words that pairs have.
const ORDINARY: u32 = 16;
/// The good ones among them.
const GOOD: u32 = 4;
/// Words that no pair has.
const STRAY: u32 = 16;
const FIRST_ASKED: u32 = 1;
const FIRST_WORD: u32 = FIRST_ASKED + ASKED;
const FIRST_STRAY: u32 = FIRST_WORD + ORDINARY;
/// Words of a completion.
pub(super) const WORDS: usize = 8;
/// Share of stray words in what the policy says.
const SHARE: f64 = 0.15;
/// Good words that count.
const ENOUGH: usize = 3;
/// Most tokens of a pair.
const PAIR: usize = 2 + 2 * (WORDS + 1);

/// Two tokens, which change nothing about what is good.
pub(super) type Prompt = [u32; 2];

/// The task with the policy.
pub(super) struct Words {
    model: ModelFolder,
    size: Size,
}

/// Completions and what they are worth.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// Prompt and completion, up to the last word.
    pub(super) sequences: Vec<Vec<u32>>,
    pub(super) gold: Vec<f64>,
}

impl Answers {
    /// Adds a completion of a prompt, as its tokens.
    pub(super) fn add(&mut self, prompt: Prompt, completion: &[u32]) {
        let said: Vec<u32> = completion.iter().copied().filter(|&id| id != END).collect();
        self.gold.push(gold(&said));
        self.sequences.push([&prompt[..], &said].concat());
    }
}

/// The number of a stray word.
pub(super) fn stray(word: u32) -> Option<u32> {
    word.checked_sub(FIRST_STRAY)
}

/// The gold reward of a completion.
fn gold(completion: &[u32]) -> f64 {
    let good = completion.iter().filter(|word| (FIRST_WORD..FIRST_WORD + GOOD).contains(*word)).count();
    let stray = completion.iter().filter(|word| stray(**word).is_some()).count();
    good.min(ENOUGH) as f64 - stray as f64
}

/// Every prompt.
pub(super) fn prompts() -> Vec<Prompt> {
    let asked = || FIRST_ASKED..FIRST_WORD;
    asked().flat_map(|a| asked().map(move |b| [a, b])).collect()
}

fn word(share: f64, rng: &mut ChaCha8Rng) -> u32 {
    if rng.random::<f64>() < share {
        rng.random_range(FIRST_STRAY..FIRST_STRAY + STRAY)
    } else {
        rng.random_range(FIRST_WORD..FIRST_STRAY)
    }
}

impl Words {
    /// Trains the policy unless it is in `cache`.
    ///
    /// # Errors
    /// As [`Base::trained`].
    pub(super) fn open(cache: &Path, size: &Size, observer: Observer) -> Result<Self> {
        let model = ModelFolder::open(&base(size).trained(cache, observer)?)?;
        Ok(Self { model, size: size.clone() })
    }

    /// Pairs of completions without stray words, labelled by the gold reward through the model of Bradley and Terry; then a share of
    /// `noise` is turned.
    pub(super) fn pairs(&self, noise: f64, seed: u64) -> Vec<Example> {
        let mut rng = Seed::new(seed).stream("reproduce/words/pairs", &[]);
        let mut flips = Seed::new(seed).stream("reproduce/words/flips", &[]);
        let prompts = prompts();
        let pair = |_| {
            let prompt = prompts[rng.random_range(0..prompts.len())];
            let [a, b]: [Vec<u32>; 2] =
                std::array::from_fn(|_| (0..WORDS).map(|_| word(0.0, &mut rng)).collect());
            let gap = gold(&a) - gold(&b);
            // The probability that the first is preferred.
            let first = rng.random::<f64>() < 1.0 + sigmoid_loss(gap, 0.0).1;
            let turned = flips.random::<f64>() < noise;
            let (chosen, rejected) = if first == turned { (b, a) } else { (a, b) };
            let pair = Pair { prompt: prompt.to_vec(), chosen, rejected };
            Example::Compared(Compared::new(pair, Some(END), 0.0))
        };
        (0..self.size.pairs).map(pair).collect()
    }

    /// A reward model before its first step, with weights of its own, for batches of so many pairs.
    ///
    /// # Errors
    /// None in fact: it has no reference.
    pub(super) fn reward_model(&self, pairs: usize, rng: &mut ChaCha8Rng) -> Result<Policy> {
        let mut shape = self.model.shape.clone();
        shape.readout = Readout::Score;
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::None,
            recompute: false,
            max_tokens: (pairs * PAIR).max(ROOM),
            max_rows: ROOM,
        };
        let mut policy = Policy::new(shape, setup)?;
        policy.init(rng);
        Ok(policy)
    }

    /// The policy before its first step of PPO, itself the reference and with values of 0, for rounds of so many completions.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub(super) fn learner(&self, completions: usize) -> Result<Policy> {
        let mut shape = self.model.shape.clone();
        shape.readout = Readout::Both;
        let score = vec![0.0; shape.hidden];
        let rows = (WORDS + 1) * completions;
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::Copy,
            recompute: false,
            max_tokens: 2 * prompts().len() + rows,
            max_rows: rows,
        };
        let mut policy = Policy::new(shape, setup)?;
        policy.load(&Scored { model: &self.model, score })?;
        Ok(policy)
    }

    /// Completions of the policy to every prompt.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub(super) fn answers(&self, count: usize, stream: &str, seed: u64) -> Result<Vec<Answers>> {
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::None,
            recompute: false,
            max_tokens: ROOM,
            max_rows: ROOM,
        };
        let mut policy = Policy::new(self.model.shape.clone(), setup)?;
        policy.load(self.model.source())?;
        let config = GenerateConfig {
            max_new_tokens: WORDS + 1,
            stop_ids: vec![END],
            max_batch: 64,
            ..GenerateConfig::default()
        };
        let prompts = prompts();
        let asked: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt[..]).collect();
        let mut rng = Seed::new(seed).stream(stream, &[]);
        let drawn = Generator::new(&policy, config)?.draw(&asked, count, Seed::new(rng.random()))?;
        let mut answers = vec![Answers::default(); prompts.len()];
        for sample in drawn {
            answers[sample.prompt].add(prompts[sample.prompt], &sample.ids);
        }
        Ok(answers)
    }
}

/// What a reward model says of answers.
///
/// # Errors
/// As [`scores`].
pub(super) fn judge(policy: &mut Policy, answers: &Answers) -> Result<Vec<f64>> {
    let sequences: Vec<&[u32]> = answers.sequences.iter().map(Vec::as_slice).collect();
    scores(policy, &sequences, Some(END), ROOM)
}

/// Tokens and sequences of a pass.
const ROOM: usize = 2048;

/// The policy: it says every word as often as every other of its kind.
fn base(size: &Size) -> Base {
    let mut rng = Seed::new(0).stream("reproduce/words/corpus", &[]);
    let mut words = vec!["<|end|>".to_owned()];
    words.extend((0..ASKED).map(|asked| format!("a{asked}")));
    words.extend((0..ORDINARY).map(|word| format!("w{word}")));
    words.extend((0..STRAY).map(|word| format!("s{word}")));
    let text = |ids: &[u32]| ids.iter().map(|&id| words[id as usize].as_str()).collect::<Vec<_>>().join(" ");
    let prompts = prompts();
    let mut corpus = String::new();
    for _ in 0..64 * size.base_steps {
        let prompt = prompts[rng.random_range(0..prompts.len())];
        let said: Vec<u32> = (0..WORDS).map(|_| word(SHARE, &mut rng)).collect();
        corpus += &json!({ "prompt": text(&prompt), "completion": format!(" {}", text(&said)) }).to_string();
        corpus.push('\n');
    }
    let Size { width, base_steps, .. } = size;
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {width}, intermediate_size = {}, num_hidden_layers = 2, \
         num_attention_heads = 4, num_key_value_heads = 2, tokenizer = \"tokenizer.json\" }}\n\
         [data]\npath = \"corpus.jsonl\"\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 3e-3\n\
         [train]\nper_device_train_batch_size = 64\nmax_steps = {base_steps}\nlr_scheduler_type = \"cosine\"\n\
         warmup_steps = 20\nsave_total_limit = 1\nsample_prompts = 0\n",
        2 * width,
    );
    let [tokenizer, config] = word_tokenizer(&words);
    Base { recipe, files: vec![("corpus.jsonl", corpus), tokenizer, config] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gold_reward_counts_what_is_said() {
        let (good, plain, stray) = (FIRST_WORD, FIRST_WORD + GOOD, FIRST_STRAY);
        for (completion, value) in [
            (vec![], 0.0),
            (vec![good, plain, good + 3], 2.0),
            (vec![good, good, good + 1, good + 2, good + 3], 3.0),
            (vec![good, stray, stray + 1], -1.0),
        ] {
            assert!((gold(&completion) - value).abs() < 1e-15, "{completion:?}");
        }
        assert_eq!(prompts().len(), 16);
    }
}
