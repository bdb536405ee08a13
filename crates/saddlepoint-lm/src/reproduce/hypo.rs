//! HyPO: the reverse KL, the gold reward and what pairs do not show, beside DPO's (Song et al. 2024, arXiv:2406.01462).

use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::divergence::Divergence;

use super::Reproduction;
use super::learner::Samples;
use super::preferences::{self, BETA, COURSE, PAIRS, SAMPLES, Size};
use super::side_by_side::{each_seed, side_by_side};
use super::two_digits::{LONGEST, Shown, TwoDigits, expected_reward, unacceptable};
use crate::Result;
use crate::engine::Policy;
use crate::method::Method;
use crate::method::hypo::{Hypo, HypoConfig};
use crate::trainer::Example;

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "hypo",
    title: "The importance of online data: understanding preference fine-tuning via coverage",
    paper: "arXiv:2406.01462",
    experiment: "A small decoder continues `4,9,2,7=` by two of the four digits, drawn evenly. Pairs of such completions are \
                 labelled by a gold reward (a third of the sum of the two digits) through the model of Bradley and Terry, and \
                 cover a part of what the decoder says: two different places of the prompt in their order. DPO (λ = 0) and HyPO \
                 with three weights λ are trained on the same 1024 pairs for several epochs, with the same beta and the \
                 same optimizer. Divergence, expected gold reward and the probability of unacceptable completions are exact \
                 sums over all completions of held-out prompts.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, Size::of(setting.full), &method, observer)
}

/// Weights of the KL on samples; with 0 it is DPO. The grid of the method's card, with the method's default among them.
const LAMBDAS: [(&str, f64); 4] =
    [("DPO", 0.0), ("HyPO with λ = 0.001", 1e-3), ("HyPO with λ = 0.01", 1e-2), ("HyPO with λ = 0.1", 1e-1)];
const DPO: usize = 0;
/// With the method's default λ.
const HYPO: usize = 2;

/// Different pairs of a run. A run is longer, so that it repeats them: few pairs and many steps are where offline data
/// are said not to hold a policy.
const DISTINCT: usize = 1024;

/// Makes the method for a λ.
type Make<'a> = &'a (dyn Fn(f64) -> Result<Box<dyn Method>> + Sync);

fn method(lambda: f64) -> Result<Box<dyn Method>> {
    let config = HypoConfig { beta: BETA, lambda, num_generations: SAMPLES, ..HypoConfig::default() };
    Ok(Box::new(Hypo::new(config)?))
}

/// The policy after some steps, as means over held-out prompts.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: usize,
    /// `KL(π || π₀)`, nats.
    divergence: f64,
    /// Expected gold reward.
    reward: f64,
    /// Probability of completions that are in no pair and that the model before did not draw.
    unacceptable: f64,
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = TwoDigits::open(&setting.cache, size.width, size.base_steps, observer)?;
    let drawn = each_seed(setting, |seed| {
        Ok((epochs(&task, size, seed)?, preferences::held_out(&task, size, seed)?))
    })?;
    let what = "training with each λ";
    let seeds = side_by_side(&drawn, &LAMBDAS, what, observer, |seed, (pairs, held_out), (_, lambda)| {
        let (prompts, before) = held_out;
        let mut learner = preferences::learner(preferences::start(&task, size)?)?;
        learner.samples = Some(Samples { end: task.end(), longest: LONGEST, seed: Seed::new(seed) });
        preferences::train(&mut learner, &*make(lambda)?, pairs, COURSE, |step, policy| {
            look(&task, policy, prompts, before, step)
        })
    })?;
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

/// The pairs of all steps: the different ones, again and again in the same order.
fn epochs(task: &TwoDigits, size: &Size, seed: u64) -> Result<Vec<Example>> {
    let pairs = task.pairs(DISTINCT, Shown::InOrder, seed)?;
    Ok(pairs.into_iter().cycle().take(PAIRS * size.steps).collect())
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
        divergence: mean(&|i| Divergence::ReverseKl.between(&now[i], &before[i])),
        reward: mean(&|i| expected_reward(prompts[i], &now[i])),
        unacceptable: mean(&|i| unacceptable(prompts[i], &now[i])),
    })
}

/// `seeds[seed][λ]` are the looks of one run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let last = |looks: &[Look], of: fn(&Look) -> f64| looks.last().map_or(f64::NAN, of);
    let difference = |quantity: &str, of: fn(&Look) -> f64, [a, b]: [usize; 2], paper: &str| {
        let values: Vec<_> = seeds.iter().map(|runs| last(&runs[a], of) - last(&runs[b], of)).collect();
        let quantity = quantity.replace("{a}", LAMBDAS[a].0).replace("{b}", LAMBDAS[b].0);
        Claim::mean(&quantity, paper, &values, Bound::Above(0.0))
    };
    let positive = |quantity: &str, paper: &str, of: &dyn Fn(&[Vec<Look>]) -> f64| {
        let values: Vec<_> = seeds.iter().map(|runs| of(runs)).collect();
        Claim::mean(quantity, paper, &values, Bound::Above(0.0))
    };
    let kl = |look: &Look| look.divergence;
    let reward = |look: &Look| look.reward;

    let mut claims = vec![
        difference(
            "KL(π || π₀) with {a} less that with {b}, nats",
            kl,
            [DPO, HYPO],
            "positive: lower reverse KL at 1.4B and 2.8B",
        ),
        difference(
            "gold reward with {a} less that with {b}",
            reward,
            [HYPO, DPO],
            "positive: higher win rate and reward at 1.4B and 2.8B",
        ),
        positive(
            "KL(π || π₀) with DPO at the end less that halfway, nats",
            "positive: it keeps growing during training",
            &|runs| last(&runs[DPO], kl) - kl(&runs[DPO][runs[DPO].len() / 2]),
        ),
        positive(
            &format!(
                "KL(π || π₀) with DPO less that with {}, the least difference of the second half, nats",
                LAMBDAS[HYPO].0
            ),
            "positive: it stays lower during training",
            &|runs| {
                let [dpo, hypo] = [DPO, HYPO].map(|i| &runs[i][runs[i].len() / 2..]);
                dpo.iter().zip(hypo).map(|(dpo, hypo)| kl(dpo) - kl(hypo)).fold(f64::INFINITY, f64::min)
            },
        ),
    ];
    for i in 1..LAMBDAS.len() {
        claims.push(difference(
            "KL(π || π₀) with {a} less that with {b}, nats",
            kl,
            [i - 1, i],
            "positive: the KL falls with λ",
        ));
    }
    claims.push(positive(
        "largest gold reward with λ = 0.001 and 0.01 less the larger with 0 and 0.1",
        "positive: the best λ lies inside",
        &|runs| {
            let of = |i: usize| last(&runs[i], reward);
            of(1).max(of(2)) - of(0).max(of(3))
        },
    ));
    claims.push(difference(
        "probability of unacceptable completions with {a} less that with {b}",
        |look| look.unacceptable,
        [DPO, HYPO],
        "positive: pairs do not bound what they do not show",
    ));
    claims
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |title: &str, x: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure(title, x, LAMBDAS.map(|(name, _)| name), runs, point)
    };
    vec![
        figure("KL(π || π₀), nats", "steps", |look| (look.step as f64, look.divergence)),
        figure("Expected gold reward", "steps", |look| (look.step as f64, look.reward)),
        figure("Expected gold reward", "KL(π || π₀), nats", |look| (look.divergence, look.reward)),
        figure("Probability of unacceptable completions", "steps", |look| {
            (look.step as f64, look.unacceptable)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cotangent;
    use crate::method::View;
    use crate::reproduce::corrupted::corrupted;
    use crate::reproduce::preferences::TINY;

    /// What is wrong with the derivative by the samples.
    #[derive(Debug, Clone, Copy)]
    enum Slip {
        /// The other sign.
        Turned,
        /// The log-ratio is differentiated too.
        Leaking,
    }

    fn slipping(lambda: f64, slip: Slip) -> Result<Box<dyn Method>> {
        let wrong = move |view: &View, out: &mut Cotangent| {
            for rows in view.samples.iter().flat_map(|completions| &completions.sequences) {
                let logp: f64 = view.stats.logp[rows.clone()].iter().sum();
                for cotangent in &mut out.logp[rows.clone()] {
                    *cotangent += match slip {
                        Slip::Turned => -2.0 * *cotangent,
                        Slip::Leaking => lambda * logp / (view.norm.pairs * SAMPLES) as f64,
                    };
                }
            }
        };
        Ok(corrupted(method(lambda)?, wrong))
    }

    #[test]
    fn claims_fail_without_the_stop_gradient_and_with_the_other_sign() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        let claim = |claims: &[Claim], part: &str| {
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").clone()
        };
        let corrupted = |slip| measured(&move |lambda| slipping(lambda, slip));
        let real = measured(&method);
        let [turned, leaking] = [Slip::Turned, Slip::Leaking].map(corrupted);
        for part in ["gold reward with HyPO with λ = 0.01 less", "probability of unacceptable"] {
            assert!(claim(&real, part).holds, "{real:?}");
            for wrong in [&turned, &leaking] {
                assert!(!claim(wrong, part).holds, "{wrong:?}");
            }
        }
    }
}
