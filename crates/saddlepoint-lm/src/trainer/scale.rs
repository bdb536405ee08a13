//! The scale of a reward model's scores.

use super::example::{Example, batch};
use super::job::Job;
use crate::Result;
use crate::engine::Policy;
use crate::model::ScoreScale;

impl Job {
    /// Mean and deviation of the scores of the held-out completions (of those trained on where nothing is held out), if it is a
    /// reward model that is trained. None where they are all equal.
    pub(super) fn score_scale(&self, policy: &mut Policy) -> Result<Option<ScoreScale>> {
        if self.model.shape.readout.vocabulary() {
            return Ok(None);
        }
        let part = self.eval.as_ref().unwrap_or(&self.train);
        let examples: Vec<&Example> = part.examples.iter().collect();
        let mut scores = Vec::with_capacity(2 * examples.len());
        for examples in examples.chunks(self.eval_batch()) {
            let batch = batch(examples);
            let stats = batch.evaluate(policy, self.method.want())?;
            scores.extend(batch.sequences.iter().flat_map(|rows| &stats.score[rows.clone()]));
        }
        Ok(ScoreScale::of(&scores))
    }
}
