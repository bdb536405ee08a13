//! Online difficulty filtering: what a step and what a sample teach, with and without (Bae et al. 2025, arXiv:2504.03380).

use std::fs;
use std::path::{Path, PathBuf};

use rand::RngExt;
use saddlepoint_core::reproduce::{Bound, Claim, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;
use serde_json::Value;

use super::Reproduction;
use super::base::Base;
use crate::data::generate::{GenerateConfig, Split, Task};
use crate::recipe::Recipe;
use crate::rollout::FilterConfig;
use crate::trainer;
use crate::{Error, Result};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "difficulty-filtering",
    title: "Online difficulty filtering for reasoning oriented reinforcement learning",
    paper: "arXiv:2504.03380",
    experiment: "A small decoder has learned chains of one to four operations (`3+4*2=`, `11`) so far that it is right nearly \
                 always on the shortest and hardly ever on the longest. GRPO with 16 completions a prompt and 8 prompts a step \
                 goes on from there with all prompts (plain), without those that are all right or all wrong, with those of \
                 which 20 to 80 % are right (balanced), and with one side of that band. Success is that of one completion for \
                 each of 600 held-out prompts of all lengths.",
    seeds: 5,
    run,
};

/// How large an experiment is.
struct Size {
    width: usize,
    base_steps: usize,
    steps: usize,
    held_out: usize,
}

const DEFAULT: Size = Size { width: 96, base_steps: 700, steps: 60, held_out: 150 };
const FULL: Size = Size { width: 128, base_steps: 1500, steps: 240, held_out: 500 };

/// Operations of the longest chain.
const LONGEST: u32 = 4;
/// Evaluations of a run after the first.
const LOOKS: usize = 6;

/// Which prompts are kept; all, where there is none.
struct Arm {
    name: &'static str,
    band: Option<[f64; 2]>,
}

const PLAIN: usize = 0;
const MIXED: usize = 1;
const BALANCED: usize = 2;
const HARD: usize = 3;
const EASY: usize = 4;

const ARMS: [Arm; 5] = [
    Arm { name: "all prompts", band: None },
    Arm { name: "0 < p < 1", band: Some([0.01, 0.99]) },
    Arm { name: "0.2 <= p <= 0.8", band: Some([0.2, 0.8]) },
    Arm { name: "0 < p <= 0.5", band: Some([0.01, 0.5]) },
    Arm { name: "0.5 <= p < 1", band: Some([0.5, 0.99]) },
];

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting, if setting.full { &FULL } else { &DEFAULT }, &|filter| filter, observer)
}

/// The policy after some steps.
#[derive(Debug, Clone, Copy)]
struct Look {
    step: f64,
    /// Completions sampled so far.
    completions: f64,
    /// Share of held-out prompts that one completion answers right.
    success: f64,
}

/// `change` is made to every filter: nothing, but in tests.
fn findings(
    setting: &Setting,
    size: &Size,
    change: &dyn Fn(FilterConfig) -> FilterConfig,
    observer: Observer,
) -> Result<Findings> {
    let model = base(size).trained(&setting.cache, observer)?;
    let mut seeds = Vec::new();
    for seed in 0..setting.seeds as u64 {
        let mut runs = Vec::new();
        for (i, arm) in ARMS.iter().enumerate() {
            let done = seed * ARMS.len() as u64 + i as u64;
            observer(done, (setting.seeds * ARMS.len()) as u64, "training with each filter");
            let filter = arm.band.map(|[low, high]| change(FilterConfig { low, high, ..FilterConfig::default() }));
            runs.push(train(&setting.cache, &model, size, filter, seed)?);
        }
        seeds.push(runs);
    }
    Ok(Findings { claims: claims(&seeds), figures: figures(&seeds[0]) })
}

/// Chains of every length, as many of each, in an order of the seed.
fn problems(count: usize, split: Split, seed: u64, lines: fn(&GenerateConfig, Split, Seed) -> String) -> String {
    let of = |difficulty| {
        let config = GenerateConfig {
            task: Task::Arithmetic,
            difficulty,
            samples: count,
            eval_samples: count,
            right: 1.0,
            ..GenerateConfig::default()
        };
        lines(&config, split, Seed::new(seed))
    };
    let texts: Vec<String> = (1..=LONGEST).map(of).collect();
    let mut lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    let mut rng = Seed::new(seed).stream("reproduce/difficulty/order", &[]);
    for i in (1..lines.len()).rev() {
        lines.swap(i, rng.random_range(0..=i));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The model before, which has seen short chains often enough.
fn base(size: &Size) -> Base {
    let tokenizer = String::from_utf8(Task::Arithmetic.tokenizer_json()).expect("JSON is UTF-8");
    let corpus = problems(16 * size.base_steps, Split::Train, 0, GenerateConfig::corpus);
    let recipe = format!(
        "[model]\nnew = {{ hidden_size = {}, intermediate_size = {}, num_hidden_layers = 2, \
         num_attention_heads = 4, num_key_value_heads = 2, tokenizer = \"tokenizer.json\" }}\n\
         [data]\npath = \"corpus.jsonl\"\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 3e-3\n\
         [train]\nper_device_train_batch_size = 64\nmax_steps = {}\nlr_scheduler_type = \"cosine\"\n\
         warmup_steps = 20\nsave_total_limit = 1\nsample_prompts = 0\n",
        size.width,
        3 * size.width,
        size.base_steps,
    );
    let files = vec![
        ("corpus.jsonl", corpus),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", Task::Arithmetic.tokenizer_config().to_string()),
    ];
    Base { recipe, files }
}

/// One run, in a folder that is removed again.
fn train(cache: &Path, model: &Path, size: &Size, filter: Option<FilterConfig>, seed: u64) -> Result<Vec<Look>> {
    let folder = cache.join("difficulty-filtering");
    remove(&folder)?;
    fs::create_dir_all(&folder).map_err(|source| io("create", &folder, source))?;
    let held_out = problems(size.held_out, Split::Eval, 1000 + seed, GenerateConfig::prompts);
    let prompts = problems(4 * size.steps, Split::Train, seed, GenerateConfig::prompts);
    for (name, text) in [("prompts.jsonl", prompts), ("held-out.jsonl", held_out)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|source| io("write", &path, source))?;
    }
    let recipe = format!(
        "[model]\npath = {:?}\n[data]\npath = \"prompts.jsonl\"\neval_path = \"held-out.jsonl\"\n\
         [method]\nname = \"grpo\"\n[rollout]\nnum_generations = 16\nmax_completion_length = 6\n\
         [reward]\nreward_funcs = [{{ name = \"task_reward\" }}]\n[optimizer]\nlearning_rate = 3e-4\n\
         [train]\noutput_dir = \"run\"\nper_device_train_batch_size = 128\nmax_steps = {}\n\
         lr_scheduler_type = \"constant\"\nlogging_steps = 1\neval_steps = {}\nsave_steps = 0\nsample_prompts = 0\nseed = {seed}\n",
        model.display().to_string(),
        size.steps,
        size.steps / LOOKS,
    );
    let file = folder.join("recipe.toml");
    fs::write(&file, recipe).map_err(|source| io("write", &file, source))?;
    let mut recipe = Recipe::load(&file, &[])?;
    if let Some(rollout) = &mut recipe.rollout {
        rollout.filter = filter;
    }
    let summary = trainer::run(&recipe, false, &mut |_| {})?;
    let before = summary.evaluation.as_ref().and_then(|evaluation| evaluation.before.get("reward")?.as_f64());
    let looks = looks(&folder.join("run/metrics.jsonl"), before.unwrap_or(f64::NAN))?;
    remove(&folder)?;
    Ok(looks)
}

/// The evaluations of a run, with the completions sampled until then.
fn looks(metrics: &PathBuf, before: f64) -> Result<Vec<Look>> {
    let text = fs::read_to_string(metrics).map_err(|source| io("read", metrics, source))?;
    let mut looks = vec![Look { step: 0.0, completions: 0.0, success: before }];
    let mut completions = 0.0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let value = |name: &str| line.get(name).and_then(Value::as_f64);
        completions = value("num_completions").unwrap_or(completions);
        if let (Some(step), Some(success)) = (value("step"), value("eval_reward")) {
            looks.push(Look { step, completions, success });
        }
    }
    Ok(looks)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io("remove", folder, source)),
        _ => Ok(()),
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    saddlepoint_core::Error::Io { action, path: path.to_owned(), source }.into()
}

/// `seeds[seed][arm]` are the looks of a run.
fn claims(seeds: &[Vec<Vec<Look>>]) -> Vec<Claim> {
    let last = |runs: &[Vec<Look>], arm: usize| *runs[arm].last().expect("a look before the first step");
    let of = |quantity: &str, paper: &str, bound, value: &dyn Fn(&[Vec<Look>]) -> f64| {
        let values: Vec<f64> = seeds.iter().map(|runs| value(runs)).collect();
        Claim::mean(quantity, paper, &values, bound)
    };
    let higher = |a: usize, b: usize, paper: &str| {
        let quantity = format!("success with {} less that with {}, equal steps", ARMS[a].name, ARMS[b].name);
        of(&quantity, paper, Bound::Above(0.0), &|runs| last(runs, a).success - last(runs, b).success)
    };
    let cost = |a: usize| {
        let quantity = format!("completions sampled with {}, as a multiple of those without a filter", ARMS[a].name);
        of(&quantity, "more: what is left out was sampled too", Bound::Above(1.0), &|runs| {
            last(runs, a).completions / last(runs, PLAIN).completions
        })
    };
    vec![
        of("success with all prompts less that before the first step", "positive", Bound::Above(0.0), &|runs| {
            last(runs, PLAIN).success - runs[PLAIN][0].success
        }),
        higher(MIXED, PLAIN, "positive: up to 10 % on AIME"),
        higher(BALANCED, PLAIN, "positive: up to 10 % on AIME"),
        higher(BALANCED, MIXED, "positive: balanced is best"),
        higher(BALANCED, HARD, "positive: balanced is better than one side"),
        higher(BALANCED, EASY, "positive: balanced is better than one side"),
        cost(MIXED),
        cost(BALANCED),
    ]
}

fn figures(runs: &[Vec<Look>]) -> Vec<Figure> {
    let figure = |x: &str, point: fn(&Look) -> (f64, f64)| {
        super::preferences::figure("Success on held-out prompts", x, ARMS.map(|arm| arm.name), runs, point)
    };
    vec![
        figure("steps", |look| (look.step, look.success)),
        figure("completions sampled", |look| (look.completions, look.success)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Size = Size { width: 32, base_steps: 150, steps: 12, held_out: 40 };

    #[test]
    fn a_filter_that_keeps_what_teaches_nothing_reaches_nothing() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let setting = Setting { seeds: 2, full: false, cache: cache.path().to_owned() };
        let never = |filter: FilterConfig| FilterConfig { low: 0.0, high: 0.0, max_attempts: 2, ..filter };
        let found = findings(&setting, &TINY, &never, &mut |_, _, _| ()).expect("runs");
        let better = |claim: &&Claim| claim.claim.starts_with("success with 0");
        assert_eq!(found.claims.iter().filter(better).count(), 5);
        assert!(found.claims.iter().filter(better).all(|claim| !claim.holds), "{:?}", found.claims);
        let remains = fs::read_dir(cache.path()).expect("a folder").flatten().map(|entry| entry.file_name());
        assert!(remains.into_iter().all(|name| name != "difficulty-filtering"), "its runs are removed");
    }
}
