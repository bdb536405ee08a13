//! Film reviews (SST-2): a small model trained on the sentences continues their first words, and a classifier trained on
//! their labels judges what it says.
//!
//! The data are not part of the repository; where they are absent, so are the experiments on them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::reproduce::Observer;
use saddlepoint_core::seed::Seed;
use serde_json::json;

use super::base::Base;
use super::classifier::Classifier;
use crate::data::{Pair, Tokenizer};
use crate::engine::{Policy, Reference, Setup, Storage};
use crate::model::ModelFolder;
use crate::tether::TetherConfig;
use crate::trainer::{Asked, Drawn, Example, Sampling};
use crate::{Error, Result};

/// How large the model and its data are.
pub(super) struct Size {
    /// Words of the vocabulary; the others are one token.
    pub(super) words: usize,
    pub(super) width: usize,
    pub(super) base_steps: usize,
    /// Held-out beginnings on which a policy is judged.
    pub(super) prompts: usize,
}

/// Words of a beginning.
const BEGINNING: usize = 4;
/// Fewest words of a sentence that is learned or whose beginning is continued.
const SHORTEST: usize = 8;
/// Most tokens of a continuation.
const LONGEST: usize = 16;
/// Continuations of a held-out beginning.
const SAMPLES: usize = 2;
/// Ends a sentence.
const END: &str = "<|endoftext|>";
/// Stands for every word outside of the vocabulary.
const UNKNOWN: &str = "<|unknown|>";

/// The task with the model that experiments start from.
pub(super) struct Reviews {
    model: ModelFolder,
    end: u32,
    classifier: Classifier,
    /// Beginnings to train on, and held-out ones.
    beginnings: [Vec<Vec<u32>>; 2],
    /// Of each held-out sentence, 1 if the classifier is right about it and else 0.
    pub(super) right: Vec<f64>,
}

/// What a policy says after the held-out beginnings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    /// Mean probability that it is positive, the beginning included.
    pub(super) reward: f64,
    /// `KL(π || π₀)`, nats a continuation: the sequential reverse KL of the policy's own continuations.
    pub(super) divergence: f64,
}

impl Reviews {
    /// Reads `train.tsv` and `dev.tsv` of a folder, trains the classifier, and the model unless it is in `cache`.
    ///
    /// # Errors
    /// A file cannot be read or a line is not a label and a sentence; or those of [`Base::trained`].
    pub(super) fn open(data: &Path, cache: &Path, size: &Size, observer: Observer) -> Result<Self> {
        let [train, held_out] = ["train.tsv", "dev.tsv"].map(|name| read(&data.join(name)));
        let (train, held_out) = (train?, held_out?);
        let model = ModelFolder::open(&base(&train, size).trained(cache, observer)?)?;
        let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), model.tokenizer_json())?;
        let encoded = |sentences: &[Sentence]| -> Result<Vec<(Vec<u32>, bool)>> {
            sentences.iter().map(|each| Ok((tokenizer.encode(&each.text)?, each.positive))).collect()
        };
        let (train, held_out) = (encoded(&train)?, encoded(&held_out)?);
        let unknown = tokenizer.id(UNKNOWN).unwrap_or_default();
        let beginnings = [&train, &held_out].map(|sentences| {
            let long = sentences.iter().filter(|(ids, _)| ids.len() >= SHORTEST);
            let firsts = long.map(|(ids, _)| ids[..BEGINNING].to_vec());
            firsts.filter(|ids| !ids.contains(&unknown)).collect::<Vec<_>>()
        });
        for (beginnings, name) in beginnings.iter().zip(["train.tsv", "dev.tsv"]) {
            if beginnings.len() < 2 {
                return Err(malformed(&data.join(name), 1, "has no two sentences that are long enough"));
            }
        }
        observer(0, 1, "training the classifier");
        let classifier = Classifier::train(&train, Seed::new(0));
        let right = |(ids, positive): &(Vec<u32>, bool)| {
            if (classifier.positive(ids) > 0.5) == *positive { 1.0 } else { 0.0 }
        };
        let right = held_out.iter().map(right).collect();
        let [learned, mut judged] = beginnings;
        judged.truncate(size.prompts);
        Ok(Self { end: model.eos_ids()[0], model, classifier, beginnings: [learned, judged], right })
    }

    /// The model, with itself as the reference, for batches of up to `pairs` pairs.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(super) fn policy(&self, pairs: usize) -> Result<Policy> {
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::Copy,
            recompute: false,
            max_tokens: (BEGINNING + 2 * (LONGEST - 1)) * pairs,
            max_rows: 2 * LONGEST * pairs,
        };
        let mut policy = Policy::new(self.model.shape.clone(), setup)?;
        policy.load(self.model.source())?;
        Ok(policy)
    }

    /// Pairs of the model's own continuations of random beginnings, of those to train on or of those `held_out`; the one that
    /// the classifier finds more positive is chosen.
    ///
    /// # Errors
    /// The model cannot be read.
    pub(super) fn pairs(&self, count: usize, held_out: bool, seed: u64) -> Result<Vec<Example>> {
        let seed = Seed::new(seed);
        let mut rng = seed.stream("reproduce/reviews/pairs", &[u64::from(held_out)]);
        let policy = self.policy(1)?;
        let beginnings = &self.beginnings[usize::from(held_out)];
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let prompts: Vec<&[u32]> = (pairs.len()..count)
                .map(|_| beginnings[rng.random_range(0..beginnings.len())].as_slice())
                .collect();
            let drawn = self.sampling(2).draw(&policy, &prompts, Seed::new(rng.next_u64()))?;
            for both in drawn.chunks(2) {
                let prompt = prompts[both[0].prompt];
                let rewards = [0, 1].map(|i| self.reward(prompt, &both[i]));
                let best = match rewards[0].total_cmp(&rewards[1]) {
                    Ordering::Equal => continue,
                    Ordering::Less => 1,
                    Ordering::Greater => 0,
                };
                let [chosen, rejected] = [best, 1 - best].map(|i| both[i].ids.clone());
                pairs.push(Example::Pair(Pair { prompt: prompt.to_vec(), chosen, rejected }));
            }
        }
        Ok(pairs)
    }

    /// What a policy says; the same random numbers for every policy.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn said(&self, policy: &mut Policy, room: usize, seed: u64) -> Result<Said> {
        let prompts: Vec<&[u32]> = self.beginnings[1].iter().map(Vec::as_slice).collect();
        let seed = Seed::new(seed).stream("reproduce/reviews/said", &[]).next_u64();
        let mut sampling = self.sampling(SAMPLES);
        sampling.room = ((BEGINNING + 2 * (LONGEST - 1)) * room, 2 * LONGEST * room);
        let drawn = sampling.draw(policy, &prompts, Seed::new(seed))?;
        let reward = drawn.iter().map(|each| self.reward(prompts[each.prompt], each)).sum::<f64>();
        let asked: Vec<_> = prompts.iter().map(|&ids| Asked { ids, reference: ids }).collect();
        let measured = sampling.measure(policy, &asked, &drawn, &TetherConfig::default())?;
        Ok(Said { reward: reward / drawn.len() as f64, divergence: measured.mean })
    }

    fn sampling(&self, samples: usize) -> Sampling {
        Sampling { samples, max_new_tokens: LONGEST, stop: vec![self.end], room: (0, 0) }
    }

    /// Probability that a beginning with its continuation is positive.
    fn reward(&self, prompt: &[u32], said: &Drawn) -> f64 {
        let words = prompt.iter().chain(&said.ids).copied();
        self.classifier.positive(&words.filter(|&id| id != self.end).collect::<Vec<_>>())
    }
}

/// A line of a file.
struct Sentence {
    text: String,
    positive: bool,
}

fn read(path: &PathBuf) -> Result<Vec<Sentence>> {
    let text = std::fs::read_to_string(path).map_err(|source| {
        Error::from(saddlepoint_core::Error::Io { action: "read", path: path.clone(), source })
    })?;
    // The first line names the columns.
    let lines = text.lines().zip(1..).skip(1);
    lines
        .map(|(line, number)| {
            let (label, text) = line.split_once('\t').unwrap_or_default();
            if !matches!(label, "0" | "1") || text.trim().is_empty() {
                return Err(malformed(path, number, "expected 0 or 1, a tab and a sentence"));
            }
            Ok(Sentence { text: text.to_owned(), positive: label == "1" })
        })
        .collect()
}

fn malformed(path: &Path, line: usize, problem: &str) -> Error {
    Error::Data { path: path.to_owned(), line, column: 1, problem: problem.to_owned() }
}

/// The model of the sentences, and its tokenizer, which has a token for each of the most frequent words.
fn base(sentences: &[Sentence], size: &Size) -> Base {
    let Size { words, width, base_steps, .. } = size;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in sentences.iter().flat_map(|each| each.text.split_whitespace()) {
        *counts.entry(word).or_default() += 1;
    }
    let mut frequent: Vec<_> = counts.into_iter().collect();
    // Stable: words that are as frequent keep their order in the alphabet.
    frequent.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let tokens = [END, UNKNOWN].into_iter().chain(frequent.into_iter().map(|(word, _)| word));
    let vocab: BTreeMap<&str, usize> = tokens.take(words + 2).zip(0..).collect();
    let special = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, END), special(1, UNKNOWN)],
        "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN }
    });
    let config =
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "unk_token": UNKNOWN });
    let mut corpus = String::new();
    for each in sentences.iter().filter(|each| each.text.split_whitespace().count() >= SHORTEST) {
        corpus += &json!({ "text": each.text }).to_string();
        corpus.push('\n');
    }
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {width}, intermediate_size = {}, num_hidden_layers = 2, \
         num_attention_heads = 4, num_key_value_heads = 2, tokenizer = \"tokenizer.json\" }}\n\
         [data]\npath = \"corpus.jsonl\"\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 3e-3\n\
         [train]\nper_device_train_batch_size = 64\nmax_steps = {base_steps}\nlr_scheduler_type = \"cosine\"\n\
         warmup_steps = 50\nsave_total_limit = 1\nsample_prompts = 0\n",
        3 * width,
    );
    let files = vec![
        ("corpus.jsonl", corpus),
        ("tokenizer.json", tokenizer.to_string()),
        ("tokenizer_config.json", config.to_string()),
    ];
    Base { recipe, files }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    pub(in crate::reproduce) const TINY: Size = Size { words: 40, width: 32, base_steps: 80, prompts: 12 };

    /// Files as those of the task, of sentences made up by a rule: one word in them decides.
    pub(in crate::reproduce) fn made_up(folder: &Path) {
        let [good, bad] = [["fine", "great", "warm"], ["dull", "stale", "flat"]];
        for (name, count) in [("train.tsv", 600_usize), ("dev.tsv", 60)] {
            let line = |i: usize| {
                let who = ["film", "cast", "plot", "score", "end"][i % 5];
                let (label, words) = if (i / 5).is_multiple_of(2) { (1, good) } else { (0, bad) };
                format!("{label}\tto me the {who} of this one is {} and so on\n", words[(i / 10) % 3])
            };
            let text: String =
                std::iter::once("label\tsentence\n".to_owned()).chain((0..count).map(line)).collect();
            fs::write(folder.join(name), text).expect("writes");
        }
    }

    #[test]
    fn a_line_without_a_label_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        made_up(folder.path());
        let path = folder.path().join("dev.tsv");
        let lines = fs::read_to_string(&path).expect("reads") + "2\tneither\n";
        fs::write(&path, lines).expect("writes");
        let error = Reviews::open(folder.path(), folder.path(), &TINY, &mut |_, _, _| ());
        let message = error.map(drop).expect_err("refused").to_string();
        assert_eq!(message, format!("{}:62:1: expected 0 or 1, a tab and a sentence", path.display()));
    }

    #[test]
    fn the_more_positive_of_two_continuations_is_chosen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        made_up(folder.path());
        let task = Reviews::open(folder.path(), folder.path(), &TINY, &mut |_, _, _| ()).expect("opens");
        assert!(task.right.iter().all(|right| *right > 0.5), "one word decides");
        for example in task.pairs(20, true, 0).expect("pairs") {
            let Example::Pair(Pair { prompt, chosen, rejected }) = example else { panic!("a pair") };
            let [chosen, rejected] =
                [chosen, rejected].map(|ids| task.reward(&prompt, &Drawn { prompt: 0, ids, cut: false }));
            assert!(chosen > rejected);
        }
    }
}
