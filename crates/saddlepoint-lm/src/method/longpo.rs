//! LongPO: a model with a short context teaches itself long ones, held to what it says of the short context.
//!
//! # Objective
//! ```text
//! L(θ) = E [ − (1/T) Σ_t ln π(s_t|s_<t)  −  λ ln σ(h) ]                      s = [x_L; y⁺], T its predictions
//! h = β [ (ln π(y⁺|x_L) − ln π₀(y⁺|x_S)) − (ln π(y⁻|x_L) − ln π₀(y⁻|x_S)) ]
//! ∂L/∂ln π(y⁺_t|x_L) = − (1/T + λ β σ(−h)) / pairs                           ∂L/∂ln π(y⁻_t|x_L) = λ β σ(−h) / pairs
//! ```
//! The policy reads a whole document with an instruction (x_L), the reference only the chunk of it that the instruction is
//! about (x_S). So the implicit constraint is `KL( π(·|x_L) || π₀(·|x_S) )`: the policy is held to a model that has found the
//! chunk already, where DPO holds it to one that has not. A document may have several turns: its long sequences are
//! `[x_L; y_1; I_2; y_2; ...]`, its short ones `[x_S,k; y_k]`, and every log-probability is the sum over the answers of all
//! turns. The first term is the likelihood of the whole chosen sequence, document and instructions included.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | beta | β | 0.1 | > 0 | strength of the pull to the reference; a tether replaces it |
//! | lambda | λ | 0.01 | >= 0 | weight of the preference beside the likelihood, whose weight is 1 |
//!
//! The authors' example command has `beta = 0.01` (and RMSprop, 5e-7, batches of 8), the paper 0.1 (and Adam). The likelihood
//! is a mean over T tokens and the preference a sum: λ T is what has to stay when documents get shorter (1,310 at the paper's
//! 131,072) and answers do not. Where answers are a large part of a sequence it is too much: see `docs/long-context.md`.
//! # Metrics
//! Those of `dpo`, with `loss` the whole · `nll_loss` nats a token of the chosen sequences, a mean over pairs ·
//! `preference_loss` mean of − ln σ(h), nats a pair.
//! # Reference
//! Chen et al. 2025, arXiv:2502.13922, eqs. 12 to 14; authors' code DAMO-NLP-SG/LongPO at 47b60a5.
//! # Differences
//! Eq. 13 prints a logarithm of summed probabilities over the turns; the authors' code, and this one, sum log-probabilities. The
//! authors' likelihood also counts the tokens that pad a sequence; here nothing is padded. There is no RMSprop here.
//! # Checked against
//! closed vectors, finite differences, DPO where both contexts are the same, TRL 1.16's `DPOTrainer` with reference
//! log-probabilities of short prompts and transformers' likelihood; several turns against the formula
//! (`tests/golden/longpo.json`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{positive, refuse, sigmoid_loss};
use super::{Family, Input, Meta, Method, Per, Status, Sums, View};
use crate::Result;
use crate::engine::{Cotangent, Want};

/// This method's row in the table of methods.
pub const META: Meta = Meta {
    name: "longpo",
    family: Family::Preferences,
    input: Input::LongPairs,
    paper: "arXiv:2502.13922",
    status: Status::Preview,
    slug: Some("longpo"),
    summary: "Long contexts learned from the model's own short-context answers",
    learning_rate: 5e-7,
};

/// Settings. The checks are in [`Longpo::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LongpoConfig {
    /// Strength of the pull to the reference, > 0. A tether replaces it.
    pub beta: f64,
    /// Weight of the preference beside the likelihood of the chosen sequence, >= 0.
    pub lambda: f64,
}

impl Default for LongpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, lambda: 0.01 }
    }
}

/// The method.
#[derive(Debug, Clone)]
pub struct Longpo {
    config: LongpoConfig,
}

impl Longpo {
    /// Checks the settings.
    ///
    /// # Errors
    /// One is outside its range.
    pub fn new(config: LongpoConfig) -> Result<Self> {
        let default = LongpoConfig::default();
        positive("beta", config.beta, default.beta)?;
        if !(config.lambda >= 0.0 && config.lambda.is_finite()) {
            refuse("lambda", format!("must be >= 0, got {} (default {})", config.lambda, default.lambda))?;
        }
        Ok(Self { config })
    }
}

impl Method for Longpo {
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
        let (beta, lambda) = (view.beta.unwrap_or(self.config.beta), self.config.lambda);
        let (logp, pairs) = (&view.stats.logp, view.norm.pairs as f64);
        out.logp.resize(logp.len(), 0.0);
        let mut sums = Sums::default();
        for (pair, context) in view.pairs().zip(view.contexts) {
            let [a, b] = pair.log_ratios(view.stats);
            let (preference, slope) = sigmoid_loss(beta * (a - b), 0.0);
            let cotangent = lambda * beta * slope / pairs;
            pair.spread([cotangent, -cotangent], &mut out.logp);

            let whole = || pair.chosen.clone().chain(context.clone());
            let tokens = whole().count() as f64;
            let nll = -whole().map(|row| logp[row]).sum::<f64>() / tokens;
            whole().for_each(|row| out.logp[row] -= 1.0 / (tokens * pairs));

            pair.report(view.stats, nll + lambda * preference, [beta * a, beta * b], &mut sums);
            sums.add("nll_loss", nll, Per::Pair);
            sums.add("preference_loss", preference, Per::Pair);
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

    /// Log-probabilities of the answers of one document, turn by turn, and of the rest of its chosen sequence.
    struct Document<'a> {
        chosen: &'a [f64],
        rejected: &'a [f64],
        ref_chosen: &'a [f64],
        ref_rejected: &'a [f64],
        context: &'a [f64],
    }

    /// Metrics by name, and the derivatives.
    fn run(method: &dyn Method, document: &Document<'_>) -> (impl Fn(&str) -> f64 + use<>, Vec<f64>) {
        let Document { chosen, rejected, ref_chosen, ref_rejected, context } = document;
        let (a, b) = (chosen.len(), chosen.len() + rejected.len());
        let all = b + context.len();
        let rest = b..all;
        let stats = Stats {
            logp: [*chosen, *rejected, *context].concat(),
            ref_logp: [*ref_chosen, *ref_rejected, &vec![0.0; context.len()]].concat(),
            top1: vec![false; all],
            ..Stats::default()
        };
        let norm = Norm { tokens: b, sequences: 2, pairs: 1, desirable: 0 };
        let sequences = [0..a, a..b];
        let view = View { contexts: std::slice::from_ref(&rest), ..View::new(&sequences, &stats, norm) };
        let mut out = Cotangent::default();
        let means = method.loss(&view, &mut out).means(norm);
        (move |name: &str| means.iter().find(|(known, _)| *known == name).expect("a metric").1, out.logp)
    }

    fn longpo(beta: f64, lambda: f64) -> Longpo {
        Longpo::new(LongpoConfig { beta, lambda }).expect("valid")
    }

    fn dpo() -> Dpo {
        Dpo::new(DpoConfig::default()).expect("valid")
    }

    /// Log-probabilities of the two answers.
    type Two = [f64; 2];

    /// One turn without a context, so that the derivative of the likelihood is −1: margin, loss of the preference, derivatives.
    fn single(policy: Two, reference: Two, beta: f64) -> (f64, f64, Vec<f64>) {
        let document = Document {
            chosen: &policy[..1],
            rejected: &policy[1..],
            ref_chosen: &reference[..1],
            ref_rejected: &reference[1..],
            context: &[],
        };
        let (of, slopes) = run(&longpo(beta, 1.0), &document);
        (of("rewards/margins"), of("preference_loss"), slopes)
    }

    fn dpo_margin(policy: Two, reference: Two) -> f64 {
        let document = Document {
            chosen: &policy[..1],
            rejected: &policy[1..],
            ref_chosen: &reference[..1],
            ref_rejected: &reference[1..],
            context: &[],
        };
        run(&dpo(), &document).0("rewards/margins")
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-13 * expected.abs().max(1.0), "{got} against {expected}");
    }

    #[test]
    fn one_turn() {
        for (beta, margin, loss, slope) in [
            (0.1, -0.75, 1.136_871_006_114_9, -0.067_917_869_917_5),
            (0.01, -0.075, 0.731_350_140_826_8, -0.005_187_412_158_8),
        ] {
            let (got, preference, slopes) = single([-42.0, -55.5], [-40.0, -61.0], beta);
            close(got, margin);
            close(preference, loss);
            close(slopes[0] + 1.0, slope);
            close(slopes[1], -slope);
        }
    }

    #[test]
    fn two_turns_are_sums_of_log_probabilities() {
        let document = Document {
            chosen: &[-12.3, -20.1],
            rejected: &[-15.0, -18.4],
            ref_chosen: &[-10.2, -19.5],
            ref_rejected: &[-17.7, -26.0],
            // So that the likelihood is 1.875 nats a token: 45 nats of 24 tokens.
            context: &[-12.6 / 22.0; 22],
        };
        let (of, slopes) = run(&longpo(0.1, 0.01), &document);
        close(of("logps/chosen"), -32.4);
        close(of("logps/rejected"), -33.4);
        close(of("rewards/margins"), -1.3);
        close(of("preference_loss"), 1.541_008_453_833_0);
        close(of("nll_loss"), 1.875);
        close(of("loss"), 1.890_410_084_538_3);
        assert!(
            (of("preference_loss") - 0.963_669_065_921_3).abs() > 0.1,
            "no logarithm of summed probabilities"
        );
        assert!(slopes[4..].iter().all(|slope| (slope + 1.0 / 24.0).abs() < 1e-15), "{slopes:?}");

        let turned = Document {
            chosen: &[-20.1, -12.3],
            rejected: &[-18.4, -15.0],
            ref_chosen: &[-19.5, -10.2],
            ref_rejected: &[-26.0, -17.7],
            ..document
        };
        let (other, _) = run(&longpo(0.1, 0.01), &turned);
        close(other("loss"), of("loss"));
    }

    #[test]
    fn the_difference_from_dpo_is_that_of_the_references() {
        let (long, short) = ([-47.0, -58.0], [-40.0, -61.0]);
        for policy in [[-42.0, -55.5], [-10.0, -90.0]] {
            close(single(policy, short, 0.1).0 - dpo_margin(policy, long), -1.0);
        }
        close(dpo_margin([-42.0, -55.5], long), 0.25);
        // Before the first step, where the policy is the reference: not ln 2.
        let (margin, loss, _) = single(long, short, 0.1);
        close(margin, -1.0);
        close(loss, 1.313_261_687_518_2);
    }

    #[test]
    fn with_one_context_it_is_dpo_and_without_weight_it_is_the_likelihood() {
        let document = Document {
            chosen: &[-1.2, -0.4],
            rejected: &[-2.0, -0.9, -0.1],
            ref_chosen: &[-1.5, -0.6],
            ref_rejected: &[-1.8, -1.3, -0.3],
            context: &[-3.0, -0.5],
        };
        let (of, slopes) = run(&longpo(0.1, 1.0), &document);
        let (plain, expected) = run(&dpo(), &document);
        close(of("preference_loss"), plain("loss"));
        close(of("rewards/margins"), plain("rewards/margins"));
        for (row, likelihood) in [(0, -0.25), (2, 0.0), (4, 0.0)] {
            close(slopes[row] - likelihood, expected[row]);
        }

        let (of, slopes) = run(&longpo(0.1, 0.0), &document);
        close(of("loss"), (1.2 + 0.4 + 3.0 + 0.5) / 4.0);
        assert_eq!(slopes, [-0.25, -0.25, 0.0, 0.0, 0.0, -0.25, -0.25]);

        let shifted = Document { ref_chosen: &[-8.5, -0.6], ref_rejected: &[-8.8, -1.3, -0.3], ..document };
        let (other, _) = run(&longpo(0.1, 1.0), &shifted);
        let (of, _) = run(&longpo(0.1, 1.0), &document);
        close(other("loss"), of("loss"));
    }

    #[test]
    fn a_wide_margin_does_not_overflow() {
        let (margin, loss, slopes) = single([-9_000.0, -10.0], [-40.0, -61.0], 0.1);
        close(loss, -margin);
        close(slopes[1], 0.1);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        for (config, message) in [
            (
                LongpoConfig { beta: 0.0, ..LongpoConfig::default() },
                "method.beta: must be > 0, got 0 (default 0.1)",
            ),
            (
                LongpoConfig { lambda: -1.0, ..LongpoConfig::default() },
                "method.lambda: must be >= 0, got -1 (default 0.01)",
            ),
        ] {
            assert_eq!(Longpo::new(config).expect_err("refused").to_string(), message);
        }
    }
}
