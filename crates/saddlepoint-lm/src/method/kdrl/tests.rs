//! The vectors of the card, limits in which other methods come out, and both gradients over many samples.

use std::ops::Range;

use rand::RngExt;
use saddlepoint_core::seed::Seed;
use saddlepoint_core::test::assert_close;

use super::super::grpo::{Grpo, GrpoConfig, LossType};
use super::super::{Judged, Norm, Rollout};
use super::*;
use crate::engine::Stats;

/// Completions with their advantages and rewards, all of one prompt, and what policy and teacher say of their tokens.
#[derive(Clone)]
struct Case {
    advantages: Vec<f64>,
    rewards: Vec<f64>,
    lengths: Vec<usize>,
    logp: Vec<f64>,
    teacher: Vec<f64>,
    divergence: Vec<f64>,
    /// What policy and teacher say of the teacher's most probable tokens.
    listed: [Vec<Vec<f64>>; 2],
    step: u64,
}

/// V1.
fn first() -> Case {
    Case {
        advantages: vec![1.0, -1.0, -1.0, 1.0],
        rewards: vec![1.0, 0.0, 0.0, 1.0],
        lengths: vec![2, 3, 1, 2],
        logp: vec![-0.5, -1.0, -0.8, -0.3, -1.2, -2.0, -0.1, -0.7],
        teacher: vec![-0.2, -0.9, -2.3, -0.1, -0.6, -3.5, -0.05, -0.4],
        divergence: vec![0.1; 8],
        listed: [Vec::new(), Vec::new()],
        step: 0,
    }
}

impl Case {
    /// What `method` says of new samples: metrics and cotangents.
    fn of(&self, method: &dyn Method) -> (Vec<(&'static str, f64)>, Cotangent) {
        let mut sequences: Vec<Range<usize>> = Vec::new();
        for length in &self.lengths {
            let from = sequences.last().map_or(0, |last| last.end);
            sequences.push(from..from + length);
        }
        let judged: Vec<Judged> = (sequences.iter().enumerate())
            .map(|(i, rows)| Judged {
                old_logp: &self.logp[rows.clone()],
                advantage: Some(self.advantages[i]),
                credit: None,
                reward: Some(self.rewards[i]),
                group: 0,
            })
            .collect();
        let stats = Stats {
            logp: self.logp.clone(),
            ref_logp: self.teacher.clone(),
            entropy: vec![0.0; self.logp.len()],
            divergence: self.divergence.clone(),
            listed: self.listed[0].clone(),
            ref_listed: self.listed[1].clone(),
            ..Stats::default()
        };
        let norm = Norm { tokens: self.logp.len(), sequences: sequences.len(), ..Norm::default() };
        let rollout =
            Rollout { completions: &judged, max_completion_length: 9, step: self.step, tokens_a_step: 8.0 };
        let view = View { rollout: Some(rollout), ..View::new(&sequences, &stats, norm) };
        let mut out = Cotangent::default();
        let means = method.loss(&view, &mut out).means(norm);
        (means, out)
    }

    fn loss(&self, config: KdrlConfig) -> (f64, Vec<f64>) {
        let (means, out) = self.of(&kdrl(config));
        (get(&means, "loss"), out.logp)
    }
}

fn kdrl(config: KdrlConfig) -> Kdrl {
    Kdrl::new(config).expect("valid")
}

fn get(means: &[(&'static str, f64)], name: &str) -> f64 {
    means.iter().find(|(known, _)| *known == name).expect("a metric").1
}

fn constant(beta: f64, kl_estimator: KlEstimator) -> KdrlConfig {
    KdrlConfig {
        beta_init: beta,
        beta_min: beta.min(1e-3),
        beta_delta: 0.0,
        kl_estimator,
        ..KdrlConfig::default()
    }
}

/// The teacher's term alone, with weight 1.
fn distillation(kl_estimator: KlEstimator) -> KdrlConfig {
    KdrlConfig { mode: Mode::Sequential, kd_steps: Some(1), kl_estimator, ..KdrlConfig::default() }
}

#[test]
fn losses_and_derivatives_are_those_of_v1() {
    let case = first();
    let (value, slopes) = case.loss(constant(2e-3, KlEstimator::K2));
    assert_close!(value, 0.000_636_562_5, rtol = 1e-10);
    assert_close!(
        slopes,
        [-0.125_075, -0.125_025, 0.125_375, 0.124_95, 0.124_85, 0.125_375, -0.125_012_5, -0.125_075],
        rtol = 1e-12
    );
    let (value, slopes) = case.loss(constant(2e-3, KlEstimator::K3));
    assert_close!(value, 0.000_448_985_377_11, rtol = 1e-10);
    assert_close!(
        slopes,
        [
            -0.125_087_464_701_894,
            -0.125_026_292_729_519,
            0.125_194_217_459_963,
            0.124_944_649_310_46,
            0.124_794_470_299_902,
            0.125_194_217_459_963,
            -0.125_012_817_774_094,
            -0.125_087_464_701_894
        ],
        rtol = 1e-12
    );
    // Means of the three estimators; k3 is the metric whatever is differentiated.
    let k1 = case.logp.iter().zip(&case.teacher).map(|(p, q)| p - q).sum::<f64>() / 8.0;
    let (k2, _) = case.loss(distillation(KlEstimator::K2));
    let k3 = get(&case.of(&kdrl(distillation(KlEstimator::K2))).0, "kl");
    assert_close!([k1, k2, k3], [0.181_25, 0.318_281_25, 0.224_492_688_556_40], rtol = 1e-13);
    assert_close!(case.loss(distillation(KlEstimator::K3)).0, k3, rtol = 1e-14);
    // The exact value takes the place of what one token says.
    let (means, out) = case.of(&kdrl(constant(2e-3, KlEstimator::Full)));
    assert_close!([get(&means, "loss"), get(&means, "kl")], [2e-4, 0.1], rtol = 1e-12);
    assert_close!(out.divergence, [2e-3 / 8.0; 8], rtol = 1e-15);
    assert_close!(out.logp.iter().map(|slope| slope.abs()).collect::<Vec<_>>(), [0.125; 8], rtol = 1e-15);
}

#[test]
fn advantages_are_those_of_v1() {
    let rewards = [1.0, 0.0, 0.0, 1.0].map(Some);
    let of = |std, epsilon| -> Vec<f64> {
        let group = 0..4;
        let worth = advantage::group_scaled(&rewards, std::slice::from_ref(&group), std, epsilon);
        worth.into_iter().map(|a| a.expect("a reward")).collect()
    };
    let signs = [1.0, -1.0, -1.0, 1.0];
    assert_close!(of(Variance::Population, 0.0), signs, rtol = 1e-14);
    assert_close!(of(Variance::Sample, 0.0), signs.map(|sign| sign * 0.866_025_403_784_44), rtol = 1e-14);
    let rewarded = Rewarded::new(&[0..2, 2..5], &[None; 5]);
    let method = kdrl(KdrlConfig::default());
    assert_eq!(method.advantages(&rewarded), [None; 5]);
    let rewards = [Some(0.3), Some(0.3), Some(1.0), None, Some(0.0)];
    let worth = method.advantages(&Rewarded { rewards: &rewards, ..rewarded });
    assert_eq!((worth[0], worth[1], worth[3]), (Some(0.0), Some(0.0), None), "the teacher alone");
    assert_close!(
        [worth[2].expect("one"), worth[4].expect("one")],
        [0.5 / (0.5 + 1e-6), -0.5 / (0.5 + 1e-6)],
        rtol = 1e-14
    );
}

#[test]
fn masks_are_those_of_v2() {
    let masked = |mask, mask_normalizer| {
        let config = KdrlConfig { mask, mask_normalizer, ..distillation(KlEstimator::K2) };
        let (means, out) = first().of(&kdrl(config));
        (get(&means, "loss"), get(&means, "kdrl/masked"), out.logp)
    };
    let (all, share, slopes) = masked(Mask::Response, Normalizer::All);
    assert_close!([all, share], [0.306_25, 0.5], rtol = 1e-13);
    assert_close!(slopes, [0.0, 0.0, 1.5, -0.2, -0.6, 1.5, 0.0, 0.0].map(|s: f64| s / 8.0), rtol = 1e-13);
    let (kept, _, slopes) = masked(Mask::Response, Normalizer::Kept);
    assert_close!(kept, 0.6125, rtol = 1e-13);
    assert_close!(slopes, [0.0, 0.0, 1.5, -0.2, -0.6, 1.5, 0.0, 0.0].map(|s: f64| s / 4.0), rtol = 1e-13);
    for normalizer in [Normalizer::All, Normalizer::Kept] {
        assert_eq!(masked(Mask::Group, normalizer), (0.0, 1.0, vec![0.0; 8]));
    }
    let mut unsolved = first();
    unsolved.rewards = vec![0.0, 0.5, 0.0, 0.0];
    let config = KdrlConfig { mask: Mask::Group, ..distillation(KlEstimator::K2) };
    assert_eq!(unsolved.loss(config).1, unsolved.loss(distillation(KlEstimator::K2)).1);
}

#[test]
fn the_weight_falls_as_in_v3() {
    let weight =
        |config: &KdrlConfig, step| get(&Case { step, ..first() }.of(&kdrl(config.clone())).0, "kdrl/beta");
    let default = KdrlConfig::default();
    for (step, beta) in [(0, 5e-3), (1, 4.95e-3), (40, 3e-3), (79, 1.05e-3), (80, 1e-3), (280, 1e-3)] {
        assert_close!(weight(&default, step), beta, rtol = 1e-12);
    }
    let sequential = KdrlConfig { mode: Mode::Sequential, kd_steps: Some(3), ..KdrlConfig::default() };
    assert_close!([0, 2, 3, 9].map(|step| weight(&sequential, step)), [1.0, 1.0, 0.0, 0.0], rtol = 1e-15);
    let at = |step| Case { step, ..first() }.loss(sequential.clone());
    assert_eq!(at(2), first().loss(distillation(KlEstimator::K2)), "the teacher alone");
    assert_eq!(
        at(3),
        first().loss(KdrlConfig { beta_init: 0.0, beta_min: 0.0, ..KdrlConfig::default() }),
        "rewards alone"
    );
}

#[test]
fn after_its_steps_nothing_of_the_teacher_is_read() {
    let rewards_alone = |kl_estimator| KdrlConfig {
        mode: Mode::Sequential,
        kd_steps: Some(3),
        kl_estimator,
        ..KdrlConfig::default()
    };
    for kl_estimator in [KlEstimator::K2, KlEstimator::K3, KlEstimator::Full] {
        let method = kdrl(rewards_alone(kl_estimator));
        assert_eq!([0, 2, 3, 9].map(|step| method.is_taught(step)), [true, true, false, false]);
        let whole = Case { step: 3, ..first() };
        let bare = Case { teacher: Vec::new(), divergence: Vec::new(), ..whole.clone() };
        let ((means, out), (with, beside)) = (bare.of(&method), whole.of(&method));
        assert_eq!(out.logp, beside.logp);
        assert!(out.divergence.is_empty() && out.listed.is_empty());
        for (name, value) in with {
            let of_teacher = ["kl", "kdrl/masked", "kdrl/clamped"];
            let alone = means.iter().find(|(known, _)| *known == name);
            assert_eq!(
                alone.map(|(_, value)| value),
                (!of_teacher.contains(&name)).then_some(&value),
                "{name}"
            );
        }
    }
}

/// Student and teacher of V4 after one prompt.
const STUDENT: [f64; 3] = [0.7, -0.2, 0.1];
const TEACHER: [f64; 3] = [0.1, 0.9, -0.4];

fn ln_softmax(z: [f64; 3]) -> [f64; 3] {
    let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    z.map(|z| z - lse)
}

/// Samples as completions of one token, with advantage 0.
fn sampled(tokens: &[usize]) -> Case {
    let (p, q) = (ln_softmax(STUDENT), ln_softmax(TEACHER));
    let of = |logps: [f64; 3]| tokens.iter().map(|&token| logps[token]).collect::<Vec<_>>();
    let n = tokens.len();
    let (logp, teacher, divergence) = (of(p), of(q), vec![0.0; n]);
    Case {
        advantages: vec![0.0; n],
        rewards: vec![0.0; n],
        lengths: vec![1; n],
        logp,
        teacher,
        divergence,
        listed: [Vec::new(), Vec::new()],
        step: 0,
    }
}

/// The gradient by the student's logits of the loss of samples, from the cotangents of their log-probabilities.
fn by_logits(tokens: &[usize], slopes: &[f64]) -> [f64; 3] {
    let p = ln_softmax(STUDENT).map(f64::exp);
    std::array::from_fn(|v| {
        tokens.iter().zip(slopes).map(|(&token, slope)| slope * (f64::from(token == v) - p[v])).sum()
    })
}

/// The gradient of the reverse KL by the student's logits, and that of the forward KL.
const REVERSE: [f64; 3] = [0.195_121_344_544_52, -0.274_139_476_460_79, 0.079_018_131_916_27];
const FORWARD: [f64; 3] = [0.250_453_749_139_07, -0.372_843_586_671_86, 0.122_389_837_532_80];

#[test]
fn values_and_gradients_at_one_prefix_are_those_of_v4() {
    let p = ln_softmax(STUDENT).map(f64::exp);
    let q = ln_softmax(TEACHER).map(f64::exp);
    let exact = Divergence::ReverseKl.between(&p, &q);
    let expected = |estimator| {
        let (mut value, mut gradient) = (0.0, [0.0; 3]);
        for token in 0..3 {
            let (one, slopes) = sampled(&[token]).loss(distillation(estimator));
            value += p[token] * one;
            let of_token = by_logits(&[token], &slopes);
            gradient = std::array::from_fn(|v| gradient[v] + p[token] * of_token[v]);
        }
        (value, gradient)
    };
    let (k2, of_k2) = expected(KlEstimator::K2);
    let (k3, of_k3) = expected(KlEstimator::K3);
    let l = |token: usize| p[token].ln() - q[token].ln();
    let k1: f64 = (0..3).map(|token| p[token] * l(token)).sum();
    assert_close!([exact, k1, k3], [0.291_283_703_422_80; 3], rtol = 1e-13);
    assert_close!(k2, 0.271_490_746_335_71, rtol = 1e-13);
    assert_close!(of_k2, REVERSE, rtol = 1e-12);
    assert_close!(of_k3, FORWARD, rtol = 1e-12);
    assert_close!(of_k3, [0, 1, 2].map(|v| p[v] - q[v]), rtol = 1e-12);
    // That of k1 as a loss has the expectation 0, which is why there is no such estimator.
    let of_k1: [f64; 3] =
        std::array::from_fn(|v| (0..3).map(|token| p[token] * (f64::from(token == v) - p[v])).sum());
    assert_close!(of_k1, [0.0; 3], rtol = 1.0, atol = 1e-15);
    // Full: the derivative of the divergence itself.
    for (v, slope) in REVERSE.into_iter().enumerate() {
        let at = |step: f64| {
            let mut z = STUDENT;
            z[v] += step;
            Divergence::ReverseKl.between(&ln_softmax(z).map(f64::exp), &q)
        };
        assert_close!((at(1e-5) - at(-1e-5)) / 2e-5, slope, rtol = 1e-8);
    }
}

/// With all tokens listed the derivative is that of the reverse KL without the noise of the sample, with fewer it is that of what they
/// tell apart; a mask leaves it out, and the weight and the number of tokens are those of every estimator.
#[test]
fn the_most_probable_tokens_teach_without_the_sample() {
    let (p, q) = (ln_softmax(STUDENT), ln_softmax(TEACHER));
    // The teacher's order.
    let order = [1, 0, 2];
    let of = |count: usize, tokens: &[usize], config: KdrlConfig| {
        let list = |logps: [f64; 3]| order[..count].iter().map(|&v| logps[v]).collect::<Vec<_>>();
        let case = sampled(tokens);
        let listed = [vec![list(p); tokens.len()], vec![list(q); tokens.len()]];
        Case { listed, ..case }.of(&kdrl(config))
    };
    let [ps, qs] = [p, q].map(|logps| logps.map(f64::exp));
    let exact = Divergence::ReverseKl.between(&ps, &qs);
    for token in 0..3 {
        let (means, out) = of(3, &[token], distillation(KlEstimator::TopK));
        assert_close!([get(&means, "loss"), get(&means, "kdrl/top_kl")], [exact; 2], rtol = 1e-12);
        let sum: f64 = out.listed[0].iter().sum();
        let gradient: [f64; 3] = std::array::from_fn(|v| {
            out.listed[0][order.iter().position(|&w| w == v).expect("listed")] - ps[v] * sum
        });
        assert_close!(gradient, REVERSE, rtol = 1e-12);
        assert_close!(out.logp, [0.0], atol = 1e-15);
    }
    let (means, out) = of(1, &[0, 2], distillation(KlEstimator::TopK));
    let two = Divergence::ReverseKl.between(&[ps[1], 1.0 - ps[1]], &[qs[1], 1.0 - qs[1]]);
    assert_close!([get(&means, "loss"), get(&means, "kdrl/top_kl")], [two; 2], rtol = 1e-12);
    assert_close!(
        [get(&means, "kdrl/left"), get(&means, "kdrl/teacher_left")],
        [1.0 - ps[1], 1.0 - qs[1]],
        rtol = 1e-12
    );
    // What is reported as the divergence stays the estimate from the sampled tokens.
    let k3 = get(&sampled(&[0, 2]).of(&kdrl(distillation(KlEstimator::K2))).0, "kl");
    assert_close!(get(&means, "kl"), k3, rtol = 1e-14);
    let weighted = of(1, &[0, 2], constant(0.3, KlEstimator::TopK)).1;
    for (a, b) in weighted.listed.iter().flatten().zip(out.listed.iter().flatten()) {
        assert_close!(*a, 0.3 * b, rtol = 1e-12);
    }
    let masked = KdrlConfig { mask: Mask::Response, ..distillation(KlEstimator::TopK) };
    let mut case = sampled(&[0, 2]);
    case.listed = [vec![vec![p[1]]; 2], vec![vec![q[1]]; 2]];
    case.rewards = vec![1.0, 0.0];
    let slopes = case.of(&kdrl(masked)).1.listed;
    assert_eq!((slopes[0][0], slopes[1][0]), (0.0, out.listed[1][0]));
}

#[test]
fn over_many_samples_k2_follows_the_reverse_and_k3_the_forward_kl() {
    let p = ln_softmax(STUDENT).map(f64::exp);
    let mut rng = Seed::new(11).stream("method/kdrl", &[]);
    // Root mean squared distance over repetitions.
    let mut apart = |estimator, target: [f64; 3], n: usize| {
        let squares: Vec<f64> = (0..20)
            .map(|_| {
                let draw = |_| {
                    let u: f64 = rng.random();
                    usize::from(u > p[0]) + usize::from(u > p[0] + p[1])
                };
                let tokens: Vec<usize> = (0..n).map(draw).collect();
                let (_, slopes) = sampled(&tokens).loss(distillation(estimator));
                by_logits(&tokens, &slopes).iter().zip(target).map(|(g, t)| (g - t).powi(2)).sum()
            })
            .collect();
        (squares.iter().sum::<f64>() / 20.0).sqrt()
    };
    for (estimator, own, other) in [(KlEstimator::K2, REVERSE, FORWARD), (KlEstimator::K3, FORWARD, REVERSE)]
    {
        let [few, many] = [100, 10_000].map(|n| apart(estimator, own, n));
        let ratio = few / many;
        assert!((5.0..20.0).contains(&ratio), "1/sqrt(n): {few} and {many}");
        assert!(apart(estimator, other, 10_000) > 5.0 * many, "and not the other");
    }
}

#[test]
fn with_the_policy_as_teacher_or_without_weight_it_is_grpo() {
    let case = first();
    let bnpo = GrpoConfig { loss_type: LossType::Bnpo, ..GrpoConfig::default() };
    let grpo = case.of(&Grpo::new(bnpo).expect("valid")).1.logp;
    let own = Case { teacher: case.logp.clone(), ..case.clone() };
    for estimator in [KlEstimator::K2, KlEstimator::K3] {
        let (means, out) = own.of(&kdrl(constant(0.5, estimator)));
        assert_close!(out.logp, grpo.clone(), rtol = 1e-14);
        assert_eq!(get(&means, "kl").to_bits(), 0.0_f64.to_bits());
    }
    assert_close!(case.loss(constant(0.0, KlEstimator::K2)).1, grpo, rtol = 1e-14);
    // With equal rewards the teacher alone.
    let equal = Case { advantages: vec![0.0; 4], ..case };
    let slopes = equal.loss(constant(1.0, KlEstimator::K2)).1;
    assert_close!(slopes, equal.loss(distillation(KlEstimator::K2)).1, rtol = 1e-14);
}

#[test]
fn what_the_teacher_forbids_is_held_and_counted() {
    let mut case = sampled(&[0, 1]);
    (case.logp, case.teacher) = (vec![-1.0, -50.0], vec![f64::NEG_INFINITY, -1.0]);
    for (estimator, value, slopes) in [
        (KlEstimator::K2, 200.0, [20.0, -20.0]),
        (
            KlEstimator::K3,
            0.5 * ((-20.0_f64).exp() - 1.0 + 20.0 + 20.0_f64.exp() - 21.0),
            [1.0 - (-20.0_f64).exp(), 1.0 - 20.0_f64.exp()],
        ),
    ] {
        let (means, out) = case.of(&kdrl(distillation(estimator)));
        assert_close!(get(&means, "loss"), value, rtol = 1e-13);
        assert_close!(out.logp, slopes.map(|slope| slope / 2.0), rtol = 1e-13);
        assert_close!(get(&means, "kdrl/clamped"), 1.0, rtol = 1e-15);
    }
}

#[test]
fn settings_outside_their_range_are_refused() {
    let told = |config| Kdrl::new(config).expect_err("refused").to_string();
    let default = KdrlConfig::default;
    for (config, message) in [
        (
            KdrlConfig { beta_init: -1.0, ..default() },
            "method.beta_init: must be >= 0, got -1 (default 5e-3)",
        ),
        (
            KdrlConfig { beta_min: 1.0, ..default() },
            "method.beta_min: must be from 0 to method.beta_init = 0.005, got 1 (default 1e-3)",
        ),
        (
            KdrlConfig { beta_delta: f64::NAN, ..default() },
            "method.beta_delta: must be >= 0, got NaN (default 5e-5)",
        ),
        (
            KdrlConfig { kd_steps: Some(9), ..default() },
            "method.kd_steps: has no use with mode = \"joint\": remove it",
        ),
        (
            KdrlConfig { mode: Mode::Sequential, ..default() },
            "method.kd_steps: is missing: mode = \"sequential\" needs the number of steps with the teacher",
        ),
        (
            KdrlConfig { mode: Mode::Sequential, kd_steps: Some(0), ..default() },
            "method.kd_steps: must be at least 1, got 0",
        ),
    ] {
        assert_eq!(told(config), message);
    }
}
