//! `program`: any program that reads requests from standard input and writes replies to standard output, one JSON object
//! a line.
//!
//! Range: what the program says. It gets every column. The messages are those of version 1 of the protocol, described in
//! `docs/rewards.md`:
//! ```text
//! -> {"protocol": 1, "batch": 7, "cases": [{"prompt", "completion", "completion_ids", "finished", "columns"}]}
//! <- {"batch": 7, "rewards": [1.0, null]}
//! ```
//! The program is started once, at the first batch, in the recipe's folder, and told to end by the end of its input. It has
//! `timeout` seconds a batch; then it is killed, and the batch has failed. A program that ended without a reply is
//! started again and asked again, `restarts` times a batch. What it writes to standard error is kept for the message about its
//! end. It is trusted: it runs as the user, without limits, and what it has started itself may outlive it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward, wire};
use crate::{Error, Result};

/// Settings of `program`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProgramConfig {
    /// The program and its arguments. Without a slash, the program is looked for on the search path.
    pub command: Vec<String>,
    /// The folder in which it runs.
    #[serde(default)]
    pub folder: PathBuf,
    /// Seconds for a batch, starting the program included.
    #[serde(default = "thirty")]
    pub timeout: f64,
    /// How often a batch is tried again after the program has ended without a reply.
    #[serde(default = "one")]
    pub restarts: u32,
}

fn thirty() -> f64 {
    30.0
}

fn one() -> u32 {
    1
}

/// See the module.
#[derive(Debug)]
pub struct Program {
    config: ProgramConfig,
    state: Mutex<State>,
}

/// How long what a program that has ended wrote to standard error is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    batch: u64,
}

/// A program, with threads between it and us so that neither side can block the other.
#[derive(Debug)]
struct Running {
    child: Child,
    requests: Sender<String>,
    replies: Receiver<String>,
    complaints: Arc<Mutex<String>>,
    /// Closed once the last complaint has been read.
    complained: Receiver<()>,
}

/// Why there is no reply.
enum Silence {
    Ended(String),
    Late,
}

impl Program {
    /// With these settings; the program is not started yet.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: ProgramConfig) -> Result<Self> {
        let refused = |key: &str, problem: String| Err(Error::Config { key: key.to_owned(), problem });
        if config.command.first().is_none_or(String::is_empty) {
            return refused("command", "needs a program, such as [\"python3\", \"judge.py\"]".to_owned());
        }
        if !(config.timeout > 0.0 && config.timeout <= 1e5) {
            return refused(
                "timeout",
                format!("must be in (0, 1e5] seconds, got {} (default 30)", config.timeout),
            );
        }
        Ok(Self { config, state: Mutex::default() })
    }

    fn start(&self) -> Result<Running, String> {
        let [program, arguments @ ..] = &self.config.command[..] else { unreachable!("checked: a program") };
        let mut command = Command::new(program);
        if !self.config.folder.as_os_str().is_empty() {
            command.current_dir(&self.config.folder);
        }
        let spawned = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| format!("cannot start `{program}`: {error}"))?;
        let (requests, asked) = mpsc::channel::<String>();
        let (answer, replies) = mpsc::channel();
        let complaints = Arc::new(Mutex::new(String::new()));
        let (open, complained) = mpsc::channel::<()>();
        if let Some(mut input) = child.stdin.take() {
            thread::spawn(move || {
                for request in asked {
                    if input.write_all(request.as_bytes()).and_then(|()| input.flush()).is_err() {
                        break;
                    }
                }
            });
        }
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).all(|line| answer.send(line).is_ok())
            });
        }
        if let Some(errors) = child.stderr.take() {
            let last = Arc::clone(&complaints);
            thread::spawn(move || {
                let _open = open;
                for line in BufReader::new(errors).lines().map_while(Result::ok) {
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
                }
            });
        }
        Ok(Running { child, requests, replies, complaints, complained })
    }

    fn ask(&self, state: &mut State, cases: &[Case]) -> Result<Vec<Option<f64>>, String> {
        state.batch += 1;
        let request = wire::request(state.batch, cases) + "\n";
        let mut attempts = 0;
        loop {
            let running = match &mut state.running {
                Some(running) => running,
                none => none.insert(self.start()?),
            };
            match running.exchange(request.clone(), self.config.timeout) {
                Ok(reply) => {
                    let values = wire::values(state.batch, &reply);
                    if values.is_err() {
                        // What it says next may answer anything.
                        state.running = None;
                    }
                    return values;
                }
                Err(Silence::Late) => {
                    state.running = None;
                    let (seconds, cases) = (self.config.timeout, cases.len());
                    return Err(format!("did not judge {cases} completions within {seconds} s (timeout)"));
                }
                Err(Silence::Ended(how)) => {
                    state.running = None;
                    attempts += 1;
                    if attempts > self.config.restarts {
                        return Err(format!("ended {attempts} times without a reply, last with {how}"));
                    }
                }
            }
        }
    }
}

impl Running {
    fn exchange(&mut self, request: String, timeout: f64) -> Result<String, Silence> {
        // A writer that is gone is a program that is gone, which the reader tells.
        let _ = self.requests.send(request);
        match self.replies.recv_timeout(Duration::from_secs_f64(timeout)) {
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => Err(Silence::Late),
            Err(RecvTimeoutError::Disconnected) => {
                // It has closed its output; if it has not ended, it is of no use any more.
                let _ = self.child.kill();
                let how =
                    self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                // Its last words may still be on their way; a process of its own may keep the pipe open for longer.
                let _ = self.complained.recv_timeout(LAST_WORDS);
                let said = self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Err(Silence::Ended(if said.is_empty() { how } else { format!("{how}: {said}") }))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reward for Program {
    fn allowance(&self, _cases: usize) -> f64 {
        self.config.timeout * f64::from(self.config.restarts + 1)
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.ask(&mut state, cases)?)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::tests::case;
    use super::*;

    /// A reward by a shell script.
    fn script(text: &str, change: impl Fn(&mut ProgramConfig)) -> Program {
        let command = ["sh", "-c", text].map(str::to_owned).to_vec();
        let mut config = ProgramConfig { command, folder: PathBuf::new(), timeout: 60.0, restarts: 1 };
        change(&mut config);
        Program::new(config).expect("valid")
    }

    fn told(program: &Program) -> String {
        program.score(&[case("a", &[])]).expect_err("failed").to_string()
    }

    #[test]
    fn a_program_judges_batch_after_batch() {
        let text = "n=0; while read -r line; do n=$((n+1)); \
                    case $line in *'\"batch\":'$n,*) echo \"{\\\"batch\\\": $n, \\\"rewards\\\": [$n, null]}\";; esac; done";
        let program = script(text, |_| {});
        for n in 1..=3 {
            let judged = program.score(&[case("a", &[]), case("b", &[])]).expect("judged");
            assert_eq!(judged, [Some(f64::from(n)), None]);
        }
    }

    #[test]
    fn one_that_dies_is_started_again_and_then_given_up() {
        let place = tempfile::tempdir().expect("a temporary folder");
        // The first process leaves a file and dies; the second answers.
        let once =
            "if [ -e died ]; then read -r line; echo '{\"rewards\": [2]}'; else touch died; exit 3; fi";
        let program = script(once, |config| config.folder = place.path().to_owned());
        assert_eq!(program.score(&[case("a", &[])]).expect("judged"), [Some(2.0)]);
        let dies = script("echo no memory >&2; exit 3", |_| {});
        assert_eq!(told(&dies), "ended 2 times without a reply, last with exit status: 3: no memory");
        let missing = script("", |config| config.command = vec!["no-such-program".to_owned()]);
        assert!(told(&missing).starts_with("cannot start `no-such-program`: "), "{}", told(&missing));
    }

    #[test]
    fn one_that_hangs_is_killed_and_the_next_batch_has_a_new_one() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let once = "if [ -e hung ]; then read -r line; echo '{\"rewards\": [2]}'; else touch hung; exec sleep 1000; fi";
        let program = script(once, |config| {
            config.folder = place.path().to_owned();
            config.timeout = 0.3;
        });
        while !place.path().join("hung").exists() {
            assert_eq!(told(&program), "did not judge 1 completions within 0.3 s (timeout)");
        }
        let patient =
            Program { config: ProgramConfig { timeout: 60.0, ..program.config.clone() }, ..program };
        assert_eq!(patient.score(&[case("a", &[])]).expect("judged"), [Some(2.0)]);
    }

    #[test]
    fn one_that_lies_has_failed() {
        let reply = |reply: &str| script(&format!("read -r line; echo '{reply}'; sleep 1000"), |_| {});
        assert_eq!(
            told(&reply("{\"batch\": 9, \"rewards\": [1]}")),
            "replied to batch 9 when asked for batch 1"
        );
        assert_eq!(told(&reply("{\"error\": \"no judge today\"}")), "says: no judge today");
        assert!(told(&reply("Loading ...")).starts_with("replied with something else than the protocol"));
        // A wrong number of values is found by whoever asks, as for every reward.
        assert_eq!(reply("{\"rewards\": [1, 2]}").score(&[case("a", &[])]).expect("judged").len(), 2);
    }
}
