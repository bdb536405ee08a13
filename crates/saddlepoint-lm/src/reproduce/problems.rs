//! Generated problems with one right answer each, so that the probability of a right answer is exact.

use std::path::Path;

use saddlepoint_core::seed::Seed;
use serde_json::Value;

use crate::Result;
use crate::data::Tokenizer;
use crate::data::generate::{GenerateConfig, Split};
use crate::engine::{Forest, Policy, Want};
use crate::model::ModelFolder;

/// Problems as tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct Problems {
    /// What is asked.
    pub(super) prompts: Vec<Vec<u32>>,
    /// The right answer to each, the end among its tokens.
    answers: Vec<Vec<u32>>,
}

impl Problems {
    /// Draws problems for the tokenizer of `model`.
    ///
    /// # Errors
    /// The tokenizer cannot be used.
    pub(super) fn draw(
        model: &ModelFolder,
        config: &GenerateConfig,
        split: Split,
        seed: u64,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), model.tokenizer_json())?;
        let end = model.eos_ids()[0];
        let mut problems = Self::default();
        for line in config.prompts(split, Seed::new(seed)).lines() {
            let line: Value = serde_json::from_str(line).expect("just written");
            let text = |key: &str| line[key].as_str().expect("text");
            problems.prompts.push(tokenizer.encode(text("prompt"))?);
            let mut answer = tokenizer.encode(text("solution"))?;
            answer.push(end);
            problems.answers.push(answer);
        }
        Ok(problems)
    }

    /// Number of problems.
    pub(super) fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Tokens of the longest prompt and of the longest answer.
    pub(super) fn longest(&self) -> [usize; 2] {
        [&self.prompts, &self.answers].map(|all| all.iter().map(Vec::len).max().unwrap_or(0))
    }

    /// 1 if the tokens are the right answer to the problem, else 0.
    pub(super) fn reward(&self, problem: usize, completion: &[u32]) -> f64 {
        f64::from(self.answers[problem] == completion)
    }

    /// The probability of the right answer, the mean over the problems; `together` of them in a pass.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn success(&self, policy: &mut Policy, together: usize) -> Result<f64> {
        let mut sum = 0.0;
        let all: Vec<_> = self.prompts.iter().zip(&self.answers).collect();
        for part in all.chunks(together) {
            let mut forest = Forest::default();
            let mut rows = Vec::with_capacity(part.len());
            for (prompt, answer) in part {
                let root = forest.root(prompt);
                rows.push(forest.completion(root, answer));
            }
            let logp = policy.evaluate(&forest, Want::default())?.logp;
            sum += rows.into_iter().map(|rows| logp[rows].iter().sum::<f64>().exp()).sum::<f64>();
        }
        Ok(sum / self.len() as f64)
    }
}
