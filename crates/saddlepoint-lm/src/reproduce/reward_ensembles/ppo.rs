//! PPO against trained reward models, with the gold reward followed over the steps.

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure};
use saddlepoint_core::seed::Seed;

use super::super::practice::Practice;
use super::super::preferences;
use super::members::Judge;
use super::words::{self, Answers, END, WORDS, Words};
use super::{CAUTIOUS, Combine, Make, WAYS, mean};
use crate::Result;
use crate::method::Method;
use crate::method::ppo::{Ppo, PpoConfig};

/// The paper's λ for PPO.
const LAMBDA: f64 = 0.1;
/// The paper's weight of the KL in the reward, with which ensembles are not over-optimised.
const BETA: f64 = 0.01;
/// Completions of a prompt in a round.
const COMPLETIONS: usize = 4;
/// Steps on a round, as in the paper.
const EPOCHS: usize = 4;
/// Largest learning rate; it falls to 0.
const RATE: f64 = 1e-3;
/// Parts of a run, over each of which what happens is averaged.
const PARTS: usize = 20;

/// The method.
///
/// # Errors
/// None in fact: the settings are fixed.
pub(super) fn method() -> Result<Box<dyn Method>> {
    Ok(Box::new(Ppo::new(PpoConfig { kl_coef: BETA, ..PpoConfig::default() })?))
}

/// Means over the completions of a part of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Part {
    /// Gold reward of either half of the completions of each prompt.
    gold: [f64; 2],
    /// `KL(π || π₀)`, nats.
    divergence: f64,
}

/// The parts of a run.
#[derive(Debug, Clone, PartialEq)]
struct Run(Vec<Part>);

impl Part {
    /// Gold reward of all completions.
    fn gold(&self) -> f64 {
        0.5 * (self.gold[0] + self.gold[1])
    }
}

impl Run {
    /// Gold reward at the end.
    fn last(&self) -> f64 {
        self.0[self.0.len() - 1].gold()
    }

    /// How far the gold reward has risen from the start to its highest, and fallen from there to the end. Where it is highest is
    /// looked for in one half of the completions and measured in the other, and the reverse, so that chance alone makes no fall.
    fn rise_and_fall(&self) -> [f64; 2] {
        let parts = &self.0;
        let mut both = [0.0; 2];
        for (sought, measured) in [(0, 1), (1, 0)] {
            let highest = parts.iter().max_by(|a, b| a.gold[sought].total_cmp(&b.gold[sought]));
            let highest = highest.map_or(f64::NAN, |part| part.gold[measured]);
            both[0] += 0.5 * (highest - parts[0].gold[measured]);
            both[1] += 0.5 * (highest - parts[parts.len() - 1].gold[measured]);
        }
        both
    }
}

/// What one seed gave with one kind of reward models.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// Against each member alone.
    single: Vec<Run>,
    /// Against all, in each of the cautious ways.
    together: Vec<Run>,
}

/// Trains the policy against each member alone, and against all together.
///
/// # Errors
/// The loss or the gradient is not finite, or a model cannot be read.
pub(super) fn outcome<J: Judge>(
    task: &Words,
    (judges, combine): (&mut [J], Combine),
    make: Make,
    rounds: usize,
    seed: u64,
) -> Result<Outcome> {
    let mut single = Vec::new();
    for judge in &mut *judges {
        let judges = std::slice::from_mut(judge);
        single.push(train(task, judges, &|scores| scores[0], &*make()?, rounds, seed)?);
    }
    let mut together = Vec::new();
    for (_, aggregate) in CAUTIOUS.map(|way| WAYS[way]) {
        let one = |scores: &[f64]| combine(aggregate, scores, LAMBDA);
        together.push(train(task, judges, &one, &*make()?, rounds, seed)?);
    }
    Ok(Outcome { single, together })
}

/// Trains the policy for so many rounds against what `one` makes of the scores of all.
fn train<J: Judge>(
    task: &Words,
    judges: &mut [J],
    one: &dyn Fn(&[f64]) -> f64,
    method: &dyn Method,
    rounds: usize,
    seed: u64,
) -> Result<Run> {
    let all = words::prompts();
    let prompts: Vec<&[u32]> = all.iter().map(|prompt| &prompt[..]).collect();
    let how = Practice { num_generations: COMPLETIONS, longest: WORDS + 1, end: END };
    let mut learner = preferences::learner(task.learner(COMPLETIONS * prompts.len())?)?;
    let mut samples = Seed::new(seed).stream("reproduce/words/ppo", &[]);
    let each = rounds.div_ceil(PARTS);
    let mut parts = vec![Part::default(); rounds.div_ceil(each)];
    for number in 0..rounds {
        let mut round = how.round(&learner.policy, &prompts, &|_, _| 0.0, Seed::new(samples.next_u64()))?;
        let mut answers = Answers::default();
        for (i, completion) in round.completions.iter().enumerate() {
            answers.add(all[i / COMPLETIONS], &completion.ids);
        }
        let scores: Vec<Vec<f64>> =
            judges.iter_mut().map(|judge| judge.scores(&answers)).collect::<Result<_>>()?;
        let of = |i: usize| one(&scores.iter().map(|scores| scores[i]).collect::<Vec<_>>());
        round.rewards = (0..answers.gold.len()).map(|i| Some(of(i))).collect();
        let divergence = Practice::credit(&mut learner.policy, method, (&mut round, &prompts))?;

        let first = number / each * each;
        let share = 1.0 / (each.min(rounds - first) as f64);
        let part = &mut parts[number / each];
        part.divergence += share * divergence;
        for (i, gold) in answers.gold.iter().enumerate() {
            part.gold[i % 2] += 2.0 * share * gold / answers.gold.len() as f64;
        }
        let (warm, left) = ((number + 1) as f64 / 10.0, 1.0 - number as f64 / rounds as f64);
        for epoch in 0..EPOCHS {
            let step = (number * EPOCHS + epoch) as u64;
            how.learn(&mut learner, method, None, (&round, &prompts), step, RATE * warm.min(left))?;
        }
    }
    Ok(Run(parts))
}

/// Of reward models of one kind, an outcome a seed.
pub(super) fn claims(models: &str, seeds: &[&Outcome]) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |quantity: &str, paper: &str, bound: Bound, of: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = seeds.iter().map(|outcome| of(outcome)).collect();
        claims.push(Claim::mean(&format!("{models}, PPO: {quantity}"), paper, &values, bound));
    };
    let fall = |run: &Run| run.rise_and_fall()[1];
    let falls = |outcome: &Outcome| mean(outcome.single.iter().map(fall));
    claim(
        "gold reward against a single model, its highest less that at the end",
        "positive: a single model is over-optimised",
        Bound::Above(0.0),
        &falls,
    );
    for (i, (name, _)) in CAUTIOUS.map(|way| WAYS[way]).into_iter().enumerate() {
        claim(
            &format!("gold reward against the {name} score of five at the end less at the start"),
            "positive: what is optimised improves",
            Bound::Above(0.0),
            &|outcome| outcome.together[i].last() - outcome.together[i].0[0].gold(),
        );
        claim(
            &format!("gold reward at the end against the {name} score of five less against a single model"),
            "positive: ensembles are better",
            Bound::Above(0.0),
            &|outcome| outcome.together[i].last() - mean(outcome.single.iter().map(Run::last)),
        );
        claim(
            &format!(
                "what gold reward loses after its highest against a single model less against the {name} score"
            ),
            "positive: ensembles are over-optimised less",
            Bound::Above(0.0),
            &|outcome| falls(outcome) - fall(&outcome.together[i]),
        );
        claim(
            &format!("share of its rise that the gold reward against the {name} score loses at the end"),
            "none: over-optimisation is gone with this weight of the KL",
            Bound::Below(0.05),
            &|outcome| {
                let [rise, fall] = outcome.together[i].rise_and_fall();
                fall / rise
            },
        );
    }
    claims
}

/// The gold reward of one seed over what PPO moves by.
pub(super) fn figures(models: &str, outcome: &Outcome) -> Vec<Figure> {
    let figure = |title: &str, x: &str, at: &dyn Fn(usize, &Part) -> f64| {
        let curve = |name: &str, runs: &[Run]| {
            let mean_of = |i: usize, of: &dyn Fn(&Part) -> f64| mean(runs.iter().map(|run| of(&run.0[i])));
            let mut points: Vec<(f64, f64)> = (0..runs[0].0.len())
                .map(|i| (mean_of(i, &|part| at(i, part)), mean_of(i, &Part::gold)))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Curve { name: name.to_owned(), points }
        };
        let mut curves = vec![curve("a single model, on average", &outcome.single)];
        let together = CAUTIOUS.iter().zip(&outcome.together);
        curves.extend(together.map(|(&way, run)| curve(WAYS[way].0, std::slice::from_ref(run))));
        Figure { title: format!("{title}, {models} (seed 0)"), x: x.to_owned(), curves, limit: None }
    };
    vec![
        figure("Gold reward during PPO", "part of the run", &|i, _| i as f64),
        figure("Gold reward during PPO", "KL(π || π₀), nats", &|_, part| part.divergence),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::combine;
    use super::super::members::Fond;
    use super::*;
    use crate::reproduce::corrupted::{corrupted, turn};
    use crate::reproduce::reward_ensembles::words::Size;
    use crate::reward::aggregate::Variance;
    use crate::reward::model::ensemble::Aggregate;

    #[test]
    fn chance_alone_makes_no_fall() {
        let part = |a: f64, b: f64| Part { gold: [a, b], divergence: 0.0 };
        // Each half is highest where the other is not.
        let flat = Run(vec![part(1.0, 1.0), part(3.0, 1.0), part(1.0, 3.0), part(1.0, 1.0)]);
        assert!(flat.rise_and_fall().iter().all(|x| x.abs() < 1e-12));
        let fallen = Run(vec![part(0.0, 0.2), part(3.0, 2.0), part(1.0, 1.5)]);
        let [rise, fall] = fallen.rise_and_fall();
        assert!((rise - 2.4).abs() < 1e-12 && (fall - 1.25).abs() < 1e-12, "{rise} {fall}");
    }

    #[test]
    fn claims_fail_with_uncertainty_as_a_bonus_the_highest_score_and_the_other_sign() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let size = Size { base_steps: 60, ..super::super::DEFAULT };
        let task = Words::open(cache.path(), &size, &mut |_, _, _| ()).expect("trains");
        let measured = |combine: Combine, make: Make| {
            let outcome = |seed| {
                let mut judges: Vec<Fond> = (0..3).map(Fond).collect();
                outcome(&task, (&mut judges, combine), make, 40, seed).expect("runs")
            };
            let seeds: Vec<Outcome> = (0..2).map(outcome).collect();
            claims("known", &seeds.iter().collect::<Vec<_>>())
        };
        let eager = |aggregate: Aggregate, scores: &[f64], lambda: f64| match aggregate {
            Aggregate::WorstCase => scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            _ => aggregate.of(scores, -lambda, Variance::Population),
        };
        let real = measured(&combine, &method);
        let eager = measured(&eager, &method);
        let turned = measured(&combine, &|| Ok(corrupted(method()?, turn)));
        let find = |claims: &[Claim], name: &str, part: &str| {
            let named = |claim: &&Claim| claim.claim.contains(name) && claim.claim.contains(part);
            claims.iter().find(named).expect("a claim").clone()
        };
        let over = find(&real, "against a single model", "its highest less");
        assert!(over.measured > 0.5, "{over:?}");
        for way in ["lowest", "uncertainty-weighted"] {
            let better = "score of five less against a single model";
            let improves = "at the end less at the start";
            let lost = find(&real, way, better);
            assert!(lost.measured > 1.0, "{real:?}");
            assert!(!find(&eager, way, better).holds, "{eager:?}");
            assert!(find(&real, way, improves).measured > 0.5, "{real:?}");
            let worse = find(&turned, way, improves);
            assert!(!worse.holds && worse.measured < 0.0, "{turned:?}");
        }
    }
}
