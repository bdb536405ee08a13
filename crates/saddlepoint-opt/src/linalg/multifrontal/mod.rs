//! `P A Pᵀ = L B Lᵀ` of a sparse symmetric matrix, definite or not, where `B` has blocks of one and two rows.
//!
//! # Method
//! Columns are ordered by approximate minimum degree and gathered into fronts, small dense matrices that form a tree: a front adds up
//! the elements of its columns and what its children leave, eliminates its columns, and leaves the rest to its parent (Duff & Reid
//! 1983). A pivot is taken only where no multiplier is above `1/U` ([`front`]); a column without one is delayed, that is, eliminated in
//! the parent. That keeps the factors of KKT matrices, whose diagonal has zeros, as accurate as those of a dense factorisation. Rows and
//! columns are divided by the square roots of their largest elements before (Ruiz 2001), which leaves the signs of the eigenvalues.
//!
//! # Reference
//! Duff & Reid 1983, *The multifrontal solution of indefinite sparse symmetric linear equations*, ACM TOMS 9, 302-325.

mod analysis;
mod front;

pub use analysis::Analysis;

use super::indefinite::Inertia;
use super::triplets::Triplets;
use front::{Eliminated, eliminate};

/// A factorisation of a sparse symmetric matrix.
#[derive(Debug, Clone)]
pub struct SparseLdlt {
    scale: Vec<f64>,
    fronts: Vec<Eliminated>,
    inertia: Inertia,
}

impl SparseLdlt {
    /// Of the symmetric matrix whose lower triangle is `a`, as [`Analysis::new`] saw it: the same places in the same order, with any
    /// values. `None` if one of them is not finite.
    pub fn new(analysis: &Analysis, a: &Triplets) -> Option<Self> {
        let elements = a.elements();
        assert_eq!(elements.len(), analysis.front_of.len(), "the elements that were analysed");
        if elements.iter().any(|(_, _, v)| !v.is_finite()) {
            return None;
        }
        let n = analysis.n;
        let scale = equilibrated(n, a);
        let mut of_front = vec![Vec::new(); analysis.fronts.len()];
        analysis.front_of.iter().enumerate().for_each(|(k, &front)| of_front[front].push(k));
        let mut left: Vec<Option<(Vec<usize>, Vec<f64>)>> = vec![None; analysis.fronts.len()];
        let mut fronts = Vec::with_capacity(analysis.fronts.len());
        let mut place = vec![usize::MAX; n];
        for (number, front) in analysis.fronts.iter().enumerate() {
            let mut index = front.columns.clone();
            for &child in &front.children {
                // What a child delayed comes first among what it left.
                let delayed = fronts.get(child).map_or(0, Eliminated::delayed);
                index.extend(left[child].iter().flat_map(|(index, _)| &index[..delayed]));
            }
            let full = index.len();
            index.extend(&front.rows);
            let size = index.len();
            index.iter().enumerate().for_each(|(k, &i)| place[i] = k);
            let mut matrix = vec![0.0; size * size];
            let at = |a: usize, b: usize| a.max(b) * size + a.min(b);
            for &k in &of_front[number] {
                let (i, j, value) = elements[k];
                matrix[at(place[i], place[j])] += value * scale[i] * scale[j];
            }
            for &child in &front.children {
                let Some((index, rest)) = left[child].take() else { continue };
                let count = index.len();
                for (a, row) in rest.chunks_exact(count.max(1)).enumerate() {
                    let i = place[index[a]];
                    index[..=a].iter().zip(row).for_each(|(&j, value)| matrix[at(i, place[j])] += value);
                }
            }
            let (eliminated, rest) = eliminate(index, full, matrix);
            left[number] = Some((eliminated.remaining().to_vec(), rest));
            fronts.push(eliminated);
        }
        let mut inertia = Inertia { positive: 0, negative: 0, zero: 0 };
        for front in &fronts {
            front.count(&mut inertia);
        }
        Some(Self { scale, fronts, inertia })
    }

    /// The signs of the eigenvalues. Of a singular matrix they are those of one within its rounding: an eigenvalue that is zero counts as
    /// zero, or with the sign that rounding gave it where small pivots before it have magnified that.
    pub fn inertia(&self) -> Inertia {
        self.inertia
    }

    /// The solution of `A x = b`; where the matrix is singular, one of those whose element in each vanished pivot is 0, if there is any.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        assert_eq!(b.len(), self.scale.len(), "one number a row");
        let mut x: Vec<f64> = b.iter().zip(&self.scale).map(|(b, s)| b * s).collect();
        self.fronts.iter().for_each(|front| front.forward(&mut x));
        self.fronts.iter().rev().for_each(|front| front.backward(&mut x));
        x.iter_mut().zip(&self.scale).for_each(|(x, s)| *x *= s);
        x
    }
}

/// Factors `s_i` after which the largest element of each row of `s_i a_ij s_j` is near 1.
fn equilibrated(n: usize, a: &Triplets) -> Vec<f64> {
    let mut scale = vec![1.0; n];
    for _ in 0..4 {
        let mut sizes = vec![0.0_f64; n];
        for &(i, j, value) in a.elements() {
            let size = (value * scale[i] * scale[j]).abs();
            sizes[i] = sizes[i].max(size);
            sizes[j] = sizes[j].max(size);
        }
        scale.iter_mut().zip(sizes).filter(|(_, size)| *size > 0.0).for_each(|(s, size)| *s /= size.sqrt());
    }
    scale
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::super::eigenvalues;
    use super::*;

    fn factored(n: usize, elements: &[(usize, usize, f64)]) -> (Triplets, SparseLdlt) {
        let mut a = Triplets::new(n, n);
        for &(i, j, v) in elements {
            a.push(i.max(j), i.min(j), v);
        }
        let factor = SparseLdlt::new(&Analysis::new(&a), &a).expect("finite");
        (a, factor)
    }

    /// `A x` from the lower triangle.
    fn product(a: &Triplets, x: &[f64]) -> Vec<f64> {
        let n = x.len();
        let dense = a.symmetric();
        (0..n).map(|i| super::super::dot(&dense[i * n..(i + 1) * n], x)).collect()
    }

    #[test]
    fn a_kkt_matrix_is_solved_and_its_signs_counted() {
        let (_, factor) = factored(3, &[(0, 0, 2.0), (1, 1, 3.0), (2, 0, 1.0), (2, 1, 1.0)]);
        assert_eq!(factor.inertia(), Inertia { positive: 2, negative: 1, zero: 0 });
        assert_close!(factor.solve(&[1.0, 2.0, 3.0]), [1.6, 1.4, -2.2], rtol = 1e-14);
        let (_, zeros) = factored(4, &[(1, 0, 1.0), (2, 3, 1e-9)]);
        assert_eq!(zeros.inertia(), Inertia { positive: 2, negative: 2, zero: 0 });
        let (_, singular) = factored(3, &[(0, 0, 1.0), (1, 0, 1.0), (1, 1, 1.0)]);
        assert_eq!(singular.inertia(), Inertia { positive: 1, negative: 0, zero: 2 });
        assert!(singular.solve(&[1.0, 1.0, 0.0]).iter().all(|x| x.is_finite()));
        let (_, empty) = factored(0, &[]);
        assert!(empty.solve(&[]).is_empty());
        let mut a = Triplets::new(1, 1);
        a.push(0, 0, f64::NAN);
        assert!(SparseLdlt::new(&Analysis::new(&a), &a).is_none());
    }

    #[test]
    fn a_long_chain_of_equalities_is_solved() {
        // min Σ (i/n) x_i² / 2 − x_i, x_i + x_(i+1) = 1, every third x without curvature.
        let (n, m) = (300, 200);
        let mut elements: Vec<(usize, usize, f64)> =
            (0..n).filter(|i| i % 3 != 0).map(|i| (i, i, (i + 1) as f64 / n as f64)).collect();
        for k in 0..m {
            elements.extend([(n + k, k, 1.0), (n + k, k + 1, 1.0)]);
        }
        // Where nothing but curvature holds the variables.
        elements.extend((m + 1..n).filter(|i| i % 3 == 0).map(|i| (i, i, 1e-3)));
        let (a, factor) = factored(n + m, &elements);
        assert_eq!(factor.inertia(), Inertia { positive: n, negative: m, zero: 0 });
        let b: Vec<f64> = (0..n + m).map(|i| (0.7 * i as f64).sin()).collect();
        assert_close!(product(&a, &factor.solve(&b)), b, atol = 1e-11);
    }

    proptest! {
        /// Sparse matrices of every inertia, with zeros on the diagonal: the signs are those of the eigenvalues, the residual is that of a
        /// stable method.
        #[test]
        fn any_sparse_matrix_is_factored(
            places in prop::collection::vec((0..24_usize, 0..24_usize, -1.0..1.0f64), 20..120),
            sizes in prop::collection::vec(-6..6i32, 24),
        ) {
            let n = 24;
            let scaled: Vec<_> = places.iter().map(|&(i, j, v)| (i, j, v * 10f64.powi(sizes[i] + sizes[j]))).collect();
            let (a, factor) = factored(n, &scaled);
            // Judged where rows are equally large, in which the factorisation works.
            let mut even = Triplets::new(n, n);
            a.elements().iter().for_each(|&(i, j, v)| even.push(i, j, v * factor.scale[i] * factor.scale[j]));
            let values = eigenvalues(&even.symmetric(), n).expect("finite");
            prop_assume!(values.iter().all(|v| v.abs() > 1e-9 || v.abs() < 1e-15));
            let inertia = factor.inertia();
            let [positive, negative] = [1.0, -1.0].map(|sign| values.iter().filter(|v| sign * **v > 1e-9).count());
            let zero = n - positive - negative;
            prop_assert!((positive..=positive + zero).contains(&inertia.positive), "{inertia:?} of {values:?}");
            prop_assert!((negative..=negative + zero).contains(&inertia.negative), "{inertia:?} of {values:?}");
            if inertia.zero == 0 {
                let b: Vec<f64> = (0..n).map(|i| (1.3 * i as f64 + 0.2).cos() / factor.scale[i]).collect();
                let residual: Vec<f64> = product(&a, &factor.solve(&b)).iter().zip(&b).zip(&factor.scale).map(|((r, b), s)| (r - b) * s).collect();
                let least = values.iter().fold(f64::INFINITY, |least, v| least.min(v.abs()));
                prop_assert!(super::super::norm(&residual) <= 1e-12 / least.min(1.0), "{residual:?}");
            }
        }
    }
}
