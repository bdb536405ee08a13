//! Every solver on every problem of its class whose optimum is known, judged by the KKT residual.

use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problems::formula::Formula;
use saddlepoint_opt::problems::known::{BOUNDED, EQUALITIES, INEQUALITIES, Known};
use saddlepoint_opt::solver::{
    AugmentedLagrangian, DualAscent, ProjectedGradient, ProximalGradient, SketchedNewton, Solver, System,
};

/// Solves the problem and checks what came out; a line of complaint if it is wrong.
fn complaint(name: &str, known: &Known, solver: &impl Solver<Formula>) -> Option<String> {
    let problem = known.problem();
    let out: Outcome = solver.solve(&problem, problem.start()).expect("a valid problem");
    let far = known.least.is_some_and(|least| (out.objective - least).abs() > 1e-3 * least.abs().max(1.0));
    let wrong = out.status != Status::Optimal || out.kkt.error() > solver.stop().tolerance || far;
    wrong.then(|| format!("{name} on {}: {} f = {}, {}", known.name, out.status, out.objective, out.kkt))
}

#[test]
fn every_solver_solves_its_class() {
    let mut complaints = Vec::new();
    for known in EQUALITIES {
        for system in [
            System::GaussianVector,
            System::Kaczmarz,
            System::CountSketch { width: 4 },
            System::Minres,
            System::Gmres { restart: 2 },
            System::Direct,
        ] {
            let solver = SketchedNewton { system, ..SketchedNewton::default() };
            complaints.extend(complaint(&format!("{system:?}"), known, &solver));
        }
    }
    for known in EQUALITIES.iter().chain(INEQUALITIES).chain(BOUNDED) {
        complaints.extend(complaint("augmented Lagrangian", known, &AugmentedLagrangian::default()));
    }
    for known in BOUNDED {
        complaints.extend(complaint("projected gradient", known, &ProjectedGradient::default()));
        complaints.extend(complaint("proximal gradient", known, &ProximalGradient::default()));
    }
    // Strongly convex ones.
    for known in EQUALITIES.iter().chain(INEQUALITIES).filter(|known| ["HS35", "HS76"].contains(&known.name))
    {
        complaints.extend(complaint("dual ascent", known, &DualAscent::default()));
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_solver_for_bounds_refuses_constraints() {
    let problem = EQUALITIES[0].problem();
    let told = ProximalGradient::default().solve(&problem, problem.start()).expect_err("refused").to_string();
    assert_eq!(
        told,
        "the problem: proximal-gradient takes no constraints, and there is `c1`; use the augmented Lagrangian"
    );
}
