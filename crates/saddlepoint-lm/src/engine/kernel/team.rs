//! Loops over threads that begin and end within a microsecond.
//!
//! Decoding a token runs some 150 loops of some 50 microseconds, one after the other. A thread pool lets its threads
//! sleep between two loops, and waking them takes as long as such a loop; the followers of a team wait awake. They are
//! borrowed from the pool while a team leads, and a loop does not need them: one that comes late, or never, leaves its
//! share to the others.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Looks before a waiting thread lets others run.
const PATIENCE: u32 = 1 << 14;
/// Set in a desk's state while its loop runs; followers in the loop are counted below, loops above.
const OPEN: u64 = 1 << 32;

type Body<'a> = dyn Fn(usize) + Sync + 'a;

/// Where the leader lays out a loop.
struct Desk {
    state: AtomicU64,
    next: AtomicUsize,
    dismissed: AtomicBool,
    body: UnsafeCell<Option<&'static Body<'static>>>,
    tasks: AtomicUsize,
}

#[allow(unsafe_code, reason = "the state says who may touch the body")]
// SAFETY: the leader writes `body` only while the state is closed and counts no follower; followers read it only
// while they are counted.
unsafe impl Sync for Desk {}

impl Desk {
    /// Takes tasks until none is left.
    fn work(&self, body: &Body<'_>, tasks: usize) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            body(task);
        }
    }

    /// Joins every loop until the team is dismissed.
    fn follow(&self) {
        let (mut joined, mut idle) = (0, 0);
        while !self.dismissed.load(Ordering::Acquire) {
            let state = self.state.load(Ordering::Acquire);
            let fresh = state & OPEN != 0 && state / (2 * OPEN) != joined;
            if fresh
                && self
                    .state
                    .compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                let _counted = Counted(self);
                #[allow(unsafe_code, reason = "the leader waits for all that are counted")]
                // SAFETY: this follower is counted, so the leader has laid out a body and keeps it until it leaves.
                let body = unsafe { *self.body.get() };
                if let Some(body) = body {
                    self.work(body, self.tasks.load(Ordering::Relaxed));
                }
                (joined, idle) = (state / (2 * OPEN), 0);
            } else {
                wait(&mut idle);
            }
        }
    }
}

/// Waits awake, and after a while lets other threads run: there may be more of them than cores.
fn wait(idle: &mut u32) {
    if *idle < PATIENCE {
        *idle += 1;
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// A follower in a loop.
struct Counted<'a>(&'a Desk);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

/// A loop that runs; ends when dropped, after the last follower has left it.
struct Running<'a>(&'a Desk);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut idle = 0;
        while self.0.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            wait(&mut idle);
        }
    }
}

/// Dismisses the followers when dropped.
struct Dismissal<'a>(&'a Desk);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.dismissed.store(true, Ordering::Release);
    }
}

/// The leader of a team. It stays on its thread, so that there is one loop at a time.
pub struct Team<'a> {
    desk: &'a Desk,
    threads: usize,
    here: PhantomData<*const ()>,
}

impl std::fmt::Debug for Team<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Team<'_> {
    /// Runs `work` with the threads of the current pool as a team. Loops of the pool itself that run meanwhile find
    /// its threads taken.
    pub fn lead<R: Send>(work: impl FnOnce(&Team<'_>) -> R + Send) -> R {
        let desk = Desk {
            state: AtomicU64::new(2 * OPEN),
            next: AtomicUsize::new(0),
            dismissed: AtomicBool::new(false),
            body: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
        };
        rayon::scope(|scope| {
            let threads = rayon::current_num_threads();
            for _ in 1..threads {
                scope.spawn(|_| desk.follow());
            }
            let _dismissal = Dismissal(&desk);
            work(&Team { desk: &desk, threads, here: PhantomData })
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `body(0)` to `body(tasks - 1)`, in any order and on any thread.
    fn each(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 || tasks < 2 {
            return (0..tasks).for_each(body);
        }
        let desk = self.desk;
        #[allow(unsafe_code, reason = "followers outlive the borrow of the body and do not use it longer")]
        // SAFETY: no loop runs (there is one leader, on one thread, and `Running` ended the last one), so nobody reads
        // `body`; and `Running` lets no follower keep it beyond this call.
        unsafe {
            *desk.body.get() = Some(std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body));
        }
        desk.tasks.store(tasks, Ordering::Relaxed);
        desk.next.store(0, Ordering::Relaxed);
        let loops = desk.state.load(Ordering::Relaxed) / (2 * OPEN) + 1;
        let _running = Running(desk);
        desk.state.store(loops * 2 * OPEN + OPEN, Ordering::Release);
        desk.work(body, tasks);
    }

    /// Hands each part to one call of `body`, with its index.
    pub fn share<T: Send>(&self, parts: impl IntoIterator<Item = T>, body: impl Fn(usize, T) + Sync) {
        if self.threads == 1 {
            return parts.into_iter().enumerate().for_each(|(i, part)| body(i, part));
        }
        let parts: Vec<Mutex<Option<T>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
        self.each(parts.len(), &|i| {
            let part = parts[i].lock().expect("no task locks twice").take();
            body(i, part.expect("a task runs once"));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool")
    }

    #[test]
    fn every_task_runs_once_in_every_loop() {
        for threads in [1, 2, 3, 7] {
            let mut counts = vec![0u32; 37];
            let sum = pool(threads).install(|| {
                Team::lead(|team| {
                    for _ in 0..3000 {
                        team.share(counts.iter_mut(), |_, count| *count += 1);
                    }
                    let sum = AtomicUsize::new(0);
                    for tasks in 0..50 {
                        team.each(tasks, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
                    }
                    sum.into_inner()
                })
            });
            assert!(counts.iter().all(|&count| count == 3000), "{threads} threads: {counts:?}");
            assert_eq!(sum, (0..50).map(|n: usize| n * n.saturating_sub(1) / 2).sum::<usize>());
        }
    }

    #[test]
    fn a_loop_needs_no_follower() {
        // All other threads of the pool wait for the team to end.
        let pool = pool(3);
        let done = AtomicBool::new(false);
        let sum = AtomicUsize::new(0);
        pool.in_place_scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|_| {
                    while !done.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                });
            }
            pool.install(|| {
                Team::lead(|team| {
                    team.each(100, &|i| _ = sum.fetch_add(i, Ordering::Relaxed));
                    done.store(true, Ordering::Release);
                });
            });
        });
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        for which in 0..8 {
            let result = std::panic::catch_unwind(|| {
                pool(2).install(|| {
                    Team::lead(|team| team.each(8, &|i| assert_ne!(i, which, "task {which}")));
                });
            });
            assert!(result.is_err(), "task {which}");
        }
    }
}
