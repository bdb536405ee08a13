//! The elimination of some columns of a dense symmetric matrix.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, MatMut, MatRef, Par};

use super::super::indefinite::Inertia;
use super::super::vector::{add_scaled, dot};

/// A pivot is at least this share of what is eliminated with it.
const U: f64 = 0.01;
/// Elements this small, where the largest of each row was 1, are rounding errors.
const NOTHING: f64 = 1e-14;

/// What is left of a front: its columns of `L` and its blocks of `B`.
#[derive(Debug, Clone)]
pub(super) struct Eliminated {
    /// Rows of the whole matrix: those of the pivots in their order, delayed ones, the others.
    index: Vec<usize>,
    pivots: usize,
    delayed: usize,
    /// `L`, a row of `pivots` numbers for each of `index`.
    lower: Vec<f64>,
    diagonal: Vec<f64>,
    /// Below the diagonal of `B`; not 0 where a block of two rows begins.
    below: Vec<f64>,
}

/// The next pivot among the columns of a front.
enum Pivot {
    One(usize),
    Two(usize, usize),
    Nothing(usize),
}

/// Eliminates what it can of the first `full` columns of a matrix whose lower triangle is given, and returns the lower triangle of what
/// is left.
pub(super) fn eliminate(index: Vec<usize>, full: usize, matrix: Vec<f64>) -> (Eliminated, Vec<f64>) {
    let size = index.len();
    let mut front = Working { matrix, index, size, full };
    let (mut diagonal, mut below) = (Vec::new(), Vec::new());
    let mut k = 0;
    while k < full {
        match front.pivot(k) {
            None => break,
            Some(Pivot::Nothing(i)) => {
                front.exchange(k, i);
                (k..size).for_each(|i| front.matrix[i * size + k] = 0.0);
                diagonal.push(0.0);
                below.push(0.0);
                k += 1;
            }
            Some(Pivot::One(i)) => {
                front.exchange(k, i);
                diagonal.push(front.one(k));
                below.push(0.0);
                k += 1;
            }
            Some(Pivot::Two(i, j)) => {
                front.exchange(k, i);
                // The first may have been the second.
                front.exchange(k + 1, if j == k { i } else { j });
                let [a, b, c] = front.two(k);
                diagonal.extend([a, c]);
                below.extend([b, 0.0]);
                k += 2;
            }
        }
    }
    let Working { matrix, index, .. } = front;
    let rest = schur(&matrix, size, full, k, &diagonal, &below);
    let mut lower = Vec::with_capacity(size * k);
    matrix.chunks_exact(size.max(1)).for_each(|row| lower.extend_from_slice(&row[..k]));
    (Eliminated { index, pivots: k, delayed: full - k, lower, diagonal, below }, rest)
}

struct Working {
    matrix: Vec<f64>,
    index: Vec<usize>,
    size: usize,
    full: usize,
}

impl Working {
    /// Of the symmetric matrix.
    fn at(&self, i: usize, j: usize) -> f64 {
        self.matrix[i.max(j) * self.size + i.min(j)]
    }

    /// The largest element of column `j` from row `k` on beside the diagonal and row `but`; and the largest and its row among those that
    /// may be pivots.
    fn largest(&self, k: usize, j: usize, but: usize) -> (f64, f64, usize) {
        let (mut largest, mut partner, mut row) = (0.0_f64, 0.0_f64, usize::MAX);
        for i in (k..self.size).filter(|&i| i != j && i != but) {
            let size = self.at(i, j).abs();
            largest = largest.max(size);
            if i < self.full && size > partner {
                (partner, row) = (size, i);
            }
        }
        (largest, partner, row)
    }

    fn pivot(&self, k: usize) -> Option<Pivot> {
        for j in k..self.full {
            let (largest, _, partner) = self.largest(k, j, usize::MAX);
            let a = self.at(j, j);
            if a.abs().max(largest) <= NOTHING {
                return Some(Pivot::Nothing(j));
            }
            if a.abs() >= U * largest && a.abs() > NOTHING {
                return Some(Pivot::One(j));
            }
            if partner == usize::MAX {
                continue;
            }
            let (b, c) = (self.at(j, partner), self.at(partner, partner));
            let (over_j, over_partner) = (self.largest(k, j, partner).0, self.largest(k, partner, j).0);
            let determinant = (a * c - b * b).abs();
            let grows =
                (c.abs() * over_j + b.abs() * over_partner).max(b.abs() * over_j + a.abs() * over_partner);
            if determinant > NOTHING * b.abs() && U * grows <= determinant {
                return Some(Pivot::Two(j, partner));
            }
        }
        None
    }

    /// Exchanges rows and columns `k <= i`.
    fn exchange(&mut self, k: usize, i: usize) {
        if k == i {
            return;
        }
        let (low, high) = (k.min(i), k.max(i));
        let size = self.size;
        self.index.swap(low, high);
        for j in 0..low {
            self.matrix.swap(low * size + j, high * size + j);
        }
        for j in low + 1..high {
            self.matrix.swap(j * size + low, high * size + j);
        }
        for j in high + 1..size {
            self.matrix.swap(j * size + low, j * size + high);
        }
        self.matrix.swap(low * size + low, high * size + high);
    }

    /// Eliminates column `k`, from the columns that may be pivots alone: the others follow all at once.
    fn one(&mut self, k: usize) -> f64 {
        let (size, full) = (self.size, self.full);
        let pivot = self.matrix[k * size + k];
        let column: Vec<f64> = (k + 1..full).map(|i| self.matrix[i * size + k]).collect();
        for (i, row) in self.matrix.chunks_exact_mut(size).enumerate().skip(k + 1) {
            let multiplier = row[k] / pivot;
            row[k] = multiplier;
            if multiplier != 0.0 {
                let end = full.min(i + 1);
                add_scaled(&mut row[k + 1..end], -multiplier, &column[..end - k - 1]);
            }
        }
        pivot
    }

    /// Eliminates columns `k` and `k + 1`: the elements of their block.
    fn two(&mut self, k: usize) -> [f64; 3] {
        let (size, full) = (self.size, self.full);
        let [a, b, c] = [(k, k), (k + 1, k), (k + 1, k + 1)].map(|(i, j)| self.matrix[i * size + j]);
        let determinant = a * c - b * b;
        let [first, second] =
            [k, k + 1].map(|j| (k + 2..full).map(|i| self.matrix[i * size + j]).collect::<Vec<f64>>());
        self.matrix[(k + 1) * size + k] = 0.0;
        for (i, row) in self.matrix.chunks_exact_mut(size).enumerate().skip(k + 2) {
            let (u, v) = (row[k], row[k + 1]);
            if u == 0.0 && v == 0.0 {
                continue;
            }
            let (p, q) = ((c * u - b * v) / determinant, (a * v - b * u) / determinant);
            (row[k], row[k + 1]) = (p, q);
            let end = full.min(i + 1);
            add_scaled(&mut row[k + 2..end], -p, &first[..end - k - 2]);
            add_scaled(&mut row[k + 2..end], -q, &second[..end - k - 2]);
        }
        [a, b, c]
    }
}

/// What `pivots` eliminated columns leave, from column `pivots` on.
fn schur(
    matrix: &[f64],
    size: usize,
    full: usize,
    pivots: usize,
    diagonal: &[f64],
    below: &[f64],
) -> Vec<f64> {
    let (left, delayed, others) = (size - pivots, full - pivots, size - full);
    let mut rest = vec![0.0; left * left];
    for (i, row) in rest.chunks_exact_mut(left.max(1)).enumerate() {
        let from = (pivots + i) * size + pivots;
        row[..=i].copy_from_slice(&matrix[from..=from + i]);
    }
    if pivots == 0 || others == 0 {
        return rest;
    }
    let (mut lower, mut blocks) = (Vec::with_capacity(others * pivots), vec![0.0; others * pivots]);
    matrix.chunks_exact(size).skip(full).for_each(|row| lower.extend_from_slice(&row[..pivots]));
    for (of, row) in lower.chunks_exact(pivots).zip(blocks.chunks_exact_mut(pivots)) {
        for k in 0..pivots {
            row[k] += diagonal[k] * of[k];
            if below[k] != 0.0 {
                row[k] += below[k] * of[k + 1];
                row[k + 1] += below[k] * of[k];
            }
        }
    }
    let rows = |of| MatRef::from_row_major_slice(of, others, pivots);
    let mut target = MatMut::from_row_major_slice_mut(&mut rest, left, left);
    matmul(
        target.as_mut().submatrix_mut(delayed, delayed, others, others),
        BlockStructure::TriangularLower,
        Accum::Add,
        rows(&blocks),
        BlockStructure::Rectangular,
        rows(&lower).transpose(),
        BlockStructure::Rectangular,
        -1.0,
        Par::Seq,
    );
    rest
}

impl Eliminated {
    /// Columns that found no pivot.
    pub(super) fn delayed(&self) -> usize {
        self.delayed
    }

    /// The rows of what it left; the delayed ones come first.
    pub(super) fn remaining(&self) -> &[usize] {
        &self.index[self.pivots..]
    }

    /// Adds the signs of its blocks.
    pub(super) fn count(&self, inertia: &mut Inertia) {
        let mut k = 0;
        while k < self.pivots {
            let (a, b) = (self.diagonal[k], self.below[k]);
            if b == 0.0 {
                match a.partial_cmp(&0.0) {
                    Some(std::cmp::Ordering::Greater) => inertia.positive += 1,
                    Some(std::cmp::Ordering::Less) => inertia.negative += 1,
                    _ => inertia.zero += 1,
                }
                k += 1;
                continue;
            }
            let c = self.diagonal[k + 1];
            if a * c - b * b < 0.0 {
                inertia.positive += 1;
                inertia.negative += 1;
            } else if a > 0.0 {
                inertia.positive += 2;
            } else {
                inertia.negative += 2;
            }
            k += 2;
        }
        // Nothing is delayed by the last front of a tree: in a matrix whose columns all may be pivots one of them is.
        inertia.zero += if self.index.len() == self.pivots + self.delayed { self.delayed } else { 0 };
    }

    /// Solves with `L` and then with `B`.
    pub(super) fn forward(&self, x: &mut [f64]) {
        let mut local: Vec<f64> = self.index.iter().map(|&i| x[i]).collect();
        for (i, row) in self.lower.chunks_exact(self.pivots.max(1)).enumerate() {
            let before = i.min(self.pivots);
            local[i] -= dot(&row[..before], &local[..before]);
        }
        let mut k = 0;
        while k < self.pivots {
            let (a, b) = (self.diagonal[k], self.below[k]);
            if b == 0.0 {
                local[k] = if a == 0.0 { 0.0 } else { local[k] / a };
                k += 1;
            } else {
                let (c, u, v) = (self.diagonal[k + 1], local[k], local[k + 1]);
                let determinant = a * c - b * b;
                (local[k], local[k + 1]) = ((c * u - b * v) / determinant, (a * v - b * u) / determinant);
                k += 2;
            }
        }
        self.index.iter().zip(local).for_each(|(&i, value)| x[i] = value);
    }

    /// Solves with `Lᵀ`.
    pub(super) fn backward(&self, x: &mut [f64]) {
        let mut local: Vec<f64> = self.index.iter().map(|&i| x[i]).collect();
        for (i, row) in self.lower.chunks_exact(self.pivots.max(1)).enumerate().rev() {
            let (before, value) = (i.min(self.pivots), local[i]);
            add_scaled(&mut local[..before], -value, &row[..before]);
        }
        self.index[..self.pivots].iter().zip(local).for_each(|(&i, value)| x[i] = value);
    }
}
