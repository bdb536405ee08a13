//! Steps on a policy's own completions, for experiments on methods that learn from rewards.

use saddlepoint_core::seed::Seed;

use super::learner::Learner;
use crate::Result;
use crate::engine::{Cotangent, Policy, Want};
use crate::method::{Credit, Method, Norm, Rewarded, Rollout, View};
use crate::rollout::{Drawing, RolloutConfig, Round};
use crate::tether::Tether;

/// How completions are drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Practice {
    /// Completions a prompt.
    pub(super) num_generations: usize,
    /// Longest completion in tokens.
    pub(super) longest: usize,
    /// Ends a completion.
    pub(super) end: u32,
}

/// What a completion of a prompt is worth, by the number of the prompt and its tokens.
pub(super) type Reward<'a> = &'a dyn Fn(usize, &[u32]) -> f64;

/// Completions decoded at a time.
const BATCH: usize = 64;

impl Practice {
    /// Completions of each prompt by the policy as it is, with what they are worth.
    ///
    /// # Errors
    /// As [`Drawing::draw`].
    pub(super) fn round(
        &self,
        policy: &Policy,
        prompts: &[&[u32]],
        reward: Reward,
        seed: Seed,
    ) -> Result<Round> {
        let config = RolloutConfig { max_completion_length: self.longest, ..RolloutConfig::default() };
        let (num_generations, stop) = (self.num_generations, std::slice::from_ref(&self.end));
        let drawing = Drawing { config: &config, num_generations, stop, max_batch: BATCH };
        let mut round = Round::default();
        round.extend((0..prompts.len()).collect(), drawing.draw(policy, prompts, seed)?);
        let worth = |(i, completion): (usize, &crate::rollout::Completion)| {
            Some(reward(i / num_generations, &completion.ids))
        };
        round.rewards = round.completions.iter().enumerate().map(worth).collect();
        Ok(round)
    }

    /// One step on all completions of a round of these prompts, which is step `step` of the run, counted from 0, with learning
    /// rate `lr`.
    ///
    /// # Errors
    /// The loss or the gradient is not finite, or the round does not fit the policy.
    pub(super) fn step(
        &self,
        learner: &mut Learner,
        method: &dyn Method,
        tether: Option<&Tether>,
        (round, prompts): (&mut Round, &[&[u32]]),
        step: u64,
        lr: f64,
    ) -> Result<()> {
        round.advantages = method.advantages(&Rewarded::new(&round.groups(), &round.rewards));
        self.learn(learner, method, tether, (round, prompts), step, lr)
    }

    /// Gives the completions of a round of these prompts what they are worth to a method that learns values, by the policy as it is.
    /// `KL(π || π₀)` of a completion as that of the round, nats.
    ///
    /// # Errors
    /// The round does not fit the policy.
    pub(super) fn credit(
        policy: &mut Policy,
        method: &dyn Method,
        (round, prompts): (&mut Round, &[&[u32]]),
    ) -> Result<f64> {
        let pass = round.pass(0..round.completions.len(), |prompt| prompts[prompt]);
        let want = Want { ref_logp: true, score: true, ..Want::default() };
        let stats = policy.evaluate(&pass.forest, want)?;
        let of = |all: &[f64]| -> Vec<Vec<f64>> {
            pass.sequences.iter().map(|rows| all[rows.clone()].to_vec()).collect()
        };
        let ratios: Vec<f64> = stats.logp.iter().zip(&stats.ref_logp).map(|(p, q)| p - q).collect();
        let (log_ratios, values, trained) = (of(&ratios), of(&stats.score), of(&stats.logp));
        let groups = round.groups();
        let rewarded = Rewarded {
            log_ratios: Some(&log_ratios),
            values: &values,
            ..Rewarded::new(&groups, &round.rewards)
        };
        round.credit = method.credit(&rewarded);
        round.advantages = round.credit.iter().map(|credit| credit.as_ref().map(Credit::mean)).collect();
        round.trained = trained;
        Ok(ratios.iter().sum::<f64>() / round.completions.len() as f64)
    }

    /// As [`Practice::step`], on completions that have what they are worth in the loss.
    ///
    /// # Errors
    /// As [`Practice::step`].
    pub(super) fn learn(
        &self,
        learner: &mut Learner,
        method: &dyn Method,
        tether: Option<&Tether>,
        (round, prompts): (&Round, &[&[u32]]),
        step: u64,
        lr: f64,
    ) -> Result<()> {
        let pass = round.pass(0..round.completions.len(), |prompt| prompts[prompt]);
        learner.policy.zero_grads();
        let want = method.want().or(tether.map(Tether::want).unwrap_or_default());
        let stats = learner.policy.forward(&pass.forest, want)?;
        let tokens = stats.logp.len();
        let norm = Norm { tokens, sequences: pass.sequences.len(), ..Norm::default() };
        let rollout = Rollout {
            completions: &pass.judged,
            max_completion_length: self.longest,
            step,
            tokens_a_step: tokens as f64,
        };
        let beta = tether.map(|_| 0.0);
        let view = View { beta, rollout: Some(rollout), ..View::new(&pass.sequences, &stats, norm) };
        let mut cotangent = Cotangent::default();
        let mut sums = method.loss(&view, &mut cotangent);
        if let Some(tether) = tether {
            tether.penalize(&view, &mut cotangent, &mut sums);
        }
        learner.follow(&sums, norm, &cotangent, lr)?;
        Ok(())
    }
}
