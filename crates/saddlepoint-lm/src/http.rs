//! JSON to services by HTTP, each request with a deadline and sent again where that may help.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::{Error, Result};

/// First wait before a request is sent again, seconds.
const WAIT: f64 = 0.1;
/// Most retries: the last wait is then a hundred seconds.
const MOST_RETRIES: u32 = 10;
/// Longest reply, in bytes.
const REPLY_BYTES: u64 = 64 << 20;

/// Sends requests.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    timeout: f64,
    retries: u32,
    headers: BTreeMap<String, String>,
    agent: ureq::Agent,
    /// Set once nobody waits for replies any more.
    unwanted: Arc<AtomicBool>,
}

/// Whoever waits for the replies of a client of its own. Dropped, no further request is sent there.
#[derive(Debug)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Why a request was not answered as it should be.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Another try may help, after a while.
    Passing(String),
    /// Another try may help at once.
    Mended(String),
    /// It will not.
    Lasting(String),
}

impl Reply {
    /// Of a reply that says neither that it is done nor what was asked for: 429 and 500 and above may pass.
    pub(crate) fn fault(&self) -> Fault {
        let problem = format!("replied with status {}: {}", self.status, excerpt(&self.body));
        if self.status == 429 || self.status >= 500 {
            Fault::Passing(problem)
        } else {
            Fault::Lasting(problem)
        }
    }
}

/// The beginning of a text, for messages.
pub(crate) fn excerpt(text: &str) -> String {
    let start: String = text.chars().take(120).collect();
    format!("{start:?}")
}

/// Whether a URL has a host, and a port from 0 to 65535 if it has one.
fn has_address(url: &str) -> bool {
    let address = url.parse::<ureq::http::Uri>().ok().and_then(|uri| uri.into_parts().authority);
    address.is_some_and(|address| {
        let place = address.as_str().rsplit('@').next().unwrap_or_default();
        !address.host().is_empty() && (place == address.host() || address.port().is_some())
    })
}

impl Client {
    /// For requests to `url`, with at most `timeout` seconds for each and its reply. Only `http:`: there is no library for TLS in
    /// the default build.
    ///
    /// # Errors
    /// A setting is outside its range; `defaults` are those of `timeout` and `retries`, for the message.
    pub(crate) fn new(
        url: &str,
        timeout: f64,
        retries: u32,
        headers: BTreeMap<String, String>,
        defaults: (f64, u32),
    ) -> Result<Self> {
        let refused = |key: &str, problem: String| Err(Error::Config { key: key.to_owned(), problem });
        if !url.starts_with("http://") {
            let problem = format!(
                "must start with http://, got {url:?}; there is no TLS here, so use a local proxy for https://"
            );
            return refused("url", problem);
        }
        if !has_address(url) {
            let problem = format!("must name a host, such as http://localhost:8000, got {url:?}");
            return refused("url", problem);
        }
        if !(timeout > 0.0 && timeout <= 1e5) {
            let default = defaults.0;
            return refused(
                "timeout",
                format!("must be in (0, 1e5] seconds, got {timeout} (default {default})"),
            );
        }
        if retries > MOST_RETRIES {
            let default = defaults.1;
            return refused(
                "retries",
                format!("must be at most {MOST_RETRIES}, got {retries} (default {default})"),
            );
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(timeout)))
            .http_status_as_error(false)
            // A proxy of the environment would be a hidden setting.
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self { timeout, retries, headers, agent, unwanted: Arc::default() })
    }

    /// One like this that sends requests as long as they are wanted.
    pub(crate) fn while_wanted(&self) -> (Self, Wanted) {
        let unwanted = Arc::<AtomicBool>::default();
        (Self { unwanted: Arc::clone(&unwanted), ..self.clone() }, Wanted(unwanted))
    }

    /// Most seconds that [`Self::post`] takes.
    pub(crate) fn longest(&self) -> f64 {
        let requests = f64::from(self.retries + 1);
        self.timeout * requests + WAIT * (2.0_f64).powf(requests)
    }

    /// Posts `request` until `read` is content with the reply, again after 0.1, 0.2, 0.4, ... seconds where the fault may pass.
    ///
    /// # Errors
    /// A fault that lasts, or one more that passes than there are retries; or the reply is no longer wanted.
    pub(crate) fn post<T>(
        &self,
        url: &str,
        request: &str,
        mut read: impl FnMut(&Reply) -> Result<T, Fault>,
    ) -> Result<T, String> {
        let mut sent = 0;
        loop {
            if self.unwanted.load(Ordering::Relaxed) {
                return Err(format!("{url}: no longer wanted"));
            }
            sent += 1;
            match self.once(url, request).and_then(|reply| read(&reply)) {
                Ok(read) => return Ok(read),
                Err(Fault::Lasting(problem)) => return Err(format!("{url}: {problem}")),
                Err(Fault::Passing(problem) | Fault::Mended(problem)) if sent > self.retries => {
                    return Err(format!("{url}: no reply to {sent} requests, last: {problem}"));
                }
                Err(Fault::Mended(_)) => {}
                Err(Fault::Passing(_)) => {
                    thread::sleep(Duration::from_secs_f64(WAIT * 2.0_f64.powi(sent as i32 - 1)));
                }
            }
        }
    }

    fn once(&self, url: &str, request: &str) -> Result<Reply, Fault> {
        let passing = |error: ureq::Error| Fault::Passing(error.to_string());
        let mut post = self.agent.post(url).header("content-type", "application/json");
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        let mut response = post.send(request).map_err(passing)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(REPLY_BYTES).read_to_string().map_err(passing)?;
        Ok(Reply { status, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_that_there_can_be() {
        for url in
            ["http://a", "http://a:8000", "http://[::1]:80/v1", "http://me@a:1/x?y=1", "http://127.0.0.1/"]
        {
            assert!(has_address(url), "{url}");
        }
        for url in [
            "http://",
            "http:///v1",
            "http://:8000",
            "http://a:",
            "http://a:http",
            "http://a:70000",
            "http://a b",
        ] {
            assert!(!has_address(url), "{url}");
        }
    }
}
