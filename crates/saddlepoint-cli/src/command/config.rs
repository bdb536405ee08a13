//! `saddle config`.

use anyhow::Result;
use clap::Args;
use saddlepoint_core::config::keys;
use saddlepoint_lm::method;
use saddlepoint_lm::recipe::Recipe;
use serde_json::json;

use crate::documented;
use crate::exit::{Usage, Verdict};
use crate::output::Output;

/// Print a recipe for a method, with every key, its meaning and its default
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle config dpo > recipe.toml")]
pub(crate) struct Arguments {
    /// Name of the method; `saddle methods` lists them
    method: String,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let list = method::list();
        let Some(meta) = list.iter().find(|meta| meta.name == self.method) else {
            let known: Vec<&str> = list.iter().map(|meta| meta.name).collect();
            let problem = format!("there is no method {}; there are {}", self.method, known.join(", "));
            return Err(Usage(problem).into());
        };
        let keys = keys::<Recipe>();
        for key in &keys {
            let (path, kind, default, doc) = (&key.path, &key.kind, &key.default, &key.doc);
            output.object(&json!({ "path": path, "kind": kind, "default": default, "doc": doc }))?;
        }
        if !output.json() {
            let text = documented::toml(&keys, ("method", meta.name));
            output.say(format!("# {}: {} ({})\n{}", meta.name, meta.summary, meta.paper, text.trim_end()))?;
        }
        Ok(Verdict::Done)
    }
}
