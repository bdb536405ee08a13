//! The value functions behind the methods, computed to a tolerance: for diagnostics, experiments and tests, not inside the loops.
//!
//! ```text
//! v(x,y,z)  = min_{θ in Y} max_{λ in Z}  f(x,θ) + λᵀ g(x,θ) + |θ − y|²/(2γ₁) − |λ − z|²/(2γ₂)
//! ψ_σ(x)    = ( min_{y in Y} [σ F(x,y) + f(x,y)]  −  min_{y in Y} f(x,y) ) / σ
//! ```
//! `v` is the proximal Lagrangian value function of Yao et al. 2024 (arXiv:2401.16164), `ψ_σ` the penalised hyper-objective of Kwon et
//! al. 2024 (arXiv:2309.01753), here also with constraints `g`, whose multipliers enter its gradient. `ψ_σ <= ψ`, and it rises to
//! `ψ` as `σ` falls if the lower level has a proximal error bound.

use super::Bilevel;
use super::inner::{Effort, Inner, Solved, solve};
use super::problem::lagrangian_grad;
use crate::linalg::add_scaled;

/// Parameters of `v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proximal {
    /// `γ₁`.
    pub gamma1: f64,
    /// `γ₂`.
    pub gamma2: f64,
    /// Where multipliers are truncated.
    pub r: f64,
}

/// `v` at a point.
#[derive(Debug, Clone, PartialEq)]
pub struct ProximalValue {
    /// `v(x, y, z)`.
    pub value: f64,
    /// The saddle point's lower variable.
    pub theta: Vec<f64>,
    /// Its multipliers.
    pub lambda: Vec<f64>,
    /// Derivatives by `x`, `y` and `z`.
    pub grad: [Vec<f64>; 3],
    /// What the inner solve left of its own gradient.
    pub residual: f64,
}

/// `v` and its gradient, by the envelope theorem.
pub fn proximal_value<P: Bilevel + ?Sized>(
    problem: &P,
    (x, y, z): (&[f64], &[f64], &[f64]),
    parameters: Proximal,
) -> ProximalValue {
    let Proximal { gamma1, gamma2, r } = parameters;
    let inner = Inner { problem, x, sigma: 0.0, prox: Some((y, gamma1)), z, gamma2, r };
    let Solved { y: theta, lambda, residual } = inner.minimise(y, EFFORT);
    let (mut dx, mut unused) = (vec![0.0; x.len()], vec![0.0; y.len()]);
    lagrangian_grad(problem, x, &theta, &lambda, &mut dx, &mut unused);
    let dy = y.iter().zip(&theta).map(|(y, theta)| (y - theta) / gamma1).collect();
    let dz = lambda.iter().zip(z).map(|(lambda, z)| (lambda - z) / gamma2).collect();
    ProximalValue { value: inner.value(&theta, &lambda), theta, lambda, grad: [dx, dy, dz], residual }
}

/// `ψ_σ` at a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Penalised {
    /// `ψ_σ(x)`.
    pub value: f64,
    /// Its gradient.
    pub grad: Vec<f64>,
    /// The minimiser of `σ F + f`.
    pub y: Vec<f64>,
    /// The minimiser of `f`.
    pub z: Vec<f64>,
    /// Its multipliers.
    pub multipliers: Vec<f64>,
    /// What the inner solves left of their gradients; the error of `grad` is about this over `σ`.
    pub residual: f64,
}

/// `ψ_σ` and its gradient `∇_x F(x,y) + (∇_x L(x,y,λ_y) − ∇_x L(x,z,λ_z))/σ` with `L = f + λᵀg`. The lower level is solved from `y` and
/// `multipliers` (0 where a problem has none yet); where it has several valleys, both minimisers are those of the start.
pub fn penalised<P: Bilevel + ?Sized>(
    problem: &P,
    x: &[f64],
    sigma: f64,
    (y, multipliers): (&[f64], &[f64]),
) -> Penalised {
    let z = solve(problem, x, 0.0, (y, multipliers), EFFORT);
    let with = solve(problem, x, sigma, (&z.y, &z.lambda), EFFORT);
    let (n, m) = (x.len(), y.len());
    let (mut grad, mut at_y, mut at_z, mut unused) = (vec![0.0; n], vec![0.0; n], vec![0.0; n], vec![0.0; m]);
    problem.upper_grad(x, &with.y, &mut grad, &mut unused);
    lagrangian_grad(problem, x, &with.y, &with.lambda, &mut at_y, &mut unused);
    lagrangian_grad(problem, x, &z.y, &z.lambda, &mut at_z, &mut unused);
    add_scaled(&mut at_y, -1.0, &at_z);
    add_scaled(&mut grad, 1.0 / sigma, &at_y);
    let least = problem.lower(x, &z.y);
    let value = problem.upper(x, &with.y) + (problem.lower(x, &with.y) - least) / sigma;
    let residual = with.residual.max(z.residual);
    Penalised { value, grad, y: with.y, z: z.y, multipliers: z.lambda, residual }
}

const EFFORT: Effort = Effort { tolerance: 1e-11, iterations: 20_000 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::super::toy::{self, Coupled, Objective};
    use super::super::{Form, Quadratic};
    use super::*;

    /// `f = (θ − x)²/2` under `θ <= 1`; the upper objective plays no part.
    fn interval() -> Quadratic {
        let upper = Form::new([0.0; 4], [0.0; 2], 0.0);
        let lower = Form::new([1.0, -1.0, -1.0, 1.0], [0.0; 2], 0.0);
        Quadratic::new(1, 1, upper, lower).and_then(|p| p.at_most(&[0.0, 1.0], 1.0)).expect("fits")
    }

    #[test]
    fn the_proximal_value_is_known() {
        let of = |point: [f64; 3], gamma: [f64; 2], r| {
            let [x, y, z] = point;
            let parameters = Proximal { gamma1: gamma[0], gamma2: gamma[1], r };
            let v = proximal_value(&interval(), (&[x], &[y], &[z]), parameters);
            [v.value, v.theta[0], v.lambda[0], v.grad[0][0], v.grad[1][0], v.grad[2][0]]
        };
        let first = [
            0.493_468_468_468,
            1.058_558_558_559,
            0.885_585_585_586,
            0.941_441_441_441,
            -0.055_855_855_856,
            0.058_558_558_559,
        ];
        assert_close!(of([2.0, 0.5, 0.3], [10.0; 2], 1000.0), first, atol = 1e-11);
        assert_close!(
            of([0.2, 0.5, 0.3], [1.0, 2.0], 1000.0),
            [0.0, 0.35, 0.0, -0.15, 0.15, -0.15],
            atol = 1e-11
        );
        // y solves the lower level and z is its multiplier: v = f.
        assert_close!(of([2.0, 1.0, 1.0], [0.5; 2], 1000.0), [0.5, 1.0, 1.0, 1.0, 0.0, 0.0], atol = 1e-11);
        // Truncated below the true multiplier.
        let cut = [0.318_363_636_364, 1.545_454_545_455, 0.4, 0.454_545_454_545, -0.054_545_454_545, -0.06];
        assert_close!(of([2.0, 1.0, 1.0], [10.0; 2], 0.4), cut, atol = 1e-11);
    }

    proptest! {
        #[test]
        fn its_gradients_are_derivatives_and_it_is_never_above_the_lower_objective(
            w in prop::array::uniform9(-2.0..2.0f64),
            z in -2.0..2.0f64,
        ) {
            let problem = Coupled { n: 3, objective: Objective::Squares };
            let parameters = Proximal { gamma1: 2.0, gamma2: 0.5, r: 50.0 };
            let (mut x, mut y) = (w[..3].to_vec(), w[3..].to_vec());
            problem.project(&mut x, &mut y).expect("projects");
            let point = [x.clone(), y.clone(), vec![z]].concat();
            let at = |p: &[f64]| proximal_value(&problem, (&p[..3], &p[3..9], &p[9..]), parameters);
            let v = at(&point);
            prop_assert!(v.value <= problem.lower(&x, &y) + 1e-12, "{v:?}");
            for (i, grad) in v.grad.concat().into_iter().enumerate() {
                let moved = |h: f64| { let mut p = point.clone(); p[i] += h; at(&p).value };
                let difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                prop_assert!((difference - grad).abs() < 1e-7, "{i}: {difference} {grad}");
            }
        }
    }

    fn psi(problem: &Quadratic, x: f64, sigma: f64) -> Penalised {
        penalised(problem, &[x], sigma, (&vec![0.0; problem.sizes().lower], &[]))
    }

    #[test]
    fn the_penalised_objective_is_known() {
        let problem = toy::scalar(None);
        for (x, sigma, y, value, grad) in [
            (2.0, 0.1, 1.909_090_909_091, 0.654_545_454_545, 1.109_090_909_091),
            (2.0, 0.01, 1.990_099_009_901, 0.695_049_504_950, 1.190_099_009_901),
            (-1.0, 0.5, -1.0 / 3.0, 1.383_333_333_333, -1.433_333_333_333),
        ] {
            let found = psi(&problem, x, sigma);
            assert_close!([found.y[0], found.value, found.grad[0]], [y, value, grad], atol = 1e-9);
        }
        // In a box.
        let problem = toy::scalar(Some(1.0));
        for (x, y, z, value, grad) in [
            (2.0, 1.0, 1.0, 0.2, 0.2),
            (0.5, 0.545_454_545_455, 0.5, 0.126_136_363_636, -0.404_545_454_545),
            (-3.0, -1.0, -1.0, 2.45, -0.3),
        ] {
            let found = psi(&problem, x, 0.1);
            assert_close!(
                [found.y[0], found.z[0], found.value, found.grad[0]],
                [y, z, value, grad],
                atol = 1e-9
            );
        }
    }

    #[test]
    fn it_does_not_see_a_jump() {
        for (x, sigma, value) in
            [(0.05, 0.1, 0.44), (0.3, 0.1, 1.09), (-0.3, 0.01, 1.09), (0.002, 0.01, 0.190_004)]
        {
            assert_close!(psi(&toy::bilinear(), x, sigma).value, value, atol = 1e-9);
        }
        assert_close!(psi(&toy::bilinear(), 0.05, 0.1).y[0], -0.25, atol = 1e-9);
    }

    #[test]
    fn a_line_of_solutions_is_as_good_as_one() {
        let problem = toy::line();
        for (x, sigma, y, value, grad) in [
            (2.0, 0.1, [1.9375, -0.03125], 0.903_125, 1.1375),
            (2.0, 0.001, [1.999_333_777_481, -0.000_333_111_259], 0.949_500_333_111, 1.199_333_777_481),
            (-1.0, 0.05, [0.032_258_064_516, -0.983_870_967_742], 0.775_806_451_613, -1.067_741_935_484),
        ] {
            let found = psi(&problem, x, sigma);
            assert_close!([found.value, found.grad[0]], [value, grad], atol = 1e-7);
            assert_close!(found.y, y, atol = 1e-7);
        }
    }

    proptest! {
        #[test]
        fn it_rises_to_the_hyper_objective_and_its_gradient_is_its_derivative(x in -3.0..3.0f64, sigma in 0.01..0.5f64) {
            let problem = toy::line();
            let found = psi(&problem, x, sigma);
            let m = (x - 0.5) / 1.5;
            let limit = m * m / 2.0 + (m / 2.0).powi(2) + 0.05 * x * x;
            prop_assert!(found.value <= limit + 1e-9, "{found:?} {limit}");
            prop_assert!(psi(&problem, x, sigma / 2.0).value >= found.value - 1e-9);
            let h = 1e-4;
            let difference = (psi(&problem, x + h, sigma).value - psi(&problem, x - h, sigma).value) / (2.0 * h);
            prop_assert!((difference - found.grad[0]).abs() < 1e-5, "{difference} {found:?}");
        }
    }
}
