//! Sums over slices, in order.

/// `Σ a_i b_i`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The Euclidean norm, without overflow of the squares.
pub fn norm(a: &[f64]) -> f64 {
    let scale = largest(a);
    if scale == 0.0 || !scale.is_finite() {
        return scale;
    }
    scale * a.iter().map(|a| (a / scale).powi(2)).sum::<f64>().sqrt()
}

/// The largest absolute value; 0 of nothing, NaN if one is NaN.
pub fn largest(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |largest, a| if a.abs() > largest || a.is_nan() { a.abs() } else { largest })
}

/// `a += s b`.
pub fn add_scaled(a: &mut [f64], s: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += s * b);
}

/// `a *= s`.
pub fn scale(a: &mut [f64], s: f64) {
    for a in a {
        *a *= s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_neither_overflow_nor_lose_a_nan() {
        assert!((norm(&[3e200, -4e200]) - 5e200).abs() < 1e186);
        assert!(norm(&[]) == 0.0 && norm(&[0.0; 3]) == 0.0);
        assert!(norm(&[1.0, f64::NAN, 2.0]).is_nan() && largest(&[f64::NAN, 2.0]).is_nan());
        assert!(largest(&[2.0, f64::NEG_INFINITY]).is_infinite());
    }
}
