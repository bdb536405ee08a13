//! Rounds that a server samples while the one before is trained on (`rollout.max_staleness`).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::trainer::{Event, run};
use serde_json::Value;

use crate::on_policy::place;
use crate::rollout_server::{Fate, Fates, Service, sets};
use crate::trainer::{lines, load, quiet, until};

/// Prompts of a round, each a request, and completions of it.
const PROMPTS: usize = 8;
const COMPLETIONS: usize = 32;

/// A recipe in which a round has two steps and the next one is sampled meanwhile.
const TWO_STEPS: [&str; 3] =
    ["rollout.max_staleness=1", "train.per_device_train_batch_size=16", "rollout.steps_per_generation=2"];

/// A place whose base is trained, and that base.
fn based() -> (tempfile::TempDir, PathBuf) {
    let place = place("name = \"grpo\"");
    quiet(&load(place.path(), "run.toml", &["train.max_steps=1", "train.output_dir=first"]), false);
    let base = place.path().join("base/model");
    (place, base)
}

/// The recipe with a server and these settings.
fn recipe(place: &Path, url: &str, out: &str, more: &[&str]) -> Recipe {
    let sets = sets(url, out);
    let sets: Vec<&str> = sets.iter().map(String::as_str).chain(more.iter().copied()).collect();
    load(place, "run.toml", &sets)
}

/// Waits until so many requests have come. Only a failure takes the time.
fn arrived(service: &Service, requests: usize) {
    for _ in 0..60_000 {
        if service.requests.load(Ordering::SeqCst) >= requests {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{} requests of {requests} have come", service.requests.load(Ordering::SeqCst));
}

/// The completions that were trained on.
fn trained(run: &Path) -> Vec<Value> {
    lines(run.join("samples.jsonl")).into_iter().filter(|line| line.get("step").is_some()).collect()
}

/// The metrics of steps that sampled a round.
fn sampled(run: &Path) -> Vec<Value> {
    lines(run.join("metrics.jsonl")).into_iter().filter(|line| line.get("reward").is_some()).collect()
}

/// What a record says that rounds waited for.
fn waits(run: &Path) -> Vec<Value> {
    let events = lines(run.join("events.jsonl")).into_iter();
    events.filter(|line| line["kind"] == "rollouts").map(|line| line["data"].clone()).collect()
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"))
}

/// A round has two steps here. Behind its first one the requests of the next round have come already, though they are answered
/// only behind its second: neither waits for the other. No sample is older than a round, and older ones are weighted.
#[test]
fn a_round_is_sampled_while_the_one_before_is_trained_on() {
    let (place, base) = based();
    let (url, service) = Service::start(&base, |_| Fate::Answer);
    let more = [&TWO_STEPS[..], &["train.max_steps=8"]].concat();
    service.answered.store(PROMPTS, Ordering::SeqCst);
    run(&recipe(place.path(), &url, "ahead", &more), false, &mut |event| {
        if let Event::Step { step, .. } = event {
            let next = PROMPTS * (step.div_ceil(2) as usize + 1).min(4);
            if step.is_multiple_of(2) {
                service.answered.store(next, Ordering::SeqCst);
            } else {
                arrived(&service, next);
            }
        }
    })
    .expect("the run ends");
    assert_eq!(service.requests.load(Ordering::SeqCst), 4 * PROMPTS, "nothing is asked for that is not used");

    let run = place.path().join("ahead");
    let (samples, versions) = (trained(&run), service.versions.lock().expect("no panic"));
    assert_eq!((samples.len(), versions.len()), (4 * COMPLETIONS, 4));
    for sample in &samples {
        let round = (sample["step"].as_u64().expect("a step") as usize - 1) / 2;
        let of = versions.iter().position(|name| sample["version"] == name.as_str()).expect("was loaded");
        assert_eq!(of, round.saturating_sub(1), "{sample}");
    }
    for (round, line) in sampled(&run).iter().enumerate() {
        for of in ["mean", "max"] {
            assert_eq!(line[format!("sampling/staleness/{of}")].as_f64(), Some(f64::from(round > 0)), "{of}");
        }
        let ratio = number(line, "sampling/importance_sampling_ratio/max");
        assert_eq!(ratio > 1.001, round > 0, "only older weights differ: {line}");
    }
    let waits = waits(&run);
    assert_eq!(waits.len(), 4);
    assert!(waits.iter().all(|wait| number(wait, "seconds_waited") > 0.0 && wait["redrawn"] == 0));
}

/// Without staleness nothing is asked for before its round, and every sample is of the weights that it is trained from.
#[test]
fn without_staleness_a_round_waits_for_the_one_before() {
    let (place, base) = based();
    let (url, service) = Service::start(&base, |_| Fate::Answer);
    let more = ["rollout.max_staleness=0", "train.max_steps=3"];
    let mut asked = Vec::new();
    run(&recipe(place.path(), &url, "none", &more), false, &mut |event| {
        if let Event::Step { .. } = event {
            asked.push(service.requests.load(Ordering::SeqCst));
        }
    })
    .expect("the run ends");
    assert_eq!(asked, [1, 2, 3].map(|round| round * PROMPTS));
    let versions = service.versions.lock().expect("no panic");
    for sample in trained(&place.path().join("none")) {
        let step = sample["step"].as_u64().expect("a step") as usize;
        assert_eq!(sample["version"], versions[step - 1].as_str());
    }
    let metrics = sampled(&place.path().join("none"));
    assert!(metrics.iter().all(|line| line.get("sampling/staleness/max").is_none()), "as it was");
}

/// What a server does wrong is asked for again ahead of a round too. Completions of other weights are counted.
#[test]
fn a_server_that_errs_changes_nothing_ahead_of_a_round() {
    let (place, base) = based();
    let ended = |fate: Fates, out: &str| {
        let (url, _) = Service::start(&base, fate);
        quiet(&recipe(place.path(), &url, out, &["rollout.max_staleness=1", "train.max_steps=8"]), false);
        place.path().join(out)
    };
    let calm = ended(|_| Fate::Answer, "calm");
    let faulty = ended(
        |request| match request % 16 {
            3 => Fate::Die,
            7 => Fate::Drop,
            11 => Fate::Lie(0),
            14 => Fate::Busy,
            _ => Fate::Answer,
        },
        "faulty",
    );
    for file in ["model/adapter_model.safetensors", "samples.jsonl", "metrics.jsonl"] {
        assert!(fs::read(calm.join(file)).expect(file) == fs::read(faulty.join(file)).expect(file), "{file}");
    }
    let redrawn =
        |run: &Path| waits(run).iter().map(|wait| wait["redrawn"].as_u64().expect("a count")).sum::<u64>();
    assert_eq!(redrawn(&calm), 0);
    // Four completions a prompt.
    let redrawn = redrawn(&faulty);
    assert!(redrawn >= 4 && redrawn.is_multiple_of(4), "{redrawn}");
    assert_eq!(fs::read_dir(calm.join("served")).expect("a folder").count(), 1);
}

static GONE: AtomicBool = AtomicBool::new(true);

/// A server that dies while it samples ahead is told about when its completions are due. What was trained until then is kept, and the
/// run goes on from there once the server is back.
#[test]
fn a_server_that_dies_ahead_of_a_round_is_an_error_there() {
    let (place, base) = based();
    let gone = |request| {
        if request >= PROMPTS && GONE.load(Ordering::SeqCst) { Fate::Drop } else { Fate::Answer }
    };
    let (url, _) = Service::start(&base, gone);
    let server = format!("rollout.server={{ url = \"{url}\", retries = 0 }}");
    let more = ["rollout.max_staleness=1", "train.max_steps=3", "train.save_steps=1", &server];
    let recipe = recipe(place.path(), &url, "died", &more);
    let error = run(&recipe, false, &mut |_| {}).expect_err("no completions").to_string();
    assert!(error.starts_with("rollout.server: prompt "), "{error}");
    assert!(error.contains("/v1/completions: no reply to 1 requests, last: "), "{error}");
    let run = place.path().join("died");
    assert!(run.join("checkpoint-1").is_dir() && !run.join("checkpoint-2").exists());
    GONE.store(false, Ordering::SeqCst);
    quiet(&recipe, true);
    let steps: Vec<u64> = trained(&run).iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [1, 2, 3].map(|step| [step; COMPLETIONS]).concat());
}

/// A run that ends in the middle does not wait for what it has asked for ahead.
#[test]
fn a_run_that_fails_does_not_wait_for_replies() {
    let (place, base) = based();
    let (url, service) = Service::start(&base, |_| Fate::Answer);
    service.answered.store(PROMPTS, Ordering::SeqCst);
    let recipe = recipe(place.path(), &url, "failed", &["rollout.max_staleness=1", "train.max_steps=3"]);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run(&recipe, false, &mut |event| {
            if let Event::Step { .. } = event {
                arrived(&service, 2 * PROMPTS);
                panic!("interrupted on purpose");
            }
        })
    }));
    assert!(outcome.is_err());
    // Had it waited, requests would be late by now, and sent again.
    assert_eq!(service.requests.load(Ordering::SeqCst), 2 * PROMPTS);
    service.answered.store(usize::MAX, Ordering::SeqCst);
}

/// Interrupted anywhere, a run trains on the prompts of one that was not, on each once; what was asked for ahead is asked for anew.
#[test]
fn what_was_sampled_ahead_of_an_interruption_is_sampled_anew() {
    let (place, base) = based();
    let (url, _) = Service::start(&base, |_| Fate::Answer);
    let more = [&TWO_STEPS[..], &["train.max_steps=6", "train.save_steps=1"]].concat();
    quiet(&recipe(place.path(), &url, "whole", &more), false);
    let broken = recipe(place.path(), &url, "broken", &more);
    let mut interruptions = 0;
    while until(&broken, 3 + interruptions).is_none() {
        interruptions += 1;
        assert!(interruptions < 60, "it gets on");
    }
    assert!(interruptions > 3, "{interruptions}");
    let [whole, broken] = ["whole", "broken"].map(|out| place.path().join(out));
    let prompts = |run: &Path| -> Vec<[Value; 3]> {
        trained(run).iter().map(|line| ["step", "group", "record"].map(|key| line[key].clone())).collect()
    };
    assert_eq!(prompts(&whole).len(), 3 * COMPLETIONS);
    assert_eq!(prompts(&whole), prompts(&broken));
    for run in [&whole, &broken] {
        let rounds = sampled(run);
        assert_eq!(rounds.len(), 3);
        assert!(rounds.iter().all(|line| number(line, "sampling/staleness/max") <= 1.0));
        assert!((number(&rounds[2], "num_completions") - 3.0 * COMPLETIONS as f64).abs() < 1e-9);
    }
}

/// A filter judges what was sampled ahead, and takes what is missing from the newest weights.
#[test]
fn a_filter_fills_a_round_that_was_sampled_ahead() {
    let (place, base) = based();
    let (url, service) = Service::start(&base, |_| Fate::Answer);
    let more = [
        "rollout.max_staleness=1",
        "rollout.num_generations=8",
        "rollout.filter={ low = 0.3, high = 0.7, max_attempts = 3 }",
        "train.max_steps=5",
    ];
    quiet(&recipe(place.path(), &url, "filtered", &more), false);
    let run = place.path().join("filtered");
    let (samples, versions) = (trained(&run), service.versions.lock().expect("no panic"));
    assert_eq!(samples.len(), 5 * COMPLETIONS);
    let (mut asked, mut filled) = (0.0, 0.0);
    for (round, line) in sampled(&run).iter().enumerate() {
        let ages: Vec<usize> = samples
            .iter()
            .filter(|sample| sample["step"] == line["step"])
            .map(|sample| {
                let name = |name: &String| sample["version"] == name.as_str();
                round - versions.iter().position(name).expect("was loaded")
            })
            .collect();
        assert!(ages.len() == COMPLETIONS && ages.iter().all(|age| *age <= 1), "{ages:?}");
        let mean = ages.iter().sum::<usize>() as f64 / COMPLETIONS as f64;
        assert!((mean - number(line, "sampling/staleness/mean")).abs() < 1e-12, "{line}");
        filled += if round > 0 { 1.0 - mean } else { 0.0 };
        asked += number(line, "filter/prompts");
        assert!((number(line, "num_completions") - 8.0 * asked).abs() < 1e-9);
    }
    assert!(filled > 0.0, "some round was filled");
    assert!((service.requests.load(Ordering::SeqCst) as f64 - asked).abs() < 1e-9, "each prompt once");
}
