//! Generated data: tasks with a rule that says what is right, for trying everything without a file.
//!
//! A task draws problems, solves them, and judges any answer. From it come a corpus that is right with a known probability
//! (to start a model from), preference pairs and labelled completions that say that right is better, and prompts for methods
//! that learn from rewards: `task_reward` asks the rule, by the columns `task` and `problem` of a prompt.
//!
//! For the first two, holding the model within a budget bounds what they can do: a policy that moves the probability of
//! a right answer from `q` to `p` has a divergence of at least `p ln(p/q) + (1 − p) ln((1 − p)/(1 − q))` nats, and can
//! get near that where wrong answers keep their shares.
//!
//! Problems are told apart by their statement: one in five is only ever evaluated on.

mod arithmetic;
mod countdown;
mod formula;
mod knights;
mod largest;
mod parity;
mod puzzle;
mod sorting;
mod sudoku;

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use saddlepoint_core::seed::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::puzzle::{Problem, Puzzle};
use crate::{Error, Result};

/// Most records: they are all kept in memory.
const MOST: usize = 10_000_000;

/// What to generate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// The task.
    pub task: Task,
    /// How hard its problems are, from 1; what it counts, and up to where it goes, is said at the task.
    pub difficulty: u32,
    /// How problems are put.
    pub wording: Wording,
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
        Self {
            task: Task::Largest,
            difficulty: 1,
            wording: Wording::Terse,
            samples: 2000,
            eval_samples: 200,
            right: 0.5,
            noise: 0.03,
        }
    }
}

/// A task with a rule that says what is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// The largest of four digits: `4,9,2,7=` is continued by `9`. Difficulty 1.
    #[default]
    Largest,
    /// Sums, differences and products of digits: `3+4*2=`, `11`. Operations, up to 32.
    Arithmetic,
    /// A formula of given numbers with a given value: `3,7,2>8=`, `(7-3)*2`. Numbers less 2, up to 6.
    Countdown,
    /// Who tells the truth: `A:B-;B:A=C;C:B+>`, `A+B-C-`. People less 2, up to 6.
    KnightsAndKnaves,
    /// A grid of 4 by 4 with one way to fill it: `1.34/34.2/.143/4321=`, `1234/3412/2143/4321`. Empty cells, up to 10.
    Sudoku,
    /// Numbers in order: `31,7,22>`, `7,22,31`. Numbers less 2, up to 62.
    Sorting,
    /// Whether the number of ones is odd: `01101001=`, `0`. Four bits each beyond the first four, up to 31.
    Parity,
}

/// How problems are put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wording {
    /// As their statement, for a model that knows only the task.
    #[default]
    Terse,
    /// In English, as the first message of a conversation, for a model with a chat template.
    Chat,
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
        let hardest = self.task.puzzle().hardest();
        if !(1..=hardest).contains(&self.difficulty) {
            return refuse("difficulty", &format!("from 1 to {hardest} for this task"), &self.difficulty);
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

    /// The rule, where prompts are the problems that it reads.
    pub fn rule(&self) -> Option<Task> {
        (self.wording == Wording::Terse).then_some(self.task)
    }

    /// A corpus as JSONL of `prompt` and `completion`; the completion is right with probability `right`.
    pub fn corpus(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/corpus", |puzzle, rng| {
            let problem = puzzle.draw(self.difficulty, rng);
            let right = rng.random::<f64>() < self.right;
            let completion = if right { problem.solution.clone() } else { puzzle.slip(&problem, rng) };
            Some(json!({ "prompt": self.prompt(&problem), "completion": self.answer(completion) }))
        })
    }

    /// Pairs as JSONL of `prompt`, `chosen` and `rejected`: right is chosen, but for a share of `noise`. One
    /// prompt in five is only ever in the part for evaluation.
    pub fn pairs(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/pairs", |puzzle, rng| {
            let problem = puzzle.draw(self.difficulty, rng);
            if split != puzzle.part(&problem.statement) {
                return None;
            }
            let (right, wrong) = (problem.solution.clone(), puzzle.slip(&problem, rng));
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let (chosen, rejected) = if swap { (wrong, right) } else { (right, wrong) };
            let (chosen, rejected) = (self.answer(chosen), self.answer(rejected));
            Some(json!({ "prompt": self.prompt(&problem), "chosen": chosen, "rejected": rejected }))
        })
    }

    /// Pairs about long prompts as JSONL of `document`, `chunk`, `prompt`, `chosen` and `rejected`: the largest of twelve digits,
    /// which is among the four of the chunk. Preferences, noise and parts are those of pairs.
    ///
    /// # Errors
    /// The task is another one, or put as a conversation.
    pub fn long_pairs(&self, split: Split, seed: Seed) -> Result<String> {
        if self.rule() != Some(Task::Largest) {
            let problem = "must be \"largest\" in terse wording for pairs about long documents".to_owned();
            return Err(Error::Config { key: "data.generate.task".to_owned(), problem });
        }
        Ok(self.lines(split, seed, "data/generate/long-pairs", |puzzle, rng| {
            let problem = puzzle.draw(self.difficulty, rng);
            if split != puzzle.part(&problem.statement) {
                return None;
            }
            let (right, wrong) = (problem.solution.clone(), puzzle.slip(&problem, rng));
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let largest: u32 = problem.solution.parse().expect("a digit");
            let mut beside =
                || (0..4).map(|_| rng.random_range(0..=largest).to_string()).collect::<Vec<_>>().join(",");
            let chunk = problem.statement.trim_end_matches('=');
            let document = format!("{},{chunk},{}", beside(), beside());
            let (chosen, rejected) = if swap { (wrong, right) } else { (right, wrong) };
            Some(json!({ "document": document, "chunk": chunk, "prompt": "=", "chosen": chosen, "rejected": rejected }))
        }))
    }

    /// Completions as JSONL of `prompt`, `completion` and `label`: right with probability `right`, and the label says so, but
    /// for a share of `noise`. The prompts are divided as those of pairs.
    pub fn unpaired(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/unpaired", |puzzle, rng| {
            let problem = puzzle.draw(self.difficulty, rng);
            if split != puzzle.part(&problem.statement) {
                return None;
            }
            let right = rng.random::<f64>() < self.right;
            let completion = if right { problem.solution.clone() } else { puzzle.slip(&problem, rng) };
            let swap = split == Split::Train && rng.random::<f64>() < self.noise;
            let (completion, label) = (self.answer(completion), right != swap);
            Some(json!({ "prompt": self.prompt(&problem), "completion": completion, "label": label }))
        })
    }

    /// Prompts as JSONL of `prompt` and, for rewards, `task`, `problem` and `solution`. They are divided as those of pairs.
    pub fn prompts(&self, split: Split, seed: Seed) -> String {
        self.lines(split, seed, "data/generate/prompts", |puzzle, rng| {
            let problem = puzzle.draw(self.difficulty, rng);
            (split == puzzle.part(&problem.statement)).then(|| {
                json!({
                    "prompt": self.prompt(&problem),
                    "task": self.task,
                    "problem": problem.statement,
                    "solution": problem.solution,
                })
            })
        })
    }

    fn prompt(&self, problem: &Problem) -> Value {
        match self.wording {
            Wording::Terse => problem.statement.clone().into(),
            Wording::Chat => {
                let english = self.task.puzzle().english(&problem.statement).expect("just drawn");
                json!([{ "role": "user", "content": format!("{english} {MARK}") }])
            }
        }
    }

    fn answer(&self, text: String) -> Value {
        match self.wording {
            Wording::Terse => text.into(),
            Wording::Chat => json!([{ "role": "assistant", "content": format!("<answer>{text}</answer>") }]),
        }
    }

    fn lines(
        &self,
        split: Split,
        seed: Seed,
        name: &str,
        mut line: impl FnMut(&dyn Puzzle, &mut ChaCha8Rng) -> Option<Value>,
    ) -> String {
        let (count, part) = match split {
            Split::Train => (self.samples, 0),
            Split::Eval => (self.eval_samples, 1),
        };
        let mut rng = seed.stream(name, &[part]);
        let puzzle = self.task.puzzle();
        let mut text = String::new();
        for value in std::iter::repeat_with(|| line(puzzle, &mut rng)).flatten().take(count) {
            text.push_str(&value.to_string());
            text.push('\n');
        }
        text
    }
}

/// How an answer in a conversation is to be marked.
const MARK: &str = "Write the answer between <answer> and </answer>.";

impl Task {
    /// All tasks.
    pub const ALL: [Self; 7] = [
        Self::Largest,
        Self::Arithmetic,
        Self::Countdown,
        Self::KnightsAndKnaves,
        Self::Sudoku,
        Self::Sorting,
        Self::Parity,
    ];

    fn puzzle(self) -> &'static dyn Puzzle {
        match self {
            Self::Largest => &largest::Largest,
            Self::Arithmetic => &arithmetic::Arithmetic,
            Self::Countdown => &countdown::Countdown,
            Self::KnightsAndKnaves => &knights::Knights,
            Self::Sudoku => &sudoku::Sudoku,
            Self::Sorting => &sorting::Sorting,
            Self::Parity => &parity::Parity,
        }
    }

    /// Whether an answer to a problem is right; none where the statement is none of this task.
    pub fn judge(self, statement: &str, answer: &str) -> Option<bool> {
        self.puzzle().judge(statement, answer)
    }

    /// Whether `completion` is right after `prompt`, the statement of a problem.
    pub fn verify(self, prompt: &str, completion: &str) -> bool {
        self.judge(prompt, completion) == Some(true)
    }

    /// A `tokenizer.json` with one token a character, for a model that knows only this task.
    pub fn tokenizer_json(self) -> Vec<u8> {
        let specials = [END, UNKNOWN];
        let tokens =
            specials.into_iter().map(str::to_owned).chain(self.puzzle().alphabet().chars().map(String::from));
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
    fn every_task_solves_its_problems_and_sees_through_wrong_answers() {
        for task in Task::ALL {
            let puzzle = task.puzzle();
            let mut size = 0;
            for difficulty in (1..=puzzle.hardest()).filter(|d| *d <= 6 || *d == puzzle.hardest()) {
                let mut rng = Seed::new(5).stream("test/tasks", &[task as u64, u64::from(difficulty)]);
                let problems: Vec<Problem> = (0..50).map(|_| puzzle.draw(difficulty, &mut rng)).collect();
                for problem in &problems {
                    let Problem { statement, solution } = problem;
                    assert!(task.verify(statement, solution), "{task:?}: {statement}{solution}");
                    let wrong = puzzle.slip(problem, &mut rng);
                    assert_eq!(task.judge(statement, &wrong), Some(false), "{task:?}: {statement}{wrong}");
                    assert_eq!(task.judge(statement, ""), Some(false), "{task:?}: {statement}");
                    assert!(puzzle.english(statement).is_some(), "{task:?}: {statement}");
                    let known = |c: char| puzzle.alphabet().contains(c);
                    assert!(
                        format!("{statement}{solution}{wrong}").chars().all(known),
                        "{statement}{solution}{wrong}"
                    );
                }
                let sizes: Vec<usize> =
                    problems.iter().map(|problem| puzzle.size(&problem.statement)).collect();
                assert!(
                    sizes.iter().all(|each| *each == sizes[0] && *each > size),
                    "{task:?} {difficulty}: {sizes:?}"
                );
                size = sizes[0];
            }
        }
    }

    #[test]
    fn prompts_share_no_problem_between_the_parts_and_bring_what_the_rule_reads() {
        for task in Task::ALL {
            let config = GenerateConfig { task, samples: 200, eval_samples: 50, ..GenerateConfig::default() };
            let of = |split| parse(&config.prompts(split, Seed::new(1)));
            let (train, eval) = (of(Split::Train), of(Split::Eval));
            assert_eq!((train.len(), eval.len()), (200, 50));
            let problems = |lines: &[Value]| -> std::collections::BTreeSet<String> {
                lines.iter().map(|l| field(l, "problem").to_owned()).collect()
            };
            assert!(problems(&train).is_disjoint(&problems(&eval)), "{task:?}");
            for line in train.iter().chain(&eval) {
                let named: Task = serde_json::from_value(line["task"].clone()).expect("a task");
                assert!(named.verify(field(line, "problem"), field(line, "solution")), "{line}");
                assert_eq!(line["prompt"], line["problem"]);
            }
        }
    }

    #[test]
    fn a_problem_may_be_put_as_a_conversation() {
        let config = GenerateConfig {
            task: Task::Arithmetic,
            wording: Wording::Chat,
            samples: 1,
            right: 1.0,
            ..GenerateConfig::default()
        };
        assert_eq!(config.rule(), None);
        let line = &parse(&config.corpus(Split::Train, Seed::new(1)))[0];
        let (asked, said) = (&line["prompt"][0], &line["completion"][0]);
        assert_eq!((field(asked, "role"), field(said, "role")), ("user", "assistant"));
        let asked = field(asked, "content");
        let sum = asked
            .strip_prefix("What is ")
            .and_then(|rest| rest.split_once("? Write the answer"))
            .expect("a question")
            .0;
        let said = field(said, "content");
        let answer =
            said.strip_prefix("<answer>").and_then(|rest| rest.strip_suffix("</answer>")).expect("marked");
        assert!(Task::Arithmetic.verify(&format!("{sum}="), answer), "{asked} {said}");
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
                GenerateConfig { task: Task::Countdown, difficulty: 7, ..GenerateConfig::default() },
                "data.generate.difficulty: must be from 1 to 6 for this task, got 7",
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
