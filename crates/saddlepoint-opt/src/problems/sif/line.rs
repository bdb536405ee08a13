//! Lines in fixed columns, and errors with their place.

use crate::{Error, Result};

/// A line that is not a comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) text: &'a str,
}

/// A field of a line; its text has no blanks around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    line: usize,
    /// Counted from 1.
    column: usize,
    pub(super) text: &'a str,
}

/// First and last column of each field, counted from 0.
const CODE: (usize, usize) = (1, 3);
const NAMES: [(usize, usize); 2] = [(4, 14), (14, 24)];
const FIRST_NUMBER: (usize, usize) = (24, 36);
const THIRD_NAME: (usize, usize) = (39, 49);
const SECOND_NUMBER: (usize, usize) = (49, 61);
const EXPRESSION: (usize, usize) = (24, 65);

impl<'a> Line<'a> {
    /// The lines of a text without blank ones and comments.
    pub(super) fn all(text: &'a str) -> Vec<Self> {
        let lines = text.lines().enumerate().map(|(i, text)| {
            // A field 3 or 5 that starts with `$` is a comment up to the end of the line.
            let comment =
                [NAMES[1].0, THIRD_NAME.0].into_iter().find(|at| text.as_bytes().get(*at) == Some(&b'$'));
            let text = comment.and_then(|at| text.get(..at)).unwrap_or(text);
            Line { number: i + 1, text: text.trim_end() }
        });
        lines.filter(|line| !line.text.is_empty() && !line.text.starts_with(['*', '%'])).collect()
    }

    /// Whether it starts a section.
    pub(super) fn is_heading(&self) -> bool {
        !self.text.starts_with(' ')
    }

    fn field(&self, (from, to): (usize, usize)) -> Field<'a> {
        // Columns are characters; files are ASCII except in comments, where a cut inside of a character would be an error.
        let at = |column: usize| self.text.char_indices().nth(column).map_or(self.text.len(), |(at, _)| at);
        let (from_byte, to_byte) = if self.text.is_ascii() {
            (from.min(self.text.len()), to.min(self.text.len()))
        } else {
            (at(from), if to == usize::MAX { self.text.len() } else { at(to) })
        };
        let text = &self.text[from_byte..to_byte];
        let blanks = text.len() - text.trim_start().len();
        Field { line: self.number, column: from + blanks + 1, text: text.trim() }
    }

    /// Field 1: what the line does.
    pub(super) fn code(&self) -> &'a str {
        self.field(CODE).text
    }

    /// Field 2, a name.
    pub(super) fn name(&self) -> Field<'a> {
        self.word(0, NAMES[0])
    }

    /// Field 3, a name.
    pub(super) fn second(&self) -> Field<'a> {
        self.word(1, NAMES[1])
    }

    /// Field 4, a number.
    pub(super) fn number_of_second(&self) -> Field<'a> {
        self.word(2, FIRST_NUMBER)
    }

    /// Field 5, a name.
    pub(super) fn third(&self) -> Field<'a> {
        self.word(3, THIRD_NAME)
    }

    /// Field 6, a number.
    pub(super) fn number_of_third(&self) -> Field<'a> {
        self.word(4, SECOND_NUMBER)
    }

    /// A field by its columns, in which a name may have blanks; by counting words on a line that does not keep to the columns.
    fn word(&self, index: usize, columns: (usize, usize)) -> Field<'a> {
        if self.keeps_columns() {
            return self.field(columns);
        }
        let rest = &self.text[CODE.1.min(self.text.len())..];
        let text = rest.split_whitespace().nth(index).unwrap_or("");
        let column = if text.is_empty() {
            self.text.len()
        } else {
            text.as_ptr() as usize - self.text.as_ptr() as usize
        };
        Field { line: self.number, column: column + 1, text }
    }

    /// Whether no word lies across the start of a number: the name before it would then have blanks in it and end with a piece
    /// of the number.
    fn keeps_columns(&self) -> bool {
        let bytes = self.text.as_bytes();
        let crossed = |name: (usize, usize), number: usize| {
            let touching = bytes.len() > number && bytes[number - 1] != b' ' && bytes[number] != b' ';
            touching && self.field(name).text.contains("  ")
        };
        !(crossed(NAMES[1], FIRST_NUMBER.0) || crossed(THIRD_NAME, SECOND_NUMBER.0))
    }

    /// Field 7, an expression.
    pub(super) fn expression(&self) -> Field<'a> {
        self.field(EXPRESSION)
    }

    /// Names with the fields that hold their numbers: fields 3 and 4, fields 5 and 6.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Field<'a>, Field<'a>)> {
        let pairs = [(self.second(), self.number_of_second()), (self.third(), self.number_of_third())];
        pairs.into_iter().filter(|(name, _)| !name.text.is_empty())
    }

    pub(super) fn error<T>(&self, problem: impl Into<String>) -> Result<T> {
        self.field(CODE).error(problem)
    }
}

impl<'a> Field<'a> {
    /// A piece of the field, at the field's place.
    pub(super) fn part(self, text: &'a str) -> Self {
        Self { text, ..self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn error<T>(&self, problem: impl Into<String>) -> Result<T> {
        self.error_at(0, problem)
    }

    /// An error so many characters into the field.
    pub(super) fn error_at<T>(&self, offset: usize, problem: impl Into<String>) -> Result<T> {
        Err(Error::Text { line: self.line, column: self.column + offset, problem: problem.into() })
    }

    /// A number in Fortran's notation: `1.0D+3` too.
    pub(super) fn number(&self) -> Result<f64> {
        // Blanks mean nothing; the letter of an exponent may be D, or absent before its sign.
        let mut text = String::new();
        for c in self.text.chars().filter(|c| *c != ' ') {
            let after_digit = text.ends_with(|last: char| last.is_ascii_digit() || last == '.');
            if matches!(c, '+' | '-') && after_digit {
                text.push('e');
            }
            text.push(if matches!(c, 'D' | 'd' | 'E') { 'e' } else { c });
        }
        match text.trim_end_matches('e').parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ if self.is_empty() => self.error("a number is missing"),
            _ => self.error(format!("`{}` is not a number", self.text)),
        }
    }

    /// A number, or `default` if the field is empty.
    pub(super) fn number_or(&self, default: f64) -> Result<f64> {
        if self.is_empty() { Ok(default) } else { self.number() }
    }

    pub(super) fn integer(&self) -> Result<i64> {
        let value = self.number()?;
        if value.fract() == 0.0 && value.abs() <= 1e15 {
            return Ok(value as i64);
        }
        self.error(format!("`{}` is not an integer", self.text))
    }
}
