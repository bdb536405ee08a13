//! A run that is killed again and again and resumed ends with the bytes of the one that was not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use saddlepoint_core::clock::Stopwatch;

use crate::saddle::Place;
use crate::train;

/// Kills that hit a running process.
const KILLS: u32 = 20;

/// A recipe of two stages, each with its own run: `base`, and the one named here.
#[derive(Clone, Copy)]
struct Stages {
    arguments: &'static [&'static str],
    second: &'static str,
    /// The checkpoint after which the second run ends.
    last: &'static str,
}

impl Stages {
    fn runs(self) -> [&'static str; 2] {
        ["base", self.second]
    }
}

/// The files of a run in which nothing but its recipe shows: no times and no memory.
const SAME: [&str; 4] = ["metrics.jsonl", "samples.jsonl", "model/model.safetensors", "model/config.json"];

const PAIRS: Stages = Stages {
    arguments: &["train", "pairs.toml", "--set", "train.max_steps=120", "--set", "train.save_steps=10"],
    second: "pairs",
    last: "checkpoint-120",
};

/// Its rounds have four steps, so that checkpoints lie within them.
const REWARDS: Stages =
    Stages { arguments: &["train", "rewards.toml"], second: "rewards", last: "checkpoint-90" };

/// What the processes were doing when they were killed, by what they left on the disk.
const PHASES: [&str; 4] = ["sampling before the first step", "training", "writing a checkpoint", "ending"];

fn names(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What the process that works, or worked, in the folder of a run does; nothing if there is none.
fn phase(run: &Path, stages: Stages) -> Option<&'static str> {
    let names = names(run);
    let there = |name: &str| names.iter().any(|known| known == name);
    let last = if run.ends_with("base") { "checkpoint-20" } else { stages.last };
    if there("summary.json") || !there("config.toml") {
        None
    } else if names.iter().any(|name| name.starts_with("checkpoint-") && name.contains(".partial-")) {
        Some(PHASES[2])
    } else if !there("before.json") {
        Some(PHASES[0])
    } else if there(last) {
        Some(PHASES[3])
    } else {
        Some(PHASES[1])
    }
}

/// Waits until a run of the place is in a phase; false if the process ended before.
fn reaches(place: &Place, child: &mut Child, stages: Stages, wanted: &str) -> bool {
    while child.try_wait().expect("a child").is_none() {
        if stages.runs().iter().any(|run| phase(&place.path(run), stages) == Some(wanted)) {
            return true;
        }
        thread::sleep(Duration::from_micros(20));
    }
    false
}

#[track_caller]
fn same(calm: &Place, killed: &Place, stages: Stages) {
    for run in stages.runs() {
        for file in SAME {
            let [a, b] = [calm, killed].map(|p| fs::read(p.path(run).join(file)).expect(file));
            assert!(a == b, "{run}/{file} differs");
        }
        let half = names(&killed.path(run)).into_iter().find(|name| name.contains(".partial-"));
        assert_eq!(half, None);
    }
}

#[test]
fn slow_twenty_kills_leave_no_trace() {
    killed_and_resumed(PAIRS);
}

#[test]
fn slow_twenty_kills_leave_no_trace_of_rounds() {
    killed_and_resumed(REWARDS);
}

fn place() -> Place {
    let place = train::place();
    place.write("rewards.toml", train::REWARDS);
    place
}

fn killed_and_resumed(stages: Stages) {
    let (arguments, resumed) = (stages.arguments, [stages.arguments, &["--resume"]].concat());
    let calm = place();
    let watch = Stopwatch::start();
    let whole = calm.saddle(arguments);
    let seconds = watch.seconds();
    assert_eq!(whole.code, 0, "{}", whole.stderr);

    let place = place();
    let mut hits: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut killed, mut tried, mut ended) = (0, 0_u32, 0);
    while killed < KILLS || PHASES.iter().any(|phase| !hits.contains_key(phase)) {
        tried += 1;
        assert!(tried <= 10 * KILLS, "{killed} of {tried} kills hit a running process: {hits:?}");
        let mut command = place.command(&resumed);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        // Every other kill comes at any time, the others while something short goes on.
        if tried % 2 == 0 {
            reaches(&place, &mut child, stages, PHASES[[0, 2, 3][tried as usize / 2 % 3]]);
        } else {
            let share = 0.03 + 0.57 * f64::from(tried * 37 % 100) / 100.0;
            thread::sleep(Duration::from_secs_f64(share * seconds));
        }
        child.kill().expect("SIGKILL");
        if child.wait().expect("an end").success() {
            // It was complete before it could be killed; the next kills hit another one.
            same(&calm, &place, stages);
            ended += 1;
            for run in stages.runs() {
                fs::remove_dir_all(place.path(run)).expect("a run");
            }
        } else {
            killed += 1;
            if let Some(phase) = stages.runs().iter().find_map(|run| phase(&place.path(run), stages)) {
                *hits.entry(phase).or_default() += 1;
            }
        }
    }
    let last = place.saddle(&resumed);
    assert_eq!(last.code, 0, "{}", last.stderr);
    same(&calm, &place, stages);
    eprintln!("{killed} kills over {} whole runs of {seconds:.1} s: {hits:?}", ended + 1);
}
