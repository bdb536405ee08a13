//! What a task is: problems with a dial, a solution to each, and a rule that judges any answer.

use std::fmt::Debug;

use rand_chacha::ChaCha8Rng;

use super::Split;

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// All of it, in a terse notation: what a model that knows only this task is asked, and what the rule reads.
    pub(super) statement: String,
    /// An answer that the rule accepts.
    pub(super) solution: String,
}

/// A family of problems.
pub(super) trait Puzzle: Debug + Sync {
    /// The largest difficulty; the smallest is 1.
    fn hardest(&self) -> u32;

    /// The characters of statements and solutions.
    fn alphabet(&self) -> &'static str;

    /// A random problem of a difficulty from 1 to [`hardest`](Self::hardest).
    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem;

    /// A wrong answer that looks like a right one.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String;

    /// Whether an answer is right; none where the statement is not one of this family.
    fn judge(&self, statement: &str, answer: &str) -> Option<bool>;

    /// The same in English, for a model that knows more; none where the statement is not one of this family.
    fn english(&self, statement: &str) -> Option<String>;

    /// What the difficulty counts, of a problem of this family.
    #[cfg(test)]
    fn size(&self, statement: &str) -> usize;

    /// The part of the data that a problem belongs to: one in five is only ever evaluated on.
    fn part(&self, statement: &str) -> Split {
        // FNV-1a: a fixed function of the text.
        let hash = statement.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        if (hash >> 32).is_multiple_of(5) { Split::Eval } else { Split::Train }
    }
}

/// Numbers separated by commas.
pub(super) fn numbers(text: &str) -> Option<Vec<i64>> {
    text.split(',').map(|number| number.trim().parse().ok()).collect()
}

/// The same the other way round.
pub(super) fn joined(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
