//! A model that learns step by step from examples, for experiments that look at it between two steps.

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::optimizer::{Optimizer, OptimizerConfig, clip_factor, global_norm};

use crate::engine::{Cotangent, Policy, TensorSpec};
use crate::method::{Method, Norm, Sums};
use crate::trainer::{Batch, Drawn, Example, Sampling, with_samples};
use crate::{Error, Result};

/// A policy and its optimizer.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) policy: Policy,
    pub(super) optimizer: Optimizer,
    /// For methods that learn from samples of the policy.
    pub(super) samples: Option<Samples>,
}

/// How samples are drawn for a method that learns from them.
#[derive(Debug)]
pub(super) struct Samples {
    /// Ends a sample.
    pub(super) end: u32,
    /// Longest sample in tokens, unless the method says.
    pub(super) longest: usize,
    /// Of the samples of the next step.
    pub(super) seed: Seed,
}

impl Learner {
    /// A policy that has its weights, before its first step.
    pub(super) fn new(mut policy: Policy, optimizer: OptimizerConfig) -> Result<Self> {
        let tensors: Vec<_> = policy.trainable().tensors.iter().map(TensorSpec::optimized).collect();
        Ok(Self { optimizer: Optimizer::new(optimizer, &tensors)?, policy, samples: None })
    }

    /// One step on `examples` with learning rate `lr` and gradients of at most norm 1; the loss before it.
    ///
    /// # Errors
    /// The loss or the gradient is not finite, or the examples do not fit the policy.
    pub(super) fn step(&mut self, method: &dyn Method, examples: &[&Example], lr: f64) -> Result<f64> {
        let mut norm = Norm::default();
        for example in examples {
            example.count(&mut norm);
        }
        let batch = with_samples(examples, &self.draw(method, examples)?);
        self.step_on(method, &batch, norm, lr)
    }

    /// As [`Learner::step`], on a batch with so many predictions, sequences and pairs.
    pub(super) fn step_on(&mut self, method: &dyn Method, batch: &Batch, norm: Norm, lr: f64) -> Result<f64> {
        self.policy.zero_grads();
        let stats = batch.forward(&mut self.policy, method.want())?;
        let view = batch.view(&stats, norm, None, 0.0);
        let mut cotangent = Cotangent::default();
        let sums = method.loss(&view, &mut cotangent);
        self.follow(&sums, norm, &cotangent, lr)
    }

    /// Moves along the gradient whose cotangents of the last forward pass are given; the loss among `sums`.
    pub(super) fn follow(&mut self, sums: &Sums, norm: Norm, cotangent: &Cotangent, lr: f64) -> Result<f64> {
        let means = sums.means(norm);
        let loss = means.iter().find(|(name, _)| *name == "loss").map_or(f64::NAN, |(_, loss)| *loss);
        finite("the loss of an experiment", loss)?;
        self.policy.backward(cotangent)?;
        let trainable = self.policy.trainable();
        let size = global_norm(trainable.grads);
        finite("the gradient norm of an experiment", size)?;
        self.optimizer.update(trainable.params, trainable.grads, lr, clip_factor(size, 1.0))?;
        Ok(loss)
    }

    /// The samples that the method learns from at this step, example by example; none if it wants none.
    fn draw(&mut self, method: &dyn Method, examples: &[&Example]) -> Result<Vec<Vec<Drawn>>> {
        let Some((wanted, how)) = method.samples().zip(self.samples.as_mut()) else { return Ok(Vec::new()) };
        let prompts: Vec<&[u32]> = examples.iter().map(|example| example.prompt()).collect();
        let sampling = Sampling {
            samples: wanted.per_prompt,
            max_new_tokens: wanted.max_completion_length.unwrap_or(how.longest),
            stop: vec![how.end],
            room: (0, 0),
        };
        let drawn = sampling.draw(&self.policy, &prompts, how.seed)?;
        how.seed = Seed::new(how.seed.stream("reproduce/samples", &[]).next_u64());
        Ok(drawn.chunks(wanted.per_prompt).map(<[Drawn]>::to_vec).collect())
    }
}

fn finite(what: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    let remedy = "the method or the engine is at fault: an experiment's settings are fixed".to_owned();
    Err(Error::NotFinite { what: what.to_owned(), value, remedy })
}
