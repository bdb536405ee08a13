//! f-DPO: direct preference optimisation whose implicit constraint is any divergence that keeps the support.
//!
//! # Objective
//! ```text
//! L(θ) = − E ln σ(h),   h = β (s(a) − s(b)),   s(l) = f'(e^l)
//! a = ln π(y⁺|x) − ln π₀(y⁺|x),   b likewise for y⁻
//! ∂L/∂a = −β σ(−h) s'(a),   ∂L/∂b = β σ(−h) s'(b)
//! ```
//! | `f_divergence_type` | s(l) | bound above |
//! |---|---|---|
//! | reverse_kl | l (DPO, bit for bit) | none |
//! | forward_kl | 1 − e^−l | 1 |
//! | js_divergence | ln 2 − ln(1 + e^−l) | ln 2 |
//! | alpha_divergence | (1 − e^−αl) / α | 1/α |
//! | jeffreys | l + 1 − e^−l | none |
//! | hellinger | (1 − e^−l/2) / 2 | 1/2 |
//!
//! `total_variation` and `chi_squared` are refused: their f' is finite at 0, so that an optimum may give up outcomes of the
//! reference, and the multiplier of that constraint does not cancel between the two completions of a pair (section 3 of
//! the paper).
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | f_divergence_type | f | reverse_kl | see above | the divergence |
//! | f_alpha_divergence_coef | 1 − α | 0.5 | (0, 1) | only for alpha_divergence: towards 1 it is reverse_kl, towards 0 forward_kl |
//!
//! β means different strengths for different divergences: the exponentials of forward_kl are of a *sequence's* log-ratio, and
//! the paper takes 1e-5 there where it takes 0.1 for reverse_kl. Compare at equal divergence (`tether.budget`), not at equal β.
//! # Metrics
//! Those of `dpo`, with `rewards/…` β s (zero at the reference) · `f_divergence/clamped` share of completions whose exponent
//! was cut at 80, the bound of `f32`, beyond which the score has no derivative.
//! # Reference
//! Wang et al. 2023, arXiv:2309.16240, theorem 1 and section 4.
//! # Differences
//! The names are TRL's. TRL logs β l as the reward whatever the divergence. TRL's `f_alpha_divergence_coef` is one minus the paper's α. TRL clamps only alpha_divergence, and does
//! not say when it does. The divergence of js_divergence is twice the Jensen-Shannon divergence, as in the paper's code.
//! # Checked against
//! finite differences, the vectors of the authors' loss functions, TRL 1.16 (`tests/golden/f-dpo.json`).

use saddlepoint_opt::divergence::Divergence;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, refuse, sigmoid_loss};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "f-dpo",
    family: Family::Preferences,
    input: Input::Pairs,
    paper: "arXiv:2309.16240",
    status: Status::Preview,
    slug: Some("f-dpo"),
    summary: "DPO under any divergence that keeps the support",
    learning_rate: 1e-6,
};

/// Largest exponent of a score: `e^80` is within `f32`.
const LARGEST: f64 = 80.0;

/// Settings. The checks are in [`FDpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FDpoConfig {
    /// Strength of the pull to the reference, > 0. A tether replaces it.
    pub beta: f64,
    /// The divergence.
    pub f_divergence_type: FDivergenceType,
    /// One minus the α of the paper, in (0, 1); only for `alpha_divergence`.
    pub f_alpha_divergence_coef: f64,
}

impl Default for FDpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, f_divergence_type: FDivergenceType::ReverseKl, f_alpha_divergence_coef: 0.5 }
    }
}

/// The divergences by TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FDivergenceType {
    /// `KL(π || π₀)`: DPO.
    ReverseKl,
    /// `KL(π₀ || π)`
    ForwardKl,
    /// Twice the Jensen-Shannon divergence.
    JsDivergence,
    /// Between the two; see `f_alpha_divergence_coef`.
    AlphaDivergence,
    /// The sum of both KL divergences.
    Jeffreys,
    /// Squared Hellinger distance.
    Hellinger,
    /// Refused: it does not keep the support.
    TotalVariation,
    /// Refused: it does not keep the support.
    ChiSquared,
}

/// The method.
#[derive(Debug, Clone)]
pub struct FDpo {
    config: FDpoConfig,
    divergence: Divergence,
    /// Multiple of the divergence's slope.
    scale: f64,
}

impl FDpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range, or the divergence does not keep the support.
    pub fn new(config: FDpoConfig) -> Result<Self> {
        let default = FDpoConfig::default();
        positive("beta", config.beta, default.beta)?;
        let coefficient = config.f_alpha_divergence_coef;
        if !(coefficient > 0.0 && coefficient < 1.0) {
            let problem = format!(
                "must be in (0, 1), got {coefficient} (default 0.5); its ends are reverse_kl (1) and forward_kl (0)"
            );
            refuse("f_alpha_divergence_coef", problem)?;
        }
        let (divergence, scale) = match config.f_divergence_type {
            FDivergenceType::ReverseKl => (Divergence::ReverseKl, 1.0),
            FDivergenceType::ForwardKl => (Divergence::ForwardKl, 1.0),
            FDivergenceType::JsDivergence => (Divergence::JensenShannon, 2.0),
            FDivergenceType::AlphaDivergence => (Divergence::Alpha(1.0 - coefficient), 1.0),
            FDivergenceType::Jeffreys => (Divergence::Jeffreys, 1.0),
            FDivergenceType::Hellinger => (Divergence::Hellinger, 1.0),
            FDivergenceType::TotalVariation => (Divergence::TotalVariation, 1.0),
            FDivergenceType::ChiSquared => (Divergence::ChiSquared, 1.0),
        };
        if !divergence.keeps_support() {
            let problem = format!(
                "{divergence} cannot be used: its f' is {} at 0, not -infinity, so an optimum may drop completions of the \
                 reference, and the loss on pairs does not follow; use reverse_kl, forward_kl, js_divergence, \
                 alpha_divergence, jeffreys or hellinger",
                divergence.slope_range().0
            );
            refuse("f_divergence_type", problem)?;
        }
        Ok(Self { config, divergence, scale })
    }

    /// The score of a log-ratio, its derivative, and whether the exponent was cut.
    fn score(&self, l: f64) -> (f64, f64, bool) {
        // The exponents are those of s': e^-l, and a fraction of it where the divergence has one.
        let exponent = match self.divergence {
            Divergence::ForwardKl | Divergence::Jeffreys => -l,
            Divergence::Alpha(a) => -a * l,
            Divergence::Hellinger => -0.5 * l,
            _ => 0.0,
        };
        if exponent > LARGEST {
            return (self.scale * self.divergence.slope(l * LARGEST / exponent), 0.0, true);
        }
        (self.scale * self.divergence.slope(l), self.scale * self.divergence.slope_rate(l), false)
    }
}

impl Method for FDpo {
    fn meta(&self) -> &'static Meta {
        &META
    }

    fn want(&self) -> Want {
        Want { ref_logp: true, ..Want::default() }
    }

    fn beta(&self) -> Option<f64> {
        Some(self.config.beta)
    }

    fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
        let beta = view.beta.unwrap_or(self.config.beta);
        out.logp.resize(view.stats.logp.len(), 0.0);
        let mut sums = Sums::default();
        for pair in view.pairs() {
            let [(a, rate_a, cut_a), (b, rate_b, cut_b)] = pair.log_ratios(view.stats).map(|l| self.score(l));
            let (value, slope) = sigmoid_loss(beta * (a - b), 0.0);
            let cotangent = beta * slope / view.norm.pairs as f64;
            pair.spread([cotangent * rate_a, -cotangent * rate_b], &mut out.logp);
            pair.report(view.stats, value, [beta * a, beta * b], &mut sums);
            sums.add("f_divergence/clamped", f64::from(cut_a) + f64::from(cut_b), Per::Sequence);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Stats;
    use crate::method::dpo::{Dpo, DpoConfig};
    use crate::method::{MethodConfig, Norm};

    /// Margin, loss and derivatives for log-ratios of one-token completions.
    fn pair(method: &dyn Method, ratios: [f64; 2]) -> ([f64; 4], Vec<(&'static str, f64)>) {
        let stats = Stats {
            logp: ratios.map(|l| l - 2.0).to_vec(),
            ref_logp: vec![-2.0; 2],
            top1: vec![true; 2],
            ..Stats::default()
        };
        let norm = Norm { tokens: 2, sequences: 2, pairs: 1, desirable: 0 };
        let view = View::new(&[0..1, 1..2], &stats, norm);
        let mut out = Cotangent::default();
        let means = method.loss(&view, &mut out).means(norm);
        let of = |name| means.iter().find(|(known, _)| *known == name).expect("a metric").1;
        ([of("rewards/margins"), of("loss"), out.logp[0], out.logp[1]], means)
    }

    fn method(kind: FDivergenceType, alpha: f64) -> FDpo {
        let config = FDpoConfig {
            f_divergence_type: kind,
            f_alpha_divergence_coef: 1.0 - alpha,
            ..FDpoConfig::default()
        };
        FDpo::new(config).expect("valid")
    }

    use FDivergenceType::{AlphaDivergence, ForwardKl, Hellinger, Jeffreys, JsDivergence, ReverseKl};

    #[test]
    fn the_authors_losses() {
        for (kind, alpha, expected) in [
            (ReverseKl, 0.5, [0.13, 0.630_258_194_681_69, -0.046_754_569_361_27, 0.046_754_569_361_27]),
            (
                ForwardKl,
                0.5,
                [0.119_939_230_658_29, 0.634_974_665_830_72, -0.021_120_756_757_12, 0.077_498_322_386_49],
            ),
            (
                JsDivergence,
                0.5,
                [0.060_297_631_823_23, 0.663_452_771_366_11, -0.015_034_072_375_29, 0.030_184_930_163_17],
            ),
            (
                AlphaDivergence,
                0.3,
                [0.125_068_793_887_24, 0.632_566_785_976_93, -0.036_875_029_185_24, 0.054_463_709_880_47],
            ),
            (
                AlphaDivergence,
                0.5,
                [0.122_741_074_130_42, 0.633_658_633_978_96, -0.031_461_685_679_78, 0.060_266_143_469_22],
            ),
            (
                AlphaDivergence,
                0.7,
                [0.121_122_640_677_78, 0.634_418_577_091_05, -0.026_832_905_947_82, 0.066_661_592_882_37],
            ),
        ] {
            let (got, _) = pair(&method(kind, alpha), [0.8, -0.5]);
            for (got, expected) in got.into_iter().zip(expected) {
                assert!((got - expected).abs() < 1e-14, "{kind:?} {alpha}: {got} against {expected}");
            }
        }
        for (kind, alpha, margin, loss) in [
            (ReverseKl, 0.5, 0.2, 0.598_138_869_381_59),
            (ForwardKl, 0.5, 12.832_762_217_938_89, 2.671_785_576_483e-6),
            (JsDivergence, 0.5, 0.195_812_799_691_54, 0.600_025_974_717_48),
            (AlphaDivergence, 0.3, 0.674_028_653_060_37, 0.411_878_649_588_25),
            (AlphaDivergence, 0.5, 1.540_160_978_073_08, 0.194_206_149_047_21),
            (AlphaDivergence, 0.7, 3.564_183_149_446_38, 0.027_926_508_965_25),
        ] {
            let (got, _) = pair(&method(kind, alpha), [-3.0, -5.0]);
            assert!(
                (got[0] - margin).abs() < 1e-13 && (got[1] - loss).abs() < 1e-14,
                "{kind:?} {alpha}: {got:?}"
            );
        }
    }

    #[test]
    fn reverse_kl_is_dpo_to_the_bit() {
        let dpo = Dpo::new(DpoConfig::default()).expect("valid");
        for ratios in [[0.8, -0.5], [-3.0, -5.0], [1e-9, 700.0], [0.1, 0.2]] {
            let (ours, theirs) = (pair(&method(ReverseKl, 0.5), ratios).0, pair(&dpo, ratios).0);
            assert!(ours.iter().zip(theirs).all(|(a, b)| a.to_bits() == b.to_bits()), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn at_the_reference_and_with_the_completions_swapped() {
        for (kind, rate) in [
            (ReverseKl, 1.0),
            (ForwardKl, 1.0),
            (JsDivergence, 0.5),
            (AlphaDivergence, 1.0),
            (Jeffreys, 2.0),
            (Hellinger, 0.25),
        ] {
            let method = method(kind, 0.5);
            let ([margin, loss, by_chosen, by_rejected], _) = pair(&method, [0.0, 0.0]);
            assert!(margin == 0.0 && (loss - 2.0_f64.ln()).abs() < 1e-15);
            assert!(
                (by_chosen + 0.05 * rate).abs() < 1e-15 && (by_rejected - 0.05 * rate).abs() < 1e-15,
                "{kind:?}"
            );
            let (forward, back) = (pair(&method, [0.3, -1.2]).0[0], pair(&method, [-1.2, 0.3]).0[0]);
            assert!((forward + back).abs() < 1e-16, "{kind:?}");
        }
    }

    #[test]
    fn an_exponent_beyond_single_precision_is_cut_and_counted() {
        for kind in [ForwardKl, AlphaDivergence, Jeffreys, Hellinger] {
            let (values, means) = pair(&method(kind, 0.5), [-400.0, 0.0]);
            assert!(values.iter().all(|v| v.is_finite()) && values[2] == 0.0, "{kind:?}: {values:?}");
            assert!(means.contains(&("f_divergence/clamped", 0.5)), "{kind:?}");
        }
        assert!(pair(&method(ForwardKl, 0.5), [-79.0, 0.0]).1.contains(&("f_divergence/clamped", 0.0)));
        assert!(pair(&method(ReverseKl, 0.5), [-400.0, 0.0]).1.contains(&("f_divergence/clamped", 0.0)));
    }

    #[test]
    fn divergences_that_drop_the_support_are_refused_with_the_reason() {
        for (name, reason) in [
            ("total_variation", "total_variation cannot be used: its f' is -0.5 at 0"),
            ("chi_squared", "chi_squared cannot be used: its f' is -2 at 0"),
        ] {
            let text = format!("name = \"f-dpo\"\nf_divergence_type = \"{name}\"");
            let error = toml::from_str::<MethodConfig>(&text)
                .expect("known")
                .build()
                .expect_err("refused")
                .to_string();
            assert!(error.starts_with(&format!("method.f_divergence_type: {reason}")), "{error}");
        }
        let config = FDpoConfig { f_alpha_divergence_coef: 1.0, ..FDpoConfig::default() };
        let error = FDpo::new(config).expect_err("refused").to_string();
        assert!(error.starts_with("method.f_alpha_divergence_coef: must be in (0, 1), got 1"), "{error}");
    }
}
