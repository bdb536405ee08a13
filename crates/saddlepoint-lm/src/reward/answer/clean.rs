//! From LaTeX and prose to a plain notation: what changes the looks of an answer but not its meaning is taken away.

use std::sync::LazyLock;

use regex::{Captures, Regex};

macro_rules! pattern {
    ($name:ident, $pattern:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("a valid pattern"));
    };
}

pattern!(EXPLICIT_THOUSANDS, r"(\d)\s*(?:,\\!|\{,\})\s*");
pattern!(
    LAYOUT,
    // The end of a row of a matrix stays.
    r"(\\\\)|\\(?:left|right|bigl|bigr|big|Big|bigg|Bigg|displaystyle|textstyle|quad|qquad)\b|\\[!,;: ]|\\[()\[\]]|~"
);
pattern!(FRACTION, r"\\[dtc]frac");
pattern!(DEGREES, r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degrees?\b|°)");
pattern!(WORD_BETWEEN, r"\s*\\(?:text|mbox|textrm|mathrm)\s*\{\s*(?:and|or)\s*\}\s*|\s+(?:and|or)\s+");
pattern!(
    UNIT_IN_TEXT,
    r"^(.+?)\s*\\(?:text|mbox|textrm|mathrm|textbf|mathbf)\s*\{[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?$"
);
pattern!(TEXT, r"\\(?:text|mbox|textrm|mathrm|textbf|mathbf|textit|operatorname)\s*\{([^{}]*)\}");
pattern!(MIXED, r"(^|[^\d.])(\d+)\s+(\d+)\s*/\s*(\d+)");
pattern!(UNIT_WORDS, r"^(.*[\d}).])\s+([A-Za-z]{3,})((?:[ /-]?[A-Za-z²³]+)*(?:\^\{?[23]\}?)?)$");
pattern!(
    SHORT_UNIT,
    r"^(.*[\d}).])\s*(?:mm|cm|km|kg|mg|ml|mL|lbs?|oz|ft|in|hrs?|min|sec|mph|kph|mi|sq|deg)\.?(?:/[a-z]{1,4})?(?:\s*\^\s*\{?[23]\}?|[²³])?$"
);
pattern!(THOUSANDS, r"^\d{1,3}(?:,\d{3})+(?:\D|$)");

/// Words after a number that are not its unit.
const FUNCTIONS: [&str; 12] =
    ["sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "and", "inf", "infinity"];

/// The answer in plain notation. LaTeX commands that mean something stay.
pub(super) fn clean(text: &str) -> String {
    let mut text = text.trim().to_owned();
    for (from, to) in [
        ("−", "-"),
        ("–", "-"),
        ("×", r"\times "),
        ("·", r"\cdot "),
        ("÷", "/"),
        ("π", r"\pi "),
        ("√", r"\sqrt "),
        ("∞", r"\infty "),
        ("∪", r"\cup "),
        ("\u{a0}", " "),
        (r"\$", ""),
        ("$", ""),
        ("€", ""),
        ("£", ""),
        (r"\%", "%"),
        (" percent", "%"),
        ("**", if text.starts_with("**") { "" } else { "^" }),
    ] {
        text = text.replace(from, to);
    }
    text = EXPLICIT_THOUSANDS.replace_all(&text, "$1").into_owned();
    text = LAYOUT.replace_all(&text, "$1").into_owned();
    text = FRACTION.replace_all(&text, r"\frac").into_owned();
    text = DEGREES.replace_all(&text, "").into_owned();
    let mut text = text.trim().trim_end_matches(['.', ',', ';', ':']).trim().to_owned();
    text = WORD_BETWEEN.replace_all(&text, ", ").into_owned();
    text = without_unit(text);
    let mut text = TEXT.replace_all(&text, "$1").trim().to_owned();
    text = MIXED
        .replace_all(&text, |c: &Captures| format!("{}({}+{}/{})", &c[1], &c[2], &c[3], &c[4]))
        .into_owned();
    joined_thousands(&text)
}

fn without_unit(text: String) -> String {
    if let Some(found) = UNIT_IN_TEXT.captures(&text) {
        return found[1].to_owned();
    }
    if let Some(found) = UNIT_WORDS.captures(&text)
        && !FUNCTIONS.contains(&&found[2])
    {
        return found[1].to_owned();
    }
    match SHORT_UNIT.captures(&text) {
        Some(found) => found[1].to_owned(),
        None => text,
    }
}

/// Takes thousands separators away, except inside brackets, where a comma separates.
fn joined_thousands(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let (mut depth, mut last) = (0_i32, ' ');
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let starts = c.is_ascii_digit() && !(last.is_ascii_digit() || last == '.' || last == ',');
        if depth == 0 && starts && THOUSANDS.is_match(rest) {
            let len = rest.find(|c: char| !(c.is_ascii_digit() || c == ',')).unwrap_or(rest.len());
            joined.extend(rest[..len].chars().filter(char::is_ascii_digit));
            rest = &rest[len..];
            last = '0';
            continue;
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        joined.push(c);
        last = c;
        rest = &rest[c.len_utf8()..];
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_taken_away_and_meaning_stays() {
        for (text, plain) in [
            (r"\$32,\!348", "32348"),
            (r"11,\! 111,\! 111,\! 100", "11111111100"),
            ("$58,500.00$", "58500.00"),
            ("1,2,3", "1,2,3"),
            ("(1,234)", "(1,234)"),
            ("3, 5, 7", "3, 5, 7"),
            (r"\dfrac{1}{2}", r"\frac{1}{2}"),
            (r"90^\circ", "90"),
            (r"864 \mbox{ inches}^2", "864"),
            (r"\frac{270}7\text{ degrees}", r"\frac{270}7"),
            ("18 dollars per day.", "18"),
            ("12 km/h", "12"),
            ("15 cm^2", "15"),
            ("2 sin x", "2 sin x"),
            ("2k", "2k"),
            ("50 percent", "50%"),
            ("137 1/2", "(137+1/2)"),
            (r"\text{(C)}", "(C)"),
            (r"\left( 3, \frac{\pi}{2} \right)", r"( 3, \frac{\pi}{2} )"),
            (r"1 \text{ or } 2", "1, 2"),
        ] {
            assert_eq!(clean(text), plain, "{text}");
        }
    }
}
