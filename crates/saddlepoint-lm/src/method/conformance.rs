//! What every method in the list has to satisfy.

use rand::RngExt;
use saddlepoint_core::seed::Seed;
use serde::Deserialize;

use super::grpo::{GrpoConfig, Level, LossType};
use super::implicit_reward::{ImplicitRewardConfig, ValueMode};
use super::kdrl::{KdrlConfig, KlEstimator, Mask, Mode, Normalizer};
use super::*;

const SEQUENCES: usize = 8;
/// Samples of each prompt.
const SAMPLES: usize = 3;

/// A statistic and its cotangent.
type Pick = (fn(&mut Stats) -> &mut Vec<f64>, fn(&Cotangent) -> &Vec<f64>);

/// Sequences with their labels, samples and statistics.
struct Batch {
    sequences: Vec<Range<usize>>,
    labels: Vec<bool>,
    /// The last row of each, where a score is.
    scored: Vec<Range<usize>>,
    /// Of the pairs.
    margins: Vec<f64>,
    /// The rest of each pair's chosen sequence.
    contexts: Vec<Range<usize>>,
    /// After the prompt of each pair.
    samples: Vec<Completions>,
    /// What is known of each sequence as a completion of the policy's own: log-probabilities when it was sampled, its advantage, and
    /// what its tokens are worth.
    judged: Vec<(Vec<f64>, Option<f64>, Credit)>,
    stats: Stats,
}

/// Nats; every method that reads it gets the same.
const MISMATCHED: f64 = 0.3;

impl Batch {
    /// The sequences as completions of the policy's own, two of a prompt.
    fn judged(&self) -> Vec<Judged<'_>> {
        let mut judged = Vec::new();
        for (i, (old_logp, advantage, credit)) in self.judged.iter().enumerate() {
            let reward = advantage.map(|a| f64::from(a > 0.0));
            judged.push(Judged {
                old_logp,
                advantage: *advantage,
                credit: Some(credit),
                reward,
                group: i / 2,
            });
        }
        judged
    }

    /// What `method` sees: no samples if it asks for none, contexts only of long pairs, and `judged` only if it is on-policy.
    fn view<'a>(&'a self, method: &dyn Method, judged: &'a [Judged<'a>], beta: Option<f64>) -> View<'a> {
        let mut norm = norm(&self.sequences, &self.labels);
        let rollout = method.on_policy().map(|_| {
            let learned =
                |(rows, judged): (&Range<usize>, &Judged)| judged.advantage.map_or(0, |_| rows.len());
            norm.tokens = self.sequences.iter().zip(judged).map(learned).sum();
            let tokens_a_step = 0.8 * norm.tokens as f64;
            Rollout { completions: judged, max_completion_length: 6, step: 30, tokens_a_step }
        });
        let samples = if method.samples().is_some() { &self.samples[..] } else { &[] };
        let contexts = if method.meta().input == Input::LongPairs { &self.contexts[..] } else { &[] };
        let scored = method.meta().input == Input::ScoredPairs;
        let (sequences, margins) =
            if scored { (&self.scored, &self.margins[..]) } else { (&self.sequences, &[][..]) };
        let (labels, stats) = (&self.labels, &self.stats);
        View {
            sequences,
            labels,
            margins,
            contexts,
            stats,
            norm,
            beta,
            mismatched: MISMATCHED,
            samples,
            rollout,
        }
    }
}

fn batch() -> Batch {
    let mut rng = Seed::new(7).stream("method/conformance", &[]);
    let mut sequences = Vec::new();
    let mut stats = Stats::default();
    for _ in 0..SEQUENCES + SEQUENCES / 2 * (SAMPLES + 1) {
        let from = stats.logp.len();
        for _ in 0..rng.random_range(1..6) {
            stats.logp.push(-rng.random_range(0.0..3.0));
            stats.ref_logp.push(-rng.random_range(0.0..3.0));
            stats.entropy.push(rng.random_range(0.0..2.0));
            stats.divergence.push(rng.random_range(0.0..1.0));
            stats.top1.push(rng.random());
            stats.score.push(rng.random_range(-2.0..2.0));
        }
        sequences.push(from..stats.logp.len());
    }
    let mut drawn = sequences.split_off(SEQUENCES);
    let contexts = drawn.split_off(SEQUENCES / 2 * SAMPLES);
    let labels = sequences.iter().map(|_| rng.random()).collect();
    let group = |rows: &[Range<usize>]| Completions { sequences: rows.to_vec(), truncated: rows.len() % 2 };
    let mut judge = |rows: &Range<usize>| {
        let old = stats.logp[rows.clone()].iter().map(|logp| logp + rng.random_range(-0.4..0.4)).collect();
        let advantage = (rows.start > 4).then(|| rng.random_range(-2.0..2.0));
        let mut moved = |by: f64| -> Vec<f64> {
            stats.score[rows.clone()].iter().map(|score| score + rng.random_range(-by..by)).collect()
        };
        let credit = Credit { values: moved(0.4), advantages: moved(2.0), returns: moved(1.0) };
        (old, advantage, credit)
    };
    let judged = sequences.iter().map(&mut judge).collect();
    let samples = drawn.chunks(SAMPLES).map(group).collect();
    let scored = sequences.iter().map(|rows| rows.end - 1..rows.end).collect();
    let margins = (0..SEQUENCES / 2).map(|i| 0.2 * i as f64).collect();
    Batch { sequences, labels, scored, margins, contexts, samples, judged, stats }
}

fn norm(sequences: &[Range<usize>], labels: &[bool]) -> Norm {
    let tokens = sequences.iter().map(ExactSizeIterator::len).sum();
    let desirable = labels.iter().filter(|label| **label).count();
    Norm { tokens, sequences: sequences.len(), pairs: sequences.len() / 2, desirable }
}

/// The default settings of every method, and those under which a method couples its sequences.
fn settings() -> Vec<MethodConfig> {
    let coupled = ImplicitRewardConfig { v_mode: ValueMode::BatchMean, ..ImplicitRewardConfig::default() };
    let grpo = |loss_type, importance_sampling_level, use_bias_correction_kl| {
        let loss = GrpoConfig {
            loss_type,
            importance_sampling_level,
            use_bias_correction_kl,
            ..GrpoConfig::default()
        };
        MethodConfig::Grpo(GrpoConfig { beta: 0.3, epsilon_high: Some(0.28), ..loss })
    };
    let kdrl = |kl_estimator, mask| {
        MethodConfig::Kdrl(KdrlConfig {
            beta_init: 0.3,
            beta_min: 0.1,
            kl_estimator,
            mask,
            ..KdrlConfig::default()
        })
    };
    let sequential = KdrlConfig { mode: Mode::Sequential, kd_steps: Some(31), ..KdrlConfig::default() };
    let kept = KdrlConfig { mask: Mask::Response, mask_normalizer: Normalizer::Kept, ..sequential.clone() };
    let others = vec![
        kdrl(KlEstimator::K3, Mask::Response),
        kdrl(KlEstimator::Full, Mask::None),
        MethodConfig::Kdrl(sequential),
        MethodConfig::Kdrl(kept),
        MethodConfig::ImplicitReward(coupled),
        grpo(LossType::Grpo, Level::Token, true),
        grpo(LossType::Bnpo, Level::Sequence, true),
        grpo(LossType::DrGrpo, Level::Sequence, false),
    ];
    [MethodConfig::defaults(), others].concat()
}

fn value(method: &dyn Method, view: &View) -> f64 {
    let means = method.loss(view, &mut Cotangent::default()).means(view.norm);
    means.iter().find(|(name, _)| *name == "loss").expect("every method reports its loss").1
}

#[test]
fn the_cotangent_is_the_derivative_of_the_loss() {
    let batch = batch();
    for config in settings() {
        let method = config.build().expect("defaults are valid");
        assert!(method.samples().is_none() || method.meta().input == Input::Pairs);
        assert_eq!(method.on_policy().is_some(), method.meta().input == Input::Prompts);
        for beta in [None, method.beta().map(|beta| 7.0 * beta)] {
            let mut out = Cotangent::default();
            let judged = batch.judged();
            let view = batch.view(&*method, &judged, beta);
            method.loss(&view, &mut out);
            let statistics: [Pick; 4] = [
                (|s| &mut s.logp, |c| &c.logp),
                (|s| &mut s.entropy, |c| &c.entropy),
                (|s| &mut s.divergence, |c| &c.divergence),
                (|s| &mut s.score, |c| &c.score),
            ];
            for (i, (statistic, cotangent)) in statistics.into_iter().enumerate() {
                let by_divergence = i == 2;
                // On samples a derivative is a score, which no value has: the methods' own tests check those.
                let scored =
                    |row: &usize| view.samples.iter().flat_map(|s| &s.sequences).any(|r| r.contains(row));
                for row in (0..batch.stats.logp.len()).filter(|row| !scored(row)) {
                    let at = |step: f64| {
                        let mut stats = batch.stats.clone();
                        statistic(&mut stats)[row] += step;
                        value(&*method, &View { stats: &stats, ..view })
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let exact = cotangent(&out).get(row).copied().unwrap_or(0.0);
                    let name = method.meta().name;
                    // The one statistic whose derivative a method drops: the KL of the chosen completion.
                    let chosen = batch.sequences.iter().step_by(2).any(|rows| rows.contains(&row));
                    let numeric = if name == "tdpo" && by_divergence && chosen { 0.0 } else { numeric };
                    assert!((numeric - exact).abs() < 1e-8, "{name}, row {row}: {exact} against {numeric}");
                }
            }
        }
    }
}

#[test]
fn one_batch_of_eight_is_eight_of_one() {
    let batch = batch();
    let judged = batch.judged();
    for config in settings() {
        let method = config.build().expect("defaults are valid");
        let pairs = [Input::Pairs, Input::ScoredPairs, Input::LongPairs];
        let size = if pairs.contains(&method.meta().input) { 2 } else { 1 };
        let mut whole = Cotangent::default();
        let view = batch.view(&*method, &judged, None);
        let norm = view.norm;
        let all = method.loss(&view, &mut whole);
        let (mut parts, mut merged) = (Cotangent::default(), Sums::default());
        let cut = view.sequences.chunks(size).zip(batch.labels.chunks(size));
        for (i, (sequences, labels)) in cut.enumerate() {
            let samples = view.samples.chunks(1).nth(i).unwrap_or_default();
            let contexts = view.contexts.chunks(1).nth(i).unwrap_or_default();
            let rollout = view.rollout.map(|whole| Rollout { completions: &judged[i..=i], ..whole });
            let margins = view.margins.chunks(1).nth(i).unwrap_or_default();
            let part = View { sequences, labels, margins, contexts, samples, rollout, ..view };
            merged.merge(&method.loss(&part, &mut parts));
        }
        if method.couples() {
            assert_ne!(whole, parts, "{} says that parts do not add up", method.meta().name);
            continue;
        }
        assert_eq!(whole, parts, "{}", method.meta().name);
        assert_eq!(all.means(norm).len(), merged.means(norm).len());
        for ((name, a), (other, b)) in all.means(norm).into_iter().zip(merged.means(norm)) {
            assert!(name == other && (a - b).abs() <= 1e-12 * a.abs().max(1.0), "{name}: {a} against {b}");
        }
    }
}

#[test]
fn a_method_is_named_in_a_recipe_as_in_the_table() {
    for (config, meta) in MethodConfig::defaults().into_iter().zip(list()) {
        let text = toml::to_string(&config).expect("serialises");
        assert!(text.contains(&format!("name = \"{}\"", meta.name)), "{text}");
        assert_eq!(toml::from_str::<MethodConfig>(&text).expect("parses"), config);
        assert_eq!(config.meta(), meta);
        assert_eq!(config.build().expect("defaults are valid").meta(), meta);
        assert!(meta.learning_rate > 0.0 && !meta.summary.is_empty());
    }
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

/// Statistics of a peer's model, sequence by sequence, and what the peer made of them.
#[derive(Deserialize)]
struct Case {
    config: serde_json::Value,
    metrics: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    logp: Vec<Vec<f64>>,
    /// Scores of sequences, and how far apart those of each pair are asked to be; the rest is empty then.
    #[serde(default)]
    score: Vec<Vec<f64>>,
    #[serde(default)]
    margins: Vec<f64>,
    #[serde(default)]
    entropy: Vec<Vec<f64>>,
    #[serde(default)]
    ref_logp: Vec<Vec<f64>>,
    #[serde(default)]
    divergence: Vec<Vec<f64>>,
    #[serde(default)]
    top1: Vec<Vec<bool>>,
    #[serde(default)]
    labels: Vec<bool>,
    #[serde(default)]
    mismatched: f64,
    /// The samples after each prompt; their statistics follow those of the pairs.
    #[serde(default)]
    samples: Vec<usize>,
    /// How many of the last sequences are the rest of a pair's chosen one.
    #[serde(default)]
    contexts: usize,
    /// Of completions of the policy's own: log-probabilities when they were sampled, rewards (null: none) in groups of `each`,
    /// sums of their log-ratios to the reference, what was cut and is masked.
    #[serde(default)]
    old_logp: Vec<Vec<f64>>,
    #[serde(default)]
    rewards: Vec<Option<f64>>,
    #[serde(default)]
    each: usize,
    #[serde(default)]
    kl: Option<Vec<f64>>,
    /// Of their tokens: values when they were sampled, advantages and returns that the peer makes of them.
    #[serde(default)]
    old_values: Vec<Vec<f64>>,
    #[serde(default)]
    token_advantages: Vec<Vec<f64>>,
    #[serde(default)]
    returns: Vec<Vec<f64>>,
    #[serde(default)]
    masked: Vec<usize>,
    #[serde(default)]
    max_completion_length: usize,
    /// Optimizer steps done before.
    #[serde(default)]
    step: u64,
    /// What the peer makes of the rewards.
    #[serde(default)]
    advantages: Vec<f64>,
    /// The derivatives of the whole loss by `logp` and by `score`.
    #[serde(default)]
    cotangent: Vec<Vec<f64>>,
    #[serde(default)]
    score_cotangent: Vec<Vec<f64>>,
}

#[test]
fn losses_and_metrics_agree_with_the_peer() {
    for meta in list() {
        let file = format!("{}/tests/golden/{}.json", env!("CARGO_MANIFEST_DIR"), meta.name);
        let text = std::fs::read_to_string(&file).expect("every method has a golden file");
        let golden: Golden = serde_json::from_str(&text).expect("golden file");
        assert!(!golden.cases.is_empty());
        for case in golden.cases {
            let config: MethodConfig =
                serde_json::from_value(case.config.clone()).expect("settings of a method");
            assert_eq!(config.meta(), meta);
            let mut sequences = Vec::new();
            for rows in if case.logp.is_empty() { &case.score } else { &case.logp } {
                let from = sequences.last().map_or(0, |last: &Range<usize>| last.end);
                sequences.push(from..from + rows.len());
            }
            let stats = Stats {
                logp: case.logp.concat(),
                entropy: case.entropy.concat(),
                ref_logp: case.ref_logp.concat(),
                divergence: case.divergence.concat(),
                top1: case.top1.concat(),
                score: case.score.concat(),
                ..Stats::default()
            };
            let contexts = sequences.split_off(sequences.len() - case.contexts);
            let mut drawn =
                sequences.split_off(sequences.len() - case.samples.iter().sum::<usize>()).into_iter();
            let group =
                |&count| Completions { sequences: drawn.by_ref().take(count).collect(), truncated: 0 };
            let samples: Vec<Completions> = case.samples.iter().map(group).collect();
            let (labels, mismatched) = (&case.labels, case.mismatched);
            let mut norm = norm(&sequences, labels);
            let method = config.build().expect("valid");
            let credit = credit(&*method, &case);
            let advantages = if credit.is_empty() {
                advantages(&*method, &case)
            } else {
                credit.iter().map(|credit| credit.as_ref().map(Credit::mean)).collect()
            };
            let judged: Vec<Judged> = case
                .old_logp
                .iter()
                .enumerate()
                .map(|(i, old_logp)| {
                    let (advantage, reward) = (advantages[i], case.rewards[i]);
                    let credit = credit.get(i).and_then(Option::as_ref);
                    Judged { old_logp, advantage, credit, reward, group: i / case.each }
                })
                .collect();
            let rollout = method.on_policy().map(|_| {
                let learned = judged.iter().filter(|judged| judged.advantage.is_some());
                norm.tokens = learned.map(|judged| judged.old_logp.len()).sum();
                let (max_completion_length, tokens_a_step) = (case.max_completion_length, norm.tokens as f64);
                Rollout { completions: &judged, max_completion_length, step: case.step, tokens_a_step }
            });
            let view = View {
                sequences: &sequences,
                labels,
                margins: &case.margins,
                contexts: &contexts,
                stats: &stats,
                norm,
                beta: None,
                mismatched,
                samples: &samples,
                rollout,
            };
            let mut out = Cotangent::default();
            let means = method.loss(&view, &mut out).means(norm);
            let derivatives =
                [(&out.logp, case.cotangent.concat()), (&out.score, case.score_cotangent.concat())];
            for (got, expected) in derivatives.iter().flat_map(|(got, expected)| got.iter().zip(expected)) {
                assert!((got - expected).abs() < 1e-12, "{config:?}: {got} against {expected}");
            }
            assert!(case.metrics.contains_key("loss"));
            for (name, expected) in case.metrics {
                let expected = expected.as_f64().expect("a number");
                let got = means.iter().find(|(known, _)| *known == name).expect("a metric of the peer's").1;
                let error = (got - expected).abs() / expected.abs().max(1.0);
                // TRL's head is f32.
                assert!(error < 1e-5, "{config:?} {name}: {got} against {expected}");
            }
        }
    }
}

/// What a method on rewards makes of those of a case, compared with what the peer does; then nothing of what is masked.
fn advantages(method: &dyn Method, case: &Case) -> Vec<Option<f64>> {
    if method.on_policy().is_none() {
        return Vec::new();
    }
    let groups: Vec<Range<usize>> =
        (0..case.rewards.len()).step_by(case.each).map(|at| at..at + case.each).collect();
    let (rewards, kl) = (&case.rewards, case.kl.as_deref());
    let mut got = method.advantages(&Rewarded { kl, ..Rewarded::new(&groups, rewards) });
    for (got, expected) in got.iter().zip(&case.advantages) {
        // The peer gives 0 to what has no reward.
        assert!(
            (got.unwrap_or(0.0) - expected).abs() < 1e-12,
            "{:?}: {got:?} against {expected}",
            case.config
        );
    }
    case.masked.iter().for_each(|&i| got[i] = None);
    got
}

/// What a method that learns values makes of the tokens of a case, compared with what the peer does; nothing of other methods.
fn credit(method: &dyn Method, case: &Case) -> Vec<Option<Credit>> {
    if method.readout() != Readout::Both {
        return Vec::new();
    }
    let groups: Vec<Range<usize>> = (0..case.rewards.len()).map(|at| at..at + 1).collect();
    let log_ratios: Vec<Vec<f64>> = case
        .old_logp
        .iter()
        .zip(&case.ref_logp)
        .map(|(old, reference)| old.iter().zip(reference).map(|(p, q)| p - q).collect())
        .collect();
    let rewarded = Rewarded {
        log_ratios: Some(&log_ratios),
        values: &case.old_values,
        ..Rewarded::new(&groups, &case.rewards)
    };
    let got = method.credit(&rewarded);
    for (i, credit) in got.iter().enumerate() {
        let Some(credit) = credit else {
            assert!(case.rewards[i].is_none());
            continue;
        };
        let both = [(&credit.advantages, &case.token_advantages[i]), (&credit.returns, &case.returns[i])];
        for (got, expected) in both.iter().flat_map(|(got, expected)| got.iter().zip(*expected)) {
            assert!((got - expected).abs() < 1e-12, "{:?}: {got} against {expected}", case.config);
        }
    }
    got
}

#[test]
fn unknown_settings_are_refused() {
    let error =
        toml::from_str::<MethodConfig>("name = \"dpo\"\nbetta = 0.2").expect_err("refused").to_string();
    assert!(error.contains("unknown field `betta`"), "{error}");
    let error = toml::from_str::<MethodConfig>("name = \"pppo\"").expect_err("refused").to_string();
    assert!(error.contains("unknown variant `pppo`, expected one of `sft`, `implicit-reward`, "), "{error}");
}
