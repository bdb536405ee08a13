//! Models on disk: Hugging Face folders and GGUF files in, Hugging Face folders and PEFT adapters out.
//!
//! [`ModelFolder::open`] reads everything but the weights; those are read tensor by tensor through
//! [`crate::engine::WeightSource`], so opening a model takes little memory. What a file asks for and we
//! cannot do is an error that names the key.

pub mod adapter;
mod bytes;
mod config;
mod dtype;
mod finite;
mod folder;
#[doc(hidden)]
pub mod fuzzing;
mod gguf;
mod json;
mod rope;
mod safetensors;
mod score;
mod soup;
mod text;
mod write;

use std::path::{Component, Path};

pub use bytes::Bytes;
pub use dtype::Dtype;
pub use folder::ModelFolder;
pub use gguf::{Gguf, Kind};
pub use safetensors::SafeTensors;
pub use score::{ScoreScale, Scored};
pub use soup::Soup;
pub use write::{Format, fill_folder, write_folder};

use crate::{Error, Result};

fn bad(path: &Path, problem: impl Into<String>) -> Error {
    Error::Model { path: path.to_owned(), problem: problem.into() }
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    saddlepoint_core::Error::Io { action: "read", path: path.to_owned(), source }.into()
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    saddlepoint_core::Error::Io { action: "write", path: path.to_owned(), source }.into()
}

/// Writes a small file as a whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(saddlepoint_core::atomic::write(path, bytes)?)
}

/// `name` if it names a file of the same folder and nothing else.
fn file_name(name: &str) -> Option<&str> {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        .then_some(name)
}
