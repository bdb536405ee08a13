//! The policy's own samples: what it says, how often that is right, and how far it is from the reference.

use std::ops::Range;

use rand_chacha::rand_core::Rng;
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::divergence::Estimator;
use serde::{Deserialize, Serialize};

use super::example::{Asked, Example};
use super::setup::Run;
use crate::Result;
use crate::engine::{Divergence, Finish, Forest, GenerateConfig, Generator, Policy, Views, Want};
use crate::tether::{Measurement, Sampled, TetherConfig};

/// What is sampled.
#[derive(Debug, Clone)]
pub(crate) struct Sampling {
    /// Samples a prompt.
    pub(crate) samples: usize,
    /// Longest sample, in tokens.
    pub(crate) max_new_tokens: usize,
    /// Tokens that end a sample.
    pub(crate) stop: Vec<u32>,
    /// Tokens and predictions that one pass of the policy can take.
    pub(crate) room: (usize, usize),
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drawn {
    /// Index of its prompt.
    pub(crate) prompt: usize,
    /// Its tokens, the one that ended it included.
    pub(crate) ids: Vec<u32>,
    /// Whether it was cut at the length limit.
    pub(crate) cut: bool,
}

impl Run<'_> {
    /// The samples that the method learns from at the current step, example by example; nothing where it wants none.
    /// They are a function of the weights, the seed and the step, whatever passes the step is divided into.
    pub(super) fn wanted(&self, examples: &[&Example]) -> Result<Vec<Vec<Drawn>>> {
        let step = self.state.step;
        let Some((samples, length)) = self.job.wanted() else { return Ok(Vec::new()) };
        if !step.is_multiple_of(samples.every) {
            return Ok(Vec::new());
        }
        let prompts: Vec<&[u32]> = examples.iter().map(|example| example.prompt()).collect();
        let sampling = Sampling { samples: samples.per_prompt, max_new_tokens: length, ..self.sampling() };
        let seed = Seed::new(self.seed.stream("method/samples", &[step]).next_u64());
        let drawn = sampling.draw(&self.policy, &prompts, seed)?;
        Ok(drawn.chunks(samples.per_prompt).map(<[Drawn]>::to_vec).collect())
    }
}

/// Samples at a time.
pub(super) const MAX_BATCH: usize = 64;

impl Sampling {
    /// Samples at temperature 1 from the whole vocabulary: only then do the samples have the distribution whose
    /// divergence is measured.
    pub(crate) fn draw(&self, policy: &Policy, prompts: &[&[u32]], seed: Seed) -> Result<Vec<Drawn>> {
        let config = GenerateConfig {
            max_new_tokens: self.max_new_tokens,
            stop_ids: self.stop.clone(),
            max_batch: MAX_BATCH.min(prompts.len() * self.samples),
            ..GenerateConfig::default()
        };
        let drawn = Generator::new(policy, config)?.draw(prompts, self.samples, seed)?;
        Ok(drawn
            .into_iter()
            .map(|sample| Drawn {
                prompt: sample.prompt,
                ids: sample.ids,
                cut: sample.finish == Finish::Length,
            })
            .collect())
    }

    /// The divergence of the policy from the reference along `drawn`.
    pub(crate) fn measure(
        &self,
        policy: &mut Policy,
        prompts: &[Asked<'_>],
        drawn: &[Drawn],
        TetherConfig { divergence, per, .. }: &TetherConfig,
    ) -> Result<Measurement> {
        let divergence = *divergence;
        let compared = divergence == Divergence::ReverseKl;
        let want = Want { divergence: Some(divergence), ref_logp: compared, ..Want::default() };
        let mut sampled = Vec::with_capacity(drawn.len());
        let mut rest = drawn;
        while !rest.is_empty() {
            let [mut forest, mut reference] = [Forest::default(), Forest::default()];
            let mut rows = Vec::new();
            // The prompt that was stored last, and its places; its samples follow one another.
            let mut stored: Option<(usize, [usize; 2])> = None;
            while let Some(next) = rest.first() {
                let asked = prompts[next.prompt];
                let roots = stored.filter(|(prompt, _)| *prompt == next.prompt).map(|(_, roots)| roots);
                let with = |forest: &Forest, prompt: &[u32]| {
                    forest.len() + if roots.is_some() { 0 } else { prompt.len() } + next.ids.len() - 1
                };
                let tokens = with(&forest, asked.ids).max(with(&reference, asked.reference));
                let full = tokens > self.room.0 || forest.rows.len() + next.ids.len() > self.room.1;
                if full && !rows.is_empty() {
                    break;
                }
                let roots =
                    roots.unwrap_or_else(|| [forest.root(asked.ids), reference.root(asked.reference)]);
                rows.push((forest.completion(roots[0], &next.ids), next));
                reference.completion(roots[1], &next.ids);
                stored = Some((next.prompt, roots));
                rest = &rest[1..];
            }
            let stats = policy.evaluate(Views { policy: &forest, reference: &reference }, want)?;
            let estimates = |rows: Range<usize>| {
                let log_ratios = rows.map(|row| stats.logp[row] - stats.ref_logp[row]);
                let log_ratios: Vec<f64> = log_ratios.collect();
                [Estimator::K1, Estimator::K2, Estimator::K3]
                    .map(|estimator| log_ratios.iter().map(|&l| estimator.value(l, 0.0)).sum())
            };
            sampled.extend(rows.into_iter().map(|(rows, drawn)| Sampled {
                prompt: drawn.prompt,
                divergence: stats.divergence[rows.clone()].iter().sum(),
                estimates: compared.then(|| estimates(rows)),
                tokens: drawn.ids.len(),
                truncated: drawn.cut,
            }));
        }
        Ok(Measurement::new(&sampled, *per))
    }
}
