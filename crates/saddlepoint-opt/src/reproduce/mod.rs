//! Reproductions of the papers on solvers: one file or folder each, and one line in the list.
//!
//! An experiment takes what the paper is about as an argument, so that a test can run it with a corrupted one and see a claim fail.

mod lv_hba;
mod machine;
mod penalty_bilevel;
mod sketched_newton;

use saddlepoint_core::reproduce;

use crate::Error;

/// A reproduction in this crate.
pub type Reproduction = reproduce::Reproduction<Error>;

/// Every reproduction in this crate.
pub const LIST: &[&Reproduction] =
    &[&lv_hba::REPRODUCTION, &penalty_bilevel::REPRODUCTION, &sketched_newton::REPRODUCTION];

/// The order of `b` in `a`: the slope of the line through their logarithms by least squares.
fn slope(points: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<(f64, f64)> = points.into_iter().map(|(a, b)| (a.ln(), b.ln())).collect();
    let count = points.len() as f64;
    let [mean_a, mean_b] =
        points.iter().fold([0.0; 2], |[a, b], point| [a + point.0 / count, b + point.1 / count]);
    let [mixed, square] = points.iter().fold([0.0; 2], |[mixed, square], (a, b)| {
        [mixed + (a - mean_a) * (b - mean_b), square + (a - mean_a).powi(2)]
    });
    mixed / square
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_order_of_a_power_is_its_exponent() {
        let order = super::slope([1.0_f64, 2.0, 5.0].map(|a| (a, 3.0 * a.powf(-1.5))));
        assert!((order + 1.5).abs() < 1e-12, "{order}");
    }
}
