//! A typed configuration from three layers: defaults, a TOML file, `--set` options.
//!
//! The layers are merged as tables, each value checked against the type's JSON schema so that a mistake is
//! reported with its dotted path, its line and the nearest key there is. Rules of merging:
//! - tables are merged key by key; every other value replaces the one below it;
//! - where a table is one of several kinds told apart by a key (`method.name`), the defaults below it count
//!   only if they are of the same kind, those of keys beside the kinds in any case;
//! - a table that is left out by default starts, once it is given, from the `default` in the schema of its type.

mod keys;
mod layers;
mod overlay;
mod schema;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};
use layers::Layers;
use overlay::Overlay;

pub use keys::{Key, keys};
pub use overlay::nearest;

/// Reads a configuration: `T::default()`, changed by `file`, changed by the `KEY=VALUE` options in `sets`.
///
/// The value of an option is TOML if it reads as such, else text.
///
/// # Errors
/// The file cannot be read or is not TOML; a key is unknown; a value has the wrong type.
pub fn load<T>(file: Option<&Path>, sets: &[String]) -> Result<T>
where
    T: Default + Serialize + DeserializeOwned + JsonSchema,
{
    let layers = Layers::read(file, sets)?;
    let schema = schemars::schema_for!(T);
    let overlay = Overlay::new(schema.as_value(), &layers);
    let merged = overlay.merge(&table(&T::default()))?;
    serde_path_to_error::deserialize(merged).map_err(|error| {
        let key = error.path().to_string();
        Error::Value { origin: layers.origin(&key), key, problem: error.into_inner().to_string() }
    })
}

/// The whole configuration as a TOML file that [`load`] reads back.
///
/// # Panics
/// When the type holds what TOML has not, such as an integer above `i64::MAX`.
pub fn to_toml<T: Serialize>(config: &T) -> String {
    toml::to_string(&table(config)).expect("a table of TOML values is TOML")
}

/// The values of a TOML table by their dotted paths, in its order; an array is one value.
pub fn leaves(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut leaves = Vec::new();
    collect("", table, &mut leaves);
    leaves
}

fn collect(path: &str, table: &toml::Table, leaves: &mut Vec<(String, toml::Value)>) {
    for (key, value) in table {
        let path = layers::join(path, key);
        match value {
            toml::Value::Table(table) => collect(&path, table, leaves),
            other => leaves.push((path, other.clone())),
        }
    }
}

fn table<T: Serialize>(config: &T) -> toml::Value {
    toml::Value::try_from(config).expect("configuration types consist of TOML values")
}

#[cfg(test)]
mod tests;
