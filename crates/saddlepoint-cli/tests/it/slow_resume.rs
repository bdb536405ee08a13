//! A run that is killed again and again and resumed ends with the bytes of the one that was not.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use saddlepoint_core::clock::Stopwatch;

use crate::saddle::names;
use crate::train;

/// Kills that hit a running process.
const KILLS: u32 = 20;

/// The files of a run in which nothing but its recipe shows: no times and no memory.
const SAME: [&str; 4] = ["metrics.jsonl", "samples.jsonl", "model/model.safetensors", "model/config.json"];

#[test]
fn slow_twenty_kills_leave_no_trace() {
    let calm = train::place();
    let long = ["--set", "train.max_steps=120", "--set", "train.save_steps=10"];
    let arguments = |resume: &'static [&'static str]| [&["train", "pairs.toml"][..], &long, resume].concat();
    let watch = Stopwatch::start();
    let whole = calm.saddle(&arguments(&[]));
    let seconds = watch.seconds();
    assert_eq!(whole.code, 0, "{}", whole.stderr);

    let place = train::place();
    let (mut killed, mut tried) = (0, 0);
    while killed < KILLS {
        tried += 1;
        assert!(tried <= 10 * KILLS, "{killed} of {tried} kills hit a running process");
        // From 3 to 60 % of the whole run: some hit its start, some a checkpoint, some its end.
        let share = 0.03 + 0.57 * f64::from(tried * 37 % 100) / 100.0;
        let mut child = place.command(&arguments(&["--resume"]));
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        thread::sleep(Duration::from_secs_f64(share * seconds));
        child.kill().expect("SIGKILL");
        if child.wait().expect("an end").success() {
            // It was complete before it could be killed; the next kills hit another one.
            fs::remove_dir_all(place.path("pairs")).expect("a run");
        } else {
            killed += 1;
        }
    }
    let ended = place.saddle(&arguments(&["--resume"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for file in SAME {
        let [a, b] = [&calm, &place].map(|p| fs::read(p.path("pairs").join(file)).expect(file));
        assert!(a == b, "{file} differs");
    }
    for run in ["base", "pairs"] {
        let left = names(&place.path(run)).into_iter().find(|name| name.contains(".partial-"));
        assert_eq!(left, None);
    }
}
