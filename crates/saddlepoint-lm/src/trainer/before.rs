//! The policy before its first step: measured once, so that a resumed run compares with the same.

use saddlepoint_core::atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::evaluate::Means;
use super::example::Asked;
use super::sampling::Drawn;
use super::setup::Run;
use super::{Observer, checkpoint};
use crate::Result;

/// Kept until the end of the run.
const FILE: &str = "before.json";

/// What the policy says before its first step, and how it does on held-out examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    pub(super) samples: Vec<Drawn>,
    /// The method's metrics, if something is held out.
    pub(super) evaluation: Option<Map<String, Value>>,
}

impl Run<'_> {
    /// Looks at the policy before its first step, or reads what was seen then.
    pub(super) fn look_before(&mut self, observer: Observer) -> Result<()> {
        let path = self.dir.path().join(FILE);
        if path.is_file() || self.state.step > 0 {
            self.before = checkpoint::parse(&path)?;
            return Ok(());
        }
        let (prompts, _) = self.job.sampled_prompts();
        let samples = if prompts.is_empty() {
            Vec::new()
        } else {
            self.draw(&Asked::ids(&prompts), "samples/before", 0, observer)?
        };
        self.before = Before { samples, evaluation: self.evaluate()?.map(object) };
        let bytes = serde_json::to_vec(&self.before).expect("numbers are JSON");
        Ok(atomic::write(&path, &bytes)?)
    }
}

/// Means as JSON; what is not finite is `null`.
pub(super) fn object(means: Means) -> Map<String, Value> {
    means.into_iter().map(|(name, value)| (name, value.into())).collect()
}
