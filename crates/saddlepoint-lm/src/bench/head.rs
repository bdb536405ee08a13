//! The head alone, against the matrix products that it needs.

use saddlepoint_core::clock::Stopwatch;

use super::{Options, Report, checked, shape, timed};
use crate::Result;
use crate::engine::kernel::{Cpu, RowCotangent};
use crate::engine::{Divergence, Head, HeadBuffers, HeadSide, Storage, StoredWeights, Want};

/// Rows.
const ROWS: usize = 4096;

/// Log-probabilities under policy and reference for 4,096 tokens and the gradient for hidden rows and
/// matrix; then the same with exact reverse KL and entropy.
///
/// `gemm_fraction` compares with the bare products, tile by tile as the head makes them.
///
/// # Errors
/// No runs are asked for.
pub fn head(options: &Options) -> Result<Report> {
    let runs = checked(options)?;
    let shape = shape();
    let mut weights = StoredWeights::new(&shape, Storage::F32);
    for spec in weights.specs.clone() {
        if spec.name.contains("embed") {
            let values: Vec<f32> = (0..spec.len()).map(|i| ((i * 31) % 97) as f32 * 4e-4 - 0.02).collect();
            weights.write(&spec, &values);
        }
    }
    let rows = |salt: usize| {
        (0..ROWS * shape.hidden).map(|i| ((i * 17 + salt) % 101) as f32 * 0.02 - 1.0).collect::<Vec<f32>>()
    };
    let (hidden, other) = (rows(0), rows(1));
    let targets: Vec<u32> = (0..ROWS as u32).map(|i| i * 11 % 49_152).collect();
    let mut dhidden = vec![0.0; ROWS * shape.hidden];
    let mut dweights = vec![0.0; shape.vocab * shape.hidden];
    let mut buffers = HeadBuffers::default();
    let mut time = |want: Want, cotangent: RowCotangent| {
        let reference = want.reference().then_some(HeadSide { hidden: &other, weights: &weights });
        let policy = HeadSide { hidden: &hidden, weights: &weights };
        let head = Head { kernels: &Cpu, vocab: shape.vocab, want, policy, reference, listed: &[] };
        let cotangents = vec![cotangent; ROWS];
        timed(runs, || {
            let (states, _) = head.forward(&targets, &mut buffers, None);
            head.backward(
                &states,
                &cotangents,
                &[],
                &mut dhidden,
                Some(&mut dweights),
                false,
                &mut buffers,
                None,
            );
            Ok(())
        })
    };
    let logp = RowCotangent { logp: 1.0, ..RowCotangent::default() };
    let plain = time(Want::default(), logp)?;
    let both = time(Want { ref_logp: true, ..Want::default() }, logp)?;
    let want =
        Want { entropy: true, ref_logp: true, divergence: Some(Divergence::ReverseKl), ..Want::default() };
    let exact = time(want, RowCotangent { logp: 1.0, entropy: 0.1, divergence: 0.1, listed: 0.0 })?;

    let mut bare: Vec<f64> = (0..runs)
        .map(|_| {
            let watch = Stopwatch::start();
            let policy = HeadSide { hidden: &hidden, weights: &weights };
            let head = Head {
                kernels: &Cpu,
                vocab: shape.vocab,
                want: Want::default(),
                policy,
                reference: None,
                listed: &[],
            };
            head.products(&mut dhidden, &mut dweights, &mut buffers);
            watch.seconds()
        })
        .collect();
    bare.sort_by(f64::total_cmp);
    let mut report = Report::new("head", plain, ROWS);
    report.gemm_fraction = Some(bare[runs / 2] / report.median_s);
    let base = Report::new("head", both, ROWS).median_s;
    report.exact_extra = Some(Report::new("head", exact, ROWS).median_s / base - 1.0);
    Ok(report)
}
