//! `task_reward`: 1 if the rule of a generated task accepts the answer, else 0.
//!
//! Range {0, 1}. Reads the columns `task` (a name of `data.generate.task`) and `problem` (the statement of a problem), which
//! prompts of generated data have; a case without them gets `None`. The answer of a completion is found as by
//! `accuracy_reward`; for a model that knows only the task it is the whole completion. Any answer that the rule accepts is
//! right, not only the solution: Countdown has many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Unmarked, answer};
use super::{Case, Judged, Reward};
use crate::Result;
use crate::data::generate::Task;

/// Settings of `task_reward`: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskRewardConfig {}

/// See the module.
#[derive(Debug)]
pub struct TaskReward;

impl TaskReward {
    /// Without settings.
    ///
    /// # Errors
    /// None.
    pub fn new(_: TaskRewardConfig) -> Result<Self> {
        Ok(Self)
    }
}

impl Reward for TaskReward {
    fn columns(&self) -> Vec<&str> {
        vec!["task", "problem"]
    }

    fn score(&self, cases: &[Case]) -> Judged {
        cases.iter().map(|case| Ok(judge(case)?.map(f64::from))).collect()
    }
}

fn judge(case: &Case) -> Result<Option<bool>, String> {
    let (Some(name), Some(problem)) = (case.text("task")?, case.text("problem")?) else { return Ok(None) };
    let place = || case.excerpt();
    let task: Task = serde_json::from_value(Value::from(&*name))
        .map_err(|_| format!("column `task` is {name:?}, which is not a task ({})", place()))?;
    let given = answer(&case.completion, Unmarked::Whole).unwrap_or_default();
    let right = task.judge(&problem, given);
    right.map(Some).ok_or_else(|| {
        format!("column `problem` is {problem:?}, which is no problem of {name} ({})", place())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::case;
    use super::*;

    fn score(completion: &str, task: &str, problem: &str) -> Judged {
        TaskReward.score(&[case(completion, &[("task", json!(task)), ("problem", json!(problem))])])
    }

    #[test]
    fn any_answer_that_the_rule_accepts_is_right() {
        for (completion, value) in [
            ("(7-3)*2", 1.0),
            ("2*(7-3)", 1.0),
            ("Let me see. <answer>2*7-2*3</answer>", 0.0),
            ("So <answer> (7 - 3) * 2 = 8 </answer>.", 1.0),
            ("", 0.0),
        ] {
            assert_eq!(
                score(completion, "countdown", "3,7,2>8=").expect("judged"),
                [Some(value)],
                "{completion}"
            );
        }
        assert_eq!(TaskReward.score(&[case("9", &[])]).expect("judged"), [None]);
    }

    #[test]
    fn data_that_are_no_problem_are_told() {
        let told = |task, problem| score("1", task, problem).expect_err("refused").to_string();
        assert_eq!(
            told("chess", "e4"),
            "column `task` is \"chess\", which is not a task (prompt \"a prompt\")"
        );
        assert_eq!(
            told("parity", "e4"),
            "column `problem` is \"e4\", which is no problem of parity (prompt \"a prompt\")"
        );
    }
}
