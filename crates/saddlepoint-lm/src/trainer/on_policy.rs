//! Steps on the policy's own completions: a round is sampled and judged, and optimizer steps go through it.

use std::ops::Range;

use rand_chacha::rand_core::Rng;
use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::seed::Seed;
use serde_json::{Map, Value, json};

use super::checkpoint;
use super::evaluate::{Means, named};
use super::job::{Job, Part};
use super::sampling::MAX_BATCH;
use super::setup::Run;
use super::steps::{Learned, finite};
use super::{Event, Observer};
use crate::engine::{Cotangent, Policy, Readout, Stats, Want, Weights};
use crate::method::{Credit, Norm, Rewarded, Sums, View};
use crate::reward::aggregate::Aggregation;
use crate::reward::{Case, Rewards, Scores};
use crate::rollout::filter::chosen;
use crate::rollout::{Completion, Drawing, FilterConfig, Pass, Plan, RolloutConfig, Round, Server, Weighted};
use crate::teacher::{self, Sequence, Taught};
use crate::{Error, Result};

/// Passes of the optimizer step that is due, which leave its gradients in the policy. Samples a round where none waits.
pub(super) fn learn(run: &mut Run, plan: &Plan, want: Want, observer: Observer) -> Result<Learned> {
    let job = run.job;
    let place = plan.place(run.state.step);
    let (round, mut means) = match run.state.round.take() {
        Some(round) => (round, Means::new()),
        None if place.within > 0 => return Err(lost(run)),
        None => sample(run, plan, observer)?,
    };
    let step = place.first..place.first + plan.a_step;
    let (tokens, sequences) = (round.learned_tokens(step.clone()), plan.a_step);
    let norm = Norm { tokens, sequences, ..Norm::default() };
    let whole = round.learned_tokens(0..round.completions.len());
    let rollout = crate::method::Rollout {
        completions: &[],
        max_completion_length: job.rollout().max_completion_length,
        step: run.state.step,
        tokens_a_step: whole as f64 / plan.steps as f64,
    };

    run.policy.zero_grads();
    let (mut sums, mut apart, mut weighted) = (Sums::default(), Apart::default(), Weighted::default());
    let correction = job.rollout().corrected();
    for part in divided(&step, job.recipe.train.per_device_train_batch_size) {
        let mut pass = round.pass(part.clone(), |example| job.train.examples[example].prompt());
        let mut stats = run.policy.forward(&pass.forest, want)?;
        pass.teach(&mut stats);
        if place.within == 0 {
            apart.see(&pass, &stats);
        }
        if correction.is_some() && round.trained.is_empty() {
            pass.trained_by(&stats);
        }
        let view = View {
            // Under a tether the divergence is its own term.
            beta: run.tether.as_ref().map(|_| 0.0),
            rollout: Some(crate::method::Rollout { completions: &pass.judged, ..rollout }),
            ..View::new(&pass.sequences, &stats, norm)
        };
        let mut cotangent = Cotangent::default();
        let mut of_pass = job.method.loss(&view, &mut cotangent);
        if let Some(tether) = &run.tether {
            let learned =
                pass.sequences.iter().zip(&pass.judged).filter(|(_, judged)| judged.advantage.is_some());
            let sequences: Vec<Range<usize>> = learned.map(|(rows, _)| rows.clone()).collect();
            tether.penalize(&View { sequences: &sequences, ..view }, &mut cotangent, &mut of_pass);
        }
        if let Some(correction) = correction {
            pass.weight(correction, &mut cotangent, &mut weighted);
        }
        finite(run, &of_pass, &examples(&round, part))?;
        run.policy.backward(&cotangent)?;
        sums.merge(&of_pass);
    }
    means.extend(named(sums.means(norm)));
    means.extend(apart.means());
    means.extend(weighted.means());

    let read = |i: usize| {
        job.train.examples[round.examples[i / plan.num_generations]].prompt().len()
            + round.completions[i].ids.len()
    };
    // Of completions that are gone through again nothing new is read.
    let tokens = if place.within < plan.steps { step.clone().map(read).sum::<usize>() } else { 0 };
    let examples = examples(&round, step);
    if !plan.ends(place) {
        run.state.round = Some(round);
    }
    Ok(Learned { means, examples, tokens: tokens as u64 })
}

/// The examples of these completions, each once.
fn examples(round: &Round, part: Range<usize>) -> Vec<usize> {
    let groups = part.start / round.each()..part.end.div_ceil(round.each());
    round.examples[groups].to_vec()
}

/// The parts of a range, of `size` each.
fn divided(range: &Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range.clone().step_by(size).map(move |start| start..(start + size).min(end))
}

fn lost(run: &Run) -> Error {
    let path = run.dir.path().join(format!("checkpoint-{}", run.state.step));
    let problem = "has no rollouts.json, whose completions the next step goes on with: resume from an earlier checkpoint \
                   by removing this one"
        .to_owned();
    Error::Model { path, problem }
}

/// How far the log-probabilities of training are from those of sampling, by the same weights.
#[derive(Debug, Default)]
struct Apart {
    sum: f64,
    most: f64,
    tokens: usize,
}

impl Apart {
    fn see(&mut self, pass: &Pass, stats: &Stats) {
        for (rows, sampled) in pass.sequences.iter().zip(&pass.sampled) {
            for (new, old) in stats.logp[rows.clone()].iter().zip(*sampled) {
                let difference = (new - old).abs();
                self.sum += difference;
                self.most = self.most.max(difference);
                self.tokens += 1;
            }
        }
    }

    /// Under TRL's names.
    fn means(&self) -> Means {
        if self.tokens == 0 {
            return Means::new();
        }
        [("mean", self.sum / self.tokens as f64), ("max", self.most)]
            .map(|(name, value)| (format!("sampling/sampling_logp_difference/{name}"), value))
            .to_vec()
    }
}

/// Samples and judges the round that starts with the step that is due, and writes down what came out.
fn sample(run: &mut Run, plan: &Plan, observer: Observer) -> Result<(Round, Means)> {
    let job = run.job;
    let (mut round, scores, mut means) = gather(run, plan, observer)?;
    for failure in &scores.failures {
        let data = json!({
            "step": run.state.step + 1, "reward": failure.reward, "completion": failure.case,
            "problem": failure.problem,
        });
        run.recorder.event("reward_failed", &data)?;
    }

    if let Some(teacher) = run.teacher.as_ref().filter(|_| job.method.is_taught(run.state.step)) {
        round.taught = job.ask(teacher, &round)?;
    }
    let Traces { trained, log_ratios, values } = job.traces(run, plan, &round)?;
    round.trained = trained;
    let kl: Option<Vec<f64>> =
        log_ratios.as_ref().map(|all| all.iter().map(|tokens| tokens.iter().sum()).collect());
    if let Some(kl) = &kl {
        let tokens: usize = round.completions.iter().map(|completion| completion.ids.len()).sum();
        means.push(("kl".to_owned(), kl.iter().sum::<f64>() / tokens as f64));
    }
    let groups = round.groups();
    let rewarded = Rewarded {
        normalized: job.rewards().aggregation() == Aggregation::NormalizeThenSum,
        kl: kl.as_deref(),
        log_ratios: log_ratios.as_deref(),
        values: &values,
        ..Rewarded::new(&groups, &scores.signals)
    };
    let credit = job.method.credit(&rewarded);
    let mut advantages: Vec<Option<f64>> = if job.method.readout() == Readout::Both {
        means.extend(of_values(&credit));
        credit.iter().map(|credit| credit.as_ref().map(Credit::mean)).collect()
    } else {
        job.method.advantages(&rewarded)
    };
    round.credit = credit;
    if job.rollout().mask_truncated_completions {
        let cut = || round.completions.iter().map(|completion| !completion.finished);
        advantages.iter_mut().zip(cut()).filter(|(_, cut)| *cut).for_each(|(advantage, _)| *advantage = None);
        means.push(("completions/masked".to_owned(), cut().filter(|cut| *cut).count() as f64));
    }
    round.rewards.clone_from(&scores.sums);
    round.advantages = advantages;
    for line in lines(job, &round, &scores, run.state.step + 1) {
        run.recorder.sample(&line)?;
    }
    Ok((round, means))
}

/// Means of what was expected and what came, a token.
fn of_values(credit: &[Option<Credit>]) -> Means {
    let mean = |name: &str, of: fn(&Credit) -> &Vec<f64>| {
        let all: Vec<f64> = credit.iter().flatten().flat_map(of).copied().collect();
        (!all.is_empty()).then(|| (name.to_owned(), all.iter().sum::<f64>() / all.len() as f64))
    };
    [mean("values/mean", |credit| &credit.values), mean("returns/mean", |credit| &credit.returns)]
        .into_iter()
        .flatten()
        .collect()
}

/// What the policy before its first step on a round and its reference say of it, token by token.
#[derive(Debug, Default)]
struct Traces {
    /// [`Round::trained`].
    trained: Vec<Vec<f64>>,
    /// `ln π(y_t|..) − ln π₀(y_t|..)`, nats, if the method takes it from rewards and no tether is in its place.
    log_ratios: Option<Vec<Vec<f64>>>,
    /// Values of what the tokens follow, if the method learns them.
    values: Vec<Vec<f64>>,
}

/// The completions of a round with what they are worth, and metrics of all that were sampled for it.
fn gather(run: &mut Run, plan: &Plan, observer: Observer) -> Result<(Round, Scores, Means)> {
    let job = run.job;
    let (number, filter) = (plan.place(run.state.step).round, job.rollout().filter);
    let mut wait = Wait::default();
    let ahead = run.ahead.take().map(|ahead| wait.during(|| ahead.wait())).transpose()?;
    let (mut sampled, mut scores, mut attempts, mut kept) = (Round::default(), Scores::default(), 0, 0);
    let most = filter.as_ref().map_or(1, |filter| filter.max_attempts) * plan.prompts();
    if let Some(server) = &mut run.server {
        server.load(|folder| checkpoint::write_weights(folder, &job.recipe, &job.model, &mut run.policy))?;
    }
    let mut ahead = ahead.filter(|completions| run.keeps(completions, &mut wait));
    loop {
        let count = (plan.prompts() - kept).min(most - sampled.examples.len());
        let examples = run.order.stream(run.state.prompts, count);
        run.state.prompts += count as u64;
        observer(&Event::Sampling { prompts: count });
        let attempt = attempts;
        attempts += 1;
        let completions = if let Some(completions) = ahead.take() {
            // Of the same prompts: those of a round start where the one before ended.
            completions
        } else {
            let seed = run.seed_of_samples(number, attempt);
            wait.during(|| run.complete(&examples, plan.num_generations, seed))?
        };
        // Before more is asked for, whose faults are those of the next round.
        wait.redrawn += run.server.as_ref().map_or(0, Server::refused);
        if filter.is_none() {
            // Before the round is judged, which may take a while too.
            run.ask_ahead(plan, number + 1)?;
        }
        let mut fresh = Round::default();
        fresh.extend(examples, completions);
        scores.append(job.judge(&job.train, &fresh)?);
        sampled.extend(fresh.examples, fresh.completions);

        let Some(filter) = &filter else {
            let mut means = job.measures(&sampled, &scores);
            means.extend(run.staleness(&sampled));
            run.report(wait)?;
            return Ok((sampled, scores, means));
        };
        let right = job.right(filter, &scores, plan);
        kept = right.iter().filter(|&&k| filter.keeps(k, plan.num_generations)).count();
        let last = sampled.examples.len() == most;
        let picked = chosen(filter, &right, plan.num_generations, plan.prompts(), last);
        if let Some(picked) = picked {
            let of = right.len();
            let mut means = job.measures(&sampled, &scores);
            means.push(("filter/prompts".to_owned(), of as f64));
            means.push(("filter/accepted".to_owned(), kept as f64 / of as f64));
            means.push(("filter/filled".to_owned(), picked.len().saturating_sub(kept) as f64));
            let round = sampled.only(&picked);
            means.extend(run.staleness(&round));
            // Not before: which prompts are the next depends on how many this round took.
            run.ask_ahead(plan, number + 1)?;
            run.report(wait)?;
            return Ok((round, scores.only(&sampled.cases(&picked)), means));
        }
    }
}

/// What a round waited for.
#[derive(Debug, Default)]
struct Wait {
    seconds: f64,
    /// Completions that were drawn anew, because they were older than they may be or of other weights than were asked for.
    redrawn: usize,
}

impl Wait {
    fn during<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let watch = Stopwatch::start();
        let outcome = wait();
        self.seconds += watch.seconds();
        outcome
    }
}

/// The lines of `samples.jsonl`, a completion each.
fn lines<'a>(
    job: &'a Job,
    round: &'a Round,
    scores: &'a Scores,
    step: u64,
) -> impl Iterator<Item = Value> + 'a {
    let (codec, rewards) = (&job.codec, job.rewards());
    round.completions.iter().enumerate().map(move |(i, completion)| {
        let group = i / round.each();
        let example = round.examples[group];
        let parts: Map<String, Value> = rewards
            .names()
            .iter()
            .zip(&scores.parts)
            .map(|(name, parts)| ((*name).to_owned(), json!(parts[i].value())))
            .collect();
        let mut line = json!({
            "step": step,
            "record": job.train.records[example],
            "group": group,
            "prompt": codec.tokenizer.decode_with_special_tokens(job.train.examples[example].prompt()),
            "completion": codec.tokenizer.decode_with_special_tokens(&completion.ids),
            "finished": completion.finished,
            "tokens": completion.ids.len(),
            "logp": completion.logps.iter().sum::<f64>(),
            "rewards": parts,
            "reward": round.rewards[i],
            "advantage": round.advantages[i],
        });
        if let Some(version) = &completion.version {
            line["version"] = json!(version);
        }
        line
    })
}

impl Run<'_> {
    /// Completions of the prompts of these examples to learn from, by the server if there is one, which has the weights.
    fn complete(&self, examples: &[usize], num_generations: usize, seed: Seed) -> Result<Vec<Completion>> {
        let Self { job, policy, server, .. } = self;
        let config = job.rollout();
        let Some(server) = server else {
            return job.complete(policy, &job.train, examples, num_generations, config.weights, seed);
        };
        let drawing = job.drawing(&config, num_generations);
        server.draw(&drawing, job.model.shape.vocab, &job.train.prompt_ids(examples), seed)
    }

    /// What the samples of a round are a function of, beside weights and prompts.
    fn seed_of_samples(&self, round: u64, attempt: u64) -> Seed {
        Seed::new(self.seed.stream("rollout/samples", &[round, attempt]).next_u64())
    }

    /// Has the server begin with the completions of the next round by the weights that it has, if there is such a round and they may
    /// be so old. Its prompts count as taken when the round is.
    fn ask_ahead(&mut self, plan: &Plan, next: u64) -> Result<()> {
        let (job, config) = (self.job, self.job.rollout());
        let (Some(server), true) = (&self.server, config.max_staleness > 0) else { return Ok(()) };
        if plan.start(next) >= job.steps() {
            return Ok(());
        }
        let examples = self.order.stream(self.state.prompts, plan.prompts());
        let (drawing, prompts) =
            (job.drawing(&config, plan.num_generations), job.train.prompt_ids(&examples));
        let seed = self.seed_of_samples(next, 0);
        self.ahead = Some(server.draw_ahead(&drawing, job.model.shape.vocab, &prompts, seed)?);
        Ok(())
    }

    /// Whether these completions are no older than they may be.
    fn keeps(&self, completions: &[Completion], wait: &mut Wait) -> bool {
        let most = self.job.rollout().max_staleness;
        let fits = |completion| {
            self.server
                .as_ref()
                .and_then(|server| server.staleness(completion))
                .is_some_and(|age| age <= most)
        };
        let keeps = completions.iter().all(fits);
        wait.redrawn += if keeps { 0 } else { completions.len() };
        keeps
    }

    /// How many rounds older the weights are that sampled a round than those that it is trained from, where that may be.
    fn staleness(&self, round: &Round) -> Means {
        let Some(server) = self.server.as_ref().filter(|_| self.job.rollout().max_staleness > 0) else {
            return Means::new();
        };
        let ages: Vec<usize> = round.completions.iter().filter_map(|of| server.staleness(of)).collect();
        let (sum, most) = (ages.iter().sum::<usize>(), ages.iter().max().copied().unwrap_or(0));
        [("mean", sum as f64 / ages.len() as f64), ("max", most as f64)]
            .map(|(name, value)| (format!("sampling/staleness/{name}"), value))
            .to_vec()
    }

    /// Records what a round waited for. Not among metrics, which equal runs have equal.
    fn report(&mut self, Wait { seconds, redrawn }: Wait) -> Result<()> {
        if self.server.is_none() {
            return Ok(());
        }
        let data = json!({ "step": self.state.step + 1, "seconds_waited": seconds, "redrawn": redrawn });
        Ok(self.recorder.event("rollouts", &data)?)
    }
}

impl Part {
    fn prompt_ids(&self, examples: &[usize]) -> Vec<&[u32]> {
        examples.iter().map(|&i| self.examples[i].prompt()).collect()
    }
}

impl Job {
    /// Completions of the prompts of these examples.
    fn complete(
        &self,
        policy: &Policy,
        part: &Part,
        examples: &[usize],
        num_generations: usize,
        weights: Weights,
        seed: Seed,
    ) -> Result<Vec<Completion>> {
        let config = RolloutConfig { weights, ..self.rollout() };
        self.drawing(&config, num_generations).draw(policy, &part.prompt_ids(examples), seed)
    }

    fn drawing<'a>(&'a self, config: &'a RolloutConfig, num_generations: usize) -> Drawing<'a> {
        Drawing { config, num_generations, stop: &self.codec.eos, max_batch: MAX_BATCH }
    }

    fn rewards(&self) -> &Rewards {
        self.rewards.as_ref().expect("checked: a method on rewards has them")
    }

    /// How many completions of each prompt were right, by the reward that a filter asks.
    fn right(&self, filter: &FilterConfig, scores: &Scores, plan: &Plan) -> Vec<usize> {
        let place =
            filter.reward.as_ref().and_then(|name| self.rewards().names().iter().position(|n| n == name));
        let value = |case: usize| match place {
            Some(place) => scores.parts[place][case].value(),
            None => scores.sums[case],
        };
        let right = |case: &usize| value(*case).is_some_and(|reward| reward > 1.0 - 1e-9);
        let cases: Vec<usize> = (0..scores.sums.len()).collect();
        cases
            .chunks(plan.num_generations)
            .map(|group| group.iter().filter(|case| right(case)).count())
            .collect()
    }

    /// What the rewards say of completions.
    fn judge(&self, part: &Part, round: &Round) -> Result<Scores> {
        let case = |(i, completion): (usize, &Completion)| {
            let posed = part.examples[round.examples[i / round.each()]].posed().expect("prepared as prompts");
            let ended = usize::from(completion.finished);
            let said = &completion.ids[..completion.ids.len() - ended];
            Case {
                prompt: posed.prompt.text.clone(),
                completion: self.codec.tokenizer.decode(said),
                completion_ids: completion.ids.clone(),
                finished: completion.finished,
                columns: posed.columns.clone(),
            }
        };
        self.rewards().score(round.completions.iter().enumerate().map(case).collect(), &round.groups())
    }

    /// What asks a teacher that is not in this process, if there is one.
    pub(super) fn teacher(&self) -> Result<Option<teacher::Server>> {
        let (teacher, teaching) = (self.recipe.teacher.as_ref(), self.method.teacher());
        teacher.zip(teaching).map_or(Ok(None), |(teacher, teaching)| teacher.connect(teaching))
    }

    /// What a teacher says of the completions of a round.
    fn ask(&self, teacher: &teacher::Server, round: &Round) -> Result<Vec<Taught>> {
        let sequence = |i: usize| Sequence {
            prompt: self.train.examples[round.examples[i / round.each()]].prompt(),
            completion: &round.completions[i].ids,
        };
        let sequences: Vec<Sequence> = (0..round.completions.len()).map(sequence).collect();
        teacher.score(&sequences, &self.codec.tokenizer, self.model.shape.vocab)
    }

    /// Metrics of rewards and lengths.
    fn measures(&self, round: &Round, scores: &Scores) -> Means {
        let mut means = self.rewards().metrics(scores, &round.groups());
        means.extend(round.lengths().iter().map(|(name, value)| (name.to_owned(), value)));
        means
    }

    /// What is asked about a round before it is learned from.
    fn traces(&self, run: &mut Run, plan: &Plan, round: &Round) -> Result<Traces> {
        let needs = self.method.on_policy().filter(|needs| needs.kl_in_reward && run.tether.is_none());
        let (ref_logp, score) = (needs.is_some(), self.method.readout() == Readout::Both);
        let trained = self.rollout().corrected().is_some() && plan.steps * plan.iterations > 1;
        let mut traces = Traces { log_ratios: ref_logp.then(Vec::new), ..Traces::default() };
        if !(ref_logp || trained || score) {
            return Ok(traces);
        }
        let want = Want { ref_logp, score, temperature: self.rollout().tempered(), ..Want::default() };
        let size = self.recipe.train.per_device_train_batch_size;
        for part in divided(&(0..round.completions.len()), size) {
            let pass = round.pass(part, |example| self.train.examples[example].prompt());
            let stats = run.policy.evaluate(&pass.forest, want)?;
            for rows in pass.sequences {
                let of_policy = &stats.logp[rows.clone()];
                if let Some(log_ratios) = &mut traces.log_ratios {
                    let of_reference = &stats.ref_logp[rows.clone()];
                    log_ratios.push(of_policy.iter().zip(of_reference).map(|(p, q)| p - q).collect());
                }
                if trained {
                    traces.trained.push(of_policy.to_vec());
                }
                if score {
                    traces.values.push(stats.score[rows].to_vec());
                }
            }
        }
        Ok(traces)
    }

    /// Metrics of rewards and lengths of one completion of each prompt, by the same random numbers whenever it is asked.
    pub(super) fn rewarded(&self, policy: &Policy, part: &Part) -> Result<Means> {
        let seed = Seed::new(self.recipe.train.seed).stream("rollout/eval", &[]).next_u64();
        let examples: Vec<usize> = (0..part.len()).collect();
        let completions = self.complete(policy, part, &examples, 1, Weights::F32, Seed::new(seed))?;
        let round = Round { examples, completions, ..Round::default() };
        let mut means = self.measures(&round, &self.judge(part, &round)?);
        // A group of one has no spread.
        means.retain(|(name, _)| name != "frac_reward_zero_std");
        Ok(means)
    }

    /// Leaves in the policy the gradient of the log-probabilities of some completions.
    pub(super) fn score_of_completions(&self, policy: &mut Policy) -> Result<()> {
        let each = self.plan.map_or(1, |plan| plan.num_generations);
        let size = self.recipe.train.per_device_train_batch_size;
        let examples: Vec<usize> = (0..size.div_ceil(each).min(self.train.len())).collect();
        let seed = Seed::new(self.recipe.train.seed).stream("rollout/inspect", &[]).next_u64();
        let completions =
            self.complete(policy, &self.train, &examples, each, Weights::F32, Seed::new(seed))?;
        let count = completions.len();
        let round = Round { examples, completions, ..Round::default() };
        let pass = round.pass(0..count.min(size), |example| self.train.examples[example].prompt());
        policy.zero_grads();
        let score = self.method.readout() == Readout::Both;
        let stats = policy.forward(&pass.forest, Want { score, ..Want::default() })?;
        let [logp, score] = [stats.logp.len(), stats.score.len()].map(|rows| vec![1.0; rows]);
        policy.backward(&Cotangent { logp, score, ..Cotangent::default() })
    }
}
