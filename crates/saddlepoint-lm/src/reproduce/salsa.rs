//! SALSA: a model soup as the reference of a policy that learns from rewards (Chegini et al. 2024, arXiv:2411.01798).

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::divergence::Divergence;

use super::Reproduction;
use super::practice::Practice;
use super::preferences;
use super::two_digits::{self, LONGEST, Tuning, TwoDigits, entropy, expected_reward, expert};
use crate::Result;
use crate::engine::{Policy, Readout};
use crate::method::Method;
use crate::method::advantage::Scale;
use crate::method::grpo::{Grpo, GrpoConfig};
use crate::method::ppo::{Ppo, PpoConfig};
use crate::model::{ModelFolder, Soup};
use crate::tether::{Tether, TetherConfig, Unit};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "salsa",
    title: "SALSA: soup-based alignment learning for stronger adaptation in RLHF",
    paper: "arXiv:2411.01798",
    experiment: "A small decoder continues `4,9,2,7=` by two of the four digits, drawn evenly. It is fine-tuned twice on \
                 demonstrations of an expert, who prefers large sums of the two digits: SFT1 and SFT2. (On the same \
                 demonstrations in two orders, as was tried first, the two come so near to each other that no reference makes a \
                 difference: 0.003 nats. So each has its own.) GRPO (without a division of advantages, so that what is \
                 maximised is the reward less beta \
                 times the divergence) then trains SFT1 on a gold reward, a third of the sum of the two digits, held by the exact \
                 divergence to SFT1, to the soup (the mean of the weights of both) or to SFT2, with three values of beta; with \
                 the middle one the soup also has other shares, the policy also starts at the soup, and PPO, the paper's method, \
                 does the same held to SFT1 and to the soup. Rewards, entropies and \
                 divergences are exact sums over all completions of held-out prompts. After a first run, in which 3 of 11 claims held, the \
                 learning rate was raised from 1e-3 to 3e-3, demonstrations fell from 512 to 256 and steps from 150 to 100.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, if setting.full { &FULL } else { &DEFAULT }, &blend, observer)
}

/// How large the experiment is.
struct Size {
    width: usize,
    base_steps: usize,
    demonstrations: usize,
    epochs: usize,
    steps: usize,
    /// Prompts of a step.
    asked: usize,
    /// Held-out prompts.
    prompts: usize,
}

const DEFAULT: Size =
    Size { width: 64, base_steps: 800, demonstrations: 256, epochs: 6, steps: 100, asked: 16, prompts: 64 };
const FULL: Size = Size {
    width: 128,
    base_steps: 2000,
    demonstrations: 2048,
    epochs: 6,
    steps: 600,
    asked: 32,
    prompts: 256,
};

/// Completions a prompt.
const COMPLETIONS: usize = 8;
/// Learning rate of both fine-tunings.
const TUNING: f64 = 3e-3;
/// Largest learning rate with rewards.
const RATE: f64 = 3e-4;
/// Coefficients of the divergence: the larger three of the card's grid.
const BETAS: [f64; 3] = [0.03, 0.1, 0.3];
/// With this one there are more runs.
const MIDDLE: usize = 1;
/// Evaluations before the end.
const LOOKS: usize = 12;
/// Steps of PPO on a round, as is usual.
const EPOCHS: usize = 4;

/// What the policy is held to, and where it starts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    /// SFT1 itself, without a soup.
    First,
    /// A soup with this share of SFT1.
    Soup(f64),
    /// SFT2 itself.
    Second,
    /// The soup with equal shares, at which the policy starts too.
    FromSoup,
}

/// With every beta.
const EACH: [Held; 3] = [Held::First, Held::Soup(0.5), Held::Second];
const FIRST: usize = 0;
const SOUP: usize = 1;
const SECOND: usize = 2;
/// With the middle one.
const MORE: [Held; 4] = [Held::Soup(0.25), Held::Soup(0.75), Held::Soup(1.0), Held::FromSoup];
const QUARTERS: [usize; 2] = [0, 1];
const WHOLE: usize = 2;

/// With the middle one, by PPO.
const BY_PPO: [Held; 2] = [EACH[FIRST], EACH[SOUP]];

/// Who trains.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Grpo,
    Ppo,
}

/// Makes the soup of two models with this share of the first.
type Make<'a> = &'a dyn for<'m> Fn(&'m ModelFolder, &'m ModelFolder, f64) -> Result<Soup<'m>>;

fn blend<'m>(first: &'m ModelFolder, second: &'m ModelFolder, share: f64) -> Result<Soup<'m>> {
    Soup::new(vec![(first, share), (second, 1.0 - share)])
}

/// The policy after some steps, as means over held-out prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    step: usize,
    /// Expected gold reward.
    reward: f64,
    /// `KL(π || SFT1)`, nats.
    divergence: f64,
    /// Entropy, nats.
    entropy: f64,
}

/// What one seed gives.
struct Seen {
    /// `KL(expert || model)` of SFT1, SFT2 and their soup, nats.
    losses: [f64; 3],
    /// The looks of each of [`EACH`], for each beta.
    runs: [Vec<Vec<Look>>; BETAS.len()],
    /// Of each of [`MORE`].
    more: Vec<Vec<Look>>,
    /// Of each of [`BY_PPO`].
    ppo: Vec<Vec<Look>>,
}

/// Task and models of one seed.
struct Models<'a> {
    task: &'a TwoDigits,
    size: &'a Size,
    make: Make<'a>,
    tuned: [ModelFolder; 2],
    prompts: Vec<[u32; 4]>,
    /// Distributions of SFT1 after the prompts.
    before: Vec<Vec<f64>>,
    seed: u64,
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = TwoDigits::open(&setting.cache, size.width, size.base_steps, observer)?;
    let each = (EACH.len() * BETAS.len() + MORE.len() + BY_PPO.len()) as u64;
    let mut seeds = Vec::new();
    for seed in 0..setting.seeds as u64 {
        let mut tuned = |seed| {
            let tuning = Tuning { epochs: size.epochs, order: seed, rate: TUNING };
            task.tuned(&setting.cache, (size.demonstrations, seed), tuning, observer)
        };
        let tuned = [tuned(2 * seed)?, tuned(2 * seed + 1)?];
        let prompts = TwoDigits::prompts(size.prompts, seed);
        let mut models = Models { task: &task, size, make, tuned, prompts, before: Vec::new(), seed };
        models.before = models.distributions(Held::First)?;
        let losses = [Held::First, Held::Second, Held::FromSoup].map(|held| models.loss(held));
        let [first, second, soup] = losses;
        let mut done = seed * each;
        let mut train = |by, held, beta| {
            observer(done, setting.seeds as u64 * each, "training held to each reference");
            done += 1;
            models.train(by, held, beta)
        };
        let mut runs: [Vec<Vec<Look>>; BETAS.len()] = Default::default();
        for (runs, beta) in runs.iter_mut().zip(BETAS) {
            *runs = EACH.into_iter().map(|held| train(By::Grpo, held, beta)).collect::<Result<_>>()?;
        }
        let mut with_middle = |by, all: &[Held]| -> Result<Vec<Vec<Look>>> {
            all.iter().map(|held| train(by, *held, BETAS[MIDDLE])).collect()
        };
        let (more, ppo) = (with_middle(By::Grpo, &MORE)?, with_middle(By::Ppo, &BY_PPO)?);
        seeds.push(Seen { losses: [first?, second?, soup?], runs, more, ppo });
    }
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

impl Models<'_> {
    /// Where a policy starts, with what it is held to.
    fn policy(&self, held: Held, readout: Readout) -> Result<Policy> {
        let [first, second] = &self.tuned;
        let (completions, prompts) = (COMPLETIONS * self.size.asked, self.size.prompts);
        let open = |reference: &dyn crate::engine::WeightSource| {
            TwoDigits::held(first, readout, reference, completions, prompts)
        };
        match held {
            Held::First => open(first.source()),
            Held::Second => open(second.source()),
            Held::Soup(share) => open(&(self.make)(first, second, share)?),
            Held::FromSoup => {
                let soup = (self.make)(first, second, 0.5)?;
                let mut policy = open(&soup)?;
                policy.load(&soup)?;
                Ok(policy)
            }
        }
    }

    /// Of the model that a policy held so would start from; of SFT2 where it is held to that.
    fn distributions(&self, held: Held) -> Result<Vec<Vec<f64>>> {
        let mut policy = self.policy(held, Readout::Vocabulary)?;
        if held == Held::Second {
            policy.load(self.tuned[1].source())?;
        }
        self.task.distributions(&mut policy, &self.prompts)
    }

    /// `KL(expert || model)`, nats.
    fn loss(&self, held: Held) -> Result<f64> {
        let of_model = self.distributions(held)?;
        let each = self.prompts.iter().zip(&of_model).map(|(&digits, p)| {
            let of_expert = [&expert(digits)[..], &[0.0]].concat();
            Divergence::ForwardKl.between(p, &of_expert)
        });
        Ok(each.sum::<f64>() / self.prompts.len() as f64)
    }

    fn look(&self, policy: &mut Policy, step: usize) -> Result<Look> {
        let now = self.task.distributions(policy, &self.prompts)?;
        let mean = |of: &dyn Fn(usize) -> f64| (0..now.len()).map(of).sum::<f64>() / now.len() as f64;
        Ok(Look {
            step,
            reward: mean(&|i| expected_reward(self.prompts[i], &now[i])),
            divergence: mean(&|i| Divergence::ReverseKl.between(&now[i], &self.before[i])),
            entropy: mean(&|i| entropy(&now[i])),
        })
    }

    fn train(&self, by: By, held: Held, beta: f64) -> Result<Vec<Look>> {
        let Size { steps, asked, .. } = *self.size;
        let (method, readout): (Box<dyn Method>, _) = match by {
            By::Grpo => {
                let config = GrpoConfig { scale_rewards: Scale::None, ..GrpoConfig::default() };
                (Box::new(Grpo::new(config)?), Readout::Vocabulary)
            }
            // The tether has the divergence, not the reward.
            By::Ppo => {
                let config = PpoConfig { kl_coef: 0.0, ..PpoConfig::default() };
                (Box::new(Ppo::new(config)?), Readout::Both)
            }
        };
        let config = TetherConfig { beta: Some(beta), per: Unit::Token, ..TetherConfig::default() };
        let tether = Tether::new(config, &*method)?;
        let mut learner = preferences::learner(self.policy(held, readout)?)?;
        let how = Practice { num_generations: COMPLETIONS, longest: LONGEST, end: self.task.end() };
        let digits = two_digits::to_learn(asked * steps, self.seed);
        let prompts = digits.iter().map(|&digits| self.task.asked(digits)).collect::<Result<Vec<_>>>()?;
        let mut samples = Seed::new(self.seed).stream("reproduce/salsa/samples", &[]);
        let mut looks = Vec::new();
        for (step, (digits, prompts)) in digits.chunks(asked).zip(prompts.chunks(asked)).enumerate() {
            if step.is_multiple_of((steps / LOOKS).max(1)) {
                looks.push(self.look(&mut learner.policy, step)?);
            }
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let worth = |prompt: usize, ids: &[u32]| self.task.worth(digits[prompt], ids);
            let mut round = how.round(&learner.policy, &prompts, &worth, Seed::new(samples.next_u64()))?;
            let (warm, left) = ((step + 1) as f64 / 10.0, 1.0 - step as f64 / steps as f64);
            let lr = RATE * warm.min(left);
            if by == By::Grpo {
                how.step(&mut learner, &*method, Some(&tether), (&mut round, &prompts), step as u64, lr)?;
                continue;
            }
            Practice::credit(&mut learner.policy, &*method, (&mut round, &prompts))?;
            for epoch in 0..EPOCHS {
                let step = (step * EPOCHS + epoch) as u64;
                how.learn(&mut learner, &*method, Some(&tether), (&round, &prompts), step, lr)?;
            }
        }
        looks.push(self.look(&mut learner.policy, steps)?);
        Ok(looks)
    }
}

fn claims(seeds: &[Seen]) -> Vec<Claim> {
    let last = |run: &[Look], of: fn(&Look) -> f64| run.last().map_or(f64::NAN, of);
    let reward = |look: &Look| look.reward;
    let above = |quantity: &str, paper: &str, bound: f64, of: &dyn Fn(&Seen) -> f64| {
        let values: Vec<_> = seeds.iter().map(of).collect();
        Claim::mean(quantity, paper, &values, Bound::Above(bound))
    };
    let mut claims = Vec::new();
    for (i, beta) in BETAS.into_iter().enumerate() {
        claims.push(above(
            &format!("gold reward held to the soup less held to SFT1, beta = {beta}"),
            "positive: higher win rates on three models and three benchmarks",
            0.0,
            &|seen| last(&seen.runs[i][SOUP], reward) - last(&seen.runs[i][FIRST], reward),
        ));
    }
    for (i, beta) in BETAS.into_iter().enumerate() {
        claims.push(above(
            &format!("KL(π || SFT1) held to the soup less held to SFT1, beta = {beta}, nats"),
            "positive: the policy goes further from where it starts",
            0.0,
            &|seen| {
                let of = |kind: usize| last(&seen.runs[i][kind], |look| look.divergence);
                of(SOUP) - of(FIRST)
            },
        ));
    }
    let with_ppo = |seen: &Seen, of: fn(&Look) -> f64| last(&seen.ppo[SOUP], of) - last(&seen.ppo[FIRST], of);
    claims.push(above(
        "gold reward with PPO held to the soup less held to SFT1, beta = 0.1",
        "positive: higher win rates on three models and three benchmarks",
        0.0,
        &|seen| with_ppo(seen, reward),
    ));
    claims.push(above(
        "KL(π || SFT1) with PPO held to the soup less held to SFT1, beta = 0.1, nats",
        "positive: the policy goes further from where it starts",
        0.0,
        &|seen| with_ppo(seen, |look| look.divergence),
    ));
    claims.push(above(
        "gold reward held to the soup less held to SFT2, beta = 0.1",
        "positive: it is the mean, not another model, that helps",
        0.0,
        &|seen| last(&seen.runs[MIDDLE][SOUP], reward) - last(&seen.runs[MIDDLE][SECOND], reward),
    ));
    claims.push(above(
        "gold reward with equal shares less the larger with shares of 1/4 and 3/4, beta = 0.1",
        "positive: equal shares are best",
        0.0,
        &|seen| {
            let [a, b] = QUARTERS.map(|i| last(&seen.more[i], reward));
            last(&seen.runs[MIDDLE][SOUP], reward) - a.max(b)
        },
    ));
    claims.push(above(
        "entropy held to the soup as a share of that held to SFT1, beta = 0.1",
        "about 1: no collapse",
        0.5,
        &|seen| {
            let of = |kind: usize| last(&seen.runs[MIDDLE][kind], |look| look.entropy);
            of(SOUP) / of(FIRST)
        },
    ));
    claims.push(above(
        "larger KL(expert || model) of SFT1 and SFT2 less that of the soup, nats",
        "not below 0 by more than a little: both lie in one basin",
        -0.01,
        &|seen| seen.losses[0].max(seen.losses[1]) - seen.losses[2],
    ));
    let differing = seeds.iter().filter(|seen| seen.more[WHOLE] != seen.runs[MIDDLE][FIRST]).count();
    claims.push(Claim::never(
        "a run held to a soup with the share 1 differs from one held to SFT1",
        "they are the same method",
        differing,
    ));
    claims
}

fn figures(seen: &Seen) -> Vec<Figure> {
    let runs: Vec<Vec<Look>> = [&seen.runs[MIDDLE][..], &seen.more[3..], &seen.ppo].concat();
    let names = [
        "held to SFT1",
        "held to the soup",
        "held to SFT2",
        "starting at the soup",
        "PPO, held to SFT1",
        "PPO, held to the soup",
    ];
    let figure = |title: &str, x: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure(title, x, names, &runs, point)
    };
    vec![
        figure("Expected gold reward, beta = 0.1", "steps", |look| (look.step as f64, look.reward)),
        figure("KL(π || SFT1), beta = 0.1, nats", "steps", |look| (look.step as f64, look.divergence)),
        figure("Expected gold reward, beta = 0.1", "KL(π || SFT1), nats", |look| {
            (look.divergence, look.reward)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Size =
        Size { width: 32, base_steps: 200, demonstrations: 256, epochs: 4, steps: 40, asked: 8, prompts: 16 };

    /// A soup with the shares exchanged.
    fn exchanged<'m>(first: &'m ModelFolder, second: &'m ModelFolder, share: f64) -> Result<Soup<'m>> {
        blend(second, first, share)
    }

    /// The model that the policy starts from in the place of the soup: what the method is to be better than.
    fn without<'m>(first: &'m ModelFolder, _: &'m ModelFolder, _: f64) -> Result<Soup<'m>> {
        Soup::new(vec![(first, 1.0)])
    }

    #[test]
    fn claims_fail_with_exchanged_shares_and_with_the_initial_model_for_the_soup() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs");
        let of = |findings: &Findings, part: &str| {
            let claim = findings.claims.iter().find(|claim| claim.claim.starts_with(part));
            claim.map(|claim| (claim.measured, claim.holds)).expect("a claim")
        };
        let [real, exchanged, without] = [measured(&blend), measured(&exchanged), measured(&without)];
        let same = "a run held to a soup with the share 1 differs";
        assert!(of(&real, same).1 && !of(&exchanged, same).1, "{:?}", exchanged.claims);
        // Held to the model that it starts from in both, the policy does in both the same: every difference is none, at any size, and so
        // not above 0. With the soup each is one, although at this size not larger than its interval.
        let runs = BETAS.map(|beta| ("", beta)).into_iter().chain([(" with PPO", BETAS[MIDDLE])]);
        let compared: Vec<String> = runs
            .flat_map(|(by, beta)| {
                ["gold reward", "KL(π || SFT1)"]
                    .map(|what| format!("{what}{by} held to the soup less held to SFT1, beta = {beta}"))
            })
            .collect();
        for part in &compared {
            assert!(of(&real, part).0.abs() > 1e-6, "{part}: {:?}", real.claims);
            let (measured, holds) = of(&without, part);
            assert!(measured.abs() < 1e-12 && !holds, "{part}: {:?}", without.claims);
        }
        let curves = |findings: &Findings, name: &str| -> Vec<Vec<(f64, f64)>> {
            let all = findings.figures.iter().flat_map(|figure| &figure.curves);
            all.filter(|curve| curve.name == name).map(|curve| curve.points.clone()).collect()
        };
        let [soup, first] = ["held to the soup", "held to SFT1"];
        assert_eq!(curves(&real, first), curves(&without, first));
        assert_eq!(curves(&without, soup), curves(&without, first));
        for (soup, first) in curves(&real, soup).iter().zip(&curves(&real, first)) {
            assert!(soup != first, "{soup:?}");
        }
    }
}
