//! A mean with its confidence interval: the one statistic by which measurements are judged. And the median, where one slow run
//! should not count.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean and the 95 % interval of Student's t around it.
///
/// The interval rests on the mean of the values being near normal and on the values being independent of each other; for
/// few and skewed values (below about 30) it is too narrow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean; NaN of no values.
    pub value: f64,
    /// 95 % of such intervals hold the mean that more and more values would have. One value says nothing about how
    /// values scatter: then it is everything.
    pub interval: [f64; 2],
}

impl Mean {
    /// Of independent values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let value = values.iter().sum::<f64>() / n;
        if values.len() < 2 {
            return Self { value, interval: [f64::NEG_INFINITY, f64::INFINITY] };
        }
        let variance = values.iter().map(|x| (x - value).powi(2)).sum::<f64>() / (n - 1.0);
        let t = StudentsT::new(0.0, 1.0, n - 1.0).expect("positive degrees of freedom").inverse_cdf(0.975);
        let half = t * (variance / n).sqrt();
        Self { value, interval: [value - half, value + half] }
    }
}

/// The middle value, or the mean of the two in the middle; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => f64::midpoint(values[(n - 1) / 2], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_values_by_hand() {
        // Standard error 1/sqrt(3), t(2 degrees) = 4.302653.
        let mean = Mean::of(&[1.0, 2.0, 3.0]);
        let half = 4.302_652_729_911_275 / 3.0_f64.sqrt();
        assert!((mean.value - 2.0).abs() < 1e-15);
        assert!((mean.interval[0] - (2.0 - half)).abs() < 1e-9, "{mean:?}");
        assert!((mean.interval[1] - (2.0 + half)).abs() < 1e-9, "{mean:?}");
    }

    #[test]
    fn equal_values_have_no_spread_and_one_value_an_unknown_one() {
        assert_eq!(Mean::of(&[0.5; 4]), Mean { value: 0.5, interval: [0.5; 2] });
        assert_eq!(Mean::of(&[0.5]), Mean { value: 0.5, interval: [f64::NEG_INFINITY, f64::INFINITY] });
        assert!(Mean::of(&[]).value.is_nan());
    }
}
