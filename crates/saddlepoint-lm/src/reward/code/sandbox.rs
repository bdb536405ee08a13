//! A Python process with limits, and what it reports.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use saddlepoint_core::clock::Stopwatch;
use serde_json::json;

use super::Test;

/// The program that runs code and tests.
const PROGRAM: &str = include_str!("sandbox.py");

/// Own user, network, IPC and process name spaces; whoever kills `unshare` kills all that is in them.
const UNSHARE: [&str; 8] =
    ["unshare", "--user", "--map-current-user", "--net", "--ipc", "--pid", "--fork", "--kill-child"];

/// Largest file that code may write, in bytes.
const FILE_BYTES: u64 = 16 << 20;
/// Most that is read of what it reports.
const REPORT_BYTES: u64 = 1 << 20;
/// Seconds for starting an interpreter, beside the time of the code.
const START: f64 = 30.0;

/// Of one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// By the clock and by the processor.
    pub(super) seconds: f64,
    /// Bytes of address space.
    pub(super) memory: u64,
}

/// How processes are started.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    command: Vec<String>,
    limits: Limits,
}

impl Sandbox {
    pub(super) fn new(python: &str, network: bool, limits: Limits) -> Self {
        let prefix: &[&str] = if network { &[] } else { &UNSHARE };
        let python = [python, "-I", "-B", "-c", PROGRAM];
        Self { command: prefix.iter().chain(&python).map(|&word| word.to_owned()).collect(), limits }
    }

    /// Whether a program runs at all.
    pub(super) fn probe(&self) -> Result<(), String> {
        match self.run("", &[Test::Python("1".to_owned())])? {
            1 => Ok(()),
            _ => Err("an empty program does not pass; is `memory` too small for the interpreter?".to_owned()),
        }
    }

    /// How many of the tests the code passes.
    ///
    /// # Errors
    /// The interpreter did not get as far as the code.
    pub(super) fn run(&self, code: &str, tests: &[Test]) -> Result<usize, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("has no temporary folder: {error}"))?;
        let word = format!("{:016x}", RandomState::new().build_hasher().finish());
        let job = json!({ "code": code, "tests": tests, "word": word, "limits": self.rlimits() }).to_string();
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start `{}`: {error}", self.command[0]))?;
        let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let writer = thread::spawn(move || input.take().map(|mut input| input.write_all(job.as_bytes())));
        let (ready, started) = mpsc::channel();
        let (send, ended) = mpsc::channel();
        let first = format!("{word} ready");
        let reader = thread::spawn(move || {
            let text = output.map(|output| read(output, &first, &ready)).unwrap_or_default();
            let _ = send.send(());
            text
        });
        let told = thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.map(|errors| errors.take(4096).read_to_string(&mut text));
            text
        });
        // The clock of the code starts where the interpreter hands over to it.
        let started = started.recv_timeout(Duration::from_secs_f64(START)).is_ok();
        if started {
            let watch = Stopwatch::start();
            let _ = ended.recv_timeout(Duration::from_secs_f64(self.limits.seconds));
            let left = self.limits.seconds - watch.seconds();
            await_end(&mut child, left);
        }
        let _ = child.kill();
        let _ = child.wait();
        let _ = writer.join();
        let report = reader.join().unwrap_or_default();
        let told = told.join().unwrap_or_default();
        if !started {
            let reason = told.trim().lines().last().unwrap_or("no word from it");
            let python = &self.command[self.command.len() - 5];
            return Err(format!("the interpreter `{python}` does not start: {reason}"));
        }
        Ok(report.lines().filter(|line| *line == format!("{word} passed")).count().min(tests.len()))
    }

    fn rlimits(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("RLIMIT_CPU", self.limits.seconds.ceil() as u64 + 1),
            ("RLIMIT_AS", self.limits.memory),
            ("RLIMIT_FSIZE", FILE_BYTES),
            ("RLIMIT_NOFILE", 64),
            ("RLIMIT_CORE", 0),
            ("RLIMIT_NPROC", 0),
        ]
    }
}

/// What the interpreter reports, up to a bound; tells `ready` when the first line is there.
fn read(output: impl Read, first: &str, ready: &Sender<()>) -> String {
    let mut text = String::new();
    for line in BufReader::new(output.take(REPORT_BYTES)).lines() {
        let Ok(line) = line else { break };
        if line == first {
            let _ = ready.send(());
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Waits for a process that has closed its output, `left` seconds at most.
fn await_end(child: &mut Child, left: f64) {
    let watch = Stopwatch::start();
    while watch.seconds() < left && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(1));
    }
}
