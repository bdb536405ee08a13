//! The errors of this crate.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, with the place and the remedy in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused to read or write.
    #[error("cannot {action} {}: {source}; {}", path.display(), remedy(source))]
    Io {
        /// What was tried, for example `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A configuration file is not TOML.
    #[error("{}:{line}:{column}: not valid TOML: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What the parser met.
        problem: String,
    },
    /// A `--set` option is not `KEY=VALUE`.
    #[error("--set {text}: expected KEY=VALUE, for example --set method.beta=0.2")]
    Set {
        /// The option as typed.
        text: String,
    },
    /// A key that the configuration does not have.
    #[error("{origin}: unknown key {key}; {}", suggestion(nearest.as_deref(), known))]
    UnknownKey {
        /// Where it was given.
        origin: Origin,
        /// Dotted path.
        key: String,
        /// The key that was probably meant, as a dotted path.
        nearest: Option<String>,
        /// The keys that exist at that place.
        known: Vec<String>,
    },
    /// A value of the wrong type or outside its choices.
    #[error("{origin}: {key}: {problem}")]
    Value {
        /// Where it was given.
        origin: Origin,
        /// Dotted path.
        key: String,
        /// What is wrong and what is accepted.
        problem: String,
    },
    /// A key without a default that was not given.
    #[error("{origin}: {key} is required; add it to the file or give --set {key}=VALUE")]
    MissingKey {
        /// The table that should hold it.
        origin: Origin,
        /// Dotted path.
        key: String,
    },
    /// The place of a new folder is taken.
    #[error("{} already exists and is not an empty directory; choose another name or remove it first", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A new run was pointed at a directory that holds something.
    #[error(
        "{} is not empty; continue the run in it with --resume, or choose another output_dir",
        path.display()
    )]
    UsedDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing to resume from.
    #[error(
        "{} holds no complete checkpoint to resume from; check output_dir, or start the run afresh without \
         --resume in an empty directory",
        path.display()
    )]
    NoCheckpoint {
        /// The directory.
        path: PathBuf,
    },
    /// Another process works in the run directory.
    #[error("{} is in use by another process; wait for it to end, or choose another output_dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A record of the run cannot be read back.
    #[error("{}:{line}: {problem}; the file was changed from outside: restore it or start a new run", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// For `map_err` on an [`io::Result`].
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Where a configuration value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
    },
    /// In a `--set` option, as typed.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default configuration"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another place"
        }
        io::ErrorKind::FileTooLarge => {
            "raise the limit on the size of files (ulimit -f) or choose another place"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "change its permissions or choose another place"
        }
        io::ErrorKind::NotADirectory => "a part of that path is a file; choose another place",
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::InvalidData => "the file is not UTF-8 text",
        _ => "check the path and the disk",
    }
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None if known.is_empty() => "no keys are known there; remove it".into(),
        None => format!("known there: {}", known.join(", ")),
    }
}
