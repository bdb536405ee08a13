//! The directory of one run and the checkpoints in it.
//!
//! Holds `config.toml`, `meta.json`, `metrics.jsonl`, `events.jsonl`, TensorBoard files, `checkpoint-N/`,
//! `model/` and `report.html`. Whatever has a name without `.partial-` is complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result, atomic};

/// Held open with a lock while a process works in the directory; the system frees it when the process dies.
const LOCK: &str = ".lock";

/// A run directory that this process alone works in.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Refuses a directory that holds anything, as [`RunDir::create`] would; makes nothing.
    pub fn check_unused(path: &Path) -> Result<()> {
        if path.is_dir() && names(path)?.iter().any(|name| name != LOCK) {
            return Err(Error::UsedDirectory { path: path.to_owned() });
        }
        Ok(())
    }

    /// Makes the directory for a new run; one that holds anything is refused.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        // Before the lock, which would be the first trace in a folder of something else, and again under it.
        Self::check_unused(&path)?;
        let lock = lock(&path)?;
        Self::check_unused(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Takes up a run that has a complete checkpoint, and removes what an interruption left half-written.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_dir() {
            return Err(Error::NoCheckpoint { path });
        }
        let lock = lock(&path)?;
        let run = Self { path, _lock: lock };
        if run.latest()?.is_none() {
            return Err(Error::NoCheckpoint { path: run.path });
        }
        for name in names(&run.path)?.into_iter().filter(|name| atomic::is_partial(name)) {
            let left = run.path.join(name);
            let removed = if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) };
            removed.map_err(Error::io("remove", left))?;
        }
        Ok(run)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Steps and folders of the complete checkpoints, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<(u64, PathBuf)> = names(&self.path)?
            .into_iter()
            .filter_map(|name| Some((step_of(&name)?, self.path.join(name))))
            .filter(|(_, path)| path.is_dir())
            .collect();
        found.sort();
        Ok(found)
    }

    /// The newest complete checkpoint.
    pub fn latest(&self) -> Result<Option<(u64, PathBuf)>> {
        Ok(self.checkpoints()?.pop())
    }

    /// Makes `checkpoint-STEP` from what `fill` writes into the folder it is given, and returns its path.
    /// When `fill` fails or the process dies, no checkpoint of that step exists.
    pub fn checkpoint<E: From<Error>>(
        &self,
        step: u64,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let path = self.path.join(format!("checkpoint-{step}"));
        atomic::dir(&path, fill)?;
        Ok(path)
    }

    /// Removes all checkpoints but the newest `keep` and those of the steps in `keep_also` (the best one).
    pub fn prune(&self, keep: usize, keep_also: &[u64]) -> Result<()> {
        let found = self.checkpoints()?;
        let old = found.len().saturating_sub(keep);
        for (_, path) in found[..old].iter().filter(|(step, _)| !keep_also.contains(step)) {
            atomic::remove_dir(path)?;
        }
        Ok(())
    }
}

/// The step of a folder named exactly as [`RunDir::checkpoint`] names it.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("checkpoint-")?.parse().ok()?;
    (name == format!("checkpoint-{step}")).then_some(step)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let read = || fs::read_dir(dir)?.map(name).collect::<io::Result<_>>();
    read().map_err(Error::io("read", dir))
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path: dir.into() }),
        // Some network file systems have no locks; runs there go unguarded, as they would without this check.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(inside: &Path) -> Result<()> {
        atomic::write(&inside.join("weights"), b"w")
    }

    fn steps(run: &RunDir) -> Vec<u64> {
        run.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn a_used_directory_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("runs/first");
        let run = RunDir::create(&path).unwrap();
        assert_eq!(run.path(), path);
        drop(run);
        let again = RunDir::create(&path).expect("a run that wrote nothing leaves the directory free");
        fs::write(path.join("notes.txt"), b"mine").unwrap();
        drop(again);
        let message = RunDir::create(&path).unwrap_err().to_string();
        let expected = "is not empty; continue the run in it with --resume, or choose another output_dir";
        assert_eq!(message, format!("{} {expected}", path.display()));
        assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"mine");
        fs::remove_file(path.join(LOCK)).unwrap();
        RunDir::create(&path).unwrap_err();
        assert_eq!(names(&path).unwrap(), ["notes.txt"], "not even a lock is left in it");
    }

    #[test]
    fn a_directory_without_a_checkpoint_cannot_be_resumed() {
        let place = tempfile::tempdir().unwrap();
        let absent = place.path().join("absent");
        let expected = "holds no complete checkpoint to resume from; check output_dir, or start the run afresh \
                        without --resume in an empty directory";
        for path in [place.path(), &absent] {
            let message = RunDir::resume(path).unwrap_err().to_string();
            assert_eq!(message, format!("{} {expected}", path.display()));
        }
        assert!(!absent.exists(), "resuming makes no directory");
    }

    #[test]
    fn two_processes_cannot_share_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let run = RunDir::create(place.path()).unwrap();
        run.checkpoint(1, weights).unwrap();
        let message = RunDir::resume(place.path()).unwrap_err().to_string();
        let expected = "is in use by another process; wait for it to end, or choose another output_dir";
        assert_eq!(message, format!("{} {expected}", place.path().display()));
        drop(run);
        RunDir::resume(place.path()).unwrap();
    }

    #[test]
    fn what_a_kill_left_is_ignored_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let run = RunDir::create(place.path()).unwrap();
        run.checkpoint(9, weights).unwrap();
        run.checkpoint(10, weights).unwrap();
        drop(run);
        let torn = place.path().join("checkpoint-11.partial-4242-3");
        fs::create_dir(&torn).unwrap();
        fs::write(torn.join("weights"), b"half").unwrap();
        fs::write(place.path().join("config.toml.partial-4242-0"), b"half").unwrap();
        fs::create_dir(place.path().join("checkpoint-012")).unwrap();
        fs::write(place.path().join("checkpoint-13"), b"a file").unwrap();
        let run = RunDir::resume(place.path()).unwrap();
        assert_eq!(run.latest().unwrap(), Some((10, place.path().join("checkpoint-10"))));
        assert_eq!(steps(&run), [9, 10]);
        let mut left = names(run.path()).unwrap();
        left.sort();
        let expected = [".lock", "checkpoint-012", "checkpoint-10", "checkpoint-13", "checkpoint-9"];
        assert_eq!(left, expected, "only half-written names are removed");
    }

    #[test]
    fn a_failing_checkpoint_leaves_the_earlier_ones() {
        let place = tempfile::tempdir().unwrap();
        let run = RunDir::create(place.path()).unwrap();
        run.checkpoint(1, weights).unwrap();
        let result = run.checkpoint::<Error>(2, |inside| {
            weights(inside)?;
            Err(Error::InUse { path: inside.into() })
        });
        assert!(matches!(result, Err(Error::InUse { .. })));
        assert_eq!(steps(&run), [1]);
        let mut left = names(run.path()).unwrap();
        left.sort();
        assert_eq!(left, [".lock", "checkpoint-1"]);
    }

    #[test]
    fn prune_keeps_the_newest_and_the_named() {
        let place = tempfile::tempdir().unwrap();
        let run = RunDir::create(place.path()).unwrap();
        for step in [5, 10, 20, 100] {
            run.checkpoint(step, weights).unwrap();
        }
        run.prune(2, &[5]).unwrap();
        assert_eq!(steps(&run), [5, 20, 100], "steps are compared as numbers");
        run.prune(9, &[]).unwrap();
        assert_eq!(steps(&run), [5, 20, 100]);
        run.prune(0, &[]).unwrap();
        assert_eq!(names(run.path()).unwrap(), [".lock"]);
    }
}
