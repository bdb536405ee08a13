//! `json_schema`: 1 if the completion is JSON that a schema allows, else 0.
//!
//! Range {0, 1}. The completion is JSON as a whole, or in its last fenced block (```` ```json ````). The schema is in a file
//! (`path`) or in a column of the data, as an object or as its text; a case without that column gets `None`.
//!
//! Read is the part of JSON Schema 2020-12 that says what structured output looks like:
//! ```text
//! type enum const                                   $ref to #/... , $defs definitions
//! properties required additionalProperties          allOf anyOf oneOf not if then else
//! patternProperties minProperties maxProperties     minLength maxLength pattern
//! items prefixItems minItems maxItems uniqueItems   minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
//! ```
//! `format` and other annotations say nothing about validity, as in the standard. Any other keyword is refused when the schema
//! is read, so that nothing is taken as checked that is not. Patterns are those of [`regex`](super::pattern).
//!
//! The subset is our own because the libraries that implement the whole standard bring forty to seventy crates for
//! what structured output does not use (numbers of any size, formats, references over the network).

mod rules;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use rules::Schema;

use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `json_schema`. Exactly one of `path` and `column` is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaConfig {
    /// A file with the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The column with the schema, where every prompt has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct MatchesSchema {
    from: Origin,
}

#[derive(Debug)]
enum Origin {
    File(Schema),
    Column(String),
}

impl MatchesSchema {
    /// With these settings.
    ///
    /// # Errors
    /// The file is not a schema, or not exactly one of `path` and `column` is given.
    pub fn new(config: SchemaConfig) -> Result<Self> {
        let from =
            match (config.path, config.column) {
                (Some(path), None) => {
                    let text = std::fs::read_to_string(&path).map_err(|source| {
                        saddlepoint_core::Error::Io { action: "read", path: path.clone(), source }
                    })?;
                    let schema = serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"));
                    let schema = schema.and_then(Schema::new);
                    let told = |problem| Error::Config {
                        key: "path".to_owned(),
                        problem: format!("{}: {problem}", path.display()),
                    };
                    Origin::File(schema.map_err(told)?)
                }
                (None, Some(column)) => Origin::Column(column),
                _ => {
                    let problem = "needs either `path` or `column`".to_owned();
                    return Err(Error::Config { key: "path".to_owned(), problem });
                }
            };
        Ok(Self { from })
    }

    fn judge(&self, case: &Case) -> Result<Option<f64>, String> {
        let value = json(&case.completion);
        let allowed = |schema: &Schema| value.as_ref().map_or(Ok(false), |value| schema.allows(value));
        let judged = match &self.from {
            Origin::File(schema) => allowed(schema).map(Some),
            Origin::Column(column) => match case.columns.get(column) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => serde_json::from_str(text)
                    .map_err(|error| format!("is not JSON: {error}"))
                    .and_then(Schema::new)
                    .and_then(|schema| allowed(&schema).map(Some)),
                Some(schema) => Schema::new(schema.clone()).and_then(|schema| allowed(&schema).map(Some)),
            },
        };
        let place = || match &self.from {
            Origin::File(_) => "the schema".to_owned(),
            Origin::Column(column) => format!("column `{column}` ({})", case.excerpt()),
        };
        judged.map(|valid| valid.map(f64::from)).map_err(|problem| format!("{} {problem}", place()))
    }
}

impl Reward for MatchesSchema {
    fn columns(&self) -> Vec<&str> {
        if let Origin::Column(column) = &self.from { vec![column] } else { Vec::new() }
    }

    fn score(&self, cases: &[Case]) -> Judged {
        cases.iter().map(|case| Ok(self.judge(case)?)).collect()
    }
}

/// The JSON of a completion.
fn json(completion: &str) -> Option<Value> {
    let whole = serde_json::from_str(completion.trim()).ok();
    whole.or_else(|| serde_json::from_str(super::fence::last(completion, &["json"])?.trim()).ok())
}

#[cfg(test)]
mod tests;
