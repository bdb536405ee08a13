//! `get_soft_overlong_punishment`: a punishment that grows over the last tokens before the length limit.
//!
//! ```text
//!         0                                 len <= max − cache
//! r  =    ((max − cache) − len) / cache     max − cache < len <= max
//!        −1                                 len > max
//! ```
//! Equation 13 of DAPO (Yu et al. 2025, arXiv:2503.14476), with `max = max_completion_len` and `cache = soft_punish_cache`, in
//! tokens; names and values are those of TRL, and its name in metrics is TRL's `soft_overlong_punishment_reward`. Range
//! [-1, 0]. Reads no column. It looks at the length alone, so a completion that was cut at exactly `max` tokens gets −1
//! from the middle line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Case, Judged, Reward};
use crate::{Error, Result};

/// Settings of `get_soft_overlong_punishment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SoftOverlongConfig {
    /// Tokens above which the punishment is −1; usually `max_completion_length`.
    pub max_completion_len: usize,
    /// Over how many tokens before that it grows from 0, at most `max_completion_len`. 0: not at all.
    pub soft_punish_cache: usize,
}

/// See the module.
#[derive(Debug)]
pub struct SoftOverlong {
    config: SoftOverlongConfig,
}

impl SoftOverlong {
    /// With these settings.
    ///
    /// # Errors
    /// `soft_punish_cache` is larger than `max_completion_len`.
    pub fn new(config: SoftOverlongConfig) -> Result<Self> {
        let SoftOverlongConfig { max_completion_len: max, soft_punish_cache: cache } = config;
        if cache > max {
            let problem = format!("must be at most max_completion_len = {max}, got {cache}");
            return Err(Error::Config { key: "soft_punish_cache".to_owned(), problem });
        }
        Ok(Self { config })
    }

    fn punishment(&self, len: usize) -> f64 {
        let SoftOverlongConfig { max_completion_len: max, soft_punish_cache: cache } = self.config;
        match len {
            _ if len <= max - cache => 0.0,
            _ if len <= max => ((max - cache) as f64 - len as f64) / cache as f64,
            _ => -1.0,
        }
    }
}

impl Reward for SoftOverlong {
    fn score(&self, cases: &[Case]) -> Judged {
        Ok(cases.iter().map(|case| Some(self.punishment(case.completion_ids.len()))).collect())
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    #[test]
    fn values_are_those_of_the_equation() {
        let soft = SoftOverlong::new(SoftOverlongConfig { max_completion_len: 100, soft_punish_cache: 20 });
        let soft = soft.expect("valid");
        for (len, punishment) in [(0, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (101, -1.0)] {
            assert_close!(soft.punishment(len), punishment, atol = 1e-15);
        }
        let hard = SoftOverlong::new(SoftOverlongConfig { max_completion_len: 10, soft_punish_cache: 0 });
        let hard = hard.expect("valid");
        assert_close!([hard.punishment(10), hard.punishment(11)], [0.0, -1.0], atol = 0.0);
    }
}
