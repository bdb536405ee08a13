//! DisCO: right answers and entropy with a discriminative objective in a trust region, beside GRPO's (Li et al. 2025,
//! arXiv:2505.12366).

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;

use super::Reproduction;
use super::practice::Practice;
use super::preferences;
use super::problems::{self, Kinds, RIGHT};
use super::side_by_side::{each_seed, side_by_side};
use crate::Result;
use crate::data::generate::Split;
use crate::engine::{Policy, Want};
use crate::method::Method;
use crate::method::advantage::Scale;
use crate::method::disco::{Disco, DiscoConfig, Score};
use crate::method::grpo::{Grpo, GrpoConfig, LossType};
use crate::model::ModelFolder;

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "disco",
    title: "DisCO: reinforcing large reasoning models with discriminative constrained optimization",
    paper: "arXiv:2505.12366",
    experiment: "A small decoder puts three to six numbers in order, which it has learned from data that are right nine times in ten \
                 for three numbers, half of the time for four, one time in eight for five and one in forty for six: questions from easy to \
                 hard. It goes on by rewards of 0 and 1 on problems of all four kinds. A round has 8 answers to each of 32 problems, and four steps go \
                 through it, as in the paper; learning rate and optimizer are the same for all methods. DisCO has the paper's \
                 radius of 1e-4 and weight of 1e3. What is measured is the probability of the right answer to held-out problems, \
                 which is exact, and the entropy a token of answers to them.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, if setting.full { &FULL } else { &DEFAULT }, &method, observer)
}

/// How large the experiment is.
struct Size {
    width: usize,
    base_steps: usize,
    rounds: usize,
    /// Held-out problems of each kind.
    problems: usize,
}

const DEFAULT: Size = Size { width: 64, base_steps: 1200, rounds: 40, problems: 64 };
const FULL: Size = Size { width: 128, base_steps: 4000, rounds: 200, problems: 256 };

/// Answers to a problem.
const ANSWERS: usize = 8;
/// Problems of a round.
const PROBLEMS: usize = 32;
/// Steps that go through a round.
const STEPS: usize = 4;
/// Learning rate after the first steps.
const RATE: f64 = 3e-4;
/// Evaluations before the end.
const LOOKS: usize = 10;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Grpo,
    DrGrpo,
    LogL,
    LRatio,
    /// The mean of the wrong scores in the place of their soft maximum.
    Mean,
    /// Without the trust region.
    Free,
}

const VARIANTS: [(&str, Variant); 6] = [
    ("GRPO", Variant::Grpo),
    ("Dr. GRPO", Variant::DrGrpo),
    ("DisCO (log L)", Variant::LogL),
    ("DisCO (L-ratio)", Variant::LRatio),
    ("DisCO-b (log L)", Variant::Mean),
    ("DisCO (log L) without its trust region", Variant::Free),
];

fn place(variant: Variant) -> usize {
    VARIANTS.iter().position(|(_, other)| *other == variant).expect("all are in the list")
}

/// Makes the method of a variant.
type Make<'a> = &'a (dyn Fn(Variant) -> Result<Box<dyn Method>> + Sync);

fn method(variant: Variant) -> Result<Box<dyn Method>> {
    let disco = |score, dro, beta0| {
        let config = DiscoConfig { score, dro, beta0, ..DiscoConfig::default() };
        Ok::<_, crate::Error>(Box::new(Disco::new(config)?) as Box<dyn Method>)
    };
    let grpo = |loss_type, scale_rewards| {
        let config = GrpoConfig { loss_type, scale_rewards, ..GrpoConfig::default() };
        Ok::<_, crate::Error>(Box::new(Grpo::new(config)?) as Box<dyn Method>)
    };
    let beta0 = DiscoConfig::default().beta0;
    match variant {
        Variant::Grpo => grpo(LossType::Grpo, Scale::Group),
        Variant::DrGrpo => grpo(LossType::DrGrpo, Scale::None),
        Variant::LogL => disco(Score::LogL, true, beta0),
        Variant::LRatio => disco(Score::LRatio, true, beta0),
        Variant::Mean => disco(Score::LogL, false, beta0),
        Variant::Free => disco(Score::LogL, true, 0.0),
    }
}

/// The policy after some steps.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: usize,
    /// Probability of the right answer to held-out problems, the mean over all kinds, in hundredths.
    success: f64,
    /// Entropy of a token of its own answers to them, nats.
    entropy: f64,
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let base = problems::graded(size.width, size.base_steps);
    let model = ModelFolder::open(&base.trained(&setting.cache, observer)?)?;
    let each = PROBLEMS * size.rounds / RIGHT.len();
    let draw = |seed| {
        Ok([
            Kinds::draw(&model, each, Split::Train, seed)?,
            Kinds::draw(&model, size.problems, Split::Eval, seed)?,
        ])
    };
    let drawn = each_seed(setting, draw)?;
    let seeds = side_by_side(
        &drawn,
        &VARIANTS,
        "training with each method",
        observer,
        |seed, drawn, (_, variant)| train(&model, size, drawn.each_ref(), &*make(variant)?, seed),
    )?;
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

fn train(
    model: &ModelFolder,
    size: &Size,
    [practice, exam]: [&Kinds; 2],
    method: &dyn Method,
    seed: u64,
) -> Result<Vec<Look>> {
    let longest = std::array::from_fn(|i| practice.longest()[i].max(exam.longest()[i]));
    let policy = problems::policy(model, longest, PROBLEMS * ANSWERS)?;
    let mut learner = preferences::learner(policy)?;
    let how = Practice { num_generations: ANSWERS, longest: longest[1], end: model.eos_ids()[0] };
    let mut samples = Seed::new(seed).stream("reproduce/disco/samples", &[]);
    let mut looks = Vec::new();
    for number in 0..size.rounds {
        if number.is_multiple_of((size.rounds / LOOKS).max(1)) {
            looks.push(look(&mut learner.policy, exam, how, number * STEPS)?);
        }
        let asked: Vec<_> = (0..PROBLEMS).map(|i| practice.at(number * PROBLEMS + i)).collect();
        let prompts: Vec<&[u32]> = asked.iter().map(|(kind, i)| &kind.prompts[*i][..]).collect();
        let reward = |problem: usize, ids: &[u32]| asked[problem].0.reward(asked[problem].1, ids);
        let round = how.round(&learner.policy, &prompts, &reward, Seed::new(samples.next_u64()))?;
        for (within, part) in (0..PROBLEMS).collect::<Vec<_>>().chunks(PROBLEMS / STEPS).enumerate() {
            let step = number * STEPS + within;
            let mut of_step = round.only(part);
            of_step.rewards = round.cases(part).into_iter().map(|case| round.rewards[case]).collect();
            let lr = RATE * ((step + 1) as f64 / 10.0).min(1.0);
            how.step(&mut learner, method, None, (&mut of_step, &prompts), step as u64, lr)?;
        }
    }
    looks.push(look(&mut learner.policy, exam, how, size.rounds * STEPS)?);
    Ok(looks)
}

fn look(policy: &mut Policy, exam: &Kinds, how: Practice, step: usize) -> Result<Look> {
    let success = 100.0 * exam.success(policy, PROBLEMS)?;
    let asked: Vec<_> = (0..exam.len()).map(|i| exam.at(i)).collect();
    let prompts: Vec<&[u32]> = asked.iter().map(|(kind, i)| &kind.prompts[*i][..]).collect();
    let once = Practice { num_generations: 1, ..how };
    // The same random numbers whenever it is looked at.
    let answers = once.round(policy, &prompts, &|_, _| 0.0, Seed::new(0))?;
    let (mut sum, mut tokens) = (0.0, 0);
    for first in (0..prompts.len()).step_by(PROBLEMS) {
        let pass = answers.pass(first..prompts.len().min(first + PROBLEMS), |prompt| prompts[prompt]);
        let entropy = policy.evaluate(&pass.forest, Want { entropy: true, ..Want::default() })?.entropy;
        sum += entropy.iter().sum::<f64>();
        tokens += entropy.len();
    }
    Ok(Look { step, success, entropy: sum / tokens as f64 })
}

/// `seeds[seed][variant]` are the looks of one run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let name = |variant| VARIANTS[place(variant)].0;
    let last = |looks: &[Look], of: fn(&Look) -> f64| looks.last().map_or(f64::NAN, of);
    let mean = |quantity: &str, paper: &str, bound, of: &dyn Fn(&[Vec<Look>]) -> f64| {
        let values: Vec<_> = seeds.iter().map(|runs| of(runs)).collect();
        Claim::mean(quantity, paper, &values, bound)
    };
    let better = |a: Variant, b: Variant, paper: &str| {
        let quantity = format!("right answers of {} less those of {}, points", name(a), name(b));
        mean(&quantity, paper, Bound::Above(0.0), &|runs| {
            last(&runs[place(a)], |look| look.success) - last(&runs[place(b)], |look| look.success)
        })
    };
    let share = |variant: Variant, bound, paper: &str| {
        let quantity = format!("entropy of {} at the end as a share of that at the start", name(variant));
        mean(&quantity, paper, bound, &|runs| {
            let looks = &runs[place(variant)];
            last(looks, |look| look.entropy) / looks[0].entropy
        })
    };
    let stable = "about 1: it stays at 0.2 to 0.25 nats";
    vec![
        better(Variant::LogL, Variant::Grpo, "7.6 (53.3 and 45.7, mean of six tests, 1.5B)"),
        better(Variant::LogL, Variant::DrGrpo, "9.0 (53.3 and 44.3)"),
        better(Variant::LRatio, Variant::Grpo, "6.7 (52.4 and 45.7)"),
        better(Variant::LRatio, Variant::DrGrpo, "8.1 (52.4 and 44.3)"),
        better(Variant::LogL, Variant::Mean, "positive: few right answers among many wrong ones"),
        better(Variant::LogL, Variant::Free, "positive: without it training breaks down"),
        share(Variant::LogL, Bound::Above(0.7), stable),
        share(Variant::LogL, Bound::Below(1.3), stable),
        share(Variant::LRatio, Bound::Above(0.7), stable),
        share(Variant::LRatio, Bound::Below(1.3), stable),
        share(Variant::Grpo, Bound::Below(0.7), "about 0: it falls below 0.05 nats"),
        share(Variant::DrGrpo, Bound::Below(0.7), "about 0: it falls below 0.05 nats"),
    ]
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |title: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure(title, "steps", VARIANTS.map(|(name, _)| name), runs, point)
    };
    vec![
        figure("Probability of the right answer, %", |look| (look.step as f64, look.success)),
        figure("Entropy, nats a token", |look| (look.step as f64, look.entropy)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::corrupted::{corrupted, turn};

    const TINY: Size = Size { width: 64, base_steps: 400, rounds: 6, problems: 16 };

    /// DisCO pushes right answers down.
    fn turned(variant: Variant) -> Result<Box<dyn Method>> {
        let method = method(variant)?;
        Ok(if matches!(variant, Variant::Grpo | Variant::DrGrpo) { method } else { corrupted(method, turn) })
    }

    #[test]
    fn a_claim_fails_where_right_answers_are_pushed_down() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        let (real, turned) = (measured(&method), measured(&turned));
        let part = "right answers of DisCO (log L) less those of GRPO";
        let claim = |claims: &[Claim]| {
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").clone()
        };
        let (real, turned) = (claim(&real), claim(&turned));
        assert!(turned.interval[1] < real.interval[0], "{real:?} {turned:?}");
        assert!(!turned.holds, "{turned:?}");
    }
}
