//! `saddle solve dag`.

use std::fmt::Write as _;

use crate::saddle::Place;

/// A chain `a -> b -> c` and `d` by itself, with noise that no two rows share.
fn chain() -> String {
    let noise = |r: u64, j: u64| {
        let mixed = (r * 4 + j)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(31)
            .wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0
    };
    let mut text = "a,b,c,d\n".to_owned();
    for r in 0..400 {
        let a = noise(r, 0);
        let b = 1.5 * a + noise(r, 1);
        let c = -1.2 * b + noise(r, 2);
        let _ = writeln!(text, "{a},{b},{c},{}", noise(r, 3));
    }
    text
}

#[test]
fn a_graph_is_found_told_and_drawn() {
    let place = Place::new();
    place.write("chain.csv", chain());
    place.write("true.txt", "a -> b\nb --> c\n");
    let ended = place.saddle(&[
        "solve",
        "dag",
        "--data",
        "chain.csv",
        "--truth",
        "true.txt",
        "--dot",
        "g.dot",
        "--svg",
        "g.svg",
        "--json",
    ]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let out = &ended.objects()[0];
    let edges: Vec<String> = out["edges"]
        .as_array()
        .expect("edges")
        .iter()
        .map(|edge| format!("{}{}", edge["from"], edge["to"]).replace('"', ""))
        .collect();
    assert_eq!(edges, ["ab", "bc"], "{out}");
    assert_eq!((&out["metrics"]["shd"], &out["kkt"]["violations"]), (&0.into(), &0.into()), "{out}");
    assert_eq!(out["finished"], true);
    assert!(out["standardised"]["edges"].is_array(), "{out}");
    assert_eq!(place.names(), ["chain.csv", "g.dot", "g.svg", "true.txt"]);
    let dot = std::fs::read_to_string(place.path("g.dot")).expect("a file");
    assert!(dot.contains("\"a\" -> \"b\""), "{dot}");
    let told =
        place.saddle(&["solve", "dag", "--data", "chain.csv", "--truth", "true.txt", "--svg", "g.svg"]);
    for part in ["4 nodes, 400 samples, 2 edges of weight 0.3 or more", "KKT residual", "SHD", "wrote g.svg"]
    {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
}

#[test]
fn every_method_score_and_start_runs() {
    let place = Place::new();
    place.write("chain.csv", chain());
    let labels: String = chain()
        .lines()
        .map(|line| {
            let sign = |word: &str| if word.starts_with('-') { "0" } else { "1" };
            let words: Vec<&str> = line.split(',').collect();
            let names = words.iter().all(|word| word.len() == 1);
            if names {
                format!("{line}\n")
            } else {
                words.iter().map(|w| sign(w)).collect::<Vec<_>>().join(",") + "\n"
            }
        })
        .collect();
    place.write("labels.csv", labels);
    for more in [
        &["--method", "notears"][..],
        &["--method", "dagma", "--lambda", "0.02"],
        &["--method", "notears", "--score", "lasso"],
        &["--score", "lasso", "--lambda", "0.02", "--restarts", "3", "--seed", "5"],
        &["--score", "least_squares", "--start", "notears"],
        &["--start", "dagma", "--scale", "standardise"],
        &["--start", "variance", "--small", "2", "--large", "6", "--rescues", "0"],
        &["--start", "columns", "--scale", "none", "--threshold", "0.1"],
        &["--score", "nonlinear", "--hidden", "3"],
    ] {
        let ended = place.saddle(&[&["solve", "dag", "--data", "chain.csv", "--json"], more].concat());
        assert_eq!(ended.code, 0, "{more:?} {ended:?}");
        assert_eq!(ended.objects()[0]["nodes"], 4);
    }
    let ended = place.saddle(&["solve", "dag", "--data", "labels.csv", "--score", "logistic", "--json"]);
    assert_eq!((ended.code, &ended.objects()[0]["scale"]), (0, &"none".into()), "{ended:?}");
}

#[test]
fn what_does_not_go_together_and_bad_tables_are_told() {
    let place = Place::new();
    place.write("chain.csv", chain());
    place.write("bad.csv", "a,b\n1,2\n3,?\n");
    place.write("true.txt", "a -> z\n");
    let dag = |more: &[&'static str]| [&["solve", "dag"], more].concat();
    for (more, told) in [
        (&["--data", "none.csv"][..], "none.csv: cannot be read: No such file or directory (os error 2)"),
        (
            &["--data", "bad.csv"],
            "bad.csv:3: column 2 (`b`): expected a finite number, got `?`; leave rows with missing values out",
        ),
        (
            &["--data", "chain.csv", "--truth", "true.txt"],
            "true.txt:1: there is no column `z`; there are a, b, c, d",
        ),
        (
            &["--data", "chain.csv", "--method", "notears", "--score", "logistic"],
            "--method notears has least squares alone, and --score is logistic; use --method topo",
        ),
        (
            &["--data", "chain.csv", "--lambda", "0.1"],
            "--lambda with --score least-squares, which has no penalty; use --score lasso",
        ),
        (
            &["--data", "chain.csv", "--score", "logistic", "--scale", "centre"],
            "--scale centre with --score logistic, which takes columns of 0 and 1; leave --scale out",
        ),
        (
            &["--data", "chain.csv", "--start", "columns", "--restarts", "2"],
            "--restarts is for --start random; the other starts are one order",
        ),
        (&["--data", "chain.csv", "--threshold", "NaN"], "--threshold must be at least 0"),
        (&["--data", "chain.csv", "--small", "7"], "small: must be in 1..=6 for 4 nodes, got 7"),
    ] {
        place.refuses(&dag(more), told);
    }
    let ended = place.saddle(&dag(&["--data", "chain.csv", "--score", "logistic"]));
    assert!(
        ended.code == 2 && ended.stderr.contains("the logistic score takes columns of 0 and 1"),
        "{ended:?}"
    );
    let ended = place.saddle(&["solve", "dag"]);
    assert!(ended.code == 2 && ended.stderr.contains("--data <FILE.csv>"), "{ended:?}");
}

#[test]
fn a_file_with_the_name_of_an_application_is_still_a_problem() {
    let place = Place::new();
    place.write("dag.toml", include_str!("../../../../examples/problems/budget.toml"));
    let ended = place.saddle(&["solve", "dag.toml", "--json"]);
    assert_eq!((ended.code, &ended.objects()[0]["status"]), (0, &"optimal".into()), "{ended:?}");
}
