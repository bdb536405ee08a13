//! The one place that turns an outcome into words on standard error and an exit code.
//!
//! 0 done · 1 ran, but did not reach what was asked · 2 usage, configuration or data · 3 internal.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write as _};
use std::panic;
use std::process::ExitCode;

use anyhow::Error;

/// How a command that ran to its end came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything asked was reached.
    Done,
    /// The command ran, but a budget did not hold or a check found an error of degree.
    Missed,
}

/// A request that cannot be carried out as it was typed.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// A run whose numbers ceased to be finite: it ran, and did not reach what was asked.
#[derive(Debug)]
pub(crate) struct Diverged(pub(crate) String);

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Diverged {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs the program; a panic becomes a short message and code 3.
pub(crate) fn guard(program: impl FnOnce() -> ExitCode + panic::UnwindSafe) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        complain(&format!("internal error{place}: {message}"));
        complain("this is a bug in saddle; please report it with the command and the recipe");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            complain(&trace.to_string());
        }
    }));
    panic::catch_unwind(program).unwrap_or(ExitCode::from(3))
}

/// Exit code of a command; errors are printed here and nowhere else.
pub(crate) fn of(outcome: anyhow::Result<Verdict>) -> ExitCode {
    let code = match outcome {
        Ok(Verdict::Done) => 0,
        Ok(Verdict::Missed) => 1,
        // The reader of our output has seen enough (`saddle methods | head -1`): not an error.
        Err(error) if reader_left(&error) => 0,
        Err(error) => {
            complain(&sentence(&error));
            code(&error)
        }
    };
    ExitCode::from(code)
}

/// Prints help, version or a usage error as the parser words it.
pub(crate) fn of_parser(message: &clap::Error) -> ExitCode {
    let code = u8::try_from(message.exit_code()).unwrap_or(2);
    // Nothing is left to tell if the terminal is gone.
    let _ = message.print();
    ExitCode::from(code)
}

fn code(error: &Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Diverged>() {
            return 1;
        }
        if cause.is::<Usage>()
            || cause.is::<saddlepoint_lm::Error>()
            || cause.is::<saddlepoint_opt::Error>()
            || cause.is::<saddlepoint_opt::examples::ReadError>()
            || cause.is::<saddlepoint_apps::Error>()
            || cause.is::<saddlepoint_core::Error>()
            || cause.is::<io::Error>()
        {
            return 2;
        }
    }
    3
}

fn reader_left(error: &Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

/// The error and its causes, each said once: many messages already quote their cause.
fn sentence(error: &Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn complain(message: &str) {
    // Standard error may be closed; there is nobody left to tell.
    let _ = writeln!(anstream::stderr(), "saddle: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let io = || io::Error::new(io::ErrorKind::StorageFull, "disk full");
        let config =
            saddlepoint_lm::Error::Config { key: "method.beta".into(), problem: "must be > 0".into() };
        for (error, expected) in [
            (Error::new(Usage("no model".into())), 2),
            (Error::new(io()), 2),
            (Error::new(io()).context("while writing"), 2),
            (Error::new(config), 2),
            (Error::new(Diverged("the loss is not finite".into())), 1),
            (Error::msg("an invariant broke"), 3),
        ] {
            assert_eq!(code(&error), expected, "{error:#}");
        }
    }

    #[test]
    fn a_cause_that_the_message_quotes_is_not_said_twice() {
        let quoted = Error::new(io::Error::other("disk full")).context("run/config.toml: disk full");
        assert_eq!(sentence(&quoted), "run/config.toml: disk full");
        let plain = Error::new(io::Error::other("disk full")).context("run/config.toml");
        assert_eq!(sentence(&plain), "run/config.toml: disk full");
    }

    #[test]
    fn a_panic_is_code_3() {
        let standard = panic::take_hook();
        let code = guard(|| panic!("the arena is torn"));
        panic::set_hook(standard);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(3)));
    }

    #[test]
    fn a_closed_pipe_is_not_an_error() {
        let error = Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("standard output");
        assert!(reader_left(&error));
        assert!(!reader_left(&Error::new(io::Error::from(io::ErrorKind::StorageFull))));
    }
}
