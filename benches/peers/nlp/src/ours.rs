//! Runs Saddlepoint's solvers.

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_opt::kkt::Kkt;
use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problems::sif::Sif;
use saddlepoint_opt::solver::{
    AugmentedLagrangian, Control, InteriorPoint, SketchedNewton, Solver, Stop, System,
};

use crate::Told;
use crate::timed::Timed;

/// Stationarity, feasibility, complementarity, and what is compared with tolerances.
pub(crate) fn told(kkt: &Kkt) -> [f64; 4] {
    [kkt.stationarity, kkt.feasibility, kkt.complementarity, kkt.error()]
}

/// A solver's run; `None` if it refuses the problem or there is no solver of that name.
pub(crate) fn solve(problem: &Sif, method: &str, tolerance: f64, seconds: f64) -> Option<Told> {
    let stop = |own: Stop| Stop { tolerance, ..own };
    match method {
        "interior-point" => {
            let d = InteriorPoint::default();
            run(&InteriorPoint { stop: stop(d.stop), ..d }, problem, seconds)
        }
        "augmented-lagrangian" => {
            let d = AugmentedLagrangian::default();
            run(&AugmentedLagrangian { stop: stop(d.stop), ..d }, problem, seconds)
        }
        sketched => {
            let system = match sketched {
                "sketched-newton" => System::Kaczmarz,
                "sketched-newton/gaussian-vector" => System::GaussianVector,
                "sketched-newton/direct" => System::Direct,
                "sketched-newton/minres" => System::Minres,
                _ => return None,
            };
            let d = SketchedNewton::default();
            run(&SketchedNewton { stop: stop(d.stop), system, ..d }, problem, seconds)
        }
    }
}

fn run<S: for<'a> Solver<Timed<'a>>>(solver: &S, problem: &Sif, seconds: f64) -> Option<Told> {
    let timed = Timed::new(problem);
    let watch = Stopwatch::start();
    let mut state = solver.init(&timed, problem.start()).ok()?;
    let mut control = Control::default().seconds(seconds);
    let out: Outcome = solver.run(&timed, &mut state, &mut control).ok()?;
    Some(Told {
        optimal: i32::from(out.status == Status::Optimal),
        iterations: out.iterations as i64,
        seconds: watch.seconds(),
        evaluation: timed.seconds(),
        objective: out.objective,
        kkt: told(&out.kkt),
    })
}
