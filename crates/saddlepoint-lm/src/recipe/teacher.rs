//! `[teacher]`: a second model, whose distributions a method learns from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::Result;
use crate::method::{Method, Teaching};
use crate::rollout::RolloutConfig;
use crate::server::ServerConfig;
use crate::teacher::{KEY, Server};

/// A second model, whose distributions a method learns from. It has the tokenizer of what is trained and may have another
/// shape; it stays as it is. Exactly one of `path`, `recipe` and `server` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherConfig {
    /// A Hugging Face folder or a `.gguf` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Another recipe: it is run first (unless its result is there), and its result is the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// A vLLM server with the teacher as its model, which is asked for `prompt_logprobs` of each round's completions. It gives
    /// log-probabilities of tokens, and no whole distributions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerConfig>,
    /// How many of its most probable tokens a server is asked for, >= 1; with `method.kl_estimator = "top_k"` only. Without it 20, which
    /// is the most that vLLM gives unless it runs with a larger `--max-logprobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
}

/// Most probable tokens that are asked for where a recipe does not say.
const TOP_K: usize = 20;

impl TeacherConfig {
    /// Checks what is given, and that it can teach what is read of it.
    fn check(&self, teaching: Teaching, rollout: &RolloutConfig) -> Result<()> {
        let Self { path, recipe, server, top_k } = self;
        let places = [path.is_some(), recipe.is_some(), server.is_some()];
        match places.iter().filter(|&&given| given).count() {
            0 => return Err(refused("teacher", "needs `path`, `recipe` or `server`")),
            1 => {}
            _ => {
                return Err(refused(
                    "teacher",
                    "takes one of `path`, `recipe` and `server`; remove the others",
                ));
            }
        }
        if let (Some(top_k), true) = (top_k, teaching != Teaching::Top || server.is_none()) {
            let problem = format!(
                "has no use, got {top_k}: the most probable tokens are read of a server alone, with method.kl_estimator = \
                 \"top_k\"; remove it"
            );
            return Err(refused("teacher.top_k", problem));
        }
        let Some(server) = server else {
            if teaching == Teaching::Top {
                let problem = "reads the most probable tokens that a server gives; of a teacher in this process the whole \
                               distribution is there: use \"full\"";
                return Err(refused("method.kl_estimator", problem));
            }
            return Ok(());
        };
        server.client(KEY)?;
        if teaching == Teaching::Whole {
            let problem = "reads whole distributions, which a server does not give: use \"k2\" or \"k3\", which read the \
                           sampled token, or \"top_k\", which bounds the divergence from below by the most probable ones; or \
                           load the teacher here with teacher.path";
            return Err(refused("method.kl_estimator", problem));
        }
        if *top_k == Some(0) {
            return Err(refused("teacher.top_k", format!("must be at least 1, got 0 (default {TOP_K})")));
        }
        if rollout.tempered().is_some() {
            let problem = format!(
                "must be 1 with teacher.server, got {}: a server gives log-probabilities at temperature 1, and policy and teacher \
                 are compared at the temperature of sampling; load the teacher here with teacher.path",
                rollout.temperature
            );
            return Err(refused("rollout.temperature", problem));
        }
        Ok(())
    }

    /// What asks the server, if it is one, for what is read of it.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn connect(&self, teaching: Teaching) -> Result<Option<Server>> {
        let top_k = (teaching == Teaching::Top).then(|| self.top_k.unwrap_or(TOP_K));
        self.server.clone().map(|server| Server::new(server, top_k)).transpose()
    }

    /// Checks that there is a teacher where `method` learns from one, and only there.
    pub(super) fn check_for(
        teacher: Option<&Self>,
        method: &dyn Method,
        rollout: &RolloutConfig,
        tethered: bool,
    ) -> Result<()> {
        let name = method.meta().name;
        let Some(teaching) = method.teacher() else {
            return if teacher.is_none() {
                Ok(())
            } else {
                let problem = format!(
                    "has no use: `{name}` learns from none; remove it (tether.reference = {{ checkpoint = ... }} holds the \
                     policy to another model)"
                );
                Err(refused("teacher", problem))
            };
        };
        let Some(teacher) = teacher else {
            let problem = format!(
                "is missing: `{name}` learns from a second model; name it in teacher.path, teacher.recipe or teacher.server"
            );
            return Err(refused("teacher", problem));
        };
        if tethered {
            let problem = format!(
                "contradicts `{name}`, whose divergence is that from its teacher; remove it (a budget of the divergence \
                 from another model is grpo with tether.reference = {{ checkpoint = ... }})"
            );
            return Err(refused("tether", problem));
        }
        teacher.check(teaching, rollout)
    }
}
