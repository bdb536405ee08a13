//! What the tests of every crate share: comparison of numbers, and data that is not in the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use crate::assert_close;

/// A file or folder of the shared data, in `$SADDLE_DATA` or in `../shared/data` beside the repository. `None`,
/// with a line on standard error, where it is absent: the test then returns early, visibly skipped.
#[allow(clippy::disallowed_methods, reason = "where a machine keeps its data is not part of a run")]
pub fn data(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("SADDLE_DATA").map_or_else(beside, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no {}; set SADDLE_DATA to the directory of the shared data", path.display());
    None
}

/// Files of the corpus of a fuzz target, by name.
///
/// # Panics
/// There is none: it is part of the project.
pub fn corpus(target: &str) -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    std::fs::read_dir(folder)
        .expect("the corpus is part of the project")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .collect()
}

/// Numbers that [`assert_close!`](crate::assert_close) can compare: scalars and sequences of `f32` or `f64`.
pub trait Values {
    /// All of them, in order.
    fn values(&self) -> Vec<f64>;
}

macro_rules! values {
    ($($float:ty),*) => {$(
        impl Values for $float {
            fn values(&self) -> Vec<f64> {
                vec![f64::from(*self)]
            }
        }
        impl Values for [$float] {
            fn values(&self) -> Vec<f64> {
                self.iter().map(|&v| f64::from(v)).collect()
            }
        }
        impl<const N: usize> Values for [$float; N] {
            fn values(&self) -> Vec<f64> {
                self[..].values()
            }
        }
        impl Values for Vec<$float> {
            fn values(&self) -> Vec<f64> {
                self[..].values()
            }
        }
    )*};
}
values!(f32, f64);

impl<T: Values + ?Sized> Values for &T {
    fn values(&self) -> Vec<f64> {
        (**self).values()
    }
}

/// `None` when `|a - b| <= atol + rtol |b|` everywhere, else a text that shows the worst place.
/// Equal infinities are close; a NaN is close to nothing.
#[doc(hidden)]
pub fn difference(a: &[f64], b: &[f64], rtol: f64, atol: f64) -> Option<String> {
    if a.len() != b.len() {
        return Some(format!("{} values against {}", a.len(), b.len()));
    }
    #[allow(clippy::float_cmp, reason = "equal infinities have no difference")]
    let excess = |i: usize| {
        if a[i] == b[i] {
            return 0.0;
        }
        let ratio = (a[i] - b[i]).abs() / (atol + rtol * b[i].abs());
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    };
    let beyond = (0..a.len()).filter(|&i| excess(i) > 1.0).count();
    let worst = (0..a.len()).max_by(|&i, &j| excess(i).total_cmp(&excess(j)))?;
    (beyond > 0).then(|| {
        format!(
            "{beyond} of {} values differ; worst at index {worst}: {:?} against {:?}, |difference| {:e}, \
             allowed {:e} (rtol {rtol:e}, atol {atol:e})",
            a.len(),
            a[worst],
            b[worst],
            (a[worst] - b[worst]).abs(),
            atol + rtol * b[worst].abs(),
        )
    })
}

/// Asserts `|a - b| <= atol + rtol |b|` for scalars or sequences, and shows the worst index when it fails.
///
/// ```
/// use saddlepoint_core::test::assert_close;
/// assert_close!([1.0, 2.0], [1.0, 2.0 + 1e-9], rtol = 1e-8);
/// assert_close!(1e-12, 0.0, atol = 1e-9);
/// assert_close!(3.0_f32, 3.000_001_f32, rtol = 1e-6, atol = 1e-9);
/// ```
#[macro_export]
macro_rules! assert_close {
    ($a:expr, $b:expr, rtol = $rtol:expr $(,)?) => {
        $crate::assert_close!($a, $b, rtol = $rtol, atol = 0.0)
    };
    ($a:expr, $b:expr, atol = $atol:expr $(,)?) => {
        $crate::assert_close!($a, $b, rtol = 0.0, atol = $atol)
    };
    ($a:expr, $b:expr, rtol = $rtol:expr, atol = $atol:expr $(,)?) => {{
        let (a, b) = ($crate::test::Values::values(&$a), $crate::test::Values::values(&$b));
        if let ::core::option::Option::Some(difference) = $crate::test::difference(&a, &b, $rtol, $atol) {
            ::core::panic!("{} is not close to {}: {difference}", stringify!($a), stringify!($b));
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_data_is_none() {
        assert_eq!(data("no such file"), None);
    }

    #[test]
    fn shows_the_worst_index() {
        let text = difference(&[1.0, 2.5, 3.2], &[1.0, 2.0, 3.0], 0.0, 0.1).unwrap();
        let expected = "2 of 3 values differ; worst at index 1: 2.5 against 2.0, |difference| 5e-1, \
                        allowed 1e-1 (rtol 0e0, atol 1e-1)";
        assert_eq!(text, expected);
        assert_eq!(difference(&[1.0], &[], 0.0, 0.0).unwrap(), "1 values against 0");
    }

    #[test]
    fn treats_infinities_and_nan() {
        assert_eq!(difference(&[f64::INFINITY], &[f64::INFINITY], 0.0, 0.0), None);
        assert!(difference(&[f64::INFINITY], &[f64::NEG_INFINITY], 1.0, 0.0).is_some());
        assert!(difference(&[f64::NAN], &[f64::NAN], 1.0, 1.0).is_some());
        assert!(difference(&[0.0, f64::NAN], &[5.0, 0.0], 0.0, 1.0).unwrap().contains("worst at index 1"));
    }

    #[test]
    #[should_panic(expected = "x is not close to [2.0]: 1 of 1 values differ; worst at index 0")]
    fn the_macro_panics_with_both_expressions() {
        let x = vec![1.0_f32];
        assert_close!(x, [2.0], rtol = 1e-3);
    }
}
