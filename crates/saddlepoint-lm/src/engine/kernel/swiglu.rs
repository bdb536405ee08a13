//! The gated feed-forward activation `silu(gate) up`, `silu(g) = g / (1 + e^-g)`.

use rayon::prelude::*;
use saddlepoint_opt::simd::vectorized;

use super::lanes::exp;

pub(crate) fn swiglu(gate_up: &[f32], ffn: usize, out: &mut [f32]) {
    (gate_up.par_chunks(2 * ffn), out.par_chunks_mut(ffn)).into_par_iter().with_min_len(8).for_each(
        |(gu, out)| {
            vectorized(
                #[inline(always)]
                || {
                    let (gate, up) = gu.split_at(ffn);
                    for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                        *o = g / (1.0 + exp(-g)) * u;
                    }
                },
            );
        },
    );
}

/// `dout -> dgate_up`; and `out` again, which takes no other pass over `gate_up`.
pub(crate) fn swiglu_backward(
    gate_up: &[f32],
    ffn: usize,
    dout: &[f32],
    dgate_up: &mut [f32],
    out: &mut [f32],
) {
    let rows = (gate_up.par_chunks(2 * ffn), dout.par_chunks(ffn));
    (rows, (dgate_up.par_chunks_mut(2 * ffn), out.par_chunks_mut(ffn)))
        .into_par_iter()
        .with_min_len(8)
        .for_each(|((gu, dout), (dgu, out))| {
            vectorized(
                #[inline(always)]
                || {
                    let (gate, up) = gu.split_at(ffn);
                    let (dgate, dup) = dgu.split_at_mut(ffn);
                    let given = gate.iter().zip(up).zip(dout);
                    for ((((&g, &u), &d), out), (dg, du)) in
                        given.zip(out.iter_mut()).zip(dgate.iter_mut().zip(dup))
                    {
                        let sigmoid = 1.0 / (1.0 + exp(-g));
                        let silu = g * sigmoid;
                        *out = silu * u;
                        *du = d * silu;
                        *dg = d * u * (sigmoid + silu * (1.0 - sigmoid));
                    }
                },
            );
        });
}
