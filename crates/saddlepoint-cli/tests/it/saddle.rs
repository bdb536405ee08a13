//! Runs the binary in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A temporary directory in which commands are run.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { folder: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, making its folders.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file in the directory")).expect("folders");
        fs::write(&path, content).expect("a file");
        path
    }

    /// Names of everything in the directory, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.folder.path())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_saddle"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for variable in ["COLUMNS", "RUST_BACKTRACE", "CLICOLOR_FORCE", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn saddle(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.command(arguments))
    }

    /// Runs a line of the shell, in which the binary is `$SADDLE`.
    pub(crate) fn shell(&self, line: &str) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("SADDLE", env!("CARGO_BIN_EXE_saddle")).env_remove("RUST_BACKTRACE");
        ended(&mut command)
    }

    /// Runs the binary, which must refuse the request: code 2, this message, nothing on standard output.
    #[track_caller]
    pub(crate) fn refuses(&self, arguments: &[&str], message: &str) {
        let ended = self.saddle(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        let place = format!("{}/", self.folder.path().display());
        assert_eq!(ended.stderr.replace(&place, ""), format!("saddle: {message}\n"));
    }
}

impl Ended {
    /// The objects on standard output, which must hold nothing else.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: output.status.code().expect("not killed"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Every file below a directory, by its path in it.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below it").to_string_lossy().into_owned();
                found.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    found
}

/// Names of everything in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
