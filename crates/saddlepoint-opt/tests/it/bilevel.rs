//! Every bilevel solver on every problem of its class whose solution is known, judged by the problem.

use saddlepoint_core::test::assert_close;
use saddlepoint_opt::bilevel::toy::{self, Coupled, Objective};
use saddlepoint_opt::bilevel::{
    Bilevel, F2sa, Form, Hypergradient, Loops, LowerCurvature, LvHba, Outcome, PenaltyBilevel, Quadratic,
    Solver,
};
use saddlepoint_opt::outcome::Status;
use saddlepoint_opt::problem::{Ball, Bounds, Simple};
use saddlepoint_opt::solver::Stop;
use saddlepoint_opt::{Error, Result};

/// What a solver can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// The lower level is strongly convex over the whole space.
    Smooth,
    /// It is strongly convex over a set.
    Set,
    /// It has a line of solutions.
    Flat,
    /// It has constraints that couple both levels.
    Coupling,
}

struct Known<P: ?Sized> {
    name: &'static str,
    class: Class,
    start: (Vec<f64>, Vec<f64>),
    x: Vec<f64>,
    y: Vec<f64>,
    problem: Box<P>,
}

/// A random problem with `n = m = 4`, strongly convex, whose solution the normal equations give by the elimination of `y`.
fn random(seed: u32) -> Known<dyn LowerCurvature> {
    let (n, len) = (4, 8);
    let number = |i: u32| (f64::from(seed * 97 + i) * 12.9898).sin() * 1.5;
    let spd = |base: u32| {
        let a: Vec<f64> = (0..64).map(|i| number(base + i) * 0.4).collect();
        let mut q = vec![0.0; 64];
        for i in 0..len {
            for j in 0..len {
                q[i * len + j] = (0..len).map(|k| a[i * len + k] * a[j * len + k]).sum::<f64>()
                    + f64::from(u8::from(i == j));
            }
        }
        q
    };
    let linear = |base: u32| (0..8).map(|i| number(base + i)).collect::<Vec<_>>();
    let (upper, lower) = (Form::new(spd(0), linear(100), 0.0), Form::new(spd(200), linear(300), 0.0));
    // y = A x + c from the lower level, then the gradient of F(x, A x + c) = 0.
    let block = |q: &[f64], i: usize, j: usize| -> Vec<f64> {
        (0..n)
            .flat_map(|a| (0..n).map(move |b| (a, b)))
            .map(|(a, b)| q[(i * n + a) * len + j * n + b])
            .collect()
    };
    let times = |a: &[f64], b: &[f64], transposed: bool| -> Vec<f64> {
        let columns = b.len() / n;
        let at = |i: usize, k: usize| if transposed { a[k * n + i] } else { a[i * n + k] };
        (0..n)
            .flat_map(|i| (0..columns).map(move |j| (i, j)))
            .map(|(i, j)| (0..n).map(|k| at(i, k) * b[k * columns + j]).sum())
            .collect()
    };
    let minus = |a: Vec<f64>| -> Vec<f64> { a.into_iter().map(|a| -a).collect() };
    let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let a = minus(solve(block(&lower.matrix, 1, 1), block(&lower.matrix, 1, 0)));
    let c = minus(solve(block(&lower.matrix, 1, 1), lower.linear[n..].to_vec()));
    let (xx, xy, yy) = (block(&upper.matrix, 0, 0), block(&upper.matrix, 0, 1), block(&upper.matrix, 1, 1));
    let mixed = times(&xy, &a, false);
    let mixed_t: Vec<f64> = (0..16).map(|k| mixed[(k % n) * n + k / n]).collect();
    let hessian = add(&add(&xx, &add(&mixed, &mixed_t)), &times(&a, &times(&yy, &a, false), true));
    let right = add(
        &add(&upper.linear[..n], &times(&xy, &c, false)),
        &times(&a, &add(&upper.linear[n..], &times(&yy, &c, false)), true),
    );
    let x = minus(solve(hessian, right));
    let y = add(&times(&a, &x, false), &c);
    let problem = Box::new(Quadratic::new(n, n, upper, lower).expect("symmetric"));
    Known { name: "random", class: Class::Smooth, start: (vec![0.0; n], vec![0.0; n]), x, y, problem }
}

/// `A⁻¹ B` by elimination.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = 4;
    let columns = b.len() / n;
    for k in 0..n {
        for i in (0..n).filter(|&i| i != k) {
            let factor = a[i * n + k] / a[k * n + k];
            (0..n).for_each(|j| a[i * n + j] -= factor * a[k * n + j]);
            (0..columns).for_each(|j| b[i * columns + j] -= factor * b[k * columns + j]);
        }
    }
    (0..n * columns).map(|k| b[k] / a[(k / columns) * n + k / columns]).collect()
}

fn curved() -> Vec<Known<dyn LowerCurvature>> {
    let known =
        |name, class, start: (f64, Vec<f64>), x, y: &[f64], problem: Quadratic| Known::<dyn LowerCurvature> {
            name,
            class,
            start: (vec![start.0], start.1),
            x: vec![x],
            y: y.to_vec(),
            problem: Box::new(problem),
        };
    let ball = toy::scalar(None).within(Ball::new(vec![0.0], 0.5), Simple::Free).expect("fits");
    vec![
        known("scalar", Class::Smooth, (3.0, vec![0.0]), 1.0 / 1.1, &[1.0 / 1.1], toy::scalar(None)),
        // F falls towards x = 1/1.1 where the ball ends.
        known("scalar in a ball", Class::Smooth, (-3.0, vec![0.0]), 0.5, &[0.5], ball),
        known(
            "scalar in a box",
            Class::Set,
            (0.5, vec![3.0]),
            1.0 / 1.1,
            &[1.0 / 1.1],
            toy::scalar(Some(1.0)),
        ),
        known(
            "line",
            Class::Flat,
            (2.0, vec![0.0, 0.0]),
            10.0 / 23.0,
            &[22.0 / 23.0, -12.0 / 23.0],
            toy::line(),
        ),
        random(1),
        random(2),
    ]
}

fn coupled() -> Vec<Known<dyn Bilevel>> {
    let blocks = |n: usize, v: [f64; 2]| [vec![v[0]; n], vec![v[1]; n]].concat();
    vec![
        Known {
            name: "half-space",
            class: Class::Coupling,
            start: (vec![0.0], vec![0.0]),
            x: vec![1.0],
            y: vec![0.0],
            problem: Box::new(toy::half_space()),
        },
        Known {
            name: "squares",
            class: Class::Coupling,
            start: (vec![0.0; 5], vec![0.0; 10]),
            x: vec![-0.3; 5],
            y: blocks(5, [0.7, -0.4]),
            problem: Box::new(Coupled { n: 5, objective: Objective::Squares }),
        },
        Known {
            name: "product",
            class: Class::Coupling,
            start: (vec![0.0; 5], vec![0.0; 10]),
            x: vec![1.0; 5],
            y: blocks(5, [2.0, -3.0]),
            problem: Box::new(Coupled { n: 5, objective: Objective::Product }),
        },
    ]
}

/// A solver, what it can take, and how near its default settings bring it.
struct Entry {
    name: &'static str,
    takes: fn(Class) -> bool,
    near: f64,
}

fn check(entry: &Entry, known: (&str, &[f64], &[f64]), out: &Outcome) {
    let (problem, x, y) = known;
    let told = format!("{} on {problem}: {:?} {} {:?}", entry.name, out.status, out.diagnosis, out.x);
    for (found, expected) in out.x.iter().zip(x).chain(out.response.y.iter().zip(y)) {
        assert!((found - expected).abs() <= entry.near * expected.abs().max(1.0), "{told}");
    }
    assert!(out.diagnosis.lower.feasibility < 1e-6, "{told}");
    // Claimed only where the hyper-gradient says so.
    assert_eq!(out.status == Status::Optimal, out.diagnosis.error() <= 1e-3, "{told}");
}

#[test]
fn solvers_of_first_order_find_known_solutions() {
    let any = |_| true;
    let in_sets = |class| class != Class::Coupling;
    let smooth = |class| class == Class::Smooth;
    for known in curved() {
        let problem: &dyn LowerCurvature = &*known.problem;
        let (x, y) = (&known.start.0, &known.start.1);
        let expected = (known.name, &known.x[..], &known.y[..]);
        let entry = Entry { name: "lv-hba", takes: any, near: 0.1 };
        if (entry.takes)(known.class) {
            check(&entry, expected, &LvHba::default().solve(problem, x, y).expect("runs"));
        }
        for loops in [Loops::Double { inner: 5, batch: 1 }, Loops::Single { eta: None }] {
            let entry = Entry { name: "penalty-bilevel", takes: in_sets, near: 0.05 };
            let solver = PenaltyBilevel { loops, ..PenaltyBilevel::default() };
            if (entry.takes)(known.class) {
                check(&entry, expected, &solver.solve(problem, x, y).expect("runs"));
            }
        }
        let entry = Entry { name: "f2sa", takes: smooth, near: 0.1 };
        if (entry.takes)(known.class) {
            check(&entry, expected, &F2sa::default().solve(problem, x, y).expect("runs"));
        }
    }
    for known in coupled() {
        let entry = Entry { name: "lv-hba", takes: any, near: 0.1 };
        let out = LvHba::default().solve(&*known.problem, &known.start.0, &known.start.1).expect("runs");
        check(&entry, (known.name, &known.x, &known.y), &out);
        for refused in [
            PenaltyBilevel::default().solve(&*known.problem, &known.start.0, &known.start.1),
            F2sa::default().solve(&*known.problem, &known.start.0, &known.start.1),
        ] {
            assert!(matches!(refused, Err(Error::Problem { .. })), "{}", known.name);
        }
    }
}

#[test]
fn solvers_of_second_order_find_known_solutions() {
    for known in curved().into_iter().filter(|known| known.class != Class::Flat) {
        for solver in [Hypergradient::default(), Hypergradient::unrolled(200)] {
            let out = solver.solve(&*known.problem, &known.start.0, &known.start.1).expect("runs");
            assert_eq!(out.status, Status::Optimal, "{}: {}", known.name, out.diagnosis);
            assert_close!(out.x, known.x, atol = 1e-4);
            assert_close!(out.y, known.y, atol = 1e-4);
        }
    }
}

/// Runs all solvers for a few steps.
fn all(problem: &impl LowerCurvature, x: &[f64], y: &[f64]) -> Vec<Result<Outcome>> {
    let stop = Stop { tolerance: 1e-6, iterations: 30 };
    let single = PenaltyBilevel { loops: Loops::Single { eta: None }, stop, ..PenaltyBilevel::default() };
    vec![
        LvHba { stop, ..LvHba::default() }.solve(problem, x, y),
        PenaltyBilevel { stop, ..PenaltyBilevel::default() }.solve(problem, x, y),
        single.solve(problem, x, y),
        F2sa { stop, ..F2sa::default() }.solve(problem, x, y),
        Hypergradient { stop, ..Hypergradient::default() }.solve(problem, x, y),
        Hypergradient { stop, ..Hypergradient::unrolled(3) }.solve(problem, x, y),
    ]
}

#[test]
fn nothing_to_choose_or_no_common_point_is_no_panic() {
    let zero = |len: usize| Form::new(vec![0.0; len * len], vec![0.0; len], 0.0);
    for (n, m) in [(0, 0), (1, 0), (0, 1)] {
        let problem = Quadratic::new(n, m, zero(n + m), zero(n + m)).expect("fits");
        for out in all(&problem, &vec![0.0; n], &vec![0.0; m]) {
            assert_eq!(out.expect("runs").status, Status::Optimal, "{n} {m}");
        }
    }
    let apart = toy::scalar(None)
        .at_most(&[1.0, 0.0], -1.0)
        .and_then(|p| p.at_most(&[-1.0, 0.0], -1.0))
        .expect("each alone");
    let error = LvHba::default().solve(&apart, &[0.0], &[0.0]).expect_err("empty").to_string();
    assert!(error.contains("no common point"), "{error}");
    let crossed = toy::scalar(None)
        .within(Bounds::new(vec![1.0], vec![0.0]), Simple::Free)
        .expect_err("empty")
        .to_string();
    assert!(crossed.contains("hold for no number"), "{crossed}");
}
