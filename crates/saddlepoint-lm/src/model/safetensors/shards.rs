//! The weights of a Hugging Face folder: one file, or several with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::SafeTensors;
use super::write::{INDEX, SINGLE};
use crate::Result;
use crate::engine::{TensorSpec, WeightSource};
use crate::model::json::{self, Keys};
use crate::model::{bad, file_name};

/// All weight files of a folder.
#[derive(Debug)]
pub(in crate::model) struct Shards {
    /// `model.safetensors` or the index: the file that messages about missing tensors name.
    path: PathBuf,
    files: Vec<SafeTensors>,
    /// Which file holds a tensor.
    place: BTreeMap<String, usize>,
}

impl Shards {
    pub(in crate::model) fn open(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX);
        let single = folder.join(SINGLE);
        if single.is_file() {
            let file = SafeTensors::open(&single)?;
            let place = file.names().map(|name| (name.to_owned(), 0)).collect();
            return Ok(Self { path: single, files: vec![file], place });
        }
        if index.is_file() {
            return Self::indexed(folder, index);
        }
        let pickle = folder.join("pytorch_model.bin").is_file()
            || folder.join("pytorch_model.bin.index.json").is_file();
        let hint = if pickle {
            "; pickled weights are not read, save them with safe_serialization=True"
        } else {
            ""
        };
        Err(bad(folder, format!("has neither {SINGLE} nor {INDEX}{hint}")))
    }

    fn indexed(folder: &Path, path: PathBuf) -> Result<Self> {
        let index = json::read(&path)?;
        let map = Keys::new(&path, &index).object("weight_map")?;
        let map =
            map.ok_or_else(|| bad(&path, "weight_map is missing: it says which file holds which tensor"))?;
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut files = Vec::new();
        let mut place = BTreeMap::new();
        for (name, file) in map {
            let file = file.as_str().and_then(file_name).ok_or_else(|| {
                bad(
                    &path,
                    format!("weight_map.{name} = {file}: must be the name of a file in the same folder"),
                )
            })?;
            if !numbers.contains_key(file) {
                numbers.insert(file, files.len());
                files.push(SafeTensors::open(&folder.join(file))?);
            }
            let number = numbers[file];
            if files[number].dims(name).is_none() {
                return Err(bad(
                    &path,
                    format!("weight_map says that {file} holds tensor {name}, but it does not"),
                ));
            }
            place.insert(name.clone(), number);
        }
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                place.entry(name.to_owned()).or_insert(number);
            }
        }
        Ok(Self { path, files, place })
    }

    /// Names of all tensors.
    pub(in crate::model) fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    /// Whether two tensors are stored alike.
    pub(in crate::model) fn same(&self, a: &str, b: &str) -> Result<bool> {
        match (self.place.get(a), self.place.get(b)) {
            (Some(&i), Some(&j)) => self.files[i].same(a, (&self.files[j], b)),
            _ => Ok(false),
        }
    }
}

impl WeightSource for Shards {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
        match self.place.get(&spec.name) {
            Some(&number) => self.files[number].read(spec, out),
            // With one file, it says best what is missing.
            None if self.files.len() == 1 => self.files[0].read(spec, out),
            None => Err(bad(&self.path, format!("tensor {} is in none of the files", spec.name))),
        }
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        super::unused(self.names(), specs)
    }
}
