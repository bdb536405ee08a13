//! What is known of a problem, and its derivatives, checked at its starting point.

use super::Sif;
use crate::linalg::{add_scaled, dot, norm};
use crate::problem::{Constrained as _, Curved as _, Objective as _};

/// A row of a table of problems.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// The number of variables.
    pub variables: usize,
    /// The number of constraints; some tables count those with two limits twice.
    pub constraints: usize,
    /// The objective at the starting point.
    pub objective: f64,
}

impl Known {
    /// The rows of a table `name,variables,constraints,objective` with one heading; `None` if it is another one.
    pub fn table(text: &str) -> Option<Vec<Self>> {
        let row = |line: &str| {
            let mut fields = line.split(',');
            let mut next = || fields.next();
            let name = next()?.to_owned();
            let (variables, constraints) = (next()?.parse().ok()?, next()?.parse().ok()?);
            Some(Self { name, variables, constraints, objective: next()?.parse().ok()? })
        };
        text.lines().skip(1).map(row).collect()
    }
}

impl Sif {
    /// What differs from a row of a table, with values compared to `1e-8` relative.
    pub fn difference(&self, known: &Known) -> Option<String> {
        let (n, m) = (self.dim(), self.constraints().len());
        let two_limits =
            |c: &&crate::problem::Constraint| !c.is_equality() && c.lower.is_finite() && c.upper.is_finite();
        let twice = self.constraints().iter().filter(two_limits).count();
        if n != known.variables {
            return Some(format!("{n} variables, {} in the table", known.variables));
        }
        if m != known.constraints && m + twice != known.constraints {
            return Some(format!("{m} constraints, {} in the table", known.constraints));
        }
        let (value, expected) = (self.value(self.start()), known.objective);
        let close = (value - expected).abs() <= 1e-8 * expected.abs().max(1.0);
        (!close).then(|| format!("objective {value} at the start, {expected} in the table"))
    }

    /// First and second derivatives along a fixed direction from the starting point, against central differences: `Ok(false)` where
    /// the problem is not finite there, so that nothing was compared.
    ///
    /// # Errors
    /// Which derivative differs.
    pub fn check_derivatives(&self) -> Result<bool, String> {
        let (n, m) = (self.dim(), self.constraints().len());
        // Neither a coordinate nor symmetric.
        let direction: Vec<f64> = (0..n).map(|i| 0.3 + (1.7 * i as f64 + 0.4).sin()).collect();
        let weights: Vec<f64> = (0..m).map(|i| 0.2 + (2.3 * i as f64 + 1.1).cos()).collect();
        let size = norm(self.start()).max(1.0) / norm(&direction).max(1.0);
        let lagrangian = |t: f64| {
            let mut x = self.start().to_vec();
            add_scaled(&mut x, t, &direction);
            let (mut c, mut g) = (vec![0.0; m], vec![0.0; n]);
            self.residuals(&x, &mut c);
            self.grad(&x, &mut g);
            self.vjp(&x, &weights, &mut g);
            (self.value(&x) + dot(&weights, &c), g)
        };
        // A little away from the start, where many problems have kinks.
        let at = 1e-3 * size;
        let mut x = self.start().to_vec();
        add_scaled(&mut x, at, &direction);
        let (value, g) = lagrangian(at);
        let mut product = vec![0.0; n];
        self.hess_vec(&x, &weights, &direction, &mut product);
        if !value.is_finite() || g.iter().chain(&product).any(|v| !v.is_finite()) {
            return Ok(false);
        }
        // The best of several steps: each is wrong in its own way where a function is badly scaled.
        let (mut slope_error, mut bend_error) = (f64::INFINITY, f64::INFINITY);
        for h in [1e-4, 1e-5, 1e-6, 1e-7] {
            let h = h * size;
            let ((above, g_above), (below, g_below)) = (lagrangian(at + h), lagrangian(at - h));
            let slope = (above - below) / (2.0 * h);
            let noise = 1e-15 * value.abs() / h;
            let error = (slope - dot(&g, &direction)).abs() / (slope.abs() + norm(&g) + noise + 1e-12);
            slope_error = slope_error.min(error);
            let mut bend: Vec<f64> = g_above.iter().zip(&g_below).map(|(a, b)| (a - b) / (2.0 * h)).collect();
            let noise = 1e-15 * norm(&g) / h;
            let scale = norm(&bend) + noise + 1e-12;
            add_scaled(&mut bend, -1.0, &product);
            bend_error = bend_error.min(norm(&bend) / scale);
        }
        if slope_error > 1e-5 {
            return Err(format!("the first derivative differs from differences by {slope_error:.1e}"));
        }
        if bend_error > 1e-4 {
            return Err(format!("the second derivative differs from differences by {bend_error:.1e}"));
        }
        Ok(true)
    }
}
