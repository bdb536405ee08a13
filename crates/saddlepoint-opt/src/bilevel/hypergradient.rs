//! Descent along the hyper-gradient, by implicit differentiation or through unrolled steps: the second-order baselines.
//!
//! # Objective
//! Where the lower level has one solution `y*(x)`, `ψ(x) = F(x, y*(x))` has the gradient
//! ```text
//! implicit    ∇ψ = ∇_x F − ∇²_xy f q,      Π ∇²_yy f Π q = Π ∇_y F     by conjugate gradients; Π: derivative of the projection to Y
//! unrolled    y_{t+1} = P_Y(y_t − s ∇_y f(x, y_t)), t < T:             ∇[F(x, y_T(x))] by the reverse of these steps
//! ```
//! Conjugate gradients from 0 give the pseudo-inverse where `∇²_yy f` is singular and `∇_y F` in its range. Descent is by projected
//! gradient steps with backtracking (Armijo), so that no step of `x` has to be chosen.
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | by | | implicit | | implicit: `tolerance` 1e-9 of the lower level and of the linear system; unrolled: `steps` T = 100 |
//! | stop | | 1e-5, 1000 | | it ends by itself where `\|x − P_X(x − ∇ψ)\|` is below the tolerance |
//! # Metrics
//! `objective` `F` · `stationarity` `|x − P_X(x − ∇ψ)|` · `step` of `x`
//! # Reference
//! Implicit: Pedregosa 2016, arXiv:1602.02355. Unrolled: Franceschi et al. 2017, arXiv:1703.01785.
//! # Differences
//! The unrolled steps start from the last lower variable, whose dependence on earlier `x` is left out (truncated
//! backpropagation); their length is the inverse of the measured Lipschitz constant.
//! # Checked against
//! Closed forms of the toy problems; finite differences of `ψ`.

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::conjugate::conjugate_gradients;
use super::diagnosis::projected;
use super::inner::{Effort, Solved, solve};
use super::problem::{begin, check_start};
use super::vector::{distance, finite};
use super::{Iterate, LowerCurvature, Solver, measure};
use crate::linalg::add_scaled;
use crate::outcome::Status;
use crate::solver::{Flow, Stop};
use crate::{Error, Result};

/// The method and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hypergradient {
    /// How the gradient is made.
    pub by: By,
    /// When it ends.
    pub stop: Stop,
}

/// How the gradient is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// By the implicit function theorem.
    Implicit {
        /// Of the lower level's gradient and of the linear system, > 0.
        tolerance: f64,
    },
    /// Through gradient steps of the lower level.
    Unrolled {
        /// How many, >= 1.
        steps: u32,
    },
}

impl Default for Hypergradient {
    fn default() -> Self {
        Self { by: By::Implicit { tolerance: 1e-9 }, stop: Stop { tolerance: 1e-5, iterations: 1000 } }
    }
}

impl Hypergradient {
    /// With so many unrolled steps.
    pub fn unrolled(steps: u32) -> Self {
        Self { by: By::Unrolled { steps }, ..Self::default() }
    }
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HypergradientState {
    /// Upper variable.
    pub x: Vec<f64>,
    /// Lower variable.
    pub y: Vec<f64>,
    /// Steps done.
    pub k: u64,
    /// The next step of `x` that is tried.
    pub step: f64,
    /// Of the last gradient.
    pub stationarity: Option<f64>,
    /// `F` at the last point.
    pub objective: Option<f64>,
}

/// The lower level answered at an `x`.
struct Answer {
    y: Vec<f64>,
    /// The points before the last and the step length, where they are to be reversed.
    path: Vec<Vec<f64>>,
    length: f64,
}

impl Hypergradient {
    fn answer<P: LowerCurvature + ?Sized>(&self, problem: &P, x: &[f64], start: &[f64]) -> Answer {
        let mut unused = vec![0.0; x.len()];
        let lipschitz = measure::lipschitz(start, |y, dy| problem.lower_grad(x, y, &mut unused, dy));
        let length = 1.0 / lipschitz.max(f64::MIN_POSITIVE);
        match self.by {
            By::Implicit { tolerance } => {
                let Solved { y, .. } =
                    solve(problem, x, 0.0, (start, &[]), Effort { tolerance, iterations: 100_000 });
                Answer { y, path: Vec::new(), length }
            }
            By::Unrolled { steps } => {
                let (mut y, mut grad) = (start.to_vec(), vec![0.0; start.len()]);
                problem.lower_set().prox(1.0, &mut y);
                let mut path = Vec::with_capacity(steps as usize);
                for _ in 0..steps {
                    problem.lower_grad(x, &y, &mut unused, &mut grad);
                    path.push(y.clone());
                    add_scaled(&mut y, -length, &grad);
                    problem.lower_set().prox(1.0, &mut y);
                }
                Answer { y, path, length }
            }
        }
    }

    fn gradient<P: LowerCurvature + ?Sized>(&self, problem: &P, x: &[f64], answer: &Answer) -> Vec<f64> {
        let (n, m) = (x.len(), answer.y.len());
        let (mut grad, mut p) = (vec![0.0; n], vec![0.0; m]);
        problem.upper_grad(x, &answer.y, &mut grad, &mut p);
        let (mut unused, mut slope, mut cross, mut along) =
            (vec![0.0; n], vec![0.0; m], vec![0.0; n], vec![0.0; m]);
        // The projection's derivative at the end of a gradient step from y.
        let mut through = |y: &[f64], v: &mut [f64]| {
            problem.lower_grad(x, y, &mut unused, &mut slope);
            let mut before = y.to_vec();
            add_scaled(&mut before, -answer.length, &slope);
            let mut after = before.clone();
            problem.lower_set().prox(1.0, &mut after);
            problem.project_lower_vjp(&before, &after, v);
        };
        match self.by {
            By::Implicit { tolerance } => {
                through(&answer.y, &mut p);
                let q = conjugate_gradients(&p, tolerance, |v, out| {
                    problem.hess_yy(x, &answer.y, v, out);
                    through(&answer.y, out);
                });
                problem.hess_xy(x, &answer.y, &q, &mut cross);
                add_scaled(&mut grad, -1.0, &cross);
            }
            By::Unrolled { .. } => {
                for y in answer.path.iter().rev() {
                    through(y, &mut p);
                    problem.hess_xy(x, y, &p, &mut cross);
                    add_scaled(&mut grad, -answer.length, &cross);
                    problem.hess_yy(x, y, &p, &mut along);
                    add_scaled(&mut p, -answer.length, &along);
                }
            }
        }
        grad
    }
}

impl<P: LowerCurvature + ?Sized> Solver<P> for Hypergradient {
    type State = HypergradientState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x: &[f64], y: &[f64]) -> Result<HypergradientState> {
        check_start(problem, x, y)?;
        match self.by {
            By::Implicit { tolerance } => super::positive("tolerance", tolerance, 1e-9)?,
            By::Unrolled { steps: 0 } => return Err(Error::range("steps", ">= 1", 0.0, 100.0)),
            By::Unrolled { .. } => {}
        }
        if problem.sizes().constraints > 0 {
            let problem = "its lower level has constraints g, whose multipliers this method does not differentiate; use LvHba, \
                           or state them as a set";
            return Err(Error::Problem { problem: problem.to_owned() });
        }
        self.stop.check()?;
        let (x, y) = begin(problem, x, y)?;
        Ok(HypergradientState { x, y, k: 0, step: 1.0, stationarity: None, objective: None })
    }

    fn step(&self, problem: &P, s: &mut HypergradientState) -> Result<Flow> {
        /// What a step has to gain of what its slope promises.
        const ARMIJO: f64 = 1e-4;
        let answer = self.answer(problem, &s.x, &s.y);
        let objective = problem.upper(&s.x, &answer.y);
        let grad = self.gradient(problem, &s.x, &answer);
        if !finite(&[&answer.y, &grad, &[objective]]) {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        let stationarity = projected(problem.upper_set(), &s.x, &grad);
        (s.stationarity, s.objective) = (Some(stationarity), Some(objective));
        s.k += 1;
        if stationarity <= self.stop.tolerance {
            s.y = answer.y;
            return Ok(Flow::Stop(Status::Optimal));
        }
        loop {
            let mut x = s.x.clone();
            add_scaled(&mut x, -s.step, &grad);
            problem.upper_set().prox(1.0, &mut x);
            let there = self.answer(problem, &x, &s.y);
            let change: f64 = (0..x.len()).map(|i| grad[i] * (x[i] - s.x[i])).sum();
            let value = problem.upper(&x, &there.y);
            // What is not finite does not pass.
            if finite(&[&x, &there.y, &[value]]) && value <= objective + ARMIJO * change {
                let moved = distance(&x, &s.x);
                (s.x, s.y) = (x, there.y);
                s.step *= 2.0;
                return Ok(if moved > 0.0 { Flow::Continue } else { Flow::Stop(Status::Stalled) });
            }
            s.step *= 0.5;
            if s.step < 1e-14 {
                s.y = answer.y;
                s.step = 1.0;
                return Ok(Flow::Stop(Status::Stalled));
            }
        }
    }
}

impl Iterate for HypergradientState {
    fn x(&self) -> &[f64] {
        &self.x
    }

    fn y(&self) -> &[f64] {
        &self.y
    }

    fn iteration(&self) -> u64 {
        self.k
    }

    fn measures(&self) -> Metrics {
        let mut measures = Metrics::new();
        measures.set("objective", self.objective.unwrap_or(f64::NAN));
        measures.set("stationarity", self.stationarity.unwrap_or(f64::NAN));
        measures.set("step", self.step);
        measures
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::{Bilevel as _, Quadratic, toy};
    use super::*;

    fn gradient(solver: &Hypergradient, problem: &Quadratic, x: f64) -> f64 {
        let answer = solver.answer(problem, &[x], &vec![0.1; problem.sizes().lower]);
        solver.gradient(problem, &[x], &answer)[0]
    }

    #[test]
    fn gradients_are_known() {
        for solver in [Hypergradient::default(), Hypergradient::unrolled(200)] {
            // dψ = 0.1 x + x − 1.
            assert_close!(gradient(&solver, &toy::scalar(None), 2.0), 1.2, atol = 1e-8);
            // At its bound the lower variable does not move.
            assert_close!(gradient(&solver, &toy::scalar(Some(1.0)), 2.0), 0.2, atol = 1e-12);
            assert_close!(gradient(&solver, &toy::scalar(Some(1.0)), 0.5), 0.05 - 0.5, atol = 1e-8);
        }
    }

    #[test]
    fn a_line_of_lower_solutions_is_followed_by_the_pseudo_inverse() {
        let problem = toy::line();
        let of = |solver: Hypergradient, start: [f64; 2]| {
            let answer = solver.answer(&problem, &[2.0], &start);
            (answer.y.clone(), solver.gradient(&problem, &[2.0], &answer)[0])
        };
        // At the best of the lower solutions ∇_y F = (1, 1) is in the range of ∇²_yy f: dψ = 0.2 + 1.
        let (y, found) = of(Hypergradient::default(), [2.0, 0.0]);
        assert_close!(y, [2.0, 0.0], atol = 1e-12);
        assert_close!(found, 1.2, atol = 1e-8);
        // Steps from (0.1, 0.1) move both elements alike, each by half of what x moves: 0.2 + 3/2.
        let (y, found) = of(Hypergradient::unrolled(200), [0.1, 0.1]);
        assert_close!(y, [1.0, 1.0], atol = 1e-8);
        assert_close!(found, 1.7, atol = 1e-7);
    }

    #[test]
    fn few_unrolled_steps_are_differentiated_as_they_are() {
        // One step of length 1/L = 1 from y = 0.1 lands on x.
        let solver = Hypergradient::unrolled(1);
        assert_close!(gradient(&solver, &toy::scalar(None), 2.0), 1.2, atol = 1e-5);
        let problem = toy::line();
        let psi = |x: f64| problem.upper(&[x], &solver.answer(&problem, &[x], &[0.1, 0.4]).y);
        let answer = solver.answer(&problem, &[0.7], &[0.1, 0.4]);
        let difference = (psi(0.7 + 1e-5) - psi(0.7 - 1e-5)) / 2e-5;
        assert_close!(solver.gradient(&problem, &[0.7], &answer)[0], difference, atol = 1e-6);
    }

    #[test]
    fn it_ends_at_the_solution() {
        let out = Hypergradient::default().solve(&toy::scalar(None), &[3.0], &[0.0]).expect("runs");
        assert_eq!(out.status, Status::Optimal, "{}", out.diagnosis);
        assert_close!([out.x[0], out.y[0]], [1.0 / 1.1; 2], atol = 1e-5);
        let error = Hypergradient::default().solve(&toy::half_space(), &[0.0], &[0.0]).expect_err("refused");
        assert!(error.to_string().contains("does not differentiate"), "{error}");
    }
}
