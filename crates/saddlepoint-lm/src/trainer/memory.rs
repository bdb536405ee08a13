//! The memory of a run, known before its first step.
//!
//! What stays for the whole run is added up. What comes and goes on top of it (sampling, writing a checkpoint) comes
//! one after the other, so that only the largest counts.

use super::example::{Asked, Example};
use super::job::Job;
use super::sampling::MAX_BATCH;
use crate::Result;
use crate::engine::{Generator, MemoryPlan, Policy, TensorSpec};

/// Bytes of a number.
const WIDTH: u64 = 4;

impl Job {
    /// The memory that the run will take, part by part. Program and data are measured: they are in memory already.
    ///
    /// # Errors
    /// The tether's settings cannot be used.
    pub fn memory(&self) -> Result<MemoryPlan> {
        let (shape, tether) = (&self.model.shape, self.tether()?);
        let setup = self.setup(tether.as_ref());
        let trained = setup.lora.as_ref().map_or_else(|| shape.tensors(), |lora| lora.tensors(shape));
        let params = trained.iter().map(TensorSpec::len).sum::<usize>() as u64;

        let mut plan = MemoryPlan::default();
        plan.add("program and data", self.held);
        let reference = self.held_to.first().map_or(shape, |(model, _)| &model.shape);
        plan.parts.extend(Policy::plan(shape, reference, &setup).parts);
        let tensors: Vec<_> = trained.iter().map(TensorSpec::optimized).collect();
        plan.add("optimizer", self.recipe.optimizer.rule.bytes(&tensors));
        if tether.is_some_and(|tether| tether.config().budget.is_some()) {
            plan.add("kept weights", params * WIDTH);
        }
        let largest = trained.iter().map(TensorSpec::len).max().unwrap_or(0) as u64;
        let samples = self.recipe.tether.as_ref().map_or(1, |tether| tether.samples);
        let mut sampling =
            self.sampling_bytes(&Asked::ids(&self.sampled_prompts().0), samples, self.sample_length());
        if let Some((samples, length)) = self.wanted() {
            let prompts: Vec<&[u32]> = self.train.examples.iter().map(Example::prompt).collect();
            sampling = sampling.max(self.sampling_bytes(&prompts, samples.per_prompt, length));
        }
        if let Some(plan) = &self.plan {
            let prompts: Vec<&[u32]> = self.train.examples.iter().map(Example::prompt).collect();
            let rollout = self.rollout();
            let copies = Generator::copies_bytes(shape, rollout.weights);
            let sampled = self.sampling_bytes(&prompts, plan.num_generations, rollout.max_completion_length);
            sampling = sampling.max(sampled + copies);
        }
        plan.add("sampling, checkpoints", sampling.max(largest * WIDTH));
        let judges = self.reward_bytes();
        if judges > 0 {
            plan.add("reward models", judges);
        }
        Ok(plan)
    }

    /// What rewards hold once they have judged the largest batch of completions.
    fn reward_bytes(&self) -> u64 {
        let (Some(plan), Some(rewards)) = (&self.plan, &self.rewards) else { return 0 };
        let held_out = self.eval.as_ref().map_or(0, super::Part::len);
        let parts = self.eval.iter().chain([&self.train]);
        let prompts = parts.flat_map(|part| &part.examples).map(|example| example.prompt().len());
        let longest = prompts.max().unwrap_or(0) + self.rollout().max_completion_length;
        // A filter has more prompts sampled, but never more at a time.
        rewards.bytes(plan.a_round().max(held_out), longest)
    }

    /// Most that sampling takes at once: keys and values of prompts and samples of at most `length` tokens, the
    /// activations of prompts and of a batch, and its logits.
    fn sampling_bytes(&self, prompts: &[&[u32]], samples: usize, length: usize) -> u64 {
        let shape = &self.model.shape;
        let batch = MAX_BATCH.min(prompts.len() * samples);
        let mut lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let together = batch.div_ceil(samples);
        let shared: u64 = lengths.iter().take(together).map(|&len| Generator::cache_bytes(shape, len)).sum();
        let own = batch as u64 * Generator::cache_bytes(shape, length);
        let token = 4 * shape.hidden + shape.qkv_width() + shape.q_width() + 3 * shape.ffn;
        let longest = lengths.first().copied().unwrap_or(0);
        let lora = self.recipe.model.lora.as_ref();
        let prefill = Generator::prefill_bytes(shape, lora, longest, together);
        shared + own + (batch * token + batch * shape.vocab) as u64 * WIDTH + prefill
    }
}
