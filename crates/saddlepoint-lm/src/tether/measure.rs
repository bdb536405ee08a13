//! The divergence of the policy's own samples as a mean over prompts with a confidence interval.

use saddlepoint_core::interval::Mean;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the divergence is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nats a sequence: the sum over its tokens.
    #[default]
    Sequence,
    /// Nats a token: the mean over the tokens of each sequence, so that longer answers may go no further at a token
    /// than shorter ones.
    Token,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sequence => "nats a sequence",
            Self::Token => "nats a token",
        })
    }
}

/// Divergence in nats per sequence, or per token.
///
/// Samples of one prompt depend on each other, so the unit of the statistics is the prompt: the interval is that
/// ([`Mean`]) of the mean over prompts of the mean over each prompt's samples. Divergences are skewed, so for few
/// prompts (below about 30) it is too narrow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Mean over prompts.
    pub mean: f64,
    /// 95 % confidence interval of the mean; its lower end is not below 0, since no divergence is.
    pub interval: [f64; 2],
    /// Prompts measured.
    pub prompts: usize,
    /// Samples measured.
    pub samples: usize,
    /// Tokens of all samples.
    pub tokens: usize,
    /// Samples cut at the length limit, whose divergence counts up to there.
    pub truncated: usize,
    /// Other estimates from the same samples; of the reverse KL only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimates: Option<Estimates>,
}

/// The reverse KL of the same samples, valued in four ways: see [`saddlepoint_opt::divergence::Estimator`]. `exact`,
/// `k1` and `k3` have the same expectation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    /// Exact over the vocabulary at every sampled prefix: what is measured.
    pub exact: Spread,
    /// Log-ratio of the samples.
    pub k1: Spread,
    /// Half of the squared log-ratios of the tokens; biased.
    pub k2: Spread,
    /// The log-ratio with a control variate.
    pub k3: Spread,
}

/// Of the prompts' means: nats (a sequence or token), and their square.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean over prompts.
    pub mean: f64,
    /// Variance between prompts; divided by their number it is that of the mean.
    pub variance: f64,
}

/// Mean of each prompt's samples.
fn prompt_means(samples: &[Sampled], value: impl Fn(&Sampled) -> f64) -> Vec<f64> {
    let count = samples.iter().map(|s| s.prompt + 1).max().unwrap_or(0);
    let mut sums = vec![(0.0, 0_usize); count];
    for sample in samples {
        sums[sample.prompt].0 += value(sample);
        sums[sample.prompt].1 += 1;
    }
    sums.iter().filter(|(_, n)| *n > 0).map(|(sum, n)| sum / *n as f64).collect()
}

impl Spread {
    fn of(means: &[f64]) -> Self {
        let n = means.len() as f64;
        let mean = means.iter().sum::<f64>() / n;
        Self { mean, variance: means.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) }
    }
}

/// What a measurement says about a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is within the budget.
    Held,
    /// The budget lies inside the interval: more prompts would decide.
    Undecided,
    /// The whole interval is above the budget.
    NotHeld,
}

/// One sample of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// Index of the prompt.
    pub prompt: usize,
    /// The divergence summed over its tokens, in nats.
    pub divergence: f64,
    /// k1, k2 and k3 of the reverse KL, each summed over its tokens, in nats.
    pub estimates: Option<[f64; 3]>,
    /// Its length.
    pub tokens: usize,
    /// Whether it was cut at the length limit.
    pub truncated: bool,
}

impl Measurement {
    /// From samples of at least two prompts, in any order.
    pub fn new(samples: &[Sampled], unit: Unit) -> Self {
        let counted = |sum: f64, sample: &Sampled| match unit {
            Unit::Sequence => sum,
            Unit::Token => sum / sample.tokens.max(1) as f64,
        };
        let means = prompt_means(samples, |s| counted(s.divergence, s));
        assert!(means.len() > 1, "an interval needs at least two prompts");
        let exact = Spread::of(&means);
        let Mean { value, interval: [low, high] } = Mean::of(&means);
        Self {
            mean: value,
            interval: [low.max(0.0), high],
            prompts: means.len(),
            samples: samples.len(),
            tokens: samples.iter().map(|s| s.tokens).sum(),
            truncated: samples.iter().filter(|s| s.truncated).count(),
            estimates: samples.iter().all(|s| s.estimates.is_some()).then(|| {
                let value = |s: &Sampled, i: usize| counted(s.estimates.expect("each has them")[i], s);
                let of = |i| Spread::of(&prompt_means(samples, |s| value(s, i)));
                Estimates { exact, k1: of(0), k2: of(1), k3: of(2) }
            }),
        }
    }

    /// Whether the divergence is within `budget`, at 95 % confidence.
    pub fn verdict(&self, budget: f64) -> Verdict {
        if self.interval[1] <= budget {
            Verdict::Held
        } else if self.interval[0] > budget {
            Verdict::NotHeld
        } else {
            Verdict::Undecided
        }
    }
}
