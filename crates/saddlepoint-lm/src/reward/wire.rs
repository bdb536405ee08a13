//! The messages that programs and services exchange with a run: version 1.
//!
//! Request, one JSON object:
//! ```text
//! {"protocol": 1, "batch": 7, "cases": [{"prompt": "...", "completion": "...", "completion_ids": [1, 2],
//!                                        "finished": true, "columns": {"solution": "4"}}]}
//! ```
//! Reply, one JSON object; a number a case, in their order, or null where the reward does not apply:
//! ```text
//! {"batch": 7, "rewards": [1.0, null]}          or   {"error": "why the batch cannot be judged"}
//! ```
//! `batch` counts the requests; a reply that has it must have the same. Fields that are not named here are ignored, so that a
//! later version can add some.

use serde::Deserialize;
use serde_json::json;

use super::Case;
use crate::http::excerpt;

/// Version of the messages.
const PROTOCOL: u32 = 1;

/// A request, without a line break.
pub(super) fn request(batch: u64, cases: &[Case]) -> String {
    let cases: Vec<_> = cases
        .iter()
        .map(|case| {
            json!({
                "prompt": case.prompt,
                "completion": case.completion,
                "completion_ids": case.completion_ids,
                "finished": case.finished,
                "columns": *case.columns,
            })
        })
        .collect();
    json!({ "protocol": PROTOCOL, "batch": batch, "cases": cases }).to_string()
}

#[derive(Deserialize)]
struct Reply {
    batch: Option<u64>,
    rewards: Option<Vec<Option<f64>>>,
    error: Option<String>,
}

/// The values of a reply.
pub(super) fn values(batch: u64, reply: &str) -> Result<Vec<Option<f64>>, String> {
    let told = |problem: String| format!("{problem}: {}", excerpt(reply));
    let reply: Reply = serde_json::from_str(reply)
        .map_err(|error| told(format!("replied with something else than the protocol ({error})")))?;
    if let Some(error) = reply.error {
        return Err(format!("says: {error}"));
    }
    if let Some(other) = reply.batch.filter(|other| *other != batch) {
        return Err(format!("replied to batch {other} when asked for batch {batch}"));
    }
    reply.rewards.ok_or_else(|| "replied without `rewards` and without `error`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::case;
    use super::*;

    #[test]
    fn a_request_has_the_fields_of_the_protocol() {
        let case = case("ab", &[("n", json!(3))]);
        let told = "{\"protocol\":1,\"batch\":7,\"cases\":[{\"prompt\":\"a prompt\",\"completion\":\"ab\",\
                    \"completion_ids\":[97,98],\"finished\":true,\"columns\":{\"n\":3}}]}";
        assert_eq!(request(7, &[case]), told);
    }

    #[test]
    fn replies_are_values_or_say_what_is_wrong() {
        assert_eq!(
            values(7, "{\"batch\": 7, \"rewards\": [1, null, -0.5], \"more\": 1}"),
            Ok(vec![Some(1.0), None, Some(-0.5)])
        );
        assert_eq!(values(7, "{\"rewards\": []}"), Ok(vec![]));
        for (reply, told) in [
            ("{\"batch\": 6, \"rewards\": [1]}", "replied to batch 6 when asked for batch 7"),
            ("{\"error\": \"no disk\"}", "says: no disk"),
            ("{}", "replied without `rewards` and without `error`"),
            (
                "loading model",
                "replied with something else than the protocol (expected value at line 1 column 1): \"loading model\"",
            ),
        ] {
            assert_eq!(values(7, reply), Err(told.to_owned()));
        }
    }
}
