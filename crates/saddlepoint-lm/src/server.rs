//! A server that speaks the protocol of OpenAI's completions: where it is, and how it is asked many things at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::Client;
use crate::{Error, Result};

/// A server that does a part of a run in the place of this process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where it is, such as `http://localhost:8000`; `/v1/completions` is added.
    pub url: String,
    /// Seconds for a request and its reply.
    #[serde(default = "seconds")]
    pub timeout: f64,
    /// How often a request is sent again, after 0.1, 0.2, 0.4, ... seconds.
    #[serde(default = "eight")]
    pub retries: u32,
    /// Requests that wait for a reply at the same time, each about a prompt or a completion.
    #[serde(default = "sixteen")]
    pub concurrency: usize,
    /// Headers of the requests. They are written into the run's `config.toml`, so no place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

fn seconds() -> f64 {
    300.0
}

fn eight() -> u32 {
    8
}

fn sixteen() -> usize {
    16
}

/// Most requests at a time.
const MOST: usize = 1024;
/// How far a server's log-probabilities may exceed 0, by rounding.
pub(crate) const ROUNDING: f64 = 1e-3;

impl ServerConfig {
    /// What sends requests to it; `key` is that of these settings in the recipe. Nothing is sent yet.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub(crate) fn client(&self, key: &str) -> Result<Client> {
        let within = |error| match error {
            Error::Config { key: inner, problem } => Error::Config { key: format!("{key}.{inner}"), problem },
            error => error,
        };
        if !(1..=MOST).contains(&self.concurrency) {
            let problem = format!("must be from 1 to {MOST}, got {} (default 16)", self.concurrency);
            return Err(Error::Config { key: format!("{key}.concurrency"), problem });
        }
        if self.url.contains(['?', '#']) {
            let problem = format!(
                "must end with a host or a path, to which /v1/completions is added, got {:?}",
                self.url
            );
            return Err(Error::Config { key: format!("{key}.url"), problem });
        }
        let defaults = (seconds(), eight());
        Client::new(&self.url, self.timeout, self.retries, self.headers.clone(), defaults).map_err(within)
    }

    /// The address of `what`, such as `completions`.
    pub(crate) fn endpoint(&self, what: &str) -> String {
        format!("{}/v1/{what}", self.url.trim_end_matches('/'))
    }
}

/// What `ask` gives for 0, 1, ... below `count`, in this order, of which `concurrency` wait at a time. Once one has failed no
/// further one is begun.
///
/// # Errors
/// The first of those that failed, with its number.
pub(crate) fn together<T: Send>(
    count: usize,
    concurrency: usize,
    ask: impl Fn(usize) -> Result<T, String> + Sync,
) -> Result<Vec<T>, (usize, String)> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<(usize, Result<T, String>)>> = Mutex::new(Vec::with_capacity(count));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let answer = ask(number);
            if answer.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((number, answer));
        }
    };
    thread::scope(|scope| {
        for _ in 0..concurrency.min(count) {
            scope.spawn(work);
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(number, answer)| answer.map_err(|problem| (number, problem))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_the_first_failure_is_told() {
        for concurrency in [1, 3, 16] {
            assert_eq!(together(7, concurrency, |i| Ok(i * i)), Ok(vec![0, 1, 4, 9, 16, 25, 36]));
            let odd = |i: usize| if i.is_multiple_of(2) { Ok(i) } else { Err(format!("{i} is odd")) };
            let (number, problem) = together(9, concurrency, odd).expect_err("fails");
            assert_eq!((number % 2, problem), (1, format!("{number} is odd")));
        }
        assert_eq!(
            together(3, 1, |i| if i == 1 { Err("one".to_owned()) } else { Ok(i) }),
            Err((1, "one".to_owned()))
        );
        assert_eq!(together(0, 4, |_| Err::<(), _>(String::new())), Ok(Vec::new()));
    }

    #[test]
    fn settings_outside_their_range_are_refused_by_their_key() {
        let of = |text: &str| toml::from_str::<ServerConfig>(text).expect("settings");
        let told = |text: &str| of(text).client("teacher.server").expect_err("refused").to_string();
        assert_eq!(
            told("url = \"http://a\"\nconcurrency = 0"),
            "teacher.server.concurrency: must be from 1 to 1024, got 0 (default 16)"
        );
        assert_eq!(
            told("url = \"http://a\"\nretries = 11"),
            "teacher.server.retries: must be at most 10, got 11 (default 8)"
        );
        assert_eq!(
            told("url = \"http://a/?key=1\""),
            "teacher.server.url: must end with a host or a path, to which /v1/completions is added, got \"http://a/?key=1\""
        );
        assert!(told("url = \"https://a\"").starts_with("teacher.server.url: must start with http://"));
        assert_eq!(of("url = \"http://a:8000/\"").endpoint("completions"), "http://a:8000/v1/completions");
    }
}
