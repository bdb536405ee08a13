//! Generated data: a sloppy reader of digits, for trying everything without a file.
//!
//! A corpus continues `4,9,2,7=` by the largest digit with a known probability, else by another one; a model
//! trained on it is right about that often. Preference pairs then say that right is better. Holding the model
//! within a budget bounds what the pairs can do: a policy that moves the probability of a right answer from `q` to
//! `p` has a divergence of at least `p ln(p/q) + (1 − p) ln((1 − p)/(1 − q))` nats, and can get near that here.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use saddlepoint_core::seed::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, Result};

/// Most records: they are all kept in memory.
const MOST: usize = 10_000_000;

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
    /// Share of right completions in a corpus and among completions with a label, in [0, 1].
    pub right: f64,
    /// Share of pairs whose preference, or of completions whose label is wrong, in [0, 1].
    pub noise: f64,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { task: Task::Largest, samples: 2000, eval_samples: 200, right: 0.5, noise: 0.03 }
    }
}

/// A task with a rule that says what is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The largest of four digits: `4,9,2,7=` is continued by `9`.
    #[default]
    Largest,
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
        for (key, count) in [("samples", self.samples), ("eval_samples", self.eval_samples)] {
            if count > MOST {
                return refuse(key, &format!("at most {MOST}"), &count);
            }
        }
        Ok(())
    }

    /// A corpus as JSONL of `prompt` and `completion`; the completion is right with probability `right`.
    pub fn corpus(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/corpus", |rng| {
            let digits = draw(rng);
            let right = rng.random::<f64>() < self.right;
            let completion = if right { largest(digits) } else { slip(largest(digits), rng) };
            Some(json!({ "prompt": prompt(digits), "completion": completion.to_string() }))
        })
    }

    /// Pairs as JSONL of `prompt`, `chosen` and `rejected`: right is chosen, but for a share of `noise`. One
    /// prompt in five is only ever in the part for evaluation.
    pub fn pairs(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/pairs", |rng| {
            let digits = draw(rng);
            if split != part_of(digits) {
                return None;
            }
            let (right, wrong) = (largest(digits), slip(largest(digits), rng));
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let (chosen, rejected) = if swap { (wrong, right) } else { (right, wrong) };
            let (chosen, rejected) = (chosen.to_string(), rejected.to_string());
            Some(json!({ "prompt": prompt(digits), "chosen": chosen, "rejected": rejected }))
        })
    }

    /// Pairs about long prompts as JSONL of `document`, `chunk`, `prompt`, `chosen` and `rejected`: the largest of twelve digits,
    /// which is among the four of the chunk. Preferences, noise and parts are those of pairs.
    pub fn long_pairs(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/long-pairs", |rng| {
            let digits = draw(rng);
            if split != part_of(digits) {
                return None;
            }
            let (right, wrong) = (largest(digits), slip(largest(digits), rng));
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let (chosen, rejected) = if swap { (wrong, right) } else { (right, wrong) };
            let mut beside = || (0..4).map(|_| rng.random_range(0..=right).to_string()).collect::<Vec<_>>().join(",");
            let chunk = prompt(digits).trim_end_matches('=').to_owned();
            let document = format!("{},{chunk},{}", beside(), beside());
            let (chosen, rejected) = (chosen.to_string(), rejected.to_string());
            Some(json!({ "document": document, "chunk": chunk, "prompt": "=", "chosen": chosen, "rejected": rejected }))
        })
    }

    /// Completions as JSONL of `prompt`, `completion` and `label`: right with probability `right`, and the label says so, but
    /// for a share of `noise`. The prompts are divided as those of pairs.
    pub fn unpaired(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/unpaired", |rng| {
            let digits = draw(rng);
            if split != part_of(digits) {
                return None;
            }
            let right = rng.random::<f64>() < self.right;
            let completion = if right { largest(digits) } else { slip(largest(digits), rng) };
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let (completion, label) = (completion.to_string(), right != swap);
            Some(json!({ "prompt": prompt(digits), "completion": completion, "label": label }))
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

fn draw(rng: &mut ChaCha8Rng) -> [u32; 4] {
    std::array::from_fn(|_| rng.random_range(0..10))
}

/// One prompt in five is only ever evaluated on.
fn part_of(digits: [u32; 4]) -> Split {
    let place: u32 = digits.iter().zip(1..).map(|(digit, weight)| digit * weight).sum();
    if place.is_multiple_of(5) { Split::Eval } else { Split::Train }
}

fn largest(digits: [u32; 4]) -> u32 {
    digits.into_iter().max().expect("four digits")
}

fn prompt([a, b, c, d]: [u32; 4]) -> String {
    format!("{a},{b},{c},{d}=")
}

/// Any other digit.
fn slip(right: u32, rng: &mut ChaCha8Rng) -> u32 {
    (right + rng.random_range(1..10)) % 10
}

impl Task {
    /// Whether `completion` is right after `prompt`.
    pub fn verify(self, prompt: &str, completion: &str) -> bool {
        let right =
            || prompt.strip_suffix('=')?.split(',').filter_map(|digit| digit.parse::<u32>().ok()).max();
        right().is_some_and(|right| completion == right.to_string())
    }

    /// A `tokenizer.json` with one token a character, for a model that knows only this task.
    pub fn tokenizer_json(self) -> Vec<u8> {
        let specials = [END, UNKNOWN];
        let tokens = specials.into_iter().map(str::to_owned).chain("0123456789,=".chars().map(String::from));
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
        let right = |l: &Value| Task::Largest.verify(field(l, "prompt"), field(l, "completion"));
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
        let right = |l: &Value| Task::Largest.verify(field(l, "prompt"), field(l, "chosen"));
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
    fn labels_say_what_is_right_and_share_no_prompt_between_the_parts() {
        let config =
            GenerateConfig { samples: 3000, eval_samples: 300, right: 0.4, ..GenerateConfig::default() };
        let of = |split| parse(&config.unpaired(split, Seed::new(1)));
        let (train, eval) = (of(Split::Train), of(Split::Eval));
        let right = |l: &Value| Task::Largest.verify(field(l, "prompt"), field(l, "completion"));
        let share = |lines: &[Value], holds: &dyn Fn(&Value) -> bool| {
            lines.iter().filter(|l| holds(l)).count() as f64 / lines.len() as f64
        };
        assert!((share(&train, &right) - 0.4).abs() < 0.03);
        assert!((share(&train, &|l| l["label"] != right(l)) - 0.03).abs() < 0.01);
        assert!(eval.iter().all(|l| l["label"] == right(l)), "what is evaluated on has no noise");
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
    fn the_rule_takes_the_largest_only() {
        for (prompt, completion, right) in [
            ("4,9,2,7=", "9", true),
            ("4,9,2,7=", "7", false),
            ("4,9,2,7=", "99", false),
            ("4,9,2,7", "9", false),
        ] {
            assert_eq!(Task::Largest.verify(prompt, completion), right, "{prompt}{completion}");
        }
    }

    #[test]
    fn one_token_a_character_and_back() {
        let tokenizer = tokenizers::Tokenizer::from_bytes(Task::Largest.tokenizer_json()).expect("valid");
        let ids = tokenizer.encode("1,9,0,7=9<|endoftext|>", false).expect("encodes").get_ids().to_vec();
        assert_eq!(ids, [3, 12, 11, 12, 2, 12, 9, 13, 11, 0]);
        assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), "1,9,0,7=9");
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
                GenerateConfig { eval_samples: MOST + 1, ..GenerateConfig::default() },
                "data.generate.eval_samples: must be at most 10000000, got 10000001",
            ),
        ] {
            assert_eq!(config.check().expect_err("refused").to_string(), message);
        }
    }
}
