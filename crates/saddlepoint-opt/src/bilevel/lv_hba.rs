//! LV-HBA: constrained bilevel problems through a proximal Lagrangian value function, by gradients alone and in one loop.
//!
//! # Objective
//! The lower level may have many solutions and constraints that couple both levels. With `Z = [0, r]^p` (`[-r, r]` for
//! an equality)
//! ```text
//! v(x,y,z) = min_{θ in Y} max_{λ in Z}  f(x,θ) + λᵀ g(x,θ) + |θ − y|²/(2γ₁) − |λ − z|²/(2γ₂)
//! ```
//! is differentiable, `f − v >= 0` wherever `g <= 0`, and equal to 0 if `y` solves the lower level with multiplier `z`. So
//! the method descends on `F/c_k + f − v` over `C x Z`, `C = {(x,y) in X x Y : g(x,y) <= 0}`, with `c_k = c (k+1)^power`,
//! and lets `θ` and `λ` follow their saddle point by one step each:
//! ```text
//! 1.  θ⁺ = P_Y(θ − η [∇_y f(x,θ) + J_yᵀ λ + (θ − y)/γ₁])     λ⁺ = P_Z(λ + η [g(x,θ) − (λ − z)/γ₂])
//! 2.  d_x = ∇_x F(x,y)/c_k + ∇_x f(x,y) − ∇_x f(x,θ⁺) − J_x(x,θ⁺)ᵀ λ⁺
//!     d_y = ∇_y F(x,y)/c_k + ∇_y f(x,y) − (y − θ⁺)/γ₁
//!     (x,y)⁺ = P_C((x,y) − α (d_x, d_y))
//! 3.  z⁺ = P_Z(z + β (λ⁺ − z)/γ₂)
//! ```
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | alpha | α | measured | > 0 | step of `(x, y)` |
//! | beta | β | as alpha | > 0 | step of `z` |
//! | eta | η | measured | > 0 | step of `θ` and `λ` |
//! | gamma1, gamma2 | γ₁, γ₂ | 1 | > 0 | proximal parameters; `γ₁ < 1/(2ρ)` if `f` is convex only up to `ρ/2 \|y\|²` |
//! | c, power | c, p | 1, 0.3 | > 0, [0, 1/2] | `c_k`; the distance to the solution ends at the order of `1/c_k` |
//! | r | r | 1000 | > 0 | truncation of multipliers; must exceed the true ones |
//! | stop | | 1e-3, 100000 | | it ends by itself where the stationarity and the relative change of `(x, y)` are below the tolerance |
//!
//! A step that is not given is measured at the start: `η` is half of the smaller of `(1/γ₁ + 1/γ₂)/|J_y|²` (above it `θ`
//! and `λ` circle ever wider) and of `1/(L + 1/γ₁)`, `α` half of the smaller of `η` and of the inverse Lipschitz constant of
//! `F/c + f`. A given `η` above the limit is noted in the outcome.
//! # Metrics
//! `stationarity` `c_k |((x,y) − (x,y)⁺)/α, (z − z⁺)/β|`, the distance of 0 to the gradient of `F + c_k (f − v)` plus the normal
//! cone of `C x Z`, with the `θ`, `λ` at hand · `truncated` multipliers that were cut at `r`, over all steps
//! # Reference
//! Yao, Yu, Zeng & Zhang 2024, ICLR, arXiv:2401.16164.
//! # Differences
//! None in the update. The paper leaves step sizes to the user; the authors' program for the SVM updates neither the upper variable nor
//! `z`, which is not followed.
//! # Checked against
//! Iterates of the paper's toy problems to ten digits, their solutions, finite differences of `v` (`value.rs`).

use saddlepoint_core::metrics::Metrics;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::{begin, check_start, lagrangian_grad};
use super::vector::{distance, finite};
use super::{Bilevel, Iterate, Solver, measure};
use crate::linalg::{add_scaled, norm};
use crate::outcome::Status;
use crate::solver::{Flow, Stop};
use crate::{Error, Result};

/// The method and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LvHba {
    /// Step of `(x, y)`, > 0; measured where it is not given.
    pub alpha: Option<f64>,
    /// Step of `z`, > 0; `alpha` where it is not given.
    pub beta: Option<f64>,
    /// Step of `θ` and `λ`, > 0; measured where it is not given.
    pub eta: Option<f64>,
    /// Proximal parameter of `θ`, > 0.
    pub gamma1: f64,
    /// Proximal parameter of `λ`, > 0.
    pub gamma2: f64,
    /// `c_0`, > 0.
    pub c: f64,
    /// Exponent of `c_k`, in [0, 0.5].
    pub power: f64,
    /// Where multipliers are truncated, > 0.
    pub r: f64,
    /// When it ends.
    pub stop: Stop,
}

impl Default for LvHba {
    fn default() -> Self {
        Self {
            alpha: None,
            beta: None,
            eta: None,
            gamma1: 1.0,
            gamma2: 1.0,
            c: 1.0,
            power: 0.3,
            r: 1000.0,
            stop: super::STOP,
        }
    }
}

/// Where it is. All of it can be written and read again; a run goes on to the bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LvHbaState {
    /// Upper variable.
    pub x: Vec<f64>,
    /// Lower variable.
    pub y: Vec<f64>,
    /// Centre of the multipliers.
    pub z: Vec<f64>,
    /// The saddle point's lower variable.
    pub theta: Vec<f64>,
    /// The saddle point's multipliers: the estimate of the lower level's.
    pub lambda: Vec<f64>,
    /// Steps done.
    pub k: u64,
    /// Step of `(x, y)`.
    pub alpha: f64,
    /// Step of `z`.
    pub beta: f64,
    /// Step of `θ` and `λ`.
    pub eta: f64,
    /// After the last step; see the page.
    pub stationarity: Option<f64>,
    /// Multipliers that were cut at `r`, over all steps.
    pub truncated: u64,
    /// What the outcome has to say.
    pub notes: Vec<String>,
}

impl LvHba {
    fn check(&self) -> Result<()> {
        let d = Self::default();
        super::measured("alpha", self.alpha)?;
        super::measured("beta", self.beta)?;
        super::measured("eta", self.eta)?;
        super::positive("gamma1", self.gamma1, d.gamma1)?;
        super::positive("gamma2", self.gamma2, d.gamma2)?;
        super::positive("c", self.c, d.c)?;
        super::positive("r", self.r, d.r)?;
        if !(0.0..=0.5).contains(&self.power) {
            return Err(Error::range("power", "in [0, 0.5]", self.power, d.power));
        }
        self.stop.check()
    }

    /// The steps that were not given, and a note where the given `η` is too long.
    fn steps<P: Bilevel + ?Sized>(&self, problem: &P, x: &[f64], y: &[f64]) -> ([f64; 3], Vec<String>) {
        let Self { gamma1, gamma2, c, .. } = *self;
        let n = x.len();
        let mut dx = vec![0.0; n];
        let inner = measure::lipschitz(y, |y, dy| problem.lower_grad(x, y, &mut dx, dy)) + 1.0 / gamma1;
        let coupling = measure::coupling(problem, x, y);
        let circles = (1.0 / gamma1 + 1.0 / gamma2) / (coupling * coupling);
        let eta = self.eta.unwrap_or(0.5 * circles.min(1.0 / inner));
        let both = measure::lipschitz(&[x, y].concat(), |w, out| {
            let ((x, y), (dx, dy)) = (w.split_at(n), out.split_at_mut(n));
            let (mut ux, mut uy) = (vec![0.0; n], vec![0.0; dy.len()]);
            problem.upper_grad(x, y, &mut ux, &mut uy);
            problem.lower_grad(x, y, dx, dy);
            add_scaled(dx, 1.0 / c, &ux);
            add_scaled(dy, 1.0 / c, &uy);
        });
        let alpha = self.alpha.unwrap_or(0.5 * eta.min(1.0 / (both + 1.0 / gamma1)));
        let notes = (eta > circles).then(|| {
            format!(
                "eta = {eta} is above (1/gamma1 + 1/gamma2)/|J_y|^2 = {circles:.3e}: theta and lambda may circle ever \
                 wider; lower eta or leave it out"
            )
        });
        ([alpha, self.beta.unwrap_or(alpha), eta], notes.into_iter().collect())
    }

    /// `Π_Z`; how many were cut at `r`.
    fn project_multipliers<P: Bilevel + ?Sized>(&self, problem: &P, lambda: &mut [f64]) -> u64 {
        let r = self.r;
        let mut cut = 0;
        for (i, lambda) in lambda.iter_mut().enumerate() {
            let least = if problem.equality(i) { -r } else { 0.0 };
            cut += u64::from(*lambda > r || problem.equality(i) && *lambda < -r);
            *lambda = lambda.clamp(least, r);
        }
        cut
    }
}

impl<P: Bilevel + ?Sized> Solver<P> for LvHba {
    type State = LvHbaState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x: &[f64], y: &[f64]) -> Result<LvHbaState> {
        self.check()?;
        check_start(problem, x, y)?;
        let (x, y) = begin(problem, x, y)?;
        let ([alpha, beta, eta], notes) = self.steps(problem, &x, &y);
        let zero = vec![0.0; problem.sizes().constraints];
        Ok(LvHbaState {
            theta: y.clone(),
            x,
            y,
            z: zero.clone(),
            lambda: zero,
            k: 0,
            alpha,
            beta,
            eta,
            stationarity: None,
            truncated: 0,
            notes,
        })
    }

    fn step(&self, problem: &P, s: &mut LvHbaState) -> Result<Flow> {
        let Self { gamma1, gamma2, c, power, stop: Stop { tolerance, .. }, .. } = *self;
        let sizes = problem.sizes();
        let c_k = c * ((s.k + 1) as f64).powf(power);
        let (mut dx, mut dy) = (vec![0.0; sizes.upper], vec![0.0; sizes.lower]);

        // 1. Both from the old theta and lambda.
        let mut g = vec![0.0; sizes.constraints];
        problem.constraints(&s.x, &s.theta, &mut g);
        lagrangian_grad(problem, &s.x, &s.theta, &s.lambda, &mut dx, &mut dy);
        let mut theta: Vec<f64> =
            (0..sizes.lower).map(|i| s.theta[i] - s.eta * (dy[i] + (s.theta[i] - s.y[i]) / gamma1)).collect();
        problem.lower_set().prox(1.0, &mut theta);
        let mut lambda: Vec<f64> = (0..sizes.constraints)
            .map(|i| s.lambda[i] + s.eta * (g[i] - (s.lambda[i] - s.z[i]) / gamma2))
            .collect();
        let cut = self.project_multipliers(problem, &mut lambda);

        // 2. With the new ones.
        let (mut follow_x, mut follow_y) = (vec![0.0; sizes.upper], vec![0.0; sizes.lower]);
        lagrangian_grad(problem, &s.x, &theta, &lambda, &mut follow_x, &mut follow_y);
        let (mut upper_x, mut upper_y) = (vec![0.0; sizes.upper], vec![0.0; sizes.lower]);
        problem.upper_grad(&s.x, &s.y, &mut upper_x, &mut upper_y);
        problem.lower_grad(&s.x, &s.y, &mut dx, &mut dy);
        let mut x: Vec<f64> =
            (0..sizes.upper).map(|i| s.x[i] - s.alpha * (upper_x[i] / c_k + dx[i] - follow_x[i])).collect();
        let mut y: Vec<f64> = (0..sizes.lower)
            .map(|i| s.y[i] - s.alpha * (upper_y[i] / c_k + dy[i] - (s.y[i] - theta[i]) / gamma1))
            .collect();
        if !finite(&[&x, &y, &theta, &lambda]) {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        problem.project(&mut x, &mut y)?;
        if !finite(&[&x, &y]) {
            return Ok(Flow::Stop(Status::NotFinite));
        }

        // 3. z follows lambda.
        let mut z: Vec<f64> = s.z.iter().zip(&lambda).map(|(z, l)| z + s.beta * (l - z) / gamma2).collect();
        self.project_multipliers(problem, &mut z);

        let moved = distance(&s.x, &x).hypot(distance(&s.y, &y));
        let stationarity = c_k * (moved / s.alpha).hypot(distance(&s.z, &z) / s.beta);
        let change = moved / (1.0 + norm(&x).hypot(norm(&y)));
        (s.x, s.y, s.z, s.theta, s.lambda) = (x, y, z, theta, lambda);
        s.k += 1;
        s.truncated += cut;
        s.stationarity = Some(stationarity);
        Ok(if stationarity <= tolerance && change <= tolerance {
            Flow::Stop(Status::Optimal)
        } else {
            Flow::Continue
        })
    }
}

impl Iterate for LvHbaState {
    fn x(&self) -> &[f64] {
        &self.x
    }

    fn y(&self) -> &[f64] {
        &self.y
    }

    fn multipliers(&self) -> &[f64] {
        &self.lambda
    }

    fn iteration(&self) -> u64 {
        self.k
    }

    fn measures(&self) -> Metrics {
        let mut measures = Metrics::new();
        measures.set("stationarity", self.stationarity.unwrap_or(f64::NAN));
        measures.set("truncated", self.truncated as f64);
        measures
    }

    fn notes(&self) -> Vec<String> {
        let cut = (self.truncated > 0).then(|| {
            format!(
                "multipliers were cut at r {} times in {} steps; if they end there, raise r",
                self.truncated, self.k
            )
        });
        self.notes.iter().cloned().chain(cut).collect()
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::toy::{self, Coupled, Objective};
    use super::*;

    fn fixed(alpha: f64, beta: f64, eta: f64, gamma: [f64; 2], c: f64) -> LvHba {
        let [gamma1, gamma2] = gamma;
        let (alpha, beta, eta) = (Some(alpha), Some(beta), Some(eta));
        LvHba {
            alpha,
            beta,
            eta,
            gamma1,
            gamma2,
            c,
            stop: Stop { tolerance: 1e-300, iterations: 1 << 40 },
            ..LvHba::default()
        }
    }

    /// Runs to each of the steps and shows `x`, the halves of `y` and of `theta`, `lambda` and `z`, of the first element each.
    fn iterates<P: Bilevel>(problem: &P, solver: &LvHba, mut s: LvHbaState, steps: &[u64]) -> Vec<[f64; 7]> {
        let half = s.y.len() / 2;
        let mut seen = Vec::new();
        for &k in steps {
            while s.k < k {
                assert_eq!(solver.step(problem, &mut s).expect("steps"), Flow::Continue);
            }
            seen.push([s.x[0], s.y[0], s.y[half], s.theta[0], s.theta[half], s.lambda[0], s.z[0]]);
        }
        seen
    }

    fn start<P: Bilevel>(problem: &P, solver: &LvHba, x: f64, y: f64, lambda: f64, z: f64) -> LvHbaState {
        let sizes = problem.sizes();
        let state = solver.init(problem, &vec![x; sizes.upper], &vec![y; sizes.lower]).expect("valid");
        LvHbaState { lambda: vec![lambda], z: vec![z], ..state }
    }

    #[test]
    fn the_order_of_the_updates_is_that_of_the_paper() {
        let (problem, solver) =
            (Coupled { n: 100, objective: Objective::Squares }, fixed(0.008, 0.02, 0.01, [10.0; 2], 0.025));
        let mut state = start(&problem, &solver, -20.0, 10.0, 1.0, -1.0);
        state.theta.fill(10.0);
        let found = iterates(&problem, &solver, state, &[1, 2, 3]);
        let expected = [
            [-9.350_445_333_33, 7.919_338_666_67, 1.431_106_666_67, 9.69, 9.98, 0.998, -0.996_004],
            [
                -5.845_208_719_21,
                6.606_356_692_53,
                -0.761_147_973_32,
                9.487_844_885_33,
                9.951_471_106_67,
                11.315_560_662_7,
                -0.971_380_870_675,
            ],
            [
                -4.086_758_348_33,
                5.624_408_328_54,
                -1.537_649_980_21,
                9.218_477_254_47,
                9.817_602_880_96,
                24.897_380_993_9,
                -0.919_643_346_945,
            ],
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert_close!(*found, expected, rtol = 1e-10);
        }
    }

    #[test]
    fn a_lower_level_with_many_solutions_is_solved() {
        let problem = Coupled { n: 10, objective: Objective::Product };
        let mut solver = fixed(0.005, 0.002, 0.03, [10.0, 1.0], 1.0);
        solver.r = 1.0;
        let state = start(&problem, &solver, 0.0, 0.0, -1.0, -1.0);
        let found = iterates(&problem, &solver, state, &[1, 10, 1000, 20_000]);
        let first = [0.013_238_333_333_3, 0.013_373_333_333_3, -0.026_611_666_666_7, 0.03, 0.0, -1.0, -1.0];
        assert_close!(found[0], first, atol = 1e-13);
        let pick = |found: &[f64; 7], which: &[usize]| which.iter().map(|&i| found[i]).collect::<Vec<_>>();
        assert_close!(
            pick(&found[1], &[0, 1, 2, 5, 6]),
            vec![
                0.081_539_580_619_1,
                0.094_732_916_096_6,
                -0.176_272_496_716,
                -0.574_173_239_966,
                -0.996_605_570_549
            ],
            atol = 1e-12
        );
        assert_close!(
            pick(&found[2], &[0, 1, 2, 5]),
            vec![0.751_676_302_324, 1.715_998_430_44, -2.467_674_732_76, -0.978_228_999_075],
            atol = 1e-11
        );
        assert_close!(
            pick(&found[3], &[0, 1, 2, 5]),
            vec![0.999_998_959_066, 1.999_998_912_46, -2.999_997_871_53, -0.999_999_965_196],
            atol = 1e-11
        );
    }

    #[test]
    fn an_inequality_is_held_and_its_multiplier_found() {
        let problem = toy::half_space();
        let solver = fixed(0.02, 0.02, 0.1, [1.0; 2], 1.0);
        let state = start(&problem, &solver, 0.0, 0.0, 0.0, 0.0);
        let found = iterates(&problem, &solver, state, &[1, 2, 3, 10, 100, 1000, 10_000]);
        // x, y, theta, lambda, z; what the card does not give is NaN.
        let n = f64::NAN;
        let expected = [
            [0.08, 0.04, n, n, n],
            [0.142_940_984_040, 0.072_550_492_020, 0.012, n, n],
            [0.197_194_600_126, 0.101_468_052_910, 0.031_149_147_606, n, n],
            [0.469_478_454_436, 0.259_503_646_639, 0.224_719_916_335, n, n],
            [0.739_217_062_367, 0.260_782_937_633, 0.375_180_177_591, 0.258_102_078_812, 0.160_199_781_770],
            [0.925_101_249_497, 0.074_898_750_503, n, 0.821_718_272_364, n],
            [0.999_972_173_085, 0.000_027_826_915, n, 0.999_939_265_913, n],
        ];
        for (found, expected) in found.iter().zip(expected) {
            let found = [found[0], found[1], found[3], found[5], found[6]];
            for (found, expected) in
                found.into_iter().zip(expected).filter(|(_, expected)| !expected.is_nan())
            {
                assert_close!(found, expected, atol = 1e-11);
            }
        }
    }

    #[test]
    fn with_a_stable_step_the_error_falls_like_the_inverse_of_c() {
        let (problem, solver) =
            (Coupled { n: 100, objective: Objective::Squares }, fixed(0.005, 0.005, 0.005, [1.0; 2], 10.0));
        let mut state = start(&problem, &solver, -20.0, 10.0, 1.0, -1.0);
        state.theta.fill(10.0);
        let found = iterates(&problem, &solver, state, &[50_000, 100_000]);
        let error = |found: &[f64; 7]| (found[0] + 0.3).abs() / 0.3;
        assert_close!(error(&found[0]), 2.958_955_98e-3, rtol = 1e-7);
        assert_close!(error(&found[1]), 2.445_198_29e-3, rtol = 1e-7);
    }

    #[test]
    fn steps_that_are_measured_are_short_enough_and_a_long_one_is_told() {
        let problem = Coupled { n: 100, objective: Objective::Squares };
        let (x, y) = (vec![10.0; 100], vec![10.0; 200]);
        let state = LvHba::default().init(&problem, &x, &y).expect("valid");
        // |J_y|² = 200, so the limit is 2/200.
        assert_close!(state.eta, 0.005, rtol = 1e-6);
        assert!(state.alpha <= state.eta && state.notes.is_empty(), "{state:?}");
        let long = LvHba { eta: Some(0.011), ..LvHba::default() }.init(&problem, &x, &y).expect("valid");
        assert!(long.notes[0].starts_with("eta = 0.011 is above"), "{:?}", long.notes);
    }

    #[test]
    fn multipliers_that_are_cut_are_told() {
        let solver =
            LvHba { r: 0.25, stop: Stop { iterations: 2000, ..super::super::STOP }, ..LvHba::default() };
        let out = solver.solve(&toy::half_space(), &[0.0], &[0.0]).expect("runs");
        assert_close!(out.multipliers[0], 0.25, atol = 1e-12);
        assert!(out.notes.iter().any(|note| note.contains("raise r")), "{:?}", out.notes);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let d = LvHba::default();
        for (solver, message) in [
            (LvHba { alpha: Some(0.0), ..d }, "alpha: must be > 0, got 0 (default: measured)"),
            (LvHba { gamma1: f64::NAN, ..d }, "gamma1: must be > 0, got NaN (default 1)"),
            (LvHba { power: 0.6, ..d }, "power: must be in [0, 0.5], got 0.6 (default 0.3)"),
        ] {
            let error = solver.init(&toy::half_space(), &[0.0], &[0.0]).expect_err("refused");
            assert_eq!(error.to_string(), message);
        }
    }
}
