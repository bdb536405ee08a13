//! `min ½ wᵀ Q w − bᵀ w + Σ λ_i |w_i|` by active sets: exact where coordinate descent crawls.
//!
//! # Method
//! Signs `θ` of the coordinates that are not 0 are guessed one by one. With them fixed the minimum is that of a quadratic, which one
//! Cholesky decomposition gives; on the way to it the first change of a sign that gives the lowest value ends the step. Every step lowers
//! the value, so the number of steps is finite. Coordinates are first divided by the roots of the diagonal of `Q`, so that the units of
//! the data do not matter.
//!
//! # Reference
//! Lee, Battle, Raina & Ng 2007, *Efficient sparse coding algorithms*, algorithm 1 (feature-sign search).

use saddlepoint_opt::linalg::Cholesky;

/// How a problem ended that was not solved.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsolved {
    /// The largest element of the subgradient of least size, as a share of the largest of `b` and `λ`.
    pub(super) residual: f64,
    /// How it ended.
    pub(super) what: String,
}

/// Residual at which a coordinate is activated, and the one that a solution may have, which rounding can leave in nearly singular
/// problems.
const FINE: f64 = 1e-11;
const ACCEPTED: f64 = 1e-7;

/// The minimum, from `start`. Scores keep `Q` regular: its smallest eigenvalue, after division by the roots of the diagonal, is some 1e-10
/// or more.
pub(super) fn solve(q: &[f64], b: &[f64], lambda: &[f64], start: &[f64]) -> Result<Vec<f64>, Unsolved> {
    let p = b.len();
    let units: Vec<f64> = (0..p).map(|i| q[i * p + i].sqrt()).collect();
    let finite = [q, b, lambda, start].into_iter().flatten().all(|x| x.is_finite());
    if !finite || units.iter().any(|u| *u <= 0.0) {
        return Err(Unsolved { residual: f64::NAN, what: "a moment is not finite or 0".into() });
    }
    let mut scaled = Scaled {
        p,
        q: (0..p * p).map(|at| q[at] / (units[at / p] * units[at % p])).collect(),
        b: b.iter().zip(&units).map(|(b, u)| b / u).collect(),
        lambda: lambda.iter().zip(&units).map(|(l, u)| l / u).collect(),
        w: start.iter().zip(&units).map(|(w, u)| w * u).collect(),
    };
    scaled.descend()?;
    Ok(scaled.w.iter().zip(&units).map(|(w, u)| w / u).collect())
}

/// How a step ended.
enum Step {
    /// At the minimum for its signs.
    Whole,
    /// Where signs have changed.
    Crossed,
    /// Where it began: none lowers the value.
    NoGain,
}

/// The problem with a unit diagonal, and its point.
struct Scaled {
    p: usize,
    q: Vec<f64>,
    b: Vec<f64>,
    lambda: Vec<f64>,
    w: Vec<f64>,
}

impl Scaled {
    /// `Q w − b`.
    fn gradient(&self) -> Vec<f64> {
        let mut g: Vec<f64> = self.b.iter().map(|b| -b).collect();
        for (j, &w) in self.w.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let row = &self.q[j * self.p..(j + 1) * self.p];
            g.iter_mut().zip(row).for_each(|(g, q)| *g += w * q);
        }
        g
    }

    /// The change of the value from `w` to `w + t d`, from its derivatives: the values themselves may be too large to show it.
    fn change(&self, slope: f64, curvature: f64, d: &[f64], t: f64, active: &[usize]) -> f64 {
        let norm = |i: usize| self.lambda[i] * ((self.w[i] + t * d[i]).abs() - self.w[i].abs());
        t * (slope + 0.5 * t * curvature) + active.iter().map(|&i| norm(i)).sum::<f64>()
    }

    fn descend(&mut self) -> Result<(), Unsolved> {
        let scale = self.b.iter().chain(&self.lambda).fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
        let most = 20 * self.p + 100;
        // Whether the signs' own minimum was reached, as far as rounding lets it.
        let mut settled = false;
        for _ in 0..most {
            let g = self.gradient();
            let excess = |i: usize| super::least(g[i], self.w[i], self.lambda[i]).abs() / scale;
            let nonzero = (0..self.p).filter(|&i| self.w[i] != 0.0);
            let inside = nonzero.map(excess).fold(0.0, f64::max);
            let zero = (0..self.p).filter(|&i| self.w[i] == 0.0);
            let worst = zero.max_by(|&i, &j| excess(i).total_cmp(&excess(j)));
            let outside = worst.map_or(0.0, excess);
            if f64::max(inside, outside) <= FINE {
                return Ok(());
            }
            let mut signs: Vec<f64> =
                self.w.iter().map(|w| if *w == 0.0 { 0.0 } else { w.signum() }).collect();
            // What is not 0 is solved first, then the worst zero has its turn.
            if inside <= FINE || settled {
                let Some(i) = worst.filter(|&i| excess(i) > FINE) else { break };
                signs[i] = -g[i].signum();
            }
            match self.step(&signs)? {
                Step::NoGain if settled => break,
                Step::Whole | Step::NoGain => settled = true,
                Step::Crossed => settled = false,
            }
        }
        let residual = self.residual() / scale;
        if residual <= ACCEPTED {
            return Ok(());
        }
        Err(Unsolved {
            residual,
            what: format!("after {most} steps of active sets, or no step lowers the value"),
        })
    }

    /// Goes to the minimum for these signs, or to the lowest change of a sign on the way.
    fn step(&mut self, signs: &[f64]) -> Result<Step, Unsolved> {
        let active: Vec<usize> = (0..self.p).filter(|&i| signs[i] != 0.0).collect();
        let right: Vec<f64> = active.iter().map(|&i| self.b[i] - self.lambda[i] * signs[i]).collect();
        let mut matrix = super::part(&self.q, self.p, &active, &active);
        let k = active.len();
        let factor = Cholesky::new(&matrix, k).or_else(|| {
            // Collinear regressors: any solution will do.
            (0..k).for_each(|i| matrix[i * k + i] += 1e-10);
            Cholesky::new(&matrix, k)
        });
        let Some(factor) = factor else {
            return Err(Unsolved {
                residual: f64::NAN,
                what: "the moments are not positive semidefinite".into(),
            });
        };
        let target = super::spread(&self.refined(&factor, &active, &right), &active, self.p);
        let direction: Vec<f64> = target.iter().zip(&self.w).map(|(t, w)| t - w).collect();
        let g = self.gradient();
        let slope: f64 = active.iter().map(|&i| g[i] * direction[i]).sum();
        let row = |i: usize| active.iter().map(|&j| self.q[i * self.p + j] * direction[j]).sum::<f64>();
        let curvature: f64 = active.iter().map(|&i| direction[i] * row(i)).sum();
        let mut best = (1.0, self.change(slope, curvature, &direction, 1.0, &active), None);
        for &i in &active {
            if self.w[i] != 0.0 && target[i] * self.w[i] < 0.0 {
                let t = self.w[i] / (self.w[i] - target[i]);
                let change = self.change(slope, curvature, &direction, t, &active);
                if change < best.1 {
                    best = (t, change, Some(i));
                }
            }
        }
        if best.1.is_nan() {
            return Err(Unsolved { residual: f64::NAN, what: "the value overflows".into() });
        }
        if best.1 >= 0.0 {
            return Ok(Step::NoGain);
        }
        for &i in &active {
            self.w[i] = if best.2.is_none() { target[i] } else { self.w[i] + best.0 * direction[i] };
        }
        let Some(i) = best.2 else {
            // Signs may have changed on the way and the value still be the lowest at its end.
            let kept = active.iter().all(|&i| target[i] * signs[i] >= 0.0);
            return Ok(if kept { Step::Whole } else { Step::Crossed });
        };
        self.w[i] = 0.0;
        Ok(Step::Crossed)
    }

    /// The solution on the active coordinates, with what rounding left of it taken out twice.
    fn refined(&self, factor: &Cholesky, active: &[usize], right: &[f64]) -> Vec<f64> {
        let mut x = factor.solve(right);
        for _ in 0..2 {
            let left = |(k, &i): (usize, &usize)| {
                right[k] - active.iter().zip(&x).map(|(&j, x)| self.q[i * self.p + j] * x).sum::<f64>()
            };
            let left: Vec<f64> = active.iter().enumerate().map(left).collect();
            x.iter_mut().zip(factor.solve(&left)).for_each(|(x, more)| *x += more);
        }
        x
    }

    /// The largest element of the subgradient of least size.
    fn residual(&self) -> f64 {
        let g = self.gradient();
        (0..self.p).map(|i| super::least(g[i], self.w[i], self.lambda[i]).abs()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::*;

    fn residual(q: &[f64], b: &[f64], lambda: &[f64], w: &[f64]) -> f64 {
        let p = b.len();
        let slope = |i: usize| (0..p).map(|j| q[i * p + j] * w[j]).sum::<f64>() - b[i];
        (0..p).map(|i| super::super::least(slope(i), w[i], lambda[i]).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn without_correlation_it_is_soft_thresholding() {
        let q = [2.0, 0.0, 0.0, 0.5];
        let w = solve(&q, &[3.0, -0.25], &[1.0, 0.5], &[0.0, 7.0]).expect("solved");
        assert_close!(w, [1.0, 0.0], atol = 1e-15);
        assert!(solve(&[], &[], &[], &[]).expect("nothing to do").is_empty());
        assert!(solve(&[0.0], &[1.0], &[1.0], &[0.0]).is_err());
        assert!(solve(&[1.0], &[f64::NAN], &[1.0], &[0.0]).is_err());
    }

    #[test]
    fn equal_regressors_and_no_penalty_are_solved() {
        let w = solve(&[1.0; 4], &[0.8, 0.8], &[0.1, 0.1], &[0.0; 2]).expect("solved");
        assert_close!(w[0] + w[1], 0.7, rtol = 1e-8);
        let w = solve(&[1.0, 0.5, 0.5, 1.0], &[1.0, 0.0], &[0.0; 2], &[0.0; 2]).expect("solved");
        assert_close!(w, [4.0 / 3.0, -2.0 / 3.0], rtol = 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn the_optimality_conditions_hold_whatever_the_units(
            values in proptest::collection::vec(-1.0..1.0_f64, 8 * 12), scales in proptest::collection::vec(-6.0..6.0_f64, 8),
            lambda in -6.0..0.5_f64, near in 0.0..1.0_f64,
        ) {
            // 8 regressors of 12 samples, some nearly equal, in units from 1e-6 to 1e6.
            let (n, p) = (12, 8);
            let unit: Vec<f64> = scales.iter().map(|s| 10.0_f64.powf(*s)).collect();
            let x = |r: usize, i: usize| unit[i] * (values[r * p + i] * near.powi(8) + values[r * p + i / 4]);
            let y = |r: usize| values[r * p + 7] + 2.0 * values[r * p];
            let mut q: Vec<f64> = (0..p * p).map(|at| (0..n).map(|r| x(r, at / p) * x(r, at % p)).sum::<f64>()).collect();
            (0..p).for_each(|i| q[i * p + i] *= 1.0 + 1e-9);
            let b: Vec<f64> = (0..p).map(|i| (0..n).map(|r| x(r, i) * y(r)).sum()).collect();
            let lambda: Vec<f64> = unit.iter().map(|u| u * 10.0_f64.powf(lambda)).collect();
            let w = solve(&q, &b, &lambda, &vec![0.0; p]).expect("solved");
            let scaled = |v: &[f64]| -> Vec<f64> { v.iter().enumerate().map(|(i, v)| v / q[i * p + i].sqrt()).collect() };
            let unit_q: Vec<f64> = (0..p * p).map(|at| q[at] / (q[at / p * (p + 1)] * q[at % p * (p + 1)]).sqrt()).collect();
            let unit_w: Vec<f64> = w.iter().enumerate().map(|(i, w)| w * q[i * p + i].sqrt()).collect();
            let size = scaled(&b).iter().fold(0.0_f64, |most, b| most.max(b.abs())).max(1e-9);
            prop_assert!(residual(&unit_q, &scaled(&b), &scaled(&lambda), &unit_w) <= 1e-6 * size);
            // From another start the value is the same.
            let other = solve(&q, &b, &lambda, &unit.iter().map(|u| 1.0 / u).collect::<Vec<_>>()).expect("solved");
            let value = |w: &[f64]| -> f64 {
                (0..p).map(|i| w[i] * (0.5 * (0..p).map(|j| q[i * p + j] * w[j]).sum::<f64>() - b[i]) + lambda[i] * w[i].abs()).sum()
            };
            prop_assert!((value(&w) - value(&other)).abs() <= 1e-6 * value(&w).abs().max(1e-9));
        }
    }
}
