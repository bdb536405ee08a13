//! A task whose completions can all be enumerated: `4,9,2,7=` is continued by two of its digits, such as `97`.
//!
//! Every draw of two digits of the prompt is acceptable, and the model that experiments start from draws them evenly. A
//! gold reward prefers large digits, and preferences follow it by the model of Bradley and Terry. With the hundred
//! completions of two digits, entropy, divergence, expected reward and accuracy are sums, not samples.

use std::path::Path;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use saddlepoint_core::reproduce::Observer;
use saddlepoint_core::seed::Seed;
use serde_json::json;

use super::base::Base;
use crate::Result;
use crate::data::generate::Task;
use crate::data::{Pair, Supervised, Tokenizer};
use crate::engine::{
    Divergence, Forest, Policy, Readout, Reference, Row, Setup, Shape, Storage, Want, WeightSource,
};
use crate::model::{ModelFolder, Scored};
use crate::trainer::Example;

/// Digits of a prompt.
type Digits = [u32; 4];

/// Difference of the sum of the two digits that makes a preference e : 1.
const SCALE: f64 = 3.0;
/// Completions of two digits, `10 first + second`.
const COMPLETIONS: usize = 100;
/// Draws of two digits of a prompt.
const DRAWS: usize = 16;
/// Most tokens of a sample: two digits, the end, and one by which what does not end is seen.
pub(super) const LONGEST: usize = 4;

/// The model that draws evenly.
fn base(width: usize, steps: usize) -> Base {
    let mut rng = Seed::new(0).stream("reproduce/two-digits/corpus", &[]);
    let mut corpus = String::new();
    for _ in 0..64 * steps {
        let digits = draw(&mut rng);
        let completion = text(acceptable(digits, &mut rng));
        corpus += &json!({ "prompt": prompt(digits), "completion": completion }).to_string();
        corpus.push('\n');
    }
    let tokenizer = String::from_utf8(Task::Largest.tokenizer_json()).expect("JSON is UTF-8");
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {width}, intermediate_size = {}, num_hidden_layers = 2, \
         num_attention_heads = 4, num_key_value_heads = 2, tokenizer = \"tokenizer.json\" }}\n\
         [data]\npath = \"corpus.jsonl\"\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 3e-3\n\
         [train]\nper_device_train_batch_size = 64\nmax_steps = {steps}\nlr_scheduler_type = \"cosine\"\n\
         warmup_steps = 20\nsave_total_limit = 1\nsample_prompts = 0\n",
        3 * width,
    );
    let files = vec![
        ("corpus.jsonl", corpus),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", Task::Largest.tokenizer_config().to_string()),
    ];
    Base { recipe, files }
}

/// Which of the acceptable completions pairs are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// All, as often as the model draws them.
    All,
    /// Two different places of the prompt in their order: at most 6 of the 16 draws, whatever their gold reward.
    InOrder,
}

/// A completion as a method sees it: sums over its tokens, the end among them, in nats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// `ln π(y) − ln π₀(y)`.
    pub(super) log_ratio: f64,
    /// Sequential forward KL, `Σ_t KL(π₀(·|s_t) || π(·|s_t))`.
    pub(super) kl: f64,
}

/// The task with the model that experiments start from.
pub(super) struct TwoDigits {
    model: ModelFolder,
    tokenizer: Tokenizer,
    end: u32,
}

impl TwoDigits {
    /// Trains the model, of this width and for this many steps, unless it is in `cache`.
    ///
    /// # Errors
    /// As [`Base::trained`].
    pub(super) fn open(cache: &Path, width: usize, steps: usize, observer: Observer) -> Result<Self> {
        let model = ModelFolder::open(&base(width, steps).trained(cache, observer)?)?;
        let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), model.tokenizer_json())?;
        let end = model.eos_ids()[0];
        Ok(Self { model, tokenizer, end })
    }

    /// The model, with itself as a reference that [`Policy::follow`] moves, for batches of up to `pairs` pairs, with `samples`
    /// samples of at most [`LONGEST`] tokens after the prompt of each, and `prompts` prompts at once.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(super) fn policy(&self, pairs: usize, samples: usize, prompts: usize) -> Result<Policy> {
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::Moving,
            recompute: false,
            // A pair has a prompt of eight tokens and two completions of three; a prompt ten beginnings of one, or four
            // of one and sixteen of two.
            max_tokens: ((12 + samples * (LONGEST - 1)) * pairs).max(28 * prompts),
            max_rows: ((6 + samples * LONGEST) * pairs).max(110 * prompts),
        };
        let mut policy = Policy::new(self.model.shape.clone(), setup)?;
        policy.load(self.model.source())?;
        Ok(policy)
    }

    /// The token that ends a completion.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Pairs of different acceptable completions of random prompts, labelled by the gold reward.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(super) fn pairs(&self, count: usize, shown: Shown, seed: u64) -> Result<Vec<Example>> {
        let mut rng = Seed::new(seed).stream("reproduce/two-digits/pairs", &[]);
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let digits = draw(&mut rng);
            let [a, b] = std::array::from_fn(|_| match shown {
                Shown::All => acceptable(digits, &mut rng),
                Shown::InOrder => in_order(digits, &mut rng),
            });
            if held_out(digits) || a == b {
                continue;
            }
            let (chosen, rejected) = if rng.random::<f64>() < prefers(a, b) { (a, b) } else { (b, a) };
            let (chosen, rejected) = (self.completion(chosen)?, self.completion(rejected)?);
            pairs.push(Example::Pair(Pair { prompt: self.ids(&prompt(digits))?, chosen, rejected }));
        }
        Ok(pairs)
    }

    /// What an expert says after random prompts, see [`expert`].
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(super) fn demonstrations(&self, count: usize, seed: u64) -> Result<Vec<Example>> {
        let example = |(digits, said)| {
            let (prompt, completion) = (self.ids(&prompt(digits))?, self.completion(said)?);
            let supervised = [vec![false; prompt.len()], vec![true; completion.len()]].concat();
            Ok(Example::Supervised(Supervised { ids: [prompt, completion].concat(), supervised }))
        };
        by_expert(count, seed).into_iter().map(example).collect()
    }

    /// The model after `epochs` passes over [`demonstrations`](Self::demonstrations) in an order of `order`, unless it is in `cache`.
    ///
    /// # Errors
    /// As [`Base::trained`].
    pub(super) fn tuned(
        &self,
        cache: &Path,
        (count, seed): (usize, u64),
        tuning: Tuning,
        observer: Observer,
    ) -> Result<ModelFolder> {
        let Tuning { epochs, order, rate } = tuning;
        let line =
            |(digits, said)| json!({ "prompt": prompt(digits), "completion": text(said) }).to_string() + "\n";
        let corpus = by_expert(count, seed).into_iter().map(line).collect::<String>();
        let model = std::path::absolute(self.model.path());
        let model = model.unwrap_or_else(|_| self.model.path().to_owned());
        let recipe = format!(
            "[model]\npath = {}\n[data]\npath = \"corpus.jsonl\"\n\
             [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = {rate}\n\
             [train]\nseed = {order}\nper_device_train_batch_size = 32\nnum_train_epochs = {epochs}\n\
             save_total_limit = 1\nsample_prompts = 0\n",
            json!(model),
        );
        let base = Base { recipe, files: vec![("corpus.jsonl", corpus)] };
        ModelFolder::open(&base.trained(cache, observer)?)
    }

    /// `model` with `reference` as its reference, for rounds of `completions` completions to as many prompts or fewer, and
    /// [`distributions`](Self::distributions) after `prompts` prompts. A head for values starts at 0.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(super) fn held(
        model: &ModelFolder,
        readout: Readout,
        reference: &dyn WeightSource,
        completions: usize,
        prompts: usize,
    ) -> Result<Policy> {
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::Other,
            recompute: false,
            max_tokens: ((8 + LONGEST - 1) * completions).max(28 * prompts),
            max_rows: (LONGEST * completions).max(110 * prompts),
        };
        let mut policy = Policy::new(Shape { readout, ..model.shape.clone() }, setup)?;
        policy.load(&Scored { model, score: vec![0.0; model.shape.hidden] })?;
        policy.load_reference(&model.shape, reference)?;
        Ok(policy)
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(super) fn asked(&self, digits: Digits) -> Result<Vec<u32>> {
        self.ids(&prompt(digits))
    }

    /// The gold reward of a completion as tokens; what is not acceptable has none.
    pub(super) fn worth(&self, digits: Digits, completion: &[u32]) -> f64 {
        let said = (0..COMPLETIONS).find(|&y| self.completion(y).is_ok_and(|ids| ids == completion));
        said.filter(|&y| is_acceptable(digits, y)).map_or(0.0, reward)
    }

    /// The tokens of a completion, the end among them.
    fn completion(&self, completion: usize) -> Result<Vec<u32>> {
        let mut ids = self.ids(&text(completion))?;
        ids.push(self.end);
        Ok(ids)
    }

    /// Prompts that no pair has, of at least two different digits.
    pub(super) fn prompts(count: usize, seed: u64) -> Vec<Digits> {
        let mut rng = Seed::new(seed).stream("reproduce/two-digits/prompts", &[]);
        std::iter::repeat_with(|| draw(&mut rng))
            .filter(|&d| held_out(d) && d != [d[0]; 4])
            .take(count)
            .collect()
    }

    /// For each prompt the probability of every completion of two digits, and in one further place of anything else.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn distributions(&self, policy: &mut Policy, prompts: &[Digits]) -> Result<Vec<Vec<f64>>> {
        let mut forest = Forest::default();
        let digits = self.ids("0123456789")?;
        for &each in prompts {
            let root = forest.root(&self.ids(&prompt(each))?);
            let last = forest.segments[root].tokens.end - 1;
            for &first in &digits {
                forest.rows.push(Row { at: last, target: first });
                let child = forest.child(root, &[first]);
                let at = forest.segments[child].tokens.start;
                forest.rows.extend(digits.iter().map(|&target| Row { at, target }));
            }
        }
        let logp = policy.evaluate(&forest, Want::default())?.logp;
        Ok(logp
            .chunks_exact(11 * digits.len())
            .map(|rows| {
                let mut p: Vec<f64> = rows
                    .chunks_exact(11)
                    .flat_map(|rows| rows[1..].iter().map(|second| (rows[0] + second).exp()))
                    .collect();
                p.push((1.0 - p.iter().sum::<f64>()).max(0.0));
                p
            })
            .collect())
    }

    /// For each prompt its [`draws`] under the policy and its reference.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub(super) fn seen(&self, policy: &mut Policy, prompts: &[Digits]) -> Result<Vec<[Seen; DRAWS]>> {
        let mut forest = Forest::default();
        for &each in prompts {
            let root = forest.root(&self.ids(&prompt(each))?);
            let digits = self.ids(&each.map(|digit| digit.to_string()).concat())?;
            let last = forest.segments[root].tokens.end - 1;
            for &first in &digits {
                let one = forest.child(root, &[first]);
                for &second in &digits {
                    let two = forest.child(one, &[second]);
                    let [after_one, after_two] = [one, two].map(|each| forest.segments[each].tokens.start);
                    forest.rows.push(Row { at: last, target: first });
                    forest.rows.push(Row { at: after_one, target: second });
                    forest.rows.push(Row { at: after_two, target: self.end });
                }
            }
        }
        let want = Want { ref_logp: true, divergence: Some(Divergence::ForwardKl), ..Want::default() };
        let stats = policy.evaluate(&forest, want)?;
        let sum = |values: &[f64], draw: usize| values[3 * draw..][..3].iter().sum::<f64>();
        Ok((0..prompts.len())
            .map(|i| {
                std::array::from_fn(|draw| {
                    let draw = DRAWS * i + draw;
                    Seen {
                        log_ratio: sum(&stats.logp, draw) - sum(&stats.ref_logp, draw),
                        kl: sum(&stats.divergence, draw),
                    }
                })
            })
            .collect())
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }
}

/// How a model is fine-tuned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    /// Passes over the demonstrations.
    pub(super) epochs: usize,
    /// Decides the order of the demonstrations.
    pub(super) order: u64,
    /// Learning rate.
    pub(super) rate: f64,
}

/// Random prompts, not those of [`TwoDigits::prompts`].
pub(super) fn to_learn(count: usize, seed: u64) -> Vec<Digits> {
    let mut rng = Seed::new(seed).stream("reproduce/two-digits/to-learn", &[]);
    std::iter::repeat_with(|| draw(&mut rng)).filter(|&digits| !held_out(digits)).take(count).collect()
}

/// Random prompts with what an expert says, see [`expert`].
fn by_expert(count: usize, seed: u64) -> Vec<(Digits, usize)> {
    let mut rng = Seed::new(seed).stream("reproduce/two-digits/demonstrations", &[]);
    let mut said = Vec::with_capacity(count);
    while said.len() < count {
        let digits = draw(&mut rng);
        if held_out(digits) {
            continue;
        }
        let mut left: f64 = rng.random();
        let p = expert(digits);
        let drawn = (0..COMPLETIONS).find(|&y| {
            left -= p[y];
            left < 0.0
        });
        // Rounding may leave a rest.
        said.push((digits, drawn.unwrap_or(draws(digits)[0])));
    }
    said
}

/// Expected gold reward of a distribution after a prompt; what is not acceptable has none.
pub(super) fn expected_reward(digits: Digits, p: &[f64]) -> f64 {
    (0..COMPLETIONS).filter(|&y| is_acceptable(digits, y)).map(|y| p[y] * reward(y)).sum()
}

/// Probability of what is not acceptable.
pub(super) fn unacceptable(digits: Digits, p: &[f64]) -> f64 {
    1.0 - (0..COMPLETIONS).filter(|&y| is_acceptable(digits, y)).map(|y| p[y]).sum::<f64>()
}

/// Entropy of a distribution, nats.
pub(super) fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

/// The completions that the corpus draws from, two digits of the prompt each, as often as they are drawn.
pub(super) fn draws(digits: Digits) -> [usize; DRAWS] {
    std::array::from_fn(|draw| (10 * digits[draw / 4] + digits[draw % 4]) as usize)
}

/// The distribution of an expert's completions: the draws of the corpus, tilted by the exponential of the gold reward.
pub(super) fn expert(digits: Digits) -> [f64; COMPLETIONS] {
    let mut p = [0.0; COMPLETIONS];
    for y in draws(digits) {
        p[y] += reward(y).exp();
    }
    let sum: f64 = p.iter().sum();
    p.map(|p| p / sum)
}

/// How often an implicit reward of each of the [`draws`] orders two of them as the gold reward does, where that has a
/// preference: reward accuracy.
pub(super) fn accuracy(digits: Digits, implicit: [f64; DRAWS]) -> f64 {
    let gold = draws(digits).map(reward);
    let (mut right, mut all) = (0.0, 0.0);
    for a in 0..DRAWS {
        for b in (0..DRAWS).filter(|&b| gold[a] > gold[b]) {
            right += if implicit[a] > implicit[b] { 1.0 } else { 0.0 };
            all += 1.0;
        }
    }
    right / all
}

/// Means of a value of each of the [`draws`] over the chosen and over the rejected completions of all pairs that a prompt
/// gives, see [`TwoDigits::pairs`].
pub(super) fn over_pairs(digits: Digits, values: [f64; DRAWS]) -> [f64; 2] {
    let completions = draws(digits);
    let (mut sums, mut all) = ([0.0; 2], 0.0);
    for (a, value) in completions.into_iter().zip(values) {
        for b in completions.into_iter().filter(|&b| b != a) {
            let chosen = prefers(a, b);
            sums[0] += chosen * value;
            sums[1] += (1.0 - chosen) * value;
            all += 0.5;
        }
    }
    sums.map(|sum| sum / all)
}

/// Probability that `a` is chosen over `b`, by the model of Bradley and Terry.
fn prefers(a: usize, b: usize) -> f64 {
    1.0 / (1.0 + (reward(b) - reward(a)).exp())
}

fn reward(completion: usize) -> f64 {
    (completion / 10 + completion % 10) as f64 / SCALE
}

fn is_acceptable(digits: Digits, completion: usize) -> bool {
    [completion / 10, completion % 10].iter().all(|&digit| digits.contains(&(digit as u32)))
}

fn draw(rng: &mut ChaCha8Rng) -> Digits {
    std::array::from_fn(|_| rng.random_range(0..10))
}

/// The digits of two different places of the prompt, in the order of the prompt.
fn in_order(digits: Digits, rng: &mut ChaCha8Rng) -> usize {
    let (a, b) = (rng.random_range(0..4), rng.random_range(0..3));
    let (a, b) = if b < a { (b, a) } else { (a, b + 1) };
    (10 * digits[a] + digits[b]) as usize
}

/// Two digits of the prompt, each drawn evenly.
fn acceptable(digits: Digits, rng: &mut ChaCha8Rng) -> usize {
    let [a, b] = std::array::from_fn(|_| digits[rng.random_range(0..4)]);
    (10 * a + b) as usize
}

/// One prompt in five, by a rule that looks at all of its digits; all those of one digit are among them.
fn held_out(digits: Digits) -> bool {
    let place: u32 = digits.iter().zip(1..).map(|(digit, weight)| digit * weight).sum();
    place.is_multiple_of(5)
}

fn prompt([a, b, c, d]: Digits) -> String {
    format!("{a},{b},{c},{d}=")
}

fn text(completion: usize) -> String {
    format!("{completion:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_the_completions_are_those_by_hand() {
        let mut even = vec![0.0; COMPLETIONS + 1];
        for completion in [11, 13, 31, 33] {
            even[completion] = 0.25;
        }
        assert!((entropy(&even) - 4.0_f64.ln()).abs() < 1e-15);
        // 2/3, 4/3, 4/3 and 6/3.
        assert!((expected_reward([1, 3, 1, 3], &even) - 4.0 / 3.0).abs() < 1e-12);
        assert!(expected_reward([1, 1, 2, 2], &even) < 0.17, "with a 3 it is not acceptable");
        let implicit = draws([1, 3, 1, 3]).map(|y| y as f64);
        assert!((accuracy([1, 3, 1, 3], implicit) - 1.0).abs() < 1e-15);
        assert!(accuracy([1, 3, 1, 3], implicit.map(|r| -r)).abs() < 1e-15);
    }

    #[test]
    fn means_over_pairs_are_those_by_hand() {
        // Of 1,1,1,3 the draws are 9 times 11, 3 times 13, 3 times 31, once 33; 11 against 13 or 31 is preferred with
        // probability s = sigmoid(-2/3), as are 13 and 31 against 33, and 11 against 33 with t = sigmoid(-4/3).
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let (s, t) = (sigmoid(-2.0 / 3.0), sigmoid(-4.0 / 3.0));
        let of_11 = draws([1, 1, 1, 3]).map(|y| if y == 11 { 1.0 } else { 0.0 });
        // Unordered pairs: 54 of 11 with 13 or 31, 9 of 11 with 33, 9 of 13 with 31, 6 of 13 or 31 with 33.
        let [chosen, rejected] = over_pairs([1, 1, 1, 3], of_11);
        assert!((chosen - (54.0 * s + 9.0 * t) / 78.0).abs() < 1e-12);
        assert!((rejected - (54.0 * (1.0 - s) + 9.0 * (1.0 - t)) / 78.0).abs() < 1e-12);
    }

    #[test]
    fn prompts_for_evaluation_are_kept_out_of_the_pairs() {
        let prompts = TwoDigits::prompts(50, 1);
        assert!(prompts.iter().all(|&digits| held_out(digits) && digits.iter().any(|d| *d != digits[0])));
        assert_ne!(prompts, TwoDigits::prompts(50, 2));
    }
}
