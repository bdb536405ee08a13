//! Generated problems with one right answer each, so that the probability of a right answer is exact, and problems from easy to
//! hard with a model that is right of each kind as often as it has seen.

use std::path::Path;

use saddlepoint_core::seed::Seed;
use serde_json::Value;

use super::base::Base;
use crate::Result;
use crate::data::Tokenizer;
use crate::data::generate::{GenerateConfig, Split, Task};
use crate::engine::{Forest, Policy, Reference, Setup, Storage, Want};
use crate::model::ModelFolder;

/// Share of right answers in what the model has learned from, by the difficulty: numbers less 2.
pub(super) const RIGHT: [f64; 4] = [0.9, 0.5, 0.125, 0.025];
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

/// Problems of all kinds, one after the other.
pub(super) struct Kinds(Vec<Problems>);

impl Kinds {
    /// Draws `each` problems of every kind for the tokenizer of `model`.
    ///
    /// # Errors
    /// The tokenizer cannot be used.
    pub(super) fn draw(model: &ModelFolder, each: usize, split: Split, seed: u64) -> Result<Self> {
        let of = |difficulty: u32| {
            let config = GenerateConfig {
                task: Task::Sorting,
                difficulty,
                samples: each,
                eval_samples: each,
                ..GenerateConfig::default()
            };
            Problems::draw(model, &config, split, seed)
        };
        Ok(Self((1..=RIGHT.len() as u32).map(of).collect::<Result<_>>()?))
    }

    /// The kind of the `i`-th problem and its number there; from the beginning again where there are no more.
    pub(super) fn at(&self, i: usize) -> (&Problems, usize) {
        let kind = &self.0[i % self.0.len()];
        (kind, i / self.0.len() % kind.len())
    }

    /// Number of problems.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Problems::len).sum()
    }

    /// Tokens of the longest prompt and of the longest answer.
    pub(super) fn longest(&self) -> [usize; 2] {
        std::array::from_fn(|i| self.0.iter().map(|kind| kind.longest()[i]).max().unwrap_or(0))
    }

    /// The probability of the right answer, the mean over all kinds; `together` problems in a pass.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn success(&self, policy: &mut Policy, together: usize) -> Result<f64> {
        let each = self.0.iter().map(|kind| kind.success(policy, together));
        Ok(each.sum::<Result<f64>>()? / self.0.len() as f64)
    }
}

/// A model of this width that puts numbers in order, right as often as its data, after so many steps.
pub(super) fn graded(width: usize, steps: usize) -> Base {
    let mut corpora: Vec<Vec<String>> = Vec::new();
    for (difficulty, right) in (1..).zip(RIGHT) {
        let samples = 64 * steps / RIGHT.len();
        let config =
            GenerateConfig { task: Task::Sorting, difficulty, right, samples, ..GenerateConfig::default() };
        corpora.push(config.corpus(Split::Train, Seed::new(0)).lines().map(str::to_owned).collect());
    }
    let lines =
        (0..corpora[0].len()).flat_map(|i| corpora.iter().map(move |corpus| corpus[i].clone() + "\n"));
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {}, intermediate_size = {}, num_hidden_layers = 2, num_attention_heads = 4, \
         num_key_value_heads = 2, tokenizer = \"tokenizer.json\" }}\n\
         [data]\npath = \"corpus.jsonl\"\n[method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 3e-3\n\
         [train]\nper_device_train_batch_size = 64\nmax_steps = {}\nlr_scheduler_type = \"cosine\"\nwarmup_steps = 50\n\
         save_total_limit = 1\nsample_prompts = 0\n",
        width,
        3 * width,
        steps,
    );
    let files = vec![
        ("corpus.jsonl", lines.collect()),
        ("tokenizer.json", String::from_utf8(Task::Sorting.tokenizer_json()).expect("JSON is UTF-8")),
        ("tokenizer_config.json", Task::Sorting.tokenizer_config().to_string()),
    ];
    Base { recipe, files }
}

/// The model before its first step, for passes of so many completions to prompts and of answers of these lengths.
///
/// # Errors
/// The weights cannot be read.
pub(super) fn policy(
    model: &ModelFolder,
    [prompt, answer]: [usize; 2],
    completions: usize,
) -> Result<Policy> {
    let setup = Setup {
        lora: None,
        frozen: Storage::F32,
        reference: Reference::None,
        recompute: false,
        max_tokens: completions * (prompt + answer),
        max_rows: completions * answer,
    };
    let mut policy = Policy::new(model.shape.clone(), setup)?;
    policy.load(model.source())?;
    Ok(policy)
}
