//! `code`: unit tests of generated Python code, in processes with limits.
//!
//! Range [0, 1]. The code is the last fenced block of the completion (```` ```python ````), or all of it. The tests are in the
//! column `column` (`tests`): one text of Python, or a list whose elements are
//! - a text of Python, run after the code in its name space; it passes unless it raises (`assert f(2) == 4`), or
//! - `{ "input": "...", "output": "..." }`: the code is run with this standard input; it passes if it prints the output,
//!   up to white space at the ends of lines and of the whole.
//!
//! The value is 1 if every test passes, else 0; with `partial` the share that does. A case without tests gets `None`. Code
//! that does not compile, raises, exits early, prints too much or is still running after `timeout` fails the tests that
//! had not passed by then. That says something about the code, so it is a value. An interpreter that cannot be started
//! says nothing about it, so that is a failure of the reward.
//!
//! # What is isolated
//! Each completion has a process of its own (Python in isolated mode, no environment, an empty temporary folder), with limits
//! on processor time, memory (address space), size of files, open files, core dumps, and no new processes or threads. With
//! `network = false` (Linux) it also has its own user, network, IPC and process name spaces, made by the program
//! `unshare`: there is no network, and killing it kills everything that it started.
//!
//! # What is not
//! - **Files.** What the user may read, the code may read, and it may write where the user may, up to the size limit.
//!   Run as a user that owns nothing of value, or in a container.
//! - **The kernel.** There is no filter of system calls.
//! - **Root.** The limit on processes does not bind root; the deadline and the process name space still do.
//! - **The tests.** They run in the process of the code. A result is only believed with a word that the code is not
//!   told, so exiting early, printing or overriding `print` passes nothing; but code that searches the interpreter's
//!   frames can find it.
//!
//! Which limits hold is tested by code that breaks each.

mod sandbox;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use rayon::prelude::*;

use self::sandbox::{Limits, Sandbox};
use super::{Case, Judged, Reward, fence};
use crate::{Error, Result};

/// Settings of `code`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CodeConfig {
    /// The column with the tests.
    pub column: String,
    /// Whether the share of tests that pass counts, instead of all or nothing.
    pub partial: bool,
    /// Seconds for all tests of a completion, by the clock and by the processor.
    pub timeout: f64,
    /// Most address space of a process, MiB.
    pub memory: u64,
    /// Processes at the same time.
    pub workers: usize,
    /// Whether the code may use the network. `false` needs Linux and the program `unshare`.
    pub network: bool,
    /// The interpreter.
    pub python: String,
}

impl Default for CodeConfig {
    fn default() -> Self {
        Self {
            column: "tests".to_owned(),
            partial: false,
            timeout: 5.0,
            memory: 512,
            workers: 2,
            network: false,
            python: "python3".to_owned(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Code {
    config: CodeConfig,
    sandbox: Sandbox,
    workers: rayon::ThreadPool,
}

/// A test of some code.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Test {
    Python(String),
    Program { input: String, output: String },
}

impl Code {
    /// With these settings; runs an empty program to see that it can.
    ///
    /// # Errors
    /// A setting is outside its range, or no process with these limits can be started.
    pub fn new(config: CodeConfig) -> Result<Self> {
        let refused = |key: &str, problem: String| Error::Config { key: key.to_owned(), problem };
        if !(config.timeout > 0.0 && config.timeout <= 3600.0) {
            let problem = format!("must be in (0, 3600] seconds, got {} (default 5)", config.timeout);
            return Err(refused("timeout", problem));
        }
        if !(32..=1 << 20).contains(&config.memory) {
            let problem = format!("must be 32 to {} MiB, got {} (default 512)", 1 << 20, config.memory);
            return Err(refused("memory", problem));
        }
        if !(1..=256).contains(&config.workers) {
            return Err(refused("workers", format!("must be 1 to 256, got {} (default 2)", config.workers)));
        }
        let limits = Limits { seconds: config.timeout, memory: config.memory << 20 };
        let sandbox = Sandbox::new(&config.python, config.network, limits);
        sandbox.probe().map_err(|problem| {
            if config.network {
                return refused("python", problem);
            }
            let remedy = "`unshare` takes the network away: allow it, or set network = true to go without";
            refused("network", format!("{problem}; {remedy}"))
        })?;
        let workers = rayon::ThreadPoolBuilder::new().num_threads(config.workers).build();
        let workers = workers.map_err(|error| refused("workers", format!("cannot be started: {error}")))?;
        Ok(Self { config, sandbox, workers })
    }

    fn judge(&self, case: &Case) -> Result<Option<f64>, String> {
        let Some(column) = case.columns.get(&self.config.column).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let Some(tests) = tests(column) else {
            let (name, place) = (&self.config.column, case.excerpt());
            return Err(format!(
                "column `{name}` must be Python code or a list of tests (code, or a table of `input` and `output`), got \
                 {column} ({place})"
            ));
        };
        if tests.is_empty() {
            return Ok(None);
        }
        let code = fence::last(&case.completion, &["python", "py", "python3"]).unwrap_or(&case.completion);
        let passed = self.sandbox.run(code, &tests)?;
        let share = passed as f64 / tests.len() as f64;
        Ok(Some(if self.config.partial { share } else { f64::from(passed == tests.len()) }))
    }
}

impl Reward for Code {
    fn columns(&self) -> Vec<&str> {
        vec![&self.config.column]
    }

    /// As if every completion used up its time, with a second for starting it.
    fn allowance(&self, cases: usize) -> f64 {
        cases.div_ceil(self.config.workers) as f64 * (self.config.timeout + 1.0)
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let judged: Result<Vec<_>, String> =
            self.workers.install(|| cases.par_iter().map(|case| self.judge(case)).collect());
        Ok(judged?)
    }
}

fn tests(column: &Value) -> Option<Vec<Test>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let test = |value: &Value| match value {
        Value::String(code) => Some(Test::Python(code.clone())),
        Value::Object(fields) if fields.len() == 2 => {
            Some(Test::Program { input: text(fields.get("input")?)?, output: text(fields.get("output")?)? })
        }
        _ => None,
    };
    match column {
        Value::Array(list) => list.iter().map(test).collect(),
        Value::String(code) => Some(vec![Test::Python(code.clone())]),
        _ => None,
    }
}

#[cfg(test)]
mod tests_of_limits;
