//! Long documents, from a folder of texts or from records.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::{Body, Text, read_records};
use crate::{Error, Result};

/// A document and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Name of its file, or its line.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Reads the `.txt` files of a folder in the order of their names, one such file, or records with a column `text`.
///
/// # Errors
/// A file cannot be read, is not UTF-8 or holds something else; there is no document.
pub fn documents(path: &Path) -> Result<Vec<Document>> {
    let text = |path: &Path| path.extension().is_some_and(|extension| extension == "txt");
    if !path.is_dir() && !text(path) {
        return records(path);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let io = |source| saddlepoint_core::Error::Io { action: "read", path: path.to_owned(), source };
        let entries: std::io::Result<Vec<PathBuf>> =
            fs::read_dir(path).map_err(io)?.map(|entry| Ok(entry?.path())).collect();
        files = entries.map_err(io)?;
        files.retain(|file| text(file));
        files.sort();
    }
    if files.is_empty() {
        return Err(refused(
            path,
            "holds no .txt file; give such a folder, a .txt file, or records with a column `text`",
        ));
    }
    files.iter().map(|file| whole(file)).collect()
}

fn whole(file: &Path) -> Result<Document> {
    let io = |source| saddlepoint_core::Error::Io { action: "read", path: file.to_owned(), source };
    let text = String::from_utf8(fs::read(file).map_err(io)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refused(
            file,
            &format!("is not UTF-8 (byte {at}); convert it, for example with `iconv -f latin1 -t utf-8`"),
        )
    })?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Document { name, text })
}

fn records(path: &Path) -> Result<Vec<Document>> {
    let (records, _) = read_records(path)?;
    records
        .into_iter()
        .map(|record| match record.body {
            Body::Text(Text::Plain(text)) => {
                Ok(Document { name: format!("line {}", record.source.line), text })
            }
            other => Err(record
                .source
                .error(format!("the records are {}, but documents (`text`) are needed", other.name()))),
        })
        .collect()
}

fn refused(path: &Path, problem: &str) -> Error {
    Error::Data { path: path.to_owned(), line: 1, column: 1, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        documents(path).expect("documents").into_iter().map(|document| document.name).collect()
    }

    #[test]
    fn folders_files_and_records_are_read_in_order() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, text: &[u8]| fs::write(place.path().join(name), text).expect("written");
        file("b.txt", b"two");
        file("a.txt", b"one");
        file("notes.md", b"no document");
        assert_eq!(names(place.path()), ["a.txt", "b.txt"]);
        assert_eq!(names(&place.path().join("b.txt")), ["b.txt"]);
        file("d.jsonl", b"{\"text\": \"three\"}\n{\"text\": \"four\"}\n");
        assert_eq!(names(&place.path().join("d.jsonl")), ["line 1", "line 2"]);
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let refusal = |name: &str| documents(&place.path().join(name)).expect_err("refused").to_string();
        let path = |name: &str| place.path().join(name).display().to_string();
        fs::create_dir(place.path().join("empty")).expect("a folder");
        assert!(refusal("empty").starts_with(&format!("{}:1:1: holds no .txt file", path("empty"))));
        fs::write(place.path().join("latin.txt"), b"caf\xe9").expect("written");
        assert!(refusal("latin.txt").contains("latin.txt:1:1: is not UTF-8 (byte 3); convert it"));
        fs::write(place.path().join("pairs.jsonl"), r#"{"prompt": "a"}"#).expect("written");
        assert!(
            refusal("pairs.jsonl").ends_with("the records are prompts, but documents (`text`) are needed")
        );
        assert!(refusal("absent.txt").starts_with("cannot read"));
    }
}
