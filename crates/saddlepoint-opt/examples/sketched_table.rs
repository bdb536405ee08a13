//! The 47 problems of CUTEst and the regressions of the paper on sketched Newton steps, with every way to solve the linear systems, and the page that
//! compares them with the released runs.
//!
//! ```sh
//! cargo run --release -p saddlepoint-opt --example sketched_table -- ../shared/data/opt docs/sketched-newton.md
//! ```
//!
//! The folder has `sif/NAME.SIF` and `libsvm/{a9a,agaricus.txt.train}`.
#![allow(clippy::print_stderr, reason = "a program, not a library")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rand_distr::{Distribution as _, StandardNormal};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::examples::{self, Examples};
use saddlepoint_opt::linalg::{add_scaled, dot, norm, scale};
use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problem::{Curved, Problem, eq, minimize};
use saddlepoint_opt::problems::sif;
use saddlepoint_opt::solver::{Control, SketchedNewton, Solver as _, System};

/// What solves the linear systems.
const SYSTEMS: [(&str, System); 5] = [
    ("Gaussian", System::GaussianVector),
    ("Kaczmarz", System::Kaczmarz),
    ("MINRES", System::Minres),
    ("GMRES(2)", System::Gmres { restart: 2 }),
    ("direct", System::Direct),
];

/// The released list, with outer iterations of its runs with Gaussian vectors and with Kaczmarz where they are known.
const LIST: [(&str, Option<(u64, u64)>); 47] = [
    ("HS6", Some((9, 9))),
    ("BT5", Some((5, 5))),
    ("BT9", Some((12, 10))),
    ("HS28", Some((1, 1))),
    ("BT10", Some((7, 7))),
    ("HIMMELBA", None),
    ("BT12", Some((5, 9))),
    ("HS40", Some((3, 3))),
    ("BT3", Some((1, 1))),
    ("BT6", Some((9, 8))),
    ("BT11", Some((7, 7))),
    ("HS7", Some((10, 10))),
    ("GENHS28", None),
    ("HS51", Some((1, 1))),
    ("SINVALNE", None),
    ("BOOTH", Some((1, 1))),
    ("HS52", Some((2, 1))),
    ("HS47", Some((14, 15))),
    ("WAYSEA1NE", None),
    ("HS48", Some((1, 1))),
    ("HS50", Some((8, 8))),
    ("RSNBRNE", Some((11, 11))),
    ("CUBENE", Some((4, 4))),
    ("HS77", Some((8, 8))),
    ("MWRIGHT", Some((6, 7))),
    ("ZANGWIL3", Some((1, 1))),
    ("TRIGON1NE", None),
    ("BA-L1SP", None),
    ("HS78", Some((4, 4))),
    ("HS56", Some((5, 5))),
    ("HELIXNE", Some((8, 8))),
    ("HS42", Some((4, 4))),
    ("HS79", Some((4, 4))),
    ("ORTHREGB", Some((42, 42))),
    ("HS100LNP", Some((9, 8))),
    ("GOTTFR", None),
    ("HIMMELBE", Some((2, 2))),
    ("MOREBVNE", None),
    ("WAYSEA2NE", None),
    ("DENSCHNCNE", None),
    ("DENSCHNFNE", None),
    ("HIMMELBC", Some((5, 5))),
    ("PRICE4NE", None),
    ("INTEQNE", None),
    ("BA-L1", None),
    ("MANCINONE", None),
    ("BT2", Some((12, 11))),
];

/// The paper's released runs with sketches solve all but these.
const FAILED: [&str; 2] = ["GOTTFR", "PRICE4NE"];
/// A run with sketches that takes longer is cut off.
const SECONDS: f64 = 120.0;
/// Linear constraints of a regression beside the sphere.
const LINEAR: usize = 10;

/// How a run ended, with its sketch steps or products, floating-point operations of linear systems and seconds.
struct Run {
    outcome: Outcome,
    steps: u64,
    flops: f64,
}

fn run<P: Curved>(solver: &SketchedNewton, problem: &P, x0: &[f64]) -> saddlepoint_opt::Result<Run> {
    let mut state = solver.init(problem, x0)?;
    let outcome = solver.run(problem, &mut state, &mut Control::default().seconds(SECONDS))?;
    Ok(Run { outcome, steps: state.sketches(), flops: state.flops() })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(page)) = (arguments.next(), arguments.next()) else {
        return Err("give the folder of data and the page to write".into());
    };
    let folder = Path::new(&folder);
    let mut text = String::from(
        "# Sketched Newton steps beside the paper's runs\n\n\
         Written by `cargo run --release -p saddlepoint-opt --example sketched_table`; not by hand. Settings are the released ones, seed 0; a run \
         ends at `|(∇L, c)| <= 1e-4`. Flops and steps are those of the linear systems alone, a step being a sketch step or a product with the KKT \
         matrix; seconds are of everything, on one thread.\n",
    );
    problems(&folder.join("sif"), &mut text)?;
    for (name, file) in [("a9a", "a9a"), ("mushrooms", "agaricus.txt.train")] {
        regression(name, &examples::read(&folder.join("libsvm").join(file), None)?, &mut text)?;
    }
    fs::write(&page, text)?;
    eprintln!("wrote {page}");
    Ok(())
}

/// Outer iterations of a run, or why it ended otherwise.
fn cell(run: &Run) -> String {
    match run.outcome.status {
        Status::Optimal => run.outcome.iterations.to_string(),
        Status::Singular => "singular".to_owned(),
        status => format!("{status:?}").to_lowercase(),
    }
}

fn problems(folder: &Path, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let mut solved = [0; SYSTEMS.len()];
    let mut sums = [(0_u64, 0.0, 0.0); SYSTEMS.len()];
    let (mut rows, mut common, mut expected, mut absent) = (String::new(), 0, 0, Vec::new());
    for (name, released) in LIST {
        // Names of files have an m for the minus.
        let file = folder.join(format!("{}.SIF", name.replace('-', "m")));
        let Ok(file) = fs::read_to_string(file) else {
            absent.push(name);
            continue;
        };
        let problem = sif::read(&file)?;
        expected += usize::from(!FAILED.contains(&name));
        let mut runs = Vec::new();
        for (k, (_, system)) in SYSTEMS.into_iter().enumerate() {
            let run =
                run(&SketchedNewton { system, ..SketchedNewton::default() }, &problem, problem.start())?;
            solved[k] += usize::from(run.outcome.status == Status::Optimal);
            runs.push(run);
        }
        if runs.iter().all(|run| run.outcome.status == Status::Optimal) {
            common += 1;
            for (sum, run) in sums.iter_mut().zip(&runs) {
                *sum = (sum.0 + run.steps, sum.1 + run.flops, sum.2 + run.outcome.seconds);
            }
        }
        let known =
            released.map_or_else(String::new, |(gaussian, kaczmarz)| format!("{gaussian} / {kaczmarz}"));
        let cells: Vec<String> = runs.iter().map(cell).collect();
        writeln!(rows, "| {name} | {known} | {} |", cells.join(" | "))?;
        eprintln!("{name} {}", cells.join(" "));
    }
    let names: Vec<&str> = SYSTEMS.iter().map(|(name, _)| *name).collect();
    writeln!(
        text,
        "\n## The 47 problems of CUTEst\n\nThe paper's runs with sketches solve 45 of the 47: all but {}, whose Jacobian is singular at an iterate. {} of the \
         files are at hand (not {}), of which the paper's runs solve {expected}.\n\n| | {} |\n|---|{}\n| solved of {} | {} |\n| steps on the {common} that \
         all solve | {} |\n| flops there | {} |\n| seconds there | {} |\n\nOuter iterations; *released* are the paper's with Gaussian vectors / \
         Kaczmarz.\n\n| problem | released | {} |\n|---|---|{}\n{rows}",
        FAILED.join(" and "),
        LIST.len() - absent.len(),
        absent.join(", "),
        names.join(" | "),
        "---:|".repeat(names.len()),
        LIST.len() - absent.len(),
        solved.map(|count| count.to_string()).join(" | "),
        sums.map(|(steps, _, _)| format!("{:.1e}", steps as f64)).join(" | "),
        sums.map(|(_, flops, _)| format!("{flops:.1e}")).join(" | "),
        sums.map(|(_, _, seconds)| format!("{seconds:.3}")).join(" | "),
        names.join(" | "),
        "---:|".repeat(names.len()),
    )?;
    Ok(())
}

/// `mean log(1 + exp(−y xᵀw))` subject to `A w = b` and `|w|² = 1`, with random `A`; a point of the sphere satisfies `A w = b`.
fn regression(name: &str, data: &Examples, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let n = data.features;
    // Labels 0 and 1 stand for −1 and 1.
    let labels: Vec<f64> = data.labels.iter().map(|label| if *label > 0.0 { 1.0 } else { -1.0 }).collect();
    let mut rng = Seed::new(0).stream("constraints", &[]);
    let mut normal =
        |count: usize| -> Vec<f64> { (0..count).map(|_| StandardNormal.sample(&mut rng)).collect() };
    let (constraints, mut inside) = (normal(LINEAR * n), normal(n));
    let size = norm(&inside);
    scale(&mut inside, 1.0 / size);
    let problem = logistic(data, &labels, &constraints, &inside);
    writeln!(
        text,
        "\n## Logistic regression on {name}\n\n{} examples, {n} variables, {} constraints: `mean log(1 + exp(−y xᵀw))` subject to `A w = b` with normal \
         `A` of {LINEAR} rows and `|w|² = 1`, from all ones. The paper's runs need 8 or 9 outer iterations on both.\n\n\
         | system | outer iterations | KKT residual | steps | flops | seconds |\n|---|---:|---:|---:|---:|---:|",
        data.len(),
        LINEAR + 1,
    )?;
    for (which, system) in SYSTEMS {
        let settings = SketchedNewton {
            system,
            multiplier: 1.0,
            curvature: 1e-2,
            sketches: 1_000_000,
            ..SketchedNewton::default()
        };
        let run = run(&settings, &problem, &vec![1.0; n])?;
        let kkt = &run.outcome.kkt;
        writeln!(
            text,
            "| {which} | {} | {:.1e} | {:.1e} | {:.1e} | {:.2} |",
            cell(&run),
            kkt.stationarity.max(kkt.feasibility),
            run.steps as f64,
            run.flops,
            run.outcome.seconds
        )?;
        eprintln!("{name} {which} {} {:.2} s", cell(&run), run.outcome.seconds);
    }
    Ok(())
}

fn logistic<'a>(
    data: &'a Examples,
    labels: &'a [f64],
    constraints: &'a [f64],
    inside: &[f64],
) -> Problem<'a> {
    let (n, count) = (data.features, data.len());
    let mean = 1.0 / count as f64;
    let margin = move |i: usize, w: &[f64]| labels[i] * data.dot(i, w);
    let mut problem = minimize(n, move |w| {
        // log(1 + e^−z) without overflow.
        let loss = |z: f64| (-z.abs()).exp().ln_1p() + (-z).max(0.0);
        (0..count).map(|i| loss(margin(i, w))).sum::<f64>() * mean
    })
    .grad(move |w, g| {
        for i in 0..count {
            data.add(i, -mean * labels[i] / (1.0 + margin(i, w).exp()), g);
        }
    })
    .hess_vec(move |w, v, out| {
        for i in 0..count {
            let p = 1.0 / (1.0 + margin(i, w).exp());
            data.add(i, mean * p * (1.0 - p) * data.dot(i, v), out);
        }
    })
    .subject_to(
        eq("sphere", |w| dot(w, w) - 1.0)
            .grad(|w, g| add_scaled(g, 2.0, w))
            .hess_vec(|_, v, out| add_scaled(out, 2.0, v)),
    );
    for (i, row) in constraints.chunks_exact(n).enumerate() {
        let right = dot(row, inside);
        let linear =
            eq(format!("linear{i}"), move |w| dot(row, w) - right).grad(move |_, g| add_scaled(g, 1.0, row));
        problem = problem.subject_to(linear.linear());
    }
    problem
}
