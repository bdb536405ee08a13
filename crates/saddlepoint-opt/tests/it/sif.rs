//! CUTEst's problems: a sample of the table here, the whole of it by `examples/sif_table.rs`.

use proptest::prelude::*;
use saddlepoint_core::test::{corpus, data};
use saddlepoint_opt::problem::{Constrained as _, Objective as _};
use saddlepoint_opt::problems::sif::{self, Known};

const TABLE: &str = include_str!("../golden/sif.csv");

#[test]
fn problems_have_their_known_sizes_values_and_derivatives() {
    let Some(folder) = data("opt/sif") else { return };
    let known = Known::table(TABLE).expect("a table of problems");
    assert_eq!(known.len(), 1089);
    let (mut same, mut differ) = (0, Vec::new());
    // Every eleventh of those that are small, and those with the most unusual features.
    let unusual =
        ["HS6", "LUKVLE8", "SSEBNLN", "QPBAND", "FERRISDC", "TARGUS", "MGH10LS", "DJTL", "CHANDHEULS", "AGG"];
    let chosen = known
        .iter()
        .enumerate()
        .filter(|(i, row)| (i % 11 == 0 && row.variables <= 200) || unusual.contains(&row.name.as_str()));
    for (_, row) in chosen {
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{}.SIF", row.name))) else { continue };
        let found = sif::read(&text).map_err(|error| error.to_string()).and_then(|problem| {
            problem.difference(row).map_or(Ok(()), Err)?;
            problem.check_derivatives().map(|_| ())
        });
        match found {
            Ok(()) => same += 1,
            Err(reason) => differ.push(format!("{}: {reason}", row.name)),
        }
    }
    assert!(same >= 60 && differ.len() * 20 <= same, "{same} as known; {differ:#?}");
}

fn seed(name: &str) -> String {
    std::fs::read_to_string(&corpus("sif")[name]).expect("readable")
}

#[test]
fn the_corpus_of_the_fuzzer_is_read_or_refused() {
    let files = corpus("sif");
    assert!(files.len() >= 8);
    for (name, path) in files {
        let result = sif::read(&std::fs::read_to_string(path).expect("readable"));
        assert_eq!(result.is_ok(), name.starts_with("good-"), "{name}: {result:?}");
    }
}

#[test]
fn a_file_is_read_with_everything_that_it_says() {
    let problem = sif::read(&seed("good-every-section")).expect("a valid file");
    assert_eq!((problem.name(), problem.dim()), ("EVERY", 3));
    // (x1 − x2)² + 3 (2 x3² − 1) + x1² / 2 at (1, −2, 0.5).
    assert!((problem.value(problem.start()) - (9.0 + 3.0 * -0.5 + 0.5)).abs() < 1e-14);
    let mut c = [0.0; 2];
    problem.residuals(problem.start(), &mut c);
    assert!((c[0] - 5.0 * (1.0 + -2.0 - 4.0)).abs() < 1e-14 && (c[1] - 18.0).abs() < 1e-14, "{c:?}");
    let limits: Vec<(f64, f64)> = problem.constraints().iter().map(|c| (c.lower, c.upper)).collect();
    assert_eq!(limits, [(0.0, 0.0), (-7.0, 0.0)]);
    assert_eq!(problem.check_derivatives(), Ok(true));
    assert_eq!(problem.faults_of_given_derivatives(&[0.4, -0.3, 1.2], 1e-12), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text = seed("good-every-section");
    for (from, to, message) in [
        ("NAME          EVERY", "NOME", "line 2, column 2: a problem starts with NAME"),
        ("BOUNDS", "BUNDS", "line 24, column 2: unknown section `BUNDS`"),
        (
            "X1        1.0            X2        1.0",
            "X9        1.0",
            "line 16, column 15: there is no variable `X9`",
        ),
        (
            "F                      V * V",
            "F                      V * W",
            "line 74, column 29: W is not known here",
        ),
        (
            "F                      V * V",
            "F                      V * ",
            "line 74, column 28: the expression ends where a value",
        ),
        (
            "IE N                   3",
            "IE N                   3.5",
            "line 4, column 25: `3.5` is not an integer",
        ),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from} is not in the file");
        let told = sif::read(&changed).expect_err(to).to_string();
        assert!(told.starts_with(message), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Lines removed, repeated and exchanged, characters changed: a problem or an error, never a panic.
    #[test]
    fn a_mutated_file_is_read_or_refused(
        edits in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<char>()), 1..6),
    ) {
        let text = seed("good-every-section");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (kind, a, b, c) in edits {
            if lines.is_empty() {
                break;
            }
            let i = a.index(lines.len());
            match kind {
                0 => drop(lines.remove(i)),
                1 => { let line = lines[b.index(lines.len())].clone(); lines.insert(i, line); }
                _ => {
                    let mut characters: Vec<char> = lines[i].chars().collect();
                    let at = b.index(characters.len() + 1);
                    if at < characters.len() { characters[at] = c } else { characters.push(c) }
                    lines[i] = characters.into_iter().collect();
                }
            }
        }
        if let Ok(problem) = sif::read(&lines.join("\n")) {
            let _ = problem.value(problem.start());
            let _ = problem.check_derivatives();
        }
    }
}
