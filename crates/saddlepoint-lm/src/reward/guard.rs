//! One reward behind a thread, so that neither a panic nor a hang of it reaches the run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use saddlepoint_core::clock::Stopwatch;

use super::{Case, Judged, Reward};

/// What a thread sends back.
type Answer = thread::Result<Judged>;

/// A reward and what became of its last call.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) reward: Arc<dyn Reward>,
    /// The answer that is still to come from a call which was given up.
    late: Mutex<Option<Receiver<Answer>>>,
}

/// A call that runs.
#[derive(Debug)]
pub(super) struct Call<'a> {
    of: &'a Guarded,
    answer: Result<Receiver<Answer>, String>,
    cases: usize,
    seconds: f64,
    watch: Stopwatch,
}

impl Guarded {
    pub(super) fn new(reward: Arc<dyn Reward>) -> Self {
        Self { reward, late: Mutex::new(None) }
    }

    /// Starts a call, which has `deadline` seconds beside the reward's own allowance.
    pub(super) fn start(&self, cases: &Arc<[Case]>, deadline: f64) -> Call<'_> {
        let seconds = deadline + self.reward.allowance(cases.len());
        let answer = if self.busy() {
            Err("has not come back from an earlier batch".to_owned())
        } else {
            self.spawn(Arc::clone(cases))
        };
        Call { of: self, answer, cases: cases.len(), seconds, watch: Stopwatch::start() }
    }

    fn busy(&self) -> bool {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = late.as_ref().is_some_and(|late| matches!(late.try_recv(), Err(TryRecvError::Empty)));
        if !busy {
            *late = None;
        }
        busy
    }

    fn spawn(&self, cases: Arc<[Case]>) -> Result<Receiver<Answer>, String> {
        let (send, receive) = mpsc::channel();
        let reward = Arc::clone(&self.reward);
        let judge = move || {
            // Whoever gave up does not receive, which is no error here.
            let _ = send.send(catch_unwind(AssertUnwindSafe(|| reward.score(&cases))));
        };
        let spawned = thread::Builder::new().name("reward".to_owned()).spawn(judge);
        spawned.map(|_| receive).map_err(|error| format!("no thread could be started: {error}"))
    }
}

impl Call<'_> {
    /// The values, each finite or why it is not; or why there are none.
    pub(super) fn wait(self) -> Result<Vec<Result<Option<f64>, String>>, String> {
        let receive = self.answer?;
        let left = (self.seconds - self.watch.seconds()).max(0.0);
        match receive.recv_timeout(Duration::from_secs_f64(left)) {
            Ok(Ok(Ok(values))) => checked(values, self.cases),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(panic)) => Err(format!("panicked: {}", said(&*panic))),
            Err(RecvTimeoutError::Timeout) => {
                *self.of.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(receive);
                let (seconds, cases) = (self.seconds, self.cases);
                Err(format!("did not judge {cases} completions within {seconds} s (reward.deadline)"))
            }
            Err(RecvTimeoutError::Disconnected) => Err("ended without an answer".to_owned()),
        }
    }
}

fn checked(values: Vec<Option<f64>>, cases: usize) -> Result<Vec<Result<Option<f64>, String>>, String> {
    if values.len() != cases {
        return Err(format!("returned {} values for {cases} completions", values.len()));
    }
    let finite = |value: Option<f64>| match value {
        Some(value) if !value.is_finite() => Err(format!("gave {value}, which is not finite")),
        value => Ok(value),
    };
    Ok(values.into_iter().map(finite).collect())
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
