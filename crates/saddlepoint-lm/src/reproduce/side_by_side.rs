//! Runs of an experiment side by side: with models this small a second thread has little to do in one of them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;

use rayon::ThreadPoolBuilder;
use saddlepoint_core::reproduce::{Observer, Setting};

use crate::Result;

/// What `draw` gives for each seed of the setting: what its runs have in common.
///
/// # Errors
/// As `draw`.
pub(super) fn each_seed<D>(setting: &Setting, draw: impl Fn(u64) -> Result<D>) -> Result<Vec<D>> {
    (0..setting.seeds as u64).map(draw).collect()
}

/// `run(seed, drawn, kind)` of every kind with what is drawn for each seed, as `[seed][kind]`: each on one thread, as many at a time as
/// there are threads. What they give does not depend on how many. The observer is told that `what` is being done.
///
/// # Errors
/// That of the first run, in the order of the seeds, that has one.
pub(super) fn side_by_side<D: Sync, K: Copy + Sync, T: Send>(
    drawn: &[D],
    kinds: &[K],
    what: &str,
    observer: Observer,
    run: impl Fn(u64, &D, K) -> Result<T> + Sync,
) -> Result<Vec<Vec<T>>> {
    let all = drawn.len() * kinds.len();
    let at = |i: usize| {
        let (seed, kind) = (i / kinds.len(), i % kinds.len());
        run(seed as u64, &drawn[seed], kinds[kind])
    };
    observer(0, all as u64, what);
    let next = AtomicUsize::new(0);
    let (ended, ends) = mpsc::channel();
    let mut found: Vec<Option<Result<T>>> = (0..all).map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(all) {
            let (ended, next, at) = (ended.clone(), &next, &at);
            scope.spawn(move || {
                // In a pool of its own a run has one thread, and never waits for the work of another one.
                let pool = ThreadPoolBuilder::new().num_threads(1).build().expect("the system has threads");
                loop {
                    let i = next.fetch_add(1, Relaxed);
                    if i >= all || ended.send((i, pool.install(|| at(i)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(ended);
        for (done, (i, result)) in (1..).zip(ends) {
            found[i] = Some(result);
            observer(done, all as u64, what);
        }
    });
    let mut found = found.into_iter().map(|result| result.expect("every run has ended"));
    drawn.iter().map(|_| found.by_ref().take(kinds.len()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn every_run_has_its_place_and_the_first_error_is_told() {
        let mut told = Vec::new();
        let mut observer = |done, all, _: &str| told.push((done, all));
        let found = side_by_side(&[0, 10, 20], &[0, 1], "runs", &mut observer, |seed, drawn, kind| {
            Ok((seed, drawn + kind))
        });
        let rows = found.expect("no errors");
        assert_eq!(rows, [[(0, 0), (0, 1)], [(1, 10), (1, 11)], [(2, 20), (2, 21)]]);
        assert_eq!(told, (0..=6).map(|done| (done, 6)).collect::<Vec<_>>());

        let fails = |seed, (): &(), kind| match (seed, kind) {
            (0, 0) => Ok(()),
            _ => Err(Error::NotFinite {
                what: format!("{seed}{kind}"),
                value: f64::NAN,
                remedy: String::new(),
            }),
        };
        let error = side_by_side(&[(); 2], &[0, 1], "runs", &mut |_, _, _| (), fails).expect_err("an error");
        assert!(error.to_string().contains("01"), "{error}");
    }

    #[test]
    fn a_run_has_one_thread() {
        let threads = |_, (): &(), ()| Ok(rayon::current_num_threads());
        let threads = side_by_side(&[(); 2], &[(); 2], "runs", &mut |_, _, _| (), threads);
        assert_eq!(threads.expect("no errors"), [[1, 1], [1, 1]]);
    }
}
