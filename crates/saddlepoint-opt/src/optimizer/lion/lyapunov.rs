//! What decreases along a run of the Lion family, in `f64`: for tests, experiments and monitoring.
//!
//! Here the momentum sums `−g`, as in the paper; `x`, `m`, `g` and `f` are in units of parameters, gradients and loss.
//! In continuous time, for `K` differentiable, [`Flow`]:
//! ```text
//! ẋ = ∂K(m̃) − λ x,   ṁ = −α g(x) − γ m,   m̃ = m + ε ṁ
//! F(x) = α f(x) + (γ/λ) K*(λ x)                                            what is minimised
//! H(x, m) = F(x) + c [K*(λ x) + K(m) − λ m·x],   c = (1 − εγ)/(1 + ελ)      the bracket is >= 0 (Fenchel, Young)
//! dH/dt = −(λ + γ)/(1 + ελ) D₁ − c D₂
//!   D₁ = (m̃ − ∂K*(λ x))·(∂K(m̃) − λ x) >= 0,   D₂ = (1/ε) (m̃ − m)·(∂K(m̃) − ∂K(m)) >= 0
//! ```
//! In discrete time, for the step with implicit decay, any subgradient and `f` with `L`-Lipschitz gradients, [`Scheme`]:
//! ```text
//! m̃ = β₁ m − (1 − β₁) g(x),   x₊ = (x + e ∂K(m̃)) / (1 + eλ),   m₊ = β₂ m − (1 − β₂) g(x)
//! H(x, m) = f(x) + (1/λ) K*(λ x) + c [K*(λ x) + K(m) − λ m·x],   c = e β₁ / (eλ (1 − β₁) + (1 − β₂))
//! H(x₊, m₊) − H(x, m) <= −e (1 + cλ) D₁ − c (1 − β₂)/(β₂ − β₁) D₂ + (L e²/2) ‖∂K(m̃) − λ x₊‖²
//!   D₁ = (m̃ − ∂K*(λ x₊))·(∂K(m̃) − λ x₊) >= 0,   D₂ = (m̃ − m₊)·(∂K(m̃) − ∂K(m₊)) >= 0
//! ```
//! Chen, Liu, Liang and Liu 2024, arXiv:2310.05898, theorems 3.1 and 4.1. The constants of the discrete inequality are
//! derived here and checked numerically; they may be written otherwise in the paper.
//!
//! Where `K*` is infinite (outside of the constraint) so is `H`: before the iterates have entered, at the rate
//! `(1 + eλ)⁻ᵗ`, only their distance decreases. What needs `∂K*` is an error there.
//!
//! Everything here is of one tensor whose rows have `columns` elements (a vector is one row); of several tensors the
//! parts with `K` add up.

use super::Kappa;
use crate::{Error, Result};

/// The family in continuous time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// The function `K`.
    pub kappa: Kappa,
    /// Elements of a row of the tensor.
    pub columns: usize,
    /// Weight of the gradient, > 0, per unit of time. A step of length `e` of the optimizer is `α = γ = (1 − β₂)/e`.
    pub alpha: f64,
    /// Decay of the momentum, > 0, per unit of time.
    pub gamma: f64,
    /// How far the momentum looks ahead, >= 0, in units of time with `εγ <= 1`. The optimizer's is `(1 − β₁)/γ`.
    pub eps: f64,
    /// Weight decay, > 0, per unit of time.
    pub lambda: f64,
}

/// The family in discrete time, with implicit decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheme {
    /// The function `K`.
    pub kappa: Kappa,
    /// Elements of a row of the tensor.
    pub columns: usize,
    /// Learning rate `e`, > 0.
    pub lr: f64,
    /// Weight of the momentum in the direction of the step, in (0, beta2).
    pub beta1: f64,
    /// Decay of the momentum, in (beta1, 1).
    pub beta2: f64,
    /// Weight decay, > 0.
    pub lambda: f64,
}

/// How fast `H` falls, and the two parts that make it fall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fall {
    /// `D₁ >= 0`: how far `x` is from where the momentum wants it.
    pub d1: f64,
    /// `D₂ >= 0`: how fast the momentum turns.
    pub d2: f64,
    /// In continuous time `dH/dt`; in discrete time the bound on `H(x₊, m₊) − H(x, m)`.
    pub change: f64,
}

impl Flow {
    /// `(ẋ, ṁ)`.
    ///
    /// # Errors
    /// A coefficient or a length is not what it must be.
    pub fn velocity(&self, x: &[f64], m: &[f64], g: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
        let k = self.checked(&[x, m, g])?;
        let slope = k.subgradient(&self.ahead(m, g))?;
        Ok((combine(&slope, -self.lambda, x), self.turn(m, g)))
    }

    /// `F(x)` from the loss `f = f(x)`; infinite outside of the constraint.
    ///
    /// # Errors
    /// As [`Flow::velocity`].
    pub fn objective(&self, f: f64, x: &[f64]) -> Result<f64> {
        let k = self.checked(&[x])?;
        Ok(self.alpha * f + self.gamma / self.lambda * k.conjugate(&scale(self.lambda, x))?)
    }

    /// `H(x, m)` from the loss `f = f(x)`; infinite outside of the constraint.
    ///
    /// # Errors
    /// As [`Flow::velocity`].
    pub fn lyapunov(&self, f: f64, x: &[f64], m: &[f64]) -> Result<f64> {
        let k = self.checked(&[x, m])?;
        Ok(self.objective(f, x)? + self.coupling() * k.gap(m, &scale(self.lambda, x))?)
    }

    /// `dH/dt` at a point with gradient `g`, by its formula.
    ///
    /// # Errors
    /// As [`Flow::velocity`]; or `x` is not inside of the constraint.
    pub fn fall(&self, x: &[f64], m: &[f64], g: &[f64]) -> Result<Fall> {
        let k = self.checked(&[x, m, g])?;
        let ahead = self.ahead(m, g);
        let d1 = k.distance(&ahead, &scale(self.lambda, x))?;
        // (m̃ − m)/ε is ṁ, also for ε = 0.
        let d2 = dot(&self.turn(m, g), &combine(&k.subgradient(&ahead)?, -1.0, &k.subgradient(m)?));
        let rate = (self.lambda + self.gamma) / (1.0 + self.eps * self.lambda);
        Ok(Fall { d1, d2, change: -rate * d1 - self.coupling() * d2 })
    }

    /// `c`.
    pub fn coupling(&self) -> f64 {
        (1.0 - self.eps * self.gamma) / (1.0 + self.eps * self.lambda)
    }

    fn turn(&self, m: &[f64], g: &[f64]) -> Vec<f64> {
        combine(&scale(-self.gamma, m), -self.alpha, g)
    }

    fn ahead(&self, m: &[f64], g: &[f64]) -> Vec<f64> {
        combine(m, self.eps, &self.turn(m, g))
    }

    fn checked(&self, tensors: &[&[f64]]) -> Result<Function> {
        positive("alpha", self.alpha)?;
        positive("gamma", self.gamma)?;
        positive("lambda", self.lambda)?;
        refuse(self.eps >= 0.0 && self.eps * self.gamma <= 1.0, "eps", "in [0, 1 / gamma]", self.eps)?;
        Function::new(self.kappa, self.columns, tensors)
    }
}

impl Scheme {
    /// `(x₊, m₊)`.
    ///
    /// # Errors
    /// A coefficient or a length is not what it must be.
    pub fn step(&self, x: &[f64], m: &[f64], g: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
        let k = self.checked(&[x, m, g])?;
        let to = combine(x, self.lr, &k.subgradient(&average(self.beta1, m, g))?);
        Ok((scale(1.0 / (1.0 + self.lr * self.lambda), &to), average(self.beta2, m, g)))
    }

    /// `H(x, m)` from the loss `f = f(x)`; infinite outside of the constraint.
    ///
    /// # Errors
    /// As [`Scheme::step`].
    pub fn lyapunov(&self, f: f64, x: &[f64], m: &[f64]) -> Result<f64> {
        let k = self.checked(&[x, m])?;
        let y = scale(self.lambda, x);
        Ok(f + k.conjugate(&y)? / self.lambda + self.coupling() * k.gap(m, &y)?)
    }

    /// The bound on the change of `H` in the step from a point with gradient `g`, where gradients are
    /// `smoothness`-Lipschitz (`L`).
    ///
    /// # Errors
    /// As [`Scheme::step`]; or the step does not end inside of the constraint.
    pub fn fall(&self, x: &[f64], m: &[f64], g: &[f64], smoothness: f64) -> Result<Fall> {
        let k = self.checked(&[x, m, g])?;
        let (to, next) = self.step(x, m, g)?;
        let (ahead, y) = (average(self.beta1, m, g), scale(self.lambda, &to));
        let slope = k.subgradient(&ahead)?;
        let d1 = k.distance(&ahead, &y)?;
        let d2 = dot(&combine(&ahead, -1.0, &next), &combine(&slope, -1.0, &k.subgradient(&next)?));
        let c = self.coupling();
        let along = combine(&slope, -1.0, &y);
        let change = -self.lr * (1.0 + c * self.lambda) * d1
            - c * (1.0 - self.beta2) / (self.beta2 - self.beta1) * d2
            + smoothness * self.lr.powi(2) / 2.0 * dot(&along, &along);
        Ok(Fall { d1, d2, change })
    }

    /// `c`.
    pub fn coupling(&self) -> f64 {
        self.lr * self.beta1 / (self.lr * self.lambda * (1.0 - self.beta1) + (1.0 - self.beta2))
    }

    fn checked(&self, tensors: &[&[f64]]) -> Result<Function> {
        positive("lr", self.lr)?;
        positive("lambda", self.lambda)?;
        refuse(self.beta1 > 0.0 && self.beta1 < self.beta2, "beta1", "in (0, beta2)", self.beta1)?;
        refuse(self.beta2 < 1.0, "beta2", "in (beta1, 1)", self.beta2)?;
        Function::new(self.kappa, self.columns, tensors)
    }
}

/// How far `x` with gradient `g` is from a solution: `S = (−g − ∂K*(λ x))·(∂K(−g) − λ x) >= 0`, and 0 where the
/// conditions of Karush, Kuhn and Tucker hold. For Lion it is `‖g‖₁ + λ g·x`. In units of the gradient.
///
/// # Errors
/// `x` is not inside of the constraint, or a length is not what it must be.
pub fn kkt_score(kappa: Kappa, columns: usize, lambda: f64, x: &[f64], g: &[f64]) -> Result<f64> {
    positive("lambda", lambda)?;
    Function::new(kappa, columns, &[x, g])?.distance(&scale(-1.0, g), &scale(lambda, x))
}

/// `K` on tensors of one shape.
#[derive(Debug, Clone, Copy)]
struct Function {
    kappa: Kappa,
    columns: usize,
}

impl Function {
    fn new(kappa: Kappa, columns: usize, tensors: &[&[f64]]) -> Result<Self> {
        kappa.check()?;
        let expected = tensors.first().map_or(0, |first| first.len());
        if columns == 0 || !expected.is_multiple_of(columns) {
            let problem = format!("must divide the {expected} elements of the tensor, got {columns}");
            return Err(Error::Setting { key: "columns", problem });
        }
        match tensors.iter().find(|tensor| tensor.len() != expected) {
            Some(other) => Err(Error::Length { what: "x, m and g", expected, got: other.len() }),
            None => Ok(Self { kappa, columns }),
        }
    }

    fn subgradient(self, z: &[f64]) -> Result<Vec<f64>> {
        let mut z = z.to_vec();
        self.kappa.subgradient(&mut z, self.columns)?;
        Ok(z)
    }

    fn conjugate(self, y: &[f64]) -> Result<f64> {
        self.kappa.conjugate(y, self.columns)
    }

    /// `K*(y) + K(z) − y·z >= 0`.
    fn gap(self, z: &[f64], y: &[f64]) -> Result<f64> {
        Ok(self.conjugate(y)? + self.kappa.value(z, self.columns)? - dot(y, z))
    }

    /// `(z − ∂K*(y))·(∂K(z) − y) >= 0`.
    fn distance(self, z: &[f64], y: &[f64]) -> Result<f64> {
        let slope = self.kappa.conjugate_subgradient(y, self.columns)?;
        Ok(dot(&combine(z, -1.0, &slope), &combine(&self.subgradient(z)?, -1.0, y)))
    }
}

fn positive(key: &'static str, got: f64) -> Result<()> {
    refuse(got > 0.0 && got.is_finite(), key, "> 0", got)
}

fn refuse(ok: bool, key: &'static str, range: &str, got: f64) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::required(key, range, got)) }
}

/// `a + s b`.
fn combine(a: &[f64], s: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + s * b).collect()
}

/// `β m − (1 − β) g`.
fn average(beta: f64, m: &[f64], g: &[f64]) -> Vec<f64> {
    combine(&scale(beta, m), beta - 1.0, g)
}

fn scale(s: f64, a: &[f64]) -> Vec<f64> {
    a.iter().map(|a| s * a).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::tests::EVERY;
    use super::*;

    /// `f(x) = ½ xᵀ A x − b·x`.
    fn loss(x: &[f64]) -> f64 {
        (3.0 * x[0] * x[0] + 2.0 * x[0] * x[1] + 2.0 * x[1] * x[1]) / 2.0 - 4.0 * x[0] + 3.0 * x[1]
    }

    fn gradient(x: &[f64]) -> Vec<f64> {
        vec![3.0 * x[0] + x[1] - 4.0, x[0] + 2.0 * x[1] + 3.0]
    }

    /// The largest eigenvalue of `A`.
    const SMOOTHNESS: f64 = 3.618_033_988_75;

    fn flow(kappa: Kappa) -> Flow {
        Flow { kappa, columns: 2, alpha: 1.0, gamma: 0.5, eps: 0.6, lambda: 0.8 }
    }

    fn scheme(kappa: Kappa) -> Scheme {
        Scheme { kappa, columns: 2, lr: 0.01, beta1: 0.9, beta2: 0.99, lambda: 0.8 }
    }

    #[test]
    fn the_flow_agrees_with_a_worked_example() {
        let flow = flow(Kappa::LogCosh);
        let (mut x, mut m) = (vec![0.3, 0.5], vec![0.2, -0.4]);
        let h = |x: &[f64], m: &[f64]| flow.lyapunov(loss(x), x, m).expect("inside");
        let fall = flow.fall(&x, &m, &gradient(&x)).expect("inside");
        assert_close!(h(&x, &m), 1.056_516_709_71, rtol = 1e-11);
        assert_close!(fall.change, -6.970_435_205_50, rtol = 1e-11);
        assert_close!([fall.d1, fall.d2], [5.587_617_355_95, 4.360_487_916_29], rtol = 1e-11);
        let (dx, dm) = flow.velocity(&x, &m, &gradient(&x)).expect("valid");
        assert_close!(dx, [0.695_409_070_603, -1.393_462_020_88], rtol = 1e-11);
        assert_close!(dm, [2.5, -4.1], rtol = 1e-12);
        for t in 1..=60_000 {
            let (dx, dm) = flow.velocity(&x, &m, &gradient(&x)).expect("valid");
            (x, m) = (combine(&x, 1e-3, &dx), combine(&m, 1e-3, &dm));
            match t {
                1_000 => {
                    assert_close!(x, [0.806_370_839_536, -0.462_426_372_051], rtol = 1e-10);
                    assert_close!(h(&x, &m), -2.916_770_057_49, rtol = 1e-11);
                }
                5_000 => assert_close!(h(&x, &m), -5.505_215_733_38, rtol = 1e-11),
                _ => {}
            }
        }
        assert_close!(x, [1.244_181_460_95, -1.247_711_051_41], rtol = 1e-10);
        assert_close!(h(&x, &m), -5.541_887_557_78, rtol = 1e-11);
        // At rest: α g + γ artanh(λ x) = 0, the bracket of H is 0, and H is F.
        let rest: Vec<f64> = x.iter().zip(gradient(&x)).map(|(x, g)| g + 0.5 * (0.8 * x).atanh()).collect();
        assert_close!(rest, [0.0, 0.0], atol = 1e-8);
        assert_close!(flow.objective(loss(&x), &x).expect("inside"), h(&x, &m), atol = 1e-10);
    }

    /// For every `K` the formula of `dH/dt` is the central difference of `H` along the flow, away from kinks.
    #[test]
    fn the_formula_of_the_fall_is_the_derivative() {
        let (x, m) = ([0.3, 0.5], [0.7, -0.9]);
        for kappa in EVERY {
            for eps in [0.0, 0.6, 2.0] {
                let flow = Flow { eps, ..flow(kappa) };
                let (dx, dm) = flow.velocity(&x, &m, &gradient(&x)).expect("valid");
                let at = |dt: f64| {
                    let (x, m) = (combine(&x, dt, &dx), combine(&m, dt, &dm));
                    flow.lyapunov(loss(&x), &x, &m).expect("valid")
                };
                let fall = flow.fall(&x, &m, &gradient(&x)).expect("inside");
                assert!(fall.d1 >= 0.0 && fall.d2 >= 0.0, "{kappa:?}: {fall:?}");
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((fall.change - difference).abs() < 1e-7, "{kappa:?}: {fall:?} and {difference}");
            }
        }
    }

    #[test]
    fn the_scheme_agrees_with_a_worked_example() {
        let scheme = scheme(Kappa::L1);
        assert_close!(scheme.coupling(), 0.833_333_333_333, rtol = 1e-11);
        let (mut x, mut m) = (vec![0.3, 0.5], vec![0.0, 0.0]);
        let h = |x: &[f64], m: &[f64]| scheme.lyapunov(loss(x), x, m).expect("valid");
        let expected = [
            (
                [0.307_539_682_54, 0.486_111_111_111],
                [0.026, -0.043],
                -0.013_047_445_830_2,
                -0.012_769_101_008_9,
            ),
            (
                [0.315_019_526_329, 0.472_332_451_499],
                [0.051_652_698_412_7, -0.085_367_619_047_6],
                -0.014_068_338_808_1,
                -0.013_794_394_626_1,
            ),
            (
                [0.322_440_006_279, 0.458_663_146_328],
                [0.076_962_261_123_7, -0.127_110_787_15],
                -0.015_055_814_136_4,
                -0.014_786_201_019_5,
            ),
        ];
        let mut worst = f64::MIN;
        for t in 0..400 {
            let fall = scheme.fall(&x, &m, &gradient(&x), SMOOTHNESS).expect("inside");
            let (to, next) = scheme.step(&x, &m, &gradient(&x)).expect("valid");
            let change = h(&to, &next) - h(&x, &m);
            (x, m) = (to, next);
            worst = worst.max(change - fall.change);
            if let Some((to, next, fell, bound)) = expected.get(t) {
                assert_close!(x, to, rtol = 1e-11);
                assert_close!(m, next, rtol = 1e-11);
                assert_close!(change, *fell, rtol = 1e-11);
                assert_close!(fall.change, *bound, rtol = 1e-11);
            }
        }
        assert_close!(x, [1.210_779_713_53, -1.177_752_103_87], rtol = 1e-11);
        assert_close!(worst, -4.8e-7, rtol = 0.01);
        // The constrained optimum is (1.25, −1.25), where f = −6.40625; the unconstrained one (2.2, −2.6) is outside.
        assert_close!(loss(&[1.25, -1.25]), -6.406_25, rtol = 1e-12);
        assert!(h(&[2.2, -2.6], &m).is_infinite());
    }

    /// From zero, where every constraint holds, the inequality holds at each step for every `K`, and the iterates stay
    /// where `K*` is finite.
    #[test]
    fn the_discrete_inequality_is_never_violated() {
        for kappa in EVERY {
            for (lr, beta1, beta2, lambda) in
                [(0.01, 0.9, 0.99, 0.8), (0.1, 0.3, 0.95, 0.2), (0.3, 0.95, 0.98, 3.0)]
            {
                let scheme = Scheme { lr, beta1, beta2, lambda, ..scheme(kappa) };
                let (mut x, mut m) = (vec![0.0; 2], vec![0.3, -0.1]);
                for t in 0..200 {
                    let g = gradient(&x);
                    let fall = scheme.fall(&x, &m, &g, SMOOTHNESS).expect("inside");
                    let (to, next) = scheme.step(&x, &m, &g).expect("valid");
                    let h = |x: &[f64], m: &[f64]| scheme.lyapunov(loss(x), x, m).expect("valid");
                    let change = h(&to, &next) - h(&x, &m);
                    assert!(fall.d1 > -1e-12 && fall.d2 > -1e-12, "{kappa:?}, step {t}: {fall:?}");
                    assert!(change <= fall.change + 1e-11, "{kappa:?}, step {t}: {change} and {fall:?}");
                    (x, m) = (to, next);
                }
            }
        }
    }

    /// Smooth `K` have interior solutions, which a small step finds: `g + ∂K*(λ x) = 0`.
    #[test]
    fn different_kappas_solve_different_problems() {
        for (kappa, expected) in [
            (Kappa::L1, [1.25, -1.25]),
            // (A + λ I) x = b.
            (Kappa::HalfSquare, [14.2 / 9.64, -15.4 / 9.64]),
        ] {
            let scheme = Scheme { lr: 1e-3, ..scheme(kappa) };
            let (mut x, mut m) = (vec![0.3, 0.5], vec![0.0; 2]);
            for _ in 0..40_000 {
                (x, m) = scheme.step(&x, &m, &gradient(&x)).expect("valid");
            }
            assert_close!(x, expected, atol = 5e-3);
        }
    }

    #[test]
    fn the_score_is_zero_at_the_solution_only() {
        let score = |x: &[f64]| kkt_score(Kappa::L1, 2, 0.8, x, &gradient(x)).expect("inside");
        assert_close!(score(&[1.25, -1.25]), 0.0, atol = 1e-12);
        let (x, g) = ([0.3, 0.5], gradient(&[0.3, 0.5]));
        assert_close!(score(&x), g[0].abs() + g[1].abs() + 0.8 * dot(&g, &x), rtol = 1e-12);
        for kappa in EVERY {
            assert!(kkt_score(kappa, 2, 0.8, &x, &g).expect("inside") > 0.0, "{kappa:?}");
        }
        let message = kkt_score(Kappa::L1, 2, 0.8, &[2.0, 0.0], &g).expect_err("refused").to_string();
        assert_eq!(message, "L1: no subgradient of K* there; lambda x must be inside of |y| <= 1");
    }

    #[test]
    fn what_is_not_as_it_must_be_is_refused() {
        let (scheme, flow, x) = (scheme(Kappa::L1), flow(Kappa::L1), [0.0, 0.0]);
        let step = |scheme: Scheme| scheme.step(&x, &x, &x).expect_err("refused").to_string();
        let velocity = |flow: Flow| flow.velocity(&x, &x, &x).expect_err("refused").to_string();
        for (message, expected) in [
            (step(Scheme { lr: 0.0, ..scheme }), "lr: must be > 0, got 0 (it has no default)"),
            (
                step(Scheme { beta1: 0.99, ..scheme }),
                "beta1: must be in (0, beta2), got 0.99 (it has no default)",
            ),
            (
                step(Scheme { beta2: 1.0, ..scheme }),
                "beta2: must be in (beta1, 1), got 1 (it has no default)",
            ),
            (step(Scheme { lambda: -1.0, ..scheme }), "lambda: must be > 0, got -1 (it has no default)"),
            (
                step(Scheme { columns: 3, ..scheme }),
                "columns: must divide the 2 elements of the tensor, got 3",
            ),
            (velocity(Flow { alpha: 0.0, ..flow }), "alpha: must be > 0, got 0 (it has no default)"),
            (
                velocity(Flow { eps: 3.0, ..flow }),
                "eps: must be in [0, 1 / gamma], got 3 (it has no default)",
            ),
            (
                scheme.step(&x, &[0.0], &x).expect_err("refused").to_string(),
                "x, m and g: expected 2 elements, got 1; the state belongs to another problem",
            ),
        ] {
            assert_eq!(message, expected);
        }
    }
}
