//! Online difficulty filtering: prompts that are answered right about half of the time, beside all prompts (Bae et al. 2025,
//! arXiv:2504.03380).

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;

use super::Reproduction;
use super::practice::Practice;
use super::preferences;
use super::problems::{self, Kinds};
use super::side_by_side::{each_seed, side_by_side};
use crate::Result;
use crate::data::generate::Split;
use crate::method::grpo::{Grpo, GrpoConfig};
use crate::model::ModelFolder;
use crate::rollout::filter::chosen;
use crate::rollout::{FilterConfig, Round};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "difficulty-filtering",
    title: "Online difficulty filtering for reasoning oriented reinforcement learning",
    paper: "arXiv:2504.03380",
    experiment: "A small decoder puts three to six numbers in order, which it has learned from data that are right nine times in ten \
                 for three numbers, half of the time for four, one time in eight for five and one in forty for six. It goes on \
                 by GRPO on problems of all four kinds, with 16 completions to each of 8 prompts in a step. Prompts are kept if a share of their \
                 completions within a band is right, and sampled until a step has 8: all (plain), those that teach \
                 anything, from 0.2 to 0.8 (balanced), up to 0.8 (without the easy), from 0.2 (without the hard). A step samples \
                 at most 10 times its prompts. What is measured is the probability of the right answer to held-out problems of \
                 all kinds, after equal steps and after equal completions; it is exact.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, if setting.full { &FULL } else { &DEFAULT }, &keep, observer)
}

/// How large the experiment is.
struct Size {
    width: usize,
    base_steps: usize,
    steps: usize,
    /// Held-out problems of each kind.
    problems: usize,
}

const DEFAULT: Size = Size { width: 64, base_steps: 1200, steps: 60, problems: 64 };
const FULL: Size = Size { width: 128, base_steps: 4000, steps: 300, problems: 256 };

/// Completions a prompt, the card's.
const COMPLETIONS: usize = 16;
/// Prompts of a step.
const PROMPTS: usize = 8;
/// Largest learning rate.
const RATE: f64 = 3e-4;
/// Evaluations before the end.
const LOOKS: usize = 12;

const BANDS: [(&str, [f64; 2]); 5] = [
    ("plain", [0.0, 1.0]),
    ("what teaches anything", [0.01, 0.99]),
    ("balanced", [0.2, 0.8]),
    ("without the easy", [0.0, 0.8]),
    ("without the hard", [0.2, 1.0]),
];
const PLAIN: usize = 0;
const ANYTHING: usize = 1;
const BALANCED: usize = 2;
const SKEWED: [usize; 2] = [3, 4];

/// Which of the sampled prompts are kept for a step, by how many completions of each were right; none if more are to be sampled.
type Keep<'a> = &'a (dyn Fn([f64; 2], &[usize], bool) -> Option<Vec<usize>> + Sync);

fn keep([low, high]: [f64; 2], right: &[usize], last: bool) -> Option<Vec<usize>> {
    chosen(&FilterConfig { low, high, ..FilterConfig::default() }, right, COMPLETIONS, PROMPTS, last)
}

/// The policy after some steps.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: usize,
    /// Completions sampled so far.
    sampled: usize,
    /// Probability of the right answer to held-out problems, the mean over all kinds.
    success: f64,
}

fn findings(setting: &Setting, size: &Size, keep: Keep, observer: Observer) -> Result<Findings> {
    let model =
        ModelFolder::open(&problems::graded(size.width, size.base_steps).trained(&setting.cache, observer)?)?;
    let draw = |seed| {
        let practice = Kinds::draw(&model, PROMPTS * size.steps, Split::Train, seed)?;
        Ok([practice, Kinds::draw(&model, size.problems, Split::Eval, seed)?])
    };
    let drawn = each_seed(setting, draw)?;
    let seeds =
        side_by_side(&drawn, &BANDS, "training with each filter", observer, |seed, drawn, (_, band)| {
            train(&model, size, drawn.each_ref(), |right, last| keep(band, right, last), seed)
        })?;
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

fn train(
    model: &ModelFolder,
    size: &Size,
    [practice, exam]: [&Kinds; 2],
    keep: impl Fn(&[usize], bool) -> Option<Vec<usize>>,
    seed: u64,
) -> Result<Vec<Look>> {
    let longest = std::array::from_fn(|i| practice.longest()[i].max(exam.longest()[i]));
    let mut learner = preferences::learner(problems::policy(model, longest, PROMPTS * COMPLETIONS)?)?;
    let how = Practice { num_generations: COMPLETIONS, longest: longest[1], end: model.eos_ids()[0] };
    let method = Grpo::new(GrpoConfig::default())?;
    let most = PROMPTS * FilterConfig::default().max_attempts;
    let mut samples = Seed::new(seed).stream("reproduce/difficulty-filtering/samples", &[]);
    let (mut looks, mut asked) = (Vec::new(), 0);
    for step in 0..size.steps {
        if step.is_multiple_of((size.steps / LOOKS).max(1)) {
            let success = exam.success(&mut learner.policy, PROMPTS * COMPLETIONS)?;
            looks.push(Look { step, sampled: asked * COMPLETIONS, success });
        }
        let (first, mut all) = (asked, Round::default());
        let kept = loop {
            let numbers = asked..asked + PROMPTS;
            asked = numbers.end;
            let of_part: Vec<_> = numbers.map(|i| practice.at(i)).collect();
            let prompts: Vec<&[u32]> = of_part.iter().map(|(kind, i)| &kind.prompts[*i][..]).collect();
            let reward = |prompt: usize, ids: &[u32]| of_part[prompt].0.reward(of_part[prompt].1, ids);
            let part = how.round(&learner.policy, &prompts, &reward, Seed::new(samples.next_u64()))?;
            all.rewards.extend(part.rewards);
            all.extend(part.examples, part.completions);
            let right: Vec<usize> = (all.rewards.chunks(COMPLETIONS))
                .map(|group| group.iter().filter(|reward| reward.is_some_and(|r| r > 0.5)).count())
                .collect();
            if let Some(kept) = keep(&right, right.len() >= most) {
                break kept;
            }
        };
        let prompts: Vec<&[u32]> = kept
            .iter()
            .map(|&prompt| {
                let (kind, i) = practice.at(first + prompt);
                &kind.prompts[i][..]
            })
            .collect();
        let mut round = all.only(&kept);
        round.rewards = all.cases(&kept).into_iter().map(|case| all.rewards[case]).collect();
        round.examples = (0..kept.len()).collect();
        let (warm, left) = ((step + 1) as f64 / 10.0, 1.0 - step as f64 / size.steps as f64);
        let lr = RATE * warm.min(left);
        how.step(&mut learner, &method, None, (&mut round, &prompts), step as u64, lr)?;
    }
    let success = exam.success(&mut learner.policy, PROMPTS * COMPLETIONS)?;
    looks.push(Look { step: size.steps, sampled: asked * COMPLETIONS, success });
    Ok(looks)
}

/// `seeds[seed][band]` are the looks of one run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let last = |looks: &[Look]| looks.last().map_or(f64::NAN, |look| 100.0 * look.success);
    let above = |quantity: &str, paper: &str, of: &dyn Fn(&[Vec<Look>]) -> f64| {
        let values: Vec<_> = seeds.iter().map(|runs| of(runs)).collect();
        Claim::mean(quantity, paper, &values, Bound::Above(0.0))
    };
    let per_step = |a: usize, b: usize, paper: &str| {
        let quantity = format!("right answers after equal steps, {} less {}, points", BANDS[a].0, BANDS[b].0);
        above(&quantity, paper, &|runs| last(&runs[a]) - last(&runs[b]))
    };
    // Of a run that samples more, where it has sampled as much as plain training in all.
    let per_sample = |a: usize, paper: &str| {
        let quantity =
            format!("right answers after equal completions, {} less {}, points", BANDS[a].0, BANDS[PLAIN].0);
        above(&quantity, paper, &|runs| {
            let frontier: Vec<_> =
                runs[a].iter().map(|look| (look.sampled as f64, 100.0 * look.success)).collect();
            let spent = runs[PLAIN].last().map_or(f64::NAN, |look| look.sampled as f64);
            preferences::height_at(&frontier, spent) - last(&runs[PLAIN])
        })
    };
    vec![
        per_step(BALANCED, PLAIN, "4 on average, up to 10 (AIME)"),
        per_step(ANYTHING, PLAIN, "positive: prompts that teach nothing are left out"),
        per_step(BALANCED, SKEWED[0], "positive: balanced is better than one side cut"),
        per_step(BALANCED, SKEWED[1], "positive: balanced is better than one side cut"),
        per_sample(BALANCED, "positive: plain training's best in less than 60 % of its time"),
        per_sample(ANYTHING, "not said"),
    ]
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |x: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure("Probability of the right answer", x, BANDS.map(|(name, _)| name), runs, point)
    };
    vec![
        figure("steps", |look| (look.step as f64, look.success)),
        figure("completions sampled", |look| (look.sampled as f64, look.success)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Size = Size { width: 64, base_steps: 400, steps: 30, problems: 16 };

    /// Keeps what is outside of the band.
    fn turned([low, high]: [f64; 2], right: &[usize], last: bool) -> Option<Vec<usize>> {
        let plain = BANDS[PLAIN].1;
        let config = FilterConfig { low, high, ..FilterConfig::default() };
        let outside: Vec<usize> =
            (0..right.len()).filter(|&i| !config.keeps(right[i], COMPLETIONS)).take(PROMPTS).collect();
        match outside.len() {
            PROMPTS => Some(outside),
            _ if last || high - low >= plain[1] - plain[0] => keep(plain, right, true),
            _ => None,
        }
    }

    #[test]
    fn what_is_claimed_of_a_filter_is_not_so_where_it_keeps_what_it_should_leave_out() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |keep: Keep| findings(&setting, &TINY, keep, &mut |_, _, _| ()).expect("runs").claims;
        let (real, turned) = (measured(&keep), measured(&turned));
        let part = "right answers after equal steps, what teaches anything less plain";
        let claim = |claims: &[Claim]| {
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").clone()
        };
        let (real, turned) = (claim(&real), claim(&turned));
        assert!(turned.interval[1] < real.interval[0] && turned.interval[1] < 0.0, "{real:?} {turned:?}");
    }
}
