//! The part of an objective whose proximal step is known.

use serde::{Deserialize, Serialize};

use super::sets::{Affine, Ball, Bounds, L1, Simplex};
use crate::linalg::largest;
use crate::{Error, Result};

/// A closed list of convex functions `h` with a cheap proximal step
/// ```text
/// prox_t(v) = argmin_x  h(x) + |x − v|² / 2t
/// ```
/// Of a set (`h` is 0 in it and infinite outside) that is the projection, whatever `t`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Simple {
    /// `h = 0`.
    #[default]
    Free,
    /// See [`Bounds`].
    Bounds(Bounds),
    /// See [`Simplex`].
    Simplex(Simplex),
    /// See [`Ball`].
    Ball(Ball),
    /// See [`Affine`].
    Affine(Affine),
    /// See [`L1`].
    L1(L1),
    /// One after the other, each of so many variables.
    Product(Vec<(usize, Simple)>),
}

impl Simple {
    /// Refuses a part that does not fit `n` variables.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, n: usize) -> Result<()> {
        match self {
            Self::Free => Ok(()),
            Self::Bounds(set) => set.check(n),
            Self::Simplex(set) => set.check(n),
            Self::Ball(set) => set.check(n),
            Self::Affine(set) => set.check(n),
            Self::L1(norm) => norm.check(),
            Self::Product(parts) => {
                let got = parts.iter().map(|(len, _)| len).sum();
                if got != n {
                    return Err(Error::Dimension { what: "parts of Simple::Product", expected: n, got });
                }
                parts.iter().try_for_each(|(len, part)| part.check(*len))
            }
        }
    }

    /// Replaces `x` by its proximal step of length `t > 0`.
    pub fn prox(&self, t: f64, x: &mut [f64]) {
        match self {
            Self::Free => {}
            Self::Bounds(set) => set.project(x),
            Self::Simplex(set) => set.project(x),
            Self::Ball(set) => set.project(x),
            Self::Affine(set) => set.project(x),
            Self::L1(norm) => norm.prox(t, x),
            Self::Product(parts) => {
                let mut rest = x;
                for (len, part) in parts {
                    let (head, tail) = rest.split_at_mut(*len);
                    part.prox(t, head);
                    rest = tail;
                }
            }
        }
    }

    /// `h(x)` for `x` in the set.
    pub fn value(&self, x: &[f64]) -> f64 {
        match self {
            Self::L1(norm) => norm.value(x),
            Self::Product(parts) => {
                let mut rest = x;
                let mut sum = 0.0;
                for (len, part) in parts {
                    let (head, tail) = rest.split_at(*len);
                    sum += part.value(head);
                    rest = tail;
                }
                sum
            }
            _ => 0.0,
        }
    }

    /// The largest change of an element by the projection to the set; 0 in it, NaN where an element is.
    pub fn distance(&self, x: &[f64]) -> f64 {
        let mut projected = x.to_vec();
        self.project(&mut projected);
        largest(&x.iter().zip(projected).map(|(x, p)| x - p).collect::<Vec<_>>())
    }

    /// Projects to the set alone: norms stay out of it.
    pub(crate) fn project(&self, x: &mut [f64]) {
        match self {
            Self::L1(_) => {}
            Self::Product(parts) => {
                let mut rest = x;
                for (len, part) in parts {
                    let (head, tail) = rest.split_at_mut(*len);
                    part.project(head);
                    rest = tail;
                }
            }
            set => set.prox(1.0, x),
        }
    }

    /// Whether a norm is part of it, whose weight a scaled objective would change.
    pub(crate) fn is_norm(&self) -> bool {
        match self {
            Self::L1(_) => true,
            Self::Product(parts) => parts.iter().any(|(_, part)| part.is_norm()),
            _ => false,
        }
    }

    /// Lower and upper bounds of all `n` variables, where the part is nothing but bounds.
    pub fn as_bounds(&self, n: usize) -> Option<Bounds> {
        match self {
            Self::Free => Some(Bounds::none(n)),
            Self::Bounds(bounds) => Some(bounds.clone()),
            Self::Product(parts) => {
                let mut all = Bounds::none(0);
                for (len, part) in parts {
                    let bounds = part.as_bounds(*len)?;
                    all.lower.extend(bounds.lower);
                    all.upper.extend(bounds.upper);
                }
                Some(all)
            }
            _ => None,
        }
    }
}

macro_rules! from {
    ($($name:ident),*) => {$(
        impl From<$name> for Simple {
            fn from(part: $name) -> Self {
                Self::$name(part)
            }
        }
    )*};
}
from!(Bounds, Simplex, Ball, Affine, L1);
