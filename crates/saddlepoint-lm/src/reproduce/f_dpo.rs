//! Beyond reverse KL: DPO under other divergences (Wang et al. 2023, arXiv:2309.16240).

use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_opt::divergence::Divergence;

use super::Reproduction;
use super::preferences::{self, BETA, COURSE, Size, height_at, reach};
use super::side_by_side::{each_seed, side_by_side};
use super::two_digits::{TwoDigits, accuracy, draws, entropy, expected_reward};
use crate::Result;
use crate::engine::Policy;
use crate::method::Method;
use crate::method::f_dpo::{FDivergenceType, FDpo, FDpoConfig};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "f-dpo",
    title: "Beyond reverse KL: generalizing DPO with diverse divergence constraints",
    paper: "arXiv:2309.16240",
    experiment: "A small decoder continues `4,9,2,7=` by two of the four digits, drawn evenly. Pairs of such completions are \
                 labelled by a gold reward (a third of the sum of the two digits) through the model of Bradley and Terry. Each \
                 divergence is trained on the same pairs once, with the same beta and the same optimizer, as in the paper's \
                 comparison. Entropy, divergence, expected gold reward and reward accuracy are exact sums over all completions \
                 of held-out prompts.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, Size::of(setting.full), &f_dpo, observer)
}

/// The divergences in the order of the entropies that they leave, the paper's alpha with them.
const KINDS: [(&str, FDivergenceType, f64); 6] = [
    ("reverse KL", FDivergenceType::ReverseKl, 0.5),
    ("JSD", FDivergenceType::JsDivergence, 0.5),
    ("alpha 0.3", FDivergenceType::AlphaDivergence, 0.3),
    ("alpha 0.5", FDivergenceType::AlphaDivergence, 0.5),
    ("alpha 0.7", FDivergenceType::AlphaDivergence, 0.7),
    ("forward KL", FDivergenceType::ForwardKl, 0.5),
];
const REVERSE: usize = 0;
const JSD: usize = 1;
const FORWARD: usize = 5;

/// Makes the method for a divergence.
type Make<'a> = &'a (dyn Fn(FDivergenceType, f64) -> Result<Box<dyn Method>> + Sync);

fn f_dpo(f_divergence_type: FDivergenceType, alpha: f64) -> Result<Box<dyn Method>> {
    let config = FDpoConfig { beta: BETA, f_divergence_type, f_alpha_divergence_coef: 1.0 - alpha };
    Ok(Box::new(FDpo::new(config)?))
}

/// The policy after some steps, as means over held-out prompts.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: usize,
    /// nats
    entropy: f64,
    /// `KL(π || π₀)`, nats.
    divergence: f64,
    /// Expected gold reward.
    reward: f64,
    /// Share of gold preferences that the log-ratio agrees with.
    accuracy: f64,
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = TwoDigits::open(&setting.cache, size.width, size.base_steps, observer)?;
    let drawn = each_seed(setting, |seed| {
        Ok((preferences::pairs(&task, size, seed)?, preferences::held_out(&task, size, seed)?))
    })?;
    let what = "training with each divergence";
    let seeds = side_by_side(&drawn, &KINDS, what, observer, |_, (pairs, held_out), (_, kind, alpha)| {
        let (prompts, before) = held_out;
        let mut learner = preferences::learner(preferences::start(&task, size)?)?;
        preferences::train(&mut learner, &*make(kind, alpha)?, pairs, COURSE, |step, policy| {
            look(&task, policy, prompts, before, step)
        })
    })?;
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

fn look(
    task: &TwoDigits,
    policy: &mut Policy,
    prompts: &[[u32; 4]],
    before: &[Vec<f64>],
    step: usize,
) -> Result<Look> {
    let now = task.distributions(policy, prompts)?;
    let mean = |of: &dyn Fn(usize) -> f64| (0..now.len()).map(of).sum::<f64>() / now.len() as f64;
    Ok(Look {
        step,
        entropy: mean(&|i| entropy(&now[i])),
        divergence: mean(&|i| Divergence::ReverseKl.between(&now[i], &before[i])),
        reward: mean(&|i| expected_reward(prompts[i], &now[i])),
        accuracy: mean(&|i| accuracy(prompts[i], draws(prompts[i]).map(|y| now[i][y] / before[i][y]))),
    })
}

/// `seeds[seed][kind]` are the looks of one run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let at_end = |kind: usize, of: fn(&Look) -> f64| -> Vec<f64> {
        seeds.iter().map(|runs| runs[kind].last().map_or(f64::NAN, of)).collect()
    };
    let less = |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
    let mut claims = Vec::new();
    for (i, pair) in KINDS.windows(2).enumerate() {
        claims.push(Claim::mean(
            &format!("entropy with {} less that with {}, nats", pair[1].0, pair[0].0),
            "positive: diversity rises from reverse KL over JSD and alpha to forward KL",
            &less(at_end(i + 1, |look| look.entropy), at_end(i, |look| look.entropy)),
            Bound::Above(0.0),
        ));
    }
    let points = |look: &Look| 100.0 * look.accuracy;
    let lowest = |runs: &Vec<Vec<Look>>| {
        runs.iter().filter_map(|looks| looks.last()).map(points).fold(f64::INFINITY, f64::min)
    };
    claims.push(Claim::mean(
        "lowest reward accuracy of the six divergences, points",
        "54.30 %: above chance",
        &seeds.iter().map(lowest).collect::<Vec<_>>(),
        Bound::Above(50.0),
    ));
    claims.push(Claim::mean(
        "reward accuracy with reverse KL less that with forward KL, points",
        "12.9 (67.19 % against 54.30 %)",
        &less(at_end(REVERSE, points), at_end(FORWARD, points)),
        Bound::Above(0.0),
    ));
    claims.push(Claim::mean(
        "reward accuracy with reverse KL less that with JSD, points",
        "0.39 (67.19 % against 66.80 %)",
        &less(at_end(REVERSE, points), at_end(JSD, points)),
        Bound::Below(2.0),
    ));
    let opposite = |runs: &Vec<Vec<Look>>| {
        let at_end = |of: fn(&Look) -> f64| -> Vec<f64> {
            runs.iter().map(|looks| looks.last().map_or(f64::NAN, of)).collect()
        };
        rank_correlation(&at_end(|look| look.entropy), &at_end(|look| look.accuracy))
    };
    claims.push(Claim::mean(
        "rank correlation of accuracy with entropy over the six divergences",
        "negative: accuracy is in the opposite order",
        &seeds.iter().map(opposite).collect::<Vec<_>>(),
        Bound::Below(0.0),
    ));
    for (kind, paper, bound) in [
        (FORWARD, "positive: reverse KL has the better frontier", Bound::Above(0.0)),
        (JSD, "about 0: the frontiers of JSD and reverse KL are close", Bound::Below(0.1)),
    ] {
        let gain = |runs: &Vec<Vec<Look>>| {
            let frontiers: Vec<Vec<_>> = runs
                .iter()
                .map(|looks| looks.iter().map(|look| (look.divergence, look.reward)).collect())
                .collect();
            let common = frontiers.iter().map(|each| reach(each)).fold(f64::INFINITY, f64::min);
            let gained = |kind: usize| height_at(&frontiers[kind], common) - frontiers[kind][0].1;
            (gained(REVERSE) - gained(kind)) / gained(REVERSE)
        };
        claims.push(Claim::mean(
            &format!(
                "gold reward gained with reverse KL less that with {}, at the largest KL(π || π₀) that all reach, as a share",
                KINDS[kind].0
            ),
            paper,
            &seeds.iter().map(gain).collect::<Vec<_>>(),
            bound,
        ));
    }
    claims
}

/// Spearman's, of values without ties.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|v| values.iter().filter(|other| *other < v).count() as f64).collect()
    };
    let n = a.len() as f64;
    let squares: f64 = ranks(a).iter().zip(ranks(b)).map(|(a, b)| (a - b).powi(2)).sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |title: &str, x: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure(title, x, KINDS.map(|(name, ..)| name), runs, point)
    };
    vec![
        figure("Entropy of completions, nats", "steps", |look| (look.step as f64, look.entropy)),
        figure("Reward accuracy, share", "steps", |look| (look.step as f64, look.accuracy)),
        figure("Expected gold reward", "KL(π || π₀), nats", |look| (look.divergence, look.reward)),
        figure("Entropy of completions, nats", "KL(π || π₀), nats", |look| {
            (look.divergence, look.entropy)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::corrupted::{corrupted, turn};
    use crate::reproduce::preferences::TINY;

    #[test]
    fn claims_fail_with_one_divergence_for_all_and_with_the_other_sign() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 2, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        let claim = |claims: &[Claim], part: &str| {
            claims.iter().find(|claim| claim.claim.contains(part)).expect("a claim").clone()
        };
        let real = measured(&f_dpo);
        let same = measured(&|_, _| f_dpo(FDivergenceType::ReverseKl, 0.5));
        let turned = measured(&|kind, alpha| Ok(corrupted(f_dpo(kind, alpha)?, turn)));

        assert!(claim(&real, "lowest reward accuracy").holds, "{real:?}");
        assert!(!claim(&turned, "lowest reward accuracy").holds, "{turned:?}");
        for same in same.iter().filter(|claim| claim.claim.starts_with("entropy with")) {
            assert!(!same.holds && same.measured == 0.0, "{same:?}");
        }
    }

    #[test]
    fn ranks_alone_decide_the_correlation() {
        assert!((rank_correlation(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]) - 1.0).abs() < 1e-12);
        assert!((rank_correlation(&[1.0, 2.0, 9.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
    }
}
