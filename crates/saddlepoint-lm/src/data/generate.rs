//! Generated data: sums by a sloppy calculator, for trying everything without a file.
//!
//! A corpus shows completions of `12+7=` that are right with a known probability; a model trained on it answers
//! right about that often. Preference pairs then say that right is better. Holding the model to a budget of `b`
//! nats bounds what the pairs can do: a policy that moves the probability of a right answer from `q` to `p` has a
//! divergence of at least `p ln(p/q) + (1 − p) ln((1 − p)/(1 − q))`.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use saddlepoint_core::seed::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, Result};

/// What to generate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// The task.
    pub task: Task,
    /// Records to train on.
    pub samples: usize,
    /// Records to evaluate on, with other prompts than the pairs to train on.
    pub eval_samples: usize,
    /// Share of right completions in a corpus, in [0, 1].
    pub right: f64,
    /// Share of pairs whose preference is wrong, in [0, 1].
    pub noise: f64,
    /// Largest number that is added, 1 to 99.
    pub largest: u32,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { task: Task::Addition, samples: 2000, eval_samples: 200, right: 0.5, noise: 0.03, largest: 30 }
    }
}

/// A task with a rule that says what is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Sums of two numbers: `12+7=` is continued by `19`.
    #[default]
    Addition,
}

/// Which part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// To train on.
    Train,
    /// To evaluate on.
    Eval,
}

impl GenerateConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, range: &str, got: &dyn std::fmt::Display| {
            let problem = format!("must be {range}, got {got}");
            Err(Error::Config { key: format!("data.generate.{key}"), problem })
        };
        for (key, share) in [("right", self.right), ("noise", self.noise)] {
            if !(0.0..=1.0).contains(&share) {
                return refuse(key, "in [0, 1]", &share);
            }
        }
        if self.samples == 0 {
            return refuse("samples", "at least 1", &self.samples);
        }
        if !(1..=99).contains(&self.largest) {
            return refuse("largest", "in 1 to 99", &self.largest);
        }
        Ok(())
    }

    /// A corpus as JSONL of `prompt` and `completion`; the completion is right with probability `right`.
    pub fn corpus(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/corpus", |rng| {
            let (a, b) = (rng.random_range(0..=self.largest), rng.random_range(0..=self.largest));
            let completion = if rng.random::<f64>() < self.right { a + b } else { slip(a + b, rng) };
            Some(json!({ "prompt": format!("{a}+{b}="), "completion": completion.to_string() }))
        })
    }

    /// Pairs as JSONL of `prompt`, `chosen` and `rejected`: right is chosen, but for a share of `noise`. One
    /// prompt in five is only ever in the part for evaluation.
    pub fn pairs(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/pairs", |rng| {
            let (a, b) = (rng.random_range(0..=self.largest), rng.random_range(0..=self.largest));
            if ((a + 3 * b) % 5 == 0) != (split == Split::Eval) {
                return None;
            }
            let (right, wrong) = (a + b, slip(a + b, rng));
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let (chosen, rejected) = if swap { (wrong, right) } else { (right, wrong) };
            let (chosen, rejected) = (chosen.to_string(), rejected.to_string());
            Some(json!({ "prompt": format!("{a}+{b}="), "chosen": chosen, "rejected": rejected }))
        })
    }

    fn lines(
        &self,
        split: Split,
        seed: Seed,
        name: &str,
        mut line: impl FnMut(&mut ChaCha8Rng) -> Option<Value>,
    ) -> String {
        let (count, part) = match split {
            Split::Train => (self.samples, 0),
            Split::Eval => (self.eval_samples, 1),
        };
        let mut rng = seed.stream(name, &[part]);
        let mut text = String::new();
        for value in std::iter::repeat_with(|| line(&mut rng)).flatten().take(count) {
            text.push_str(&value.to_string());
            text.push('\n');
        }
        text
    }
}

/// A wrong sum as a sloppy calculator gets it: one off, or a wrong carry.
fn slip(sum: u32, rng: &mut ChaCha8Rng) -> u32 {
    match rng.random_range(0..3) {
        0 => sum + 1,
        1 if sum > 0 => sum - 1,
        1 => sum + 2,
        _ => sum + 10,
    }
}

impl Task {
    /// Whether `completion` is right after `prompt`.
    pub fn verify(self, prompt: &str, completion: &str) -> bool {
        let sum = || {
            let (a, b) = prompt.strip_suffix('=')?.split_once('+')?;
            Some(a.parse::<u32>().ok()? + b.parse::<u32>().ok()?)
        };
        sum().is_some_and(|sum| completion == sum.to_string())
    }

    /// A `tokenizer.json` with one token a character, for a model that knows only this task.
    pub fn tokenizer_json(self) -> Vec<u8> {
        let specials = [END, UNKNOWN];
        let tokens = specials.into_iter().map(str::to_owned).chain("0123456789+=".chars().map(String::from));
        let vocab: BTreeMap<String, usize> = tokens.enumerate().map(|(id, token)| (token, id)).collect();
        let added = |id: usize, content: &str| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            })
        };
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [added(0, END), added(1, UNKNOWN)],
            "normalizer": null,
            "pre_tokenizer": {
                "type": "Split", "pattern": { "String": "" }, "behavior": "Isolated", "invert": false
            },
            "post_processor": null,
            "decoder": { "type": "Fuse" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN }
        });
        serde_json::to_vec_pretty(&json).expect("JSON values serialise")
    }

    /// The `tokenizer_config.json` beside it.
    pub fn tokenizer_config(self) -> Value {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END, "unk_token": UNKNOWN
        })
    }
}

/// Ends a completion.
const END: &str = "<|endoftext|>";
/// Stands for every character that is not part of the task.
const UNKNOWN: &str = "<|unknown|>";

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(line: &'a Value, name: &str) -> &'a str {
        line[name].as_str().expect("text")
    }

    fn parse(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn the_corpus_is_right_as_often_as_asked() {
        let config = GenerateConfig { samples: 4000, right: 0.6, ..GenerateConfig::default() };
        let lines = parse(&config.corpus(Split::Train, Seed::new(1)));
        let right = |l: &Value| Task::Addition.verify(field(l, "prompt"), field(l, "completion"));
        let share = lines.iter().filter(|l| right(l)).count() as f64 / 4000.0;
        assert!((share - 0.6).abs() < 0.03, "{share}");
        assert_eq!(lines.len(), 4000);
    }

    #[test]
    fn pairs_prefer_right_and_share_no_prompt_between_the_parts() {
        let config = GenerateConfig { samples: 3000, eval_samples: 300, ..GenerateConfig::default() };
        let (train, eval) = (
            parse(&config.pairs(Split::Train, Seed::new(1))),
            parse(&config.pairs(Split::Eval, Seed::new(1))),
        );
        let right = |l: &Value| Task::Addition.verify(field(l, "prompt"), field(l, "chosen"));
        let wrong = train.iter().filter(|l| !right(l)).count() as f64 / 3000.0;
        assert!((wrong - 0.03).abs() < 0.01, "{wrong}");
        assert!(eval.iter().all(right), "what is evaluated on has no noise");
        assert!(train.iter().all(|l| field(l, "chosen") != field(l, "rejected")));
        let prompts = |lines: &[Value]| -> std::collections::BTreeSet<String> {
            lines.iter().map(|l| field(l, "prompt").to_owned()).collect()
        };
        assert!(prompts(&train).is_disjoint(&prompts(&eval)));
    }

    #[test]
    fn the_seed_decides() {
        let config = GenerateConfig::default();
        assert_eq!(config.pairs(Split::Train, Seed::new(3)), config.pairs(Split::Train, Seed::new(3)));
        assert_ne!(config.pairs(Split::Train, Seed::new(3)), config.pairs(Split::Train, Seed::new(4)));
    }

    #[test]
    fn the_rule_takes_the_sum_only() {
        for (prompt, completion, right) in
            [("12+7=", "19", true), ("12+7=", "019", false), ("12+7=", "19 ", false), ("12-7=", "5", false)]
        {
            assert_eq!(Task::Addition.verify(prompt, completion), right, "{prompt}{completion}");
        }
    }

    #[test]
    fn one_token_a_character_and_back() {
        let tokenizer = tokenizers::Tokenizer::from_bytes(Task::Addition.tokenizer_json()).expect("valid");
        let ids = tokenizer.encode("12+7=19<|endoftext|>", false).expect("encodes").get_ids().to_vec();
        assert_eq!(ids, [3, 4, 12, 9, 13, 3, 11, 0]);
        assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), "12+7=19");
        assert_eq!(tokenizer.encode("x", false).expect("encodes").get_ids(), [1]);
        assert_eq!(tokenizer.get_vocab_size(true), 14);
    }

    #[test]
    fn bad_settings_are_refused() {
        for (config, message) in [
            (
                GenerateConfig { right: 1.5, ..GenerateConfig::default() },
                "data.generate.right: must be in [0, 1], got 1.5",
            ),
            (
                GenerateConfig { samples: 0, ..GenerateConfig::default() },
                "data.generate.samples: must be at least 1, got 0",
            ),
            (
                GenerateConfig { largest: 100, ..GenerateConfig::default() },
                "data.generate.largest: must be in 1 to 99, got 100",
            ),
        ] {
            assert_eq!(config.check().expect_err("refused").to_string(), message);
        }
    }
}
