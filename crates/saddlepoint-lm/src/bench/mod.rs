//! Timed work on random weights of SmolLM2-135M's shape, as shares of what the machine can do.

mod grpo;
mod head;
mod machine;

use std::ops::ControlFlow;

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::memory;
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::optimizer::{AdamW, AdamWConfig, clip_factor, global_norm};
use serde::Serialize;

pub use self::grpo::grpo;
pub use self::head::head;
use crate::engine::{
    Cotangent, Forest, GenerateConfig, Generator, LoraConfig, Policy, Prompt, Readout, Reference, Rope,
    RopeScaling, Setup, Shape, Storage, Want, Weights,
};
use crate::{Error, Result};

/// What to time.
#[derive(Debug, Clone)]
pub struct Options {
    /// Timed repetitions, after one that is not counted; at least 1.
    pub runs: usize,
    /// Type of the weights of `generate`.
    pub weights: Weights,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub name: String,
    /// Median time of a repetition, seconds.
    pub median_s: f64,
    /// Shortest time of a repetition, seconds.
    pub min_s: f64,
    /// Number of repetitions.
    pub runs: usize,
    /// Tokens of the work a second, by the median.
    pub tokens_per_s: Option<f64>,
    /// Most resident memory of the process, MB (10^6 bytes).
    pub peak_rss_mb: Option<f64>,
    /// Time that the work's matrix products alone need, as a share of the median.
    pub gemm_fraction: Option<f64>,
    /// Bytes that must be read, over the median and the measured bandwidth.
    pub bandwidth_fraction: Option<f64>,
    /// What the exact divergence and the entropy add, as a share of the head's time without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_extra: Option<f64>,
    /// Time in which completions are sampled, as a share of the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_fraction: Option<f64>,
}

impl Report {
    fn new(name: &str, mut seconds: Vec<f64>, tokens: usize) -> Self {
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        Self {
            name: name.to_owned(),
            median_s: median,
            min_s: seconds[0],
            runs: seconds.len(),
            tokens_per_s: Some(tokens as f64 / median),
            peak_rss_mb: memory::peak().map(|bytes| bytes as f64 / 1e6),
            gemm_fraction: None,
            bandwidth_fraction: None,
            exact_extra: None,
            sampling_fraction: None,
        }
    }
}

/// SmolLM2-135M.
fn shape() -> Shape {
    Shape {
        vocab: 49_152,
        hidden: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ffn: 1536,
        norm_eps: 1e-5,
        rope: Rope { theta: 1e5, scaling: RopeScaling::None },
        qkv_bias: false,
        qk_norm: false,
        tied: true,
        context: 8192,
        readout: Readout::Vocabulary,
    }
}

fn checked(options: &Options) -> Result<usize> {
    if options.runs == 0 {
        return Err(Error::Config { key: "runs".into(), problem: "must be at least 1 (default 5)".into() });
    }
    Ok(options.runs)
}

fn ids(n: usize, salt: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729 + 13) % 49_152) as u32).collect()
}

fn policy(
    lora: Option<LoraConfig>,
    reference: Reference,
    max_tokens: usize,
    max_rows: usize,
) -> Result<Policy> {
    let setup = Setup { lora, frozen: Storage::F32, reference, recompute: false, max_tokens, max_rows };
    let mut policy = Policy::new(shape(), setup)?;
    policy.init(&mut Seed::new(1).stream("bench", &[]));
    policy.init_adapter(&mut Seed::new(2).stream("bench", &[]));
    Ok(policy)
}

/// Runs `work` once uncounted and `runs` times timed.
fn timed(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    work()?;
    (0..runs)
        .map(|_| {
            let watch = Stopwatch::start();
            work()?;
            Ok(watch.seconds())
        })
        .collect()
}

/// The optimizer's part of a step, as the trainer does it.
fn update(policy: &mut Policy, optimizer: &mut AdamW) {
    let trainable = policy.trainable();
    let clip = clip_factor(global_norm(trainable.grads), 1.0);
    optimizer.update(trainable.params, trainable.grads, 1e-5, clip);
}

fn adamw(policy: &mut Policy) -> Result<AdamW> {
    let len = policy.trainable().params.len();
    Ok(AdamW::new(AdamWConfig::default(), len, Vec::new())?)
}

/// One full fine-tuning step on two sequences of 256 tokens.
///
/// # Errors
/// No runs are asked for.
pub fn step(options: &Options) -> Result<Report> {
    let runs = checked(options)?;
    let mut policy = policy(None, Reference::None, 510, 510)?;
    let mut optimizer = adamw(&mut policy)?;
    let mut supervised = vec![true; 256];
    supervised[0] = false;
    let mut forest = Forest::default();
    for salt in 0..2 {
        forest.sequence(&ids(256, salt), &supervised);
    }
    let rows = forest.rows.len();
    let seconds = timed(runs, || {
        policy.zero_grads();
        policy.forward(&forest, Want::default())?;
        policy.backward(&Cotangent { logp: vec![-1.0 / rows as f64; rows], ..Cotangent::default() })?;
        update(&mut policy, &mut optimizer);
        Ok(())
    })?;
    let mut report = Report::new("step", seconds, 512);
    let body = body_flops(forest.len());
    let head = 2.0 * rows as f64 * 49_152.0 * 576.0;
    report.gemm_fraction = Some((3.0 * body + 3.0 * head) / machine::gemm_peak(runs) / report.median_s);
    Ok(report)
}

/// Operations of the layers' products for `tokens` tokens, once through.
fn body_flops(tokens: usize) -> f64 {
    let shape = shape();
    let layer = shape.hidden * (shape.qkv_width() + shape.q_width() + 3 * shape.ffn);
    2.0 * (tokens * layer * shape.layers) as f64
}

/// One DPO step with LoRA of rank 16 on two pairs: prompts of 256 and completions of 64 tokens.
///
/// # Errors
/// No runs are asked for.
pub fn dpo(options: &Options) -> Result<Report> {
    let runs = checked(options)?;
    let mut forest = Forest::default();
    let mut sequences = Vec::new();
    for pair in 0..2 {
        let root = forest.root(&ids(256, pair));
        for side in 0..2 {
            sequences.push(forest.completion(root, &ids(64, 10 + 2 * pair + side)));
        }
    }
    let rows = forest.rows.len();
    let mut policy = policy(Some(LoraConfig::default()), Reference::AdapterOff, forest.len(), rows)?;
    let mut optimizer = adamw(&mut policy)?;
    let want = Want { ref_logp: true, ..Want::default() };
    let seconds = timed(runs, || {
        policy.zero_grads();
        let stats = policy.forward(&forest, want)?;
        let mut logp = vec![0.0; rows];
        for pair in sequences.chunks_exact(2) {
            let gain =
                |side: usize| pair[side].clone().map(|i| stats.logp[i] - stats.ref_logp[i]).sum::<f64>();
            let slope = -0.05 / (1.0 + (0.1 * (gain(0) - gain(1))).exp());
            pair[0].clone().for_each(|i| logp[i] = slope);
            pair[1].clone().for_each(|i| logp[i] = -slope);
        }
        policy.backward(&Cotangent { logp, ..Cotangent::default() })?;
        update(&mut policy, &mut optimizer);
        Ok(())
    })?;
    let mut report = Report::new("dpo", seconds, 2 * (256 + 2 * 64));
    let head = 2.0 * rows as f64 * 49_152.0 * 576.0;
    report.gemm_fraction =
        Some((3.0 * body_flops(forest.len()) + 3.0 * head) / machine::gemm_peak(runs) / report.median_s);
    Ok(report)
}

/// Decoding of 64 tokens after each of eight prompts of 64 tokens.
///
/// # Errors
/// No runs are asked for.
pub fn generate(options: &Options) -> Result<Report> {
    let runs = checked(options)?;
    let policy = policy(None, Reference::None, 64, 1)?;
    let prompts: Vec<Prompt> = (0..8).map(|i| Prompt { ids: ids(64, i), samples: 1 }).collect();
    let config = GenerateConfig {
        max_new_tokens: 64,
        temperature: 0.0,
        weights: options.weights,
        ..GenerateConfig::default()
    };
    let mut generator = Generator::new(&policy, config)?;
    let seconds = timed(runs, || {
        generator.run(&prompts, Seed::new(1), &mut |_| ControlFlow::Continue(())).map(|_| ())
    })?;
    let mut report = Report::new("generate", seconds, 8 * 64);
    let width = match options.weights {
        Weights::F32 => 4.0,
        Weights::Bf16 => 2.0,
        Weights::Int8 => 1.0,
    };
    let bytes = shape().parameters() as f64 * width * 63.0;
    report.bandwidth_fraction = Some(bytes / machine::bandwidth(runs) / report.median_s);
    Ok(report)
}

/// The machine's matrix-product rate on the shapes of a layer.
///
/// # Errors
/// No runs are asked for.
pub fn gemm(options: &Options) -> Result<Report> {
    let runs = checked(options)?;
    let (m, n, k) = (512, 3072, 576);
    let seconds = machine::gemm_seconds(m, n, k, runs);
    let mut report = Report::new("gemm", seconds, m);
    let rate = 2.0 * (m * n * k) as f64 / report.median_s;
    report.gemm_fraction = Some(rate / machine::gemm_peak(runs));
    Ok(report)
}
