//! Sampling: a prompt is computed once for all its samples, sequences that end make room for others, and
//! a sample depends on `(seed, prompt, index)` alone, never on what else is in the batch.

mod cache;
mod sampler;
mod step;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use saddlepoint_core::seed::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::cache::{Prefix, Sequence};
use self::sampler::Sampler;
use self::step::Step;
use super::arena::{Arena, Room};
use super::copies::Copies;
use super::decoder::Decoder;
use super::kernel::Team;
use super::{LoraConfig, Policy, Shape};
use crate::{Error, Result};

/// The type in which sampling reads the weights, for the prompts as for what follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// As the policy holds them.
    #[default]
    F32,
    /// A bf16 copy: half the bytes a token.
    Bf16,
    /// An 8-bit copy with one scale an output: a quarter of the bytes a token. What it is multiplied with is rounded
    /// to 16 bits at most.
    Int8,
}

/// How to sample. The default draws from the policy's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateConfig {
    /// Most tokens of a sample.
    pub max_new_tokens: usize,
    /// Logits are divided by it; 0 takes the most probable token.
    pub temperature: f64,
    /// Keep the most probable tokens that together reach this probability.
    pub top_p: f64,
    /// Keep this many most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this probable relative to the most probable one.
    pub min_p: f64,
    /// A sample ends with any of these tokens, which it includes.
    pub stop_ids: Vec<u32>,
    /// Most sequences decoded together.
    pub max_batch: usize,
    /// Type of the weights.
    pub weights: Weights,
    /// Whether to apply the policy's adapter.
    pub adapter: bool,
    /// Whether the log-probabilities of tokens are those at the temperature (if it is not 0), and not those at 1.
    pub tempered: bool,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            stop_ids: Vec::new(),
            max_batch: 8,
            weights: Weights::F32,
            adapter: true,
            tempered: false,
        }
    }
}

impl GenerateConfig {
    fn check(&self) -> Result<()> {
        let fail = |key: &str, problem: String| Err(Error::Config { key: key.into(), problem });
        if self.max_new_tokens == 0 {
            return fail("max_new_tokens", "must be at least 1".into());
        }
        if self.max_batch == 0 {
            return fail("max_batch", "must be at least 1".into());
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return fail(
                "temperature",
                format!("must be 0 or positive, got {} (default 1)", self.temperature),
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail("top_p", format!("must lie in (0, 1], got {} (default 1)", self.top_p));
        }
        if !(0.0..1.0).contains(&self.min_p) {
            return fail("min_p", format!("must lie in [0, 1), got {} (default 0)", self.min_p));
        }
        Ok(())
    }
}

/// A prompt and how many samples to draw after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids; at least one.
    pub ids: Vec<u32>,
    /// Number of samples.
    pub samples: usize,
}

/// Why a sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With a stop token, or where the caller ended it.
    Stop,
    /// At `max_new_tokens`.
    Length,
}

/// A drawn completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Index of its prompt.
    pub prompt: usize,
    /// Index among the prompt's samples.
    pub index: usize,
    /// Its tokens, with the stop token where there was one.
    pub ids: Vec<u32>,
    /// Log-probability of each token under the model as it decodes (temperature 1 unless [`GenerateConfig::tempered`],
    /// nothing cut off), nats.
    pub logps: Vec<f64>,
    /// Why it ended.
    pub finish: Finish,
}

/// A token as it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenEvent {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index among the prompt's samples.
    pub index: usize,
    /// The token.
    pub id: u32,
}

/// Draws samples from a policy as it is now.
#[derive(Debug)]
pub struct Generator<'a> {
    policy: &'a Policy,
    config: GenerateConfig,
    copies: Copies,
}

/// A sequence in the batch.
#[derive(Debug)]
struct Active {
    sample: Sample,
    rng: ChaCha8Rng,
    sequence: Sequence,
}

impl<'a> Generator<'a> {
    /// Bytes that computing prompts of at most `longest` tokens takes, up to `prompts` of them at a time, with the adapter as decoding
    /// reads it.
    pub(crate) fn prefill_bytes(
        shape: &Shape,
        lora: Option<&LoraConfig>,
        longest: usize,
        prompts: usize,
    ) -> u64 {
        let tokens = longest.max(PREFILL.min(longest * prompts));
        let width = lora.map_or(0, |lora| lora.r * lora.target_modules.len());
        let turned = lora.map_or(0, |lora| {
            let outputs: usize = lora.target_modules.iter().map(|target| target.dims(shape).0).sum();
            (outputs * lora.r * shape.layers * size_of::<f32>()) as u64
        });
        let room = Room { tokens, slots: 1, inputs: 2, lora: width, largest_b: 0, backward: false };
        Arena::bytes(shape, room) + turned
    }

    /// Bytes that the keys and values of this many tokens of a prompt or a sample take.
    pub(crate) fn cache_bytes(shape: &Shape, tokens: usize) -> u64 {
        Sequence::bytes(shape, tokens)
    }

    /// Bytes of the copies of weights of this type.
    pub(crate) fn copies_bytes(shape: &Shape, weights: Weights) -> u64 {
        Copies::bytes(shape, weights)
    }

    /// Prepares the weights in the type asked for.
    ///
    /// # Errors
    /// A setting is outside its range, which the message names; or the policy is a reward model.
    pub fn new(policy: &'a Policy, config: GenerateConfig) -> Result<Self> {
        config.check()?;
        if !policy.shape().readout.vocabulary() {
            let problem =
                "is a reward model: it has no distribution over tokens to draw from; give a language model";
            return Err(Error::Config { key: "model".to_owned(), problem: problem.to_owned() });
        }
        let copies = Copies::new(policy.decoder().weights, policy.shape(), config.weights);
        Ok(Self { policy, config, copies })
    }

    /// As [`Self::run`], `samples` of each prompt, where nobody looks on.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn draw(&mut self, prompts: &[&[u32]], samples: usize, seed: Seed) -> Result<Vec<Sample>> {
        let prompts: Vec<Prompt> = prompts.iter().map(|ids| Prompt { ids: ids.to_vec(), samples }).collect();
        self.run(&prompts, seed, &mut |_| ControlFlow::Continue(()))
    }

    /// Draws all samples, in the order of prompts and indices; `on_token` sees tokens as they come and may end a
    /// sample with one.
    ///
    /// # Errors
    /// A prompt is empty or has ids outside the vocabulary.
    pub fn run(
        &mut self,
        prompts: &[Prompt],
        seed: Seed,
        on_token: &mut dyn FnMut(TokenEvent) -> ControlFlow<()>,
    ) -> Result<Vec<Sample>> {
        let vocab = self.policy.shape().vocab;
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.ids.is_empty() || prompt.ids.iter().any(|&id| id as usize >= vocab) {
                return Err(Error::Config {
                    key: format!("prompt {i}"),
                    problem: format!("must have at least one token, all below the vocabulary size {vocab}"),
                });
            }
        }
        let mut decoder = Decoder { copies: Some(&self.copies), ..self.policy.decoder() };
        if !self.config.adapter {
            decoder.adapter = None;
        }
        let mut step = Step::new(decoder, self.policy.rope());
        let sampler = Sampler::new(&self.config);
        let mut queue: VecDeque<_> = prompts
            .iter()
            .enumerate()
            .flat_map(|(p, prompt)| (0..prompt.samples).map(move |i| (p, i)))
            .collect();
        let mut computed: BTreeMap<usize, Arc<Prefix>> = BTreeMap::new();
        let mut active: Vec<Active> = Vec::new();
        let mut done = Vec::with_capacity(queue.len());
        while !queue.is_empty() || !active.is_empty() {
            let old = active.len();
            let free = (self.config.max_batch - old).min(queue.len());
            let ahead: Vec<usize> = queue.iter().take(free).map(|&(prompt, _)| prompt).collect();
            for (prompt, index) in queue.drain(..free) {
                if !computed.contains_key(&prompt) {
                    computed = prefill(&mut step, prompts, &ahead, prompt);
                }
                active.push(Active {
                    sample: Sample {
                        prompt,
                        index,
                        ids: Vec::new(),
                        logps: Vec::new(),
                        finish: Finish::Length,
                    },
                    rng: seed.stream("generate", &[prompt as u64, index as u64]),
                    sequence: Sequence::new(
                        computed[&prompt].clone(),
                        self.config.max_new_tokens,
                        self.policy.shape(),
                    ),
                });
            }
            let draws = Team::lead(|team| {
                let mut hidden = step.hidden(team, &mut active[..old], old);
                for new in &active[old..] {
                    hidden.extend_from_slice(&new.sequence.prefix.hidden);
                }
                step.draw(team, &hidden, &sampler, &mut active)
            });
            for (one, (id, logp)) in active.iter_mut().zip(draws) {
                one.sample.ids.push(id);
                one.sample.logps.push(logp);
                let event = TokenEvent { prompt: one.sample.prompt, index: one.sample.index, id };
                if on_token(event).is_break() || self.config.stop_ids.contains(&id) {
                    one.sample.finish = Finish::Stop;
                }
            }
            let limit = self.config.max_new_tokens;
            let (ended, going): (Vec<_>, Vec<_>) = active
                .into_iter()
                .partition(|one| one.sample.finish == Finish::Stop || one.sample.ids.len() == limit);
            active = going;
            done.extend(ended.into_iter().map(|one| one.sample));
        }
        done.sort_by_key(|sample| (sample.prompt, sample.index));
        Ok(done)
    }
}

/// Tokens of prompts that are computed together, if there is more than one.
const PREFILL: usize = 1024;

/// Computes prompt `first` together with those that follow it in `ahead` (ascending, with repetitions).
fn prefill(
    step: &mut Step,
    prompts: &[Prompt],
    ahead: &[usize],
    first: usize,
) -> BTreeMap<usize, Arc<Prefix>> {
    let mut wanted: Vec<usize> = ahead.iter().copied().filter(|&p| p >= first).collect();
    wanted.dedup();
    let mut tokens = 0;
    let fit = wanted.iter().take_while(|&&p| {
        tokens += prompts[p].ids.len();
        tokens <= PREFILL
    });
    let count = fit.count().max(1);
    wanted.truncate(count);
    let ids: Vec<&[u32]> = wanted.iter().map(|&p| prompts[p].ids.as_slice()).collect();
    wanted.into_iter().zip(step.prefill(&ids).into_iter().map(Arc::new)).collect()
}
