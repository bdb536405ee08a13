//! What a job shows before it is run, and how a model does on its held-out examples.

use std::path::Path;

use super::checkpoint::read_weights;
use super::evaluate::evaluate;
use super::example::{Compared, Example, batch};
use super::job::{Job, Part};
use crate::data::doctor::{Finding, Piece, Samples, inspect, pieces};
use crate::data::{Answered, Labelled, LongPair, Pair, Prompt, Supervised};
use crate::engine::{Cotangent, Policy};
use crate::method::{Input, Norm};
use crate::{Error, Result};

/// Updates of an adapter that are zero, and the matrix that has to move before they can have a gradient.
const LORA: [&str; 2] = [".lora_A.", ".lora_B."];

impl Job {
    /// What looks wrong about model, template and training data. Most severe first.
    pub fn findings(&self) -> Vec<Finding> {
        let (mut supervised, mut pairs, mut long, mut labelled, mut prompts) =
            <(Vec<Supervised>, Vec<Pair>, Vec<LongPair>, Vec<Labelled>, Vec<Prompt>)>::default();
        for example in &self.train.examples {
            match example {
                Example::Supervised(item) => supervised.push(item.clone()),
                Example::Pair(item) | Example::Compared(Compared { pair: item, .. }) => {
                    pairs.push(item.clone());
                }
                Example::Long(item) => long.push(item.clone()),
                Example::Labelled(item) => labelled.push(item.clone()),
                Example::Posed(item) => prompts.push(item.prompt.clone()),
            }
        }
        let samples = match self.method.meta().input {
            Input::Supervised => Samples::Supervised(&supervised),
            Input::Pairs => Samples::Pairs(&pairs),
            Input::ScoredPairs => Samples::Compared(&pairs),
            Input::LongPairs => Samples::LongPairs(&long),
            Input::Unpaired => Samples::Unpaired(&labelled),
            Input::Prompts => Samples::Prompts(&prompts),
        };
        inspect(&self.codec, self.model.shape.vocab, samples, &self.train.prepared)
    }

    /// The sequences of the first `count` examples as text, split where training begins and ends; of a pair the
    /// chosen one and then the rejected one; of a prompt alone the prompt. Of long pairs the answers count as trained; the rest of the chosen sequence, which
    /// is trained as well, does not.
    pub fn shown(&self, count: usize) -> Vec<Vec<Piece>> {
        let completed = |prompt: &[u32], completion: &[u32]| {
            let trained: Vec<bool> =
                [false].repeat(prompt.len()).into_iter().chain([true].repeat(completion.len())).collect();
            pieces(&self.codec.tokenizer, &[prompt, completion].concat(), &trained)
        };
        let answers = |side: &Answered| {
            let on = |place: &usize| side.answers.iter().any(|answer| answer.contains(place));
            let trained: Vec<bool> = (0..side.ids.len()).map(|place| on(&place)).collect();
            pieces(&self.codec.tokenizer, &side.ids, &trained)
        };
        self.train
            .examples
            .iter()
            .take(count)
            .flat_map(|example| match example {
                Example::Supervised(s) => vec![pieces(&self.codec.tokenizer, &s.ids, &s.supervised)],
                Example::Long(pair) => [&pair.chosen, &pair.rejected].map(answers).to_vec(),
                Example::Posed(posed) => vec![completed(&posed.prompt.ids, &[])],
                _ => example.completions().iter().map(|c| completed(example.prompt(), c)).collect(),
            })
            .collect()
    }

    /// Trained tensors that get no gradient from the first batch. An adapter's `A`, whose gradient is zero as long
    /// as its `B` is, counts only where `B` gets none either.
    ///
    /// # Errors
    /// The weights cannot be read, or the loss is not finite.
    pub fn unreachable(&self) -> Result<Vec<String>> {
        let tether = self.tether()?;
        let want = self.want(tether.as_ref());
        let mut policy = self.policy(self.comparing(tether.as_ref()))?;
        if self.plan.is_some() {
            self.score_of_completions(&mut policy)?;
            return Ok(without_gradient(&mut policy));
        }
        let count = self.recipe.train.per_device_train_batch_size.min(self.train.len());
        let examples: Vec<&Example> = self.train.examples.iter().take(count).collect();
        let mut norm = Norm::default();
        for example in &examples {
            example.count(&mut norm);
        }
        let batch = batch(&examples);
        policy.zero_grads();
        let stats = batch.forward(&mut policy, want)?;
        // Where a loss has a baseline it has no derivative, so it need not be known.
        let view = batch.view(&stats, norm, None, 0.0);
        let mut cotangent = Cotangent::default();
        self.method.loss(&view, &mut cotangent);
        policy.backward(&cotangent)?;
        Ok(without_gradient(&mut policy))
    }

    /// The method's metrics on the held-out examples: of the model as it is before training, or with the weights or
    /// adapter that a run of this recipe wrote into `result`. The reference is the model before training.
    ///
    /// # Errors
    /// Nothing is held out, or the weights cannot be read.
    pub fn evaluate(&self, result: Option<&Path>) -> Result<Vec<(String, f64)>> {
        let Some(eval): Option<&Part> = self.eval.as_ref() else {
            let problem = "nothing is held out: set data.eval_path or data.eval_fraction".to_owned();
            return Err(Error::Config { key: "data".to_owned(), problem });
        };
        let tether = self.tether()?;
        let mut policy = self.policy(self.comparing(tether.as_ref()))?;
        if let Some(folder) = result {
            read_weights(folder, &self.recipe, &self.model, &mut policy)?;
        }
        evaluate(&mut policy, self, tether.as_ref(), None, eval)
    }
}

/// Trained tensors whose gradient is zero, but for an adapter's `A` where its `B` has one.
fn without_gradient(policy: &mut Policy) -> Vec<String> {
    let trainable = policy.trainable();
    let still: Vec<&str> = trainable
        .tensors
        .iter()
        .filter(|spec| trainable.grads[spec.range()].iter().all(|g| *g == 0.0))
        .map(|spec| spec.name.as_str())
        .collect();
    let counts = |name: &&&str| !name.contains(LORA[0]) || still.contains(&&*name.replace(LORA[0], LORA[1]));
    still.iter().filter(counts).map(|name| (*name).to_owned()).collect()
}
