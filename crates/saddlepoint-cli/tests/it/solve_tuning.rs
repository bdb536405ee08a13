//! The front ends of `saddle solve` that choose hyperparameters.

use std::fmt::Write as _;

use serde_json::Value;

use crate::saddle::Place;

/// Two classes of points that overlap, label first; `f64`s of no pattern, the same on every machine.
fn points(count: usize, features: usize) -> Vec<Vec<f64>> {
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let point = |_| {
        let label = if next() > 0.0 { 1.0 } else { -1.0 };
        std::iter::once(label).chain((0..features).map(|_| 0.3 * label + next())).collect()
    };
    (0..count).map(point).collect()
}

fn libsvm(points: &[Vec<f64>]) -> String {
    let line = |point: &Vec<f64>| {
        let features = point[1..].iter().enumerate().map(|(j, value)| format!(" {}:{value}", j + 1));
        format!("{}{}\n", point[0], features.collect::<String>())
    };
    points.iter().map(line).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn weights_of_a_machine_are_chosen_and_its_multipliers_named() {
    let place = Place::new();
    let points = points(150, 2);
    place.write("points.txt", libsvm(&points));
    let solve = |more: &[&str]| {
        let arguments = ["solve", "svm-hyperparameters", "--data", "points.txt", "--weights", "class"];
        place.saddle(&[&arguments, more].concat())
    };
    let ended = solve(&["--method", "implicit", "--json"]);
    let out = &ended.objects()[0];
    // The held-out loss has kinks, and no gradient at them.
    assert_eq!(ended.code, i32::from(out["status"] != "optimal"), "{ended:?}");
    assert_eq!(out["method"], "implicit");
    assert!(number(&out["kkt"]["stationarity"]) < 1e-6, "{out}");
    let names: Vec<&String> = out["hyperparameters"].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["class -1", "class 1"]);
    let loss = |model: &str| number(&out[model]["held_out"]["loss"]);
    assert!(loss("retrained") <= loss("start"), "{out}");
    // The intercept's condition: the multipliers of both classes sum to the same.
    let balance: f64 = out["duals"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, value)| {
            let row: usize = name.strip_prefix("example ").and_then(|row| row.parse().ok()).expect("a row");
            number(value) * points[row - 1][0]
        })
        .sum();
    assert!(balance.abs() < 1e-5, "{balance}");
    // The same bytes again, but for the time.
    let again = solve(&["--method", "implicit", "--json", "--threads", "1"]).objects().remove(0);
    assert_eq!((&again["w"], &again["hyperparameters"]), (&out["w"], &out["hyperparameters"]));
    let ordered = solve(&["--method", "implicit", "--json", "--in-order"]).objects().remove(0);
    let first = ordered["duals"].as_object().expect("an object").keys().next();
    assert_eq!(first.map(String::as_str), Some("example 1"));
    // Settings are the method's.
    let steps = |set: &str| {
        let ended = solve(&["--method", "lv-hba", "--set", set, "--iterations", "5", "--json"]);
        ended.objects()[0]["model"].to_string()
    };
    assert!(steps("alpha=0.001") != steps("alpha=0.002"));
    // A run that is cut short is told as such, with what it found.
    let ended = solve(&["--iterations", "3", "--log"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    for told in ["iteration limit", "projected hyper-gradient", "trained to the end", "example", "class -1"] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
    assert_eq!(ended.stderr.lines().filter(|line| line.contains("stationarity")).count(), 3, "{ended:?}");
}

#[test]
fn every_method_chooses_penalties_of_ridge() {
    let place = Place::new();
    let mut table = "size,price,age\n".to_owned();
    for point in points(150, 2) {
        let (size, age) = (point[1], point[2]);
        writeln!(table, "{size},{},{age}", 3.0 * size + 0.2 * point[0]).expect("a string grows");
    }
    place.write("houses.csv", table);
    let mut losses = Vec::new();
    for method in ["lv-hba", "penalty-bilevel", "f2sa", "implicit", "unrolled"] {
        let arguments = ["--data", "houses.csv", "--label", "price", "--standardise", "--shared", "--json"];
        let arguments = [&["solve", "ridge", "--method", method][..], &arguments].concat();
        let ended = place.saddle(&arguments);
        let out = &ended.objects()[0];
        let w: Vec<&String> = out["w"].as_object().expect("an object").keys().collect();
        assert_eq!(w, ["size", "age"]);
        assert_eq!(out["hyperparameters"].as_object().expect("an object").len(), 1);
        assert!(out["retrained"]["test"]["accuracy"].is_null() && out["duals"].as_object().is_some());
        losses.push(number(&out["retrained"]["held_out"]["loss"]));
        assert!(losses.last() <= Some(&number(&out["start"]["held_out"]["loss"])), "{method}: {out}");
    }
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    // Penalties leave a bias.
    assert!(losses.iter().all(|loss| *loss < 1.1 * best), "{losses:?}");
}

#[test]
fn labels_that_were_turned_lose_their_weight() {
    let place = Place::new();
    // With many features a weight can be told from its neighbours'.
    place.write("points.txt", libsvm(&points(200, 40)));
    let arguments = ["solve", "hyper-cleaning", "--data", "points.txt", "--train", "100", "--flip", "0.3"];
    let ended = place.saddle(&[&arguments[..], &["--json"]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let out = &ended.objects()[0];
    let turned = out["flipped"].as_array().expect("a list").len();
    assert!((15..45).contains(&turned), "{turned}");
    assert!(number(&out["separation"]) > 0.9, "{}", out["separation"]);
    let ended = place.saddle(&arguments);
    assert!(ended.stdout.contains("lightest") && ended.stdout.contains("labels were turned"), "{ended:?}");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let place = Place::new();
    place.write("one.txt", "1 1:2\n1 1:3\n1 1:4\n1 1:5\n1 1:6\n");
    place.write("bad.txt", "1 1:2\n-1 x:3\n");
    place.write("bad.csv", "a,b\n1,\n");
    place.write("few.csv", "a,b\n1,2\n");
    let front = |arguments: &[&'static str]| [&["solve"], arguments].concat();
    for (arguments, message) in [
        (&["ridge", "--data", "none.csv"][..], "none.csv: No such file or directory (os error 2)"),
        (
            &["ridge", "--data", "bad.csv"],
            "bad.csv:2: column `b`: it is empty; fill it in or leave the line out",
        ),
        (
            &["hyper-cleaning", "--data", "bad.txt"],
            "bad.txt:2:4: the index before `:` must be a whole number from 1, got `x`",
        ),
        (
            &["ridge", "--data", "few.csv"],
            "the problem: cannot take 0 examples for training and 0 to choose by out of 1",
        ),
        (
            &["svm-hyperparameters", "--data", "one.txt"],
            "the problem: a classifier needs two different labels, the data have 1",
        ),
        (
            &["hyper-cleaning", "--data", "one.txt", "--flip", "2"],
            "--flip must be a probability in [0, 1], got 2",
        ),
        (
            &["--tolerance", "1", "ridge", "--data", "one.txt"],
            "options before the application are those of saddle solve FILE; put options after its name",
        ),
    ] {
        place.refuses(&front(arguments), message);
    }
    let ended = place.saddle(&front(&["ridge", "--data", "one.txt", "--start", "9"]));
    assert!(
        ended.code == 2 && ended.stderr.ends_with("saddle: start: must be in [-12, 6], got 9\n"),
        "{ended:?}"
    );
    let ended =
        place.saddle(&front(&["ridge", "--data", "one.txt", "--method", "lv-hba", "--set", "alpa=1"]));
    assert!(ended.code == 2 && ended.stderr.contains("did you mean alpha"), "{ended:?}");
    let ended = place.saddle(&front(&["ridge", "--data", "one.txt", "--method", "lv_hba"]));
    assert!(ended.code == 2 && ended.stderr.contains("'lv-hba'"), "{ended:?}");
    let ended = place.saddle(&front(&["--json", "ridge", "--data", "bad.csv"]));
    assert!(ended.code == 2 && ended.stderr.contains("bad.csv:2"), "{ended:?}");
}
