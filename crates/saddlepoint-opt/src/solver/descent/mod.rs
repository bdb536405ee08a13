//! Minimisation of a smooth function plus a simple part: what the solvers with multipliers do between two updates of them.

pub(crate) mod quasi_newton;
pub(crate) mod spectral;

use serde::{Deserialize, Serialize};

use crate::linalg::largest;
use crate::outcome::UNBOUNDED;
use crate::problem::Simple;
use quasi_newton::QuasiNewton;
use spectral::Spectral;

/// A function with its gradient.
pub(crate) trait Smooth {
    fn value(&self, x: &[f64]) -> f64;
    fn grad(&self, x: &[f64], g: &mut [f64]);
}

/// A point with value and gradient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) x: Vec<f64>,
    pub(crate) value: f64,
    pub(crate) grad: Vec<f64>,
}

impl Point {
    pub(crate) fn new(f: &impl Smooth, x: Vec<f64>) -> Self {
        let mut grad = vec![0.0; x.len()];
        f.grad(&x, &mut grad);
        Self { value: f.value(&x), x, grad }
    }

    /// A function may have a value where the point itself has overflown.
    pub(crate) fn is_finite(&self) -> bool {
        self.value.is_finite() && self.grad.iter().chain(&self.x).all(|element| element.is_finite())
    }

    /// `|x − prox(x − g)|∞`.
    pub(crate) fn stationarity(&self, simple: &Simple) -> f64 {
        if *simple == Simple::Free {
            return largest(&self.grad);
        }
        let mut moved: Vec<f64> = self.x.iter().zip(&self.grad).map(|(x, g)| x - g).collect();
        simple.prox(1.0, &mut moved);
        largest(&moved.iter().zip(&self.x).map(|(m, x)| m - x).collect::<Vec<_>>())
    }
}

/// How far two values of a function of `n` variables may be apart by rounding alone. It is taken for a sum of `n` terms, whose error is at most
/// `n ε Σ |term|` and usually `√n` times less (Higham 2002, §4.2); so terms that cancel are covered until they are `√n` times as large as their sum.
pub(crate) fn rounding(value: f64, n: usize) -> f64 {
    n.max(4) as f64 * f64::EPSILON * value.abs()
}

/// How a minimisation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Stationary to the tolerance.
    Reached,
    /// No step makes progress.
    Stalled,
    /// The steps are used up.
    Limit,
    /// The value falls below any limit.
    Unbounded,
    /// Not finite at the start.
    NotFinite,
}

/// Minimises `f + simple` from `x`, by a quasi-Newton method if the simple part is bounds.
pub(crate) fn minimise(
    f: &impl Smooth,
    simple: &Simple,
    x: &[f64],
    tolerance: f64,
    most: u64,
) -> (Point, End) {
    let mut x = x.to_vec();
    simple.project(&mut x);
    let mut point = Point::new(f, x);
    if !point.is_finite() {
        return (point, End::NotFinite);
    }
    let mut method = match simple.as_bounds(point.x.len()) {
        Some(bounds) => Method::QuasiNewton(QuasiNewton::default(), bounds),
        None => Method::Spectral(Spectral::default()),
    };
    for _ in 0..most {
        if point.stationarity(simple) <= tolerance {
            return (point, End::Reached);
        }
        if point.value < UNBOUNDED {
            return (point, End::Unbounded);
        }
        let moved = match &mut method {
            Method::QuasiNewton(method, bounds) => method.step(f, bounds, &mut point),
            Method::Spectral(method) => method.step(f, simple, &mut point),
        };
        if !moved {
            return (point, End::Stalled);
        }
    }
    let end = if point.stationarity(simple) <= tolerance { End::Reached } else { End::Limit };
    (point, end)
}

enum Method {
    QuasiNewton(QuasiNewton, crate::problem::Bounds),
    Spectral(Spectral),
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::problem::{Affine, Ball, Bounds, L1, Simplex};

    /// `Σ i (x_i − i/2)²`, whose minimum over a set is known by its multiplier.
    struct Bowl;

    impl Smooth for Bowl {
        fn value(&self, x: &[f64]) -> f64 {
            (0..x.len()).map(|i| (i + 1) as f64 * (x[i] - (i + 1) as f64 / 2.0).powi(2)).sum()
        }
        fn grad(&self, x: &[f64], g: &mut [f64]) {
            (0..x.len()).for_each(|i| g[i] = 2.0 * (i + 1) as f64 * (x[i] - (i + 1) as f64 / 2.0));
        }
    }

    struct Rosenbrock;

    impl Smooth for Rosenbrock {
        fn value(&self, x: &[f64]) -> f64 {
            100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)
        }
        fn grad(&self, x: &[f64], g: &mut [f64]) {
            g[0] = -400.0 * x[0] * (x[1] - x[0] * x[0]) - 2.0 * (1.0 - x[0]);
            g[1] = 200.0 * (x[1] - x[0] * x[0]);
        }
    }

    #[test]
    fn minima_over_every_kind_of_set_are_found() {
        let affine = Affine::new(&[1.0, 1.0, 1.0], &[0.0], 3).expect("consistent");
        for (simple, expected) in [
            (Simple::Free, [0.5, 1.0, 1.5]),
            (Bounds::new(vec![1.0, 0.0, 0.0], vec![2.0, 0.5, 9.0]).into(), [1.0, 0.5, 1.5]),
            // 2 i (x_i − i/2) = −θ: x = i/2 − θ / 2i with the sum that the set asks for.
            (affine.into(), [0.5 - 18.0 / 11.0, 1.0 - 9.0 / 11.0, 1.5 - 6.0 / 11.0]),
            (L1::new(2.0).into(), [0.0, 0.5, 1.5 - 1.0 / 3.0]),
        ] {
            let (point, end) = minimise(&Bowl, &simple, &[3.0, -2.0, 1.0], 1e-9, 500);
            assert_eq!(end, End::Reached, "{simple:?}");
            assert_close!(point.x, expected, atol = 1e-8);
        }
        for simple in [Simple::from(Simplex), Ball::new(vec![0.0; 3], 0.5).into()] {
            let (point, end) = minimise(&Bowl, &simple, &[3.0, -2.0, 1.0], 1e-9, 500);
            assert_eq!(end, End::Reached, "{simple:?}");
            assert!(simple.distance(&point.x) < 1e-12 && point.stationarity(&simple) <= 1e-9);
        }
    }

    #[test]
    fn curved_valleys_and_bounds_in_them() {
        let (point, end) = minimise(&Rosenbrock, &Simple::Free, &[-1.2, 1.0], 1e-8, 200);
        assert_eq!(end, End::Reached);
        assert_close!(point.x, [1.0, 1.0], atol = 1e-6);
        let bounds = Bounds::new(vec![-2.0, -2.0], vec![0.5, 2.0]);
        let (point, end) = minimise(&Rosenbrock, &bounds.into(), &[-1.2, 1.0], 1e-8, 200);
        assert_eq!(end, End::Reached);
        assert_close!(point.x, [0.5, 0.25], atol = 1e-6);
    }

    struct Line;

    impl Smooth for Line {
        fn value(&self, x: &[f64]) -> f64 {
            x[0]
        }
        fn grad(&self, _: &[f64], g: &mut [f64]) {
            g[0] = 1.0;
        }
    }

    struct Nowhere;

    impl Smooth for Nowhere {
        fn value(&self, _: &[f64]) -> f64 {
            f64::NAN
        }
        fn grad(&self, _: &[f64], g: &mut [f64]) {
            g.fill(0.0);
        }
    }

    #[test]
    fn what_falls_without_limit_or_is_not_finite_is_told() {
        assert_eq!(minimise(&Line, &Simple::Free, &[0.0], 1e-6, 100).1, End::Unbounded);
        assert_eq!(minimise(&Nowhere, &Simple::Free, &[0.0], 1e-6, 100).1, End::NotFinite);
        let (point, end) =
            minimise(&Line, &Bounds::new(vec![-7.0], vec![f64::INFINITY]).into(), &[0.0], 1e-6, 100);
        assert_eq!((point.x, end), (vec![-7.0], End::Reached));
    }
}
