//! A teacher on a server: log-probabilities of given tokens, and of the most probable ones in their place.
//!
//! What is asked is vLLM's `prompt_logprobs` (`POST /v1/completions`, a request a completion, prompt and completion together as token
//! ids): for each token its log-probability after those before it and the most probable tokens there, by their ids, of the model's own
//! distribution at temperature 1. No other server is known to say it: llama.cpp's gives log-probabilities of tokens that it
//! generates alone, and OpenAI's `echo` names tokens by their text, which is not unique.
//!
//! Nothing is taken on trust. Every token of the sequence has to be there under its id and, where its text is plain, by its text:
//! a server that has cut the sequence, or reads it by another tokenizer, is told. Log-probabilities have to be numbers, not above 0,
//! and those of a place not add up to more than 1. What is wrong is asked for again as what is late or cut off, and is an error
//! in the end. `-9999`, which vLLM writes for a probability of 0, is taken as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::data::Tokenizer;
use crate::http::{Client, Fault, Reply, excerpt};
use crate::server::{ROUNDING, ServerConfig, together};
use crate::{Error, Result};

/// By which a recipe names it.
pub(crate) const KEY: &str = "teacher.server";

/// What a teacher says of a completion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taught {
    /// `ln π_T(y_t|x, y_<t)` of each token, nats.
    pub logps: Vec<f64>,
    /// Of each token the most probable ones in its place and their log-probabilities, the most probable first; empty unless they were
    /// asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<Vec<(u32, f64)>>,
}

/// What is scored: tokens after a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// What the completion follows.
    pub prompt: &'a [u32],
    /// At least one token.
    pub completion: &'a [u32],
}

/// A teacher on a server.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    client: Client,
    top_k: Option<usize>,
}

impl Server {
    /// With these settings; nothing is sent yet. `top_k` of the most probable tokens are asked for, none without it.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: ServerConfig, top_k: Option<usize>) -> Result<Self> {
        Ok(Self { client: config.client(KEY)?, config, top_k })
    }

    /// What the teacher says of each completion. `tokenizer` is that of the ids, and of the `vocab` of the policy.
    ///
    /// # Errors
    /// The server does not say it; the message names the completion and what came last.
    pub fn score(&self, sequences: &[Sequence], tokenizer: &Tokenizer, vocab: usize) -> Result<Vec<Taught>> {
        let reading = Reading { tokenizer, vocab, top_k: self.top_k };
        let taught = together(sequences.len(), self.config.concurrency, |number| {
            self.ask(sequences[number], &reading)
        });
        taught.map_err(|(number, problem)| Error::Server {
            key: KEY,
            problem: format!("completion {number} of {}: {problem}", sequences.len()),
        })
    }

    fn ask(&self, sequence: Sequence, reading: &Reading) -> Result<Taught, String> {
        let ids = [sequence.prompt, sequence.completion].concat();
        // The one token that has to be generated is not read. With the most probable token of each place there is always
        // something beside the token itself, so that no server takes the number for false.
        let request = json!({
            "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": self.top_k.unwrap_or(1),
        });
        let url = self.config.endpoint("completions");
        self.client.post(&url, &request.to_string(), |reply| match reply.status {
            200 => reading.taught(reply, &ids, sequence.prompt.len()),
            _ => Err(reply.fault()),
        })
    }
}

#[derive(Deserialize)]
struct Choices {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    prompt_logprobs: Option<Vec<Option<BTreeMap<u32, Entry>>>>,
}

#[derive(Deserialize)]
struct Entry {
    logprob: Option<f64>,
    decoded_token: Option<String>,
}

/// How a reply is read.
struct Reading<'a> {
    tokenizer: &'a Tokenizer,
    vocab: usize,
    top_k: Option<usize>,
}

impl Reading<'_> {
    /// What is said of the tokens from `start` on; or what about the reply cannot be true.
    fn taught(&self, reply: &Reply, ids: &[u32], start: usize) -> Result<Taught, Fault> {
        let reply: Choices = serde_json::from_str(&reply.body).map_err(|error| {
            Fault::Passing(format!("replied with no log-probabilities ({error}): {}", excerpt(&reply.body)))
        })?;
        let places = reply.choices.into_iter().next().and_then(|choice| choice.prompt_logprobs);
        // It would say as much the next time.
        let places = places.ok_or_else(|| {
            Fault::Lasting("has no `prompt_logprobs`, which it has to know (vLLM does)".to_owned())
        })?;
        if places.len() != ids.len() {
            let problem = format!("said something of {} tokens when asked about {}", places.len(), ids.len());
            return Err(Fault::Passing(problem));
        }
        let mut taught = Taught::default();
        // Nothing comes before the first token.
        for (at, (place, &id)) in places.iter().zip(ids).enumerate().skip(1) {
            let told = |problem: String| Fault::Passing(format!("token {at} {problem}"));
            let entry = place.as_ref().and_then(|place| place.get(&id));
            let entry = entry.ok_or_else(|| told(format!("is {id}, of which nothing is said")))?;
            self.check_text(id, entry).map_err(Fault::Lasting)?;
            if at < start {
                continue;
            }
            let place = place.as_ref().expect("its entry was there");
            let logps = logps(place).map_err(told)?;
            taught.logps.push(logps.iter().find(|(other, _)| *other == id).expect("its entry was there").1);
            if let Some(top_k) = self.top_k {
                taught.top.push(self.top(logps, top_k).map_err(told)?);
            }
        }
        Ok(taught)
    }

    /// The most probable tokens, the most probable first; those that the policy does not have are left out.
    fn top(&self, mut logps: Vec<(u32, f64)>, top_k: usize) -> Result<Vec<(u32, f64)>, String> {
        let wanted = top_k.min(self.vocab);
        if logps.len() < wanted {
            return Err(format!("has {} of the {wanted} most probable tokens", logps.len()));
        }
        logps.sort_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
        // The token of the sequence is there too, wherever it stands.
        logps.truncate(top_k);
        logps.retain(|(id, _)| (*id as usize) < self.vocab);
        Ok(logps)
    }

    /// Whether the server calls a token by the text that it has here. White space at its ends is how decoders differ, and the text of a
    /// part of a character is none.
    fn check_text(&self, id: u32, entry: &Entry) -> Result<(), String> {
        let Some(theirs) = &entry.decoded_token else { return Ok(()) };
        let own = self.tokenizer.decode_with_special_tokens(&[id]);
        let (theirs, own) = (theirs.trim(), own.trim());
        if theirs == own || !theirs.is_ascii() || !own.is_ascii() {
            return Ok(());
        }
        Err(format!("calls token {id} {theirs:?}, which is {own:?} here: its model has another tokenizer"))
    }
}

/// The log-probabilities of a place by their ids.
fn logps(place: &BTreeMap<u32, Entry>) -> Result<Vec<(u32, f64)>, String> {
    let fits = |logp: &f64| logp.is_finite() && *logp <= ROUNDING;
    let logp = |(&id, entry): (&u32, &Entry)| {
        let logp = entry.logprob.filter(fits);
        logp.map(|logp| (id, logp)).ok_or_else(|| match entry.logprob {
            Some(logp) => format!("has {logp} for the log-probability of {id}"),
            None => format!("has no log-probability of {id}"),
        })
    };
    let logps: Vec<(u32, f64)> = place.iter().map(logp).collect::<Result<_, _>>()?;
    let sum: f64 = logps.iter().map(|(_, logp)| logp.exp()).sum();
    if sum > 1.0 + ROUNDING { Err(format!("has probabilities that add up to {sum:.4}")) } else { Ok(logps) }
}
