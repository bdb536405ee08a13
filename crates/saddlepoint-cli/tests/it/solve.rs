//! `saddle solve` on problems from files.

use crate::saddle::Place;

const BUDGET: &str = include_str!("../../../../examples/problems/budget.toml");
const HS6: &str = include_str!("../../../../fuzz/corpus/sif/good-hs6");

#[test]
fn a_problem_of_formulas_is_solved_and_told() {
    let place = Place::new();
    place.write("budget.toml", BUDGET);
    let ended = place.saddle(&["solve", "budget.toml", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let out = &ended.objects()[0];
    assert_eq!(out["status"], "optimal");
    assert!((out["duals"]["budget"].as_f64().expect("a number") - 2.0).abs() < 1e-5, "{out}");
    assert!((out["x"][0].as_f64().expect("a number") - 1.0).abs() < 1e-6, "{out}");
    assert_eq!(out["kkt"].as_object().expect("an object").len(), 3);
    let ended = place.saddle(&["solve", "budget.toml", "--log"]);
    assert!(
        ended.code == 0 && ended.stdout.contains("optimal") && ended.stdout.contains("budget"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("stationarity"), "{ended:?}");
}

#[test]
fn a_sif_file_is_solved_in_two_parts_as_in_one() {
    let place = Place::new();
    place.write("HS6.SIF", HS6);
    for method in ["interior-point", "sketched-newton"] {
        let solve = |more: &[&str]| {
            place.saddle(&[&["solve", "HS6.SIF", "--method", method, "--json"], more].concat())
        };
        let whole = solve(&[]);
        assert_eq!(whole.code, 0, "{whole:?}");
        let part = solve(&["--iterations", "2", "--save", "state.json"]);
        assert_eq!((part.code, &part.objects()[0]["status"]), (1, &"iteration_limit".into()), "{part:?}");
        let rest = solve(&["--resume", "state.json"]);
        assert_eq!((rest.code, &rest.objects()[0]["x"]), (0, &whole.objects()[0]["x"]), "{rest:?}");
    }
    let other = place.saddle(&["solve", "HS6.SIF", "--resume", "state.json"]);
    assert!(other.code == 2 && other.stderr.contains("give --method sketched-newton"), "{other:?}");
}

#[test]
fn what_cannot_be_solved_says_where_and_why() {
    let place = Place::new();
    place.write("odd.toml", BUDGET.replace("x + y", "x + z"));
    place.write("bad.SIF", HS6.replace("BOUNDS", "BUNDS"));
    place.write("never.toml", BUDGET.replace("upper = 1.0", "upper = 1.0, lower = 2.0"));
    place.write("free.toml", "minimize = \"x\"\n[variables]\nx = { start = 0.0 }\n");
    for (file, code, told) in [
        ("odd.toml", 2, "odd.toml: the problem: constraints.budget, character 5: z is not known here"),
        ("bad.SIF", 2, "unknown section `BUNDS`"),
        ("never.toml", 2, "limits [2, 1] of constraint `budget` hold for no number"),
        ("none.SIF", 2, "cannot read none.SIF"),
        ("free.toml", 1, "unbounded"),
    ] {
        let ended = place.saddle(&["solve", file]);
        assert_eq!(ended.code, code, "{file}: {ended:?}");
        assert!((ended.stderr + &ended.stdout).contains(told), "{file}: {told}");
    }
    let listed = place.saddle(&["solve", "--list", "--json"]);
    assert!(listed.code == 0 && listed.objects().len() >= 5, "{listed:?}");
}
