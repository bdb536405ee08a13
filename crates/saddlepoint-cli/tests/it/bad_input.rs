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
    place.refuses(
        &["report", "run"],
        "run/metrics.jsonl:2: EOF while parsing a value; the file was changed from outside: restore it or start \
         a new run",
    );
    assert_eq!(crate::saddle::names(&place.path("run")), ["config.toml", "metrics.jsonl"]);
}
