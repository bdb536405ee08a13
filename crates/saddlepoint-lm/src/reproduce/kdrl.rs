//! KDRL: a reward and a teacher at once, beside either alone (Xu et al. 2025, arXiv:2506.02208).

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;

use super::Reproduction;
use super::base::Base;
use super::practice::Practice;
use super::preferences;
use super::problems::Problems;
use super::side_by_side::{each_seed, side_by_side};
use crate::Result;
use crate::data::generate::{GenerateConfig, Split, Task};
use crate::engine::{Policy, Reference, Setup, Storage};
use crate::method::Method;
use crate::method::kdrl::{Kdrl, KdrlConfig, KlEstimator, Mask, Mode};
use crate::model::ModelFolder;

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "kdrl",
    title: "KDRL: post-training reasoning LLMs via unified knowledge distillation and reinforcement learning",
    paper: "arXiv:2506.02208",
    experiment: "Two small decoders put three numbers in order: a student that has learned it from data of which one answer in ten \
                 is right, and a wider teacher from data of which 85 % are. The student goes through 2,240 further problems once, \
                 with 8 completions to each of 8 prompts in a step: by the reward alone (GRPO, KDRL with the weight 0), by \
                 the teacher alone (KD-RKL), by both with a constant weight (KDRL), with one that falls as in the paper, over \
                 80 of 280 steps (KDRL-Annealing), with k3, with the first of those weights throughout, and without a teacher for right answers (the mask). \
                 The weights are the paper's times 50, chosen on seeds outside of the experiment. What is measured is the probability of the right \
                 answer to held-out problems, which is exact. A right answer has one length here, so \
                 that lengths are not compared.",
    seeds: 10,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, if setting.full { &FULL } else { &DEFAULT }, &method, observer)
}

/// How large the experiment is.
struct Size {
    student: Model,
    teacher: Model,
    /// Numbers to sort.
    numbers: u32,
    steps: usize,
    /// Prompts of a step.
    prompts: usize,
    /// Held-out problems.
    problems: usize,
}

/// A model made from nothing.
struct Model {
    width: usize,
    layers: usize,
    steps: usize,
    /// Share of right answers in what it has learned from.
    right: f64,
}

const DEFAULT: Size = Size {
    student: Model { width: 48, layers: 2, steps: 600, right: 0.1 },
    teacher: Model { width: 64, layers: 2, steps: 800, right: 0.85 },
    numbers: 3,
    steps: 280,
    prompts: 8,
    problems: 256,
};
const FULL: Size = Size {
    student: Model { width: 64, layers: 2, steps: 1500, right: 0.1 },
    teacher: Model { width: 96, layers: 2, steps: 2000, right: 0.85 },
    numbers: 4,
    steps: 560,
    prompts: 16,
    problems: 1024,
};

/// Completions a prompt, the card's.
const COMPLETIONS: usize = 8;
/// Largest learning rate.
const RATE: f64 = 3e-4;
/// By what the weights of the paper (constant 2e-3, annealed from 5e-3 to 1e-3) are multiplied: of 50 and 250, tried with
/// seeds that are not among those of the experiment, the one with which the constant weight is better.
const SCALE: f64 = 50.0;
/// The share of the paper's steps after which the weight stands at its least: 80 of 280.
const ANNEALED: f64 = 80.0 / 280.0;
/// Evaluations before the end.
const LOOKS: usize = 12;

/// How the student learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The reward alone.
    Grpo,
    /// The teacher alone.
    Distillation,
    /// Both, with a constant weight.
    Constant,
    /// Both, with a weight that falls.
    Annealed,
    /// With the constant weight and k3 in the place of k2.
    K3,
    /// With the annealing's first weight throughout.
    Strong,
    /// Annealed, and the teacher is not asked about right answers.
    Masked,
}

const KINDS: [(&str, Kind); 7] = [
    ("GRPO", Kind::Grpo),
    ("KD-RKL", Kind::Distillation),
    ("KDRL", Kind::Constant),
    ("KDRL-Annealing", Kind::Annealed),
    ("KDRL with k3", Kind::K3),
    ("KDRL with the larger weight", Kind::Strong),
    ("KDRL-Annealing with the mask", Kind::Masked),
];
const GRPO: usize = 0;
const DISTILLATION: usize = 1;
const KDRL: usize = 2;
const ANNEALING: usize = 3;
const K3: usize = 4;
const STRONG: usize = 5;
const MASKED: usize = 6;

/// Makes a method for a run of so many steps.
type Make<'a> = &'a (dyn Fn(Kind, usize) -> Result<Box<dyn Method>> + Sync);

fn method(kind: Kind, steps: usize) -> Result<Box<dyn Method>> {
    let constant = |beta| KdrlConfig {
        beta_init: SCALE * beta,
        beta_min: SCALE * beta,
        beta_delta: 0.0,
        ..KdrlConfig::default()
    };
    let annealed = KdrlConfig {
        beta_init: SCALE * 5e-3,
        beta_min: SCALE * 1e-3,
        beta_delta: SCALE * 4e-3 / (ANNEALED * steps as f64),
        ..KdrlConfig::default()
    };
    let config = match kind {
        Kind::Grpo => constant(0.0),
        Kind::Distillation => {
            KdrlConfig { mode: Mode::Sequential, kd_steps: Some(u64::MAX), ..KdrlConfig::default() }
        }
        Kind::Constant => constant(2e-3),
        Kind::Annealed => annealed,
        Kind::K3 => KdrlConfig { kl_estimator: KlEstimator::K3, ..constant(2e-3) },
        Kind::Strong => constant(5e-3),
        Kind::Masked => KdrlConfig { mask: Mask::Response, ..annealed },
    };
    Ok(Box::new(Kdrl::new(config)?))
}

/// The student after some steps: the probability of a right answer to a held-out problem.
type Look = (usize, f64);

/// Student and teacher before the first step.
struct Pair {
    student: ModelFolder,
    teacher: ModelFolder,
}

impl Pair {
    fn open(setting: &Setting, size: &Size, observer: Observer) -> Result<Self> {
        let mut trained = |model: &Model, seed| {
            ModelFolder::open(&base(model, size.numbers, seed).trained(&setting.cache, observer)?)
        };
        Ok(Self { student: trained(&size.student, 0)?, teacher: trained(&size.teacher, 1)? })
    }

    /// The student with the teacher as its reference.
    fn policy(&self, size: &Size, [prompt, answer]: [usize; 2]) -> Result<Policy> {
        let completions = size.prompts * COMPLETIONS;
        let setup = Setup {
            lora: None,
            frozen: Storage::F32,
            reference: Reference::Other,
            recompute: false,
            // Those of a step, or as many problems with their answers.
            max_tokens: completions * (prompt + answer),
            max_rows: completions * answer,
        };
        let mut policy = Policy::new(self.student.shape.clone(), setup)?;
        policy.load(self.student.source())?;
        policy.load_reference(&self.teacher.shape, self.teacher.source())?;
        Ok(policy)
    }
}

/// A model that answers as its corpus does.
fn base(model: &Model, numbers: u32, seed: u64) -> Base {
    let Model { width, layers, steps, right } = model;
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {width}, intermediate_size = {}, num_hidden_layers = {layers}, \
         num_attention_heads = 4, num_key_value_heads = 2 }}\n\
         [data]\ngenerate = {{ task = \"sorting\", difficulty = {}, samples = {}, eval_samples = 0, right = {right} }}\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 3e-3\n\
         [train]\nseed = {seed}\nper_device_train_batch_size = 64\nmax_steps = {steps}\nlr_scheduler_type = \"cosine\"\n\
         warmup_steps = 50\nsave_total_limit = 1\nsample_prompts = 0\n",
        3 * width,
        numbers - 2,
        64 * steps,
    );
    Base { recipe, files: Vec::new() }
}

/// What is drawn for one seed.
struct Drawn {
    practice: Problems,
    exam: Problems,
}

impl Drawn {
    fn new(pair: &Pair, size: &Size, seed: u64) -> Result<Self> {
        let config = GenerateConfig {
            task: Task::Sorting,
            difficulty: size.numbers - 2,
            samples: size.prompts * size.steps,
            eval_samples: size.problems,
            ..GenerateConfig::default()
        };
        let of = |split| Problems::draw(&pair.student, &config, split, seed);
        Ok(Self { practice: of(Split::Train)?, exam: of(Split::Eval)? })
    }
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let pair = Pair::open(setting, size, observer)?;
    let drawn = each_seed(setting, |seed| Drawn::new(&pair, size, seed))?;
    let seeds = side_by_side(&drawn, &KINDS, "training in each way", observer, |seed, drawn, (_, kind)| {
        train(&pair, size, drawn, &*make(kind, size.steps)?, seed)
    })?;
    let of_teacher = {
        let drawn = &drawn[0];
        let swapped = Pair { student: pair.teacher, teacher: pair.student };
        drawn.exam.success(&mut swapped.policy(size, drawn.exam.longest())?, size.prompts * COMPLETIONS)?
    };
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0], of_teacher) })
}

/// Goes through the problems once.
fn train(pair: &Pair, size: &Size, drawn: &Drawn, method: &dyn Method, seed: u64) -> Result<Vec<Look>> {
    let Drawn { practice, exam } = drawn;
    let longest: [usize; 2] = std::array::from_fn(|i| practice.longest()[i].max(exam.longest()[i]));
    let mut learner = preferences::learner(pair.policy(size, longest)?)?;
    let how = Practice { num_generations: COMPLETIONS, longest: longest[1], end: pair.student.eos_ids()[0] };
    let mut samples = Seed::new(seed).stream("reproduce/kdrl/samples", &[]);
    let together = size.prompts * COMPLETIONS;
    let mut looks = Vec::new();
    for step in 0..size.steps {
        if step.is_multiple_of((size.steps / LOOKS).max(1)) {
            looks.push((step, exam.success(&mut learner.policy, together)?));
        }
        let first = step * size.prompts;
        let prompts: Vec<&[u32]> =
            practice.prompts[first..first + size.prompts].iter().map(Vec::as_slice).collect();
        let reward = |prompt: usize, ids: &[u32]| practice.reward(first + prompt, ids);
        let mut round = how.round(&learner.policy, &prompts, &reward, Seed::new(samples.next_u64()))?;
        let (warm, left) = ((step + 1) as f64 / 10.0, 1.0 - step as f64 / size.steps as f64);
        let lr = RATE * warm.min(left);
        how.step(&mut learner, method, None, (&mut round, &prompts), step as u64, lr)?;
    }
    looks.push((size.steps, exam.success(&mut learner.policy, together)?));
    Ok(looks)
}

/// `seeds[seed][kind]` are the looks of one run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let last = |looks: &[Look]| looks.last().map_or(f64::NAN, |look| 100.0 * look.1);
    let early = |looks: &[Look]| 100.0 * looks[looks.len() / 4].1;
    let claim = |quantity: &str, at: &dyn Fn(&[Look]) -> f64, [a, b]: [usize; 2], paper: &str, bound: f64| {
        let values: Vec<_> = seeds.iter().map(|runs| at(&runs[a]) - at(&runs[b])).collect();
        let quantity = format!("{quantity} with {} less that with {}, points", KINDS[a].0, KINDS[b].0);
        Claim::mean(&quantity, paper, &values, Bound::Above(bound))
    };
    let right = "right answers";
    vec![
        claim(right, &last, [KDRL, GRPO], "2.2 (56.8 % against 54.6 %, mean of several benchmarks)", 0.0),
        claim(right, &last, [KDRL, DISTILLATION], "0.7 (56.8 % against 56.1 %)", 0.0),
        claim(right, &last, [ANNEALING, GRPO], "2.6 (57.2 % against 54.6 %)", 0.0),
        claim(right, &last, [ANNEALING, DISTILLATION], "1.1 (57.2 % against 56.1 %)", 0.0),
        claim(right, &last, [DISTILLATION, GRPO], "1.5 (56.1 % against 54.6 %)", 0.0),
        claim(right, &last, [ANNEALING, KDRL], "0.4 (57.2 % against 56.8 %)", 0.0),
        claim(right, &last, [KDRL, K3], "1.4: k2 is better than k3", 0.0),
        claim(
            "right answers after a quarter of the steps",
            &early,
            [STRONG, KDRL],
            "positive: a large constant weight speeds early learning",
            0.0,
        ),
        claim(
            right,
            &last,
            [ANNEALING, STRONG],
            "positive: it hurts later, and annealing resolves this",
            0.0,
        ),
        claim(right, &last, [MASKED, ANNEALING], "about 0: almost equal accuracy", -2.0),
    ]
}

fn figures(runs: &[Vec<Look>], of_teacher: f64) -> Vec<Figure> {
    let names = KINDS.map(|(name, _)| name);
    let figure = |title: &str, kinds: &[usize]| {
        let runs: Vec<_> = kinds.iter().map(|&kind| runs[kind].clone()).collect();
        let names = kinds.iter().map(|&kind| names[kind]);
        let point = |look: &Look| (look.0 as f64, look.1);
        let limit = Some((of_teacher, "teacher".to_owned()));
        Figure { limit, ..preferences::figure(title, "steps", names, &runs, point) }
    };
    vec![
        figure("Probability of the right answer", &[GRPO, DISTILLATION, KDRL, ANNEALING]),
        figure("Probability of the right answer, forms of KDRL", &[KDRL, ANNEALING, K3, STRONG, MASKED]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::corrupted::{corrupted, turn};

    const TINY: Size = Size {
        student: Model { width: 48, layers: 2, steps: 500, right: 0.1 },
        teacher: Model { width: 48, layers: 2, steps: 500, right: 0.85 },
        numbers: 3,
        steps: 30,
        prompts: 8,
        problems: 256,
    };

    /// KDRL with the other sign.
    fn turned(kind: Kind, steps: usize) -> Result<Box<dyn Method>> {
        let method = method(kind, steps)?;
        Ok(if matches!(kind, Kind::Constant | Kind::Annealed) { corrupted(method, turn) } else { method })
    }

    /// KDRL that does not hear its teacher.
    fn deaf(kind: Kind, steps: usize) -> Result<Box<dyn Method>> {
        method(if matches!(kind, Kind::Constant | Kind::Annealed) { Kind::Grpo } else { kind }, steps)
    }

    #[test]
    fn claims_fail_with_the_other_sign_and_without_the_teacher() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let measured = |make: Make| findings(&setting, &TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        let holds = |claims: &[Claim], part: &str| {
            claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim").holds
        };
        let (real, wrong) = (measured(&method), [measured(&turned), measured(&deaf)]);
        for part in [
            "right answers with KDRL less that with GRPO",
            "right answers with KDRL-Annealing less that with GRPO",
        ] {
            assert!(holds(&real, part), "{real:?}");
            for wrong in &wrong {
                assert!(!holds(wrong, part), "{wrong:?}");
            }
        }
    }
}
