//! Completions that are asked for while something else is done.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use super::Completion;
use crate::Result;
use crate::http::Wanted;

/// Completions that a thread asks a server for. Dropped, it sends no further request; one that is under way is not waited for, so
/// that an error elsewhere is told at once.
#[derive(Debug)]
pub struct Ahead {
    thread: JoinHandle<Result<Vec<Completion>>>,
    _wanted: Wanted,
}

impl Ahead {
    pub(super) fn new(
        wanted: Wanted,
        ask: impl FnOnce() -> Result<Vec<Completion>> + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Self { thread: thread::Builder::new().name("rollouts".to_owned()).spawn(ask)?, _wanted: wanted })
    }

    /// Waits for them.
    ///
    /// # Errors
    /// Those of whoever asked.
    pub fn wait(self) -> Result<Vec<Completion>> {
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}
