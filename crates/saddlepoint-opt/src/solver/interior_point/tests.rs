use saddlepoint_core::test::assert_close;

use super::*;
use crate::outcome::Outcome;
use crate::problem::{Problem, Simplex, eq, ge, minimize};

fn solve(problem: &Problem, x0: &[f64]) -> Outcome {
    InteriorPoint::default().solve(problem, x0).expect("a valid problem")
}

fn bowl<'a>() -> Problem<'a> {
    minimize(2, |x| x[0] * x[0] + x[1] * x[1])
        .grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
        .hess_vec(|_, v, out| (0..2).for_each(|i| out[i] = 2.0 * v[i]))
}

#[test]
fn bounds_are_kept_on_the_way_and_variables_between_equal_ones_stay() {
    // Defined within the bounds alone.
    let problem = minimize(3, |x| x[0] - x[1].ln() + x[2])
        .grad(|x, g| g.copy_from_slice(&[1.0, -1.0 / x[1], 1.0]))
        .hess_vec(|x, v, out| out[1] = v[1] / (x[1] * x[1]))
        .within(Bounds::new(vec![-2.0, 0.0, 0.5], vec![f64::INFINITY, 3.0, 0.5]));
    let solver = InteriorPoint::default();
    let mut state = solver.init(&problem, &[0.0, 5.0, 9.0]).expect("valid");
    while solver.step(&problem, &mut state).expect("steps") == Flow::Continue {
        assert!(
            state.v[0] > -2.0 && state.v[1] > 0.0 && state.v[1] < 3.0 && (state.v[2] - 0.5).abs() < 1e-15,
            "{state:?}"
        );
    }
    assert_close!(state.x(), [-2.0, 3.0, 0.5], atol = 1e-6);
    let out = solve(&problem, &[0.0, 5.0, 9.0]);
    assert_eq!(out.status, Status::Optimal, "{out:?}");
    assert_close!(out.reduced[..2], [1.0, -1.0 / 3.0], atol = 1e-5);
}

#[test]
fn iterates_near_a_solution_fall_together_like_those_of_newton() {
    let problem = minimize(2, |x| -x[0] - x[1])
        .grad(|_, g| g.fill(-1.0))
        .hess_vec(|_, _, out| out.fill(0.0))
        .subject_to(
            eq("circle", |x| x[0] * x[0] + x[1] * x[1] - 2.0)
                .grad(|x, g| (0..2).for_each(|i| g[i] = 2.0 * x[i]))
                .hess_vec(|_, v, out| (0..2).for_each(|i| out[i] = 2.0 * v[i])),
        );
    let solver =
        InteriorPoint { stop: Stop { tolerance: 1e-12, iterations: 20 }, ..InteriorPoint::default() };
    let mut state = solver.init(&problem, &[1.3, 0.9]).expect("valid");
    let mut far = vec![(1.3_f64 - 1.0).hypot(0.9 - 1.0)];
    while solver.step(&problem, &mut state).expect("steps") == Flow::Continue {
        far.push((state.x()[0] - 1.0).hypot(state.x()[1] - 1.0));
    }
    assert!(far.len() <= 7, "{far:?}");
    for pair in far.windows(2).filter(|pair| pair[0] < 0.05) {
        assert!(pair[1] <= 4.0 * pair[0] * pair[0] + 1e-14, "{far:?}");
    }
    assert_close!(state.multipliers(), [0.5], rtol = 1e-10);
}

#[test]
fn dependent_constraints_are_solved_where_the_barrier_has_vanished() {
    let same = |name: &str| eq(name, |x| x[0] - 1.0).grad(|_, g| g.copy_from_slice(&[1.0, 0.0]));
    let problem = bowl().subject_to(same("c")).subject_to(same("d")).hess_fd();
    let stop = Stop { tolerance: 1e-300, ..Stop::default() };
    let solver = InteriorPoint { stop, kappa_mu: 1e-300, ..InteriorPoint::default() };
    let mut state = solver.init(&problem, &[0.9, 0.1]).expect("valid");
    for _ in 0..3 {
        solver.step(&problem, &mut state).expect("steps");
    }
    assert!(state.mu.abs() < f64::MIN_POSITIVE, "{state:?}");
    assert_close!(state.x(), [1.0, 0.0], atol = 1e-12);
}

#[test]
fn what_it_cannot_take_is_refused() {
    let told = |problem: Problem| {
        InteriorPoint::default().solve(&problem, &[0.0; 2]).expect_err("refused").to_string()
    };
    assert_eq!(
        told(bowl().within(Simplex)),
        "the problem: interior-point takes bounds and no other set or norm; state it as constraints, or use the augmented \
         Lagrangian"
    );
    let bent = bowl().subject_to(eq("c", |x| x[0]).grad(|_, g| g[0] = 1.0));
    assert!(told(bent).starts_with("the problem: constraint `c` has no second derivatives"));
    let solver = InteriorPoint { tau: 1.0, ..InteriorPoint::default() };
    let told = solver.solve(&bowl(), &[0.0; 2]).expect_err("refused").to_string();
    assert_eq!(told, "tau: must be in (0, 1), got 1 (default 0.99)");
}

#[test]
fn a_state_that_was_written_and_read_continues_exactly() {
    let problem = bowl()
        .subject_to(
            ge("c", |x| x[0] * x[1] - 2.0)
                .grad(|x, g| g.copy_from_slice(&[x[1], x[0]]))
                .hess_vec(|_, v, out| out.copy_from_slice(&[v[1], v[0]])),
        )
        .within(Bounds::new(vec![0.1; 2], vec![f64::INFINITY; 2]));
    let solver = InteriorPoint::default();
    let mut whole = solver.init(&problem, &[3.0, 1.0]).expect("valid");
    for _ in 0..8 {
        let text = serde_json::to_string(&whole).expect("serialises");
        let mut read: InteriorPointState = serde_json::from_str(&text).expect("parses");
        let flow = solver.step(&problem, &mut whole).expect("steps");
        assert_eq!(flow, solver.step(&problem, &mut read).expect("steps"));
        assert_eq!(whole, read);
    }
}
