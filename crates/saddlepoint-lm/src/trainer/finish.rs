//! The end of a run: which weights it ends with, how far they are from the reference, what they say and how
//! they do on held-out examples.

use std::fs;
use std::path::Path;

use rand_chacha::rand_core::Rng;
use saddlepoint_core::seed::Seed;
use saddlepoint_core::{Error as CoreError, atomic};
use serde_json::{Value, json};

use super::before::object;
use super::checkpoint::{pretty, read_weights, write_weights};
use super::example::Asked;
use super::sampling::Drawn;
use super::setup::Run;
use super::summary::{Evaluation, SampleSummary, Summary};
use super::{Event, MODEL, Observer, SAMPLES, SUMMARY};
use crate::Result;
use crate::data::generate::GenerateConfig;
use crate::tether::{Measurement, Report, Verdict};

/// Random streams of the samples after training.
const AFTER: &str = "samples/after";
const AGAIN: &str = "samples/after/again";

/// The summary of a run that is complete.
pub(super) fn summary(dir: &Path) -> Result<Option<Summary>> {
    let path = dir.join(SUMMARY);
    if !path.is_file() {
        return Ok(None);
    }
    super::checkpoint::parse(&path).map(Some)
}

impl Run<'_> {
    /// Samples for `prompts`, by the random stream of that name and number.
    pub(super) fn draw(
        &self,
        prompts: &[&[u32]],
        stream: &str,
        index: u64,
        observer: Observer,
    ) -> Result<Vec<Drawn>> {
        observer(&Event::Sampling { prompts: prompts.len() });
        let seed = Seed::new(self.seed.stream(stream, &[index]).next_u64());
        self.sampling().draw(&self.policy, prompts, seed)
    }

    /// Samples by the random stream of that name and measures the divergence along them, if there is a tether.
    pub(super) fn measure(
        &mut self,
        prompts: &[Asked<'_>],
        stream: &str,
        step: u64,
        observer: Observer,
    ) -> Result<(Vec<Drawn>, Option<Measurement>)> {
        let drawn = self.draw(&Asked::ids(prompts), stream, step, observer)?;
        let Some(tether) = &self.tether else { return Ok((drawn, None)) };
        let sampling = self.sampling();
        let measured = sampling.measure(&mut self.policy, prompts, &drawn, tether.config())?;
        observer(&Event::Measured { step, measured: &measured, verdict: tether.verdict(&measured) });
        Ok((drawn, Some(measured)))
    }
}

/// A measurement that does not show that the budget is held.
fn left<'a>(run: &Run, measured: Option<&'a Measurement>) -> Option<&'a Measurement> {
    let verdict = |of: &&Measurement| run.tether.as_ref().and_then(|tether| tether.verdict(of));
    measured.filter(|of| verdict(of).is_some_and(|verdict| verdict != Verdict::Held))
}

/// Chooses the weights that the run ends with, measures, samples and evaluates them, and writes `model/`,
/// `samples.jsonl` and `summary.json`.
pub(super) fn finish(run: &mut Run, observer: Observer) -> Result<Summary> {
    let job = run.job;
    let mut model_step = run.state.step;
    if job.recipe.train.load_best_model_at_end
        && let Some(best) = run.state.best.filter(|best| best.step != run.state.step)
    {
        let folder = run.dir.path().join(format!("checkpoint-{}", best.step));
        read_weights(&folder, &job.recipe, &job.model, &mut run.policy)?;
        model_step = best.step;
    }

    let (prompts, held_out) = job.sampled_prompts();
    let (mut after, mut measured, mut line) = (Vec::new(), None, None);
    if !prompts.is_empty() {
        line = run.rescale(&prompts, model_step, observer)?;
        (after, measured) = run.measure(&prompts, AFTER, model_step, observer)?;
    }
    if let (Some(line), Some(of)) = (&mut line, left(run, measured.as_ref())) {
        let factor = line.follow(of.interval[1]);
        run.scale_adapter(factor);
        (after, measured) = run.measure(&prompts, AGAIN, model_step, observer)?;
    }
    if let Some(kept) = &run.state.kept
        && left(run, measured.as_ref()).is_some()
    {
        (model_step, line) = (kept.step, None);
        run.policy.trainable().params.copy_from_slice(&run.kept);
        (after, measured) = run.measure(&prompts, AFTER, model_step, observer)?;
    }
    let scale = line.map(|line| line.scale);
    let report = run.tether.as_ref().zip(measured).map(|(tether, of)| Report { scale, ..tether.report(&of) });

    let after_means = match run.evaluated.take().filter(|(step, _)| *step == model_step && scale.is_none()) {
        Some((_, means)) => Some(means),
        None => run.evaluate()?,
    };
    let evaluation = run.before.evaluation.clone().zip(after_means.map(object));

    let samples = (!prompts.is_empty()).then(|| {
        let (lines, accuracy) = compare(run, &Asked::ids(&prompts), &after);
        (
            lines,
            SampleSummary {
                prompts: prompts.len(),
                held_out,
                accuracy_before: accuracy.0,
                accuracy_after: accuracy.1,
            },
        )
    });
    if let Some((lines, _)) = &samples {
        // Behind the completions that were trained on, if there are such.
        let path = run.dir.path().join(SAMPLES);
        let trained = if job.plan.is_some() { trained(&path)? } else { String::new() };
        atomic::write(&path, (trained + lines).as_bytes())?;
    }
    let model = run.dir.path().join(MODEL);
    if model.exists() {
        // Left by a run that was interrupted between this line and its summary.
        fs::remove_dir_all(&model).map_err(|source| CoreError::Io {
            action: "remove",
            path: model.clone(),
            source,
        })?;
    }
    let score_scale = job.score_scale(&mut run.policy)?;
    atomic::dir(&model, |folder| {
        write_weights(folder, &job.recipe, &job.model, &mut run.policy)?;
        score_scale.map_or(Ok(()), |scale| scale.write(folder))
    })?;

    let summary = Summary {
        run_dir: run.dir.path().to_owned(),
        steps: run.state.step,
        seconds: run.watch.seconds(),
        metrics: run.state.last.clone(),
        model_step,
        tether: report,
        evaluation: evaluation.map(|(before, after)| Evaluation { before, after }),
        samples: samples.map(|(_, summary)| summary),
    };
    let value = serde_json::to_value(&summary).expect("numbers and text are JSON");
    atomic::write(&run.dir.path().join(SUMMARY), &pretty(&value))?;
    Ok(summary)
}

/// The completions in `samples.jsonl` that were trained on.
fn trained(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(CoreError::Io { action: "read", path: path.to_owned(), source }.into()),
    }
}

/// What comes last in `samples.jsonl`, one prompt a line with its first sample, and the share of right samples before and after.
fn compare(run: &Run, prompts: &[&[u32]], after: &[Drawn]) -> (String, (Option<f64>, Option<f64>)) {
    let codec = &run.job.codec;
    let task = run.job.recipe.data.generate.as_ref().and_then(GenerateConfig::rule);
    let texts: Vec<String> = prompts.iter().map(|ids| codec.tokenizer.decode(ids)).collect();
    let said = |drawn: &Drawn| codec.tokenizer.decode(&drawn.ids);
    let right =
        |drawn: &Drawn| task.map(|task| !drawn.cut && task.verify(&texts[drawn.prompt], &said(drawn)));
    let accuracy = |drawn: &[Drawn]| {
        let judged: Vec<bool> = drawn.iter().filter_map(right).collect();
        (!judged.is_empty())
            .then(|| judged.iter().filter(|&&right| right).count() as f64 / judged.len() as f64)
    };
    let first = |drawn: &[Drawn], prompt: usize| drawn.iter().find(|d| d.prompt == prompt).cloned();
    let line = |prompt: usize| {
        let mut line = json!({ "prompt": texts[prompt] });
        for (name, drawn) in [("before", first(&run.before.samples, prompt)), ("after", first(after, prompt))]
        {
            line[name] = drawn.as_ref().map_or(Value::Null, |drawn| said(drawn).into());
            if let Some(right) = drawn.as_ref().and_then(right) {
                line[format!("{name}_right")] = right.into();
            }
        }
        format!("{line}\n")
    };
    ((0..prompts.len()).map(line).collect(), (accuracy(&run.before.samples), accuracy(after)))
}
