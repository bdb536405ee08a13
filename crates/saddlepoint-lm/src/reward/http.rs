//! `http`: a service that judges by HTTP: one POST a batch, with the messages of [`program`](super::program).
//!
//! Range: what the service says. It gets every column. A request has `timeout` seconds. One that cannot connect, is cut off,
//! late, or answered by 429 or a status of 500 and above is sent again, `retries` times, after 0.1, 0.2, 0.4, ...
//! seconds; so the service has to bear being asked the same twice. Any other status but 200, and a reply that is not of the
//! protocol, fail at once. Only `http:`: the default build has no library for TLS; put a proxy beside it for `https:`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward, wire};
use crate::Result;
use crate::http::{Client, Fault};

/// Settings of `http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where requests go, such as `http://localhost:8000/score`.
    pub url: String,
    /// Seconds for a request and its reply.
    #[serde(default = "thirty")]
    pub timeout: f64,
    /// How often a request is sent again.
    #[serde(default = "three")]
    pub retries: u32,
    /// Headers of the requests. They are written into the run's `config.toml`, so no place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

fn thirty() -> f64 {
    30.0
}

fn three() -> u32 {
    3
}

/// See the module.
#[derive(Debug)]
pub struct Http {
    url: String,
    client: Client,
    batch: AtomicU64,
}

impl Http {
    /// With these settings; nothing is sent yet.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: HttpConfig) -> Result<Self> {
        let HttpConfig { url, timeout, retries, headers } = config;
        let client = Client::new(&url, timeout, retries, headers, (thirty(), three()))?;
        Ok(Self { url, client, batch: AtomicU64::new(0) })
    }
}

impl Reward for Http {
    fn allowance(&self, _cases: usize) -> f64 {
        self.client.longest()
    }

    fn score(&self, cases: &[Case]) -> Judged {
        let batch = self.batch.fetch_add(1, Ordering::Relaxed) + 1;
        let values = self.client.post(&self.url, &wire::request(batch, cases), |reply| match reply.status {
            200 => wire::values(batch, &reply.body).map_err(Fault::Lasting),
            _ => Err(reply.fault()),
        });
        Ok(values?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::super::tests::case;
    use super::*;

    /// A service on this machine that treats one connection after another by this list, then ends; its address.
    fn service(replies: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/score", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept()?;
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut length = 0;
                let mut line = String::new();
                while reader.read_line(&mut line)? > 2 {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a number");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body)?;
                match *reply {
                    "drop" => drop(stream),
                    "hang" => drop(reader.read(&mut [0])?),
                    reply => {
                        let (status, body) = reply.split_once(' ').expect("status and body");
                        let head = format!(
                            "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                            body.len()
                        );
                        stream.write_all((head + body).as_bytes())?;
                    }
                }
            }
            Ok::<_, std::io::Error>(())
        });
        url
    }

    fn ask(
        replies: &'static [&'static str],
        change: impl Fn(&mut HttpConfig),
    ) -> Result<Vec<Option<f64>>, String> {
        let mut config =
            HttpConfig { url: service(replies), timeout: 60.0, retries: 1, headers: BTreeMap::new() };
        change(&mut config);
        let url = config.url.clone();
        let http = Http::new(config).expect("valid");
        http.score(&[case("a", &[]), case("b", &[])]).map_err(|error| error.to_string().replace(&url, "URL"))
    }

    #[test]
    fn a_service_judges_and_may_fail_in_passing() {
        let good = "200 {\"batch\": 1, \"rewards\": [0.5, null]}";
        let judged = Ok(vec![Some(0.5), None]);
        let with_header = |config: &mut HttpConfig| {
            config.headers.insert("x-run".to_owned(), "7".to_owned());
        };
        assert_eq!(ask(&["200 {\"batch\": 1, \"rewards\": [0.5, null]}"], with_header), judged);
        for first in ["drop", "503 overloaded", "429 later"] {
            let replies: &'static [&'static str] = Box::leak(vec![first, good].into_boxed_slice());
            assert_eq!(ask(replies, |_| {}), judged, "{first}");
        }
        // The first connection hangs until the request is given up; the second is answered.
        assert_eq!(ask(&["hang", "200 {\"rewards\": [0.5, null]}"], |config| config.timeout = 1.0), judged);
    }

    #[test]
    fn what_lasts_is_an_error_at_once() {
        assert_eq!(
            ask(&["404 no such page"], |_| {}),
            Err("URL: replied with status 404: \"no such page\"".to_owned())
        );
        assert_eq!(
            ask(&["200 {\"batch\": 3, \"rewards\": []}"], |_| {}),
            Err("URL: replied to batch 3 when asked for batch 1".to_owned())
        );
        assert_eq!(
            ask(&["503 a", "503 b"], |_| {}),
            Err("URL: no reply to 2 requests, last: replied with status 503: \"b\"".to_owned())
        );
        let dead = ask(&["drop"], |config| config.retries = 1).expect_err("dead");
        assert!(dead.starts_with("URL: no reply to 2 requests, last: "), "{dead}");
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let with = |url: &str, timeout: f64| {
            let config = HttpConfig { url: url.to_owned(), timeout, retries: 0, headers: BTreeMap::new() };
            Http::new(config).expect_err("refused").to_string()
        };
        assert_eq!(
            with("https://judge", 1.0),
            "url: must start with http://, got \"https://judge\"; there is no TLS here, so use a local proxy for https://"
        );
        assert_eq!(with("http://judge", 0.0), "timeout: must be in (0, 1e5] seconds, got 0 (default 30)");
    }
}
