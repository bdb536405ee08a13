//! Sets with a projection, and a norm with its proximal step.

use serde::{Deserialize, Serialize};

use crate::linalg::{RowSpace, norm};
use crate::{Error, Result};

fn fits(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::Dimension { what, expected, got }) }
}

fn positive(what: &str, value: f64) -> Result<()> {
    let problem = || Error::Problem { problem: format!("{what} must be > 0 and finite, got {value}") };
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(problem()) }
}

/// `lower <= x <= upper`; an infinite bound is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// One a variable.
    #[serde(with = "infinite")]
    pub lower: Vec<f64>,
    /// One a variable.
    #[serde(with = "infinite")]
    pub upper: Vec<f64>,
}

/// JSON has no infinity: an absent bound is `null`, of the sign that its side asks for.
mod infinite {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(bounds: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let finite: Vec<(Option<f64>, bool)> =
            bounds.iter().map(|b| (b.is_finite().then_some(*b), *b > 0.0)).collect();
        finite.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let finite = Vec::<(Option<f64>, bool)>::deserialize(deserializer)?;
        let absent = |above| if above { f64::INFINITY } else { f64::NEG_INFINITY };
        Ok(finite.into_iter().map(|(bound, above)| bound.unwrap_or(absent(above))).collect())
    }
}

impl Bounds {
    /// With a lower and an upper bound a variable; they are checked when a solver starts.
    pub fn new(lower: Vec<f64>, upper: Vec<f64>) -> Self {
        Self { lower, upper }
    }

    /// Of `n` variables without bounds.
    pub fn none(n: usize) -> Self {
        Self { lower: vec![f64::NEG_INFINITY; n], upper: vec![f64::INFINITY; n] }
    }

    pub(super) fn check(&self, n: usize) -> Result<()> {
        fits("lower bounds", n, self.lower.len())?;
        fits("upper bounds", n, self.upper.len())?;
        let possible = |l: f64, u: f64| l <= u && l < f64::INFINITY && u > f64::NEG_INFINITY;
        match (0..n).find(|&i| !possible(self.lower[i], self.upper[i])) {
            None => Ok(()),
            Some(i) => {
                let problem = format!(
                    "bounds [{}, {}] of variable {i} hold for no number",
                    self.lower[i], self.upper[i]
                );
                Err(Error::Problem { problem })
            }
        }
    }

    pub(crate) fn project(&self, x: &mut [f64]) {
        for ((x, l), u) in x.iter_mut().zip(&self.lower).zip(&self.upper) {
            // Unlike clamp, this keeps NaN and does not panic on bounds that were not checked.
            if *x < *l {
                *x = *l;
            } else if *x > *u {
                *x = *u;
            }
        }
    }
}

/// The probability simplex: `x >= 0` with sum 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simplex;

impl Simplex {
    #[allow(clippy::unused_self, reason = "sets are asked alike")]
    pub(super) fn check(self, n: usize) -> Result<()> {
        let problem = || Error::Problem { problem: "the simplex of no variables is empty".to_owned() };
        if n > 0 { Ok(()) } else { Err(problem()) }
    }

    /// `max(x − θ, 0)` with the `θ` that makes the sum 1, found over the sorted elements (Held, Wolfe & Crowder 1974).
    #[allow(clippy::unused_self, reason = "sets are asked alike")]
    pub(super) fn project(self, x: &mut [f64]) {
        // The same added to all elements changes nothing; from the largest on, sums of huge elements keep the 1.
        let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for x in x.iter_mut() {
            *x -= most;
        }
        let mut sorted = x.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let (mut sum, mut theta) = (0.0, 0.0);
        for (i, v) in sorted.iter().enumerate() {
            sum += v;
            let candidate = (sum - 1.0) / (i + 1) as f64;
            if *v > candidate {
                theta = candidate;
            }
        }
        for x in x {
            // Unlike max, this keeps NaN.
            *x = if *x < theta { 0.0 } else { *x - theta };
        }
    }
}

/// `|x − centre| <= radius` in the Euclidean norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ball {
    /// Its centre.
    pub centre: Vec<f64>,
    /// Its radius, > 0.
    pub radius: f64,
}

impl Ball {
    /// Around a centre.
    pub fn new(centre: Vec<f64>, radius: f64) -> Self {
        Self { centre, radius }
    }

    pub(super) fn check(&self, n: usize) -> Result<()> {
        fits("centre of the ball", n, self.centre.len())?;
        if let Some(i) = self.centre.iter().position(|c| !c.is_finite()) {
            let problem =
                format!("the centre of the ball must be finite, and element {i} is {}", self.centre[i]);
            return Err(Error::Problem { problem });
        }
        positive("the radius of the ball", self.radius)
    }

    pub(super) fn project(&self, x: &mut [f64]) {
        let away = norm(&x.iter().zip(&self.centre).map(|(x, c)| x - c).collect::<Vec<_>>());
        if away > self.radius {
            let shrink = self.radius / away;
            x.iter_mut().zip(&self.centre).for_each(|(x, c)| *x = c + shrink * (*x - c));
        }
    }
}

/// `A x = b`; rows that follow from others are allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    space: RowSpace,
}

impl Affine {
    /// From the rows of `A` and `b`.
    ///
    /// # Errors
    /// The lengths do not fit, an element is not finite, or no `x` satisfies all rows.
    pub fn new(rows: &[f64], b: &[f64], n: usize) -> Result<Self> {
        fits("rows of the affine set", b.len() * n, rows.len())?;
        Ok(Self { space: RowSpace::new(rows, b, n)? })
    }

    pub(super) fn check(&self, n: usize) -> Result<()> {
        fits("variables of the affine set", n, self.space.columns())
    }

    pub(super) fn project(&self, x: &mut [f64]) {
        self.space.project(x);
    }
}

/// The norm `weight Σ |x_i|`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct L1 {
    /// Its weight, > 0.
    pub weight: f64,
}

impl L1 {
    /// With its weight.
    pub fn new(weight: f64) -> Self {
        Self { weight }
    }

    pub(super) fn check(self) -> Result<()> {
        positive("the weight of the norm", self.weight)
    }

    pub(super) fn prox(self, t: f64, x: &mut [f64]) {
        let shrink = t * self.weight;
        for x in x {
            *x = x.signum() * (x.abs() - shrink).max(0.0);
        }
    }

    pub(super) fn value(self, x: &[f64]) -> f64 {
        self.weight * x.iter().map(|x| x.abs()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::super::Simple;
    use super::*;

    /// One of each, for four variables.
    fn every() -> Vec<Simple> {
        let bounds =
            Bounds::new(vec![-1.0, 0.0, f64::NEG_INFINITY, 0.5], vec![1.0, f64::INFINITY, 0.25, 0.5]);
        let affine =
            Affine::new(&[1.0, 2.0, 0.0, -1.0, 2.0, 4.0, 0.0, -2.0], &[3.0, 6.0], 4).expect("consistent");
        vec![
            Simple::Free,
            bounds.into(),
            Simplex.into(),
            Ball::new(vec![1.0, 0.0, 0.0, -1.0], 0.75).into(),
            affine.into(),
            L1::new(0.3).into(),
            Simple::Product(vec![(1, L1::new(0.5).into()), (3, Simplex.into())]),
        ]
    }

    #[test]
    fn projections_are_known() {
        let project = |set: &Simple, x: [f64; 4]| {
            let mut x = x;
            set.prox(1.0, &mut x);
            x
        };
        let sets = every();
        assert_close!(project(&sets[1], [-3.0, -1.0, 7.0, 7.0]), [-1.0, 0.0, 0.25, 0.5], atol = 0.0);
        assert_close!(project(&sets[2], [0.8, 0.6, 0.1, -5.0]), [0.6, 0.4, 0.0, 0.0], atol = 1e-15);
        assert_close!(project(&sets[3], [1.0, 3.0, 0.0, -1.0]), [1.0, 0.75, 0.0, -1.0], atol = 1e-15);
        assert_close!(project(&sets[4], [0.0; 4]), [0.5, 1.0, 0.0, -0.5], atol = 1e-15);
        assert_close!(project(&sets[5], [1.0, -0.2, 0.3, -4.0]), [0.7, 0.0, 0.0, -3.7], atol = 1e-15);
    }

    #[test]
    fn huge_points_are_projected_and_nan_stays() {
        let project = |set: Simple, x: [f64; 2]| {
            let mut x = x;
            set.prox(1.0, &mut x);
            x
        };
        assert_close!(project(Simplex.into(), [1e150, 3.0]), [1.0, 0.0], atol = 0.0);
        assert_close!(project(Simplex.into(), [1e300, 1e300]), [0.5, 0.5], atol = 0.0);
        let ball = || Simple::from(Ball::new(vec![1.0, 0.0], 0.5));
        assert_close!(project(ball(), [-3e200, 4e200]), [0.7, 0.4], rtol = 1e-15);
        for set in [Simplex.into(), ball(), Bounds::none(2).into(), L1::new(1.0).into()] {
            assert!(project(set.clone(), [f64::NAN, 0.5])[0].is_nan(), "{set:?}");
            assert!(set.distance(&[f64::NAN, 0.5]).is_nan() || set == L1::new(1.0).into(), "{set:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (set, n, message) in [
            (Simple::from(Bounds::none(2)), 3, "lower bounds: expected 3 elements, got 2"),
            (Bounds::new(vec![1.0], vec![0.0]).into(), 1, "the problem: bounds [1, 0] of variable 0 hold"),
            (Bounds::new(vec![f64::NAN], vec![0.0]).into(), 1, "the problem: bounds [NaN, 0] of variable 0"),
            (Simplex.into(), 0, "the problem: the simplex of no variables is empty"),
            (Ball::new(vec![0.0], -1.0).into(), 1, "the problem: the radius of the ball must be > 0"),
            (
                Ball::new(vec![0.0, f64::NAN], 1.0).into(),
                2,
                "the problem: the centre of the ball must be finite, and element 1 is NaN",
            ),
            (L1::new(f64::NAN).into(), 1, "the problem: the weight of the norm must be > 0"),
            (Simple::Product(vec![(2, Simple::Free)]), 3, "parts of Simple::Product: expected 3 elements"),
        ] {
            let told = set.check(n).expect_err("refused").to_string();
            assert!(told.starts_with(message), "{told}");
        }
        let told = Affine::new(&[1.0, 1.0, 1.0, 1.0], &[1.0, 2.0], 2).expect_err("refused").to_string();
        assert!(told.contains("no point satisfies"), "{told}");
    }

    #[test]
    fn bounds_come_back_from_json_with_their_infinities() {
        for set in every() {
            let text = serde_json::to_string(&set).expect("serialises");
            assert_eq!(serde_json::from_str::<Simple>(&text).expect("parses"), set);
        }
    }

    proptest! {
        /// `p = prox(v)` if and only if `(v − p)/t` is a subgradient of h at `p`; no other point has a smaller value.
        #[test]
        fn no_other_point_is_better(v in prop::array::uniform4(-3.0..3.0f64), w in prop::array::uniform4(-3.0..3.0f64), t in 0.1..2.0f64) {
            for set in every() {
                let (mut p, mut other) = (v, w);
                set.prox(t, &mut p);
                set.prox(1e-9, &mut other);
                let cost = |x: &[f64; 4]| set.value(x) + x.iter().zip(v).map(|(x, v)| (x - v).powi(2)).sum::<f64>() / (2.0 * t);
                prop_assert!(cost(&p) <= cost(&other) + 1e-9, "{set:?}: {p:?} {other:?}");
                prop_assert!(set.distance(&p) < 1e-12, "{set:?}: {p:?} is not in it");
            }
        }
    }
}
