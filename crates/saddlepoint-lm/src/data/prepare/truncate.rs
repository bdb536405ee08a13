//! What happens to sequences that are too long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rule for sequences longer than `max_length`; the first two are TRL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Cut the end off.
    #[default]
    KeepStart,
    /// Cut the beginning off; of pairs, the beginning of the shared prompt.
    KeepEnd,
    /// Leave the record out.
    Drop,
}

impl Truncation {
    /// Cuts `items` to `bound`; `None` if the record is to be left out. Returns how many were cut off.
    pub(super) fn cut<T>(self, items: &mut Vec<T>, bound: usize) -> Option<usize> {
        let over = items.len().saturating_sub(bound);
        match self {
            _ if over == 0 => {}
            Truncation::KeepStart => items.truncate(bound),
            Truncation::KeepEnd => drop(items.drain(..over)),
            Truncation::Drop => return None,
        }
        Some(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_keeps_what_its_name_says() {
        let cut = |rule: Truncation, bound| {
            let mut items = vec![1, 2, 3, 4];
            rule.cut(&mut items, bound).map(|over| (over, items))
        };
        assert_eq!(cut(Truncation::KeepStart, 3), Some((1, vec![1, 2, 3])));
        assert_eq!(cut(Truncation::KeepEnd, 3), Some((1, vec![2, 3, 4])));
        assert_eq!(cut(Truncation::Drop, 3), None);
        assert_eq!(cut(Truncation::Drop, 4), Some((0, vec![1, 2, 3, 4])));
    }
}
