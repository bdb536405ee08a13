//! Adaptive inexact Newton on the exact augmented Lagrangian, whose linear systems are solved by randomised sketching.
//!
//! # Method
//! For `min f(x)` subject to `c(x) = 0`, with `L = f + λᵀc`, `g = ∇ₓL`, `H = ∇²ₓₓL` and the Jacobian `G`:
//! ```text
//! L_η(x, λ) = f + λᵀc + (η₁/2)|c|² + (η₂/2)|g|²                        the merit function
//! ∇ₓL_η = (I + η₂ H) g + η₁ Gᵀc        ∇_λL_η = c + η₂ G g
//! B = H, plus (ξ_B + |H|) I if the reduced Hessian is not definite
//! Γ = [[B, Gᵀ], [G, 0]],  b = −(g; c);  Γ z = b until |Γ| Ψ |Γz − b| <= θ δ |b|
//! if ∇L_ηᵀz > −(η₂/2)|b|²:   η₁ ← ν² η₁, η₂ ← η₂/ν, δ smaller; go on with z
//! α = 1, 1/2, 1/4, ... until L_η(· + αz) <= L_η + αβ ∇L_ηᵀz
//! ```
//! with `Ψ = 20 max(|B|², 1) / (min(ξ_G, 1) min(ξ_B, 1))`, `ξ_G` the smallest eigenvalue of `GGᵀ`, and `δ` at most
//! `(0.5 − β) η₂ / ((1 + η₁ + η₂) Υ² Ψ²)`, `Υ = max(|G|, |H|, 1)`. Matrices have Frobenius norms.
//!
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |---|---|---|---|---|
//! | system | | kaczmarz | | how Γ z = b is solved: [`System`] |
//! | beta | β | 0.1 | in (0, 0.5) | share of the slope that a step realises |
//! | nu | ν | 1.5 | > 1 | by what penalties and accuracy change |
//! | xi_b | ξ_B | 0.1 | > 0 | how definite B is made |
//! | eta1, eta2 | η₁, η₂ | 1, 0.1 | > 0 | first penalties |
//! | delta | δ | 0.1 | in (0, 1) | first accuracy |
//! | curvature | | 1e-6 | > 0 | least eigenvalue of a reduced Hessian that is left alone |
//! | singular | | 1e-2 | > 0 | ξ_G below which the run ends |
//! | sketches | | 1e5 | > 0 | most sketch steps or products for one system |
//! | multiplier | λ₀ | 0 | finite | first multipliers |
//! | slope | | exact | exact, released | whether ∇ₓL_η has H, or ∇²f as the released code |
//!
//! # Reference
//! Hong, Na, Mahoney & Kolar 2023, arXiv:2305.18379.
//!
//! # Differences
//! The released code puts `∇²f` for `H` into `∇ₓL_η`, which is not a derivative unless the constraints are linear; `slope = released`
//! repeats that. It starts with the residual `+b`, so that its first sketch step is wasted; here it is `−b`. Kaczmarz updates its
//! residual by rows of `Γ²` instead of computing it from nothing.
//!
//! # Checked against
//! The iterates of the released runs on HS6 and HS7, sketch steps by hand, finite differences.

mod system;

pub use system::System;

use saddlepoint_core::metrics::Metrics;
use saddlepoint_core::seed::Seed;
use serde::{Deserialize, Serialize};

use super::{Flow, Iterate, Solver, Stop};
use crate::linalg::{Triplets, add_scaled, dot, eigenvalues, norm, null_space};
use crate::outcome::Status;
use crate::problem::{Curved, Simple, check_start};
use crate::{Error, Result};
use system::Iteration;

/// Settings of the method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SketchedNewton {
    /// When it ends.
    pub stop: Stop,
    /// How the Newton system is solved.
    pub system: System,
    /// Of the random numbers.
    pub seed: u64,
    /// Share of the slope that a step realises, in (0, 0.5).
    pub beta: f64,
    /// By what penalties and accuracy change, > 1.
    pub nu: f64,
    /// How definite the modified Hessian is made, > 0.
    pub xi_b: f64,
    /// First penalty of the constraints, > 0.
    pub eta1: f64,
    /// First penalty of the gradient, > 0.
    pub eta2: f64,
    /// First accuracy of the linear system, in (0, 1).
    pub delta: f64,
    /// Least eigenvalue of a reduced Hessian that is left alone, > 0.
    pub curvature: f64,
    /// Smallest eigenvalue of `GGᵀ` below which the run ends as singular, > 0.
    pub singular: f64,
    /// Most sketch steps, or products, for one linear system.
    pub sketches: u64,
    /// First multipliers.
    pub multiplier: f64,
    /// The derivative of the merit function.
    pub slope: Slope,
}

/// What stands for the Hessian of the Lagrangian in the derivative of the merit function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slope {
    /// Itself.
    #[default]
    Exact,
    /// That of the objective, as in the released code.
    Released,
}

impl Default for SketchedNewton {
    fn default() -> Self {
        Self {
            stop: Stop { tolerance: 1e-4, iterations: 10_000 },
            system: System::Kaczmarz,
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
            slope: Slope::Exact,
        }
    }
}

/// Accuracies below this are not asked for.
const LEAST_DELTA: f64 = 1e-6;
/// Penalties beyond which any direction is accepted.
const LARGEST_ETA1: f64 = 1e8;
const LEAST_ETA2: f64 = 1e-8;
/// So often penalties change in a step before any direction is accepted: enough for a `nu` of 1.01 to reach the limits above.
const MOST_RAISES: u32 = 1000;

/// What it remembers between two Newton steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SketchedNewtonState {
    x: Vec<f64>,
    multipliers: Vec<f64>,
    eta1: f64,
    eta2: f64,
    delta: f64,
    iteration: u64,
    /// Sketch steps and products so far.
    sketches: u64,
    flops: f64,
    /// Of the last step.
    step: f64,
    residual: f64,
    objective: f64,
}

/// Everything at a point that a step needs.
struct Here {
    c: Vec<f64>,
    /// Of the Lagrangian.
    g: Vec<f64>,
    jacobian: Triplets,
    /// Of the Lagrangian, dense.
    hessian: Vec<f64>,
}

/// Values of the equalities `c(x) − t`.
fn equalities<P: Curved + ?Sized>(problem: &P, x: &[f64]) -> Vec<f64> {
    let mut c = vec![0.0; problem.constraints().len()];
    problem.residuals(x, &mut c);
    c.iter_mut().zip(problem.constraints()).for_each(|(c, of)| *c -= of.upper);
    c
}

fn gradient<P: Curved + ?Sized>(problem: &P, x: &[f64], multipliers: &[f64]) -> Vec<f64> {
    let mut g = vec![0.0; x.len()];
    problem.grad(x, &mut g);
    problem.vjp(x, multipliers, &mut g);
    g
}

/// `L_η(x, λ)`.
fn merit<P: Curved + ?Sized>(problem: &P, x: &[f64], multipliers: &[f64], eta1: f64, eta2: f64) -> f64 {
    let c = equalities(problem, x);
    let g = gradient(problem, x, multipliers);
    problem.value(x) + dot(multipliers, &c) + 0.5 * eta1 * dot(&c, &c) + 0.5 * eta2 * dot(&g, &g)
}

fn multiply(matrix: &[f64], v: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(v.len().max(1)).map(|row| dot(row, v)).collect()
}

impl SketchedNewton {
    fn check(&self) -> Result<()> {
        let d = Self::default();
        self.stop.check()?;
        let range = |ok: bool, key, range: &str, got: f64, default| {
            if ok && got.is_finite() { Ok(()) } else { Err(Error::range(key, range, got, default)) }
        };
        range(self.beta > 0.0 && self.beta < 0.5, "beta", "in (0, 0.5)", self.beta, d.beta)?;
        range(self.nu > 1.0, "nu", "> 1", self.nu, d.nu)?;
        range(self.xi_b > 0.0, "xi_b", "> 0", self.xi_b, d.xi_b)?;
        range(self.eta1 > 0.0, "eta1", "> 0", self.eta1, d.eta1)?;
        range(self.eta2 > 0.0, "eta2", "> 0", self.eta2, d.eta2)?;
        range(self.delta > 0.0 && self.delta < 1.0, "delta", "in (0, 1)", self.delta, d.delta)?;
        range(self.curvature > 0.0, "curvature", "> 0", self.curvature, d.curvature)?;
        range(self.singular > 0.0, "singular", "> 0", self.singular, d.singular)?;
        range(true, "multiplier", "finite", self.multiplier, d.multiplier)?;
        range(self.sketches > 0, "sketches", "> 0", self.sketches as f64, d.sketches as f64)?;
        match self.system {
            System::CountSketch { width } => range(width > 0, "system.width", "> 0", width as f64, 8.0),
            System::Gmres { restart } => range(restart > 0, "system.restart", "> 0", restart as f64, 2.0),
            _ => Ok(()),
        }
    }

    /// `∇L_η`, first with respect to `x`, then to `λ`.
    fn merit_gradient<P: Curved + ?Sized>(
        &self,
        problem: &P,
        s: &SketchedNewtonState,
        here: &Here,
    ) -> Vec<f64> {
        let hessian = match self.slope {
            Slope::Exact => multiply(&here.hessian, &here.g),
            Slope::Released => {
                let mut product = vec![0.0; s.x.len()];
                problem.hess_vec(&s.x, &vec![0.0; here.c.len()], &here.g, &mut product);
                product
            }
        };
        let mut first = here.g.clone();
        add_scaled(&mut first, s.eta2, &hessian);
        let scaled: Vec<f64> = here.c.iter().map(|c| s.eta1 * c).collect();
        here.jacobian.add_transposed_product(&scaled, &mut first);
        let mut second = here.c.clone();
        let mut along = vec![0.0; here.c.len()];
        here.jacobian.add_product(&here.g, &mut along);
        add_scaled(&mut second, s.eta2, &along);
        first.extend(second);
        first
    }

    /// The largest accuracy that the theory allows, from below by [`LEAST_DELTA`].
    fn accuracy(&self, s: &SketchedNewtonState, upsilon: f64, psi: f64, at_most: f64) -> f64 {
        let trial = (0.5 - self.beta) * s.eta2 / ((1.0 + s.eta1 + s.eta2) * upsilon.powi(2) * psi.powi(2));
        at_most.min(trial).max(LEAST_DELTA)
    }

    /// `B`: the Hessian, made definite where it has to be; `None` if it is not finite.
    fn modified(&self, here: &Here, jacobian: &[f64]) -> Option<Vec<f64>> {
        let (n, m) = (here.g.len(), here.c.len());
        let mut b = here.hessian.clone();
        if m < n {
            let z = null_space(jacobian, m, n);
            let k = n - m;
            let products: Vec<Vec<f64>> = z.chunks_exact(n).map(|z| multiply(&b, z)).collect();
            let reduced: Vec<f64> =
                (0..k * k).map(|a| dot(&z[(a / k) * n..(a / k + 1) * n], &products[a % k])).collect();
            if eigenvalues(&reduced, k)?[0] < self.curvature {
                let shift = self.xi_b + norm(&here.hessian);
                (0..n).for_each(|i| b[i * n + i] += shift);
            }
        }
        Some(b)
    }
}

/// `[[B, Gᵀ], [G, 0]]`.
fn kkt_matrix(b: &[f64], jacobian: &[f64], n: usize, m: usize) -> Vec<f64> {
    let size = n + m;
    let mut gamma = vec![0.0; size * size];
    for i in 0..n {
        gamma[i * size..i * size + n].copy_from_slice(&b[i * n..(i + 1) * n]);
    }
    for i in 0..m {
        for j in 0..n {
            gamma[(n + i) * size + j] = jacobian[i * n + j];
            gamma[j * size + n + i] = jacobian[i * n + j];
        }
    }
    gamma
}

impl<P: Curved + ?Sized> Solver<P> for SketchedNewton {
    type State = SketchedNewtonState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x0: &[f64]) -> Result<Self::State> {
        check_start(problem, x0)?;
        problem.check_curvature()?;
        self.check()?;
        let free = |simple: &Simple| {
            simple.as_bounds(x0.len()).is_some_and(|b| b == crate::problem::Bounds::none(x0.len()))
        };
        if !free(problem.simple()) {
            let problem = "sketched-newton takes equalities alone: neither bounds nor sets; use the augmented Lagrangian";
            return Err(Error::Problem { problem: problem.to_owned() });
        }
        if let Some(c) = problem.constraints().iter().find(|c| !c.is_equality()) {
            let problem =
                format!("sketched-newton takes equalities alone, and `{}` is an inequality", c.name);
            return Err(Error::Problem { problem });
        }
        let multipliers = vec![self.multiplier; problem.constraints().len()];
        let mut state = SketchedNewtonState {
            x: x0.to_vec(),
            multipliers,
            eta1: self.eta1,
            eta2: self.eta2,
            delta: self.delta,
            iteration: 0,
            sketches: 0,
            flops: 0.0,
            step: 0.0,
            residual: 0.0,
            objective: 0.0,
        };
        state.measure(problem);
        Ok(state)
    }

    fn step(&self, problem: &P, s: &mut Self::State) -> Result<Flow> {
        if !(s.residual.is_finite() && s.objective.is_finite()) {
            return Ok(Flow::Stop(Status::NotFinite));
        }
        if s.residual <= self.stop.tolerance {
            return Ok(Flow::Stop(Status::Optimal));
        }
        let (n, m) = (s.x.len(), s.multipliers.len());
        let here = Here {
            c: equalities(problem, &s.x),
            g: gradient(problem, &s.x, &s.multipliers),
            jacobian: problem.jacobian(&s.x),
            hessian: problem.hessian(&s.x, &s.multipliers).symmetric(),
        };
        let jacobian = here.jacobian.dense();
        let gram: Vec<f64> = (0..m * m)
            .map(|k| dot(&jacobian[(k / m) * n..(k / m + 1) * n], &jacobian[(k % m) * n..(k % m + 1) * n]))
            .collect();
        let Some(spectrum) = eigenvalues(&gram, m) else { return Ok(Flow::Stop(Status::NotFinite)) };
        let xi_g = spectrum.first().copied().unwrap_or(f64::INFINITY);
        if m > n || xi_g < self.singular {
            return Ok(Flow::Stop(Status::Singular));
        }
        let Some(modified) = self.modified(&here, &jacobian) else {
            return Ok(Flow::Stop(Status::NotFinite));
        };
        let psi = 20.0 * norm(&modified).powi(2).max(1.0) / (xi_g.min(1.0) * self.xi_b.min(1.0));
        let upsilon = norm(&jacobian).max(norm(&here.hessian)).max(1.0);
        s.delta = self.accuracy(s, upsilon, psi, s.delta);

        let gamma = kkt_matrix(&modified, &jacobian, n, m);
        let b: Vec<f64> = here.g.iter().chain(&here.c).map(|v| -v).collect();
        let (size, rhs) = (norm(&gamma), norm(&b));
        let mut rng = Seed::new(self.seed).stream("sketched-newton", &[s.iteration]);
        let mut linear = Iteration::new(self.system, &gamma, &b);
        let mut raised = 0;
        let slope = loop {
            // θ = 1 throughout.
            linear.run(self.system, s.delta * rhs / (size * psi), self.sketches, &mut rng);
            let slope = dot(&self.merit_gradient(problem, s, &here), &linear.z);
            let last = s.eta1 > LARGEST_ETA1 || s.eta2 < LEAST_ETA2 || raised == MOST_RAISES;
            if last || slope <= -0.5 * s.eta2 * rhs * rhs {
                break slope;
            }
            raised += 1;
            s.eta1 *= self.nu.powi(2);
            s.eta2 /= self.nu;
            s.delta = self.accuracy(s, upsilon, psi, s.delta / self.nu.powi(4));
        };
        s.sketches += linear.steps;
        s.flops += linear.flops;
        s.iteration += 1;
        Ok(self.search(problem, s, &linear.z, slope))
    }
}

impl SketchedNewton {
    /// Halves the step until the merit falls enough.
    fn search<P: Curved + ?Sized>(
        &self,
        problem: &P,
        s: &mut SketchedNewtonState,
        z: &[f64],
        slope: f64,
    ) -> Flow {
        let before = merit(problem, &s.x, &s.multipliers, s.eta1, s.eta2);
        let mut alpha = 1.0;
        for _ in 0..60 {
            let (mut x, mut multipliers) = (s.x.clone(), s.multipliers.clone());
            add_scaled(&mut x, alpha, &z[..s.x.len()]);
            add_scaled(&mut multipliers, alpha, &z[s.x.len()..]);
            let there = merit(problem, &x, &multipliers, s.eta1, s.eta2);
            // What is not finite is no decrease.
            let finite = there.is_finite() && x.iter().chain(&multipliers).all(|v| v.is_finite());
            if finite && there <= before + alpha * self.beta * slope {
                (s.x, s.multipliers, s.step) = (x, multipliers, alpha);
                s.measure(problem);
                return if s.residual <= self.stop.tolerance {
                    Flow::Stop(Status::Optimal)
                } else {
                    Flow::Continue
                };
            }
            alpha *= 0.5;
        }
        s.step = 0.0;
        Flow::Stop(Status::Stalled)
    }
}

impl SketchedNewtonState {
    fn measure<P: Curved + ?Sized>(&mut self, problem: &P) {
        let g = gradient(problem, &self.x, &self.multipliers);
        self.residual = norm(&g).hypot(norm(&equalities(problem, &self.x)));
        self.objective = problem.value(&self.x);
    }

    /// `|(∇L, c)|`, by which the method ends.
    pub fn residual(&self) -> f64 {
        self.residual
    }

    /// Sketch steps, or products with the KKT matrix, in all.
    pub fn sketches(&self) -> u64 {
        self.sketches
    }

    /// Floating-point operations of the linear systems in all.
    pub fn flops(&self) -> f64 {
        self.flops
    }
}

impl Iterate for SketchedNewtonState {
    fn x(&self) -> &[f64] {
        &self.x
    }

    fn multipliers(&self) -> Vec<f64> {
        self.multipliers.clone()
    }

    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn measures(&self) -> Metrics {
        let mut metrics = Metrics::new();
        for (name, value) in [
            ("objective", self.objective),
            ("residual", self.residual),
            ("step", self.step),
            ("sketches", self.sketches as f64),
            ("flops", self.flops),
            ("eta1", self.eta1),
            ("eta2", self.eta2),
        ] {
            metrics.set(name, value);
        }
        metrics
    }
}

#[cfg(test)]
mod tests;
