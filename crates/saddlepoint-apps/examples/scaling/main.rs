//! Time of the main solvers against the size of the problem, with fitted exponents, and the page that shows them.
//!
//! ```sh
//! cargo run --release -p saddlepoint-apps --example scaling -- docs/scaling.md
//! ```
//!
//! The pictures are written beside the page.
#![allow(clippy::print_stderr, reason = "a program, not a library")]

mod page;
mod plot;
mod problem;
mod series;

use std::fs;
use std::path::Path;

use saddlepoint_apps::dag::score::LeastSquares;
use saddlepoint_apps::dag::{Dagma, Data, Notears, Relaxed, Scaling, Topo, random_order, simulate};
use saddlepoint_core::clock::Stopwatch;
use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problem::Counted;
use saddlepoint_opt::solver::{
    AugmentedLagrangian, Control, InteriorPoint, SketchedNewton, Solver as _, System,
};

use page::Section;
use problem::{Shape, Smooth};
use series::{Point, Series, Solve, Theory};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Problems of each size.
const SEEDS: u64 = 3;
/// Of every solver of smooth problems: the default of one of them, and the largest of all.
const TOLERANCE: f64 = 1e-4;
/// Variables where the constraints are what grows.
const VARIABLES: usize = 128;
/// Constraints where the variables are what grows, but in a chain, which has one to four variables.
const CONSTRAINTS: usize = 8;
/// Samples of a graph, and its edges a column.
const SAMPLES: usize = 1000;
const DEGREE: usize = 2;

fn main() -> Result<()> {
    let Some(path) = std::env::args().nth(1) else { return Err("give the page to write".into()) };
    let watch = Stopwatch::start();
    // The search over graphs would take all threads, and nothing else does.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let sections = pool.install(|| -> Result<_> { Ok([variables()?, constraints()?, columns()?]) })?;
    let page = Path::new(&path);
    for section in &sections {
        section.check()?;
        fs::write(page.with_file_name(section.file()), plot::svg(section.label, &section.series))?;
    }
    fs::write(page, page::write(&sections))?;
    eprintln!("wrote {path} in {:.0} s", watch.seconds());
    Ok(())
}

/// A solver of smooth problems.
#[derive(Clone, Copy)]
enum Method {
    InteriorPoint,
    AugmentedLagrangian,
    Newton(System),
}

impl Method {
    fn solver(self) -> &'static str {
        match self {
            Method::InteriorPoint => "interior-point",
            Method::AugmentedLagrangian => "augmented-lagrangian",
            Method::Newton(System::Direct) => "sketched-newton, direct",
            Method::Newton(_) => "sketched-newton, Kaczmarz",
        }
    }

    /// What an iteration is, and an operation.
    fn counted(self) -> (&'static str, &'static str) {
        match self {
            Method::InteriorPoint | Method::Newton(System::Direct) => ("Newton steps", "Newton steps"),
            Method::AugmentedLagrangian => ("updates", "gradients"),
            Method::Newton(_) => ("Newton steps", "sketch steps"),
        }
    }

    fn solve(self, problem: &Smooth, start: &[f64]) -> saddlepoint_opt::Result<Solve> {
        let of = |outcome: &Outcome, operations: u64| Solve {
            solved: outcome.status == Status::Optimal,
            iterations: outcome.iterations as f64,
            operations: operations as f64,
        };
        match self {
            Method::InteriorPoint => {
                let mut solver = InteriorPoint::default();
                solver.stop.tolerance = TOLERANCE;
                let outcome = solver.solve(problem, start)?;
                Ok(of(&outcome, outcome.iterations))
            }
            Method::AugmentedLagrangian => {
                let counted = Counted::new(problem);
                let mut solver = AugmentedLagrangian::default();
                solver.stop.tolerance = TOLERANCE;
                let outcome = solver.solve(&counted, start)?;
                Ok(of(&outcome, counted.counts().gradients))
            }
            Method::Newton(system) => {
                let mut solver = SketchedNewton { system, sketches: 1_000_000, ..SketchedNewton::default() };
                solver.stop.tolerance = TOLERANCE;
                let mut state = solver.init(problem, start)?;
                let outcome = solver.run(problem, &mut state, &mut Control::default())?;
                Ok(of(&outcome, state.sketches().max(outcome.iterations)))
            }
        }
    }

    /// Over problems of a shape with the variables and constraints that belong to a size.
    fn series(
        self,
        on: &'static str,
        shape: Shape,
        sizes: &[usize],
        dimensions: fn(usize) -> (usize, usize),
        theory: Theory,
    ) -> Result<Series> {
        let mut points = Vec::new();
        for &size in sizes {
            let (n, m) = dimensions(size);
            for seed in 0..SEEDS {
                let problem = Smooth::new(shape, n, m, seed);
                let start = vec![0.0; n];
                points.push(Point::measured(size, || self.solve(&problem, &start))?);
            }
            tell(self.solver(), size, points.last());
        }
        Ok(Series { solver: self.solver(), on, counted: self.counted(), theory, points })
    }
}

fn tell(solver: &str, size: usize, last: Option<&Point>) {
    if let Some(Point { seconds, solve, .. }) = last {
        let Solve { solved, iterations, operations } = solve;
        eprintln!(
            "{solver:26} {size:6} {seconds:9.5} s, {iterations} iterations, {operations} operations, solved: {solved}"
        );
    }
}

/// Time against the number of variables.
fn variables() -> Result<Section> {
    let dense = |n: usize| (n, CONSTRAINTS);
    let chain = |n: usize| (n, n / 4);
    let (on_dense, on_chain) = ("dense, 8 constraints", "chain, n/4 constraints");
    let (squares, chains) = ([64, 128, 256, 512], [500, 1000, 2000, 4000, 8000]);
    let cubic = Theory { says: "n³", flops: |n| n.powi(3) };
    let quadratic = Theory { says: "n²", flops: |n| n.powi(2) };
    let linear = Theory { says: "n", flops: |n| n };
    let series = vec![
        Method::InteriorPoint.series(on_dense, Shape::Dense, &squares, dense, cubic)?,
        Method::AugmentedLagrangian.series(on_dense, Shape::Dense, &squares, dense, quadratic)?,
        Method::Newton(System::Direct).series(on_dense, Shape::Dense, &[32, 64, 128, 256], dense, cubic)?,
        Method::Newton(System::Kaczmarz).series(on_dense, Shape::Dense, &[16, 24, 32, 48], dense, linear)?,
        Method::InteriorPoint.series(on_chain, Shape::Chain, &chains, chain, linear)?,
        Method::AugmentedLagrangian.series(on_chain, Shape::Chain, &chains, chain, linear)?,
    ];
    let problems = "`½ xᵀQx − bᵀx + ¼ Σ x_j⁴` subject to `a_iᵀx + ½ x_s² = r_i`, from 0. *Dense*: `Q = I + GGᵀ/n` with normal `G`, normal rows `a_i` of \
         length 1, `s = i`. *Chain*: `Q = tridiag(−1, 4, −1)`, `a_i` the second difference at `s = 4i`, all of them sparse. Every tolerance is \
         1e-4, and a linear system may take a million sketch steps.";
    Ok(Section { name: "n", title: "Variables", label: "variables n", problems, series })
}

/// Time against the number of constraints.
fn constraints() -> Result<Section> {
    const N: f64 = VARIABLES as f64;
    let of = |m: usize| (VARIABLES, m);
    let on = "128 variables, Q diagonal";
    let sizes = [4, 8, 16, 32, 64];
    let series = vec![
        Method::InteriorPoint.series(
            on,
            Shape::DenseRows,
            &sizes,
            of,
            Theory { says: "n m² + m³/3", flops: |m| N * m * m + m.powi(3) / 3.0 },
        )?,
        Method::AugmentedLagrangian.series(
            on,
            Shape::DenseRows,
            &sizes,
            of,
            Theory { says: "n m", flops: |m| N * m },
        )?,
        Method::Newton(System::Direct).series(
            on,
            Shape::DenseRows,
            &sizes,
            of,
            Theory {
                says: "(n + m)³/3 + 2 n² (n − m) + 3 (n − m)³",
                flops: |m| (N + m).powi(3) / 3.0 + 2.0 * N * N * (N - m) + 3.0 * (N - m).powi(3),
            },
        )?,
    ];
    let problems = "As the dense ones above with 128 variables, but for `Q`, which is diagonal with elements in [1, 5]: so the rows of the constraints are \
         all that is dense.";
    Ok(Section { name: "m", title: "Constraints", label: "constraints m", problems, series })
}

/// Time of graphs against the number of columns.
fn columns() -> Result<Section> {
    let on = "ER2, 1000 samples";
    let topo = |all: bool, sizes: &[usize]| {
        let solver = if all { "topo, all pairs" } else { "topo, the paper's sets" };
        let theory = if all {
            Theory { says: "at most d²", flops: |d| d.powi(2) }
        } else {
            // A step tries so many, and has to find them first.
            Theory {
                says: "at most d², and d³ a step",
                flops: |d| d.powi(2) + d.powi(3) / (d * (d - 1.0) / 8.0).min(100.0),
            }
        };
        graphs((solver, on, ("steps", "swaps tried")), sizes, theory, |data, seed| {
            let d = data.nodes();
            let pairs = all.then_some(d * (d - 1) / 2);
            let score = LeastSquares::new(data)?;
            let found = Topo { small: pairs, large: pairs, ..Topo::default() }
                .run(&score, &random_order(d, seed, 0))?;
            let iterations = (found.scores.len() - 1) as f64;
            Ok(Solve { solved: found.finished, iterations, operations: found.trials as f64 })
        })
    };
    let relaxed = |found: &Relaxed| Solve {
        solved: true,
        iterations: found.stages as f64,
        operations: found.evaluations as f64,
    };
    let cubic = Theory { says: "d³", flops: |d| d.powi(3) };
    let counted = ("stages", "gradients");
    let series = vec![
        topo(false, &[10, 20, 40, 80])?,
        topo(true, &[10, 20, 40, 80])?,
        graphs(("notears", on, counted), &[6, 8, 10, 14], cubic, |data, _| {
            Ok(relaxed(&Notears::default().run(data)?))
        })?,
        graphs(("dagma", on, counted), &[6, 8, 10, 14], cubic, |data, _| {
            Ok(relaxed(&Dagma::default().run(data)?))
        })?,
    ];
    let problems = "Random graphs with two edges a column (ER2), linear models with normal noise of equal variance, 1,000 samples, centred. topo minimises least \
         squares from a random order; notears and dagma with their penalties, from 0. The release's sets stop growing at 29 columns, with which a search ends early \
         on larger graphs (see [dag.md](dag.md)); all pairs is what to use there.";
    Ok(Section { name: "d", title: "Columns of a graph", label: "columns d", problems, series })
}

fn graphs(
    (solver, on, counted): (&'static str, &'static str, (&'static str, &'static str)),
    sizes: &[usize],
    theory: Theory,
    solve: impl Fn(&Data, u64) -> saddlepoint_apps::Result<Solve>,
) -> Result<Series> {
    let mut points = Vec::new();
    for &d in sizes {
        for seed in 0..SEEDS {
            let truth = simulate::weighted(&simulate::erdos_renyi(d, DEGREE * d, seed)?, seed);
            let data = simulate::linear(&truth, SAMPLES, simulate::Noise::Gaussian, seed)?
                .scaled(Scaling::Centre)?;
            points.push(Point::measured(d, || solve(&data, seed))?);
        }
        tell(solver, d, points.last());
    }
    Ok(Series { solver, on, counted, theory, points })
}
