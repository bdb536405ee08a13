//! Divergences of one distribution from another, as one closed list: `D(p, q) = sum q f(p / q)`, in nats.
//!
//! `p` is the policy and `q` the reference. Each `f` is convex with `f(1) = f'(1) = 0`, which a multiple of `u - 1` brings
//! about without changing the divergence. Everything is a function of the log-ratio `l = ln(p / q)`, so that
//! neither tail overflows where the result does not.
//!
//! | name | `f(u)` | `f'(u)` | `f'` at 0 and at infinity |
//! |---|---|---|---|
//! | `reverse_kl` | `u ln u - u + 1` | `ln u` | -inf, inf |
//! | `forward_kl` | `u - 1 - ln u` | `1 - 1/u` | -inf, 1 |
//! | `jensen_shannon` | `(u ln u - (u + 1) ln((u + 1)/2)) / 2` | `ln(2u/(1 + u)) / 2` | -inf, `ln(2)/2` |
//! | `alpha` | `(u^(1-a) - (1-a) u - a) / (a (a-1))` | `(1 - u^-a) / a` | -inf, `1/a` |
//! | `jeffreys` | `(u - 1) ln u` | `ln u + 1 - 1/u` | -inf, inf |
//! | `total_variation` | `abs(u - 1) / 2` | `sign(u - 1) / 2` | -1/2, 1/2 |
//! | `chi_squared` | `(u - 1)^2` | `2 (u - 1)` | -2, inf |
//! | `hellinger` | `(sqrt u - 1)^2 / 2` | `(1 - 1/sqrt u) / 2` | -inf, 1/2 |
//!
//! `alpha` has two parametrisations in print: ours is that of f-DPO (arXiv:2309.16240), in which 0 is the reverse and 1 the
//! forward KL; TRL's `f_alpha_divergence_coef` is `1 - a`. `alpha` at 1/2 is four times `hellinger`.

mod estimator;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use estimator::Estimator;

use crate::{Error, Result};

/// A divergence `D(p, q) = sum q f(p / q)` of the policy `p` from the reference `q`, nats.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// `KL(p || q) = sum p ln(p / q)`: mode seeking, the one of RLHF and DPO.
    #[default]
    ReverseKl,
    /// `KL(q || p) = sum q ln(q / p)`: mass covering.
    ForwardKl,
    /// `(KL(p || m) + KL(q || m)) / 2` with `m = (p + q) / 2`; at most `ln 2`.
    JensenShannon,
    /// `(1 - sum p^(1-a) q^a) / (a (1 - a))` with `a` in (0, 1): reverse KL towards 0, forward KL towards 1. TRL's coefficient
    /// is `1 - a`.
    Alpha(
        #[schemars(
            description = "The alpha divergence with this `a` in (0, 1): reverse KL towards 0, forward KL towards 1."
        )]
        f64,
    ),
    /// `KL(p || q) + KL(q || p)`.
    Jeffreys,
    /// `sum abs(p - q) / 2`; at most 1.
    TotalVariation,
    /// `sum (p - q)^2 / q`.
    ChiSquared,
    /// Squared Hellinger distance `1 - sum sqrt(p q)`; at most 1.
    Hellinger,
}

use Divergence::{
    Alpha, ChiSquared, ForwardKl, Hellinger, Jeffreys, JensenShannon, ReverseKl, TotalVariation,
};

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl fmt::Display for Divergence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ReverseKl => "reverse_kl",
            ForwardKl => "forward_kl",
            JensenShannon => "jensen_shannon",
            Alpha(a) => return write!(out, "alpha={a}"),
            Jeffreys => "jeffreys",
            TotalVariation => "total_variation",
            ChiSquared => "chi_squared",
            Hellinger => "hellinger",
        })
    }
}

impl FromStr for Divergence {
    type Err = Error;

    /// The name as in a file, or `alpha=0.3`.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(a) = text.strip_prefix("alpha=") {
            let problem = || format!("`{a}` is not a number in (0, 1)");
            let kind =
                a.parse().map(Alpha).map_err(|_| Error::Setting { key: "alpha", problem: problem() })?;
            return kind.check().map(|()| kind);
        }
        let known = || Self::ALL.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
        Self::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| Error::Setting {
            key: "divergence",
            problem: format!("`{text}` is unknown, expected one of {}", known()),
        })
    }
}

impl Divergence {
    /// One of each kind.
    pub const ALL: [Self; 8] =
        [ReverseKl, ForwardKl, JensenShannon, Alpha(0.5), Jeffreys, TotalVariation, ChiSquared, Hellinger];

    /// Refuses an `alpha` outside (0, 1).
    ///
    /// # Errors
    /// As said.
    pub fn check(self) -> Result<()> {
        match self {
            Alpha(a) if !(a > 0.0 && a < 1.0) => {
                let problem = format!(
                    "must be in (0, 1), got {a}; towards 0 it is reverse_kl, towards 1 forward_kl, which are kinds of \
                     their own"
                );
                Err(Error::Setting { key: "alpha", problem })
            }
            _ => Ok(()),
        }
    }

    /// `f(u)` at `u = e^l`.
    pub fn f(self, l: f64) -> f64 {
        // u - 1 and ln u are exact near u = 1 only in this form.
        let less = l.exp_m1();
        match self {
            ReverseKl => l * l.exp() - less,
            ForwardKl => less - l,
            JensenShannon => 0.5 * (l.exp() * (l - half(l)) - half(l)),
            // Of two equal forms, the one that keeps its digits towards its end of the range.
            Alpha(a) if a < 0.5 => (-l.exp() * (-a * l).exp_m1() / a - less) / (1.0 - a),
            Alpha(a) => (less - ((1.0 - a) * l).exp_m1() / (1.0 - a)) / a,
            Jeffreys => less * l,
            TotalVariation => 0.5 * less.abs(),
            ChiSquared => less * less,
            Hellinger => 0.5 * (0.5 * l).exp_m1().powi(2),
        }
    }

    /// `f'(u)` at `u = e^l`: what an optimum's reward is an affine function of.
    pub fn slope(self, l: f64) -> f64 {
        match self {
            ReverseKl => l,
            ForwardKl => -(-l).exp_m1(),
            JensenShannon => 0.5 * (2.0_f64.ln() - softplus(-l)),
            Alpha(a) => -(-a * l).exp_m1() / a,
            Jeffreys => l - (-l).exp_m1(),
            TotalVariation if l == 0.0 => 0.0,
            TotalVariation => 0.5_f64.copysign(l),
            ChiSquared => 2.0 * l.exp_m1(),
            Hellinger => -0.5 * (-0.5 * l).exp_m1(),
        }
    }

    /// `d f'(e^l) / dl`, which is not negative.
    pub fn slope_rate(self, l: f64) -> f64 {
        match self {
            ReverseKl => 1.0,
            ForwardKl => (-l).exp(),
            JensenShannon => 0.5 * (-softplus(l)).exp(),
            Alpha(a) => (-a * l).exp(),
            Jeffreys => 1.0 + (-l).exp(),
            TotalVariation => 0.0,
            ChiSquared => 2.0 * l.exp(),
            Hellinger => 0.25 * (-0.5 * l).exp(),
        }
    }

    /// The log-ratio at which `f'` is `y`; none where `f'` never is, and for the total variation, whose `f'` is a step.
    pub fn inverse_slope(self, y: f64) -> Option<f64> {
        let (low, high) = self.slope_range();
        if !(low < y && y < high) {
            return None;
        }
        match self {
            ReverseKl => Some(y),
            ForwardKl => Some(-(-y).ln_1p()),
            // 2 e^(-2y) - 1, of which expm1 keeps the digits at both ends.
            JensenShannon => Some(-(2.0 * (-2.0 * y).exp_m1()).ln_1p()),
            Alpha(a) => Some(-(-a * y).ln_1p() / a),
            Jeffreys => Some(jeffreys_inverse(y)),
            TotalVariation => None,
            ChiSquared => Some((0.5 * y).ln_1p()),
            Hellinger => Some(-2.0 * (-2.0 * y).ln_1p()),
        }
    }

    /// `f'` towards `u = 0` and towards infinity.
    pub fn slope_range(self) -> (f64, f64) {
        let (least, most) = (f64::NEG_INFINITY, f64::INFINITY);
        match self {
            ReverseKl | Jeffreys => (least, most),
            ForwardKl => (least, 1.0),
            JensenShannon => (least, 0.5 * 2.0_f64.ln()),
            Alpha(a) => (least, 1.0 / a),
            TotalVariation => (-0.5, 0.5),
            ChiSquared => (-2.0, most),
            Hellinger => (least, 0.5),
        }
    }

    /// Whether the optimum of a reward under this divergence keeps every outcome of the reference (`f'` falls without bound
    /// towards 0), so that the reward is an affine function of `f'` everywhere.
    pub fn keeps_support(self) -> bool {
        self.slope_range().0 == f64::NEG_INFINITY
    }

    /// `D(p, q)` of two distributions over the same outcomes, nats; an outcome that neither has counts for nothing.
    pub fn between(self, p: &[f64], q: &[f64]) -> f64 {
        let (_, high) = self.slope_range();
        let term = |(&p, &q): (&f64, &f64)| match (p > 0.0, q > 0.0) {
            (false, false) => 0.0,
            // The limits q f(0) and p f'(infinity).
            (false, true) => q * self.f_at_zero(),
            (true, false) => p * high,
            (true, true) => q * self.f((p / q).ln()),
        };
        p.iter().zip(q).map(term).sum()
    }

    /// `f(0)`.
    fn f_at_zero(self) -> f64 {
        match self {
            ReverseKl | ChiSquared => 1.0,
            ForwardKl | Jeffreys => f64::INFINITY,
            JensenShannon => 0.5 * 2.0_f64.ln(),
            Alpha(a) => 1.0 / (1.0 - a),
            TotalVariation | Hellinger => 0.5,
        }
    }

    /// The distribution that maximises `E_p[reward] - beta D(p, q)`, and the multiplier `lambda` of its sum:
    /// `reward = beta f'(p / q) + lambda` (f-DPO, arXiv:2309.16240, theorem 1). None for a divergence that does not keep the
    /// support.
    pub fn optimum(self, q: &[f64], reward: &[f64], beta: f64) -> Option<(Vec<f64>, f64)> {
        if !self.keeps_support() || q.is_empty() || q.len() != reward.len() || beta <= 0.0 || beta.is_nan() {
            return None;
        }
        let tilted = |lambda: f64| -> Vec<f64> {
            // Above the range of f' the ratio has left every bound.
            let ratio = |r: f64| self.inverse_slope((r - lambda) / beta).map_or(f64::INFINITY, f64::exp);
            q.iter().zip(reward).map(|(&q, &r)| q * ratio(r)).collect()
        };
        // At the largest reward all ratios are at most 1, at the smallest at least 1; the sum falls with lambda.
        let mut high = reward.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut low = reward.iter().copied().fold(f64::INFINITY, f64::min);
        while low < high {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high {
                break;
            }
            if tilted(middle).iter().sum::<f64>() > 1.0 { low = middle } else { high = middle }
        }
        Some((tilted(high), high))
    }
}

/// `ln((1 + e^l) / 2)`
fn half(l: f64) -> f64 {
    softplus(l) - 2.0_f64.ln()
}

/// Solves `l + 1 - e^-l = y` by Newton's method: the left side is concave and increasing, so from below it never overshoots.
fn jeffreys_inverse(y: f64) -> f64 {
    let mut l = if y > 0.0 { 0.5 * y } else { -(1.0 - y).ln_1p().max(0.0) };
    for _ in 0..100 {
        let step = (y - Jeffreys.slope(l)) / Jeffreys.slope_rate(l);
        l += step;
        if step.abs() <= 1e-15 * l.abs().max(1e-15) {
            break;
        }
    }
    l
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHAS: [Divergence; 4] = [Alpha(0.3), Alpha(0.7), Alpha(1e-6), Alpha(1.0 - 1e-6)];

    fn all() -> impl Iterator<Item = Divergence> {
        Divergence::ALL.into_iter().chain(ALPHAS)
    }

    #[test]
    fn the_slope_is_the_derivative_of_f_and_its_rate_that_of_the_slope() {
        for kind in all() {
            assert_eq!((kind.f(0.0), kind.slope(0.0)), (0.0, 0.0), "{kind:?}");
            for l in [-4.0_f64, -1.3, -0.1, 0.2, 0.9, 3.0] {
                let step = 1e-5;
                let numeric = (kind.f(l + step) - kind.f(l - step)) / (2.0 * step) / l.exp();
                let error = (numeric - kind.slope(l)).abs() / kind.slope(l).abs().max(1.0);
                assert!(error < 1e-6, "{kind:?} at {l}: {} against {numeric}", kind.slope(l));
                let numeric = (kind.slope(l + step) - kind.slope(l - step)) / (2.0 * step);
                let error = (numeric - kind.slope_rate(l)).abs() / kind.slope_rate(l).max(1.0);
                assert!(error < 1e-6, "{kind:?} at {l}: {} against {numeric}", kind.slope_rate(l));
            }
        }
    }

    #[test]
    fn the_inverse_of_the_slope_gives_the_ratio_back() {
        for kind in all().filter(|&kind| kind != TotalVariation) {
            for l in [-5.0, -1.0, -1e-7, 0.0, 1e-7, 0.4, 2.0, 5.0] {
                let back = kind.inverse_slope(kind.slope(l)).expect("within the range");
                assert!((back - l).abs() < 1e-9 * l.abs().max(1.0), "{kind:?} at {l}: {back}");
            }
            let (low, high) = kind.slope_range();
            assert_eq!((kind.inverse_slope(low), kind.inverse_slope(high)), (None, None), "{kind:?}");
            assert!(
                (kind.slope(-700.0) <= low + 1e-12 || low == f64::NEG_INFINITY) && kind.slope(700.0) <= high
            );
        }
        assert_eq!(TotalVariation.inverse_slope(0.1), None);
    }

    /// Reference values, and sums written out.
    #[test]
    fn divergences_of_two_distributions() {
        let (p, q) = ([0.5, 0.3, 0.2], [0.25, 0.25, 0.5]);
        let sum = |term: fn(f64, f64) -> f64| p.iter().zip(q).map(|(&p, q)| term(p, q)).sum::<f64>();
        for (kind, expected) in [
            (ReverseKl, 0.218_011_910_943_33),
            (ForwardKl, 0.239_278_181_598_60),
            (JensenShannon, 0.5 * 0.111_164_941_726_94),
            (Alpha(0.3), 0.221_741_031_691_96),
            (Alpha(0.5), 0.225_430_258_549_22),
            (Alpha(0.7), 0.230_142_895_656_05),
            (Jeffreys, 0.218_011_910_943_33 + 0.239_278_181_598_60),
            (TotalVariation, sum(|p, q| 0.5 * (p - q).abs())),
            (ChiSquared, sum(|p, q| (p - q).powi(2) / q)),
            (Hellinger, 1.0 - sum(|p, q| (p * q).sqrt())),
        ] {
            let got = kind.between(&p, &q);
            assert!((got - expected).abs() < 1e-13, "{kind:?}: {got} against {expected}");
        }
    }

    #[test]
    fn outcomes_that_only_one_has_count_with_their_limits() {
        for (kind, only_p, only_q) in [
            (ReverseKl, f64::INFINITY, 2.0_f64.ln()),
            (ForwardKl, 2.0_f64.ln(), f64::INFINITY),
            (TotalVariation, 0.5, 0.5),
            (ChiSquared, f64::INFINITY, 1.0),
            (Hellinger, 1.0 - 0.5_f64.sqrt(), 1.0 - 0.5_f64.sqrt()),
        ] {
            let got = [kind.between(&[0.5, 0.5], &[1.0, 0.0]), kind.between(&[1.0, 0.0], &[0.5, 0.5])];
            for (got, expected) in got.into_iter().zip([only_p, only_q]) {
                assert!(
                    (got.is_infinite() && expected.is_infinite()) || (got - expected).abs() < 1e-15,
                    "{kind:?}: {got} against {expected}"
                );
            }
        }
        assert!((JensenShannon.between(&[1.0, 0.0], &[0.0, 1.0]) - 2.0_f64.ln()).abs() < 1e-15);
        assert!((Alpha(0.25).between(&[1.0, 0.0], &[0.0, 1.0]) - 16.0 / 3.0).abs() < 1e-14);
    }

    #[test]
    fn alpha_goes_from_one_kl_to_the_other() {
        let gap = |kind: Divergence| kind.slope(0.8) - kind.slope(-0.5);
        assert!((gap(Alpha(1e-6)) - 1.299_999_805_000_11).abs() < 1e-13);
        assert!((gap(Alpha(1.0 - 1e-6)) - 1.199_392_322_151_48).abs() < 1e-13);
        assert!((gap(ForwardKl) - 1.199_392_306_582_91).abs() < 1e-13);
        assert!((gap(ReverseKl) - 1.3).abs() < 1e-15);
        for l in [-2.0, 0.7] {
            assert!((Alpha(0.5).f(l) - 4.0 * Hellinger.f(l)).abs() < 1e-14);
        }
    }

    /// Reference values of f-DPO's optimum; where they were made with an `f'` shifted by a constant, lambda is too.
    #[test]
    fn the_optimum_of_a_reward_under_a_divergence() {
        let (q, r, beta) = ([0.2, 0.3, 0.5], [1.0, 0.2, -0.6], 0.5);
        for (kind, weight, expected, lambda) in [
            (
                ReverseKl,
                1.0,
                [0.711_870_294_171_51, 0.215_586_200_485_59, 0.072_543_505_342_90],
                beta - 0.134_789_178_57,
            ),
            (
                ForwardKl,
                1.0,
                [0.697_590_293_032_45, 0.159_007_687_121_38, 0.143_402_019_846_17],
                1.143_350_618_55 - beta,
            ),
            // Theirs is twice ours.
            (
                JensenShannon,
                2.0,
                [0.922_981_997_832_15, 0.059_686_053_508_85, 0.017_331_948_659],
                0.751_493_006_64,
            ),
            (
                Alpha(0.5),
                1.0,
                [0.719_234_639_624_82, 0.170_280_784_494_15, 0.110_484_575_881_03],
                0.527_326_625_46,
            ),
        ] {
            let (p, multiplier) = kind.optimum(&q, &r, weight * beta).expect("keeps the support");
            for (got, expected) in p.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12, "{kind:?}: {p:?}");
            }
            assert!((multiplier - lambda).abs() < 1e-9, "{kind:?}: {multiplier} against {lambda}");
            let reward = |i: usize| weight * beta * kind.slope((p[i] / q[i]).ln());
            assert!((reward(0) - reward(1) - 0.8).abs() < 1e-12, "{kind:?}");
        }
        assert_eq!(ChiSquared.optimum(&q, &r, beta), None);
    }

    #[test]
    fn names_in_a_file() {
        for (kind, text) in [
            (ReverseKl, "\"reverse_kl\""),
            (JensenShannon, "\"jensen_shannon\""),
            (Alpha(0.25), "{\"alpha\":0.25}"),
            (Hellinger, "\"hellinger\""),
        ] {
            assert_eq!(serde_json::to_string(&kind).expect("serialises"), text);
            assert_eq!(serde_json::from_str::<Divergence>(text).expect("parses"), kind);
        }
        for kind in all() {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for (text, problem) in [
            (
                "kl",
                "divergence: `kl` is unknown, expected one of `reverse_kl`, `forward_kl`, `jensen_shannon`, `alpha=0.5`",
            ),
            ("alpha=x", "alpha: `x` is not a number in (0, 1)"),
            ("alpha=2", "alpha: must be in (0, 1), got 2"),
        ] {
            let message = text.parse::<Divergence>().expect_err("refused").to_string();
            assert!(message.starts_with(problem), "{message}");
        }
        let message = Alpha(1.0).check().expect_err("refused").to_string();
        assert!(message.starts_with("alpha: must be in (0, 1), got 1"), "{message}");
    }
}
