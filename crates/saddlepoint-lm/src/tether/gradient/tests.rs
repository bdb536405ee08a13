//! Every mode against the exact gradient, by enumeration of all sequences of a tabular softmax policy.

use saddlepoint_opt::divergence::Divergence;

use super::*;
use crate::method::pairs::sigmoid_loss;

/// The token that ends a sequence.
const END: usize = 2;

/// Logits of the next token for every prefix; prefixes without the ending token are numbered by length.
#[derive(Clone)]
struct Small {
    policy: Vec<[f64; 3]>,
    reference: Vec<[f64; 3]>,
    /// Longest sequence.
    length: usize,
}

/// Prefix and token at each step.
type Sequence = Vec<(usize, usize)>;
type Grad = Vec<[f64; 3]>;

fn ln_softmax(z: [f64; 3]) -> [f64; 3] {
    let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    z.map(|z| z - lse)
}

fn add(total: &mut Grad, weight: f64, part: &Grad) {
    for (row, part) in total.iter_mut().zip(part) {
        (0..3).for_each(|i| row[i] += weight * part[i]);
    }
}

fn close(got: &Grad, expected: &Grad, tolerance: f64) -> bool {
    got.iter().flatten().zip(expected.iter().flatten()).all(|(a, b)| (a - b).abs() < tolerance)
}

fn difference(a: &Grad, b: &Grad) -> Grad {
    let mut out = a.clone();
    add(&mut out, -1.0, b);
    out
}

impl Small {
    /// Sequences of at most three tokens: 7 prefixes, 15 sequences.
    fn new() -> Self {
        let row = |seed: f64| {
            move |i: usize| [0.0, 1.0, 2.0].map(|j: f64| (seed * (3.0 * i as f64 + j + 1.0)).sin())
        };
        Self { policy: (0..7).map(row(1.7)).collect(), reference: (0..7).map(row(2.9)).collect(), length: 3 }
    }

    /// The single token of the cards of HyPO (V1) and KDRL (V4).
    fn card() -> Self {
        Self { policy: vec![[0.7, -0.2, 0.1]], reference: vec![[0.1, 0.9, -0.4]], length: 1 }
    }

    fn sequences(&self) -> Vec<Sequence> {
        let (mut open, mut done) = (vec![(0_usize, Sequence::new())], Vec::new());
        while let Some((prefix, steps)) = open.pop() {
            for token in 0..3 {
                let mut next = steps.clone();
                next.push((prefix, token));
                if token == END || next.len() == self.length {
                    done.push(next);
                } else {
                    open.push((2 * prefix + 1 + token, next));
                }
            }
        }
        done
    }

    fn stats(&self, sequence: &Sequence) -> Stats {
        let mut stats = Stats::default();
        for &(prefix, token) in sequence {
            let (p, q) = (ln_softmax(self.policy[prefix]), ln_softmax(self.reference[prefix]));
            stats.logp.push(p[token]);
            stats.ref_logp.push(q[token]);
            stats.divergence.push(Divergence::ReverseKl.between(&p.map(f64::exp), &q.map(f64::exp)));
        }
        stats
    }

    fn probability(&self, sequence: &Sequence) -> f64 {
        self.stats(sequence).logp.iter().sum::<f64>().exp()
    }

    fn zeros(&self) -> Grad {
        vec![[0.0; 3]; self.policy.len()]
    }

    /// From cotangents to logits: `d ln p_y / dz_i = [i = y] - p_i`, `dD / dz_i = p_i (l_i - D)`.
    fn backward(&self, sequence: &Sequence, cotangent: &Cotangent) -> Grad {
        let mut grad = self.zeros();
        let stats = self.stats(sequence);
        for (row, &(prefix, token)) in sequence.iter().enumerate() {
            let (p, q) = (ln_softmax(self.policy[prefix]), ln_softmax(self.reference[prefix]));
            let logp = cotangent.logp.get(row).copied().unwrap_or_default();
            let divergence = cotangent.divergence.get(row).copied().unwrap_or_default();
            for i in 0..3 {
                grad[prefix][i] += logp * (f64::from(u8::from(i == token)) - p[i].exp());
                grad[prefix][i] += divergence * p[i].exp() * (p[i] - q[i] - stats.divergence[row]);
            }
        }
        grad
    }

    /// `E sum_t weight_t grad ln p_t`.
    fn scored(&self, weight: impl Fn(&Stats) -> Vec<f64>) -> Grad {
        self.expected(|sequence| {
            let logp = weight(&self.stats(sequence));
            self.backward(sequence, &Cotangent { logp, ..Cotangent::default() })
        })
    }

    fn expected(&self, of: impl Fn(&Sequence) -> Grad) -> Grad {
        let mut total = self.zeros();
        for sequence in self.sequences() {
            add(&mut total, self.probability(&sequence), &of(&sequence));
        }
        total
    }

    /// The expected gradient of a mode.
    fn followed(&self, mode: Gradient, estimator: Estimator) -> Grad {
        self.expected(|sequence| {
            let mut out = Cotangent::default();
            mode.add(estimator, &self.stats(sequence), 0..sequence.len(), 0.0, 1.0, &mut out);
            self.backward(sequence, &out)
        })
    }

    /// `E sum_t v_t`.
    fn mean(&self, estimator: Estimator) -> f64 {
        let value = |s: &Sequence| values(estimator, &self.stats(s), 0..s.len()).iter().sum::<f64>();
        self.sequences().iter().map(|s| self.probability(s) * value(s)).sum()
    }

    /// Of `f` by the logits, by central differences.
    fn numeric(&self, f: impl Fn(&Self) -> f64) -> Grad {
        let mut grad = self.zeros();
        for prefix in 0..self.policy.len() {
            for i in 0..3 {
                let moved = |step: f64| {
                    let mut other = self.clone();
                    other.policy[prefix][i] += step;
                    f(&other)
                };
                grad[prefix][i] = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            }
        }
        grad
    }

    /// The gradient at every prefix, weighted by how often the policy is there.
    fn at_prefixes(&self, grad: impl Fn([f64; 3], [f64; 3]) -> [f64; 3]) -> Grad {
        let mut reach = vec![0.0; self.policy.len()];
        for sequence in self.sequences() {
            // Each visit of a prefix is counted by the sequences that come through it.
            for &(prefix, _) in &sequence {
                reach[prefix] += self.probability(&sequence);
            }
        }
        let rows = self.policy.iter().zip(&self.reference).zip(reach);
        rows.map(|((&p, &q), reach)| grad(ln_softmax(p), ln_softmax(q)).map(|g| reach * g)).collect()
    }

    fn local(&self) -> Grad {
        self.at_prefixes(|p, q| {
            let d: f64 = (0..3).map(|i| p[i].exp() * (p[i] - q[i])).sum();
            [0, 1, 2].map(|i| p[i].exp() * (p[i] - q[i] - d))
        })
    }

    fn forward(&self) -> Grad {
        self.at_prefixes(|p, q| [0, 1, 2].map(|i| p[i].exp() - q[i].exp()))
    }

    /// `grad K` from the probabilities of whole sequences: `sum grad pi (ln(pi / pi_0) + 1)`.
    fn exact(&self) -> Grad {
        self.scored(|stats| {
            let l: f64 = stats.logp.iter().sum::<f64>() - stats.ref_logp.iter().sum::<f64>();
            vec![l + 1.0; stats.logp.len()]
        })
    }
}

const TINY: f64 = 1e-12;

#[test]
fn three_values_have_the_mean_of_the_sequences_divergence() {
    let small = Small::new();
    let (p, q): (Vec<f64>, Vec<f64>) = small
        .sequences()
        .iter()
        .map(|s| (small.probability(s), small.stats(s).ref_logp.iter().sum::<f64>().exp()))
        .unzip();
    assert!((p.iter().sum::<f64>() - 1.0).abs() < TINY && p.len() == 15);
    let exact = Divergence::ReverseKl.between(&p, &q);
    for estimator in [Estimator::K1, Estimator::K3, Estimator::Exact] {
        assert!((small.mean(estimator) - exact).abs() < TINY, "{estimator:?}");
    }
    assert!((small.mean(Estimator::K2) - exact).abs() > 1e-3, "k2 is biased");
}

#[test]
fn each_mode_follows_what_the_table_says() {
    let small = Small::new();
    let (exact, local, forward) = (small.exact(), small.local(), small.forward());
    assert!(close(&exact, &small.numeric(|s| s.mean(Estimator::K1)), 1e-9));
    let k2 = {
        let mut total =
            small.scored(|s| Credit::WholeSequence.returns(&values(Estimator::K2, s, 0..s.logp.len())));
        add(&mut total, 1.0, &small.scored(|s| (0..s.logp.len()).map(|row| log_ratio(s, row)).collect()));
        total
    };
    assert!(close(&k2, &small.numeric(|s| s.mean(Estimator::K2)), 1e-9));
    assert!(!close(&exact, &local, 1e-2), "prefixes matter");

    for estimator in Estimator::ALL {
        for mode in [Gradient::Exact, Gradient::PathwiseK2] {
            assert!(close(&small.followed(mode, estimator), &local, TINY), "{mode:?}");
        }
        assert_eq!(small.followed(Gradient::InReward, estimator), small.zeros());
        for credit in [Credit::WholeSequence, Credit::RewardToGo] {
            let (score, reward) = match estimator {
                Estimator::K1 => (exact.clone(), exact.clone()),
                Estimator::K2 => (difference(&k2, &local), difference(&k2, &local)),
                Estimator::K3 => (difference(&exact, &forward), difference(&exact, &forward)),
                Estimator::Exact => (exact.clone(), difference(&exact, &local)),
            };
            let got = small.followed(Gradient::ScoreFunction(credit), estimator);
            assert!(close(&got, &score, TINY), "{credit:?} {estimator:?}");
            // What a policy gradient of the values makes of them.
            let got = small.scored(|s| credit.returns(&values(estimator, s, 0..s.logp.len())));
            assert!(close(&got, &reward, TINY), "in reward: {credit:?} {estimator:?}");
        }
    }
    let immediate = small.scored(|s| values(Estimator::K1, s, 0..s.logp.len()));
    assert!(close(&immediate, &local, TINY));
}

#[test]
fn as_losses_k1_has_no_direction_and_k3_that_of_the_forward_kl() {
    let small = Small::new();
    let slopes: [fn(f64) -> f64; 3] = [|_| 1.0, |l| l, |l| -(-l).exp_m1()];
    let directions = [small.zeros(), small.local(), small.forward()];
    for ((estimator, slope), expected) in Estimator::ALL.into_iter().zip(slopes).zip(directions) {
        for l in [-1.2, 0.0, 0.4] {
            let numeric = (estimator.value(l + 1e-5, 0.0) - estimator.value(l - 1e-5, 0.0)) / 2e-5;
            assert!((numeric - slope(l)).abs() < 1e-9, "{estimator:?}");
        }
        let got = small.scored(|s| (0..s.logp.len()).map(|row| slope(log_ratio(s, row))).collect());
        assert!(close(&got, &expected, TINY), "{estimator:?}");
    }
}

#[test]
fn leaving_one_out_changes_no_expectation() {
    let (small, mut total) = (Small::new(), [Small::new().zeros(), Small::new().zeros()]);
    let sum = |s: &Sequence| values(Estimator::K1, &small.stats(s), 0..s.len()).iter().sum::<f64>();
    for a in small.sequences() {
        for b in small.sequences() {
            let weight = small.probability(&a) * small.probability(&b);
            let returns = [sum(&a), sum(&b)];
            let advantages = leave_one_out(&returns);
            for (total, credit) in total.iter_mut().zip([Credit::WholeSequence, Credit::RewardToGo]) {
                for (i, sequence) in [&a, &b].into_iter().enumerate() {
                    let mut out = Cotangent::default();
                    let (stats, baseline) = (small.stats(sequence), returns[i] - advantages[i]);
                    let mode = Gradient::ScoreFunction(credit);
                    mode.add(Estimator::K1, &stats, 0..sequence.len(), baseline, 0.5, &mut out);
                    add(total, weight, &small.backward(sequence, &out));
                }
            }
        }
    }
    for total in total {
        assert!(close(&total, &small.exact(), TINY));
    }
    assert_eq!(leave_one_out(&[3.0]), [3.0]);
}

/// HyPO, V1 to V3 of its card.
#[test]
fn the_surrogate_of_hypo() {
    let card = Small::card();
    let expected = vec![[0.195_121_344_544_52, -0.274_139_476_460_79, 0.079_018_131_916_27]];
    assert!((card.mean(Estimator::K1) - 0.291_283_703_422_80).abs() < 1e-13);
    for mode in [Gradient::Exact, Gradient::PathwiseK2, Gradient::ScoreFunction(Credit::WholeSequence)] {
        assert!(close(&card.followed(mode, Estimator::K1), &expected, 1e-13), "{mode:?}");
    }

    let drawn = [0, 0, 2, 1].map(|token| vec![(0, token)]);
    let returns = drawn.clone().map(|s| values(Estimator::K1, &card.stats(&s), 0..1)[0]);
    for (got, expected) in returns.iter().zip([
        0.672_820_330_963_25,
        0.672_820_330_963_25,
        0.572_820_330_963_25,
        -1.027_179_669_036_75,
    ]) {
        assert!((got - expected).abs() < 1e-13, "{returns:?}");
    }
    assert!((returns.iter().sum::<f64>() / 4.0 - 0.222_820_330_963_24).abs() < 1e-13);
    let advantages = leave_one_out(&returns);
    for (got, expected) in advantages.iter().zip([0.6, 0.6, 7.0 / 15.0, -5.0 / 3.0]) {
        assert!((got - expected).abs() < 1e-13, "{advantages:?}");
    }
    let surrogate: f64 = drawn.iter().zip(returns).map(|(s, r)| card.stats(s).logp[0] * r / 4.0).sum();
    assert!((surrogate + 0.004_227_642_687_93).abs() < 1e-13, "{surrogate}");
    let batch = |baseline: &dyn Fn(usize) -> f64| {
        let mut total = card.zeros();
        for (i, sequence) in drawn.iter().enumerate() {
            let mut out = Cotangent::default();
            let mode = Gradient::ScoreFunction(Credit::WholeSequence);
            mode.add(Estimator::K1, &card.stats(sequence), 0..1, baseline(i), 0.25, &mut out);
            add(&mut total, 1.0, &card.backward(sequence, &out));
        }
        total
    };
    let plain = vec![[0.222_457_796_479_27, -0.303_124_493_151_11, 0.080_666_696_671_84]];
    assert!(close(&batch(&|_| 0.0), &plain, 1e-13));
    let based = vec![[0.3, -5.0 / 12.0, 7.0 / 60.0]];
    assert!(close(&batch(&|i| returns[i] - advantages[i]), &based, 1e-13));
}

/// HyPO, V4: mass that no pair sees is free for DPO, and counts in the divergence.
#[test]
fn pairs_do_not_see_where_their_mass_goes() {
    let q: [f64; 3] = [0.5, 0.4, 0.1];
    for (c, expected) in
        [(1.0, 0.130_812_035_941_14), (0.1, 1.791_303_461_391_69), (0.001, 2.293_051_190_428_60)]
    {
        let p: [f64; 3] = [0.75 * c, 0.2 * c, 1.0 - 0.95 * c];
        let margin = 0.1 * ((p[0] / q[0]).ln() - (p[1] / q[1]).ln());
        assert!((sigmoid_loss(margin, 0.0).0 - 0.639_724_494_226_13).abs() < 1e-13);
        let divergence = Divergence::ReverseKl.between(&p, &q);
        assert!((divergence - expected).abs() < 1e-13, "{divergence}");
    }
}

/// KDRL, V1: derivatives of `mean k2` at eight tokens, as they stand in its loss with coefficient 0.002.
#[test]
fn the_pathwise_gradient_of_kdrl() {
    let minus_l = [0.3, 0.1, -1.5, 0.2, 0.6, -1.5, 0.05, 0.3];
    let stats =
        Stats { logp: minus_l.iter().map(|r| -r).collect(), ref_logp: vec![0.0; 8], ..Stats::default() };
    // Its policy gradient with advantages 1, -1, -1, 1 for 2, 3, 1 and 2 tokens.
    let mut out = Cotangent::default();
    out.logp.extend([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0].map(|a| a / 8.0));
    Gradient::PathwiseK2.add(Estimator::K2, &stats, 0..8, 0.0, 2e-3 / 8.0, &mut out);
    let expected =
        [-0.125_075, -0.125_025, 0.125_375, 0.124_95, 0.124_85, 0.125_375, -0.125_012_5, -0.125_075];
    for (got, expected) in out.logp.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-15, "{:?}", out.logp);
    }
}
