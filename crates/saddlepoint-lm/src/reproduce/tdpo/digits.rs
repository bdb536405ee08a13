//! On completions of two digits, where everything is a sum.

use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_opt::divergence::Divergence;

use super::{Kind, Make};
use crate::Result;
use crate::engine::Policy;
use crate::reproduce::preferences::{self, COURSE, Size, height_at, reach};
use crate::reproduce::side_by_side::{each_seed, side_by_side};
use crate::reproduce::two_digits::{TwoDigits, accuracy, entropy, expected_reward, over_pairs};

const KINDS: [(&str, Kind); 6] = [
    ("DPO", Kind::Dpo),
    ("TDPO1", Kind::Tdpo1),
    ("TDPO2 with α = 0.1", Kind::Tdpo2(0.1)),
    ("TDPO2 with α = 0.3", Kind::Tdpo2(0.3)),
    ("TDPO2 with α = 0.5", Kind::Tdpo2(0.5)),
    ("TDPO2 with α = 0.7", Kind::Tdpo2(0.7)),
];
const DPO: usize = 0;
const TDPO1: usize = 1;
const WEIGHTS: [usize; 4] = [2, 3, 4, 5];
/// With the weight that the paper recommends, 0.5.
const TDPO2: usize = 4;

/// By how much the accuracy of TDPO2 may be below DPO's, points.
const MARGIN: f64 = 2.0;

/// The policy after some steps, as means over held-out prompts.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: usize,
    /// Sequential forward KL of the chosen completions, nats.
    chosen: f64,
    /// Sequential forward KL of the rejected completions, nats.
    rejected: f64,
    /// nats
    entropy: f64,
    /// `KL(π || π₀)`, nats: the sequential reverse KL of the policy's own completions.
    divergence: f64,
    /// Expected gold reward.
    reward: f64,
    /// Share of gold preferences that the method's reward agrees with.
    accuracy: f64,
}

pub(super) fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = TwoDigits::open(&setting.cache, size.width, size.base_steps, observer)?;
    let drawn = each_seed(setting, |seed| {
        Ok((preferences::pairs(&task, size, seed)?, preferences::held_out(&task, size, seed)?))
    })?;
    let what = "training with each loss";
    let seeds = side_by_side(&drawn, &KINDS, what, observer, |_, (pairs, held_out), (_, kind)| {
        let (prompts, before) = held_out;
        let mut learner = preferences::learner(preferences::start(&task, size)?)?;
        preferences::train(&mut learner, &*make(kind)?, pairs, COURSE, |step, policy| {
            look(&task, policy, kind, prompts, before, step)
        })
    })?;
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

fn look(
    task: &TwoDigits,
    policy: &mut Policy,
    kind: Kind,
    prompts: &[[u32; 4]],
    before: &[Vec<f64>],
    step: usize,
) -> Result<Look> {
    let now = task.distributions(policy, prompts)?;
    let seen = task.seen(policy, prompts)?;
    let mean = |of: &dyn Fn(usize) -> f64| (0..now.len()).map(of).sum::<f64>() / now.len() as f64;
    let kl = |i: usize| over_pairs(prompts[i], seen[i].map(|each| each.kl));
    // TDPO's reward is β (D + K), whatever the weight; DPO's is β D.
    let kl_weight = if kind == Kind::Dpo { 0.0 } else { 1.0 };
    Ok(Look {
        step,
        chosen: mean(&|i| kl(i)[0]),
        rejected: mean(&|i| kl(i)[1]),
        entropy: mean(&|i| entropy(&now[i])),
        divergence: mean(&|i| Divergence::ReverseKl.between(&now[i], &before[i])),
        reward: mean(&|i| expected_reward(prompts[i], &now[i])),
        accuracy: mean(&|i| accuracy(prompts[i], seen[i].map(|each| each.log_ratio + kl_weight * each.kl))),
    })
}

/// `seeds[seed][kind]` are the looks of one run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let at_end = |kind: usize, of: fn(&Look) -> f64| -> Vec<f64> {
        seeds.iter().map(|runs| runs[kind].last().map_or(f64::NAN, of)).collect()
    };
    let difference =
        |[what, unit]: [&str; 2], of: fn(&Look) -> f64, [a, b]: [usize; 2], paper: &str, bound: Bound| {
            let values: Vec<_> = at_end(a, of).iter().zip(at_end(b, of)).map(|(a, b)| a - b).collect();
            let quantity = format!("{what} with {} less that with {}, {unit}", KINDS[a].0, KINDS[b].0);
            Claim::mean(&quantity, paper, &values, bound)
        };
    let positive = Bound::Above(0.0);
    let mut claims = vec![
        difference(
            ["K(y⁻)", "nats"],
            |look| look.rejected,
            [DPO, TDPO1],
            "about 15 (44 against 29)",
            positive,
        ),
        difference(
            ["K(y⁻)", "nats"],
            |look| look.rejected,
            [TDPO1, TDPO2],
            "about 4 (29 against 25)",
            positive,
        ),
    ];
    let above_others = |runs: &Vec<Vec<Look>>| {
        let chosen = |kind: usize| runs[kind].last().map_or(f64::NAN, |look| look.chosen);
        let others = (0..KINDS.len()).filter(|&kind| kind != TDPO1).map(chosen);
        chosen(TDPO1) - others.fold(f64::NEG_INFINITY, f64::max)
    };
    claims.push(Claim::mean(
        "K(y⁺) with TDPO1 less the largest of the other five, nats",
        "about 26 (49 against 23 with DPO)",
        &seeds.iter().map(above_others).collect::<Vec<_>>(),
        positive,
    ));
    let papers = ["about 8 (18 against 10)", "about 4 (10 against 6)", "about 2 (6 against 4)"];
    for (pair, paper) in WEIGHTS.windows(2).zip(papers) {
        claims.push(difference(["K(y⁺)", "nats"], |look| look.chosen, [pair[0], pair[1]], paper, positive));
    }
    claims.push(difference(
        ["entropy", "nats"],
        |look| look.entropy,
        [TDPO2, DPO],
        "1.72 (4.915 against 3.196)",
        positive,
    ));
    claims.push(difference(
        ["accuracy", "points"],
        |look| 100.0 * look.accuracy,
        [DPO, TDPO2],
        "-7.90 (59.43 % against 67.33 %)",
        Bound::Below(MARGIN),
    ));
    let saved = |runs: &Vec<Vec<Look>>| {
        let [dpo, tdpo2] = [DPO, TDPO2]
            .map(|kind| -> Vec<_> { runs[kind].iter().map(|look| (look.reward, look.divergence)).collect() });
        let common = reach(&dpo).min(reach(&tdpo2));
        1.0 - height_at(&tdpo2, common) / height_at(&dpo, common)
    };
    claims.push(Claim::mean(
        &format!(
            "KL(π || π₀) with {} less that with {}, at the largest gold reward that both reach, as a share",
            KINDS[DPO].0, KINDS[TDPO2].0
        ),
        "positive: TDPO2 has the better frontier",
        &seeds.iter().map(saved).collect::<Vec<_>>(),
        positive,
    ));
    claims
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |title: &str, x: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure(title, x, KINDS.map(|(name, _)| name), runs, point)
    };
    vec![
        figure("Sequential KL of rejected completions, nats", "steps", |look| {
            (look.step as f64, look.rejected)
        }),
        figure("Sequential KL of chosen completions, nats", "steps", |look| (look.step as f64, look.chosen)),
        figure("Entropy of completions, nats", "steps", |look| (look.step as f64, look.entropy)),
        figure("Expected gold reward", "KL(π || π₀), nats", |look| (look.divergence, look.reward)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::method;
    use super::super::tests::{leaking, turned};
    use super::*;
    use crate::reproduce::preferences::TINY;

    #[test]
    fn claims_fail_without_the_stop_gradient_and_with_the_other_sign() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        let claim = |claims: &[Claim], part: &str| {
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").clone()
        };
        let real = measured(&method);
        let leaking = measured(&leaking);
        let turned = measured(&turned);

        for part in ["K(y⁺) with TDPO2 with α = 0.1", "K(y⁻) with TDPO1"] {
            assert!(claim(&real, part).holds, "{real:?}");
            for wrong in [&leaking, &turned] {
                assert!(!claim(wrong, part).holds, "{wrong:?}");
            }
        }
    }
}
