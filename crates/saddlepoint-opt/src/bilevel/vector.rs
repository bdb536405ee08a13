//! What vectors need here beyond `linalg`.

/// `|a - b|`.
pub(super) fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

/// `a <- (1 - s) a + s b`.
pub(super) fn blend(a: &mut [f64], s: f64, b: &[f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a = (1.0 - s) * *a + s * b;
    }
}

pub(super) fn finite(parts: &[&[f64]]) -> bool {
    parts.iter().all(|part| part.iter().all(|value| value.is_finite()))
}
