//! Implicit reward: supervised fine-tuning as the matching of an f-divergence, so that a pull to the reference is left.
//!
//! # Objective
//! ```text
//! max_r min_π  E_E φ(r) − E_π r + β KL(π || π₀),   φ(z) = −f*(−z);   at the inner minimum  r = s + V(x)
//! s = β ( ln π(y|x) − ln π₀(y|x) )                 L(θ) = − (1/β) E_E [ φ(s + V) − V ]
//! ∂L/∂ln π(y|x) = − φ'(r)                          with V = 0
//! ```
//! `E_E` is over the demonstrations. The factor 1/β gives every `f_divergence_type` but forward_kl the gradient of plain
//! fine-tuning at the reference, and all of them go to it (forward_kl: to 1/e of it) for β → 0.
//!
//! | `f_divergence_type` | φ(r) | φ'(r) | domain |
//! |---|---|---|---|
//! | total_variation | r (plain fine-tuning: the pull cancels) | 1 | all |
//! | chi_squared | r − r²/4 | 1 − r/2 | all; beyond r = 2 it pushes back |
//! | hellinger | r / (1 + r) | 1 / (1 + r)² | r > −1 |
//! | js_divergence | ln(2 − e^−r) | e^−r / (2 − e^−r) | r > −ln 2 |
//! | forward_kl | −e^(−r−1) | e^(−r−1) | all |
//!
//! Next to a pole (0.05 above it), and for forward_kl below r = −31, φ and φ' keep the value that they have there: such
//! a demonstration still pulls, and is counted.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.05 | > 0 | scale of the log-ratio, and strength of the pull to the reference |
//! | f_divergence_type | f | chi_squared | see above | the divergence from the demonstrations |
//! | v_mode | V | zero | zero, batch_mean | the value of a prompt: 0, or − mean s over the sequences of a pass |
//! | token_mean | | false | | φ of each token's log-ratio, a mean over tokens, in place of a sequence's |
//!
//! Choose β so that r stays of the order of 1: a sequence whose log-ratio reaches 20 nats wants 0.05, one of 100 nats 0.01.
//! With `batch_mean` a sequence's loss depends on the others of its pass, so that a step must be one pass
//! (`gradient_accumulation_steps = 1`); in an evaluation the mean is over each of its passes. For chi_squared it is fine-tuning
//! with a quarter of the variance of s as a penalty. It has no meaning for tokens.
//!
//! The paper's first remedy needs no method: where the pull cancels, only a smaller learning rate holds the policy. The
//! default here is a quarter of `sft`'s, and `total_variation` or `sft` with that rate is the remedy itself; `docs/recipes.md`
//! shows how rates are compared by what DPO makes of them. In `saddle reproduce implicit-reward` the pull lowers the divergence,
//! and neither it nor the smaller rate makes DPO end better.
//!
//! A tether adds its divergence to the loss and leaves β alone: φ pulls on the log-ratios of the demonstrations only, so that
//! the divergence over all that the policy says does not follow β, and a large β makes the objective stiff (φ'' goes with β).
//! # Metrics
//! `loss` nats a sequence (a token with token_mean) · `implicit_reward/mean` mean r · `implicit_reward/weight` mean φ' ·
//! `implicit_reward/clamped` share of r below the edge · `nll_loss` nats a token · `mean_token_accuracy` share of tokens
//! that are the most probable one.
//! # Reference
//! Wang et al. 2025, arXiv:2507.00018; φ: Garg et al. 2021 (IQ-Learn), arXiv:2106.12142, and its code.
//! # Differences
//! Of the paper only the abstract was at hand; the objective is derived from it and from IQ-Learn. Uncertain, and
//! therefore settings: which divergences its tables have, its V, and whether φ is of sequences or of tokens. Its
//! learning rates are not known either: 5e-6 stands between `sft`'s 2e-5 and the 1e-6 of the methods on pairs.
//! # Checked against
//! closed forms (conjugates, population optima, the cancellation of the KL term), finite differences, IQ-Learn's weights
//! (`tests/golden/implicit-reward.json`).

use std::f64::consts::LN_2;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, refuse};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "implicit-reward",
    family: Family::Supervised,
    input: Input::Supervised,
    paper: "arXiv:2507.00018",
    status: Status::Preview,
    slug: Some("implicit-reward"),
    summary: "Supervised fine-tuning under an f-divergence that keeps a pull to the reference",
    learning_rate: 5e-6,
};

/// Distance from a pole at which the objective is cut.
const EDGE: f64 = 0.05;
/// Largest exponent of `forward_kl`.
const LARGEST: f64 = 30.0;

/// Settings. The checks are in [`ImplicitReward::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImplicitRewardConfig {
    /// Scale of the log-ratio and strength of the pull to the reference, > 0.
    pub beta: f64,
    /// The divergence from the demonstrations.
    pub f_divergence_type: Objective,
    /// The value of a prompt.
    pub v_mode: ValueMode,
    /// Apply the objective to each token's log-ratio and average over tokens.
    pub token_mean: bool,
}

impl Default for ImplicitRewardConfig {
    fn default() -> Self {
        Self {
            beta: 0.05,
            f_divergence_type: Objective::ChiSquared,
            v_mode: ValueMode::Zero,
            token_mean: false,
        }
    }
}

/// `φ(z) = −f*(−z)` by the name of its divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Plain fine-tuning.
    TotalVariation,
    /// Pearson's: its weight falls with the reward and pushes back beyond 2.
    ChiSquared,
    /// Squared Hellinger distance.
    Hellinger,
    /// Jensen-Shannon.
    JsDivergence,
    /// `KL(demonstrations || π)`: its weight grows without bound below the reference.
    ForwardKl,
}

/// The value `V(x)` of a prompt, which one demonstration does not determine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueMode {
    /// 0.
    Zero,
    /// Minus the mean of β times the log-ratio over the sequences of a pass.
    BatchMean,
}

impl Objective {
    /// `φ(r)` and `φ'(r)`.
    fn at(self, r: f64) -> (f64, f64) {
        match self {
            Objective::TotalVariation => (r, 1.0),
            Objective::ChiSquared => (r - r * r / 4.0, 1.0 - r / 2.0),
            Objective::Hellinger => (r / (1.0 + r), (1.0 + r).powi(-2)),
            Objective::JsDivergence => ((-(-r).exp_m1()).ln_1p(), 1.0 / (2.0 * r.exp() - 1.0)),
            Objective::ForwardKl => {
                let weight = (-r - 1.0).exp();
                (-weight, weight)
            }
        }
    }

    /// Below this reward the objective is cut.
    fn edge(self) -> f64 {
        match self {
            Objective::TotalVariation | Objective::ChiSquared => f64::NEG_INFINITY,
            Objective::Hellinger => -1.0 + EDGE,
            Objective::JsDivergence => -LN_2 + EDGE,
            Objective::ForwardKl => -1.0 - LARGEST,
        }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct ImplicitReward {
    config: ImplicitRewardConfig,
}

impl ImplicitReward {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range, or `batch_mean` is asked for tokens.
    pub fn new(config: ImplicitRewardConfig) -> Result<Self> {
        positive("beta", config.beta, ImplicitRewardConfig::default().beta)?;
        if config.token_mean && config.v_mode == ValueMode::BatchMean {
            let problem = "batch_mean is the value of a prompt and has no meaning for tokens; use zero, or \
                           token_mean = false"
                .to_owned();
            refuse("v_mode", problem)?;
        }
        Ok(Self { config })
    }
}

impl Method for ImplicitReward {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { ref_logp: true, ..Want::default() }
    }

    fn couples(&self) -> bool {
        self.config.v_mode == ValueMode::BatchMean
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let ImplicitRewardConfig { beta, f_divergence_type: objective, v_mode, token_mean } = self.config;
        let stats = view.stats;
        out.logp.resize(stats.logp.len(), 0.0);

        // What φ is taken of, and the mean that is made of it.
        let rows = || view.sequences.iter().cloned().flatten();
        let units: Vec<Range<usize>> =
            if token_mean { rows().map(|row| row..row + 1).collect() } else { view.sequences.to_vec() };
        let (per, count) =
            if token_mean { (Per::Token, view.norm.tokens) } else { (Per::Sequence, view.norm.sequences) };

        let scaled: Vec<f64> = units
            .iter()
            .map(|rows| beta * rows.clone().map(|row| stats.logp[row] - stats.ref_logp[row]).sum::<f64>())
            .collect();
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / units.len() as f64;
        let value = match v_mode {
            ValueMode::Zero => 0.0,
            ValueMode::BatchMean => -mean(&mut scaled.iter().copied()),
        };
        let judged: Vec<(f64, f64, f64)> = scaled
            .iter()
            .map(|s| {
                let r = s + value;
                // Not `max`, which would hide a reward that is not a number.
                let (phi, weight) = objective.at(if r < objective.edge() { objective.edge() } else { r });
                (r, phi, weight)
            })
            .collect();
        // V moves with every s of the pass: dV/ds = −1/n, so that each weight gets 1 − mean φ'.
        let shift = match v_mode {
            ValueMode::Zero => 0.0,
            ValueMode::BatchMean => 1.0 - mean(&mut judged.iter().map(|(.., weight)| *weight)),
        };

        let mut sums = Sums::default();
        for (rows, &(r, phi, weight)) in units.iter().zip(&judged) {
            for row in rows.clone() {
                out.logp[row] -= (weight + shift) / count as f64;
            }
            sums.add("loss", -(phi - value) / beta, per);
            sums.add("implicit_reward/mean", r, per);
            sums.add("implicit_reward/weight", weight, per);
            sums.add("implicit_reward/clamped", f64::from(r < objective.edge()), per);
        }
        for row in rows() {
            sums.add("nll_loss", -stats.logp[row], Per::Token);
            sums.add("mean_token_accuracy", f64::from(stats.top1[row]), Per::Token);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use Objective::{ChiSquared, ForwardKl, Hellinger, JsDivergence, TotalVariation};

    use super::*;
    use crate::engine::Stats;
    use crate::method::Norm;
    use crate::method::sft::Sft;

    const ALL: [Objective; 5] = [TotalVariation, ChiSquared, Hellinger, JsDivergence, ForwardKl];

    fn method(
        f_divergence_type: Objective,
        beta: f64,
        v_mode: ValueMode,
        token_mean: bool,
    ) -> ImplicitReward {
        let config = ImplicitRewardConfig { beta, f_divergence_type, v_mode, token_mean };
        ImplicitReward::new(config).expect("valid")
    }

    fn plain(objective: Objective, beta: f64) -> ImplicitReward {
        method(objective, beta, ValueMode::Zero, false)
    }

    fn stats(logp: &[f64], ref_logp: &[f64]) -> Stats {
        Stats {
            logp: logp.to_vec(),
            ref_logp: ref_logp.to_vec(),
            entropy: vec![0.0; logp.len()],
            top1: vec![false; logp.len()],
            ..Stats::default()
        }
    }

    /// Metrics by name and the derivatives, for sequences of `length` tokens each.
    fn run(method: &dyn Method, stats: &Stats, length: usize) -> (impl Fn(&str) -> f64 + use<>, Vec<f64>) {
        let tokens = stats.logp.len();
        let sequences: Vec<Range<usize>> = (0..tokens).step_by(length).map(|i| i..i + length).collect();
        let norm = Norm { tokens, sequences: tokens / length, pairs: 0, desirable: 0 };
        let mut out = Cotangent::default();
        let means = method.loss(&View::new(&sequences, stats, norm), &mut out).means(norm);
        let of = move |name: &str| means.iter().find(|(known, _)| *known == name).expect("a metric").1;
        (of, out.logp)
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-13, "{got} against {expected}");
    }

    #[test]
    fn values_and_weights_of_each_objective() {
        for (r, rows) in [
            (
                0.4,
                [
                    (0.4, 1.0),
                    (0.36, 0.8),
                    (0.285_714_285_714_29, 0.510_204_081_632_65),
                    (0.284_938_277_159_12, 0.504_121_344_416_09),
                    (-0.246_596_963_941_61, 0.246_596_963_941_61),
                ],
            ),
            (
                -0.5,
                [
                    (-0.5, 1.0),
                    (-0.5625, 1.25),
                    (-1.0, 4.0),
                    (-1.046_175_270_077_87, 4.693_484_498_723_19),
                    (-0.606_530_659_712_63, 0.606_530_659_712_63),
                ],
            ),
        ] {
            for (objective, (phi, weight)) in ALL.into_iter().zip(rows) {
                close(objective.at(r).0, phi);
                close(objective.at(r).1, weight);
            }
        }
        close(ChiSquared.at(2.0).0, 1.0);
        close(ChiSquared.at(2.0).1, 0.0);
        close(Hellinger.at(2.0).0, 0.666_666_666_666_67);
        close(Hellinger.at(2.0).1, 0.111_111_111_111_11);
        close(JsDivergence.at(2.0).0, 0.623_081_260_399_66);
        close(JsDivergence.at(2.0).1, 0.072_578_883_495_75);
        assert_eq!(ChiSquared.at(3.0), (0.75, -0.5));
        for objective in [TotalVariation, ChiSquared, Hellinger, JsDivergence] {
            assert_eq!(objective.at(0.0), (0.0, 1.0), "{objective:?}");
        }
    }

    #[test]
    fn each_objective_is_the_conjugate_of_its_divergence() {
        type Generator = fn(f64) -> f64;
        let generators: [(Objective, f64, Generator); 4] = [
            (ChiSquared, 0.2775, |u| (u - 1.0) * (u - 1.0)),
            (Hellinger, 0.230_769_230_769_23, |u| (u.sqrt() - 1.0).powi(2)),
            (JsDivergence, 0.230_462_128_530_47, |u| {
                u * u.ln() - (u + 1.0) * (u + 1.0).ln() + (u + 1.0) * LN_2
            }),
            (ForwardKl, -0.272_531_793_034_01, |u| u * u.ln()),
        ];
        let z = 0.3;
        for (objective, expected, f) in generators {
            close(objective.at(z).0, expected);
            // f*(−z) = sup_u −zu − f(u), by thirds.
            let (mut low, mut high) = (1e-6, 10.0);
            let value = |u: f64| -z * u - f(u);
            for _ in 0..200 {
                let third = (high - low) / 3.0;
                if value(low + third) < value(high - third) { low += third } else { high -= third }
            }
            close(objective.at(z).0, -value(low));
        }
    }

    #[test]
    fn rewards_telescope_to_the_log_ratio() {
        // Two states, logits Q/β; r(s, a) = Q − β ln π₀ − V(s').
        let (beta, q, reference) = (0.5, [[0.3_f64, -0.2], [0.1, 0.6]], [[0.5_f64, 0.5], [0.7, 0.3]]);
        let v = q.map(|q| beta * q.map(|q| (q / beta).exp()).iter().sum::<f64>().ln());
        close(v[0], 0.456_630_843_759_11);
        close(v[1], 0.756_630_843_759_11);
        let (logp, ref_logp) =
            ([(q[0][0] - v[0]) / beta, (q[1][1] - v[1]) / beta], [0.5_f64.ln(), 0.3_f64.ln()]);
        close(logp[0], -0.313_261_687_518_22);
        close(logp[1], -0.313_261_687_518_22);
        let r = [q[0][0] - beta * reference[0][0].ln() - v[1], q[1][1] - beta * reference[1][1].ln()];
        close(r[0], -0.110_057_253_479_14);
        close(r[1], 1.201_986_402_162_97);
        let (of, _) = run(&plain(ChiSquared, beta), &stats(&logp, &ref_logp), 2);
        close(of("implicit_reward/mean"), 0.635_298_304_924_72);
        close(of("implicit_reward/mean"), r[0] + r[1] - v[0]);
    }

    const EXPERT: [f64; 3] = [0.6, 0.3, 0.1];
    const REFERENCE: [f64; 3] = [0.3, 0.3, 0.4];

    /// Demonstrations of one token in the proportions of [`EXPERT`].
    fn population(policy: [f64; 3]) -> (Stats, Vec<usize>) {
        let outcomes: Vec<usize> = [0; 6].into_iter().chain([1; 3]).chain([2]).collect();
        let of = |p: [f64; 3]| outcomes.iter().map(|&i| p[i].ln()).collect::<Vec<f64>>();
        (stats(&of(policy), &of(REFERENCE)), outcomes)
    }

    #[test]
    fn the_kl_term_cancels_for_total_variation_and_for_no_other() {
        let beta = 0.7;
        for (policy, linear, chi) in [
            ([0.5_f64, 0.3, 0.2], 0.166_026_459_342_52, 0.140_961_612_806_67),
            ([0.1, 0.2, 0.7], -0.507_391_728_787_84, -0.605_980_579_631_95),
        ] {
            let objective = |kind| -beta * run(&plain(kind, beta), &population(policy).0, 1).0("loss");
            close(objective(TotalVariation), linear);
            close(objective(ChiSquared), chi);
            // E_E r − E_π r + β KL(π || π₀), with any V.
            let ratio: [f64; 3] = std::array::from_fn(|i| (policy[i] / REFERENCE[i]).ln());
            let mean = |p: [f64; 3], f: &dyn Fn(f64) -> f64| (0..3).map(|i| p[i] * f(ratio[i])).sum::<f64>();
            let reward = |l: f64| beta * l + 0.25;
            close(mean(EXPERT, &reward) - mean(policy, &reward) + beta * mean(policy, &|l| l), linear);
        }
    }

    #[test]
    fn the_optimum_of_a_population_is_between_reference_and_demonstrations() {
        for (objective, beta, optimum) in [
            (TotalVariation, 1.0, EXPERT),
            (ChiSquared, 1.0, [0.506_800_375_603_83, 0.328_076_052_318_59, 0.165_123_572_077_57]),
            (ChiSquared, 2.0, [0.452_136_765_317_90, 0.337_805_415_051_41, 0.210_057_819_630_69]),
            (Hellinger, 0.5, [0.458_528_482_706_91, 0.318_020_863_557_23, 0.223_450_653_735_75]),
        ] {
            let (method, mut z) = (plain(objective, beta), REFERENCE.map(f64::ln));
            let softmax = |z: [f64; 3]| {
                let total: f64 = z.iter().map(|z| z.exp()).sum();
                z.map(|z| z.exp() / total)
            };
            for _ in 0..4000 {
                let p = softmax(z);
                let (stats, outcomes) = population(p);
                let (_, slopes) = run(&method, &stats, 1);
                let all: f64 = slopes.iter().sum();
                for (i, z) in z.iter_mut().enumerate() {
                    let own: f64 =
                        outcomes.iter().zip(&slopes).filter(|(o, _)| **o == i).map(|(_, s)| s).sum();
                    *z -= 0.3 * (own - p[i] * all);
                }
            }
            for (got, expected) in softmax(z).into_iter().zip(optimum) {
                assert!((got - expected).abs() < 1e-11, "{objective:?}: {got} against {expected}");
            }
        }
    }

    #[test]
    fn one_sequence_as_a_whole_and_token_by_token() {
        let stats = stats(&[-1.2, -0.4, -2.0, -0.9], &[-1.5, -0.6, -1.8, -1.3]);
        for (objective, loss, weight, tokens) in [
            (TotalVariation, -0.7, 1.0, -0.175),
            (ChiSquared, -0.5775, 0.65, -0.154_375),
            (Hellinger, -0.411_764_705_882_35, 0.346_020_761_245_67, -0.108_287_545_787_55),
            (JsDivergence, -0.407_738_985_028_47, 0.330_304_941_839_22, -0.107_932_128_200_04),
        ] {
            let (of, slopes) = run(&plain(objective, 1.0), &stats, 4);
            close(of("loss"), loss);
            close(of("implicit_reward/mean"), 0.7);
            close(of("implicit_reward/weight"), weight);
            for slope in slopes {
                close(slope, -weight);
            }
            close(run(&method(objective, 1.0, ValueMode::Zero, true), &stats, 4).0("loss"), tokens);
        }
        for (objective, loss, slope) in [
            (ChiSquared, -0.068_775, -0.0965),
            (Hellinger, -0.065_420_560_747_66, -0.087_343_872_827_32),
            (JsDivergence, -0.065_418_927_304_47, -0.087_334_996_489_42),
        ] {
            // Given without the factor 1/β.
            let (of, slopes) = run(&plain(objective, 0.1), &stats, 4);
            close(0.1 * of("loss"), loss);
            for got in slopes {
                close(0.1 * got, slope);
            }
        }
    }

    #[test]
    fn the_mean_of_a_batch_as_value_is_a_penalty_on_the_variance() {
        let stats = stats(&[0.7 - 3.0, -0.2 - 3.0, 1.1 - 3.0], &[-3.0; 3]);
        close(run(&plain(ChiSquared, 1.0), &stats, 1).0("loss"), -0.388_333_333_333_33);
        let (of, slopes) = run(&method(ChiSquared, 1.0, ValueMode::BatchMean, false), &stats, 1);
        close(of("loss"), -0.459_444_444_444_44);
        close(of("implicit_reward/mean"), 0.0);
        // For χ² the mean weight is 1, so that the mean moves nothing.
        slopes.iter().zip([0.7, -0.2, 1.1]).for_each(|(slope, s)| {
            close(*slope, -(1.0 - (s - 0.533_333_333_333_333_3) / 2.0) / 3.0);
        });
    }

    #[test]
    fn every_setting_has_the_derivative_of_its_value() {
        let stats = stats(&[-1.2, -0.4, -2.0, -0.9, -0.3, -1.0], &[-1.5, -0.6, -1.8, -1.3, -0.5, -1.1]);
        for objective in ALL {
            for (v_mode, token_mean) in
                [(ValueMode::Zero, false), (ValueMode::Zero, true), (ValueMode::BatchMean, false)]
            {
                let method = method(objective, 0.6, v_mode, token_mean);
                let (of, slopes) = run(&method, &stats, 2);
                close(of("implicit_reward/clamped"), 0.0);
                for (row, exact) in slopes.into_iter().enumerate() {
                    let at = |step: f64| {
                        let mut stats = stats.clone();
                        stats.logp[row] += step;
                        run(&method, &stats, 2).0("loss")
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!(
                        (numeric - exact).abs() < 1e-9,
                        "{objective:?} {v_mode:?}: {exact} against {numeric}"
                    );
                }
            }
        }
    }

    #[test]
    fn total_variation_by_token_and_a_small_beta_are_fine_tuning() {
        let stats = stats(&[-1.2, -0.4, -2.0, -0.9], &[-1.5, -0.6, -1.8, -1.3]);
        let (of, sft) = run(&Sft, &stats, 2);
        let (ours, slopes) = run(&method(TotalVariation, 0.3, ValueMode::Zero, true), &stats, 2);
        assert_eq!(slopes, sft);
        close(ours("nll_loss"), of("loss"));
        close(ours("loss"), of("loss") - 5.2 / 4.0);
        for objective in [ChiSquared, Hellinger, JsDivergence] {
            let (_, slopes) = run(&method(objective, 1e-9, ValueMode::Zero, true), &stats, 2);
            slopes.iter().zip(&sft).for_each(|(a, b)| assert!((a - b).abs() < 1e-8, "{objective:?}"));
        }
    }

    #[test]
    fn a_reward_below_the_edge_is_cut_counted_and_still_pulls() {
        for (objective, edge) in [(Hellinger, -0.95), (JsDivergence, -LN_2 + 0.05), (ForwardKl, -31.0)] {
            let (of, slopes) = run(&plain(objective, 1.0), &stats(&[-50.0, -1.0], &[-1.0, -1.0]), 1);
            let (phi, weight) = objective.at(edge);
            close(of("implicit_reward/clamped"), 0.5);
            assert!(
                (of("loss") + f64::midpoint(phi, objective.at(0.0).0)).abs() < 1e-9 * phi.abs(),
                "{objective:?}"
            );
            assert!((slopes[0] + weight / 2.0).abs() < 1e-9 * weight, "{objective:?}");
        }
        let (of, _) = run(&plain(ChiSquared, 1.0), &stats(&[-50.0], &[-1.0]), 1);
        close(of("implicit_reward/clamped"), 0.0);
        let (of, _) = run(&plain(Hellinger, 1.0), &stats(&[f64::NAN], &[-1.0]), 1);
        assert!(of("loss").is_nan(), "not hidden by the cut");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        for (config, message) in [
            (
                ImplicitRewardConfig { beta: 0.0, ..ImplicitRewardConfig::default() },
                "method.beta: must be > 0, got 0 (default 0.05)",
            ),
            (
                ImplicitRewardConfig {
                    v_mode: ValueMode::BatchMean,
                    token_mean: true,
                    ..ImplicitRewardConfig::default()
                },
                "method.v_mode: batch_mean is the value of a prompt and has no meaning for tokens; use zero, or \
                 token_mean = false",
            ),
        ] {
            assert_eq!(ImplicitReward::new(config).expect_err("refused").to_string(), message);
        }
    }
}
