//! TDPO: direct preference optimisation token by token, with the exact sequential KL in its margin.
//!
//! # Objective
//! ```text
//! D(y) = Σ_t ln π(y_t|s_t) − ln π₀(y_t|s_t)            K(y) = Σ_t KL( π₀(·|s_t) || π(·|s_t) )
//! tdpo1:  L = − E ln σ( β [ D(y⁺) − D(y⁻) −    ( K(y⁻) −    K(y⁺)  ) ] )
//! tdpo2:  L = − E ln σ( β [ D(y⁺) − D(y⁻) − α ( K(y⁻) − sg(K(y⁺)) ) ] )
//! ```
//! `sg` keeps the value and drops the derivative: TDPO1 rewards drift on the chosen completion (its K grows), TDPO2 only holds
//! the rejected one back. K is the forward KL, exact over the vocabulary, in nats a sequence; nothing is divided by lengths. With α = 0
//! TDPO2 is DPO.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | variant | | tdpo2 | tdpo1, tdpo2 | which of the two; the authors' code has one default in its function and the other in its file |
//! | alpha | α | 0.5 | >= 0 | weight of the KL terms; only for tdpo2 |
//! # Metrics
//! Those of `dpo`, with `rewards/…` β (D + K) · `seq_kl/chosen`, `seq_kl/rejected` mean K, nats a sequence ·
//! `seq_kl/margins` mean of K(y⁺) − K(y⁻).
//! # Reference
//! Zeng et al. 2024, arXiv:2404.11999, eqs. 14 to 18.
//! # Differences
//! The authors take the logarithm of a softmax for the reference, which is not a number where a probability underflows; here
//! both are log-softmaxes. The authors train with a ten times higher learning rate than DPO's (5e-6, RMSprop).
//! # Checked against
//! finite differences, the loss and the logit gradients of the authors' definition (closed vectors and
//! `tests/golden/tdpo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, refuse, sigmoid_loss};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Divergence, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "tdpo",
    family: Family::Preferences,
    input: Input::Pairs,
    paper: "arXiv:2404.11999",
    status: Status::Preview,
    slug: Some("tdpo"),
    summary: "DPO with the exact token-level KL in its margin",
    learning_rate: 1e-6,
};

/// Settings. The checks are in [`Tdpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TdpoConfig {
    /// Strength of the pull to the reference, > 0. A tether replaces it.
    pub beta: f64,
    /// Which of the two losses.
    pub variant: Variant,
    /// Weight of the KL terms, >= 0; only for `tdpo2`.
    pub alpha: f64,
}

impl Default for TdpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, variant: Variant::Tdpo2, alpha: 0.5 }
    }
}

/// The losses of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Both KL terms as they follow from the token-level model.
    Tdpo1,
    /// The chosen completion's KL without its derivative, and a weight.
    Tdpo2,
}

/// The method.
#[derive(Debug, Clone)]
pub struct Tdpo {
    config: TdpoConfig,
}

impl Tdpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: TdpoConfig) -> Result<Self> {
        let default = TdpoConfig::default();
        positive("beta", config.beta, default.beta)?;
        if !(config.alpha >= 0.0 && config.alpha.is_finite()) {
            refuse("alpha", format!("must be >= 0, got {} (default {})", config.alpha, default.alpha))?;
        }
        Ok(Self { config })
    }
}

impl Method for Tdpo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { ref_logp: true, divergence: Some(Divergence::ForwardKl), ..Want::default() }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.config.beta)
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let beta = view.beta.unwrap_or(self.config.beta);
        // Weights of the KL terms in the margin, and of the chosen completion's in the derivative.
        let (weight, chosen_weight) = match self.config.variant {
            Variant::Tdpo1 => (1.0, 1.0),
            Variant::Tdpo2 => (self.config.alpha, 0.0),
        };
        out.logp.resize(view.stats.logp.len(), 0.0);
        out.divergence.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for pair in view.pairs() {
            let [a, b] = pair.log_ratios(view.stats);
            let [kl_a, kl_b] = pair.totals(&view.stats.divergence);
            let (value, slope) = sigmoid_loss(beta * (a - b - weight * (kl_b - kl_a)), 0.0);
            let cotangent = beta * slope / view.norm.pairs as f64;
            pair.spread([cotangent, -cotangent], &mut out.logp);
            pair.spread([chosen_weight * cotangent, -weight * cotangent], &mut out.divergence);
            pair.report(view.stats, value, [beta * (a + kl_a), beta * (b + kl_b)], &mut sums);
            sums.add("seq_kl/chosen", kl_a, Per::Pair);
            sums.add("seq_kl/rejected", kl_b, Per::Pair);
            sums.add("seq_kl/margins", kl_a - kl_b, Per::Pair);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Stats;
    use crate::method::Norm;
    use crate::method::dpo::{Dpo, DpoConfig};

    /// Logits of the policy and of the reference, and the token, for each place of a completion of three words.
    type Tokens<'a> = &'a [([f64; 3], [f64; 3], usize)];

    /// Derivatives by the logits, for four places.
    type Gradient = [[f64; 3]; 4];

    fn log_softmax(z: [f64; 3]) -> [f64; 3] {
        let lse = z.map(f64::exp).iter().sum::<f64>().ln();
        z.map(|z| z - lse)
    }

    fn stats(pair: [Tokens<'_>; 2]) -> Stats {
        let mut stats = Stats::default();
        for &(policy, reference, token) in pair.into_iter().flatten() {
            let (lp, lr) = (log_softmax(policy), log_softmax(reference));
            stats.logp.push(lp[token]);
            stats.ref_logp.push(lr[token]);
            stats.divergence.push((0..3).map(|v| lr[v].exp() * (lr[v] - lp[v])).sum());
            stats.top1.push(false);
        }
        stats
    }

    fn run(method: &dyn Method, pair: [Tokens<'_>; 2]) -> (f64, f64, Cotangent) {
        let stats = stats(pair);
        let (n, all) = (pair[0].len(), stats.logp.len());
        let norm = Norm { tokens: all, sequences: 2, pairs: 1, desirable: 0 };
        let sequences = [0..n, n..all];
        let view = View::new(&sequences, &stats, norm);
        let mut out = Cotangent::default();
        let means = method.loss(&view, &mut out).means(norm);
        let of = |name| means.iter().find(|(known, _)| *known == name).expect("a metric").1;
        (of("loss"), of("rewards/margins"), out)
    }

    fn tdpo(variant: Variant, alpha: f64) -> Tdpo {
        Tdpo::new(TdpoConfig { variant, alpha, ..TdpoConfig::default() }).expect("valid")
    }

    fn dpo() -> Dpo {
        Dpo::new(DpoConfig::default()).expect("valid")
    }

    const CHOSEN: Tokens<'_> =
        &[([1.0, 0.0, -1.0], [0.4, 0.1, -0.2], 0), ([0.5, 0.2, 0.0], [0.0, 0.3, 0.1], 1)];
    const REJECTED: Tokens<'_> =
        &[([0.2, -0.4, 1.2], [0.5, 0.0, 0.3], 1), ([-0.3, 0.6, 0.0], [0.1, 0.1, -0.4], 1)];

    #[test]
    fn losses_and_logit_gradients_of_the_definition() {
        let pair = [CHOSEN, REJECTED];
        let (all, sums) = (stats(pair), |v: &[f64]| v.iter().sum::<f64>());
        assert!((sums(&all.divergence[..2]) - 0.181_071_286_393_03).abs() < 1e-13);
        assert!((sums(&all.divergence[2..]) - 0.266_022_357_183_73).abs() < 1e-13);
        let gradients: [(Box<dyn Method>, f64, Gradient); 3] = [
            (
                Box::new(dpo()),
                0.664_330_365_044_15,
                [
                    [-0.016_248_600_818_885_4, 0.011_878_679_019_380_7, 0.004_369_921_799_504_7],
                    [0.020_677_879_862_158_1, -0.033_219_647_976_411_5, 0.012_541_768_114_253_3],
                    [-0.011_375_002_339_783_4, 0.042_295_464_498_695_9, -0.030_920_462_158_912_4],
                    [-0.010_092_230_474_745_7, 0.023_715_316_669_168_2, -0.013_623_086_194_422_5],
                ],
            ),
            (
                Box::new(tdpo(Variant::Tdpo1, 0.5)),
                0.668_462_750_814_81,
                [
                    [-0.027_458_585_134_484_1, 0.015_773_378_752_740_3, 0.011_685_206_381_743_9],
                    [0.014_109_985_511_024_2, -0.029_703_931_152_276_9, 0.015_593_945_641_252_7],
                    [-0.020_101_098_839_076_6, 0.036_558_486_629_288_9, -0.016_457_387_790_212_1],
                    [-0.018_703_182_787_221_6, 0.030_047_236_581_881_1, -0.011_344_053_794_659_5],
                ],
            ),
            (
                Box::new(tdpo(Variant::Tdpo2, 0.5)),
                0.666_394_304_375_24,
                [
                    [-0.016_284_120_260_766_2, 0.011_904_645_812_075_8, 0.004_379_474_448_690_4],
                    [0.020_723_081_708_161_3, -0.033_292_266_127_891_1, 0.012_569_184_419_729_9],
                    [-0.015_728_606_088_792_8, 0.039_433_415_446_496_5, -0.023_704_809_357_703_7],
                    [-0.014_388_381_506_776_5, 0.026_874_495_037_705_8, -0.012_486_113_530_929_3],
                ],
            ),
        ];
        for (method, loss, expected) in gradients {
            let (got, _, cotangent) = run(&*method, pair);
            assert!((got - loss).abs() < 1e-13, "{}: {got}", method.meta().name);
            for (row, (&(policy, reference, token), expected)) in
                pair.into_iter().flatten().zip(expected).enumerate()
            {
                let (p, q) = (log_softmax(policy).map(f64::exp), log_softmax(reference).map(f64::exp));
                for v in 0..3 {
                    let by_logp = cotangent.logp[row] * (f64::from(v == token) - p[v]);
                    let by_kl = cotangent.divergence.get(row).copied().unwrap_or(0.0) * (p[v] - q[v]);
                    assert!((by_logp + by_kl - expected[v]).abs() < 1e-15, "row {row}, word {v}");
                }
            }
        }
        let (_, margin, _) = run(&tdpo(Variant::Tdpo2, 0.5), pair);
        assert!(
            (margin - (0.038_839_999_737_00 + 0.011_153_635_586_29)).abs() < 1e-13,
            "rewards have no alpha"
        );
    }

    #[test]
    fn completions_of_different_lengths() {
        let chosen: Tokens<'_> = &[([0.3, 0.0, -0.6], [0.0, 0.2, -0.1], 0)];
        let rejected: Tokens<'_> = &[
            ([0.5, 0.5, -1.0], [0.1, 0.4, -0.3], 2),
            ([1.0, 0.2, 0.1], [0.6, 0.0, 0.3], 1),
            ([-0.2, 0.0, 0.9], [0.2, 0.1, 0.0], 0),
        ];
        for (method, loss) in [
            (&dpo() as &dyn Method, 0.606_701_308_751_65),
            (&tdpo(Variant::Tdpo1, 0.5), 0.616_479_213_131_94),
            (&tdpo(Variant::Tdpo2, 0.5), 0.611_576_089_990_68),
        ] {
            let (got, ..) = run(method, [chosen, rejected]);
            assert!((got - loss).abs() < 1e-13, "{got} against {loss}");
        }
    }

    #[test]
    fn without_weight_it_is_dpo_and_with_weight_one_it_has_tdpo1s_value() {
        let pair = [CHOSEN, REJECTED];
        let (loss, _, cotangent) = run(&tdpo(Variant::Tdpo2, 0.0), pair);
        let (expected, _, other) = run(&dpo(), pair);
        assert!(loss.to_bits() == expected.to_bits() && cotangent.logp == other.logp);
        assert!(cotangent.divergence.iter().all(|&c| c == 0.0));
        let (one, two) = (run(&tdpo(Variant::Tdpo1, 0.3), pair), run(&tdpo(Variant::Tdpo2, 1.0), pair));
        assert!(one.0.to_bits() == two.0.to_bits());
        assert!(one.2.divergence[0] != 0.0 && two.2.divergence[0] == 0.0);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let config = TdpoConfig { alpha: -1.0, ..TdpoConfig::default() };
        let message = Tdpo::new(config).expect_err("refused").to_string();
        assert_eq!(message, "method.alpha: must be >= 0, got -1 (default 0.5)");
    }
}
