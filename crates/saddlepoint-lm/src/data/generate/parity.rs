//! Parity: `01101001=` is continued by 1 if the number of ones is odd, else by 0. The difficulty `d` gives `4 (d + 1)` bits.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::puzzle::{Problem, Puzzle};

#[derive(Debug)]
pub(super) struct Parity;

impl Puzzle for Parity {
    fn hardest(&self) -> u32 {
        31
    }

    fn alphabet(&self) -> &'static str {
        "01="
    }

    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem {
        let bits: String = (0..4 * (difficulty + 1)).map(|_| if rng.random() { '1' } else { '0' }).collect();
        let odd = bits.matches('1').count() % 2;
        Problem { statement: bits + "=", solution: odd.to_string() }
    }

    fn slip(&self, problem: &Problem, _: &mut ChaCha8Rng) -> String {
        if problem.solution == "0" { "1" } else { "0" }.to_owned()
    }

    fn judge(&self, statement: &str, answer: &str) -> Option<bool> {
        let bits = statement.strip_suffix('=').filter(|bits| bits.chars().all(|c| matches!(c, '0' | '1')))?;
        Some(answer.trim() == (bits.matches('1').count() % 2).to_string())
    }

    fn english(&self, statement: &str) -> Option<String> {
        let bits = statement.strip_suffix('=')?;
        Some(format!("Is the number of ones in {bits} odd? Answer 1 if it is, 0 if not."))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        statement.len() - 1
    }
}
