//! `[teacher]`: a second model, whose distributions a method learns from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::Result;
use crate::method::Method;

/// A second model, whose distributions a method learns from. It has the tokenizer of what is trained and may have another
/// shape; it stays as it is. Exactly one of `path` and `recipe` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherConfig {
    /// A Hugging Face folder or a `.gguf` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Another recipe: it is run first (unless its result is there), and its result is the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
}

impl TeacherConfig {
    fn check(&self) -> Result<()> {
        match (&self.path, &self.recipe) {
            (None, None) => Err(refused("teacher", "needs `path` or `recipe`")),
            (Some(_), Some(_)) => Err(refused("teacher", "takes `path` or `recipe`, not both; remove one")),
            _ => Ok(()),
        }
    }

    /// Checks that there is a teacher where `method` learns from one, and only there.
    pub(super) fn check_for(teacher: Option<&Self>, method: &dyn Method, tethered: bool) -> Result<()> {
        let name = method.meta().name;
        match teacher {
            None if method.teacher() => {
                let problem = format!(
                    "is missing: `{name}` learns from a second model; name it in teacher.path or teacher.recipe"
                );
                Err(refused("teacher", problem))
            }
            None => Ok(()),
            Some(_) if !method.teacher() => {
                let problem = format!(
                    "has no use: `{name}` learns from none; remove it (tether.reference = {{ checkpoint = ... }} holds the \
                     policy to another model)"
                );
                Err(refused("teacher", problem))
            }
            Some(_) if tethered => {
                let problem = format!(
                    "contradicts `{name}`, whose divergence is that from its teacher; remove it (a budget of the divergence \
                     from another model is grpo with tether.reference = {{ checkpoint = ... }})"
                );
                Err(refused("tether", problem))
            }
            Some(teacher) => teacher.check(),
        }
    }
}
