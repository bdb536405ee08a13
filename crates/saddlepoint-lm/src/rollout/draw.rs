//! Sampling completions with what a method has to know of them.

use saddlepoint_core::seed::Seed;
use serde::{Deserialize, Serialize};

use super::RolloutConfig;
use crate::Result;
use crate::engine::{Finish, GenerateConfig, Generator, Policy};

/// A completion that the policy gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Its tokens, the one that ended it included; at least one.
    pub ids: Vec<u32>,
    /// Log-probability of each token under the policy that sampled it, as it read its weights, at the temperature of sampling, nats.
    pub logps: Vec<f64>,
    /// Whether the policy ended it; not so where it was cut at the longest length.
    pub finished: bool,
    /// The name by which a server had the weights that sampled it; none of what this process sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// How completions are drawn.
#[derive(Debug, Clone)]
pub struct Drawing<'a> {
    /// The settings.
    pub config: &'a RolloutConfig,
    /// Completions a prompt.
    pub num_generations: usize,
    /// Tokens that end a completion.
    pub stop: &'a [u32],
    /// Most completions decoded together; what is drawn does not depend on it.
    pub max_batch: usize,
}

impl Drawing<'_> {
    /// Completions of each prompt, one prompt after the other, by the policy as it is now.
    ///
    /// # Errors
    /// A prompt is empty or has ids outside the vocabulary.
    pub fn draw(&self, policy: &Policy, prompts: &[&[u32]], seed: Seed) -> Result<Vec<Completion>> {
        let samples = self.num_generations;
        let generate = GenerateConfig {
            max_new_tokens: self.config.max_completion_length,
            temperature: self.config.temperature,
            top_p: self.config.top_p,
            top_k: self.config.top_k,
            min_p: self.config.min_p,
            stop_ids: self.stop.to_vec(),
            max_batch: self.max_batch.min(prompts.len() * samples).max(1),
            weights: self.config.weights,
            tempered: self.config.tempered().is_some(),
            ..GenerateConfig::default()
        };
        let drawn = Generator::new(policy, generate)?.draw(prompts, samples, seed)?;
        Ok(drawn
            .into_iter()
            .map(|sample| Completion {
                ids: sample.ids,
                logps: sample.logps,
                finished: sample.finish == Finish::Stop,
                version: None,
            })
            .collect())
    }
}
