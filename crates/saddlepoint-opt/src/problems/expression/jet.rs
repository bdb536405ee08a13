//! Evaluation with first and second derivatives, forwards.
//! ```text
//! u = φ(a):     ∇u = φ' ∇a                 ∇²u = φ' ∇²a + φ'' ∇a ∇aᵀ
//! u = φ(a, b):  ∇u = φ_a ∇a + φ_b ∇b       ∇²u = φ_a ∇²a + φ_b ∇²b + φ_aa ∇a∇aᵀ + φ_ab (∇a∇bᵀ + ∇b∇aᵀ) + φ_bb ∇b∇bᵀ
//! ```

use super::tape::{Op, Register, Tape};

/// A value with its gradient and, if asked for, its Hessian (row by row, symmetric).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Jet {
    /// The value.
    pub value: f64,
    /// One a variable.
    pub gradient: Vec<f64>,
    /// Empty if only first derivatives were asked for.
    pub hessian: Vec<f64>,
}

/// Memory that evaluations share.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    pub(crate) values: Vec<f64>,
    gradients: Vec<f64>,
    hessians: Vec<f64>,
}

impl Tape {
    /// The first result with its derivatives; second ones if `second`.
    pub fn jet(&self, inputs: &[f64], second: bool, scratch: &mut Scratch, out: &mut Jet) {
        assert_eq!(inputs.len(), self.inputs(), "one number an input");
        let (n, count) = (self.variables(), self.ops().len());
        let square = if second { n * n } else { 0 };
        let Scratch { values, gradients, hessians } = scratch;
        values.clear();
        gradients.clear();
        gradients.resize(count * n, 0.0);
        hessians.clear();
        hessians.resize(count * square, 0.0);
        for (r, op) in self.ops().iter().enumerate() {
            let value = op.apply(inputs, values);
            values.push(value);
            if !self.is_active(r) {
                continue;
            }
            let (before, here) = gradients.split_at_mut(r * n);
            let here = &mut here[..n];
            let (curved, bent) = hessians.split_at_mut(r * square);
            let bent = &mut bent[..square];
            let of = |a: Register| (&before[a * n..(a + 1) * n], &curved[a * square..(a + 1) * square]);
            match *op {
                Op::Constant(_) => {}
                Op::Input(i) => here[i] = 1.0,
                Op::Unary(unary, a) => {
                    let (first, curvature) = unary.derivatives(values[a], value);
                    let (ga, ha) = of(a);
                    add(here, first, ga);
                    add(bent, first, ha);
                    if second {
                        outer(bent, curvature, ga, ga);
                    }
                }
                Op::Binary(binary, a, b) => {
                    let [fa, fb, faa, fab, fbb] = binary.derivatives(values[a], values[b], self.is_active(b));
                    let ((ga, ha), (gb, hb)) = (of(a), of(b));
                    for (factor, active, g, h) in
                        [(fa, self.is_active(a), ga, ha), (fb, self.is_active(b), gb, hb)]
                    {
                        if active {
                            add(here, factor, g);
                            add(bent, factor, h);
                        }
                    }
                    if second {
                        outer(bent, faa, ga, ga);
                        outer(bent, fab, ga, gb);
                        outer(bent, fab, gb, ga);
                        outer(bent, fbb, gb, gb);
                    }
                }
                Op::Select(c, a, b) => {
                    let (g, h) = of(if values[c] == 0.0 { b } else { a });
                    here.copy_from_slice(g);
                    bent.copy_from_slice(h);
                }
            }
        }
        let r = self.results()[0];
        out.value = values[r];
        out.gradient.clear();
        out.gradient.extend_from_slice(&gradients[r * n..(r + 1) * n]);
        out.hessian.clear();
        out.hessian.extend_from_slice(&hessians[r * square..(r + 1) * square]);
    }
}

/// `out += s g`, where 0 times infinity is 0: what does not depend on a variable stays so.
fn add(out: &mut [f64], s: f64, g: &[f64]) {
    for (out, g) in out.iter_mut().zip(g).filter(|(_, g)| **g != 0.0) {
        *out += s * g;
    }
}

/// `out += s a bᵀ`, with the same rule.
fn outer(out: &mut [f64], s: f64, a: &[f64], b: &[f64]) {
    if s == 0.0 {
        return;
    }
    let n = a.len();
    for (i, a) in a.iter().enumerate().filter(|(_, a)| **a != 0.0) {
        for (j, b) in b.iter().enumerate().filter(|(_, b)| **b != 0.0) {
            out[i * n + j] += s * a * b;
        }
    }
}
