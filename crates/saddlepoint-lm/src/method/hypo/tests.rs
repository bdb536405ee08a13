use super::super::Norm;
use super::*;

/// One prompt whose answers are single tokens.
#[derive(Clone)]
struct Bandit {
    logits: Vec<f64>,
    reference: Vec<f64>,
}

fn ln_softmax(z: &[f64]) -> Vec<f64> {
    let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    z.iter().map(|z| z - lse).collect()
}

fn hypo(beta: f64, lambda: f64) -> Hypo {
    Hypo::new(HypoConfig { beta, lambda, ..HypoConfig::default() }).expect("valid settings")
}

fn norm(pairs: usize) -> Norm {
    Norm { tokens: 2 * pairs, sequences: 2 * pairs, pairs, desirable: 0 }
}

fn metric(means: &[(&'static str, f64)], name: &str) -> f64 {
    means.iter().find(|(known, _)| *known == name).expect("a metric").1
}

/// A pair that cancels, so that only the samples are left.
const NONE: [usize; 2] = [0, 0];

impl Bandit {
    /// That of the method's card.
    fn card() -> Self {
        Self { logits: vec![0.7, -0.2, 0.1], reference: vec![0.1, 0.9, -0.4] }
    }

    /// The derivative by the logits and the metrics, for pairs (chosen, rejected) and the samples of each prompt.
    fn loss(
        &self,
        method: &Hypo,
        pairs: &[[usize; 2]],
        samples: &[Vec<usize>],
    ) -> (Vec<f64>, Vec<(&'static str, f64)>) {
        let actions: Vec<usize> = pairs.iter().flatten().chain(samples.iter().flatten()).copied().collect();
        let (p, q) = (ln_softmax(&self.logits), ln_softmax(&self.reference));
        let stats = Stats {
            logp: actions.iter().map(|&a| p[a]).collect(),
            ref_logp: actions.iter().map(|&a| q[a]).collect(),
            top1: vec![false; actions.len()],
            ..Stats::default()
        };
        let mut rows = (0..actions.len()).map(|row| row..row + 1);
        let sequences: Vec<_> = rows.by_ref().take(2 * pairs.len()).collect();
        let samples: Vec<_> = samples
            .iter()
            .map(|actions| Completions {
                sequences: rows.by_ref().take(actions.len()).collect(),
                truncated: 0,
            })
            .collect();
        let norm = norm(pairs.len());
        let mut out = Cotangent::default();
        let view = View { samples: &samples, ..View::new(&sequences, &stats, norm) };
        let means = method.loss(&view, &mut out).means(norm);
        let mut grad = vec![0.0; p.len()];
        for (&action, c) in actions.iter().zip(&out.logp) {
            for (i, g) in grad.iter_mut().enumerate() {
                *g += c * (f64::from(u8::from(i == action)) - p[i].exp());
            }
        }
        (grad, means)
    }

    /// The derivative with one sample a prompt, in expectation over the sample.
    fn expected(&self, method: &Hypo, pairs: &[[usize; 2]]) -> Vec<f64> {
        let mut total = vec![0.0; self.logits.len()];
        for (action, logp) in ln_softmax(&self.logits).into_iter().enumerate() {
            let (grad, _) = self.loss(method, pairs, &vec![vec![action]; pairs.len()]);
            total.iter_mut().zip(grad).for_each(|(t, g)| *t += logp.exp() * g);
        }
        total
    }

    fn kl(&self) -> f64 {
        let (p, q) = (ln_softmax(&self.logits), ln_softmax(&self.reference));
        p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    /// `p_i (l_i - K)`.
    fn kl_grad(&self) -> Vec<f64> {
        let (p, q, kl) = (ln_softmax(&self.logits), ln_softmax(&self.reference), self.kl());
        p.iter().zip(q).map(|(p, q)| p.exp() * (p - q - kl)).collect()
    }

    fn descend(&mut self, rate: f64, grad: &[f64]) {
        self.logits.iter_mut().zip(grad).for_each(|(z, g)| *z -= rate * g);
    }
}

fn assert_near(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() < tolerance, "{got:?} against {expected:?}");
    }
}

/// V1 and V2 of the card: the expectation over all samples, without a baseline and with one.
#[test]
fn the_expected_gradient_is_that_of_the_reverse_kl() {
    let bandit = Bandit::card();
    let expected = [0.195_121_344_544_52, -0.274_139_476_460_79, 0.079_018_131_916_27];
    assert!((bandit.kl() - 0.291_283_703_422_80).abs() < 1e-13);
    assert_near(&bandit.expected(&hypo(0.1, 1.0), &[NONE]), &expected, 1e-13);
    let p: Vec<f64> = ln_softmax(&bandit.logits).iter().map(|p| p.exp()).collect();
    let mut total = vec![0.0; 3];
    for (i, j) in (0..9).map(|n| (n / 3, n % 3)) {
        let (grad, _) = bandit.loss(&hypo(0.1, 1.0), &[NONE], &[vec![i, j]]);
        total.iter_mut().zip(grad).for_each(|(t, g)| *t += p[i] * p[j] * g);
    }
    assert_near(&total, &expected, 1e-13);
}

/// V3: four fixed samples, of four prompts (no baseline) and of one.
#[test]
fn fixed_samples_give_the_values_of_the_card() {
    let (bandit, method) = (Bandit::card(), hypo(0.1, 1.0));
    let (grad, means) = bandit.loss(&method, &[NONE; 4], &[vec![0], vec![0], vec![2], vec![1]]);
    assert!((metric(&means, "kl") - 0.222_820_330_963_24).abs() < 1e-13);
    assert!((metric(&means, "surrogate") + 0.004_227_642_687_93).abs() < 1e-13);
    assert_near(&grad, &[0.222_457_796_479_27, -0.303_124_493_151_11, 0.080_666_696_671_84], 1e-13);
    let (grad, means) = bandit.loss(&method, &[NONE], &[vec![0, 0, 2, 1]]);
    assert!((metric(&means, "kl") - 0.222_820_330_963_24).abs() < 1e-13, "the estimate has no baseline");
    assert_near(&grad, &[0.3, -0.416_666_666_666_67, 0.116_666_666_666_67], 1e-13);
}

/// V4: policies with one and the same DPO loss and any KL, which the samples tell apart.
#[test]
fn dpo_does_not_see_what_leaks_to_an_action_without_pairs() {
    let p_ref = [0.5_f64, 0.4, 0.1];
    for (c, kl) in [(1.0, 0.130_812_035_941_14), (0.1, 1.791_303_461_391_69), (0.001, 2.293_051_190_428_60)] {
        let policy: [f64; 3] = [0.75 * c, 0.2 * c, 1.0 - 0.95 * c];
        let bandit = Bandit { logits: policy.map(f64::ln).to_vec(), reference: p_ref.map(f64::ln).to_vec() };
        let mut mean = 0.0;
        for (action, p) in policy.iter().enumerate() {
            let (_, means) = bandit.loss(&hypo(0.1, 0.01), &[[0, 1]], &[vec![action]]);
            assert!((metric(&means, "loss") - 0.639_724_494_226_13).abs() < 1e-13);
            mean += p * metric(&means, "kl");
        }
        assert!((mean - kl).abs() < 1e-12, "{mean} against {kl}");
    }
}

/// V5: the two parts together, with the samples of V3.
#[test]
fn a_pair_with_samples_gives_the_values_of_the_card() {
    let (p, q) = (ln_softmax(&Bandit::card().logits), ln_softmax(&Bandit::card().reference));
    let picked = [0, 0, 2, 1];
    let sampled = |of: &[f64]| picked.map(|action| of[action]).to_vec();
    let stats = Stats {
        logp: [[-12.0, -15.5].repeat(4), sampled(&p)].concat(),
        ref_logp: [[-13.0, -14.0].repeat(4), sampled(&q)].concat(),
        top1: vec![false; 12],
        ..Stats::default()
    };
    let sequences: Vec<_> = (0..8).map(|row| row..row + 1).collect();
    let one = |row| Completions { sequences: std::iter::once(row..row + 1).collect(), truncated: 1 };
    let samples: Vec<_> = (8..12).map(one).collect();
    let mut out = Cotangent::default();
    let view = View { samples: &samples, ..View::new(&sequences, &stats, norm(4)) };
    let means = hypo(0.05, 0.01).loss(&view, &mut out).means(norm(4));
    let loss = metric(&means, "loss");
    assert!((loss - 0.632_599_035_317_17).abs() < 1e-13);
    assert!((4.0 * out.logp[0] + 0.023_439_531_331_32).abs() < 1e-13);
    assert!((loss + 0.01 * metric(&means, "surrogate") - 0.632_556_758_890_29).abs() < 1e-13);
    assert!((loss + 0.01 * metric(&means, "kl") - 0.634_827_238_626_80).abs() < 1e-13);
    assert!((metric(&means, "truncated") - 1.0).abs() < 1e-15);
}

/// Descent with exact expectations. Pairs show three of four actions.
#[test]
fn exact_descent_ends_where_the_gradients_of_both_parts_cancel() {
    let start = Bandit { logits: vec![0.5, 0.3, -0.2, -1.0], reference: vec![0.5, 0.3, -0.2, -1.0] };
    let pairs = [[0, 1], [0, 2]];
    let (beta, lambda) = (0.5, 1.0);
    let (method, mut bandit) = (hypo(beta, lambda), start.clone());
    for _ in 0..2_000 {
        let grad = bandit.expected(&method, &pairs);
        bandit.descend(2.0, &grad);
    }
    let (p, q) = (ln_softmax(&bandit.logits), ln_softmax(&bandit.reference));
    let mut sum: Vec<f64> = bandit.kl_grad().iter().map(|g| lambda * g).collect();
    for [chosen, rejected] in pairs {
        let h = beta * (p[chosen] - q[chosen] - p[rejected] + q[rejected]);
        let slope = -beta / (1.0 + h.exp()) / pairs.len() as f64;
        sum[chosen] += slope;
        sum[rejected] -= slope;
    }
    assert_near(&sum, &[0.0; 4], 1e-8);
    assert!(bandit.kl() > 0.05, "it has moved: {}", bandit.kl());

    let (dpo, mut free, mut before) = (hypo(beta, 0.0), start, 0.0);
    for _ in 0..4 {
        for _ in 0..20 {
            let (grad, _) = free.loss(&dpo, &pairs, &[]);
            free.descend(2.0, &grad);
        }
        assert!(free.kl() > before, "{} after {before}", free.kl());
        before = free.kl();
    }
    assert!(before > 2.0 * bandit.kl(), "{before} against {}", bandit.kl());
}

/// Two samples of two tokens and of one, by hand.
#[test]
fn credit_clip_and_schedule_change_the_derivative_as_they_say() {
    let stats = Stats {
        logp: vec![-1.0, -1.0, -1.0, -2.0, -3.0],
        ref_logp: vec![-1.0, -1.0, -1.5, -1.0, -1.0],
        top1: vec![false; 5],
        ..Stats::default()
    };
    // Log-ratios 0.5, -1 (sum -0.5) and -2.
    let samples = [Completions { sequences: vec![2..4, 4..5], truncated: 0 }];
    let of = |config: HypoConfig| {
        let mut out = Cotangent::default();
        let view = View { samples: &samples, ..View::new(&[0..1, 1..2], &stats, norm(1)) };
        let method = Hypo::new(config).expect("valid settings");
        let means = method.loss(&view, &mut out).means(norm(1));
        (out.logp[2..].to_vec(), means)
    };
    let plain = HypoConfig { lambda: 2.0, ..HypoConfig::default() };
    let (whole, means) = of(plain.clone());
    assert_near(&whole, &[1.5, 1.5, -1.5], 1e-15);
    assert_near(&[metric(&means, "kl"), metric(&means, "surrogate")], &[-1.25, 0.0], 1e-15);
    let (to_go, _) = of(HypoConfig { credit: Credit::RewardToGo, ..plain.clone() });
    assert_near(&to_go, &[1.5, 1.0, -1.5], 1e-15);
    let (clipped, means) = of(HypoConfig { clip: Some(1.0), ..plain.clone() });
    assert_near(&clipped, &[0.5, 0.5, -0.5], 1e-15);
    assert_near(&[metric(&means, "kl"), metric(&means, "clipped")], &[-1.25, 0.5], 1e-15);
    let (rare, _) = of(HypoConfig { every: 3, ..plain });
    assert_near(&rare, &[4.5, 4.5, -4.5], 1e-15);
}

#[test]
fn a_constant_in_all_log_ratios_and_a_policy_at_its_reference_change_nothing() {
    let (bandit, method) = (Bandit::card(), hypo(0.1, 1.0));
    let weights = |shift: f64| {
        let (p, q) = (ln_softmax(&bandit.logits), ln_softmax(&bandit.reference));
        let stats = Stats {
            logp: [0, 0, 0, 2, 1].map(|a| p[a]).to_vec(),
            ref_logp: [0, 0, 0, 2, 1].map(|a| q[a] + shift).to_vec(),
            top1: vec![false; 5],
            ..Stats::default()
        };
        let samples = [Completions { sequences: vec![2..3, 3..4, 4..5], truncated: 0 }];
        let mut out = Cotangent::default();
        let view = View { samples: &samples, ..View::new(&[0..1, 1..2], &stats, norm(1)) };
        method.loss(&view, &mut out);
        out.logp[2..].to_vec()
    };
    assert_near(&weights(7.0), &weights(0.0), 1e-14);
    let same = Bandit { reference: bandit.logits.clone(), ..bandit };
    let (grad, means) = same.loss(&method, &[NONE], &[vec![0, 2, 2]]);
    assert_eq!(grad, [0.0; 3]);
    assert!(["kl", "kl_k3", "surrogate"].iter().all(|name| metric(&means, name).abs() < 1e-300));
}

#[test]
fn settings_outside_their_range_are_refused() {
    let default = HypoConfig::default;
    for (config, message) in [
        (HypoConfig { beta: 0.0, ..default() }, "method.beta: must be > 0, got 0 (default 0.1)"),
        (HypoConfig { lambda: -1.0, ..default() }, "method.lambda: must be >= 0, got -1 (default 0.01)"),
        (
            HypoConfig { num_generations: 0, ..default() },
            "method.num_generations: must be from 1 to 65536, got 0 (default 2)",
        ),
        (HypoConfig { every: 0, ..default() }, "method.every: must be at least 1, got 0 (default 1)"),
        (
            HypoConfig { max_completion_length: Some(0), ..default() },
            "method.max_completion_length: must be from 1 to 16777216, got 0 (default: that of the run)",
        ),
        (HypoConfig { clip: Some(0.0), ..default() }, "method.clip: must be > 0, got 0 (default: none)"),
    ] {
        assert_eq!(Hypo::new(config).expect_err("refused").to_string(), message);
    }
}
