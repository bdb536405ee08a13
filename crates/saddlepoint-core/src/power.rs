//! How a quantity grows with a size: the power that fits measurements best.

/// `value ≈ factor · size^exponent`, the line of least squares through the logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// The exponent; NaN if fewer than two sizes differ, or one number is not positive.
    pub exponent: f64,
    /// Its standard error, where the logarithms deviate from the line independently and alike. Infinite for two points, which say
    /// nothing about how they deviate. That no power is behind the values does not show in it.
    pub error: f64,
    /// The value at size 1.
    pub factor: f64,
}

impl Power {
    /// Through points `(size, value)`.
    pub fn of(points: &[(f64, f64)]) -> Self {
        let count = points.len() as f64;
        let points: Vec<(f64, f64)> = points.iter().map(|(size, value)| (size.ln(), value.ln())).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (size, value) = (mean(|p| p.0), mean(|p| p.1));
        let [square, mixed] = points.iter().fold([0.0; 2], |[square, mixed], (a, b)| {
            [square + (a - size).powi(2), mixed + (a - size) * (b - value)]
        });
        // Equal sizes may differ from their mean by rounding.
        let differ = points.iter().any(|p| p.0.total_cmp(&points[0].0).is_ne());
        let exponent = if differ { mixed / square } else { f64::NAN };
        let left: f64 = points.iter().map(|(a, b)| (b - value - exponent * (a - size)).powi(2)).sum();
        let error = match points.len() {
            0..=2 => f64::INFINITY,
            _ => (left / (count - 2.0) / square).sqrt(),
        };
        Self { exponent, error, factor: (value - exponent * size).exp() }
    }

    /// The value of the power at a size.
    pub fn at(&self, size: f64) -> f64 {
        self.factor * size.powf(self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_is_found_exactly() {
        let found = Power::of(&[1.0_f64, 2.0, 5.0].map(|a| (a, 3.0 * a.powf(-1.5))));
        assert!((found.exponent + 1.5).abs() < 1e-12 && (found.factor - 3.0).abs() < 1e-12, "{found:?}");
        assert!(found.error < 1e-12 && (found.at(4.0) - 3.0 / 8.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn three_points_by_hand() {
        // In logarithms (0, 0), (1, 1), (2, 1): the line 1/6 + x/2, residuals −1/6, 1/3, −1/6, so 1/6 is left for one degree of
        // freedom, over a sum of squares of 2.
        let e = std::f64::consts::E;
        let found = Power::of(&[(1.0, 1.0), (e, e), (e * e, e)]);
        assert!((found.exponent - 0.5).abs() < 1e-14, "{found:?}");
        assert!((found.error - (1.0_f64 / 12.0).sqrt()).abs() < 1e-14, "{found:?}");
        assert!((found.factor.ln() - 1.0 / 6.0).abs() < 1e-14, "{found:?}");
    }

    #[test]
    fn what_no_power_goes_through_has_no_exponent() {
        assert!(Power::of(&[(2.0, 1.0), (2.0, 3.0), (2.0, 4.0)]).exponent.is_nan());
        assert!(Power::of(&[(1.0, 1.0), (2.0, -3.0)]).exponent.is_nan());
        assert!(Power::of(&[]).exponent.is_nan());
        assert!(Power::of(&[(1.0, 1.0), (2.0, 4.0)]).error.is_infinite());
    }
}
