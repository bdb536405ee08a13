//! Bilevel problems with quadratic objectives and affine constraints.

use rand_distr::{Distribution as _, StandardNormal};
use saddlepoint_core::seed::Seed;
use serde::{Deserialize, Serialize};

use super::{Bilevel, LowerCurvature, Sizes};
use crate::linalg::{add_scaled, dot, norm};
use crate::problem::{Affine, Simple};
use crate::{Error, Result};

/// `½ wᵀ Q w + qᵀ w + constant` over `w = (x, y)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// `Q`, symmetric, one row after the other.
    pub matrix: Vec<f64>,
    /// `q`.
    pub linear: Vec<f64>,
    /// The value at 0.
    pub constant: f64,
}

impl Form {
    /// From its parts.
    pub fn new(matrix: impl Into<Vec<f64>>, linear: impl Into<Vec<f64>>, constant: f64) -> Self {
        Self { matrix: matrix.into(), linear: linear.into(), constant }
    }

    fn check(&self, what: &str, len: usize) -> Result<()> {
        let problem = |problem: String| Err(Error::Problem { problem });
        if self.linear.len() != len || self.matrix.len() != len * len {
            let got = (self.matrix.len(), self.linear.len());
            return problem(format!(
                "the {what} objective of {len} variables needs {} and {len} numbers, got {got:?}",
                len * len
            ));
        }
        if self.matrix.iter().chain(&self.linear).chain([&self.constant]).any(|v| !v.is_finite()) {
            return problem(format!("the {what} objective has a number that is not finite"));
        }
        let skew = |i: usize, j: usize| (self.matrix[i * len + j] - self.matrix[j * len + i]).abs();
        let scale = norm(&self.matrix);
        match (0..len * len).find(|k| skew(k / len, k % len) > 1e-12 * scale) {
            None => Ok(()),
            Some(k) => problem(format!(
                "the matrix of the {what} objective is not symmetric at ({}, {})",
                k / len,
                k % len
            )),
        }
    }

    fn grad(&self, w: &[f64]) -> Vec<f64> {
        self.matrix
            .chunks_exact(w.len().max(1))
            .zip(&self.linear)
            .map(|(row, linear)| dot(row, w) + linear)
            .collect()
    }

    fn value(&self, w: &[f64]) -> f64 {
        let grad = self.grad(w);
        0.5 * (dot(&grad, w) + dot(&self.linear, w)) + self.constant
    }
}

/// The problem. It can be written and read, and its gradients can be made noisy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quadratic {
    sizes: Sizes,
    upper: Form,
    lower: Form,
    /// `a` and `b` of `a·w <= b` or `a·w = b`.
    rows: Vec<(Vec<f64>, f64, bool)>,
    /// The equalities together.
    affine: Simple,
    sets: [Simple; 2],
    noise: f64,
}

impl Quadratic {
    /// Of `n` upper and `m` lower variables.
    ///
    /// # Errors
    /// Lengths that do not fit, a matrix that is not symmetric, a number that is not finite.
    pub fn new(n: usize, m: usize, upper: Form, lower: Form) -> Result<Self> {
        upper.check("upper", n + m)?;
        lower.check("lower", n + m)?;
        let sizes = Sizes { upper: n, lower: m, constraints: 0 };
        let sets = [Simple::Free, Simple::Free];
        Ok(Self { sizes, upper, lower, rows: Vec::new(), affine: Simple::Free, sets, noise: 0.0 })
    }

    /// With sets for both levels.
    ///
    /// # Errors
    /// A set does not fit.
    pub fn within(mut self, upper: impl Into<Simple>, lower: impl Into<Simple>) -> Result<Self> {
        self.sets = [upper.into(), lower.into()];
        self.sets[0].check(self.sizes.upper)?;
        self.sets[1].check(self.sizes.lower)?;
        Ok(self)
    }

    /// Adds the constraint `a·(x, y) <= b` of the lower level.
    ///
    /// # Errors
    /// It does not fit or is not finite.
    pub fn at_most(self, a: &[f64], b: f64) -> Result<Self> {
        self.subject_to(a, b, false)
    }

    /// Adds the constraint `a·(x, y) = b` of the lower level.
    ///
    /// # Errors
    /// As [`at_most`](Self::at_most); also one that contradicts others.
    pub fn equal(self, a: &[f64], b: f64) -> Result<Self> {
        self.subject_to(a, b, true)
    }

    /// Lets sampled gradients have independent normal errors of this deviation in every element.
    #[must_use]
    pub fn noisy(mut self, deviation: f64) -> Self {
        self.noise = deviation;
        self
    }

    fn subject_to(mut self, a: &[f64], b: f64, equality: bool) -> Result<Self> {
        let len = self.sizes.upper + self.sizes.lower;
        if a.len() != len {
            return Err(Error::Length { what: "row of a constraint", expected: len, got: a.len() });
        }
        let size = norm(a);
        if !(size > 0.0 && size.is_finite() && b.is_finite()) {
            let problem = "a row of a constraint must be finite and not 0".to_owned();
            return Err(Error::Problem { problem });
        }
        self.rows.push((a.to_vec(), b, equality));
        self.sizes.constraints += 1;
        let equalities = || self.rows.iter().filter(|(_, _, equality)| *equality);
        if equality {
            let a: Vec<f64> = equalities().flat_map(|(a, _, _)| a.iter().copied()).collect();
            let b: Vec<f64> = equalities().map(|(_, b, _)| *b).collect();
            self.affine = Affine::new(&a, &b, len)?.into();
        }
        Ok(self)
    }

    fn split(&self, grad: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let (x, y) = grad.split_at(self.sizes.upper);
        dx.copy_from_slice(x);
        dy.copy_from_slice(y);
    }

    fn add_noise(&self, sample: u64, level: u64, dx: &mut [f64], dy: &mut [f64]) {
        let mut stream = Seed::new(sample).stream("noise", &[level]);
        for d in dx.iter_mut().chain(dy) {
            let normal: f64 = StandardNormal.sample(&mut stream);
            *d += self.noise * normal;
        }
    }

    /// Projects `w` onto the `i`-th of the convex sets whose intersection is `C`.
    fn project_onto(&self, i: usize, w: &mut [f64]) {
        match i {
            0 => {
                let (x, y) = w.split_at_mut(self.sizes.upper);
                self.sets[0].prox(1.0, x);
                self.sets[1].prox(1.0, y);
            }
            1 => self.affine.prox(1.0, w),
            _ => {
                let (a, b, equality) = &self.rows[i - 2];
                let above = dot(a, w) - b;
                if !equality && above > 0.0 {
                    add_scaled(w, -above / dot(a, a), a);
                }
            }
        }
    }
}

impl Bilevel for Quadratic {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn upper(&self, x: &[f64], y: &[f64]) -> f64 {
        self.upper.value(&[x, y].concat())
    }

    fn upper_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        self.split(&self.upper.grad(&[x, y].concat()), dx, dy);
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        self.lower.value(&[x, y].concat())
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        self.split(&self.lower.grad(&[x, y].concat()), dx, dy);
    }

    fn constraints(&self, x: &[f64], y: &[f64], g: &mut [f64]) {
        let w = [x, y].concat();
        for (g, (a, b, _)) in g.iter_mut().zip(&self.rows) {
            *g = dot(a, &w) - b;
        }
    }

    fn vjp(&self, _x: &[f64], _y: &[f64], w: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        for (w, (a, _, _)) in w.iter().zip(&self.rows) {
            let (ax, ay) = a.split_at(self.sizes.upper);
            add_scaled(dx, *w, ax);
            add_scaled(dy, *w, ay);
        }
    }

    fn equality(&self, i: usize) -> bool {
        self.rows[i].2
    }

    fn upper_set(&self) -> &Simple {
        &self.sets[0]
    }

    fn lower_set(&self) -> &Simple {
        &self.sets[1]
    }

    /// By the alternating projections of Dykstra (Boyle & Dykstra 1986), whose limit is the projection onto the intersection.
    fn project(&self, x: &mut [f64], y: &mut [f64]) -> Result<()> {
        const ROUNDS: usize = 100_000;
        let mut w = [&*x, &*y].concat();
        let sets: Vec<usize> = (0..2 + self.rows.len())
            .filter(|&i| match i {
                0 => self.sets.iter().any(|set| *set != Simple::Free),
                1 => self.affine != Simple::Free,
                _ => !self.rows[i - 2].2,
            })
            .collect();
        let mut taken = vec![vec![0.0; w.len()]; sets.len()];
        for round in 0.. {
            // The point may stand for many rounds while what was taken from it still changes (Birgin & Raydan 2005).
            let mut change = 0.0;
            for (&set, taken) in sets.iter().zip(&mut taken) {
                add_scaled(&mut w, 1.0, taken);
                let before = w.clone();
                self.project_onto(set, &mut w);
                for ((taken, before), after) in taken.iter_mut().zip(before).zip(&w) {
                    change += (before - after - *taken).powi(2);
                    *taken = before - after;
                }
            }
            // One set is done with one projection.
            if sets.len() < 2 || change.sqrt() <= 1e-13 * (1.0 + norm(&w)) {
                break;
            }
            if round == ROUNDS {
                let problem = "the alternating projections onto its sets and constraints do not settle; they may have no common point";
                return Err(Error::Problem { problem: problem.to_owned() });
            }
        }
        self.split(&w, x, y);
        Ok(())
    }

    fn stochastic(&self) -> bool {
        self.noise > 0.0
    }

    fn upper_grad_on(&self, sample: u64, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        self.upper_grad(x, y, dx, dy);
        self.add_noise(sample, 0, dx, dy);
    }

    fn lower_grad_on(&self, sample: u64, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        self.lower_grad(x, y, dx, dy);
        self.add_noise(sample, 1, dx, dy);
    }
}

impl LowerCurvature for Quadratic {
    fn hess_yy(&self, _x: &[f64], _y: &[f64], v: &[f64], out: &mut [f64]) {
        let (n, len) = (self.sizes.upper, self.sizes.upper + self.sizes.lower);
        for (i, out) in out.iter_mut().enumerate() {
            *out = dot(&self.lower.matrix[(n + i) * len + n..(n + i + 1) * len], v);
        }
    }

    fn hess_xy(&self, _x: &[f64], _y: &[f64], v: &[f64], out: &mut [f64]) {
        let (n, len) = (self.sizes.upper, self.sizes.upper + self.sizes.lower);
        for (i, out) in out.iter_mut().enumerate() {
            *out = dot(&self.lower.matrix[i * len + n..(i + 1) * len], v);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::super::vector::distance;
    use super::*;
    use crate::problem::Bounds;

    fn zero(len: usize) -> Form {
        Form::new(vec![0.0; len * len], vec![0.0; len], 0.0)
    }

    /// A plane, two half-spaces and a box around 0, in five variables.
    fn polyhedron() -> Quadratic {
        let bounds = |n| Bounds::new(vec![-1.0; n], vec![0.75; n]);
        Quadratic::new(2, 3, zero(5), zero(5))
            .and_then(|p| p.within(bounds(2), bounds(3)))
            .and_then(|p| p.equal(&[1.0, 1.0, 1.0, 1.0, 1.0], 0.25))
            .and_then(|p| p.at_most(&[1.0, -1.0, 2.0, 0.0, 0.0], 0.5))
            .and_then(|p| p.at_most(&[0.0, 3.0, 0.0, -1.0, 1.0], 0.25))
            .expect("consistent")
    }

    fn projected(problem: &Quadratic, w: &[f64]) -> Vec<f64> {
        let (mut x, mut y) = (w[..2].to_vec(), w[2..].to_vec());
        problem.project(&mut x, &mut y).expect("not empty");
        [x, y].concat()
    }

    proptest! {
        #[test]
        fn the_joint_projection_is_idempotent_and_does_not_expand(
            a in prop::array::uniform5(-3.0..3.0f64),
            b in prop::array::uniform5(-3.0..3.0f64),
        ) {
            let problem = polyhedron();
            let (pa, pb) = (projected(&problem, &a), projected(&problem, &b));
            let again = projected(&problem, &pa);
            prop_assert!(distance(&pa, &again) < 1e-9, "{pa:?} {again:?}");
            prop_assert!(distance(&pa, &pb) <= distance(&a, &b) + 1e-9);
            // The variational inequality of the projection, against another point of the set.
            let gain: f64 = (0..5).map(|i| (a[i] - pa[i]) * (pb[i] - pa[i])).sum();
            prop_assert!(gain < 1e-8, "{gain}");
            let mut g = [0.0; 3];
            problem.constraints(&pa[..2], &pa[2..], &mut g);
            prop_assert!(g[0].abs() < 1e-9 && g[1] < 1e-9 && g[2] < 1e-9, "{g:?}");
        }
    }

    #[test]
    fn a_half_space_is_projected_onto_in_closed_form() {
        let problem =
            Quadratic::new(1, 1, zero(2), zero(2)).and_then(|p| p.at_most(&[3.0, 4.0], 5.0)).expect("fits");
        let (mut x, mut y) = ([3.0], [4.0]);
        problem.project(&mut x, &mut y).expect("projects");
        assert_close!([x[0], y[0]], [0.6, 0.8], atol = 1e-15);
        problem.project(&mut x, &mut y).expect("projects");
        assert_close!([x[0], y[0]], [0.6, 0.8], atol = 1e-15);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let told = |result: Result<Quadratic>| result.expect_err("refused").to_string();
        let skew = Form::new([0.0, 1.0, 2.0, 0.0], [0.0; 2], 0.0);
        assert!(
            told(Quadratic::new(1, 1, zero(2), skew)).contains("lower objective is not symmetric at (0, 1)")
        );
        assert!(
            told(Quadratic::new(1, 2, zero(2), zero(3)))
                .contains("of 3 variables needs 9 and 3 numbers, got (4, 2)")
        );
        let base = || Quadratic::new(1, 1, zero(2), zero(2)).expect("fits");
        assert!(
            told(base().at_most(&[1.0], 0.0)).contains("row of a constraint: expected 2 elements, got 1")
        );
        assert!(told(base().at_most(&[0.0, 0.0], 0.0)).contains("finite and not 0"));
        let twice = base().equal(&[1.0, 1.0], 0.0).and_then(|p| p.equal(&[1.0, 1.0], 1.0));
        assert!(told(twice).contains("no point satisfies"));
        // Two parallel half-spaces without a common point.
        let apart = base()
            .at_most(&[1.0, 0.0], -1.0)
            .and_then(|p| p.at_most(&[-1.0, 0.0], -1.0))
            .expect("each for itself");
        let message = apart.project(&mut [0.0], &mut [0.0]).expect_err("empty").to_string();
        assert!(message.contains("they may have no common point"), "{message}");
    }
}
