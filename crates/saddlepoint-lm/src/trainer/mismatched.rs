//! Completions under the prompts of others: how far the policy has moved, whatever the question.

use super::example::Example;
use super::job::Job;
use crate::Result;
use crate::data::Labelled;
use crate::engine::{Forest, Policy, Want};
use crate::method::{Per, Sums};

/// What the policy makes of mismatched completions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Mismatched {
    /// Mean of `ln π(y'|x) − ln π₀(y'|x)`, nats.
    pub(super) mean: f64,
    /// Number of completions.
    examples: usize,
    /// How many of them were cut.
    cut: usize,
}

impl Mismatched {
    /// Gives each of `examples` the completion of the one before (the first that of the last), cut to the longest sequence
    /// of the job. Passes of `size`, on which the mean does not depend. Nothing where the method does not need it.
    pub(super) fn of(job: &Job, policy: &mut Policy, examples: &[&Example], size: usize) -> Result<Self> {
        if !job.method.mismatched() {
            return Ok(Self::default());
        }
        let judged: Vec<&Labelled> = examples.iter().filter_map(|example| example.labelled()).collect();
        let before = judged.iter().cycle().skip(judged.len().saturating_sub(1));
        let swapped: Vec<(&[u32], &[u32])> =
            judged.iter().zip(before).map(|(own, other)| (&own.prompt[..], &other.completion[..])).collect();
        let (mut sum, mut cut) = (0.0, 0);
        for pass in swapped.chunks(size) {
            let mut forest = Forest::default();
            for (prompt, completion) in pass {
                // A prompt leaves room for a token at least: that of its own completion.
                let kept = completion.len().min(job.longest() - prompt.len());
                cut += usize::from(kept < completion.len());
                let root = forest.root(prompt);
                forest.completion(root, &completion[..kept]);
            }
            let stats = policy.evaluate(&forest, Want { ref_logp: true, ..Want::default() })?;
            for (logp, ref_logp) in stats.logp.iter().zip(&stats.ref_logp) {
                sum += logp - ref_logp;
            }
        }
        Ok(Self { mean: sum / judged.len() as f64, examples: judged.len(), cut })
    }

    /// Adds what was cut to the metrics, if anything was measured.
    pub(super) fn report(&self, sums: &mut Sums) {
        if self.examples > 0 {
            sums.add("kl/truncated", self.cut as f64, Per::Count(self.examples));
        }
    }
}
