//! The problem of Yao et al. 2024 whose lower level is strongly convex (LLSC), with constraints of both levels:
//! ```text
//! F = sin(cᵀx + dᵀy) + log(|x + y|² + 1)      Bx = 0
//! f = |x − y|²/2                              Ay + Hx = 0
//! ```
//! # Solution
//! The lower level is solved by the projection of `x` onto its constraint, `y = Rx` with `R = I − A⁺(A + H)`. With a basis `N` of the null
//! space of `B`, `x = Nu`, `q = Nᵀ(c + Rᵀd)` and `K = Nᵀ(I + R)ᵀ(I + R)N` what is left is `sin(qᵀu) + log(uᵀKu + 1)`. Of all `u` with the same
//! `qᵀu = s` the best has `uᵀKu = s²/κ`, `κ = qᵀK⁻¹q`; so `F* = min sin s + log(1 + s²/κ)`, whose minimum is in `[−π/2, 0]` and the
//! only stationary point there.
//!
//! # Differences
//! The rows of `(H, A)` are combined so that those of `A` are orthonormal: the same points satisfy them and both levels have the same solutions,
//! with other multipliers. With rows as they are drawn `|A|²` is about 2,300, and the released step `η = 0.1` is a hundred times above what
//! LV-HBA can take, so that it diverges. The authors' program does not, since it also projects `θ` onto the lower level's constraint; multipliers
//! then stay 0 and the step of `x` does not know of `H`. [`StronglyConvex::drawn`] draws matrices by the rule of their program (which
//! saved its own without a seed); theirs can be given to [`StronglyConvex::new`].

use rand_distr::{Distribution as _, Uniform};
use saddlepoint_core::seed::Seed;

use super::super::{Bilevel, Sizes};
use crate::linalg::{Cholesky, add_scaled, dot, null_space};
use crate::problem::{Affine, Simple};
use crate::{Error, Result};

/// The problem.
#[derive(Debug, Clone, PartialEq)]
pub struct StronglyConvex {
    /// `(H, A)` with orthonormal rows of `A`, one row after the other.
    rows: Vec<f64>,
    /// `B`, one row after the other.
    upper: Vec<f64>,
    upper_set: Simple,
    /// The constraints of both levels.
    both: Simple,
    c: Vec<f64>,
    d: Vec<f64>,
}

/// Its solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Upper variable.
    pub x: Vec<f64>,
    /// Lower variable.
    pub y: Vec<f64>,
    /// `F(x, y)`.
    pub upper: f64,
}

impl StronglyConvex {
    /// From the matrices, one row after the other, with as many columns as `c` and `d` have elements. Rows of `B` that are 0 say nothing.
    ///
    /// # Errors
    /// Lengths that do not fit, a number that is not finite, rows of `A` or of `B` that depend on each other.
    pub fn new(a: &[f64], h: &[f64], b: &[f64], c: &[f64], d: &[f64]) -> Result<Self> {
        let n = c.len();
        let problem = |problem: &str| Error::Problem { problem: problem.to_owned() };
        if n == 0 {
            return Err(problem("there are no variables"));
        }
        for (what, got, fits) in [
            ("d", d.len(), d.len() == n),
            ("H", h.len(), h.len() == a.len()),
            ("A", a.len(), a.len().is_multiple_of(n)),
            ("B", b.len(), b.len().is_multiple_of(n)),
        ] {
            if !fits {
                let whole = format!(
                    "{what} has {got} numbers; c has {n}, d must have as many, A and B whole rows of them, H as many as A"
                );
                return Err(problem(&whole));
            }
        }
        if [a, h, b, c, d].iter().any(|numbers| numbers.iter().any(|number| !number.is_finite())) {
            return Err(problem("every number of the matrices must be finite"));
        }
        let upper: Vec<f64> =
            b.chunks_exact(n).filter(|row| row.iter().any(|b| *b != 0.0)).flatten().copied().collect();
        let dependent = |name: &str| problem(&format!("the rows of {name} depend on each other"));
        factor(&upper, n).ok_or_else(|| dependent("B"))?;
        let lower = factor(a, n).ok_or_else(|| dependent("A"))?.lower();
        // L⁻¹ (H, A) with A Aᵀ = L Lᵀ, by substitution.
        let p = a.len() / n;
        let mut rows: Vec<f64> = Vec::with_capacity(2 * a.len());
        for i in 0..p {
            let mut row = [&h[i * n..(i + 1) * n], &a[i * n..(i + 1) * n]].concat();
            for k in 0..i {
                add_scaled(&mut row, -lower[i * p + k], &rows[2 * n * k..2 * n * (k + 1)]);
            }
            rows.extend(row.iter().map(|value| value / lower[i * p + i]));
        }
        let mut both = rows.clone();
        for row in upper.chunks_exact(n) {
            both.extend_from_slice(row);
            both.extend(std::iter::repeat_n(0.0, n));
        }
        let upper_set = Affine::new(&upper, &vec![0.0; upper.len() / n], n)?.into();
        let both = Affine::new(&both, &vec![0.0; p + upper.len() / n], 2 * n)?.into();
        Ok(Self { rows, upper, upper_set, both, c: c.to_vec(), d: d.to_vec() })
    }

    /// With 100 variables in each level, 90 lower and 45 upper constraints, all elements uniform in [0, 1).
    pub fn drawn(seed: u64) -> Self {
        let mut rng = Seed::new(seed).stream("bilevel/strongly-convex", &[]);
        let uniform = Uniform::new(0.0, 1.0).expect("an interval");
        let mut draw = |count: usize| -> Vec<f64> { (0..count).map(|_| uniform.sample(&mut rng)).collect() };
        let [a, h, b, c, d] = [90 * 100, 90 * 100, 45 * 100, 100, 100].map(&mut draw);
        Self::new(&a, &h, &b, &c, &d).expect("rows that are drawn are independent but with probability 0")
    }

    /// The lower level's solution and its multipliers.
    pub fn response(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        // At y = x the constraints are (A + H) x, and A Aᵀ = I.
        let mut multipliers = vec![0.0; self.sizes().constraints];
        self.constraints(x, x, &mut multipliers);
        let (mut unused, mut back) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        self.vjp(x, x, &multipliers, &mut unused, &mut back);
        (x.iter().zip(back).map(|(x, back)| x - back).collect(), multipliers)
    }

    /// The solution of the whole.
    ///
    /// # Errors
    /// A direction in which `x + y` does not change, so that it is not unique.
    pub fn solution(&self) -> Result<Solution> {
        let n = self.c.len();
        let basis = null_space(&self.upper, self.upper.len() / n, n);
        let free = basis.len() / n;
        let responses: Vec<Vec<f64>> = basis.chunks_exact(n).map(|v| self.response(v).0).collect();
        let directions = || basis.chunks_exact(n).zip(&responses);
        let q: Vec<f64> = directions().map(|(v, y)| dot(&self.c, v) + dot(&self.d, y)).collect();
        let sums: Vec<Vec<f64>> =
            directions().map(|(v, y)| v.iter().zip(y).map(|(v, y)| v + y).collect()).collect();
        let k: Vec<f64> = (0..free * free).map(|at| dot(&sums[at / free], &sums[at % free])).collect();
        let factor = Cholesky::new(&k, free).ok_or_else(|| Error::Problem {
            problem: "x + y does not change in one of the directions that the constraints leave".to_owned(),
        })?;
        let along = factor.solve(&q);
        let kappa = dot(&q, &along);
        // At s = −t the slope has the sign of cos(t) (κ + t²) − 2t, which falls from κ at 0 to −π at π/2.
        let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
        for _ in 0..60 {
            let t = f64::midpoint(low, high);
            if t.cos() * (kappa + t * t) > 2.0 * t { low = t } else { high = t }
        }
        let mut x = vec![0.0; n];
        // Where q is 0, so is everything.
        if kappa > 0.0 {
            basis.chunks_exact(n).zip(&along).for_each(|(v, u)| add_scaled(&mut x, -low * u / kappa, v));
        }
        let y = self.response(&x).0;
        Ok(Solution { upper: self.upper(&x, &y), x, y })
    }

    /// `cos(cᵀx + dᵀy)` and `2 / (|x + y|² + 1)`.
    fn slopes(&self, x: &[f64], y: &[f64]) -> (f64, f64) {
        let phase = dot(&self.c, x) + dot(&self.d, y);
        (phase.cos(), 2.0 / (sum_squared(x, y) + 1.0))
    }
}

/// `|x + y|²`.
fn sum_squared(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (x + y).powi(2)).sum()
}

/// Of `A Aᵀ`; none if the rows depend on each other.
fn factor(a: &[f64], n: usize) -> Option<Cholesky> {
    let row = |i: usize| &a[i * n..(i + 1) * n];
    let p = a.len() / n;
    let gram: Vec<f64> = (0..p * p).map(|at| dot(row(at / p), row(at % p))).collect();
    Cholesky::new(&gram, p)
}

impl Bilevel for StronglyConvex {
    fn sizes(&self) -> Sizes {
        let n = self.c.len();
        Sizes { upper: n, lower: n, constraints: self.rows.len() / (2 * n) }
    }

    fn upper(&self, x: &[f64], y: &[f64]) -> f64 {
        (dot(&self.c, x) + dot(&self.d, y)).sin() + sum_squared(x, y).ln_1p()
    }

    fn upper_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        let (cos, share) = self.slopes(x, y);
        for i in 0..x.len() {
            let common = share * (x[i] + y[i]);
            (dx[i], dy[i]) = (cos * self.c[i] + common, cos * self.d[i] + common);
        }
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        0.5 * x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f64>()
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        for i in 0..x.len() {
            (dx[i], dy[i]) = (x[i] - y[i], y[i] - x[i]);
        }
    }

    fn constraints(&self, x: &[f64], y: &[f64], g: &mut [f64]) {
        for (g, row) in g.iter_mut().zip(self.rows.chunks_exact(2 * x.len())) {
            let (of_x, of_y) = row.split_at(x.len());
            *g = dot(of_x, x) + dot(of_y, y);
        }
    }

    fn vjp(&self, x: &[f64], _y: &[f64], w: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        for (w, row) in w.iter().zip(self.rows.chunks_exact(2 * x.len())) {
            let (of_x, of_y) = row.split_at(x.len());
            add_scaled(dx, *w, of_x);
            add_scaled(dy, *w, of_y);
        }
    }

    fn equality(&self, _i: usize) -> bool {
        true
    }

    fn upper_set(&self) -> &Simple {
        &self.upper_set
    }

    fn project(&self, x: &mut [f64], y: &mut [f64]) -> Result<()> {
        let mut both = [&*x, &*y].concat();
        self.both.prox(1.0, &mut both);
        let (of_x, of_y) = both.split_at(x.len());
        x.copy_from_slice(of_x);
        y.copy_from_slice(of_y);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use saddlepoint_core::test::{assert_close, data};

    use super::super::super::{LvHba, Solver as _, diagnose};
    use super::*;
    use crate::linalg::norm;
    use crate::solver::Stop;

    /// The released steps.
    fn released(iterations: u64) -> LvHba {
        LvHba {
            alpha: Some(0.02),
            beta: Some(0.001),
            eta: Some(0.1),
            stop: Stop { tolerance: 1e-300, iterations },
            ..LvHba::default()
        }
    }

    /// Of four variables in each level.
    fn small() -> StronglyConvex {
        let a = [1.0, 2.0, 0.0, -1.0, 0.5, 0.0, 3.0, 1.0];
        let h = [0.0, 1.0, 1.0, 2.0, -1.0, 1.0, 0.0, 0.5];
        let b = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        StronglyConvex::new(&a, &h, &b, &[0.5, 0.2, 0.9, 0.4], &[0.1, 0.7, 0.3, 0.6])
            .expect("independent rows")
    }

    #[test]
    fn gradients_are_derivatives_and_the_constraints_are_those_that_were_given() {
        let problem = small();
        let w = [0.3, -0.7, 1.1, 0.2, -0.4, 0.8, 0.1, -1.2];
        for (value, grad) in [
            (
                StronglyConvex::upper as fn(&StronglyConvex, &[f64], &[f64]) -> f64,
                StronglyConvex::upper_grad as fn(&StronglyConvex, &[f64], &[f64], &mut [f64], &mut [f64]),
            ),
            (StronglyConvex::lower, StronglyConvex::lower_grad),
        ] {
            let (mut dx, mut dy) = ([0.0; 4], [0.0; 4]);
            grad(&problem, &w[..4], &w[4..], &mut dx, &mut dy);
            for (i, slope) in dx.into_iter().chain(dy).enumerate() {
                let moved = |h: f64| {
                    let mut w = w;
                    w[i] += h;
                    value(&problem, &w[..4], &w[4..])
                };
                assert_close!(slope, (moved(1e-5) - moved(-1e-5)) / 2e-5, atol = 1e-9);
            }
        }
        // Rows of A that are orthonormal.
        let of_a = |i: usize| &problem.rows[8 * i + 4..8 * (i + 1)];
        let products = [dot(of_a(0), of_a(0)), dot(of_a(0), of_a(1)), dot(of_a(1), of_a(1))];
        assert_close!(products, [1.0, 0.0, 1.0], atol = 1e-14);
        // A point of both constraints as they were given, and one that misses the second.
        let mut g = [1.0; 2];
        let x = [1.0, -2.0, 0.5, 1.0];
        // Hx = (0.5, −2.5), so Ay = (−0.5, 2.5).
        problem.constraints(&x, &[0.5, -0.5, 0.75, 0.0], &mut g);
        assert_close!(g, [0.0, 0.0], atol = 1e-14);
        problem.constraints(&x, &[0.5, -0.5, 1.75, 0.0], &mut g);
        assert!(norm(&g) > 0.1, "{g:?}");
    }

    #[test]
    fn projections_satisfy_both_levels_and_are_orthogonal() {
        let problem = small();
        let before = [0.3, -0.7, 1.1, 0.2, -0.4, 0.8, 0.1, -1.2];
        let (mut x, mut y) = (before[..4].to_vec(), before[4..].to_vec());
        problem.project(&mut x, &mut y).expect("projects");
        let mut g = [1.0; 2];
        problem.constraints(&x, &y, &mut g);
        assert_close!([g[0], g[1], x[0] + x[1] + x[3]], [0.0; 3], atol = 1e-14);
        let after = [x.clone(), y.clone()].concat();
        let moved: Vec<f64> = before.iter().zip(&after).map(|(before, after)| before - after).collect();
        assert_close!(dot(&moved, &after), 0.0, atol = 1e-14);
        problem.project(&mut x, &mut y).expect("projects");
        assert_close!([x, y].concat(), after, atol = 1e-14);
    }

    #[test]
    fn the_solution_satisfies_the_conditions_and_nothing_is_below_it() {
        for problem in [small(), StronglyConvex::drawn(0)] {
            let solution = problem.solution().expect("a solution");
            let (y, multipliers) = problem.response(&solution.x);
            assert_close!(y, solution.y, atol = 1e-14);
            let (found, _) = diagnose(&problem, &solution.x, &y, &multipliers);
            assert!(found.lower.error() < 1e-12 && found.stationarity < 1e-4, "{found}");
            assert!(problem.upper_set().distance(&solution.x) < 1e-12);
            let n = problem.c.len();
            let mut rng = Seed::new(1).stream("test", &[]);
            let even = Uniform::new(-1.0, 1.0).expect("an interval");
            for k in 0..200 {
                let size = [1e-3, 0.1, 1.0, 10.0][k % 4];
                let mut x: Vec<f64> = (0..n).map(|i| solution.x[i] + size * even.sample(&mut rng)).collect();
                problem.upper_set.prox(1.0, &mut x);
                let y = problem.response(&x).0;
                assert!(problem.upper(&x, &y) > solution.upper, "{k}");
            }
        }
    }

    #[test]
    fn lv_hba_with_the_released_steps_holds_the_constraints_and_comes_near_the_solution() {
        let problem = StronglyConvex::drawn(0);
        let least = problem.solution().expect("a solution").upper;
        let solver = released(1000);
        let mut state = solver.init(&problem, &[10.0; 100], &[10.0; 100]).expect("valid");
        assert!(state.notes.is_empty(), "{:?}", state.notes);
        let uniform = Uniform::new(0.0, 1.0).expect("an interval");
        let mut rng = Seed::new(0).stream("test", &[]);
        state.theta.fill_with(|| uniform.sample(&mut rng));
        let start = problem.upper(&state.x, &state.y);
        let mut seen = Vec::new();
        for k in 1..=20_000 {
            solver.step(&problem, &mut state).expect("steps");
            if [1000, 20_000].contains(&k) {
                let (x, y) = (&state.x, &state.y);
                let (found, _) = diagnose(&problem, x, y, &state.lambda);
                assert!(
                    found.lower.feasibility < 1e-12 && problem.upper_set().distance(x) < 1e-12,
                    "{found}"
                );
                seen.push((found.lower.stationarity, problem.upper(x, y) - least));
            }
        }
        assert!(seen[0].0 < 0.2 && seen[1].0 < 0.03, "{seen:?}");
        assert!(
            seen[0].1 < 0.7 * (start - least) && seen[1].1 < 0.03 * (start - least),
            "{start} {least} {seen:?}"
        );
    }

    /// An array of numpy's: `f64` by rows.
    fn array(path: &Path) -> Vec<f64> {
        let bytes = std::fs::read(path).expect("readable");
        let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = String::from_utf8_lossy(&bytes[10..begin]).into_owned();
        assert!(header.contains("'<f8'") && header.contains("'fortran_order': False"), "{header}");
        bytes[begin..]
            .chunks_exact(8)
            .map(|eight| f64::from_le_bytes(eight.try_into().expect("eight")))
            .collect()
    }

    #[test]
    fn the_authors_matrices_give_the_iterates_of_another_program() {
        let Some(folder) = data("opt/bilevel") else { return };
        let [a, h, b, c, d] =
            ["A", "h", "B", "D", "E"].map(|name| array(&folder.join(format!("llsc-{name}.npy"))));
        let problem = StronglyConvex::new(&a, &h, &b, &c, &d).expect("independent rows");
        assert_eq!(problem.sizes(), Sizes { upper: 100, lower: 100, constraints: 90 });
        // By a search over s on a grid, with numpy.
        let solution = problem.solution().expect("a solution");
        assert_close!(solution.upper, -0.719_285_727_2, atol = 1e-9);
        // The paper's steps written down again with numpy, with the symmetric root of A Aᵀ in place of its factor.
        let solver = released(1000);
        let mut state = solver.init(&problem, &[10.0; 100], &[10.0; 100]).expect("valid");
        for (k, upper, x, y, theta, lambda) in [
            (
                0,
                4.203_096_657_116_654,
                -0.111_925_593_309_704,
                0.222_537_654_735_736,
                0.222_537_654_735_736,
                0.0,
            ),
            (
                2,
                4.161_063_663_243_892,
                -0.111_795_117_331_154,
                0.216_844_994_241_634,
                0.162_015_349_381_770,
                0.033_575_177_793_651,
            ),
            (
                10,
                4.028_175_012_602_054,
                -0.105_921_900_797_336,
                0.208_082_866_290_224,
                0.083_834_615_068_055,
                0.641_220_633_760_855,
            ),
            (
                100,
                2.626_566_546_231_444,
                -0.064_448_757_871_350,
                0.195_859_539_202_861,
                0.112_730_868_812_867,
                0.690_987_475_520_708,
            ),
            (
                1000,
                0.719_830_173_792_255,
                -0.018_449_503_539_746,
                0.016_595_225_013_471,
                0.020_259_022_475_530,
                0.272_010_160_865_616,
            ),
        ] {
            while state.k < k {
                solver.step(&problem, &mut state).expect("steps");
            }
            let found = [
                problem.upper(&state.x, &state.y),
                state.x[0],
                state.y[0],
                state.theta[0],
                norm(&state.lambda),
            ];
            assert_close!(found, [upper, x, y, theta, lambda], rtol = 1e-8, atol = 1e-9);
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let told = |a: &[f64], h: &[f64], b: &[f64], c: &[f64], d: &[f64]| {
            StronglyConvex::new(a, h, b, c, d).expect_err("refused").to_string()
        };
        let one = [1.0, 2.0];
        assert!(told(&one, &one, &[], &one, &[1.0]).contains("d has "));
        assert!(told(&one, &[1.0], &[], &one, &one).contains("H has "));
        assert!(told(&[1.0; 3], &[1.0; 3], &[], &one, &one).contains("A has "));
        assert!(told(&one, &one, &[1.0; 3], &one, &one).contains("B has "));
        assert!(
            told(&[1.0, 2.0, 1.0, 2.0], &[0.0; 4], &[], &one, &one)
                .contains("rows of A depend on each other")
        );
        assert!(told(&one, &[f64::NAN, 0.0], &[], &one, &one).contains("finite"));
        assert!(told(&[], &[], &[], &[], &[]).contains("no variables"));
        // x + y is 0 wherever Ay + Hx is, with H = A.
        let all =
            StronglyConvex::new(&[1.0, 0.0, 0.0, 1.0], &[1.0, 0.0, 0.0, 1.0], &[], &one, &one).expect("fits");
        assert!(all.solution().expect_err("not unique").to_string().contains("x + y does not change"));
    }
}
