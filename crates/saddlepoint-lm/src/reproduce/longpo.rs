//! LongPO: long documents read better and short ones as well as before, beside DPO and SFT (Chen et al. 2025,
//! arXiv:2502.13922).

use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};

use super::Reproduction;
use super::facts::{self, Asked, Exam, Reading};
use super::preferences::{self, BETA};
use super::side_by_side::{each_seed, side_by_side};
use crate::Result;
use crate::engine::Policy;
use crate::method::dpo::{Dpo, DpoConfig};
use crate::method::longpo::{Longpo, LongpoConfig};
use crate::method::{Method, Norm};
use crate::trainer::{Example, batch};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "longpo",
    title: "LongPO: long context self-evolution of large language models through short-to-long preference optimization",
    paper: "arXiv:2502.13922",
    experiment: "A small decoder learns from documents of at most 4 facts, a token each (`k7=v2 k41=v5`), to answer `? k41` by \
                 `v5`, and `! k41` by a value that it learns by heart. After documents of 16 such chunks it is right about \
                 half the time. As in the paper, up to four chunks of each of 1,600 long documents are asked about, the model's \
                 answers after the chunk are preferred to those after the document, and the policy has ten times the model's \
                 rotary base from its first step, beta = 0.1 and batches of 8. Equal answers stay in the data: a value is short, \
                 so that what remains without them are the model's errors alone, and every preference loss then learns \
                 to distrust whatever is most probable. DPO is the preference alone, held to the policy before its first step; \
                 SFT is the likelihood of the chosen sequences; LongPO is also trained without its constraint (its \
                 reference reads the document) and without its likelihood. Lengths, the weight lambda = 0.1 and the learning \
                 rate were chosen on a seed outside of the experiment, by whether the model reads chunks well and documents \
                 badly and training collapses neither; with the product of lambda and sequence length of the paper (1,310) \
                 LongPO collapses here like DPO. Accuracies are of exact answers about held-out documents; after short ones, \
                 the mean of both kinds of questions.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, if setting.full { &FULL } else { &DEFAULT }, &method, observer)
}

/// How large the experiment is.
struct Size {
    facts: facts::Size,
    steps: usize,
}

const DEFAULT: Size = Size {
    facts: facts::Size { width: 64, base_steps: 500, keys: 64, chunk: 4, chunks: 16, documents: 128 },
    steps: 200,
};
const FULL: Size = Size {
    facts: facts::Size { width: 128, base_steps: 1500, keys: 128, chunk: 4, chunks: 32, documents: 256 },
    steps: 1000,
};

/// Documents of a batch, as in the paper.
const DOCUMENTS: usize = 8;
/// Weight of the preference beside the likelihood. Of 0.03, 0.1, 1 and 16, tried with a seed that is not among those of the
/// experiment, the largest under which nothing is forgotten on the way. 16 keeps the paper's product of weight and length.
const LAMBDA: f64 = 0.1;
/// Largest learning rate: of 3e-4 and 1e-3, tried likewise, the one under which SFT forgets nothing.
const RATE: f64 = 3e-4;
/// Evaluations before the end.
const LOOKS: usize = 8;

/// How a policy learns from the pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    LongPo,
    /// Preference alone, held to the model after the document.
    Dpo,
    /// Likelihood of the chosen sequences alone.
    Sft,
    /// LongPO held to the model after the document.
    Unheld,
    /// LongPO's preference alone.
    Preference,
}

impl Kind {
    /// Whether the reference reads what the policy reads, with the policy's angles: then it is the policy before its first step.
    fn reads_document(self) -> bool {
        matches!(self, Self::Dpo | Self::Unheld)
    }
}

const KINDS: [(&str, Kind); 5] = [
    ("LongPO", Kind::LongPo),
    ("DPO", Kind::Dpo),
    ("SFT", Kind::Sft),
    ("LongPO without the constraint", Kind::Unheld),
    ("LongPO without the likelihood", Kind::Preference),
];
const LONGPO: usize = 0;
const DPO: usize = 1;
const SFT: usize = 2;
const UNHELD: usize = 3;
const PREFERENCE: usize = 4;

/// Makes a method.
type Make<'a> = &'a (dyn Fn(Kind) -> Result<Box<dyn Method>> + Sync);

fn method(kind: Kind) -> Result<Box<dyn Method>> {
    let longpo = |lambda| Longpo::new(LongpoConfig { beta: BETA, lambda });
    Ok(match kind {
        Kind::LongPo | Kind::Unheld => Box::new(longpo(LAMBDA)?),
        Kind::Sft => Box::new(longpo(0.0)?),
        Kind::Dpo | Kind::Preference => Box::new(Dpo::new(DpoConfig { beta: BETA, ..DpoConfig::default() })?),
    })
}

/// Held-out documents.
struct Exams {
    long: Exam,
    /// Short documents, read, and with questions about what is known by heart.
    short: [Exam; 2],
}

/// The policy after some steps.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: usize,
    /// Share of right answers after long documents.
    long: f64,
    /// After short ones, the mean of both kinds of questions.
    short: f64,
    /// `KL( π(·|x_L) || π₀(·|x_S) )`, nats an answer.
    divergence: f64,
}

impl Exams {
    fn new(task: &Reading, size: &Size, seed: u64) -> Self {
        let short = [Asked::Read, Asked::Know].map(|asked| task.exam(1, asked, seed));
        Self { long: task.exam(size.facts.chunks, Asked::Read, seed), short }
    }

    fn short(&self, task: &Reading, policy: &mut Policy) -> Result<f64> {
        let [read, known] = &self.short;
        Ok(f64::midpoint(task.right(policy, read)?, task.right(policy, known)?))
    }

    fn look(&self, task: &Reading, policy: &mut Policy, step: usize) -> Result<Look> {
        Ok(Look {
            step,
            long: task.right(policy, &self.long)?,
            short: self.short(task, policy)?,
            divergence: task.apart(policy, &self.long)?,
        })
    }
}

/// What one seed gives.
struct Seen {
    /// Share of right answers of the model, with its own angles, after short documents.
    model: f64,
    /// The looks of each kind.
    runs: Vec<Vec<Look>>,
}

fn findings(setting: &Setting, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let task = Reading::open(&setting.cache, &size.facts, observer)?;
    let draw = |seed| {
        let pairs = task.pairs(DOCUMENTS * size.steps, seed)?;
        Ok((Exams::new(&task, size, seed), pairs.into_iter().map(Example::Long).collect::<Vec<_>>()))
    };
    let drawn = each_seed(setting, draw)?;
    let what = "training in each way";
    let runs = side_by_side(&drawn, &KINDS, what, observer, |_, (exams, pairs), (_, kind)| {
        train(&task, exams, kind, &*make(kind)?, pairs)
    })?;
    let mut model = task.model(DOCUMENTS)?;
    let seen =
        |(runs, (exams, _)): (_, &(Exams, _))| Ok(Seen { model: exams.short(&task, &mut model)?, runs });
    let seeds: Vec<_> = runs.into_iter().zip(&drawn).map(seen).collect::<Result<_>>()?;
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0].runs) })
}

/// Trains on the pairs once.
fn train(
    task: &Reading,
    exams: &Exams,
    kind: Kind,
    method: &dyn Method,
    pairs: &[Example],
) -> Result<Vec<Look>> {
    let mut learner = preferences::learner(task.policy(DOCUMENTS)?)?;
    if kind.reads_document() {
        let shape = learner.policy.shape().clone();
        learner.policy.set_reference_rope(&shape);
    }
    // What is looked at is measured against the model with its own angles, whatever the reference of training is.
    let mut judge = task.policy(DOCUMENTS)?;
    let mut look = |policy: &mut Policy, step| {
        judge.trainable().params.copy_from_slice(policy.trainable().params);
        exams.look(task, &mut judge, step)
    };
    let steps = pairs.len() / DOCUMENTS;
    let mut looks = Vec::new();
    for (step, examples) in pairs.chunks(DOCUMENTS).enumerate() {
        if step.is_multiple_of((steps / LOOKS).max(1)) {
            looks.push(look(&mut learner.policy, step)?);
        }
        let examples: Vec<&Example> = examples.iter().collect();
        let mut norm = Norm::default();
        for example in &examples {
            example.count(&mut norm);
        }
        let mut batch = batch(&examples);
        if kind.reads_document() {
            batch.reference = None;
        }
        let (warm, left) = (10.0 * (step + 1) as f64 / steps as f64, 1.0 - step as f64 / steps as f64);
        learner.step_on(method, &batch, norm, RATE * warm.min(left))?;
    }
    looks.push(look(&mut learner.policy, steps)?);
    Ok(looks)
}

fn claims(seeds: &[Seen]) -> Vec<Claim> {
    let last = |run: &[Look], of: fn(&Look) -> f64| run.last().map_or(f64::NAN, of);
    let long = |look: &Look| 100.0 * look.long;
    let short = |look: &Look| 100.0 * look.short;
    let divergence = |look: &Look| look.divergence;
    let claim = |quantity: &str, paper: &str, bound: f64, of: &dyn Fn(&Seen) -> f64| {
        let values: Vec<_> = seeds.iter().map(of).collect();
        Claim::mean(quantity, paper, &values, Bound::Above(bound))
    };
    let difference = |what: &str, of: fn(&Look) -> f64, [a, b]: [usize; 2], paper: &str| {
        let quantity = format!("{what} with {} less that with {}, points", KINDS[a].0, KINDS[b].0);
        claim(&quantity, paper, 0.0, &|seen| last(&seen.runs[a], of) - last(&seen.runs[b], of))
    };
    vec![
        claim(
            "accuracy after long documents with LongPO less that before, points",
            "25.45 (39.27 against 13.82, InfiniteBench)",
            0.0,
            &|seen| last(&seen.runs[LONGPO], long) - long(&seen.runs[LONGPO][0]),
        ),
        difference("accuracy after long documents", long, [LONGPO, DPO], "13.71 (39.27 against 25.56)"),
        difference("accuracy after long documents", long, [LONGPO, SFT], "9.24 (39.27 against 30.03)"),
        claim(
            "accuracy after short documents with LongPO less that of the model, points",
            "0.21 (70.21 against 70.00, mean of four benchmarks)",
            -2.0,
            &|seen| last(&seen.runs[LONGPO], short) - 100.0 * seen.model,
        ),
        difference("accuracy after short documents", short, [LONGPO, DPO], "10 to 25 on MMLU"),
        difference("accuracy after short documents", short, [LONGPO, SFT], "10 to 25 on MMLU"),
        difference(
            "accuracy after short documents",
            short,
            [LONGPO, UNHELD],
            "positive: without it short contexts are soon forgotten",
        ),
        claim(
            "KL( π(·|x_L) || π₀(·|x_S) ) with LongPO without the constraint less that with LongPO, nats",
            "positive: it is what the constraint is about",
            0.0,
            &|seen| last(&seen.runs[UNHELD], divergence) - last(&seen.runs[LONGPO], divergence),
        ),
        claim(
            "accuracy after long documents during training with LongPO less that without the likelihood, points",
            "positive: without it long contexts are learned more slowly",
            0.0,
            &|seen| {
                let mean = |run: &[Look]| run[1..].iter().map(long).sum::<f64>() / (run.len() - 1) as f64;
                mean(&seen.runs[LONGPO]) - mean(&seen.runs[PREFERENCE])
            },
        ),
    ]
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |title: &str, point: fn(&Look) -> (f64, f64)| {
        preferences::figure(title, "steps", KINDS.map(|(name, _)| name), runs, point)
    };
    vec![
        figure("Accuracy after long documents", |look| (look.step as f64, look.long)),
        figure("Accuracy after short documents", |look| (look.step as f64, look.short)),
        figure("KL( π(·|x_L) || π₀(·|x_S) ), nats an answer", |look| {
            (look.step as f64, look.divergence)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::corrupted::{corrupted, turn};
    use crate::reproduce::facts::tests::TINY;

    /// LongPO with the other sign.
    fn turned(kind: Kind) -> Result<Box<dyn Method>> {
        let method = method(kind)?;
        Ok(if kind == Kind::LongPo { corrupted(method, turn) } else { method })
    }

    #[test]
    fn claims_fail_with_the_other_sign() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 3, full: false, cache: cache.path().to_owned() };
        let size = Size { facts: TINY, steps: 100 };
        let measured = |make: Make| findings(&setting, &size, make, &mut |_, _, _| ()).expect("runs").claims;
        let (real, turned) = (measured(&method), measured(&turned));
        let of = |claims: &[Claim], part: &str| {
            let claim = claims.iter().find(|claim| claim.claim.starts_with(part)).expect("a claim");
            (claim.holds, claim.interval)
        };
        let short = "accuracy after short documents with LongPO less that of the model";
        assert!(of(&real, short).0, "{real:?}");
        // By three seeds of this size the gain on long documents is not told from none, but well from what the other sign does.
        for part in ["accuracy after long documents with LongPO less that with DPO", short] {
            let ((_, [low, _]), (holds, [_, high])) = (of(&real, part), of(&turned, part));
            assert!(!holds && low > high, "{real:?} {turned:?}");
        }
    }
}
