//! Files and folders that are there whole or not at all, whatever interrupts the writing.
//!
//! Everything is written beside its target under a name with `.partial-`, forced to the disk, and renamed.
//! A failed write removes what it had begun; a killed process leaves a partial name that nothing reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes `bytes` to `path`, replacing what is there.
///
/// A device or pipe (`/dev/stdout`) cannot be replaced by renaming and is written directly.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|target| !target.is_file() && !target.is_dir()) {
        return fs::write(path, bytes).map_err(Error::io("write", path));
    }
    let partial = Partial::beside(path).map_err(Error::io("write", path))?;
    let fill = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&partial.path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    fill().map_err(Error::io("write", path))?;
    partial.rename(path).map_err(Error::io("write", path))
}

/// Makes the folder `target` from what `fill` puts into the empty folder it is given.
///
/// The target must not exist or be empty. When `fill` fails, nothing of the folder remains.
pub fn dir<E: From<Error>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    if !is_free(target).map_err(Error::io("read", target))? {
        return Err(Error::Exists { path: target.into() }.into());
    }
    let partial = Partial::beside(target).map_err(Error::io("create", target))?;
    fs::create_dir(&partial.path).map_err(Error::io("create", target))?;
    fill(&partial.path)?;
    sync_tree(&partial.path).map_err(Error::io("write", target))?;
    partial.rename(target).map_err(Error::io("write", target))?;
    Ok(())
}

/// Whether a file name is one that an interrupted [`write`] or [`dir`] leaves behind.
pub(crate) fn is_partial(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.rsplit_once(MARK)
        .and_then(|(_, tail)| tail.split_once('-'))
        .is_some_and(|(process, count)| number(process) && number(count))
}

/// Removes a folder so that an interruption cannot leave half of it under its name.
pub(crate) fn remove_dir(target: &Path) -> Result<()> {
    let doomed = Partial::beside(target).map_err(Error::io("remove", target))?;
    fs::rename(target, &doomed.path).map_err(Error::io("remove", target))?;
    fs::remove_dir_all(&doomed.path).map_err(Error::io("remove", &doomed.path))
}

const MARK: &str = ".partial-";

/// A name beside a target, removed with all that is under it unless it was renamed.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(target: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name =
            target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
        let mut partial = name.to_owned();
        partial.push(format!("{MARK}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { path: target.with_file_name(partial) })
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        sync_dir(match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; after a failure the first error is the one to report.
        let _ = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
    }
}

fn is_free(target: &Path) -> io::Result<bool> {
    match fs::read_dir(target) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory && target.exists() => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { File::open(&path)?.sync_all()? }
    }
    sync_dir(dir)
}

/// Makes the names in a directory durable, where the file system can do that.
fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn write_replaces_the_whole_file_and_leaves_nothing_beside() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.json");
        write(&path, b"a longer first text").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(place.path()), ["a.json"]);
    }

    #[test]
    fn a_failing_fill_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let result = dir::<Error>(&target, |inside| {
            fs::create_dir(inside.join("deep")).unwrap();
            fs::write(inside.join("deep/weights"), b"half").unwrap();
            Err(Error::Set { text: "stop".into() })
        });
        assert!(matches!(result, Err(Error::Set { .. })), "the error of fill comes back: {result:?}");
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn a_panicking_fill_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let result = std::panic::catch_unwind(|| dir::<Error>(&target, |_| panic!("in the middle")));
        assert!(result.is_err());
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn dir_makes_the_folder_and_refuses_one_with_something_in_it() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("model");
        let fill = |inside: &Path| write(&inside.join("config.json"), b"{}");
        dir(&target, fill).unwrap();
        assert_eq!(names(place.path()), ["model"]);
        assert_eq!(names(&target), ["config.json"]);
        let message = dir(&target, fill).unwrap_err().to_string();
        let expected = "already exists and is not an empty directory; choose another name or remove it first";
        assert_eq!(message, format!("{} {expected}", target.display()));
        let file = target.join("config.json");
        assert!(matches!(dir(&file, fill), Err(Error::Exists { .. })), "a file is not replaced by a folder");
        assert_eq!(fs::read(file).unwrap(), b"{}");
    }

    #[test]
    fn a_place_under_a_file_is_refused_with_the_reason() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), b"kept").unwrap();
        let path = place.path().join("file/config.toml");
        let expected = format!(
            "cannot write {}: Not a directory (os error 20); a part of that path is a file; choose another place",
            path.display()
        );
        assert_eq!(write(&path, b"text").unwrap_err().to_string(), expected);
        assert!(matches!(dir::<Error>(&path, |_| Ok(())), Err(Error::Io { .. })));
        assert_eq!(names(place.path()), ["file"]);
        assert_eq!(fs::read(place.path().join("file")).unwrap(), b"kept");
    }

    #[cfg(unix)]
    #[test]
    fn an_unwritable_directory_keeps_what_it_has() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config.toml");
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o555)).unwrap();
        if File::create(place.path().join("probe")).is_ok() {
            eprintln!("skipped: this user (root) may write to a read-only directory");
            return;
        }
        let message = write(&path, b"new").unwrap_err().to_string();
        let expected = "Permission denied (os error 13); change its permissions or choose another place";
        assert_eq!(message, format!("cannot write {}: {expected}", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(names(place.path()), ["config.toml"]);
    }

    #[test]
    fn a_full_disk_is_reported_and_leaves_nothing() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            eprintln!("skipped: no /dev/full on this system");
            return;
        }
        let expected = "cannot write /dev/full: No space left on device (os error 28); free some space or choose another place";
        assert_eq!(write(full, b"text").unwrap_err().to_string(), expected);
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("checkpoint-1");
        let result = dir::<Error>(&target, |inside| {
            write(&inside.join("config.json"), b"{}")?;
            write(full, b"weights")
        });
        assert_eq!(result.unwrap_err().to_string(), expected);
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn partial_names_are_told_from_others() {
        let target = Path::new("run/checkpoint-7");
        let partial = Partial::beside(target).unwrap();
        let name = partial.path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("checkpoint-7.partial-") && is_partial(name), "{name}");
        for other in ["checkpoint-7", "a.partial-", "a.partial-1", "a.partial-1-", "notes.partial-draft-1"] {
            assert!(!is_partial(other), "{other}");
        }
        assert!(matches!(write(Path::new("/"), b""), Err(Error::Io { .. })));
    }
}
