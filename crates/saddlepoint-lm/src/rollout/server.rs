//! Completions from a server that speaks the protocol of OpenAI's completions, as vLLM does.
//!
//! Before each round the adapter is written beside the run and the server is told to load it (`POST /v1/load_lora_adapter`), by a name
//! that follows from its bytes: a server that has it already has the right one. Completions are asked for by that name
//! (`POST /v1/completions`), a request a prompt, and each carries it as the version of the weights that it came from. A request that is late,
//! cut off, answered by a status that may pass, or by something that cannot be true is sent again; a server that has lost the
//! adapter, as one does that was started anew, is told to load it again. What stays wrong is an error: no completion is
//! taken on trust, and none is left out. Completions of other weights than were asked for are among what cannot be true, so none is
//! older than what was asked for; they are counted.
//!
//! The server has to return ids (`return_token_ids`) and the log-probabilities of the distribution that it sampled from; vLLM does the latter
//! at a temperature other than 1 with `--logprobs-mode processed_logprobs`. It has to run with `VLLM_ALLOW_RUNTIME_LORA_UPDATING`
//! and to see the folder of the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::seed::Seed;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Ahead, Completion, Drawing};
use crate::http::{Client, Fault, Reply, excerpt};
use crate::server::{ROUNDING, ServerConfig, together};
use crate::{Error, Result};

/// By which a recipe names it.
pub(super) const KEY: &str = "rollout.server";

/// The completions of a prompt, or why there are none.
type Answer = Result<Vec<Completion>, String>;

/// The server, and the adapter that it has been told to load.
#[derive(Debug, Clone)]
pub struct Server {
    config: ServerConfig,
    client: Client,
    /// Where adapters are written for it.
    folder: PathBuf,
    loaded: Option<Loaded>,
    /// The name of the adapter before that one, if there was another.
    before: Option<String>,
    /// Completions of other weights than were asked for, which were drawn anew. Shared with what asks ahead.
    others: Arc<AtomicUsize>,
}

#[derive(Debug, Clone)]
struct Loaded {
    name: String,
    path: PathBuf,
}

impl Server {
    /// With these settings; nothing is sent yet. Adapters are written below `folder`.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: ServerConfig, folder: PathBuf) -> Result<Self> {
        let client = config.client(KEY)?;
        Ok(Self { client, config, folder, loaded: None, before: None, others: Arc::default() })
    }

    /// Has the server load the adapter that `write` writes into a folder, in the place of the one before.
    ///
    /// # Errors
    /// It cannot be written, or the server does not load it.
    pub fn load(&mut self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::from(saddlepoint_core::Error::Io { action, path, source })
        };
        let fresh = self.folder.join("next");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(io("remove", &fresh))?;
        }
        fs::create_dir_all(&fresh).map_err(io("create", &fresh))?;
        write(&fresh)?;
        let file = fresh.join("adapter_model.safetensors");
        let digest = Sha256::digest(fs::read(&file).map_err(io("read", &file))?);
        let half: [u8; 8] = *digest.first_chunk().expect("32 bytes");
        let name = format!("saddle-{:016x}", u64::from_be_bytes(half));
        let path = self.folder.join(&name);
        if path.exists() {
            fs::remove_dir_all(&fresh).map_err(io("remove", &fresh))?;
        } else {
            fs::rename(&fresh, &path).map_err(io("rename", &fresh))?;
        }
        let path = fs::canonicalize(&path).map_err(io("open", &path))?;
        let loaded = Loaded { name, path };
        self.offer(&loaded).map_err(|problem| Error::Server { key: KEY, problem })?;
        if let Some(before) = self.loaded.replace(loaded.clone()).filter(|before| before.name != loaded.name)
        {
            // A server that has forgotten it has nothing to unload.
            let url = self.config.endpoint("unload_lora_adapter");
            let unload = json!({ "lora_name": before.name }).to_string();
            let _ = self.client.post(&url, &unload, |_| Ok(()));
            fs::remove_dir_all(&before.path).map_err(io("remove", &before.path))?;
            self.before = Some(before.name);
        }
        Ok(())
    }

    fn offer(&self, adapter: &Loaded) -> Result<(), String> {
        let request = json!({ "lora_name": adapter.name, "lora_path": adapter.path }).to_string();
        self.client.post(&self.config.endpoint("load_lora_adapter"), &request, |reply| {
            let there = reply.status == 400 && reply.body.contains("already");
            if reply.status == 200 || there { Ok(()) } else { Err(reply.fault()) }
        })
    }

    /// How many adapters have been loaded since the one that sampled this, 0 or 1; none if more, or if it is unknown.
    pub fn staleness(&self, completion: &Completion) -> Option<usize> {
        let newest = self.loaded.as_ref().map(|loaded| &loaded.name);
        let version = completion.version.as_ref();
        [newest, self.before.as_ref()].iter().position(|name| name.is_some() && *name == version)
    }

    /// How many completions were refused since this was last asked, since other weights sampled them than were asked for.
    pub fn refused(&self) -> usize {
        self.others.swap(0, Ordering::Relaxed)
    }

    /// What [`Self::draw`] gives, asked for by a thread of its own. Until it is there no other adapter may be loaded.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn draw_ahead(
        &self,
        drawing: &Drawing,
        vocab: usize,
        prompts: &[&[u32]],
        seed: Seed,
    ) -> Result<Ahead> {
        let (client, wanted) = self.client.while_wanted();
        let server = Self { client, ..self.clone() };
        let (config, stop) = (drawing.config.clone(), drawing.stop.to_vec());
        let (num_generations, max_batch) = (drawing.num_generations, drawing.max_batch);
        let prompts: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.to_vec()).collect();
        Ahead::new(wanted, move || {
            let drawing = Drawing { config: &config, num_generations, stop: &stop, max_batch };
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            server.draw(&drawing, vocab, &prompts, seed)
        })
        .map_err(|error| Error::Server { key: KEY, problem: format!("no thread to ask it: {error}") })
    }

    /// Completions of each prompt, one prompt after the other, by the adapter that was loaded last.
    ///
    /// # Errors
    /// The server does not give them; the message names the prompt and what came last.
    pub fn draw(
        &self,
        drawing: &Drawing,
        vocab: usize,
        prompts: &[&[u32]],
        seed: Seed,
    ) -> Result<Vec<Completion>> {
        let of_prompts = together(prompts.len(), self.config.concurrency, |prompt| {
            // 53 bits, which every reader of JSON keeps.
            let seed = seed.stream("rollout/server", &[prompt as u64]).next_u64() >> 11;
            self.ask(drawing, vocab, prompts[prompt], seed)
        });
        let of_prompts = of_prompts.map_err(|(prompt, problem)| Error::Server {
            key: KEY,
            problem: format!("prompt {prompt} of {}: {problem}", prompts.len()),
        })?;
        Ok(of_prompts.concat())
    }

    fn ask(&self, drawing: &Drawing, vocab: usize, prompt: &[u32], seed: u64) -> Answer {
        let Some(adapter) = &self.loaded else { return Err("no adapter has been loaded".to_owned()) };
        let config = drawing.config;
        let mut request = json!({
            "model": adapter.name, "prompt": prompt, "n": drawing.num_generations,
            "max_tokens": config.max_completion_length, "temperature": config.temperature, "top_p": config.top_p,
            "min_p": config.min_p, "seed": seed, "logprobs": 1, "return_token_ids": true,
            "stop_token_ids": drawing.stop,
        });
        if config.top_k > 0 {
            request["top_k"] = json!(config.top_k);
        }
        self.client.post(&self.config.endpoint("completions"), &request.to_string(), |reply| {
            match reply.status {
                200 => self.completions(reply, drawing, vocab, &adapter.name).map_err(Fault::Passing),
                404 => {
                    self.offer(adapter).map_err(Fault::Lasting)?;
                    Err(Fault::Mended("had lost the adapter".to_owned()))
                }
                _ => Err(reply.fault()),
            }
        })
    }

    /// The completions of a reply, by their index; or what about it cannot be true.
    fn completions(&self, reply: &Reply, drawing: &Drawing, vocab: usize, version: &str) -> Answer {
        let reply: Choices = serde_json::from_str(&reply.body)
            .map_err(|error| format!("replied with no completions ({error}): {}", excerpt(&reply.body)))?;
        if reply.model != version {
            self.others.fetch_add(drawing.num_generations, Ordering::Relaxed);
            return Err(format!("gave completions of `{}` when asked for `{version}`", reply.model));
        }
        let wanted = drawing.num_generations;
        let mut by_index: Vec<Option<Completion>> = vec![None; wanted];
        for choice in reply.choices {
            let index = choice.index;
            let told = |problem: String| format!("completion {index} {problem}");
            let place = by_index.get_mut(index).ok_or_else(|| told(format!("of {wanted}")))?;
            if place.is_some() {
                return Err(told("came twice".to_owned()));
            }
            *place = Some(completion(choice, drawing, vocab, version).map_err(told)?);
        }
        let there = by_index.iter().flatten().count();
        by_index
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| format!("gave {there} completions of {wanted}"))
    }
}

#[derive(Deserialize)]
struct Choices {
    model: String,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    index: usize,
    finish_reason: Option<String>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<LogProbs>,
}

#[derive(Deserialize)]
struct LogProbs {
    token_logprobs: Vec<Option<f64>>,
}

fn completion(choice: Choice, drawing: &Drawing, vocab: usize, version: &str) -> Result<Completion, String> {
    let ids = choice.token_ids.ok_or("has no `token_ids`: the server has to know `return_token_ids`")?;
    let logps = choice.logprobs.ok_or("has no log-probabilities")?.token_logprobs;
    if ids.len() != logps.len() {
        return Err(format!("has {} ids and {} log-probabilities", ids.len(), logps.len()));
    }
    let most = drawing.config.max_completion_length;
    let Some(&last) = ids.last().filter(|_| ids.len() <= most) else {
        return Err(format!("has {} tokens, not 1 to {most}", ids.len()));
    };
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        return Err(format!("has id {id} in a vocabulary of {vocab}"));
    }
    let fits = |logp: &Option<f64>| logp.filter(|logp| logp.is_finite() && *logp <= ROUNDING);
    let logps: Option<Vec<f64>> = logps.iter().map(fits).collect();
    let logps = logps.ok_or("has a log-probability that is none")?;
    let finished = drawing.stop.contains(&last);
    let reason = choice.finish_reason.as_deref().unwrap_or("none");
    let whole = finished || (reason == "length" && ids.len() == most);
    if !whole || ids[..ids.len() - 1].iter().any(|id| drawing.stop.contains(id)) {
        return Err(format!("ends with token {last} after {} (finish_reason {reason})", ids.len()));
    }
    Ok(Completion { ids, logps, finished, version: Some(version.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_as_old_as_the_adapters_loaded_since() {
        let config: ServerConfig = toml::from_str("url = \"http://a\"").expect("settings");
        let mut server = Server::new(config, PathBuf::new()).expect("valid");
        let of = |version: Option<&str>| Completion {
            ids: vec![0],
            logps: vec![0.0],
            finished: true,
            version: version.map(str::to_owned),
        };
        assert_eq!(server.staleness(&of(None)), None, "nothing was loaded");
        server.loaded = Some(Loaded { name: "new".to_owned(), path: PathBuf::new() });
        assert_eq!(server.staleness(&of(Some("new"))), Some(0));
        server.before = Some("old".to_owned());
        let ages = ["new", "old", "older"].map(|version| server.staleness(&of(Some(version))));
        assert_eq!(ages, [Some(0), Some(1), None]);
        assert_eq!(server.staleness(&of(None)), None);
    }
}
