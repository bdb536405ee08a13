//! The scalar head: `s = w . h` of a hidden state, for rewards and for values.

/// `w . h` of each hidden row; `hidden [R, d]`, `weights [d]`.
pub(crate) fn forward(hidden: &[f32], weights: &[f32]) -> Vec<f64> {
    let score = |row: &[f32]| row.iter().zip(weights).map(|(&h, &w)| f64::from(h) * f64::from(w)).sum();
    hidden.chunks_exact(weights.len()).map(score).collect()
}

/// Adds `c_r w` to each row of `dhidden [R, d]`, and `sum_r c_r h_r` to `dweights [d]`.
pub(crate) fn backward(
    hidden: &[f32],
    weights: &[f32],
    cotangents: &[f64],
    dhidden: &mut [f32],
    dweights: &mut [f32],
) {
    let d = weights.len();
    let mut sum: Vec<f64> = dweights.iter().map(|&v| f64::from(v)).collect();
    for ((h, dh), &c) in hidden.chunks_exact(d).zip(dhidden.chunks_exact_mut(d)).zip(cotangents) {
        for (((dh, sum), &h), &w) in dh.iter_mut().zip(&mut sum).zip(h).zip(weights) {
            *dh += (c * f64::from(w)) as f32;
            *sum += c * f64::from(h);
        }
    }
    dweights.iter_mut().zip(sum).for_each(|(o, v)| *o = v as f32);
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn the_derivatives_are_those_of_a_product() {
        let (hidden, weights) = ([1.0, 2.0, -1.0, 0.5], [3.0, -2.0]);
        assert_close!(forward(&hidden, &weights), [-1.0, -4.0], rtol = 1e-15);
        let (mut dhidden, mut dweights) = ([1.0; 4], [10.0, 0.0]);
        backward(&hidden, &weights, &[2.0, -1.0], &mut dhidden, &mut dweights);
        assert_close!(dhidden.map(f64::from), [7.0, -3.0, -2.0, 3.0], rtol = 1e-7);
        assert_close!(dweights.map(f64::from), [10.0 + 2.0 + 1.0, 4.0 - 0.5], rtol = 1e-7);
    }
}
