//! Bad input: the message says what, where and what to do, and nothing is left half-written.

use crate::saddle::Place;

#[test]
fn a_report_needs_a_run() {
    let place = Place::new();
    place.refuses(&["report", "nowhere"], "nowhere: no config.toml; not a run directory");
    assert!(place.names().is_empty());
}

#[test]
fn a_report_names_the_broken_line_of_a_run() {
    let place = Place::new();
    place.write("run/config.toml", "seed = 1\n");
    place.write("run/metrics.jsonl", "{\"step\":1,\"loss\":2}\n{\"step\":2,\n{\"step\":3}\n");
    let ended = place.saddle(&["report", "run"]);
    assert_eq!(ended.code, 2);
    assert_eq!(
        ended.stderr,
        "saddle: run/metrics.jsonl: line 2: EOF while parsing an object at line 1 column 10\n"
    );
    assert_eq!(crate::saddle::names(&place.path("run")), ["config.toml", "metrics.jsonl"]);
}
