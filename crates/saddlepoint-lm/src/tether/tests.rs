//! Statistics in closed form, bad settings, and the controller on a small preference problem.

use saddlepoint_core::test::assert_close;

use super::dual::{Augmented, Gains, Hinge};
use super::measure::{Estimates, Sampled, Spread};
use super::*;
use crate::engine::Stats;
use crate::method::pairs::sigmoid_loss;
use crate::method::{MethodConfig, Norm, dpo};

fn dpo(beta: f64) -> Box<dyn Method> {
    MethodConfig::Dpo(dpo::DpoConfig { beta, ..dpo::DpoConfig::default() }).build().expect("valid")
}

fn sft() -> Box<dyn Method> {
    MethodConfig::default().build().expect("valid")
}

/// A budget that is judged by the sixteen prompts of [`Bandit`].
fn budget(budget: f64) -> TetherConfig {
    TetherConfig { budget: Some(budget), final_prompts: 16, ..TetherConfig::default() }
}

fn ruled(gains: Gains) -> TetherConfig {
    TetherConfig { dual: DualConfig::NuPi(gains), ..budget(1.0) }
}

fn augmented(settings: Augmented) -> TetherConfig {
    TetherConfig { dual: DualConfig::AugmentedLagrangian(settings), ..budget(1.0) }
}

fn hinge(rho: Option<f64>, growth: f64) -> TetherConfig {
    TetherConfig { dual: DualConfig::SquaredHinge(Hinge { rho, growth }), ..budget(1.0) }
}

fn sampled(prompt: usize, divergence: f64) -> Sampled {
    Sampled { prompt, divergence, estimates: None, tokens: 3, truncated: prompt == 0 }
}

#[test]
fn the_interval_is_students_over_prompts() {
    // Prompt means 1, 2, 3: mean 2, standard error 1/sqrt(3), t(2 degrees) = 4.302653.
    let m = Measurement::new(
        &[sampled(0, 0.5), sampled(1, 2.0), sampled(0, 1.5), sampled(2, 3.0)],
        Unit::Sequence,
    );
    let half = 4.302_652_729_911_275 / 3.0_f64.sqrt();
    assert!((m.mean - 2.0).abs() < 1e-15);
    assert!((m.interval[1] - (2.0 + half)).abs() < 1e-9, "{m:?}");
    assert!(m.interval[0].abs() < 1e-15, "the lower end is not below 0");
    assert_eq!((m.prompts, m.samples, m.tokens, m.truncated), (3, 4, 12, 2));
}

#[test]
fn estimates_have_mean_and_variance_over_prompts() {
    // Two prompts with two samples and one: means 1.5 and 3.5, deviations of 1 from 2.5.
    let sampled = |prompt, k1| Sampled { estimates: Some([k1, 2.0 * k1, -k1]), ..sampled(prompt, 10.0 * k1) };
    let m = Measurement::new(&[sampled(0, 1.0), sampled(0, 2.0), sampled(1, 3.5)], Unit::Sequence);
    let spread = |mean, variance| Spread { mean, variance };
    let expected = Estimates {
        exact: spread(25.0, 200.0),
        k1: spread(2.5, 2.0),
        k2: spread(5.0, 8.0),
        k3: spread(-2.5, 2.0),
    };
    assert_eq!(m.estimates, Some(expected));
}

#[test]
fn a_token_counts_each_sequence_by_its_length() {
    // 6 nats on 3 tokens and 4 on 8: 2 and 0.5 nats a token, although the second prompt has more tokens.
    let long = Sampled { tokens: 8, estimates: Some([8.0, 4.0, 0.0]), ..sampled(1, 4.0) };
    let short = Sampled { estimates: Some([3.0, 9.0, 0.0]), ..sampled(0, 6.0) };
    let m = Measurement::new(&[short, long], Unit::Token);
    assert!((m.mean - 1.25).abs() < 1e-15);
    let estimates = m.estimates.expect("both have them");
    assert_close!(
        [estimates.exact.mean, estimates.k1.mean, estimates.k2.mean],
        [1.25, 1.0, 1.75],
        rtol = 1e-15
    );
}

#[test]
fn a_penalty_a_token_is_one_a_sequence_over_the_mean_length() {
    let stats = Stats { divergence: vec![0.5, 0.25, 0.125, 1.0], ..Stats::default() };
    let norm = Norm { sequences: 2, tokens: 4, ..Norm::default() };
    let sequences = [0..1, 1..4];
    let view = View::new(&sequences, &stats, norm);
    let slopes = [Unit::Sequence, Unit::Token].map(|per| {
        let config = TetherConfig { beta: Some(0.3), per, ..TetherConfig::default() };
        let (mut out, mut sums) = (Cotangent::default(), Sums::default());
        Tether::new(config, &*sft()).expect("valid").penalize(&view, &mut out, &mut sums);
        (out.divergence, sums.means(norm))
    });
    let metric = |value| vec![("tether/divergence_data", value)];
    assert_eq!(slopes[0], (vec![0.15; 4], metric(1.875 / 2.0)));
    assert_eq!(slopes[1], (vec![0.075; 4], metric(1.875 / 4.0)));
}

#[test]
fn the_verdict_has_three_values() {
    let m = Measurement {
        mean: 2.0,
        interval: [1.0, 3.0],
        prompts: 3,
        samples: 3,
        tokens: 9,
        truncated: 0,
        estimates: None,
    };
    assert_eq!(
        [3.0, 2.5, 1.5, 0.9].map(|b| m.verdict(b)),
        [Verdict::Held, Verdict::Undecided, Verdict::Undecided, Verdict::NotHeld]
    );
    let tether = Tether::new(budget(2.5), &*dpo(0.1)).expect("valid");
    let report = serde_json::to_value(tether.report(&m)).expect("serialises");
    assert_eq!(report["divergence"], "reverse_kl");
    assert_eq!(report["reference"], "initial");
    assert_eq!(report["form"], "budget");
    assert_eq!(report["held"], false);
    assert_eq!(report["verdict"], "undecided");
}

#[test]
fn bad_settings_are_refused() {
    let d = TetherConfig::default();
    for (config, message) in [
        (d.clone(), "tether: needs either `budget` (nats, see `per`) or `beta` (a coefficient)"),
        (
            TetherConfig { beta: Some(0.1), ..budget(1.0) },
            "tether: takes `budget` or `beta`, not both; remove one",
        ),
        (budget(0.0), "tether.budget: must be > 0, got 0"),
        (TetherConfig { beta: Some(f64::NAN), ..d.clone() }, "tether.beta: must be > 0, got NaN"),
        (TetherConfig { every: 0, ..budget(1.0) }, "tether.every: must be at least 1, got 0 (default 10)"),
        (
            TetherConfig { prompts: 1, ..budget(1.0) },
            "tether.prompts: must be at least 2, got 1 (default 32)",
        ),
        (ruled(Gains { kp: -1.0, ..Gains::default() }), "tether.kp: must be >= 0, got -1 (default 1)"),
        (ruled(Gains { ki: f64::NAN, ..Gains::default() }), "tether.ki: must be >= 0, got NaN (default 0.2)"),
        (ruled(Gains { nu: 1.0, ..Gains::default() }), "tether.nu: must be in [0, 1), got 1 (default 0.3)"),
        (
            ruled(Gains { initial_beta: Some(0.05), ..Gains::default() }),
            "tether.initial_beta: must be at least method.beta = 0.1, got 0.05",
        ),
        (
            augmented(Augmented { initial_beta: Some(0.05), ..Augmented::default() }),
            "tether.initial_beta: must be at least method.beta = 0.1, got 0.05",
        ),
        (augmented(Augmented { rho: Some(-1.0), ..Augmented::default() }), "tether.rho: must be > 0, got -1"),
        (hinge(None, 0.5), "tether.growth: must be >= 1, got 0.5 (default 1)"),
    ] {
        assert_eq!(Tether::new(config, &*dpo(0.1)).expect_err("refused").to_string(), message);
    }
}

#[test]
fn a_penalty_is_added_to_a_method_without_beta_and_moved_in_one_with_it() {
    let penalty = TetherConfig { beta: Some(0.4), ..TetherConfig::default() };
    let stats = Stats { logp: vec![-1.0; 3], divergence: vec![0.1, 0.2, 0.6], ..Stats::default() };
    let norm = Norm { tokens: 3, sequences: 2, pairs: 1, desirable: 0 };
    let view = View::new(&[0..2, 2..3], &stats, norm);

    let tether = Tether::new(penalty.clone(), &*sft()).expect("valid");
    let (mut out, mut sums) = (Cotangent::default(), Sums::default());
    tether.penalize(&view, &mut out, &mut sums);
    assert_eq!(tether.method_beta(), None);
    assert_eq!(tether.want().divergence, Some(Divergence::ReverseKl));
    assert_eq!(out.divergence, [0.2, 0.2, 0.2]);
    let (name, mean) = sums.means(norm)[0];
    assert!(name == "tether/divergence_data" && (mean - 0.45).abs() < 1e-15);

    let tether = Tether::new(penalty, &*dpo(0.1)).expect("valid");
    let mut out = Cotangent::default();
    tether.penalize(&view, &mut out, &mut Sums::default());
    assert_eq!(tether.method_beta(), Some(0.4));
    assert_eq!((out, tether.want().divergence), (Cotangent::default(), None));

    // Under a budget what β has above the method's own is a penalty as well.
    let held = |beta| {
        Tether::new(ruled(Gains { initial_beta: Some(beta), kp: 0.0, ki: 0.0, kd: 0.0, nu: 0.0 }), &*dpo(0.1))
    };
    for (beta, weight) in [(0.5, 0.2), (0.1, 0.0)] {
        let tether = held(beta).expect("valid");
        let mut out = Cotangent::default();
        tether.penalize(&view, &mut out, &mut Sums::default());
        assert!((tether.beta() - beta).abs() < 1e-15 && tether.method_beta() == Some(tether.beta()));
        assert_eq!(tether.want().divergence, Some(Divergence::ReverseKl));
        assert!(out.divergence.iter().all(|w| (w - weight).abs() < 1e-15), "{out:?}");
    }
}

/// Sixteen prompts with six one-token answers each: a softmax policy with shared features, a uniform reference,
/// pairs labelled by a hidden reward, of which one in twenty is wrong. Every divergence is exact.
struct Bandit {
    features: Vec<[[f64; Self::DIM]; 6]>,
    pairs: Vec<(usize, usize, usize)>,
    weights: [f64; Self::DIM],
    moments: [[f64; Self::DIM]; 2],
}

impl Bandit {
    const DIM: usize = 12;

    fn new(seed: u64) -> Self {
        use rand::RngExt;
        let mut rng = saddlepoint_core::seed::Seed::new(seed).stream("bandit", &[]);
        let features: Vec<_> = (0..16)
            .map(|_| std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(-1.0..1.0))))
            .collect();
        let hidden: [f64; Self::DIM] = std::array::from_fn(|_| rng.random_range(-2.0..2.0));
        let mut pairs = Vec::new();
        while pairs.len() < 400 {
            let (x, a, b) = (rng.random_range(0..16), rng.random_range(0..6), rng.random_range(0..6));
            let better = dot(&features[x][a], &hidden) > dot(&features[x][b], &hidden);
            if a != b && (better != (rng.random::<f64>() < 0.05)) {
                pairs.push((x, a, b));
            }
        }
        Self { features, pairs, weights: [0.0; Self::DIM], moments: [[0.0; Self::DIM]; 2] }
    }

    /// One Adam step on eight pairs, with the loss of the method itself.
    fn step(&mut self, t: usize, beta: f64, smoothing: f64) {
        let mut grad = [0.0; Self::DIM];
        for k in 0..8 {
            let (x, a, b) = self.pairs[(t * 8 + k) * 7 % self.pairs.len()];
            let d: [f64; Self::DIM] =
                std::array::from_fn(|i| self.features[x][a][i] - self.features[x][b][i]);
            let slope = sigmoid_loss(beta * dot(&d, &self.weights), smoothing).1 * beta;
            (0..Self::DIM).for_each(|i| grad[i] += slope * d[i] / 8.0);
        }
        let n = t as i32 + 1;
        for i in 0..Self::DIM {
            let [m, v] = &mut self.moments;
            m[i] = 0.9 * m[i] + 0.1 * grad[i];
            v[i] = 0.999 * v[i] + 0.001 * grad[i] * grad[i];
            let (m, v) = (m[i] / (1.0 - 0.9_f64.powi(n)), v[i] / (1.0 - 0.999_f64.powi(n)));
            self.weights[i] -= 0.03 * m / (v.sqrt() + 1e-8);
        }
    }

    fn measure(&self) -> Measurement {
        let divergence = |answers: &[[f64; Self::DIM]; 6]| {
            let e = answers.map(|f| dot(&f, &self.weights).exp());
            let z: f64 = e.iter().sum();
            e.iter().map(|p| p / z * (6.0 * p / z).ln()).sum::<f64>()
        };
        let samples: Vec<Sampled> =
            self.features.iter().enumerate().map(|(x, answers)| sampled(x, divergence(answers))).collect();
        Measurement::new(&samples, Unit::Sequence)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Divergence after training under `config`, and the tether.
fn train(config: &TetherConfig, beta: f64, smoothing: f64, seed: u64) -> (Measurement, Tether) {
    let mut bandit = Bandit::new(seed);
    let mut tether = Tether::new(config.clone(), &*dpo(beta)).expect("valid");
    for t in 0..600 {
        bandit.step(t, tether.beta(), smoothing);
        if tether.due(t as u64 + 1) {
            tether.observe(&bandit.measure()).expect("finite");
        }
    }
    (bandit.measure(), tether)
}

#[test]
fn the_controller_brings_dpo_to_its_budget_and_not_beyond() {
    let free = TetherConfig { beta: Some(0.1), ..TetherConfig::default() };
    for seed in 0..3 {
        let (unheld, _) = train(&free, 0.1, 0.1, seed);
        for b in [0.1, 0.3] {
            assert!(unheld.mean > 1.8 * b, "the budget binds: {unheld:?}");
            let (measured, tether) = train(&budget(b), 0.1, 0.1, seed);
            assert_eq!(measured.verdict(b), Verdict::Held, "budget {b}, seed {seed}: {measured:?}");
            assert!(measured.interval[1] > 0.75 * b, "the budget is used: {b}, seed {seed}: {measured:?}");
            assert_eq!(tether.duals().expect("a budget").clamped()[0].upper, 0);
        }
    }
}

#[test]
fn a_budget_that_does_not_bind_ends_at_the_methods_own_beta() {
    let (measured, tether) = train(&TetherConfig { every: 5, ..budget(100.0) }, 0.5, 0.1, 0);
    assert_eq!(measured.verdict(100.0), Verdict::Held);
    assert!((tether.beta() - 0.5).abs() < 1e-15, "{}", tether.beta());
}

/// Measurements whose interval has no width: `e` is exactly `x − 1`.
fn at(x: f64, budget: f64) -> Measurement {
    let d = x * AIM * budget;
    Measurement::new(&[sampled(0, d), sampled(1, d)], Unit::Sequence)
}

#[test]
fn penalties_add_to_the_methods_own_beta() {
    for (method, base) in [(dpo(0.1), 0.1), (sft(), 0.0)] {
        let settings = Augmented { initial_beta: Some(0.5), rho: Some(0.2), growth: 1.0 };
        let mut tether = Tether::new(augmented(settings), &*method).expect("valid");
        // λ starts at 0.5 − β₀; the policy is the reference at first, where e = −1.
        let mut lambda = f64::max(0.0, 0.5 - base - 0.2);
        assert!((tether.beta() - base - f64::max(0.0, lambda - 0.2)).abs() < 1e-12);
        for x in [0.5, 2.0, 3.0, 0.9, 0.0, 0.0] {
            tether.observe(&at(x, 1.0)).expect("finite");
            lambda = f64::max(0.0, lambda + 0.2 * (x - 1.0));
            assert!((tether.beta() - base - f64::max(0.0, lambda + 0.2 * (x - 1.0))).abs() < 1e-12);
        }

        let mut tether = Tether::new(hinge(Some(4.0), 1.0), &*method).expect("valid");
        for x in [0.5, 1.25, 3.0, 0.9] {
            tether.observe(&at(x, 1.0)).expect("finite");
            assert!((tether.beta() - base - 8.0 * f64::max(0.0, x - 1.0)).abs() < 1e-12, "{}", tether.beta());
        }
        assert_eq!(tether.clamped().expect("a budget").lower, 3, "at the start and where x <= 1");
    }
}

#[test]
fn the_augmented_lagrangian_holds_the_budget_and_the_hinge_rests_above_it() {
    let b = 0.3;
    let config = |dual| TetherConfig { dual, ..budget(b) };
    for seed in 0..3 {
        let rule = DualConfig::AugmentedLagrangian(Augmented::default());
        let (measured, tether) = train(&config(rule), 0.1, 0.1, seed);
        assert_eq!(measured.verdict(b), Verdict::Held, "{measured:?}");
        assert!(measured.interval[1] > 0.75 * b, "the budget is used: {measured:?}");
        assert_eq!(tether.clamped().expect("a budget").upper, 0);

        let rests = |rho| {
            let rule = DualConfig::SquaredHinge(Hinge { rho: Some(rho), growth: 1.0 });
            let (measured, tether) = train(&config(rule), 0.1, 0.1, seed);
            (measured.interval[1], tether.beta())
        };
        let (weak, beta) = rests(1.0);
        assert!(weak > 1.2 * b && beta > 1.0, "{weak} at beta {beta}");
        assert!(rests(4.0).0 < weak, "a larger penalty comes nearer");
    }
}

#[test]
fn the_multiplier_continues_exactly() {
    let mut whole = Tether::new(budget(0.2), &*dpo(0.1)).expect("valid");
    let mut parts = whole.clone();
    for i in 0..20 {
        let m = Measurement::new(&[sampled(0, 0.013 * f64::from(i)), sampled(1, 0.1)], Unit::Sequence);
        whole.observe(&m).expect("finite");
        let text = serde_json::to_string(&parts.duals()).expect("serialises");
        parts.restore(serde_json::from_str(&text).expect("parses"));
        parts.observe(&m).expect("finite");
        assert_eq!(whole.beta().to_bits(), parts.beta().to_bits());
    }
}
