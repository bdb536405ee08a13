//! Penalty methods for nonconvex bilevel problems: the lower level as a penalty on its value, by (stochastic) gradients alone.
//!
//! # Objective
//! With `h_σ = σ F + f` the constraint that `y` solves the lower level becomes a penalty of strength `1/σ`:
//! ```text
//! ψ_σ(x) = ( min_{y in Y} h_σ(x,y) − min_{z in Y} f(x,z) ) / σ
//! ∇ψ_σ   = ∇_x F(x,y) + (∇_x f(x,y) − ∇_x f(x,z)) / σ          at the minimisers
//! |ψ_σ − ψ| = O(σ/μ),   |∇ψ_σ − ∇ψ| = O(σ/μ³)
//! ```
//! if a small proximal residual of `h_σ(x,·)` bounds the distance to its minimisers, with modulus `μ`; the lower level needs neither
//! convexity nor a single solution. Without such a bound `ψ_σ` may stay far from `ψ` however small `σ` is. Both minimisers are
//! tracked through proximal points of parameter `ρ`:
//! ```text
//! double loop, T times from u = y, w = z:     u <- P_Y(u − γ [σ ∇_y F(x,u) + ∇_y f(x,u) + (u − y)/ρ])
//!                                             w <- P_Y(w − γ [∇_y f(x,w) + (w − z)/ρ])
//!     y <- (1−β) y + β u,   z <- (1−β) z + β w
//!     x <- P_X(x − α/M Σ_m [∇_x F(x,y) + (∇_x f(x,y) − ∇_x f(x,z))/σ])          the same sample in both ∇_x f
//! single loop: u and w are kept between steps (T = 1), the gradient for x is taken at u and w, and every gradient is
//!     G_k = grad(k; ξ) + (1 − η_k) (G_{k−1} − grad(k−1; ξ))                       one sample ξ at both points
//! ```
//! # Parameters
//! | name | symbol | default | range | meaning |
//! |------|--------|---------|-------|---------|
//! | loops | | double, T = 5, M = 1 | | double: `inner` T and `batch` M; single: `eta` η, by default `min(1, 8 (k+8)^(−2/3))` |
//! | sigma, power, floor | σ | 0.1, 1/3, 0.01 | > 0, >= 0, (0, sigma] | `σ_k = max(floor, sigma (k+1)^−power)` |
//! | alpha | α | measured | > 0 | step of `x` at `sigma`; in proportion to `σ_k` after that |
//! | beta | β | 0.5 | (0, 1] | step of the proximal centres |
//! | gamma | γ | measured | > 0 | step of `u` and `w` |
//! | rho | ρ | measured | > 0 | proximal parameter, below `1/ρ_f` where `f` is convex only up to `ρ_f/2 \|y\|²` |
//! | sampled | | none | | seed; without it the exact gradients are used |
//! | stop | | 1e-3, 100000 | | it ends by itself, with exact gradients, where `\|x − x⁺\|/α` and, over `σ`, both proximal residuals are below the tolerance |
//!
//! What is not given is measured at the start, with the Lipschitz constants `L` of `∇_y f` by `y`, `L_F` of `∇_y F` by `y` and `L_x` of `∇_x f` by
//! both: `ρ = 1/(2L)`, `γ = 1/(L + σ L_F + 1/ρ)`, `α = min(1/(2 L_Fx), σ/(4 L_x))`.
//! # Metrics
//! `sigma` · `stationarity` `|x − x⁺|/α` · `proximal` the larger of `|u − y|/ρ` and `|w − z|/ρ` · `gradients` evaluated so far, each of `F` or `f`
//! # Reference
//! Kwon, Kwon, Wright & Nowak 2024, ICLR, arXiv:2309.01753, algorithms 1 and 2. Momentum: Cutkosky & Orabona 2019 (STORM).
//! # Differences
//! The paper states orders, not constants: the defaults are ours. Its appendix was not at hand, so which of `y` and `u` enters the step of `x` is as
//! above; both converge to the same point. `y` and `z` start at the same point; if the lower level has several valleys they can
//! part, and `ψ_σ` then means little: `gap` of the diagnosis shows it.
//! # Checked against
//! Iterates of both algorithms and closed forms of `ψ_σ` to twelve digits (`tests.rs`); the rates of the paper by `saddle reproduce penalty-bilevel`.

mod single;
#[cfg(test)]
mod tests;

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::metrics::Metrics;
use saddlepoint_core::seed::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::single::Memory;
use super::problem::{begin, check_start};
use super::vector::{blend, distance, finite};
use super::{Bilevel, Iterate, Solver, measure};
use crate::linalg::add_scaled;
use crate::outcome::Status;
use crate::solver::{Flow, Stop};
use crate::{Error, Result};

/// The method and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PenaltyBilevel {
    /// How the lower level is followed.
    pub loops: Loops,
    /// The first penalty parameter, > 0.
    pub sigma: f64,
    /// Exponent of its decay, >= 0; 0 keeps it constant.
    pub power: f64,
    /// The last penalty parameter, > 0 and at most `sigma`.
    pub floor: f64,
    /// Step of `x` at `sigma`, > 0; measured where it is not given.
    pub alpha: Option<f64>,
    /// Step of the proximal centres, in (0, 1].
    pub beta: f64,
    /// Step of the lower variables, > 0; measured where it is not given.
    pub gamma: Option<f64>,
    /// Proximal parameter, > 0; measured where it is not given.
    pub rho: Option<f64>,
    /// Seed of the samples on which gradients are taken; without it they are exact.
    pub sampled: Option<u64>,
    /// When it ends.
    pub stop: Stop,
}

/// How the lower level is followed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loops {
    /// Some steps of the lower level a step of the upper one.
    Double {
        /// Steps of the lower level, >= 1.
        #[serde(default = "Loops::inner")]
        inner: u32,
        /// Samples of the upper step, >= 1.
        #[serde(default = "Loops::batch")]
        batch: u32,
    },
    /// One step of each, with momentum where gradients are sampled.
    Single {
        /// The share of a gradient estimate that is new, in (0, 1]; falling as on the page where it is not given.
        eta: Option<f64>,
    },
}

impl Loops {
    fn inner() -> u32 {
        5
    }

    fn batch() -> u32 {
        1
    }
}

impl Default for PenaltyBilevel {
    fn default() -> Self {
        Self {
            loops: Loops::Double { inner: Loops::inner(), batch: Loops::batch() },
            sigma: 0.1,
            power: 1.0 / 3.0,
            floor: 0.01,
            alpha: None,
            beta: 0.5,
            gamma: None,
            rho: None,
            sampled: None,
            stop: super::STOP,
        }
    }
}

/// Where it is. All of it can be written and read again; a run goes on to the bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PenaltyState {
    /// Upper variable.
    pub x: Vec<f64>,
    /// Follows the minimiser of `σ F + f`.
    pub y: Vec<f64>,
    /// Follows the minimiser of `f`.
    pub z: Vec<f64>,
    /// The proximal point of `y`.
    pub u: Vec<f64>,
    /// The proximal point of `z`.
    pub w: Vec<f64>,
    /// Steps done.
    pub k: u64,
    /// Largest step of `x`; none where `alpha` was given.
    pub longest: Option<f64>,
    /// Step of `x` over `σ_k`.
    pub ratio: f64,
    /// Step of `u` and `w`.
    pub gamma: f64,
    /// Proximal parameter.
    pub rho: f64,
    /// Gradients evaluated so far, each of `F` or `f`.
    pub gradients: u64,
    /// `|x − x⁺|/α` of the last step.
    pub stationarity: Option<f64>,
    /// `max(|u − y|, |w − z|)/ρ` of the last step.
    pub proximal: Option<f64>,
    /// `σ` of the last step.
    pub sigma: Option<f64>,
    memory: Option<Memory>,
}

/// One evaluation of a gradient, exact or on a sample.
struct Oracle<'a, P: ?Sized> {
    problem: &'a P,
    sample: Option<u64>,
}

impl<P: Bilevel + ?Sized> Oracle<'_, P> {
    fn upper(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        match self.sample {
            Some(sample) => self.problem.upper_grad_on(sample, x, y, dx, dy),
            None => self.problem.upper_grad(x, y, dx, dy),
        }
    }

    fn lower(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        match self.sample {
            Some(sample) => self.problem.lower_grad_on(sample, x, y, dx, dy),
            None => self.problem.lower_grad(x, y, dx, dy),
        }
    }
}

impl PenaltyBilevel {
    fn check<P: Bilevel + ?Sized>(&self, problem: &P) -> Result<()> {
        let d = Self::default();
        super::positive("sigma", self.sigma, d.sigma)?;
        Error::not_negative("power", self.power, d.power)?;
        if !(self.floor > 0.0 && self.floor <= self.sigma) {
            return Err(Error::range("floor", "> 0 and <= sigma", self.floor, d.floor));
        }
        super::measured("alpha", self.alpha)?;
        super::measured("gamma", self.gamma)?;
        super::measured("rho", self.rho)?;
        let share = |key, got: f64, default: &str| {
            let problem = format!("must be in (0, 1], got {got} (default {default})");
            if got > 0.0 && got <= 1.0 { Ok(()) } else { Err(Error::Setting { key, problem }) }
        };
        share("beta", self.beta, "0.5")?;
        match self.loops {
            Loops::Double { inner: 0, .. } => return Err(Error::range("inner", ">= 1", 0.0, 5.0)),
            Loops::Double { batch: 0, .. } => return Err(Error::range("batch", ">= 1", 0.0, 1.0)),
            Loops::Single { eta: Some(eta) } => share("eta", eta, "min(1, 8 (k+8)^(-2/3))")?,
            _ => {}
        }
        if problem.sizes().constraints > 0 {
            let problem = "its lower level has constraints g, which this method cannot hold; use LvHba, or state them as a set";
            return Err(Error::Problem { problem: problem.to_owned() });
        }
        if self.sampled.is_some() && !problem.stochastic() {
            let problem = "sampled gradients were asked for, and it has only exact ones; leave out `sampled`";
            return Err(Error::Problem { problem: problem.to_owned() });
        }
        self.stop.check()
    }

    /// The settings that are measured where they are not given: `rho`, `gamma`, the longest step of `x` (none where its step is given), and
    /// its ratio to `σ`.
    fn steps<P: Bilevel + ?Sized>(&self, problem: &P, x: &[f64], y: &[f64]) -> (f64, f64, Option<f64>, f64) {
        let finite = |value: f64| if value.is_finite() { value } else { 1.0 };
        let (mut dx, mut dy) = (vec![0.0; x.len()], vec![0.0; y.len()]);
        let (rho, gamma) = if let (Some(rho), Some(gamma)) = (self.rho, self.gamma) {
            (rho, gamma)
        } else {
            let lower = measure::lipschitz(y, |y, out| problem.lower_grad(x, y, &mut dx, out));
            let upper = measure::lipschitz(y, |y, out| problem.upper_grad(x, y, &mut dx, out));
            let rho = self.rho.unwrap_or(finite(0.5 / lower.max(f64::MIN_POSITIVE)));
            (rho, self.gamma.unwrap_or(finite(1.0 / (lower + self.sigma * upper + 1.0 / rho))))
        };
        if let Some(alpha) = self.alpha {
            return (rho, gamma, None, alpha / self.sigma);
        }
        let upper_x = measure::lipschitz(x, |x, out| problem.upper_grad(x, y, out, &mut dy));
        let lower_x = measure::lipschitz(x, |x, out| problem.lower_grad(x, y, out, &mut dy));
        let cross = measure::cross(
            x,
            y,
            |x, out| problem.lower_grad(x, y, &mut dx, out),
            |y, out| problem.lower_grad(x, y, out, &mut dy),
        );
        // Where the lower level does not depend on x there is nothing that this would have to be slower than.
        (rho, gamma, Some(finite(0.5 / upper_x)), finite(0.25 / (lower_x + cross)))
    }

    /// `σ_k`.
    fn sigma_at(&self, k: u64) -> f64 {
        (self.sigma * ((k + 1) as f64).powf(-self.power)).max(self.floor)
    }

    /// The `i`-th oracle of step `k`.
    fn oracle<'a, P: ?Sized>(&self, problem: &'a P, k: u64, i: u64) -> Oracle<'a, P> {
        let sample = self.sampled.map(|seed| Seed::new(seed).stream("penalty-bilevel", &[k, i]).next_u64());
        Oracle { problem, sample }
    }

    /// Algorithm 1: the new `u`, `w`, `y`, `z` and the direction of `x`.
    fn double<P: Bilevel + ?Sized>(
        &self,
        problem: &P,
        s: &mut PenaltyState,
        sigma: f64,
        (inner, batch): (u32, u32),
    ) -> Moved {
        let (n, m) = (s.x.len(), s.y.len());
        let (mut u, mut w) = (s.y.clone(), s.z.clone());
        let (mut unused, mut upper, mut lower) = (vec![0.0; n], vec![0.0; m], vec![0.0; m]);
        let mut oracles = (0..).map(|i| self.oracle(problem, s.k, i));
        let mut next = || oracles.next().expect("there is no last one");
        for _ in 0..inner {
            next().upper(&s.x, &u, &mut unused, &mut upper);
            next().lower(&s.x, &u, &mut unused, &mut lower);
            add_scaled(&mut lower, sigma, &upper);
            s.lower_step(problem, &mut u, &lower, &s.y);
            next().lower(&s.x, &w, &mut unused, &mut lower);
            s.lower_step(problem, &mut w, &lower, &s.z);
        }
        let (mut y, mut z) = (s.y.clone(), s.z.clone());
        blend(&mut y, self.beta, &u);
        blend(&mut z, self.beta, &w);
        let (mut direction, mut at_y, mut at_z) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        for _ in 0..batch {
            let mut upper_x = vec![0.0; n];
            next().upper(&s.x, &y, &mut upper_x, &mut upper);
            let same = next();
            same.lower(&s.x, &y, &mut at_y, &mut lower);
            same.lower(&s.x, &z, &mut at_z, &mut lower);
            for i in 0..n {
                direction[i] += (upper_x[i] + (at_y[i] - at_z[i]) / sigma) / f64::from(batch);
            }
        }
        s.gradients += 3 * (u64::from(inner) + u64::from(batch));
        Moved { u, w, y, z, direction }
    }
}

/// What a step makes before it is known to be finite.
struct Moved {
    u: Vec<f64>,
    w: Vec<f64>,
    y: Vec<f64>,
    z: Vec<f64>,
    direction: Vec<f64>,
}

impl PenaltyState {
    /// `u <- P_Y(u − γ [grad + (u − centre)/ρ])`.
    fn lower_step<P: Bilevel + ?Sized>(&self, problem: &P, u: &mut [f64], grad: &[f64], centre: &[f64]) {
        for i in 0..u.len() {
            u[i] -= self.gamma * (grad[i] + (u[i] - centre[i]) / self.rho);
        }
        problem.lower_set().prox(1.0, u);
    }
}

impl<P: Bilevel + ?Sized> Solver<P> for PenaltyBilevel {
    type State = PenaltyState;

    fn stop(&self) -> Stop {
        self.stop
    }

    fn init(&self, problem: &P, x: &[f64], y: &[f64]) -> Result<PenaltyState> {
        check_start(problem, x, y)?;
        self.check(problem)?;
        let (x, y) = begin(problem, x, y)?;
        let (rho, gamma, longest, ratio) = self.steps(problem, &x, &y);
        Ok(PenaltyState {
            z: y.clone(),
            u: y.clone(),
            w: y.clone(),
            x,
            y,
            k: 0,
            longest,
            ratio,
            gamma,
            rho,
            gradients: 0,
            stationarity: None,
            proximal: None,
            sigma: None,
            memory: None,
        })
    }

    fn step(&self, problem: &P, s: &mut PenaltyState) -> Result<Flow> {
        let sigma = self.sigma_at(s.k);
        let alpha = (s.ratio * sigma).min(s.longest.unwrap_or(f64::INFINITY));
        let before = s.memory.clone();
        let moved = match self.loops {
            Loops::Double { inner, batch } => self.double(problem, s, sigma, (inner, batch)),
            Loops::Single { eta } => self.single(problem, s, sigma, eta),
        };
        let mut x = s.x.clone();
        add_scaled(&mut x, -alpha, &moved.direction);
        if !finite(&[&x, &moved.u, &moved.w]) {
            s.memory = before;
            return Ok(Flow::Stop(Status::NotFinite));
        }
        problem.upper_set().prox(1.0, &mut x);
        let stationarity = distance(&x, &s.x) / alpha;
        let proximal = distance(&moved.u, &s.y).max(distance(&moved.w, &s.z)) / s.rho;
        let Moved { u, w, y, z, .. } = moved;
        (s.x, s.u, s.w, s.y, s.z) = (x, u, w, y, z);
        (s.stationarity, s.proximal, s.sigma) = (Some(stationarity), Some(proximal), Some(sigma));
        s.k += 1;
        let tolerance = self.stop.tolerance;
        let last = sigma <= self.floor || self.power == 0.0;
        let rests = last && stationarity <= tolerance && proximal <= sigma * tolerance;
        Ok(if rests && self.sampled.is_none() { Flow::Stop(Status::Optimal) } else { Flow::Continue })
    }
}

impl Iterate for PenaltyState {
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
        for (name, value) in
            [("sigma", self.sigma), ("stationarity", self.stationarity), ("proximal", self.proximal)]
        {
            measures.set(name, value.unwrap_or(f64::NAN));
        }
        measures.set("gradients", self.gradients as f64);
        measures
    }
}
