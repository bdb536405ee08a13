//! Which columns are eliminated when, and in which front.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::sparse::SymbolicSparseColMat;
use faer::sparse::linalg::amd;

use super::super::triplets::Triplets;

/// The order of elimination of matrices with the same places.
#[derive(Debug, Clone)]
pub struct Analysis {
    pub(super) n: usize,
    pub(super) fronts: Vec<Front>,
    /// The front that each element is added in.
    pub(super) front_of: Vec<usize>,
}

/// A dense matrix of the tree.
#[derive(Debug, Clone)]
pub(super) struct Front {
    /// What is eliminated in it.
    pub(super) columns: Vec<usize>,
    /// What its columns touch beside themselves.
    pub(super) rows: Vec<usize>,
    /// Fronts that leave something to it; all of them come before it.
    pub(super) children: Vec<usize>,
}

/// Fronts with so few columns together become one: a few zeros cost less than another front.
const FEW: usize = 8;

impl Analysis {
    /// Of the symmetric matrix whose lower triangle is `a`.
    pub fn new(a: &Triplets) -> Self {
        let n = a.columns();
        assert_eq!(a.rows(), n, "a symmetric matrix is square");
        let mut touched = vec![Vec::new(); n];
        for &(i, j, _) in a.elements().iter().filter(|(i, j, _)| i != j) {
            touched[i].push(j);
            touched[j].push(i);
        }
        for touched in &mut touched {
            touched.sort_unstable();
            touched.dedup();
        }
        let order = minimum_degree(&touched);
        let mut place = vec![0; n];
        order.iter().enumerate().for_each(|(k, &i)| place[i] = k);

        // By places in the order: the rows of each column of L, and whose first row it is.
        let mut below: Vec<Vec<usize>> = Vec::with_capacity(n);
        let mut children = vec![Vec::new(); n];
        let mut columns: Vec<Vec<usize>> = (0..n).map(|k| vec![k]).collect();
        let mut seen = vec![usize::MAX; n];
        for k in 0..n {
            let mut rows = Vec::new();
            let own = touched[order[k]].iter().map(|&j| place[j]);
            let inherited = children[k].iter().flat_map(|&child: &usize| below[child].iter().copied());
            for row in own.chain(inherited).filter(|&row| row > k) {
                if std::mem::replace(&mut seen[row], k) != k {
                    rows.push(row);
                }
            }
            rows.sort_unstable();
            for child in std::mem::take(&mut children[k]) {
                let same = below[child].len() == rows.len() + 1;
                if same || columns[child].len() + columns[k].len() <= FEW {
                    let (merged, heirs) =
                        (std::mem::take(&mut columns[child]), std::mem::take(&mut children[child]));
                    columns[k].extend(merged);
                    children[k].extend(heirs);
                } else {
                    children[k].push(child);
                }
            }
            if let Some(&parent) = rows.first() {
                children[parent].push(k);
            }
            below.push(rows);
        }
        let kept: Vec<usize> = (0..n).filter(|&k| !columns[k].is_empty()).collect();
        let mut number = vec![usize::MAX; n];
        kept.iter().enumerate().for_each(|(front, &k)| number[k] = front);
        let mut front_of_column = vec![0; n];
        let fronts: Vec<Front> = kept
            .iter()
            .enumerate()
            .map(|(front, &k)| {
                let named = |of: &[usize]| of.iter().map(|&k| order[k]).collect::<Vec<_>>();
                let mut own = columns[k].clone();
                own.sort_unstable();
                let columns = named(&own);
                for &i in &columns {
                    front_of_column[i] = front;
                }
                Front {
                    columns,
                    rows: named(&below[k]),
                    children: children[k].iter().map(|&c| number[c]).collect(),
                }
            })
            .collect();
        let first = |&(i, j, _): &(usize, usize, f64)| front_of_column[i].min(front_of_column[j]);
        let front_of = a.elements().iter().map(first).collect();
        Self { n, fronts, front_of }
    }
}

/// The columns in the order of their elimination.
fn minimum_degree(touched: &[Vec<usize>]) -> Vec<usize> {
    let n = touched.len();
    let mut starts = vec![0];
    let mut rows = Vec::new();
    for (j, touched) in touched.iter().enumerate() {
        rows.extend(touched.iter().copied().filter(|&i| i < j));
        starts.push(rows.len());
    }
    let upper = rows.len();
    let pattern = SymbolicSparseColMat::<usize>::new_checked(n, n, starts, None, rows);
    let (mut order, mut inverse) = (vec![0; n], vec![0; n]);
    let mut memory = MemBuffer::new(amd::order_scratch::<usize>(n, upper));
    let stack = MemStack::new(&mut memory);
    match amd::order(&mut order, &mut inverse, pattern.as_ref(), amd::Control::default(), stack) {
        Ok(_) => order,
        // Sizes beyond the type of indices: any order is right.
        Err(_) => (0..n).collect(),
    }
}
