//! What this machine can do: rate of wide matrix products and of reading memory.

use rayon::prelude::*;
use saddlepoint_core::clock::Stopwatch;

use crate::engine::kernel::{Cpu, Kernels, Mat, MatMut};

/// Seconds of each of `runs` products `[m, k] [n, k]^T`.
pub(super) fn gemm_seconds(m: usize, n: usize, k: usize, runs: usize) -> Vec<f64> {
    let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; n * k]);
    let mut c = vec![0.0f32; m * n];
    let mut once = || {
        let watch = Stopwatch::start();
        Cpu.matmul(MatMut::new(&mut c, m, n), Mat::new(&a, m, k), Mat::new(&b, n, k).t(), 1.0, false);
        watch.seconds()
    };
    once();
    (0..runs).map(|_| once()).collect()
}

/// Best rate of a product of two 2048 x 2048 matrices, operations a second.
pub(super) fn gemm_peak(runs: usize) -> f64 {
    let best = gemm_seconds(2048, 2048, 2048, runs.max(3)).into_iter().fold(f64::INFINITY, f64::min);
    2.0 * 2048f64.powi(3) / best
}

/// Best rate of reading 1 GiB with all threads, bytes a second.
pub(super) fn bandwidth(runs: usize) -> f64 {
    let data = vec![1u64; 1 << 27];
    let part = data.len() / rayon::current_num_threads();
    let best = (0..runs.max(3))
        .map(|_| {
            let watch = Stopwatch::start();
            let sum: u64 =
                data.par_chunks(part).map(|chunk| chunk.iter().fold(0u64, |a, v| a.wrapping_add(*v))).sum();
            assert_eq!(sum, data.len() as u64, "every word was read");
            watch.seconds()
        })
        .fold(f64::INFINITY, f64::min);
    (data.len() * 8) as f64 / best
}
