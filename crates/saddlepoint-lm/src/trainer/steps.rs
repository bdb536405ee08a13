//! The training loop.

use rand_chacha::rand_core::Rng;
use saddlepoint_core::metrics::Metrics;
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::optimizer::{clip_factor, global_norm};

use super::cached::Side;
use super::evaluate::{Means, named};
use super::example::{Asked, Example, with_samples};
use super::mismatched::Mismatched;
use super::order::permutation;
use super::setup::Run;
use super::state::{Best, Kept};
use super::{Event, Observer, checkpoint, on_policy};
use crate::engine::{Cotangent, Policy, Want};
use crate::method::{Norm, Sums};
use crate::tether::{Tether, Verdict};
use crate::{Error, Result};

/// Does the steps that are left.
pub(super) fn train(run: &mut Run, observer: Observer) -> Result<()> {
    let job = run.job;
    let (recipe, config, total) = (&job.recipe, &job.recipe.train, job.steps());

    if run.state.step == 0 && run.tether.as_ref().is_some_and(|tether| tether.due(0)) {
        // Not logged: metrics are of steps.
        tighten(run, observer)?;
    }
    while run.state.step < total {
        let Learned { means, examples, tokens } = match &job.plan {
            Some(plan) => on_policy::learn(run, plan, run.want(), observer)?,
            None => learn(run, run.want())?,
        };

        let rate = recipe.learning_rate() * run.schedule.factor(run.state.step);
        let grad_norm = global_norm(run.policy.trainable().grads);
        if !grad_norm.is_finite() {
            return Err(not_finite(run, "the gradient norm", grad_norm, &examples));
        }
        let clip = clip_factor(grad_norm, recipe.optimizer.max_grad_norm);
        let trainable = run.policy.trainable();
        run.optimizer.update(trainable.params, trainable.grads, rate, clip)?;

        run.state.step += 1;
        let reference = run.tether.as_ref().map(|tether| &tether.config().reference);
        if let Some(decay) = reference.and_then(|reference| reference.decay_after(run.state.step)) {
            run.policy.follow(decay);
        }
        run.state.num_tokens += tokens;
        run.state.window.add(&means);
        let step = run.state.step;
        let due = |every: u64| step == total || (every > 0 && step.is_multiple_of(every));
        let loss = means.iter().find(|(name, _)| name == "loss").map_or(f64::NAN, |(_, loss)| *loss);
        observer(&Event::Step { step, total, loss });

        // Not after the last step: the verdict on it is the one of the end, not the better of two.
        let measures = step < total && run.tether.as_ref().is_some_and(|tether| tether.due(step));
        if due(config.logging_steps) && !run.state.window.is_empty() {
            let mut metrics = run.state.window.take();
            metrics.set("grad_norm", grad_norm);
            metrics.set("learning_rate", rate);
            // A measurement moves it, and records where to.
            if let Some(tether) = run.tether.as_ref().filter(|_| !measures) {
                metrics.set("tether/beta", tether.beta());
            }
            metrics.set("num_tokens", run.state.num_tokens as f64);
            if let Some(plan) = &job.plan {
                metrics.set("num_completions", (run.state.prompts * plan.num_generations as u64) as f64);
            }
            metrics.set("epoch", run.epoch());
            log(run, &metrics, observer)?;
        }
        if measures && let Some(metrics) = tighten(run, observer)? {
            log(run, &metrics, observer)?;
        }
        let mut best = false;
        if due(config.eval_steps)
            && let Some(means) = run.evaluate()?
        {
            best = judge(run, &means)?;
            let mut metrics = Metrics::new();
            for (name, value) in &means {
                metrics.set(format!("eval_{name}"), *value);
            }
            metrics.set("epoch", run.epoch());
            run.evaluated = Some((step, means));
            log(run, &metrics, observer)?;
        }
        if due(config.save_steps) || (best && config.load_best_model_at_end) {
            save(run, observer)?;
        }
    }
    Ok(())
}

/// What an optimizer step learned, with its gradients in the policy.
#[derive(Debug)]
pub(super) struct Learned {
    /// Metrics.
    pub(super) means: Means,
    /// Examples that it was from.
    pub(super) examples: Vec<usize>,
    /// Tokens read, as TRL counts them.
    pub(super) tokens: u64,
}

/// Passes over the examples of the step that is due.
fn learn(run: &mut Run, want: Want) -> Result<Learned> {
    let job = run.job;
    let records = run.order.step(run.state.step);
    let examples: Vec<&Example> = records.iter().map(|&i| &job.train.examples[i]).collect();
    let mut norm = Norm::default();
    for example in &examples {
        example.count(&mut norm);
    }

    let drawn = run.wanted(&examples)?;

    run.policy.zero_grads();
    let mut sums = Sums::default();
    let size = job.recipe.train.per_device_train_batch_size;
    let mismatched = Mismatched::of(job, &mut run.policy, &examples, size)?;
    let mut drawn = drawn.chunks(size);
    for (examples, records) in examples.chunks(size).zip(records.chunks(size)) {
        let batch = with_samples(examples, drawn.next().unwrap_or_default());
        let mut stats = batch.forward(&mut run.policy, want)?;
        if let Some(cached) = &run.cached {
            cached.complete(Side::Train, records, &batch, &mut stats);
        }
        let beta = run.tether.as_ref().and_then(Tether::method_beta);
        let view = batch.view(&stats, norm, beta, mismatched.mean);
        let mut cotangent = Cotangent::default();
        let mut part = job.method.loss(&view, &mut cotangent);
        if let Some(tether) = &run.tether {
            tether.penalize(&view, &mut cotangent, &mut part);
        }
        finite(run, &part, records)?;
        run.policy.backward(&cotangent)?;
        sums.merge(&part);
    }
    mismatched.report(&mut sums);
    let tokens = examples.iter().map(|example| example.tokens() as u64).sum();
    Ok(Learned { means: named(sums.means(norm)), examples: records, tokens })
}

/// Records metrics after the current step.
fn log(run: &mut Run, metrics: &Metrics, observer: Observer) -> Result<()> {
    run.state.logged(metrics);
    run.recorder.log(run.state.step, metrics)?;
    observer(&Event::Logged { step: run.state.step, metrics });
    Ok(())
}

/// Measures the divergence on training prompts, moves the tether's coefficient, and keeps the weights if the
/// budget is held. Returns what was measured.
fn tighten(run: &mut Run, observer: Observer) -> Result<Option<Metrics>> {
    let (sampling, step) = (run.sampling(), run.state.step);
    let Some(tether) = &mut run.tether else { return Ok(None) };
    let all = run.job.train.prompts();
    let order = permutation(run.seed, "tether/prompts", &[step], all.len());
    let prompts: Vec<Asked> = order.iter().take(tether.config().prompts).map(|&i| all[i]).collect();
    let seed = Seed::new(run.seed.stream("tether/samples", &[step]).next_u64());
    let drawn = sampling.draw(&run.policy, &Asked::ids(&prompts), seed)?;
    let measured = sampling.measure(&mut run.policy, &prompts, &drawn, tether.config())?;
    tether.observe(&measured)?;
    run.state.duals = tether.duals().cloned();
    let verdict = tether.verdict(&measured);
    let mut metrics = Metrics::new();
    metrics.set("tether/divergence", measured.mean);
    metrics.set("tether/divergence_low", measured.interval[0]);
    metrics.set("tether/divergence_high", measured.interval[1]);
    metrics.set("tether/truncated", measured.truncated as f64);
    metrics.set("tether/beta", tether.beta());
    observer(&Event::Measured { step, measured: &measured, verdict });
    if verdict == Some(Verdict::Held) {
        run.kept.clear();
        run.kept.extend_from_slice(run.policy.trainable().params);
        run.state.kept = Some(Kept { step, measured });
    }
    Ok(Some(metrics))
}

/// Compares an evaluation with the best so far; true if it is better.
fn judge(run: &mut Run, means: &[(String, f64)]) -> Result<bool> {
    let (config, on_policy) = (&run.job.recipe.train, run.job.plan.is_some());
    let named = config.best_metric(on_policy);
    let Some((_, value)) = means.iter().find(|(name, _)| *name == named) else {
        let known: Vec<&str> = means.iter().map(|(name, _)| name.as_str()).collect();
        let problem = format!("no evaluation has `{named}`; there are {}", known.join(", "));
        return Err(Error::Config { key: "train.metric_for_best_model".to_owned(), problem });
    };
    let better = run.state.best.is_none_or(|best| config.better(*value, best.value, on_policy));
    if better {
        run.state.best = Some(Best { step: run.state.step, value: *value });
    }
    Ok(better)
}

/// Writes a checkpoint, after which everything recorded so far stays, and removes old ones.
fn save(run: &mut Run, observer: Observer) -> Result<()> {
    let (step, epoch, job) = (run.state.step, run.epoch(), run.job);
    run.recorder.sync()?;
    let (policy, state): (&mut Policy, _) = (&mut run.policy, &run.state);
    let (optimizer, kept) = (&run.optimizer, &run.kept);
    let path = run.dir.checkpoint(step, |folder| -> Result<()> {
        checkpoint::write_weights(folder, &job.recipe, &job.model, policy)?;
        checkpoint::write_state(folder, state, kept, optimizer, policy, epoch)
    })?;
    let found = run.dir.checkpoints()?;
    // The one of step 0 has no weights; it has served its purpose.
    let whole = found.len() - usize::from(found[0].0 == 0);
    let keep = job.recipe.train.save_total_limit.unwrap_or(whole).min(whole);
    run.dir.prune(keep, run.state.best.map(|best| best.step).as_slice())?;
    observer(&Event::Saved { path: &path });
    Ok(())
}

/// Refuses metrics that are not finite, before anything is changed by them.
pub(super) fn finite(run: &Run, sums: &Sums, records: &[usize]) -> Result<()> {
    let one = Norm { tokens: 1, sequences: 1, pairs: 1, desirable: 1 };
    match sums.means(one).into_iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(not_finite(run, name, value, records)),
        None => Ok(()),
    }
}

fn not_finite(run: &Run, what: &str, value: f64, examples: &[usize]) -> Error {
    let records: Vec<String> = examples.iter().map(|&i| run.job.train.records[i].to_string()).collect();
    Error::NotFinite {
        what: format!("{what} of step {} (records {})", run.state.step + 1, records.join(", ")),
        value,
        remedy:
            "lower optimizer.learning_rate or look at these records (counted from 0); nothing was changed by \
                 this step, and the last checkpoint is whole"
                .to_owned(),
    }
}
