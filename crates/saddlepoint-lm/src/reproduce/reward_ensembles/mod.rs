//! Ensembles of reward models against over-optimisation (Coste et al. 2024, arXiv:2310.02743): best of n with a single model, with
//! the mean, the lowest and the uncertainty-weighted score of five, and PPO with a single one and the latter two, with clean and with
//! noisy preferences.

mod members;
mod ppo;
mod words;

use rand_distr::{Distribution, StandardNormal};
use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;

use self::members::{Fond, Judge as _, Member};
use self::words::{Answers, Size, Words};
use super::Reproduction;
use crate::Result;
use crate::method::Method;
use crate::method::reward::{Reward, RewardConfig};
use crate::reward::aggregate::Variance;
use crate::reward::best_of_n;
use crate::reward::model::ensemble::Aggregate;
use crate::trainer::Example;

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "reward-ensembles",
    title: "Reward model ensembles help mitigate overoptimization",
    paper: "arXiv:2310.02743",
    experiment: "Five reward models choose the best of n, each alone and by their mean, lowest and uncertainty-weighted score \
                 (λ = 0.5); the gold reward of the choice is estimated without bias for n up to 1024. Constructed models: answers are \
                 normal vectors of 20 numbers, gold is the first, and each model has an error in one direction of its own, where it is \
                 beyond 1.5, and is blind to a part of what is good. Trained models: a small decoder says eight words, of which gold \
                 counts the good ones, up to three, and takes one off for each stray one, which the decoder says once in seven words. \
                 Pairs without stray words are labelled by gold through the model of Bradley and Terry, with 0 or 25 % of the labels \
                 turned. Five reward models of the decoder's shape are trained on the same pairs from initial weights of their own, \
                 and choose among 2048 completions of each of 16 prompts, each on its scale of 512 others. In a first design of \
                 task and sizes nothing was learned that could be over-optimised; both were changed then, and the constructed models \
                 added. PPO then trains the decoder against each model alone and against the lowest and the \
                 uncertainty-weighted score of five, with the paper's β = 0.01 and λ = 0.1, for 80 rounds of 64 completions and 4 \
                 steps each; gold is followed in 20 parts of a run. Its highest is looked for in one half of the completions and \
                 measured in the other. The constructed models say gold and 6 more for each of three stray words of their own. The \
                 trained models of PPO learn from half of the pairs, twice as often: against a single one of all pairs PPO without the \
                 KL came to say good words alone (seeds 100 and 101), which is no over-optimisation. That and the other settings of \
                 PPO were chosen on seeds 100 to 103, outside of the experiment.",
    seeds: 5,
    run,
};

const DEFAULT: Size = Size {
    width: 32,
    base_steps: 300,
    pairs: 256,
    epochs: 20,
    completions: 2048,
    most: 1024,
    members: 5,
    few: 128,
    rounds: 80,
};
const FULL: Size = Size {
    width: 64,
    base_steps: 600,
    pairs: 1024,
    completions: 8192,
    most: 4096,
    few: 512,
    rounds: 300,
    ..DEFAULT
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    let size = if setting.full { FULL } else { DEFAULT };
    let reward = || -> Result<Box<dyn Method>> { Ok(Box::new(Reward::new(RewardConfig::default())?)) };
    findings(setting, &size, [&reward, &ppo::method], &combine, observer)
}

/// Shares of labels that are turned.
const NOISE: [f64; 2] = [0.0, 0.25];
/// The reward models: constructed ones, and trained ones with these shares.
const MODELS: [&str; 3] = ["constructed models", "trained models", "trained models, 25 % of labels turned"];
const NOISY: usize = 2;
/// The ways in which five scores become one.
const WAYS: [(&str, Aggregate); 3] = [
    ("mean", Aggregate::Mean),
    ("lowest", Aggregate::WorstCase),
    ("uncertainty-weighted", Aggregate::UncertaintyWeighted),
];
const MEAN: usize = 0;
/// The ways that do not trust a model alone.
const CAUTIOUS: [usize; 2] = [1, 2];
/// The paper's λ for best of n.
const LAMBDA: f64 = 0.5;
/// Held-out completions of each prompt that set the scale of a model.
const SCALE: usize = 32;

/// Makes a method: that of the reward models, or PPO.
type Make<'a> = &'a dyn Fn() -> Result<Box<dyn Method>>;
/// One score from those of the members, with this λ.
type Combine<'a> = &'a dyn Fn(Aggregate, &[f64], f64) -> f64;

fn combine(aggregate: Aggregate, scores: &[f64], lambda: f64) -> f64 {
    aggregate.of(scores, lambda, Variance::Population)
}

/// Gold rewards of the best of n = 1, 2, 4, ..., means over prompts.
type Gold = Vec<f64>;

/// What one seed gave with one kind of reward models.
#[derive(Debug, Clone)]
struct Outcome {
    /// Chosen by each member alone.
    single: Vec<Gold>,
    /// Chosen by all, in each of the ways.
    together: Vec<Gold>,
    /// By the lowest of the first three and four.
    fewer: [Gold; 2],
}

fn findings(
    setting: &Setting,
    size: &Size,
    [reward, ppo]: [Make; 2],
    combine: Combine,
    observer: Observer,
) -> Result<Findings> {
    let task = Words::open(&setting.cache, size, observer)?;
    let all = (setting.seeds * MODELS.len()) as u64;
    let mut done = 0;
    let mut seeds = Vec::new();
    for seed in 0..setting.seeds as u64 {
        let answers = task.answers(size.completions, "reproduce/words/answers", seed)?;
        let apart = task.answers(SCALE, "reproduce/words/scale", seed)?;
        let mut told = |what| {
            observer(done, all, what);
            done += 1;
        };
        told("PPO against constructed reward models");
        let mut fond: Vec<Fond> = (0..size.members as u32).map(Fond).collect();
        let optimised = ppo::outcome(&task, (&mut fond, combine), ppo, size.rounds, seed)?;
        let mut outcomes = vec![(constructed(size, seed, combine), optimised)];
        for noise in NOISE {
            told("training reward models and PPO against them");
            let pairs = task.pairs(noise, seed);
            let members = |pairs: &[Example]| -> Result<Vec<Member>> {
                let epochs = size.epochs * size.pairs / pairs.len();
                let member =
                    |number| Member::train(&task, &*reward()?, (pairs, epochs), &apart, (seed, number));
                (0..size.members as u64).map(member).collect()
            };
            let mut scores = Vec::new();
            for mut member in members(&pairs)? {
                let scored = answers.iter().map(|answers| member.scores(answers));
                scores.push(scored.collect::<Result<Vec<_>>>()?);
            }
            let chosen = outcome(&answers, &scores, size.most, combine);
            let mut few = members(&pairs[..size.few])?;
            let optimised = ppo::outcome(&task, (&mut few, combine), ppo, size.rounds, seed)?;
            outcomes.push((chosen, optimised));
        }
        seeds.push(outcomes);
    }
    let mut findings = Findings::default();
    for (i, models) in MODELS.into_iter().enumerate() {
        let (chosen, optimised): (Vec<&Outcome>, Vec<&ppo::Outcome>) =
            seeds.iter().map(|outcomes| (&outcomes[i].0, &outcomes[i].1)).unzip();
        findings.claims.extend(claims(i, &chosen));
        findings.claims.extend(ppo::claims(models, &optimised));
        findings.figures.push(figure(models, chosen[0]));
        findings.figures.extend(ppo::figures(models, optimised[0]));
    }
    Ok(findings)
}

/// Prompts, and numbers of an answer, of constructed reward models.
const CONSTRUCTED: [usize; 2] = [40, 20];

/// Of reward models whose errors are known: `R_m = x_0 + 3.6 max(u_m x − 1.5, 0) − 0.6 max(x_0 − 1, 0)` with gold `x_0`, `x` normal
/// and `u_m` a random direction without `x_0`.
fn constructed(size: &Size, seed: u64, combine: Combine) -> Outcome {
    let mut rng = Seed::new(seed).stream("reproduce/constructed", &[]);
    let [prompts, width] = CONSTRUCTED;
    let directions: Vec<Vec<f64>> = (0..size.members)
        .map(|_| {
            let mut u: Vec<f64> = StandardNormal.sample_iter(&mut rng).take(width).collect();
            u[0] = 0.0;
            let norm = u.iter().map(|v| v * v).sum::<f64>().sqrt();
            u.iter().map(|v| v / norm).collect()
        })
        .collect();
    let mut answers = Vec::new();
    let mut scores = vec![Vec::new(); size.members];
    for _ in 0..prompts {
        let drawn: Vec<Vec<f64>> = (0..size.completions)
            .map(|_| StandardNormal.sample_iter(&mut rng).take(width).collect())
            .collect();
        for (scores, u) in scores.iter_mut().zip(&directions) {
            let score = |x: &Vec<f64>| {
                let along: f64 = x.iter().zip(u).map(|(x, u)| x * u).sum();
                x[0] + 3.6 * (along - 1.5).max(0.0) - 0.6 * (x[0] - 1.0).max(0.0)
            };
            scores.push(drawn.iter().map(score).collect());
        }
        answers.push(Answers { sequences: Vec::new(), gold: drawn.iter().map(|x| x[0]).collect() });
    }
    outcome(&answers, &scores, size.most, combine)
}

/// `scores[member][prompt]` are those of the answers.
fn outcome(answers: &[Answers], scores: &[Vec<Vec<f64>>], most: usize, combine: Combine) -> Outcome {
    let curve = |scores: &dyn Fn(usize) -> Vec<f64>| -> Gold {
        let scores: Vec<Vec<f64>> = (0..answers.len()).map(scores).collect();
        let gold = |n: usize| {
            let each = answers.iter().zip(&scores).map(|(answers, scores)| {
                best_of_n::expected(scores, &answers.gold, n).expect("there are more completions than n")
            });
            each.sum::<f64>() / answers.len() as f64
        };
        best_of_n::sizes(most).map(gold).collect()
    };
    let together = |aggregate: Aggregate, members: usize| {
        curve(&|prompt| {
            let of = |answer: usize| -> Vec<f64> {
                scores[..members].iter().map(|member| member[prompt][answer]).collect()
            };
            (0..answers[prompt].gold.len()).map(|answer| combine(aggregate, &of(answer), LAMBDA)).collect()
        })
    };
    Outcome {
        single: scores.iter().map(|member| curve(&|prompt| member[prompt].clone())).collect(),
        together: WAYS.iter().map(|(_, aggregate)| together(*aggregate, scores.len())).collect(),
        fewer: [3, 4].map(|members| together(Aggregate::WorstCase, members.min(scores.len()))),
    }
}

/// Gold with the largest n.
fn last(gold: &Gold) -> f64 {
    gold[gold.len() - 1]
}

/// How far it has fallen from its highest at the largest n.
fn fallen(gold: &Gold) -> f64 {
    gold.iter().copied().fold(f64::NEG_INFINITY, f64::max) - last(gold)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    values.sum::<f64>() / count as f64
}

/// Of the reward models of one kind, an outcome a seed.
fn claims(kind: usize, seeds: &[&Outcome]) -> Vec<Claim> {
    let models = MODELS[kind];
    let mut claims = Vec::new();
    let mut claim = |quantity: &str, paper: &str, bound: Bound, of: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = seeds.iter().map(|outcome| of(outcome)).collect();
        claims.push(Claim::mean(&format!("{models}: {quantity}"), paper, &values, bound));
    };
    claim(
        "gold reward at the largest n by the mean score of five less that of a single completion",
        "positive: what is optimised improves",
        Bound::Above(0.0),
        &|outcome| last(&outcome.together[MEAN]) - outcome.together[MEAN][0],
    );
    claim(
        "gold reward of the best of n by a single model, its highest less that at the largest n",
        "positive: a single model is over-optimised",
        Bound::Above(0.0),
        &|outcome| mean(outcome.single.iter().map(fallen)),
    );
    for (way, (name, _)) in WAYS.into_iter().enumerate() {
        claim(
            &format!("gold reward at the largest n by the {name} score of five less by a single model"),
            "positive: all three ways are better, by about 30 % without noise and up to 75 % with it",
            Bound::Above(0.0),
            &|outcome| last(&outcome.together[way]) - mean(outcome.single.iter().map(last)),
        );
    }
    for way in CAUTIOUS {
        claim(
            &format!(
                "share of its rise that the gold reward by the {} score loses at the largest n",
                WAYS[way].0
            ),
            "none: over-optimisation is gone",
            Bound::Below(0.05),
            &|outcome| {
                let gold = &outcome.together[way];
                fallen(gold) / (fallen(gold) + last(gold) - gold[0])
            },
        );
    }
    if kind == NOISY {
        claim(
            "gold reward by the mean score of five, its highest less that at the largest n",
            "positive: the mean alone is still over-optimised with noise",
            Bound::Above(0.0),
            &|outcome| fallen(&outcome.together[MEAN]),
        );
        claim(
            "gold reward at the largest n by the lowest score of four models less of three",
            "positive: a visible gap; four or five members suffice",
            Bound::Above(0.0),
            &|outcome| last(&outcome.fewer[1]) - last(&outcome.fewer[0]),
        );
    }
    claims
}

fn figure(models: &str, outcome: &Outcome) -> Figure {
    let curve = |name: &str, gold: &dyn Fn(usize) -> f64| {
        let sizes = (0..outcome.together[MEAN].len()).map(|i| (best_of_n::divergence(1 << i), gold(i)));
        Curve { name: name.to_owned(), points: sizes.collect() }
    };
    let mut curves =
        vec![curve("a single model, on average", &|i| mean(outcome.single.iter().map(|gold| gold[i])))];
    curves.extend(WAYS.iter().zip(&outcome.together).map(|((name, _), gold)| curve(name, &|i| gold[i])));
    Figure {
        title: format!("Gold reward of the best of n, {models} (seed 0)"),
        x: "KL of choosing, nats".to_owned(),
        curves,
        limit: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::corrupted::corrupted;

    const TINY: Size = Size {
        width: 32,
        base_steps: 60,
        pairs: 256,
        epochs: 10,
        completions: 256,
        most: 128,
        members: 5,
        few: 128,
        rounds: 4,
    };

    fn claim(claims: &[Claim], models: &str, part: &str) -> Claim {
        let named = |claim: &&Claim| claim.claim.starts_with(models) && claim.claim.contains(part);
        claims.iter().find(named).expect("a claim").clone()
    }

    #[test]
    fn claims_fail_with_uncertainty_as_a_bonus_and_the_highest_score() {
        let bonus = |aggregate: Aggregate, scores: &[f64], lambda: f64| match aggregate {
            Aggregate::UncertaintyWeighted => aggregate.of(scores, -lambda, Variance::Population),
            Aggregate::WorstCase => scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Aggregate::Mean => combine(aggregate, scores, lambda),
        };
        let measured = |combine: Combine| {
            let seeds: Vec<Outcome> = (0..3).map(|seed| constructed(&DEFAULT, seed, combine)).collect();
            claims(0, &seeds.iter().collect::<Vec<_>>())
        };
        let (real, eager) = (measured(&combine), measured(&bonus));
        for part in [
            "by the lowest score of five less",
            "by the uncertainty-weighted score of five less",
            "that the gold reward by the uncertainty-weighted score loses",
        ] {
            assert!(claim(&real, MODELS[0], part).holds, "{real:?}");
            assert!(!claim(&eager, MODELS[0], part).holds, "{eager:?}");
        }
    }

    #[test]
    fn claims_fail_with_scores_learned_upside_down() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 2, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| {
            findings(&setting, &TINY, [make, &ppo::method], &combine, &mut |_, _, _| ()).expect("runs").claims
        };
        let honest = || -> Result<Box<dyn Method>> { Ok(Box::new(Reward::new(RewardConfig::default())?)) };
        let turned = || -> Result<Box<dyn Method>> {
            Ok(corrupted(honest()?, |_, out| out.score.iter_mut().for_each(|slope| *slope = -*slope)))
        };
        let part = "less that of a single completion";
        let (real, upside_down) =
            (claim(&measured(&honest), MODELS[1], part), claim(&measured(&turned), MODELS[1], part));
        assert!(real.measured > 0.3, "{real:?}");
        assert!(!upside_down.holds && upside_down.measured < 0.0, "{upside_down:?}");
    }
}
