//! Knights and knaves: knights tell the truth, knaves lie. `A:B-;B:A=C;C:B+>` is continued by `A+B-C-`: `+` is a knight.
//!
//! The difficulty `d` gives `d + 2` people, each of whom says one thing, and there is exactly one way in which all of it can
//! have been said:
//! ```text
//! A:B+  A says that B is a knight      A:B=C  A says that B and C are of the same kind
//! A:B-  A says that B is a knave       A:B#C  A says that B and C are of different kinds
//! ```

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::puzzle::{Problem, Puzzle};

/// What somebody says about two people, or about one (then they are the same).
#[derive(Debug, Clone, Copy)]
struct Claim {
    first: usize,
    second: usize,
    sign: char,
}

#[derive(Debug)]
pub(super) struct Knights;

impl Puzzle for Knights {
    fn hardest(&self) -> u32 {
        6
    }

    fn alphabet(&self) -> &'static str {
        "ABCDEFGH:+-=#;>"
    }

    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem {
        let people = difficulty as usize + 2;
        loop {
            let claims: Vec<Claim> = (0..people).map(|speaker| claim(speaker, people, rng)).collect();
            if let [kinds] = possible(&claims)[..] {
                let statement = claims.iter().enumerate().map(|(speaker, claim)| said(speaker, *claim));
                let statement = statement.collect::<Vec<_>>().join(";") + ">";
                return Problem { statement, solution: answer(kinds, people) };
            }
        }
    }

    /// One person is of the other kind.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String {
        let mut kinds: Vec<char> = problem.solution.chars().collect();
        let at = 2 * rng.random_range(0..kinds.len() / 2) + 1;
        kinds[at] = if kinds[at] == '+' { '-' } else { '+' };
        kinds.into_iter().collect()
    }

    fn judge(&self, statement: &str, given: &str) -> Option<bool> {
        let claims = read(statement)?;
        let given: String = given.chars().filter(|c| !c.is_whitespace() && *c != ',').collect();
        Some(possible(&claims).into_iter().any(|kinds| answer(kinds, claims.len()) == given))
    }

    fn english(&self, statement: &str) -> Option<String> {
        let claims = read(statement)?;
        let told = claims.iter().enumerate().map(|(speaker, claim)| {
            let (first, second) = (name(claim.first), name(claim.second));
            let what = match claim.sign {
                '+' => format!("{first} is a knight"),
                '-' => format!("{first} is a knave"),
                '=' => format!("{first} and {second} are of the same kind"),
                _ => format!("{first} and {second} are of different kinds"),
            };
            format!("{} says: {what}.", name(speaker))
        });
        let told = told.collect::<Vec<_>>().join(" ");
        Some(format!(
            "Knights always tell the truth, knaves always lie. {told} Who is what? Write each name followed by + for a \
             knight or - for a knave, such as A+B-."
        ))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        read(statement).map_or(0, |claims| claims.len())
    }
}

fn name(person: usize) -> char {
    char::from(b'A' + person as u8)
}

/// A claim about somebody else, or about two different people.
fn claim(speaker: usize, people: usize, rng: &mut ChaCha8Rng) -> Claim {
    let other = |not: usize, rng: &mut ChaCha8Rng| (not + rng.random_range(1..people)) % people;
    let first = other(speaker, rng);
    match rng.random_range(0..4_u32) {
        0 => Claim { first, second: first, sign: '+' },
        1 => Claim { first, second: first, sign: '-' },
        sign => Claim { first, second: other(first, rng), sign: if sign == 2 { '=' } else { '#' } },
    }
}

fn said(speaker: usize, Claim { first, second, sign }: Claim) -> String {
    let (speaker, first) = (name(speaker), name(first));
    if matches!(sign, '+' | '-') {
        format!("{speaker}:{first}{sign}")
    } else {
        format!("{speaker}:{first}{sign}{}", name(second))
    }
}

fn read(statement: &str) -> Option<Vec<Claim>> {
    let parts: Vec<&str> = statement.strip_suffix('>')?.split(';').collect();
    let people = parts.len();
    if people > 8 {
        return None;
    }
    let person = |c: char| ('A'..name(people)).contains(&c).then(|| (c as u8 - b'A') as usize);
    let read = |(speaker, part): (usize, &&str)| {
        let what: Vec<char> = part.strip_prefix(name(speaker))?.strip_prefix(':')?.chars().collect();
        match what[..] {
            [first, sign @ ('+' | '-')] => {
                Some(Claim { first: person(first)?, second: person(first)?, sign })
            }
            [first, sign @ ('=' | '#'), second] => {
                Some(Claim { first: person(first)?, second: person(second)?, sign })
            }
            _ => None,
        }
    };
    parts.iter().enumerate().map(read).collect()
}

/// The kinds that people may have: bit `i` is set if person `i` is a knight.
fn possible(claims: &[Claim]) -> Vec<u32> {
    let consistent = |kinds: &u32| {
        let knight = |person: usize| kinds >> person & 1 == 1;
        claims.iter().enumerate().all(|(speaker, claim)| {
            let (first, second) = (knight(claim.first), knight(claim.second));
            let holds = match claim.sign {
                '+' => first,
                '-' => !first,
                '=' => first == second,
                _ => first != second,
            };
            holds == knight(speaker)
        })
    };
    (0..1 << claims.len()).filter(consistent).collect()
}

fn answer(kinds: u32, people: usize) -> String {
    let kind = |person: usize| if kinds >> person & 1 == 1 { '+' } else { '-' };
    (0..people).flat_map(|person| [name(person), kind(person)]).collect()
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::seed::Seed;

    use super::*;

    #[test]
    fn a_puzzle_solved_by_hand() {
        // If B is a knight, A is a knave and B's word that A and C are alike makes C a knave, who says that B is a knight:
        // false, but B is one. So B is a knave, A a knight, C of the other kind than A: a knave, whose word is false.
        let statement = "A:B-;B:A=C;C:B+>";
        assert_eq!(Knights.judge(statement, "A+B-C-"), Some(true));
        for wrong in ["A-B+C-", "A+B-C+", "A+B-", "", "B-A+C-"] {
            assert_eq!(Knights.judge(statement, wrong), Some(false), "{wrong}");
        }
        for other in ["A:D+>", "A:B+;C:A->", "1+1=", "A:B>"] {
            assert_eq!(Knights.judge(other, "A+"), None, "{other}");
        }
    }

    #[test]
    fn one_answer_alone_is_accepted() {
        for difficulty in 1..=Knights.hardest() {
            let people = difficulty as usize + 2;
            let mut rng = Seed::new(3).stream("test/knights", &[u64::from(difficulty)]);
            for _ in 0..20 {
                let problem = Knights.draw(difficulty, &mut rng);
                let accepted: Vec<String> = (0..1 << people)
                    .map(|kinds| answer(kinds, people))
                    .filter(|given| Knights.judge(&problem.statement, given) == Some(true))
                    .collect();
                assert_eq!(accepted, [problem.solution]);
            }
        }
    }
}
