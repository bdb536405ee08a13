//! What kind of answer a text is.

use super::clean::clean;
use super::expression::{Expression, expression};

/// An answer, and its plain text without spaces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Expression(Expression),
    Percent(Expression),
    /// Left and right side.
    Equation(Expression, Expression),
    /// In brackets: a tuple or an interval.
    Tuple {
        open: char,
        close: char,
        items: Vec<Answer>,
    },
    /// In any order: a set, a list or a union.
    Set(Vec<Answer>),
    /// Row by row.
    Matrix(Vec<Vec<Answer>>),
    Text,
}

/// Longer answers are text.
const MOST_BYTES: usize = 2000;
/// Sets of sets of tuples are as deep as answers go.
const MOST_DEPTH: usize = 6;

/// Reads an answer as it was written.
pub(super) fn parse(text: &str) -> Answer {
    if text.len() > MOST_BYTES {
        return Answer { text: text.trim().to_owned(), kind: Kind::Text };
    }
    plain(&clean(text), 0)
}

fn plain(text: &str, depth: usize) -> Answer {
    let text = text.trim();
    let kind = if depth > MOST_DEPTH { Kind::Text } else { kind(text, depth + 1) };
    Answer { text: text.chars().filter(|c| !c.is_whitespace()).collect(), kind }
}

fn kind(text: &str, depth: usize) -> Kind {
    if is_words(text) {
        return Kind::Text;
    }
    let all = |parts: Vec<&str>| parts.into_iter().map(|part| plain(part, depth)).collect::<Vec<_>>();
    if let [variable, set] = split(text, r"\in ")[..]
        && is_name(variable)
    {
        return kind(set.trim(), depth);
    }
    let union = split(text, r"\cup");
    if union.len() > 1 {
        return Kind::Set(all(union));
    }
    if let Some(rows) = matrix(text) {
        return Kind::Matrix(rows.into_iter().map(all).collect());
    }
    let list = split(text, ",");
    if list.len() > 1 {
        return Kind::Set(flat(all(list)));
    }
    if let Some(items) = text.strip_prefix(r"\{").and_then(|text| text.strip_suffix(r"\}")) {
        return Kind::Set(flat(all(split(items, ","))));
    }
    if let Some((open, inner, close)) = bracketed(text) {
        let items = split(inner, ",");
        if items.len() > 1 {
            return Kind::Tuple { open, close, items: all(items) };
        }
    }
    if text.contains(r"\pm") || text.contains(r"\mp") {
        let sides = [["+", "-"], ["-", "+"]].map(|[pm, mp]| text.replace(r"\pm", pm).replace(r"\mp", mp));
        return Kind::Set(sides.iter().map(|side| plain(side, depth)).collect());
    }
    if let [left, right] = split(text, "=")[..]
        && let (Some(left), Some(right)) = (expression(left), expression(right))
    {
        return Kind::Equation(left, right);
    }
    if let Some(number) = text.strip_suffix('%').and_then(expression) {
        return Kind::Percent(number);
    }
    expression(text).map_or(Kind::Text, Kind::Expression)
}

/// Sets in a list are that of `\pm`: their elements are elements of the list.
fn flat(items: Vec<Answer>) -> Vec<Answer> {
    let elements = |item: Answer| match item.kind {
        Kind::Set(items) => items,
        kind => vec![Answer { text: item.text, kind }],
    };
    items.into_iter().flat_map(elements).collect()
}

/// Letters alone, at least three: a word, not a product of variables. `pi` and functions are no words.
fn is_words(text: &str) -> bool {
    let letters = text.chars().filter(char::is_ascii_alphabetic).count();
    let word = |c: char| c.is_alphabetic() || c.is_whitespace() || matches!(c, '-' | '\'' | '(' | ')' | '.');
    let functions = ["sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "inf"];
    letters >= 3 && text.chars().all(word) && !functions.iter().any(|name| text.contains(name))
}

fn is_name(text: &str) -> bool {
    let text = text.trim();
    text.len() == 1 && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// The parts between separators outside all brackets.
fn split<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    let mut skip_to = 0;
    for (i, c) in text.char_indices() {
        if i < skip_to {
            continue;
        }
        if depth == 0 && text[i..].starts_with(separator) {
            parts.push(&text[start..i]);
            start = i + separator.len();
            skip_to = start;
            continue;
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// What is inside, if one pair of brackets encloses everything.
fn bracketed(text: &str) -> Option<(char, &str, char)> {
    let (open, close) = (text.chars().next()?, text.chars().next_back()?);
    if !matches!(open, '(' | '[') || !matches!(close, ')' | ']') || text.len() < 2 {
        return None;
    }
    let mut depth = 0_i32;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && i + 1 < text.len() {
            return None;
        }
    }
    Some((open, &text[1..text.len() - 1], close))
}

/// The entries of `\begin{pmatrix} a & b \\ c & d \end{pmatrix}`.
fn matrix(text: &str) -> Option<Vec<Vec<&str>>> {
    let (kind, rest) = text.strip_prefix(r"\begin{")?.split_once('}')?;
    let body = rest.strip_suffix(&format!(r"\end{{{kind}}}"))?;
    if !kind.ends_with("matrix") && kind != "array" {
        return None;
    }
    let rows = body.trim().trim_end_matches(r"\\").split(r"\\");
    Some(rows.map(|row| row.split('&').collect()).collect())
}
