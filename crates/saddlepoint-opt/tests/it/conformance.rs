//! Every solver on every problem of its class whose optimum is known, judged by the KKT residual.

use saddlepoint_core::test::assert_close;
use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problem::{Problem, between, eq, ge, le, minimize};
use saddlepoint_opt::problems::formula::Formula;
use saddlepoint_opt::problems::known::{BOUNDED, EQUALITIES, INEQUALITIES, Known};
use saddlepoint_opt::solver::{
    AugmentedLagrangian, DualAscent, InteriorPoint, ProjectedGradient, ProximalGradient, SketchedNewton,
    Solver, System,
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
        complaints.extend(complaint("interior point", known, &InteriorPoint::default()));
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

/// `x`, which falls along the first axis, in two dimensions.
fn falls<'a>() -> Problem<'a> {
    minimize(2, |x| x[0]).grad(|_, g| g[0] = 1.0).hess_vec(|_, _, _| ())
}

/// `x² + y²`.
fn bowl<'a>() -> Problem<'a> {
    minimize(2, |x| x[0] * x[0] + x[1] * x[1])
        .grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
        .hess_vec(|_, v, out| (0..2).for_each(|i| out[i] = 2.0 * v[i]))
}

/// How both solvers for any constraints end a problem.
fn both(problem: &Problem, x0: &[f64]) -> [Outcome; 2] {
    [
        AugmentedLagrangian::default().solve(problem, x0).expect("a valid problem"),
        InteriorPoint::default().solve(problem, x0).expect("a valid problem"),
    ]
}

#[test]
fn every_kind_of_constraint_has_its_multiplier() {
    // 2x + λ = 0 along (1, 1): x = y = t/2 and λ = −t for x + y held at t.
    let sum = |x: &[f64]| x[0] + x[1];
    let slope = |_: &[f64], g: &mut [f64]| g.fill(1.0);
    for (restriction, t) in [
        (eq("sum", move |x| sum(x) - 2.0).grad(slope), 2.0),
        (ge("sum", move |x| sum(x) - 1.0).grad(slope), 1.0),
        (le("sum", move |x| sum(x) + 3.0).grad(slope), -3.0),
        (between("sum", 0.5, sum, 7.0).grad(slope), 0.5),
        (between("sum", -7.0, sum, -0.5).grad(slope), -0.5),
        (between("sum", -7.0, sum, 7.0).grad(slope), 0.0),
    ] {
        for out in both(&bowl().subject_to(restriction.linear()), &[3.0, -1.0]) {
            assert_eq!(out.status, Status::Optimal, "{out:?}");
            assert_close!(out.x, [0.5 * t; 2], atol = 1e-6);
            assert_close!(out.dual("sum"), -t, atol = 1e-5);
        }
    }
}

#[test]
fn what_has_no_solution_ends_with_its_reason_and_the_last_iterate() {
    let infeasible = bowl()
        .subject_to(ge("above", |x| x[0] - 1.0).grad(|_, g| g[0] = 1.0).linear())
        .subject_to(le("below", |x| x[0] + 1.0).grad(|_, g| g[0] = 1.0).linear());
    for out in both(&infeasible, &[5.0, 5.0]) {
        assert_eq!(out.status, Status::Infeasible, "{out:?}");
        let found = out.infeasibility.expect("a certificate");
        assert!((found.violation - 2.0_f64.sqrt()).abs() < 1e-3 && out.x[0].abs() < 1e-3, "{found:?}");
    }
    // The circle around 0 and the line beyond it come nearest at (1, 0), where their gradients cancel.
    let apart = falls()
        .subject_to(
            eq("circle", |x| x[0] * x[0] + x[1] * x[1] - 1.0)
                .grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
                .hess_vec(|_, v, out| (0..2).for_each(|i| out[i] = 2.0 * v[i])),
        )
        .subject_to(eq("line", |x| x[0] - 3.0).grad(|_, g| g[0] = 1.0).linear());
    for out in both(&apart, &[0.5, 0.2]) {
        assert_eq!(out.status, Status::Infeasible, "{out:?}");
        assert!(out.infeasibility.expect("a certificate").gradient < 1e-3 && out.x[1].abs() < 1e-3);
    }
    let tie = eq("tie", |x| x[0] - x[1]).grad(|_, g| g.copy_from_slice(&[1.0, -1.0])).linear();
    for out in both(&falls().subject_to(tie), &[0.0, 0.0]) {
        assert_eq!(out.status, Status::Unbounded, "{out:?}");
        assert!(out.objective < -1e15);
    }
    // x² + y² <= 0 has one point and no multiplier there.
    let circle = le("circle", |x| x[0] * x[0] + x[1] * x[1])
        .grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
        .hess_vec(|_, v, out| (0..2).for_each(|i| out[i] = 2.0 * v[i]));
    let ends = both(&falls().subject_to(circle), &[1.0, 1.0]);
    // The augmented Lagrangian's multiplier grows without limit, and excuses what is left.
    assert!(ends[0].kkt.scale > 2.0, "{:?}", ends[0]);
    for out in ends {
        assert!(out.kkt.feasibility < 1e-3 && out.x.iter().all(|x| x.is_finite()), "{out:?}");
    }
    let nowhere = minimize(1, |_| f64::NAN).grad(|_, g| g[0] = 1.0).hess_vec(|_, _, _| ());
    for out in both(&nowhere, &[0.5]) {
        assert_eq!((out.status, &out.x[..]), (Status::NotFinite, &[0.5][..]));
    }
}

#[test]
fn a_point_without_a_value_is_not_optimal() {
    let nowhere = minimize(1, |_| f64::NAN).grad(|_, _| ()).hess_vec(|_, _, _| ());
    let mut ends = both(&nowhere, &[0.5]).to_vec();
    ends.push(ProjectedGradient::default().solve(&nowhere, &[0.5]).expect("a valid problem"));
    ends.push(ProximalGradient::default().solve(&nowhere, &[0.5]).expect("a valid problem"));
    ends.push(SketchedNewton::default().solve(&nowhere, &[0.5]).expect("a valid problem"));
    ends.push(DualAscent::default().solve(&nowhere, &[0.5]).expect("a valid problem"));
    for out in ends {
        assert_eq!((out.status, &out.x[..]), (Status::NotFinite, &[0.5][..]));
    }
}

#[test]
fn a_step_that_overflows_is_not_taken() {
    // The second step of Barzilai and Borwein's length would be 1e310.
    let steep = minimize(1, |x| 1e300 * x[0]).grad(|_, g| g[0] = 1e300);
    let out = ProjectedGradient::default().solve(&steep, &[5.0]).expect("a valid problem");
    assert!(out.status == Status::Unbounded && out.x[0].is_finite(), "{out:?}");
    // Its value does not tell that the point has left the numbers.
    let flat = minimize(1, |_| 0.0).grad(|_, g| g[0] = -1e308);
    for out in [
        ProximalGradient::default().solve(&flat, &[1e308]),
        ProjectedGradient::default().solve(&flat, &[1e308]),
        AugmentedLagrangian::default().solve(&flat, &[1e308]),
    ] {
        let out = out.expect("a valid problem");
        assert!(out.status != Status::Optimal && out.x[0].is_finite(), "{out:?}");
    }
}

#[test]
fn dependent_constraints_and_bad_scales_are_solved() {
    let steep = || {
        minimize(2, |x| 1e6 * (x[0] - 1.0).powi(2) + 1e6 * x[1] * x[1])
            .grad(|x, g| {
                g[0] = 2e6 * (x[0] - 1.0);
                g[1] = 2e6 * x[1];
            })
            .hess_vec(|_, v, out| (0..2).for_each(|i| out[i] = 2e6 * v[i]))
            .subject_to(
                eq("c", |x| 1e5 * (x[0] - x[1])).grad(|_, g| g.copy_from_slice(&[1e5, -1e5])).linear(),
            )
    };
    let again = eq("d", |x| 3e5 * (x[0] - x[1])).grad(|_, g| g.copy_from_slice(&[3e5, -3e5])).linear();
    for problem in [steep(), steep().subject_to(again)] {
        for out in both(&problem, &[50.0, -70.0]) {
            assert_eq!(out.status, Status::Optimal, "{out:?}");
            assert_close!(out.x, [0.5, 0.5], atol = 1e-9);
        }
    }
}
