//! Lion and AdamW on a small language model: where its weights end, and what is learned.

use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings, Observer};
use saddlepoint_opt::optimizer::lion::{Decay, Kappa};
use saddlepoint_opt::optimizer::{AdamWConfig, LionConfig, OptimizerConfig};

use crate::Result;
use crate::engine::TensorSpec;
use crate::recipe::Recipe;
use crate::reproduce::learner::Learner;
use crate::trainer::{Example, Job};

/// How large the experiment is.
pub(super) struct Size {
    width: usize,
    layers: usize,
    steps: usize,
}

pub(super) const DEFAULT: Size = Size { width: 64, layers: 2, steps: 400 };
pub(super) const FULL: Size = Size { width: 128, layers: 4, steps: 2000 };
#[cfg(test)]
pub(super) const TINY: Size = Size { width: 16, layers: 1, steps: 250 };

/// The weights start with deviation 0.02, so some 1 % of them starts outside of this box of half-width 0.05.
pub(super) const LION: LionConfig =
    LionConfig { beta1: 0.9, beta2: 0.99, weight_decay: 20.0, decay: Decay::Explicit, kappa: Kappa::L1 };
const BOX: f64 = 1.0 / 20.0;
const LION_RATE: f64 = 1e-3;
/// AdamW's, three times Lion's as is usual.
const ADAMW_RATE: f64 = 3e-3;
const BATCH: usize = 64;
/// What a thousand roundings to `f32` may add, as a share of a number.
const ROUNDING: f64 = 1e-4;

/// What one run of one optimizer gives.
struct Seen {
    losses: Vec<f64>,
    /// Largest magnitude of a decayed weight after each step, in units of the box.
    largest: Vec<f64>,
    /// Steps after which the distance from the box was more than the rate of entry allows.
    late: usize,
    /// Weights that were inside and are outside after a step.
    left: usize,
}

/// The runs of one seed.
struct Runs {
    lion: Seen,
    /// Lion in a box 20 times as wide, of which little is felt.
    wide: Seen,
    adamw: Seen,
}

impl Seen {
    /// Mean loss of the last fifth of the run.
    fn loss(&self) -> f64 {
        let last = &self.losses[self.losses.len() - self.losses.len() / 5..];
        last.iter().sum::<f64>() / last.len() as f64
    }

    fn end(&self) -> f64 {
        self.largest.last().copied().unwrap_or(f64::NAN)
    }
}

/// The claims about weights and loss, for Lion with these settings.
pub(super) fn findings(
    seeds: usize,
    size: &Size,
    config: LionConfig,
    observer: Observer,
) -> Result<Findings> {
    let mut runs = Vec::new();
    for seed in 0..seeds as u64 {
        observer(seed, seeds as u64, "a language model by Lion and AdamW");
        let wide = LionConfig { weight_decay: config.weight_decay / 20.0, ..config };
        let adamw = AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() };
        runs.push(Runs {
            lion: train(seed, size, OptimizerConfig::Lion(config), LION_RATE)?,
            wide: train(seed, size, OptimizerConfig::Lion(wide), LION_RATE)?,
            adamw: train(seed, size, OptimizerConfig::Adamw(adamw), ADAMW_RATE)?,
        });
    }
    let values = |of: fn(&Runs) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let claims = vec![
        Claim::mean(
            "language model: largest weight at the start, in units of 1/λ",
            "outside, so that there is a phase 1",
            &values(|run| run.lion.largest[0]),
            Bound::Above(1.0),
        ),
        Claim::never(
            "language model: distance from the box above the product of (1 - eλ) times the first one",
            "never (phase 1)",
            runs.iter().map(|run| run.lion.late).sum(),
        ),
        Claim::never(
            "language model: a weight leaves the box after it has entered",
            "never (phase 2)",
            runs.iter().map(|run| run.lion.left).sum(),
        ),
        Claim::mean(
            "language model: largest weight at the end with Lion, in units of 1/λ",
            "at most 1",
            &values(|run| run.lion.end()),
            Bound::Below(1.01),
        ),
        Claim::mean(
            "language model: largest weight at the end with AdamW, in the same units",
            "not bounded by the box",
            &values(|run| run.adamw.end()),
            Bound::Above(1.01),
        ),
        Claim::mean(
            "language model: training loss of Lion less that of AdamW, with a box 20 times as wide, nats a token",
            "Lion is as good or better at equal steps",
            &values(|run| run.wide.loss() - run.adamw.loss()),
            Bound::Below(0.02),
        ),
        Claim::mean(
            "language model: training loss in the box less that in the box 20 times as wide, nats a token",
            "a smaller box ends worse",
            &values(|run| run.lion.loss() - run.wide.loss()),
            Bound::Above(0.0),
        ),
    ];
    let Runs { lion, wide, adamw } = &runs[0];
    let curves = |of: fn(&Seen) -> &[f64]| {
        let curve = |name: &str, values: &[f64]| Curve {
            name: name.to_owned(),
            points: values.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect(),
        };
        vec![curve("Lion", of(lion)), curve("Lion, wide box", of(wide)), curve("AdamW", of(adamw))]
    };
    let figures = vec![
        Figure {
            title: "Language model: largest weight, in units of 1/λ (seed 0)".into(),
            x: "steps".into(),
            curves: curves(|seen| &seen.largest),
            limit: Some((1.0, "box".into())),
        },
        Figure {
            title: "Language model: training loss, nats a token (seed 0)".into(),
            x: "steps".into(),
            curves: curves(|seen| &seen.losses),
            limit: None,
        },
    ];
    Ok(Findings { claims, figures })
}

/// Trains on fresh data that are right four times in five; the rate falls to 0 in the second half.
fn train(seed: u64, size: &Size, optimizer: OptimizerConfig, rate: f64) -> Result<Seen> {
    let Size { width, layers, steps } = size;
    let text = format!(
        "[model]\nnew = {{ hidden_size = {width}, intermediate_size = {}, num_hidden_layers = {layers}, \
         num_attention_heads = 4, num_key_value_heads = 2 }}\n\
         [data]\ngenerate = {{ task = \"largest\", samples = {}, eval_samples = 0, right = 0.8 }}\n\
         [train]\nseed = {seed}\nper_device_train_batch_size = {BATCH}\n",
        3 * width,
        BATCH * steps,
    );
    let recipe: Recipe = toml::from_str(&text).expect("a recipe of this program");
    let job = Job::open(&recipe)?;
    let method = recipe.method.build()?;
    let mut learner = Learner::new(job.policy(job.setup(None))?, optimizer)?;
    let mut before = outside(&mut learner);
    let first = largest(&before);
    let mut seen = Seen { losses: Vec::new(), largest: vec![1.0 + first], late: 0, left: 0 };
    let (mut allowed, lambda) = (first, 1.0 / BOX);
    let examples: Vec<&Example> = job.train().examples().iter().collect();
    for (t, examples) in examples.chunks(BATCH).enumerate() {
        let left = 2.0 * (1.0 - t as f64 / *steps as f64);
        let rate = rate * left.min(1.0);
        seen.losses.push(learner.step(&*method, examples, rate)?);
        let now = outside(&mut learner);
        allowed *= 1.0 - rate * lambda;
        let far = largest(&now);
        seen.late += usize::from(!far.is_finite() || far > allowed + ROUNDING);
        seen.left +=
            before.iter().zip(&now).filter(|(before, now)| **before <= 0.0 && **now > ROUNDING).count();
        seen.largest.push(1.0 + largest(&now));
        before = now;
    }
    Ok(seen)
}

/// How far each decayed weight is beyond the box, in units of the box; negative inside.
fn outside(learner: &mut Learner) -> Vec<f64> {
    let trainable = learner.policy.trainable();
    let decayed = trainable.tensors.iter().filter(|spec| TensorSpec::optimized(spec).decays);
    decayed
        .flat_map(|spec| &trainable.params[spec.range()])
        .map(|&x| f64::from(x).abs() / BOX - 1.0)
        .collect()
}

fn largest(distances: &[f64]) -> f64 {
    distances.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
