//! Rewards that fail in every way, and what becomes of the run.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use super::aggregate::Aggregation;
use super::*;
use crate::Result;

/// A case with these columns.
pub(super) fn case(completion: &str, columns: &[(&str, Value)]) -> Case {
    Case {
        prompt: "a prompt".to_owned(),
        completion: completion.to_owned(),
        completion_ids: completion.bytes().map(u32::from).collect(),
        finished: true,
        columns: Arc::new(columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()),
    }
}

/// A reward that does what it is told.
struct Faulty<F>(F);

impl<F> Debug for Faulty<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

impl<F: Fn(&[Case]) -> Judged + Send + Sync> Reward for Faulty<F> {
    fn score(&self, cases: &[Case]) -> Judged {
        (self.0)(cases)
    }
}

/// Beside a reward that gives 1 to everything, which always works.
fn beside(
    on_error: OnError,
    deadline: f64,
    faulty: impl Fn(&[Case]) -> Judged + Send + Sync + 'static,
) -> Rewards {
    let fine = Faulty(|cases: &[Case]| Ok(vec![Some(1.0); cases.len()]));
    Rewards::new(Aggregation::SumThenNormalize, on_error, deadline).with("fine", 1.0, Arc::new(fine)).with(
        "faulty",
        1.0,
        Arc::new(Faulty(faulty)),
    )
}

/// The group of [`two`].
fn pair() -> Vec<Range<usize>> {
    std::iter::once(0..2).collect()
}

fn two() -> Vec<Case> {
    vec![case("a", &[]), case("b", &[])]
}

#[test]
fn every_fault_is_an_error_or_a_counted_skip_and_never_a_zero() {
    type Fault = fn(&[Case]) -> Judged;
    let all: [(Fault, &str, [bool; 2]); 5] = [
        (|_| panic!("at the disco"), "panicked: at the disco", [true, true]),
        (|_| Err("out of order".into()), "out of order", [true, true]),
        (|_| Ok(vec![Some(0.0)]), "returned 1 values for 2 completions", [true, true]),
        (
            |_| Ok(vec![Some(0.5), Some(f64::NAN)]),
            "gave NaN, which is not finite (completion 2 of 2, prompt \"a prompt\")",
            [false, true],
        ),
        (
            |_| Ok(vec![Some(f64::INFINITY), None]),
            "gave inf, which is not finite (completion 1 of 2, prompt \"a prompt\")",
            [true, false],
        ),
    ];
    for (fault, told, failed) in all {
        let error = beside(OnError::Error, 60.0, fault).score(two(), &pair()).expect_err("an error");
        let remedy =
            "correct it, or count such completions and leave them out with reward.on_error = \"skip\"";
        assert_eq!(error.to_string(), format!("reward `faulty`: {told}; {remedy}"));

        let rewards = beside(OnError::Skip, 60.0, fault);
        let scores = rewards.score(two(), &pair()).expect("skipped");
        for case in 0..2 {
            assert_eq!(scores.parts[1][case] == Part::Failed, failed[case], "{told}");
            assert_eq!(scores.sums[case].is_none(), failed[case], "{told}");
        }
        assert!(told.starts_with(&scores.failures[0].problem));
        let metrics = rewards.metrics(&scores, &pair());
        let count = failed.iter().filter(|&&failed| failed).count() as f64;
        assert!(metrics.contains(&("rewards/faulty/failed".to_owned(), count)), "{metrics:?}");
        assert!(metrics.contains(&("rewards/unjudged".to_owned(), count)), "{metrics:?}");
    }
}

#[test]
fn a_reward_that_hangs_is_left_alone_until_it_is_back() -> Result<()> {
    let (release, held) = channel::<()>();
    let held: Mutex<Receiver<()>> = Mutex::new(held);
    let hangs = move |cases: &[Case]| {
        held.lock().expect("one caller").recv()?;
        Ok(vec![Some(2.0); cases.len()])
    };
    let rewards = beside(OnError::Skip, 0.05, hangs);
    let first = rewards.score(two(), &pair())?;
    assert_eq!(first.failures[0].problem, "did not judge 2 completions within 0.05 s (reward.deadline)");
    let second = rewards.score(two(), &pair())?;
    assert_eq!(second.failures[0].problem, "has not come back from an earlier batch");
    assert_eq!(second.sums, [None, None]);
    // The first call comes back; what it says is not taken for the answer to a later batch.
    release.send(()).expect("it waits");
    let later = || loop {
        release.send(()).expect("it will wait");
        let scores = rewards.score(two(), &pair())?;
        if scores.failures.is_empty() {
            return Ok::<_, crate::Error>(scores);
        }
        std::thread::yield_now();
    };
    assert_eq!(later()?.sums, [Some(3.0), Some(3.0)]);
    Ok(())
}

#[test]
fn metrics_have_the_names_and_values_of_trl() {
    let values = [Some(1.0), Some(0.0), None, Some(0.0)];
    let some = Faulty(move |_: &[Case]| Ok(values.to_vec()));
    let rewards =
        Rewards::new(Aggregation::SumThenNormalize, OnError::Error, 60.0).with("some", 2.0, Arc::new(some));
    let groups = [0..2, 2..4];
    let scores = rewards.score([two(), two()].concat(), &groups).expect("judged");
    let metrics = rewards.metrics(&scores, &groups);
    let mean: f64 = 1.0 / 3.0;
    let std = 0.5 * ((1.0 - mean).powi(2) + 2.0 * mean.powi(2));
    let expected = [
        ("rewards/some/mean", mean),
        ("rewards/some/std", std.sqrt()),
        ("reward", 2.0 * mean),
        ("reward_std", 2.0 * std.sqrt()),
        ("frac_reward_zero_std", 0.5),
        ("rewards/unjudged", 1.0),
    ];
    for ((name, value), (expected, at)) in metrics.iter().zip(expected) {
        assert_eq!(name, expected);
        assert!((value - at).abs() < 1e-12, "{name}: {value}");
    }
    assert_eq!(metrics.len(), expected.len());
}

#[test]
fn a_column_that_no_record_has_is_told_before_anything_is_judged() {
    let reward = exact::ExactMatch::new(exact::ExactMatchConfig::default()).expect("valid");
    let rewards = Rewards::new(Aggregation::SumThenNormalize, OnError::Error, 60.0).with(
        "exact_match",
        1.0,
        Arc::new(reward),
    );
    let with = |column: &str| case("", &[(column, json!("4"))]).columns;
    let refusal = |columns: &[Arc<Map<String, Value>>]| {
        rewards.check_columns(columns.iter().map(|each| &**each)).map_err(|error| error.to_string())
    };
    let told = "reward `exact_match`: reads the column `solution`, which no record has (columns beside the prompt: answer); \
                correct the name, or rename with `data.columns`";
    assert_eq!(refusal(&[with("answer")]), Err(told.to_owned()));
    assert_eq!(refusal(&[with("answer"), with("solution")]), Ok(()));
}

#[test]
fn columns_are_text_or_numbers() {
    let case = case("", &[("n", json!(3)), ("s", json!("x")), ("l", json!([1])), ("none", Value::Null)]);
    assert_eq!(case.text("n").expect("a number").as_deref(), Some("3"));
    assert_eq!(case.text("s").expect("text").as_deref(), Some("x"));
    assert_eq!(case.text("none"), Ok(None));
    assert_eq!(case.text("absent"), Ok(None));
    let told = "column `l` must be text or a number, got [1] (prompt \"a prompt\")";
    assert_eq!(case.text("l"), Err(told.to_owned()));
}

fn build(toml: &str) -> Result<Rewards> {
    let config: RewardConfig = toml::from_str(toml).expect("TOML of the type");
    config.build()
}

#[test]
fn a_list_is_built_and_its_mistakes_are_told_with_their_place() {
    let rewards = build(
        "reward_funcs = [{ name = \"exact_match\", weight = 2 }, { name = \"exact_match\", label = \"loose\", normalize = true },
         { name = \"get_soft_overlong_punishment\", max_completion_len = 9, soft_punish_cache = 3 }]",
    )
    .expect("valid");
    assert_eq!(rewards.names(), ["exact_match", "loose", "soft_overlong_punishment_reward"]);
    for (text, told) in [
        ("reward_funcs = []", "reward.reward_funcs: needs at least one reward"),
        (
            "reward_funcs = [{ name = \"exact_match\" }, { name = \"exact_match\" }]",
            "reward.reward_funcs[1].label: `exact_match` is there already; give this one another `label`",
        ),
        (
            "reward_funcs = [{ name = \"exact_match\", weight = nan }]",
            "reward.reward_funcs[0].weight: must be finite, got NaN (default 1)",
        ),
        (
            "reward_funcs = [{ name = \"get_soft_overlong_punishment\", max_completion_len = 1, soft_punish_cache = 3 }]",
            "reward.reward_funcs[0].soft_punish_cache: must be at most max_completion_len = 1, got 3",
        ),
        (
            "deadline = 0\nreward_funcs = [{ name = \"exact_match\" }]",
            "reward.deadline: must be in (0, 1e5] seconds, got 0 (default 60)",
        ),
    ] {
        assert_eq!(build(text).expect_err("refused").to_string(), told);
    }
}
