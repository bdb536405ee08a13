//! On film reviews: how far a policy has to go for the same sentiment.

use std::path::Path;

use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};

use super::{Kind, Make};
use crate::Result;
use crate::engine::{Divergence, Policy, Want};
use crate::reproduce::preferences::{self, Course, PAIRS, height_at, reach};
use crate::reproduce::reviews::{self, Reviews};
use crate::reproduce::side_by_side::{each_seed, side_by_side};
use crate::trainer::{Example, batch};

/// How large the experiment is.
pub(super) struct Size {
    pub(super) reviews: reviews::Size,
    pub(super) steps: usize,
    /// Held-out pairs.
    pub(super) pairs: usize,
}

impl Size {
    /// The default setting, or the larger one.
    pub(super) fn of(full: bool) -> &'static Self {
        if full { &FULL } else { &DEFAULT }
    }
}

const DEFAULT: Size = Size {
    reviews: reviews::Size { words: 5000, width: 96, base_steps: 1200, prompts: 256 },
    steps: 120,
    pairs: 128,
};
const FULL: Size = Size {
    reviews: reviews::Size { words: 8000, width: 192, base_steps: 3000, prompts: 512 },
    steps: 600,
    pairs: 512,
};

const KINDS: [(&str, Kind); 3] =
    [("DPO", Kind::Dpo), ("TDPO1", Kind::Tdpo1), ("TDPO2 with α = 0.5", Kind::Tdpo2(0.5))];
const DPO: usize = 0;
const TDPO1: usize = 1;
const TDPO2: usize = 2;

/// A third of the rate at which the base model was trained: with that of the digits, so few steps teach nothing here.
const COURSE: Course = Course { rate: 1e-3, looks: 6 };

/// The policy after some steps.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Mean probability that what it says is positive.
    reward: f64,
    /// `KL(π || π₀)`, nats.
    divergence: f64,
    /// Mean sequential forward KL of the chosen held-out continuations, nats.
    chosen: f64,
    /// That of the rejected ones.
    rejected: f64,
}

pub(super) fn findings(
    setting: &Setting,
    size: &Size,
    data: &Path,
    make: Make,
    observer: Observer,
) -> Result<Findings> {
    let task = Reviews::open(data, &setting.cache, &size.reviews, observer)?;
    let draw = |seed| Ok([task.pairs(PAIRS * size.steps, false, seed)?, task.pairs(size.pairs, true, seed)?]);
    let drawn = each_seed(setting, draw)?;
    let seeds = side_by_side(
        &drawn,
        &KINDS,
        "training on reviews with each loss",
        observer,
        |seed, drawn, (_, kind)| {
            let [pairs, held_out] = drawn;
            let mut learner = preferences::learner(task.policy(PAIRS)?)?;
            preferences::train(&mut learner, &*make(kind)?, pairs, COURSE, |_, policy| {
                look(&task, policy, held_out, seed)
            })
        },
    )?;
    Ok(Findings { claims: claims(&task, &seeds), figures: figures(&seeds[0]) })
}

fn look(task: &Reviews, policy: &mut Policy, held_out: &[Example], seed: u64) -> Result<Look> {
    let said = task.said(policy, PAIRS, seed)?;
    let mut kl = [0.0; 2];
    for examples in held_out.chunks(PAIRS) {
        let batch = batch(&examples.iter().collect::<Vec<_>>());
        let want = Want { divergence: Some(Divergence::ForwardKl), ..Want::default() };
        let stats = policy.evaluate(&batch.forest, want)?;
        for (i, rows) in batch.sequences.into_iter().enumerate() {
            kl[i % 2] += stats.divergence[rows].iter().sum::<f64>() / held_out.len() as f64;
        }
    }
    Ok(Look { reward: said.reward, divergence: said.divergence, chosen: kl[0], rejected: kl[1] })
}

/// `seeds[seed][kind]` are the looks of one run.
fn claims(task: &Reviews, seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let positive = |quantity: &str, paper: &str, of: &dyn Fn(&[Vec<Look>]) -> f64| {
        let values: Vec<_> = seeds.iter().map(|runs| of(runs)).collect();
        Claim::mean(&format!("reviews: {quantity}"), paper, &values, Bound::Above(0.0))
    };
    let last = |looks: &[Look], of: fn(&Look) -> f64| looks.last().map_or(f64::NAN, of);
    let rejected = |look: &Look| look.rejected;
    let chosen = |look: &Look| look.chosen;
    vec![
        Claim::mean(
            "reviews: share of held-out sentences that the classifier is right about",
            "a classifier of sentiment is the gold reward",
            &task.right,
            Bound::Above(0.75),
        ),
        positive(
            "probability of being positive with TDPO2 at the end less that before",
            "positive: it learns the preference",
            &|runs| last(&runs[TDPO2], |look| look.reward) - runs[TDPO2][0].reward,
        ),
        positive(
            "KL(π || π₀) with DPO less that with TDPO2, at the largest reward that both reach, as a share",
            "positive: TDPO2 has the better frontier",
            &|runs| {
                let [dpo, tdpo2] = [DPO, TDPO2].map(|kind| -> Vec<_> {
                    runs[kind].iter().map(|look| (look.reward, look.divergence)).collect()
                });
                let common = reach(&dpo).min(reach(&tdpo2));
                1.0 - height_at(&tdpo2, common) / height_at(&dpo, common)
            },
        ),
        positive("K(y⁻) with DPO less that with TDPO1, nats", "about 15 (44 against 29)", &|runs| {
            last(&runs[DPO], rejected) - last(&runs[TDPO1], rejected)
        }),
        positive("K(y⁻) with TDPO1 less that with TDPO2, nats", "about 4 (29 against 25)", &|runs| {
            last(&runs[TDPO1], rejected) - last(&runs[TDPO2], rejected)
        }),
        positive(
            "K(y⁺) with TDPO1 less the larger of the other two, nats",
            "about 26 (49 against 23 with DPO)",
            &|runs| {
                let others = last(&runs[DPO], chosen).max(last(&runs[TDPO2], chosen));
                last(&runs[TDPO1], chosen) - others
            },
        ),
    ]
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |title: &str, point: fn(&Look) -> (f64, f64)| {
        let title = format!("Reviews: {title}");
        preferences::figure(&title, "KL(π || π₀), nats", KINDS.map(|(name, _)| name), runs, point)
    };
    vec![
        figure("probability of being positive", |look| (look.divergence, look.reward)),
        figure("sequential KL of rejected continuations, nats", |look| (look.divergence, look.rejected)),
        figure("sequential KL of chosen continuations, nats", |look| (look.divergence, look.chosen)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::method;
    use super::super::tests::turned;
    use super::*;
    use crate::reproduce::reviews::tests::{TINY, made_up};

    #[test]
    fn claims_fail_with_the_other_sign() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        made_up(folder.path());
        let setting = Setting { seeds: 5, full: false, cache: folder.path().to_owned() };
        let size = Size { reviews: TINY, steps: 100, pairs: 32 };
        let measured = |make: Make| {
            findings(&setting, &size, folder.path(), make, &mut |_, _, _| ()).expect("runs").claims
        };
        let (real, turned) = (measured(&method), measured(&turned));
        let part = "reviews: K(y⁻) with TDPO1 less";
        let holds = |claims: &[Claim]| {
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").holds
        };
        assert!(holds(&real) && !holds(&turned), "{real:?} {turned:?}");
    }
}
