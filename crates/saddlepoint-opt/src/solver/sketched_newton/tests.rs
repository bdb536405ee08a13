use saddlepoint_core::test::assert_close;

use super::*;
use crate::problem::{Constrained as _, Objective as _, Problem, eq, le, minimize};

fn hs6<'a>() -> Problem<'a> {
    minimize(2, |x| (1.0 - x[0]).powi(2))
        .grad(|x, g| g[0] = -2.0 * (1.0 - x[0]))
        .hess_vec(|_, v, out| out[0] = 2.0 * v[0])
        .subject_to(
            eq("c", |x| 10.0 * (x[1] - x[0] * x[0]))
                .grad(|x, g| g.copy_from_slice(&[-20.0 * x[0], 10.0]))
                .hess_vec(|_, v, out| out[0] = -20.0 * v[0]),
        )
}

fn hs7<'a>() -> Problem<'a> {
    minimize(2, |x| (x[0] * x[0]).ln_1p() - x[1])
        .grad(|x, g| g.copy_from_slice(&[2.0 * x[0] / (1.0 + x[0] * x[0]), -1.0]))
        .hess_vec(|x, v, out| out[0] = 2.0 * (1.0 - x[0] * x[0]) / (1.0 + x[0] * x[0]).powi(2) * v[0])
        .subject_to(
            eq("c", |x| (1.0 + x[0] * x[0]).powi(2) + x[1] * x[1] - 4.0)
                .grad(|x, g| g.copy_from_slice(&[4.0 * x[0] * (1.0 + x[0] * x[0]), 2.0 * x[1]]))
                .hess_vec(|x, v, out| {
                    out[0] = (4.0 + 12.0 * x[0] * x[0]) * v[0];
                    out[1] = 2.0 * v[1];
                }),
        )
}

const DIRECT: SketchedNewton = SketchedNewton {
    stop: Stop { tolerance: 1e-4, iterations: 10_000 },
    system: System::Direct,
    seed: 0,
    beta: 0.1,
    nu: 1.5,
    xi_b: 0.1,
    eta1: 1.0,
    eta2: 0.1,
    delta: 0.1,
    curvature: 1e-6,
    singular: 1e-2,
    sketches: 100_000,
    multiplier: 0.0,
    slope: Slope::Released,
};

/// The card's V1: the stored run of the released code on HS6.
#[test]
fn hs6_follows_the_released_run() {
    let residuals = [
        6.222_539_674_44,
        6.003_335_661_32,
        5.709_265_691_07,
        5.359_899_386_07,
        4.976_881_424_04,
        4.652_895_158_82,
        4.028_760_149_69,
        3.276_066_329_42,
        1.315_512_103_05,
        0.0,
    ];
    let alphas = [0.125, 0.125, 0.125, 0.125, 0.25, 0.25, 0.5, 1.0, 1.0];
    for slope in [Slope::Released, Slope::Exact] {
        let solver = SketchedNewton { slope, ..DIRECT };
        let problem = hs6();
        let mut state = solver.init(&problem, &[-1.2, 1.0]).expect("valid");
        assert_close!(merit(&problem, &[-1.2, 1.0], &[0.0], 1.0, 0.1), 15.488, rtol = 1e-12);
        for (k, alpha) in alphas.iter().enumerate() {
            assert_close!(state.residual(), residuals[k], rtol = 1e-11, atol = 1e-11);
            let flow = solver.step(&problem, &mut state).expect("steps");
            assert_close!(state.step, *alpha, atol = 0.0);
            assert_eq!(flow == Flow::Stop(Status::Optimal), k == 8, "{slope:?}");
            if k == 0 {
                assert_close!(state.x, [-0.925, 0.395], rtol = 1e-12);
            }
        }
        assert_close!(state.residual(), 0.0, atol = 1e-10);
    }
}

/// The card's V2: the merit function and its derivative on HS7, with either Hessian.
#[test]
fn hs7_has_the_known_merit_and_derivatives() {
    let problem = hs7();
    let at = |multiplier: f64, slope: Slope| {
        let solver = SketchedNewton { multiplier, slope, ..DIRECT };
        let state = solver.init(&problem, &[2.0, 2.0]).expect("valid");
        let here = Here {
            c: equalities(&problem, &state.x),
            g: gradient(&problem, &state.x, &state.multipliers),
            jacobian: problem.jacobian(&state.x),
            hessian: problem.hessian(&state.x, &state.multipliers).symmetric(),
        };
        (solver.merit_gradient(&problem, &state, &here), here)
    };
    let (gradient, here) = at(0.5, Slope::Exact);
    assert_close!(problem.value(&[2.0, 2.0]), -0.390_562_087_566, rtol = 1e-11);
    assert_close!([here.c[0], here.g[0], here.g[1]], [25.0, 20.8, 1.0], rtol = 1e-12);
    assert_close!(merit(&problem, &[2.0, 2.0], &[0.5], 1.0, 0.1), 346.291_437_912_434, rtol = 1e-12);
    assert_close!(gradient, [1074.3808, 101.1, 108.6], rtol = 1e-12);
    assert_close!(at(0.5, Slope::Released).0, [1020.3008, 101.0, 108.6], rtol = 1e-12);
}

/// The card's V6.
#[test]
fn the_derivative_of_the_merit_is_that_of_differences() {
    let problem = hs7();
    let state = SketchedNewton { multiplier: 0.7, slope: Slope::Exact, ..DIRECT }
        .init(&problem, &[0.4, 1.3])
        .expect("valid");
    let here = Here {
        c: equalities(&problem, &state.x),
        g: gradient(&problem, &state.x, &state.multipliers),
        jacobian: problem.jacobian(&state.x),
        hessian: problem.hessian(&state.x, &state.multipliers).symmetric(),
    };
    let exact = SketchedNewton { slope: Slope::Exact, ..DIRECT }.merit_gradient(&problem, &state, &here);
    for i in 0..3 {
        let side = |h: f64| {
            let mut at = [0.4, 1.3, 0.7];
            at[i] += h;
            merit(&problem, &at[..2], &at[2..], 1.0, 0.1)
        };
        assert_close!((side(1e-6) - side(-1e-6)) / 2e-6, exact[i], rtol = 1e-6);
    }
}

#[test]
fn every_way_to_solve_the_system_ends_at_the_same_point() {
    for system in [
        System::GaussianVector,
        System::Kaczmarz,
        System::CountSketch { width: 2 },
        System::Minres,
        System::Gmres { restart: 2 },
        System::Direct,
    ] {
        let solver = SketchedNewton { system, ..SketchedNewton::default() };
        let out = solver.solve(&hs7(), &[2.0, 2.0]).expect("valid");
        assert_eq!(out.status, Status::Optimal, "{system:?}: {out:?}");
        assert_eq!(out.iterations, 10, "{system:?}");
        assert_close!(out.x, [0.0, 3.0_f64.sqrt()], atol = 1e-4);
        assert_close!(out.dual("c"), 0.288_675, atol = 1e-4);
        assert_eq!(
            out.x,
            solver.solve(&hs7(), &[2.0, 2.0]).expect("valid").x,
            "the same seed gives the same bytes"
        );
    }
}

/// The card's V5: a convex quadratic problem on a grid.
#[test]
fn the_problem_on_a_grid_has_its_known_solution() {
    const N: usize = 3;
    let h = 2.0 / (N + 1) as f64;
    let target: Vec<f64> = (0..N * N)
        .map(|k| {
            let (i, j) = ((k % N + 1) as f64, (k / N + 1) as f64);
            let step = 0.1 / 15.0_f64.sqrt();
            (4.0 + step * (i - 2.0)).sin() + (3.0 + step * (j - 2.0)).cos()
        })
        .collect();
    let target = &target;
    let laplacian = move |x: &[f64], k: usize| {
        let (i, j) = (k % N, k / N);
        let mut sum = -4.0 * x[k];
        sum += if i > 0 { x[k - 1] } else { 0.0 } + if i + 1 < N { x[k + 1] } else { 0.0 };
        sum += if j > 0 { x[k - N] } else { 0.0 } + if j + 1 < N { x[k + N] } else { 0.0 };
        sum / (h * h)
    };
    let mut problem = minimize(18, move |x| {
        (0..9).map(|k| 0.5 * (x[k] - target[k]).powi(2) + 0.05 * x[9 + k].powi(2)).sum()
    })
    .grad(move |x, g| (0..9).for_each(|k| (g[k], g[9 + k]) = (x[k] - target[k], 0.1 * x[9 + k])))
    .hess_vec(|_, v, out| (0..9).for_each(|k| (out[k], out[9 + k]) = (v[k], 0.1 * v[9 + k])));
    for k in 0..9 {
        let row = move |x: &[f64]| laplacian(x, k) + x[9 + k];
        let gradient = move |_: &[f64], g: &mut [f64]| {
            for j in 0..18 {
                let mut unit = [0.0; 18];
                unit[j] = 1.0;
                g[j] = row(&unit);
            }
        };
        problem = problem.subject_to(eq(format!("p{k}"), row).grad(gradient).linear());
    }
    let solver = SketchedNewton { multiplier: 1.0, stop: Stop { tolerance: 1e-9, ..DIRECT.stop }, ..DIRECT };
    assert_close!(
        solver.init(&problem, &[1.0; 18]).expect("valid").residual(),
        19.186_735_069_186_61,
        rtol = 1e-12
    );
    assert_close!(problem.value(&[1.0; 18]), 34.393_271_613_181, rtol = 1e-12);
    let out = solver.solve(&problem, &[1.0; 18]).expect("valid");
    assert_eq!(out.status, Status::Optimal, "{out:?}");
    assert_close!(out.objective, 9.644_442_051_812, rtol = 1e-11);
    assert_close!(out.x[..3], [-0.413_442_785_339, -0.561_938_771_480, -0.416_008_566_486], rtol = 1e-9);
    assert_close!(
        [out.x[4], out.x[9], out.x[13]],
        [-0.764_380_089_732, -2.124_795_366_785, -3.233_274_600_323],
        rtol = 1e-9
    );
}

#[test]
fn what_it_cannot_take_is_refused_and_dependent_constraints_end_as_singular() {
    let inequality = minimize(1, |x| x[0]).grad_fd().subject_to(le("c", |x| x[0]).grad_fd()).hess_fd();
    let told = SketchedNewton::default().solve(&inequality, &[1.0]).expect_err("refused").to_string();
    assert_eq!(told, "the problem: sketched-newton takes equalities alone, and `c` is an inequality");
    let bounded = minimize(1, |x| x[0]).grad_fd().hess_fd().within(crate::problem::Simplex);
    assert!(SketchedNewton::default().solve(&bounded, &[1.0]).is_err());
    let solver = SketchedNewton { nu: 1.0, ..SketchedNewton::default() };
    assert_eq!(
        solver.solve(&hs6(), &[1.0, 1.0]).expect_err("refused").to_string(),
        "nu: must be > 1, got 1 (default 1.5)"
    );

    let flat = hs6().subject_to(
        eq("d", |x| x[0].powi(2)).grad(|x, g| g[0] = 2.0 * x[0]).hess_vec(|_, v, out| out[0] = 2.0 * v[0]),
    );
    let out = SketchedNewton::default().solve(&flat, &[0.01, 1.0]).expect("a status");
    assert_eq!(out.status, Status::Singular, "{out:?}");
    let nowhere = minimize(1, |_| f64::NAN).grad_fd().hess_fd();
    assert_eq!(
        SketchedNewton::default().solve(&nowhere, &[1.0]).expect("a status").status,
        Status::NotFinite
    );
    // Without constraints it is Newton's method.
    let alone = minimize(1, |x| (x[0] - 3.0).powi(2))
        .grad(|x, g| g[0] = 2.0 * (x[0] - 3.0))
        .hess_vec(|_, v, out| out[0] = 2.0 * v[0]);
    let out = SketchedNewton::default().solve(&alone, &[1.0]).expect("valid");
    assert_eq!(out.status, Status::Optimal, "{out:?}");
}

#[test]
fn a_direction_that_no_penalty_makes_good_is_taken_in_the_end() {
    let solver = SketchedNewton {
        nu: 1.0 + 1e-15,
        sketches: 1,
        stop: Stop { iterations: 2, ..DIRECT.stop },
        ..SketchedNewton::default()
    };
    let out = solver.solve(&hs6(), &[-1.2, 1.0]).expect("valid");
    assert!(matches!(out.status, Status::IterationLimit | Status::Stalled), "{out:?}");
}
