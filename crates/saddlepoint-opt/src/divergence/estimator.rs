//! Values of divergences from samples.
//!
//! With `l = ln(p / q)` of one sample, a token or a whole sequence, and `u = q / p = e^-l`:
//! ```text
//! name    value of the reverse KL    samples of the policy p      derivative at a fixed sample, by ln p
//! k1      l = -ln u                  unbiased                     1           its mean over samples is 0
//! k2      l^2 / 2                    E k2 = KL + O(l^3)           l           ... the gradient of KL(p || q)
//! k3      u - 1 - ln u               unbiased, >= 0               1 - u       ... the gradient of KL(q || p)
//! exact   sum over the vocabulary    no noise of the token
//! ```
//! (Schulman 2020, "Approximating KL divergence".) The last column is why a value is not a loss: what automatic
//! differentiation makes of k1 has no direction, and of k3 that of the other KL. Gradients are chosen by themselves.
//!
//! Any divergence of the list is estimated from samples of the policy by `f(e^l) e^-l` ([`Divergence::from_policy`]) and
//! from samples of the reference by `f(e^l)` ([`Divergence::from_reference`]); both are `>= 0` at every sample and, where
//! both distributions have all outcomes, unbiased. For the reverse KL the first is k3. Of sequences, `l` is the sum over
//! tokens: this is then the divergence of the distributions of whole sequences, which for all but the KLs is another quantity
//! than a sum over tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Divergence;

/// How the reverse KL of a token is valued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// `l`: unbiased, of either sign.
    K1,
    /// `l^2 / 2`: biased, never negative.
    K2,
    /// `e^-l - 1 + l`: unbiased, never negative.
    K3,
    /// The sum over the vocabulary.
    Exact,
}

impl Estimator {
    /// One of each.
    pub const ALL: [Self; 4] = [Self::K1, Self::K2, Self::K3, Self::Exact];

    /// The value, nats, of a token that the policy sampled: `l = ln(p / q)` of the token, `exact` the divergence of the
    /// two distributions that it was sampled from.
    pub fn value(self, l: f64, exact: f64) -> f64 {
        match self {
            Self::K1 => l,
            Self::K2 => 0.5 * l * l,
            Self::K3 => (-l).exp_m1() + l,
            Self::Exact => exact,
        }
    }
}

impl Divergence {
    /// `f(e^l) e^-l`: unbiased for the divergence over samples of the policy, of which `l = ln(p / q)`.
    pub fn from_policy(self, l: f64) -> f64 {
        self.f(l) * (-l).exp()
    }

    /// `f(e^l)`: unbiased for the divergence over samples of the reference, of which `l = ln(p / q)`.
    pub fn from_reference(self, l: f64) -> f64 {
        self.f(l)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tokens each, the second's distribution depending on the first: probabilities of the six sequences.
    fn sequences(first: [f64; 2], second: [[f64; 3]; 2]) -> Vec<f64> {
        first.iter().zip(second).flat_map(|(a, row)| row.map(|b| a * b)).collect()
    }

    fn distributions() -> (Vec<f64>, Vec<f64>) {
        (
            sequences([0.7, 0.3], [[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]]),
            sequences([0.4, 0.6], [[0.25, 0.25, 0.5], [0.3, 0.6, 0.1]]),
        )
    }

    #[test]
    fn every_divergence_of_sequences_is_the_mean_of_either_sides_samples() {
        let (p, q) = distributions();
        for kind in Divergence::ALL {
            let exact = kind.between(&p, &q);
            let pairs = || p.iter().zip(&q).map(|(&p, &q)| (p, q, (p / q).ln()));
            let policy: f64 = pairs().map(|(p, _, l)| p * kind.from_policy(l)).sum();
            let reference: f64 = pairs().map(|(_, q, l)| q * kind.from_reference(l)).sum();
            assert!((policy - exact).abs() < 1e-14, "{kind}: {policy} against {exact}");
            assert!((reference - exact).abs() < 1e-14, "{kind}: {reference} against {exact}");
            assert!(pairs().all(|(_, _, l)| kind.from_policy(l) >= 0.0 && kind.from_reference(l) >= 0.0));
        }
        let l = 0.3;
        assert!((Divergence::ReverseKl.from_policy(l) - Estimator::K3.value(l, 0.0)).abs() < 1e-15);
    }

    #[test]
    fn values_of_the_reverse_kl() {
        // ln p and ln q from the logits of the card of KDRL, V4; with the teacher as q.
        let normal = |z: [f64; 3]| {
            let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            z.map(|z| z - lse)
        };
        let (lp, lq) = (normal([0.7, -0.2, 0.1]), normal([0.1, 0.9, -0.4]));
        let exact: f64 = lp.iter().zip(lq).map(|(&p, q)| p.exp() * (p - q)).sum();
        for (estimator, expected) in Estimator::ALL.into_iter().zip([
            0.291_283_703_422_80,
            0.271_490_746_335_71,
            0.291_283_703_422_80,
            0.291_283_703_422_80,
        ]) {
            let mean: f64 = lp.iter().zip(lq).map(|(&p, q)| p.exp() * estimator.value(p - q, exact)).sum();
            assert!((mean - expected).abs() < 1e-14, "{estimator:?}: {mean}");
        }
        // V1: log-ratios of eight tokens.
        let l = [-0.3, -0.1, 1.5, -0.2, -0.6, 1.5, -0.05, -0.3];
        for (estimator, expected) in
            [(Estimator::K1, 0.18125), (Estimator::K2, 0.318_281_25), (Estimator::K3, 0.224_492_688_556_40)]
        {
            let mean = l.iter().map(|&l| estimator.value(l, f64::NAN)).sum::<f64>() / 8.0;
            assert!((mean - expected).abs() < 1e-14, "{estimator:?}: {mean}");
        }
    }
}
