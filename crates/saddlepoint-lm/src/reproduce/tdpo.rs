//! TDPO: sequential KL, diversity and accuracy beside DPO's (Zeng et al. 2024, arXiv:2404.11999).

use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings, Observer, Setting};
use saddlepoint_opt::divergence::Divergence;

use super::Reproduction;
use super::preferences::{self, BETA, Size, height_at, reach};
use super::two_digits::{TwoDigits, accuracy, entropy, expected_reward, over_pairs};
use crate::Result;
use crate::engine::Policy;
use crate::method::Method;
use crate::method::dpo::{Dpo, DpoConfig};
use crate::method::tdpo::{Tdpo, TdpoConfig, Variant};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "tdpo",
    title: "Token-level direct preference optimization",
    paper: "arXiv:2404.11999",
    experiment: "A small decoder continues `4,9,2,7=` by two of the four digits, drawn evenly. Pairs of such completions are \
                 labelled by a gold reward (a third of the sum of the two digits) through the model of Bradley and Terry. DPO, \
                 TDPO1 and TDPO2 with four weights are trained on the same pairs once, with the same beta and the same \
                 optimizer. The sequential forward KL K of the chosen (y⁺) and of the rejected (y⁻) completions, entropy, \
                 divergence, expected gold reward and accuracy, by each method's own reward, are exact sums over all \
                 completions and all pairs of held-out prompts.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, Size::of(setting.full), &method, observer)
}

/// A loss of the comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Dpo,
    Tdpo1,
    /// With its weight α.
    Tdpo2(f64),
}

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

/// Makes a method.
type Make<'a> = &'a dyn Fn(Kind) -> Result<Box<dyn Method>>;

fn method(kind: Kind) -> Result<Box<dyn Method>> {
    let tdpo = |variant, alpha| Tdpo::new(TdpoConfig { beta: BETA, variant, alpha });
    Ok(match kind {
        Kind::Dpo => Box::new(Dpo::new(DpoConfig { beta: BETA, ..DpoConfig::default() })?),
        Kind::Tdpo1 => Box::new(tdpo(Variant::Tdpo1, 1.0)?),
        Kind::Tdpo2(alpha) => Box::new(tdpo(Variant::Tdpo2, alpha)?),
    })
}

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

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = TwoDigits::open(&setting.cache, size.width, size.base_steps, observer)?;
    let mut seeds = Vec::new();
    for seed in 0..setting.seeds as u64 {
        let pairs = preferences::pairs(&task, size, seed)?;
        let prompts = TwoDigits::prompts(size.prompts, seed);
        let before = task.distributions(&mut preferences::start(&task, size)?, &prompts)?;
        let mut runs = Vec::new();
        for (i, (_, kind)) in KINDS.into_iter().enumerate() {
            let done = seed * KINDS.len() as u64 + i as u64;
            observer(done, (setting.seeds * KINDS.len()) as u64, "training with each loss");
            runs.push(preferences::train(&task, size, &*make(kind)?, &pairs, |step, policy| {
                look(&task, policy, kind, &prompts, &before, step)
            })?);
        }
        seeds.push(runs);
    }
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
    let figure = |title: &str, x: &str, point: fn(&Look) -> (f64, f64)| Figure {
        title: format!("{title} (seed 0)"),
        x: x.to_owned(),
        curves: KINDS
            .iter()
            .zip(runs)
            .map(|((name, _), looks)| {
                let mut points: Vec<_> = looks.iter().map(point).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Curve { name: (*name).to_owned(), points }
            })
            .collect(),
        limit: None,
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
    use super::*;
    use crate::engine::{Cotangent, Stats, Want};
    use crate::method::{Meta, Sums, View};
    use crate::reproduce::preferences::TINY;

    /// TDPO2 that forgot the stop-gradient on the chosen completion's KL.
    #[derive(Debug)]
    struct Leaking {
        tdpo2: Box<dyn Method>,
        alpha: f64,
    }

    impl Method for Leaking {
        fn meta(&self) -> &'static Meta {
            self.tdpo2.meta()
        }

        fn want(&self) -> Want {
            self.tdpo2.want()
        }

        fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
            let sums = self.tdpo2.loss(view, out);
            // D and α K have the same derivative in the margin, for both completions.
            out.divergence = out.logp.iter().map(|cotangent| self.alpha * cotangent).collect();
            sums
        }
    }

    /// TDPO with the sign of δ turned: that of another sign of K.
    #[derive(Debug)]
    struct Turned(Box<dyn Method>);

    impl Method for Turned {
        fn meta(&self) -> &'static Meta {
            self.0.meta()
        }

        fn want(&self) -> Want {
            self.0.want()
        }

        fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
            let negative = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<_>>();
            let stats = Stats { divergence: negative(&view.stats.divergence), ..view.stats.clone() };
            let sums = self.0.loss(&View { stats: &stats, ..*view }, out);
            out.divergence = negative(&out.divergence);
            sums
        }
    }

    fn leaking(kind: Kind) -> Result<Box<dyn Method>> {
        let tdpo2 = method(kind)?;
        Ok(match kind {
            Kind::Tdpo2(alpha) => Box::new(Leaking { tdpo2, alpha }),
            Kind::Dpo | Kind::Tdpo1 => tdpo2,
        })
    }

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
        let turned = measured(&|kind| Ok(Box::new(Turned(method(kind)?))));

        for part in ["K(y⁺) with TDPO2 with α = 0.1", "K(y⁻) with TDPO1"] {
            assert!(claim(&real, part).holds, "{real:?}");
            for wrong in [&leaking, &turned] {
                assert!(!claim(wrong, part).holds, "{wrong:?}");
            }
        }
    }
}
