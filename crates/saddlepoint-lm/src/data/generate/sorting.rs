//! Sorting: `31,7,22>` is continued by `7,22,31`. The difficulty `d` gives `d + 2` numbers from 0 to 99.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::puzzle::{Problem, Puzzle, joined, numbers};

#[derive(Debug)]
pub(super) struct Sorting;

impl Puzzle for Sorting {
    fn hardest(&self) -> u32 {
        62
    }

    fn alphabet(&self) -> &'static str {
        "0123456789,>"
    }

    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem {
        let given: Vec<i64> = (0..difficulty + 2).map(|_| rng.random_range(0..100_i64)).collect();
        let mut sorted = given.clone();
        sorted.sort_unstable();
        Problem { statement: joined(&given) + ">", solution: joined(&sorted) }
    }

    /// Two neighbours that differ are exchanged, or one number is another where all are equal.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String {
        let mut sorted = numbers(&problem.solution).expect("numbers");
        let places: Vec<usize> = (1..sorted.len()).filter(|&i| sorted[i - 1] != sorted[i]).collect();
        match places.len() {
            0 => sorted[0] = (sorted[0] + 1) % 100,
            count => {
                let at = places[rng.random_range(0..count)];
                sorted.swap(at - 1, at);
            }
        }
        joined(&sorted)
    }

    fn judge(&self, statement: &str, answer: &str) -> Option<bool> {
        let mut sorted = numbers(statement.strip_suffix('>')?)?;
        sorted.sort_unstable();
        Some(numbers(answer.trim()).is_some_and(|answer| answer == sorted))
    }

    fn english(&self, statement: &str) -> Option<String> {
        let given = statement.strip_suffix('>')?.replace(',', ", ");
        Some(format!("Sort these numbers from the smallest to the largest, separated by commas: {given}."))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        statement.matches(',').count() + 1
    }
}
