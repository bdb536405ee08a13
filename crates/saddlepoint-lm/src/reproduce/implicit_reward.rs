//! Implicit reward: what the learning rate and the divergence of supervised fine-tuning leave for DPO (Wang et al. 2025,
//! arXiv:2507.00018).

use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings, Observer, Setting};
use saddlepoint_opt::divergence::Divergence;

use super::Reproduction;
use super::learner::Learner;
use super::preferences::{self, BETA, COURSE, Course, PAIRS, Size};
use super::two_digits::{Shown, TwoDigits, expected_reward, expert};
use crate::Result;
use crate::engine::Policy;
use crate::method::Method;
use crate::method::dpo::{Dpo, DpoConfig};
use crate::method::implicit_reward::{ImplicitReward, ImplicitRewardConfig, Objective};
use crate::trainer::Example;

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "implicit-reward",
    title: "Implicit reward as the bridge: a unified view of SFT and DPO connections",
    paper: "arXiv:2507.00018",
    experiment: "A small decoder continues `4,9,2,7=` by two of the four digits, drawn evenly. It is fine-tuned on 512 \
                 demonstrations of an expert, who prefers what a gold reward (a third of the sum of the two digits) does, for \
                 three epochs: plainly and under three divergences, with learning rates from the usual one (the best for the \
                 expert's held-out completions) down to its 32nd part. From each result DPO then goes on with the same pairs \
                 and settings. Divergence, gold reward and the expert's likelihood are exact sums over all completions \
                 of held-out prompts.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, Size::of(setting.full), &method, observer)
}

/// Objectives of the fine-tuning. The first is plain fine-tuning.
const KINDS: [(&str, Objective); 4] = [
    ("plain fine-tuning", Objective::TotalVariation),
    ("chi-squared", Objective::ChiSquared),
    ("Hellinger", Objective::Hellinger),
    ("Jensen-Shannon", Objective::JsDivergence),
];
const PLAIN: usize = 0;
/// With the objectives that the claims are about.
const OTHERS: [usize; 2] = [1, 2];

/// Usual learning rate of fine-tuning here: of all powers of two times 1e-3 the best for the held-out loss.
const USUAL: f64 = 2.5e-4;
/// Shares of it, all for plain fine-tuning and the first four for the others.
const SHARES: [f64; 6] = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125];
const FULL_RATE: usize = 0;
/// What the method's default is of `sft`'s.
const QUARTER: usize = 2;
const OF_OTHERS: usize = 4;

/// Scale of the log-ratio: demonstrations have some 2 nats, and the reward is to be of the order of 1.
const SCALE: f64 = 0.5;
const DEMONSTRATIONS: usize = 512;
const EPOCHS: usize = 3;

/// By how much the gold reward after DPO may be below that of plain fine-tuning, as a share of what that gained.
const NOISE: f64 = 0.05;

/// Makes the method of the fine-tuning.
type Make<'a> = &'a dyn Fn(Objective) -> Result<Box<dyn Method>>;

fn method(f_divergence_type: Objective) -> Result<Box<dyn Method>> {
    let config = ImplicitRewardConfig { beta: SCALE, f_divergence_type, ..ImplicitRewardConfig::default() };
    Ok(Box::new(ImplicitReward::new(config)?))
}

/// A policy, as means over held-out prompts.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Cross-entropy of the expert's completions, nats each.
    loss: f64,
    /// `KL(π || base model)`, nats.
    divergence: f64,
    /// Expected gold reward.
    reward: f64,
}

/// One fine-tuning and the DPO after it.
#[derive(Debug, Clone, Copy)]
struct Stages {
    tuned: Look,
    aligned: Look,
}

/// The runs of one seed.
struct Runs {
    base: Look,
    /// By objective and share of the learning rate.
    stages: Vec<Vec<Stages>>,
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = TwoDigits::open(&setting.cache, size.width, size.base_steps, observer)?;
    let dpo = Dpo::new(DpoConfig { beta: BETA, ..DpoConfig::default() })?;
    let shares = |kind: usize| &SHARES[..if kind == PLAIN { SHARES.len() } else { OF_OTHERS }];
    let total = setting.seeds * (0..KINDS.len()).map(|kind| shares(kind).len()).sum::<usize>();
    let (mut seeds, mut done) = (Vec::new(), 0);
    for seed in 0..setting.seeds as u64 {
        let demonstrations = task.demonstrations(DEMONSTRATIONS, seed)?;
        let pairs = task.pairs(PAIRS * size.steps / 2, Shown::All, seed)?;
        let prompts = TwoDigits::prompts(size.prompts, seed);
        let mut policy = preferences::start(&task, size)?;
        let before = task.distributions(&mut policy, &prompts)?;
        let base = look(&task, &mut policy, &prompts, &before)?;
        let mut stages = Vec::new();
        for (kind, (_, objective)) in KINDS.into_iter().enumerate() {
            let mut runs = Vec::new();
            for share in shares(kind) {
                observer(done, total as u64, "fine-tuning and DPO with each objective and learning rate");
                done += 1;
                let mut learner = preferences::learner(preferences::start(&task, size)?)?;
                tune(&mut learner, &*make(objective)?, &demonstrations, USUAL * share)?;
                let tuned = look(&task, &mut learner.policy, &prompts, &before)?;
                // The result of the fine-tuning is the reference of DPO.
                learner.policy.follow(0.0);
                let mut learner = preferences::learner(learner.policy)?;
                preferences::train(&mut learner, &dpo, &pairs, Course { looks: 1, ..COURSE }, |_, _| Ok(()))?;
                runs.push(Stages { tuned, aligned: look(&task, &mut learner.policy, &prompts, &before)? });
            }
            stages.push(runs);
        }
        seeds.push(Runs { base, stages });
    }
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds) })
}

/// Fine-tunes for some epochs; the rate rises over a tenth of the steps and falls to 0.
fn tune(learner: &mut Learner, method: &dyn Method, demonstrations: &[Example], rate: f64) -> Result<()> {
    let steps = EPOCHS * demonstrations.len().div_ceil(PAIRS);
    let batches = demonstrations.chunks(PAIRS).cycle().take(steps);
    for (step, batch) in batches.enumerate() {
        let (warm, left) = ((step + 1) as f64 / (0.1 * steps as f64), 1.0 - step as f64 / steps as f64);
        learner.step(method, &batch.iter().collect::<Vec<_>>(), rate * warm.min(left))?;
    }
    Ok(())
}

fn look(task: &TwoDigits, policy: &mut Policy, prompts: &[[u32; 4]], before: &[Vec<f64>]) -> Result<Look> {
    let now = task.distributions(policy, prompts)?;
    let mean = |of: &dyn Fn(usize) -> f64| (0..now.len()).map(of).sum::<f64>() / now.len() as f64;
    let loss = |i: usize| -> f64 {
        let expert = expert(prompts[i]);
        expert.iter().zip(&now[i]).filter(|(p, _)| **p > 0.0).map(|(p, now)| -p * now.ln()).sum()
    };
    Ok(Look {
        loss: mean(&loss),
        divergence: mean(&|i| Divergence::ReverseKl.between(&now[i], &before[i])),
        reward: mean(&|i| expected_reward(prompts[i], &now[i])),
    })
}

fn claims(seeds: &[Runs]) -> Vec<Claim> {
    let claim = |quantity: &str, paper: &str, bound: Bound, of: &dyn Fn(&Runs) -> f64| {
        Claim::mean(quantity, paper, &seeds.iter().map(of).collect::<Vec<_>>(), bound)
    };
    let positive = Bound::Above(0.0);
    let plain = |runs: &Runs, share: usize| runs.stages[PLAIN][share];
    let mut claims = vec![
        claim(
            "held-out loss after fine-tuning at a quarter of the usual rate less that at the usual one, nats",
            "positive: fine-tuning alone is best at the usual rate",
            positive,
            &|runs| plain(runs, QUARTER).tuned.loss - plain(runs, FULL_RATE).tuned.loss,
        ),
        claim(
            "KL(π || base) after fine-tuning at the usual rate less that at a quarter of it, nats",
            "positive: only the learning rate restrains plain fine-tuning",
            positive,
            &|runs| plain(runs, FULL_RATE).tuned.divergence - plain(runs, QUARTER).tuned.divergence,
        ),
        claim(
            "gold reward after DPO with fine-tuning at a quarter of the usual rate less that with the usual one",
            "positive: up to 25 % relative and 6 points of win rate",
            positive,
            &|runs| plain(runs, QUARTER).aligned.reward - plain(runs, FULL_RATE).aligned.reward,
        ),
        claim(
            "largest gold reward after DPO with rates from 1/2 to 1/16 of the usual one less the larger with 1 and 1/32",
            "positive: the best rate lies inside",
            positive,
            &|runs| {
                let reward = |share: usize| plain(runs, share).aligned.reward;
                let last = SHARES.len() - 1;
                let inside = (1..last).map(reward).fold(f64::NEG_INFINITY, f64::max);
                inside - reward(FULL_RATE).max(reward(last))
            },
        ),
    ];
    for kind in OTHERS {
        claims.push(claim(
            &format!(
                "KL(π || base) after plain fine-tuning less that with {}, at equal steps, nats",
                KINDS[kind].0
            ),
            "positive: the pull to the base model is left",
            positive,
            &|runs| plain(runs, FULL_RATE).tuned.divergence - runs.stages[kind][FULL_RATE].tuned.divergence,
        ));
    }
    for kind in OTHERS {
        claims.push(claim(
            &format!(
                "gold reward after DPO with {} less that with plain fine-tuning, as a share of what that gained",
                KINDS[kind].0
            ),
            "positive: other divergences improve the model after DPO",
            Bound::Above(-NOISE),
            &|runs| {
                let [other, plain] = [kind, PLAIN].map(|kind| runs.stages[kind][FULL_RATE].aligned.reward);
                (other - plain) / (plain - runs.base.reward)
            },
        ));
    }
    claims
}

/// Means over seeds against the learning rate.
fn figures(seeds: &[Runs]) -> Vec<Figure> {
    let figure = |title: &str, of: fn(&Stages) -> f64| Figure {
        title: format!("{title}, mean over seeds"),
        x: "log2 of the learning rate's share of the usual one".to_owned(),
        curves: KINDS
            .iter()
            .enumerate()
            .map(|(kind, (name, _))| {
                let mean = |share: usize| {
                    seeds.iter().map(|runs| of(&runs.stages[kind][share])).sum::<f64>() / seeds.len() as f64
                };
                let shares = (0..seeds[0].stages[kind].len()).rev();
                Curve {
                    name: (*name).to_owned(),
                    points: shares.map(|share| (SHARES[share].log2(), mean(share))).collect(),
                }
            })
            .collect(),
        limit: None,
    };
    vec![
        figure("Gold reward after DPO", |stages| stages.aligned.reward),
        figure("Gold reward after fine-tuning", |stages| stages.tuned.reward),
        figure("KL(π || base) after fine-tuning, nats", |stages| stages.tuned.divergence),
        figure("KL(π || base) after DPO, nats", |stages| stages.aligned.divergence),
        figure("Held-out loss after fine-tuning, nats", |stages| stages.tuned.loss),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cotangent;
    use crate::method::View;
    use crate::reproduce::corrupted::corrupted;
    use crate::reproduce::preferences::TINY;

    /// A fine-tuning whose pull to the reference is a push: φ' = 1 − w in place of 1 + w.
    fn push(view: &View, out: &mut Cotangent) {
        for cotangent in &mut out.logp {
            *cotangent = -2.0 / view.norm.sequences as f64 - *cotangent;
        }
    }

    #[test]
    fn claims_fail_with_a_push_in_place_of_the_pull() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        let real = measured(&method);
        let pushing = measured(&|kind| Ok(corrupted(method(kind)?, push)));
        let pull = |claims: &[Claim]| {
            let part = "KL(π || base) after plain fine-tuning less that with Hellinger";
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").holds
        };
        assert!(pull(&real) && !pull(&pushing), "{real:?} {pushing:?}");
    }
}
