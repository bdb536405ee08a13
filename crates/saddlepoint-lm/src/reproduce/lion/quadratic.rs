//! The family on random convex quadratics, where the right answers are known.

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings, Observer};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::linalg;
use saddlepoint_opt::optimizer::LionConfig;
use saddlepoint_opt::optimizer::lion::lyapunov::Scheme;
use saddlepoint_opt::optimizer::lion::{Decay, Kappa};

use super::Make;
use crate::Result;

/// How large the experiment is.
pub(super) struct Size {
    /// Unknowns.
    unknowns: usize,
    /// Learning rates whose distances from the optimum are compared, falling.
    rates: &'static [f64],
    /// Steps with a learning rate that falls to 0, for each member of the family.
    steps: usize,
}

pub(super) const DEFAULT: Size = Size { unknowns: 20, rates: &[4e-3, 2e-3, 1e-3, 5e-4], steps: 20_000 };
pub(super) const FULL: Size = Size { unknowns: 100, rates: &[4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4], steps: 60_000 };
#[cfg(test)]
pub(super) const TINY: Size = Size { unknowns: 12, rates: &[4e-3, 2e-3, 1e-3], steps: 12_000 };

const LAMBDA: f64 = 0.8;
/// Learning rate of the runs in which single steps are looked at.
const RATE: f64 = 0.01;
/// What a thousand roundings to `f32` may add, as a share of a number.
const ROUNDING: f64 = 1e-4;

const FAMILY: [(&str, Kappa); 6] = [
    ("l1", Kappa::L1),
    ("log cosh", Kappa::LogCosh),
    ("half square", Kappa::HalfSquare),
    ("huber", Kappa::Huber { e: 0.5 }),
    ("soft threshold", Kappa::SoftThreshold { e: 0.5 }),
    ("sqrt", Kappa::Sqrt { e: 0.5 }),
];

/// `f(x) = ½ xᵀ A x − b·x`, whose optimum is outside of the box in about half of its coordinates.
struct Problem {
    a: Vec<f64>,
    b: Vec<f64>,
    smoothness: f64,
}

impl Problem {
    fn new(seed: u64, n: usize) -> Result<Self> {
        let mut rng = Seed::new(seed).stream("reproduce/lion/problem", &[]);
        let factor: Vec<f64> = StandardNormal.sample_iter(&mut rng).take(n * n).collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                let product: f64 = (0..n).map(|k| factor[i * n + k] * factor[j * n + k]).sum();
                a[i * n + j] = 0.5 * product / n as f64 + if i == j { 0.5 } else { 0.0 };
            }
        }
        let optimum: Vec<f64> = (0..n).map(|_| rng.random_range(-2.0..2.0) / LAMBDA).collect();
        let b = product(&a, &optimum);
        let smoothness = linalg::singular_values(&a, n)?[0];
        Ok(Self { a, b, smoothness })
    }

    fn loss(&self, x: &[f64]) -> f64 {
        let ax = product(&self.a, x);
        x.iter().zip(ax.iter().zip(&self.b)).map(|(x, (ax, b))| x * (ax / 2.0 - b)).sum()
    }

    fn gradient(&self, x: &[f64]) -> Vec<f64> {
        product(&self.a, x).iter().zip(&self.b).map(|(ax, b)| ax - b).collect()
    }

    /// The minimum of `f(x) + (1/λ) K*(λ x)` for a `K` that is a sum over elements, by coordinate descent: the derivative by
    /// one coordinate grows, so its root is found by bisection.
    fn optimum(&self, kappa: Kappa) -> Vec<f64> {
        let n = self.b.len();
        let mut x = vec![0.0; n];
        loop {
            let mut moved = 0.0_f64;
            for i in 0..n {
                let others: f64 = (0..n).filter(|&j| j != i).map(|j| self.a[i * n + j] * x[j]).sum();
                let rises = |at: f64| {
                    let slope = kappa.conjugate_subgradient(&[LAMBDA * at], 1);
                    let slope = slope.map_or(at.signum() * f64::INFINITY, |slope| slope[0]);
                    self.a[i * n + i] * at + others - self.b[i] + slope > 0.0
                };
                let (mut low, mut high) = (-100.0, 100.0);
                while high - low > 1e-12 {
                    let middle = f64::midpoint(low, high);
                    if rises(middle) { high = middle } else { low = middle }
                }
                moved = moved.max((high - x[i]).abs());
                x[i] = high;
            }
            if moved < 1e-10 {
                return x;
            }
        }
    }
}

/// What one seed gives.
struct Seen {
    /// Steps after which the distance from the box was more than the rate of entry allows.
    late: usize,
    /// Coordinates that were inside and are outside after a step.
    left: usize,
    /// Steps on which the Lyapunov function rose by more than the inequality allows.
    rose: usize,
    /// Exponent of the learning rate in the distance from the constrained optimum.
    order: f64,
    /// Largest distance of a member of the family from its own optimum, in units of 1/λ.
    own: f64,
    /// Members that end nearer to the optimum of another one.
    confused: usize,
    figures: Vec<Figure>,
}

/// The claims about constraint, Lyapunov function and objectives, for the update that `make` makes.
pub(super) fn findings(seeds: usize, size: &Size, make: Make, observer: Observer) -> Result<Findings> {
    let mut seen = Vec::new();
    for seed in 0..seeds as u64 {
        observer(seed, seeds as u64, "random quadratics");
        seen.push(look(seed, size, make)?);
    }
    let values = |of: fn(&Seen) -> f64| seen.iter().map(of).collect::<Vec<_>>();
    let count = |of: fn(&Seen) -> usize| seen.iter().map(of).sum();
    let claims = vec![
        Claim::never(
            "distance from the box above (1 + eλ)^-t times the first one after t steps",
            "never: exponential entry (phase 1)",
            count(|s| s.late),
        ),
        Claim::never(
            "a coordinate leaves the box |x| <= 1/λ after it has entered",
            "never (phase 2)",
            count(|s| s.left),
        ),
        Claim::never(
            "H(x, m) rises by more than the discrete inequality allows, six members of the family",
            "never (theorem 4.1)",
            count(|s| s.rose),
        ),
        Claim::mean(
            "exponent of the learning rate e in the distance from the optimum in the box",
            "1: within O(e)",
            &values(|s| s.order),
            Bound::Above(0.8),
        ),
        Claim::mean(
            "distance from the minimum of f + (1/λ) K*(λx), the largest of six K, in units of 1/λ",
            "0: each K has its own regularised problem",
            &values(|s| s.own),
            Bound::Below(0.02),
        ),
        Claim::never(
            "a member of the family ends nearer to another one's minimum than to its own",
            "never (table 2)",
            count(|s| s.confused),
        ),
    ];
    let figures = seen.swap_remove(0).figures;
    Ok(Findings { claims, figures })
}

fn look(seed: u64, size: &Size, make: Make) -> Result<Seen> {
    let problem = Problem::new(seed, size.unknowns)?;
    let (late, left, outside) = enter(seed, &problem, make)?;
    let (mut rose, mut energy) = (0, Vec::new());
    for (name, kappa) in FAMILY {
        let (count, points) = descend(&problem, kappa, make)?;
        rose += count;
        energy.push(Curve { name: name.to_owned(), points });
    }
    let best = problem.optimum(Kappa::L1);
    let mut distances = Vec::new();
    for &rate in size.rates {
        distances.push((rate, settled(&problem, &best, rate, make)?));
    }
    let optima: Vec<Vec<f64>> = FAMILY.iter().map(|(_, kappa)| problem.optimum(*kappa)).collect();
    let (mut own, mut confused) = (0.0_f64, 0);
    for (i, (_, kappa)) in FAMILY.iter().enumerate() {
        let x = solve(&problem, *kappa, size.steps, make)?;
        let far: Vec<f64> = optima.iter().map(|optimum| distance(&x, optimum)).collect();
        own = own.max(LAMBDA * far[i]);
        // What is not finite is near to nothing.
        confused += usize::from(!far.iter().enumerate().all(|(j, other)| j == i || far[i] < *other));
    }
    let figures = vec![
        Figure {
            title: "Phase 1: distance from the box, in units of 1/λ (seed 0)".into(),
            x: "steps".into(),
            curves: outside,
            limit: None,
        },
        Figure {
            title: "Phase 2: H above its lowest value (seed 0)".into(),
            x: "steps".into(),
            curves: energy,
            limit: None,
        },
        Figure {
            title: "Distance from the optimum in the box (seed 0)".into(),
            x: "learning rate".into(),
            curves: vec![Curve { name: "Lion".into(), points: distances.iter().rev().copied().collect() }],
            limit: None,
        },
    ];
    Ok(Seen { late, left, rose, order: exponent(&distances), own, confused, figures })
}

fn config(kappa: Kappa) -> LionConfig {
    LionConfig { weight_decay: LAMBDA, decay: Decay::Implicit, kappa, ..LionConfig::default() }
}

/// From far outside: on how many steps it was farther than the rate of entry allows, how many coordinates left again, and
/// the curves.
fn enter(seed: u64, problem: &Problem, make: Make) -> Result<(usize, usize, Vec<Curve>)> {
    let n = problem.b.len();
    let mut rng = Seed::new(seed).stream("reproduce/lion/start", &[]);
    let mut x: Vec<f32> = (0..n).map(|_| rng.random_range(-5.0..5.0) / LAMBDA as f32).collect();
    x[0] = 5.0 / LAMBDA as f32;
    let mut rule = make(config(Kappa::L1), n)?;
    let outside =
        |x: &[f32]| x.iter().map(|&x| (LAMBDA * f64::from(x).abs() - 1.0).max(0.0)).collect::<Vec<_>>();
    let largest = |distances: &[f64]| distances.iter().copied().fold(0.0, f64::max);
    let mut before = outside(&x);
    let (first, factor) = (largest(&before), 1.0 / (1.0 + RATE * LAMBDA));
    let (mut late, mut left, mut allowed) = (0, 0, first);
    let (mut seen, mut bound) = (vec![(0.0, first)], vec![(0.0, first)]);
    for t in 1..=1000_u32 {
        let g: Vec<f32> = problem.gradient(&wide(&x)).iter().map(|&g| g as f32).collect();
        rule.update(&mut x, &g, RATE)?;
        let now = outside(&x);
        allowed *= factor;
        let far = largest(&now);
        late += usize::from(!far.is_finite() || far > allowed + ROUNDING);
        left += before.iter().zip(&now).filter(|(before, now)| **before == 0.0 && **now > ROUNDING).count();
        before = now;
        if t % 10 == 0 {
            seen.push((f64::from(t), largest(&before).min(1e6)));
            bound.push((f64::from(t), allowed));
        }
    }
    let curve = |name: &str, points| Curve { name: name.to_owned(), points };
    Ok((late, left, vec![curve("Lion", seen), curve("(1 + eλ)^-t", bound)]))
}

/// From inside: on how many steps `H` rose too much, and `H` above its lowest value.
fn descend(problem: &Problem, kappa: Kappa, make: Make) -> Result<(usize, Vec<(f64, f64)>)> {
    let n = problem.b.len();
    let LionConfig { beta1, beta2, .. } = config(kappa);
    let scheme = Scheme { kappa, columns: n, lr: RATE, beta1, beta2, lambda: LAMBDA };
    let mut rule = make(config(kappa), n)?;
    let mut x: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 0.3 } else { -0.3 }).collect();
    // The paper's momentum sums the negative gradients.
    let momentum = |m: &[f32]| m.iter().map(|&m| -f64::from(m)).collect::<Vec<_>>();
    let energy = |x: &[f64], m: &[f64]| scheme.lyapunov(problem.loss(x), x, m).unwrap_or(f64::NAN);
    let (mut at, mut m) = (wide(&x), momentum(rule.momentum()));
    let (mut rose, mut points) = (0, Vec::new());
    for t in 0..1500_u32 {
        let g = problem.gradient(&at);
        let bound = scheme.fall(&at, &m, &g, problem.smoothness).map_or(f64::NAN, |fall| fall.change);
        let before = energy(&at, &m);
        rule.update(&mut x, &g.iter().map(|&g| g as f32).collect::<Vec<_>>(), RATE)?;
        (at, m) = (wide(&x), momentum(rule.momentum()));
        let change = energy(&at, &m) - before;
        // Outside of the constraint H is infinite and there is no bound: that is a violation too.
        let allowed = bound + ROUNDING * (1.0 + before.abs());
        rose += usize::from(!change.is_finite() || !bound.is_finite() || change > allowed);
        if before.is_finite() && t % 5 == 0 {
            points.push((f64::from(t), before));
        }
    }
    let lowest = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    for point in &mut points {
        point.1 -= lowest;
    }
    Ok((rose, points))
}

/// The distance from the optimum where a constant learning rate ends, as a mean over the last third of the run.
fn settled(problem: &Problem, optimum: &[f64], rate: f64, make: Make) -> Result<f64> {
    let n = problem.b.len();
    let steps = (15.0 / (rate * LAMBDA)).ceil() as usize;
    let mut rule = make(config(Kappa::L1), n)?;
    let mut x = vec![0.0_f32; n];
    let mut sum = 0.0;
    for t in 0..steps {
        let g: Vec<f32> = problem.gradient(&wide(&x)).iter().map(|&g| g as f32).collect();
        rule.update(&mut x, &g, rate)?;
        if t >= steps - steps / 3 {
            sum += distance(&wide(&x), optimum);
        }
    }
    Ok(sum / (steps / 3) as f64)
}

/// Where a learning rate that falls to 0 ends.
fn solve(problem: &Problem, kappa: Kappa, steps: usize, make: Make) -> Result<Vec<f64>> {
    let n = problem.b.len();
    let mut rule = make(config(kappa), n)?;
    let mut x = vec![0.0_f32; n];
    for t in 0..steps {
        let g: Vec<f32> = problem.gradient(&wide(&x)).iter().map(|&g| g as f32).collect();
        rule.update(&mut x, &g, RATE * (1.0 - t as f64 / steps as f64))?;
    }
    Ok(wide(&x))
}

/// The slope of `ln y` over `ln x`, by least squares.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let logs: Vec<_> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let (both, square) = logs
        .iter()
        .fold((0.0, 0.0), |(both, square), p| (both + (p.0 - x) * (p.1 - y), square + (p.0 - x).powi(2)));
    both / square
}

fn distance(x: &[f64], y: &[f64]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, |most, far| if far.is_nan() { f64::NAN } else { far.max(most) })
}

/// `A x` of a square matrix.
fn product(a: &[f64], x: &[f64]) -> Vec<f64> {
    a.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum()).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn coordinate_descent_finds_the_optima_that_are_known() {
        let problem = Problem { a: vec![3.0, 1.0, 1.0, 2.0], b: vec![4.0, -3.0], smoothness: 3.618 };
        assert_close!(problem.optimum(Kappa::L1), [1.25, -1.25], atol = 1e-9);
        // (A + λ I) x = b.
        assert_close!(problem.optimum(Kappa::HalfSquare), [14.2 / 9.64, -15.4 / 9.64], atol = 1e-9);
        let x = problem.optimum(Kappa::LogCosh);
        let rest: Vec<f64> =
            problem.gradient(&x).iter().zip(&x).map(|(g, x)| g + (LAMBDA * x).atanh()).collect();
        assert_close!(rest, [0.0, 0.0], atol = 1e-7);
    }

    #[test]
    fn the_exponent_of_a_power_is_found() {
        assert_close!(
            exponent(&[(1.0, 2.0), (2.0, 2.0 * 2.0_f64.powf(1.5)), (4.0, 16.0)]),
            1.5,
            rtol = 1e-12
        );
    }
}
