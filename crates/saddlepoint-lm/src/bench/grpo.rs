//! A step of GRPO: completions are sampled, then learned from.

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::seed::Seed;

use super::{Options, Report, adamw, checked, ids, policy, timed, update};
use crate::Result;
use crate::engine::{Cotangent, LoraConfig, Reference};
use crate::method::grpo::{Grpo, GrpoConfig};
use crate::method::{Method, Norm, Rewarded, View};
use crate::rollout::{Drawing, RolloutConfig, Round, Weighted};

/// Completions of the prompt.
const COMPLETIONS: usize = 8;
/// Tokens of the prompt and of each completion.
const TOKENS: usize = 128;

/// One step with LoRA of rank 16 and the sampled KL to the reference: eight completions of 128 tokens are sampled after a
/// prompt of 128, and learned from, with a correction where `options` has narrower weights. A token is one of a prompt or a
/// completion, a prompt's counted for each completion.
///
/// # Errors
/// No runs are asked for.
pub fn grpo(options: &Options) -> Result<Report> {
    let runs = checked(options)?;
    let prompt = ids(TOKENS, 0);
    let rows = COMPLETIONS * TOKENS;
    let tokens = TOKENS + COMPLETIONS * (TOKENS - 1);
    let mut policy = policy(Some(LoraConfig::default()), Reference::AdapterOff, tokens, rows)?;
    let mut optimizer = adamw(&mut policy)?;
    let method = Grpo::new(GrpoConfig { beta: 0.04, ..GrpoConfig::default() })?;
    let weights = options.weights;
    let config = RolloutConfig { max_completion_length: TOKENS, weights, ..RolloutConfig::default() };
    let drawing =
        Drawing { config: &config, num_generations: COMPLETIONS, stop: &[], max_batch: COMPLETIONS };
    let rewards: Vec<Option<f64>> = (0..COMPLETIONS).map(|i| Some((i % 3) as f64)).collect();
    let (mut seed, mut sampling) = (0, Vec::new());
    let seconds = timed(runs, || {
        seed += 1;
        let watch = Stopwatch::start();
        let completions = drawing.draw(&policy, &[&prompt], Seed::new(seed))?;
        sampling.push(watch.seconds());
        let whole = 0..COMPLETIONS;
        let rewarded = Rewarded::new(std::slice::from_ref(&whole), &rewards);
        let advantages = method.advantages(&rewarded);
        let round = Round {
            examples: vec![0],
            completions,
            rewards: rewards.clone(),
            advantages,
            ..Round::default()
        };
        policy.zero_grads();
        let mut pass = round.pass(0..COMPLETIONS, |_| &prompt);
        let stats = policy.forward(&pass.forest, method.want())?;
        if config.corrected().is_some() {
            pass.trained_by(&stats);
        }
        let rollout = crate::method::Rollout {
            completions: &pass.judged,
            max_completion_length: TOKENS,
            step: 0,
            tokens_a_step: rows as f64,
        };
        let view = View {
            rollout: Some(rollout),
            ..View::new(
                &pass.sequences,
                &stats,
                Norm { tokens: rows, sequences: COMPLETIONS, ..Norm::default() },
            )
        };
        let mut cotangent = Cotangent::default();
        method.loss(&view, &mut cotangent);
        if let Some(correction) = config.corrected() {
            pass.weight(correction, &mut cotangent, &mut Weighted::default());
        }
        policy.backward(&cotangent)?;
        update(&mut policy, &mut optimizer);
        Ok(())
    })?;
    let share = sampling[1..].iter().sum::<f64>() / seconds.iter().sum::<f64>();
    let mut report = Report::new("grpo", seconds, COMPLETIONS * 2 * TOKENS);
    report.sampling_fraction = Some(share);
    Ok(report)
}
