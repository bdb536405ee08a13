//! Pieces of a file as a message repeats them: a message must not do to a terminal what a file says, and has to show what
//! cannot be seen.

use std::borrow::Cow;

/// Characters of a word that a message repeats.
const MOST: usize = 60;

/// The text with characters that act or cannot be seen as escapes: controls, marks of direction, joiners and spaces of no width.
///
/// ```
/// use saddlepoint_core::quote::escaped;
/// assert_eq!(escaped("1\0\u{1b}[2J\u{200b}é"), "1\\0\\u{1b}[2J\\u{200b}é");
/// ```
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(unseen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if unseen(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn unseen(c: char) -> bool {
    let marks =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || marks
}

/// The word between backquotes: escaped, and the beginning of a long one with its length, since an open quote can make a word of the
/// rest of a file.
///
/// ```
/// use saddlepoint_core::quote::word;
/// assert_eq!(word("1,5\n"), "`1,5\\n`");
/// assert_eq!(word(&"x".repeat(1000)), format!("`{}`... (1000 characters)", "x".repeat(60)));
/// ```
pub fn word(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        None => format!("`{}`", escaped(text)),
        Some((end, _)) => format!("`{}`... ({} characters)", escaped(&text[..end]), text.chars().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_hides_is_shown_and_nothing_else_is_touched() {
        for (text, shown) in [
            ("", ""),
            ("a \"quoted\" \\ 'word' ü 数 e\u{301}", "a \"quoted\" \\ 'word' ü 数 e\u{301}"),
            ("\0\t\r\n\u{7f}\u{9b}", "\\0\\t\\r\\n\\u{7f}\\u{9b}"),
            ("1\u{202e}2\u{feff}", "1\\u{202e}2\\u{feff}"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn a_long_word_is_cut_between_characters() {
        assert_eq!(word(&"é".repeat(60)), format!("`{}`", "é".repeat(60)));
        assert_eq!(word(&"é".repeat(61)), format!("`{}`... (61 characters)", "é".repeat(60)));
    }
}
