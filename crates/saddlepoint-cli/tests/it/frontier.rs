//! `saddle frontier`: sweeps and runs that are there.

use serde_json::Value;

use crate::train::place;

const SWEEP: [&str; 7] =
    ["frontier", "--recipe", "pairs.toml", "--sweep", "tether.budget=0.5,5", "--best-of", "4"];

#[test]
fn a_sweep_is_run_once_and_drawn_with_the_best_of_n() {
    let place = place();
    let first = place.saddle(&[&SWEEP[..], &["--json"]].concat());
    assert_eq!(first.code, 0, "{}", first.stderr);
    let [ref drawn] = first.objects()[..] else { panic!("one object: {}", first.stdout) };
    let points = drawn["points"].as_array().expect("points");
    let budgets: Vec<f64> = points.iter().filter_map(|point| point["budget"].as_f64()).collect();
    assert!(budgets.contains(&0.5) && budgets.contains(&5.0) && points.len() == 2, "{drawn}");
    for point in points {
        let inside = |value: &str, ends: &str| {
            let of = |value: &Value| value.as_f64().expect("a number");
            let (value, ends) = (of(&point[value]), &point[ends]);
            assert!(of(&ends[0]) <= value && value <= of(&ends[1]), "{point}");
        };
        inside("divergence", "divergence_interval");
        inside("reward", "reward_interval");
    }
    let best = drawn["best_of"].as_array().expect("a curve");
    let rewards: Vec<f64> = best.iter().filter_map(|best| best["reward"].as_f64()).collect();
    assert_eq!(best.iter().filter_map(|best| best["n"].as_u64()).collect::<Vec<_>>(), [1, 2, 4]);
    assert!(rewards.is_sorted() && best[0]["divergence"] == 0.0, "{drawn}");
    let page = std::fs::read_to_string(place.path("runs/frontier/frontier.html")).expect("a page");
    assert!(page.contains("best of N") && page.contains("<circle"));

    // What is there is read, not run again.
    let again = place.saddle(&[&SWEEP[..], &["--json"]].concat());
    assert_eq!((again.code, again.objects()), (0, first.objects()));
    let runs = ["runs/frontier/tether.budget=0.5", "runs/frontier/tether.budget=5"];
    let read = place.saddle(&["frontier", runs[0], runs[1], "--metric", "rewards/accuracies", "--json"]);
    let object = &read.objects()[0];
    assert_eq!(object["reward"], "held-out rewards/accuracies");
    assert!(object["points"][0]["reward_interval"].is_null() && object["best_of"] == serde_json::json!([]));
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let place = place();
    assert_eq!(place.saddle(&["train", "base.toml"]).code, 0);
    for (arguments, message) in [
        (&["frontier"][..], "saddle: nothing to draw: give run directories, or --recipe with --sweep\n"),
        (&["frontier", "base"], "saddle: base: has no [tether], so its divergence is not known\n"),
        (&["frontier", "nowhere"], "saddle: nowhere: no config.toml; not a run directory\n"),
        (&["frontier", "--recipe", "pairs.toml", "--sweep", "5"], "saddle: --sweep 5: write KEY=V1,V2,...\n"),
    ] {
        let ended = place.saddle(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (2, message));
    }
}
