//! `{% generation %}` blocks, which tell the assistant's words from the rest.
//!
//! minijinja has no custom tags. A `filter` block has the same shape and the same whitespace rules, so
//! `{% generation %} ... {% endgeneration %}` becomes `{% filter mark_generated %} ... {% endfilter %}`, and the
//! filter puts two noncharacters around its text, which are taken out of the render.

use minijinja::Value;

use super::Rendered;

pub(super) const FILTER: &str = "mark_generated";

/// Unicode noncharacters: no text may hold them, so they cannot be taken for the author's.
const START: char = '\u{FDD0}';
const END: char = '\u{FDD1}';
pub(super) const MARKS: [char; 2] = [START, END];

/// The filter of the rewritten blocks.
#[allow(clippy::needless_pass_by_value, reason = "minijinja hands filters their arguments by value")]
pub(super) fn mark(body: Value) -> String {
    format!("{START}{body}{END}")
}

/// Takes the marks out of a render; `None` if they do not come in pairs. Of blocks inside one another the outer
/// counts.
pub(super) fn take_marks(marked: &str) -> Option<Rendered> {
    let mut text = String::with_capacity(marked.len());
    let mut generated = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for c in marked.chars() {
        match c {
            START => {
                if depth == 0 {
                    start = text.len();
                }
                depth += 1;
            }
            END => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    generated.push(start..text.len());
                }
            }
            _ => text.push(c),
        }
    }
    (depth == 0).then_some(Rendered { text, generated })
}

/// The template with its generation blocks rewritten; `None` if it has none. Comments, raw blocks and strings
/// inside expressions are left alone.
pub(super) fn rewrite(source: &str) -> Option<String> {
    let mut out = String::with_capacity(source.len() + 64);
    let mut rest = source;
    let mut found = false;
    while let Some(at) = opening(rest) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (length, replacement) = match &rest[..2] {
            "{#" => (rest.find("#}").map_or(rest.len(), |end| end + 2), None),
            "{{" => (code_length(rest, "}}"), None),
            _ => match tag_name(rest) {
                Some(("raw", _)) => (raw_length(rest), None),
                Some((name, range)) if name == "generation" || name == "endgeneration" => {
                    let new = if name == "generation" {
                        format!("filter {FILTER}")
                    } else {
                        "endfilter".to_owned()
                    };
                    (code_length(rest, "%}"), Some((range, new)))
                }
                _ => (code_length(rest, "%}"), None),
            },
        };
        let mut copied = 0;
        if let Some((range, new)) = replacement {
            found = true;
            out.push_str(&rest[..range.start]);
            out.push_str(&new);
            copied = range.end;
        }
        let length = length.max(copied);
        out.push_str(&rest[copied..length]);
        rest = &rest[length..];
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Where the next `{{`, `{%` or `{#` is.
fn opening(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|w| w[0] == b'{' && matches!(w[1], b'{' | b'%' | b'#'))
}

/// Name of the tag that `text` begins with, and where it stands.
fn tag_name(text: &str) -> Option<(&str, std::ops::Range<usize>)> {
    let inside = text.strip_prefix("{%")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start();
    let start = text.len() - inside.len();
    let length = inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len());
    Some((&inside[..length], start..start + length))
}

/// Length of the expression or tag that `text` begins with, up to `close` outside strings and brackets.
fn code_length(text: &str, close: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (2, 0_usize);
    while at < bytes.len() {
        if depth == 0 && bytes[at..].starts_with(close.as_bytes()) {
            return at + 2;
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Length of the raw block that `text` begins with, its end tag included.
fn raw_length(text: &str) -> usize {
    let mut at = 2;
    while let Some(found) = text[at..].find("{%") {
        at += found;
        if tag_name(&text[at..]).is_some_and(|(name, _)| name == "endraw") {
            return at + code_length(&text[at..], "%}");
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_are_rewritten_with_their_whitespace_control() {
        let rewritten = rewrite("a{%- generation -%}b{%+endgeneration%}c").expect("it has a block");
        assert_eq!(rewritten, "a{%- filter mark_generated -%}b{%+endfilter%}c");
    }

    #[test]
    fn look_alikes_are_left_alone() {
        for text in [
            "{# {% generation %} #}x",
            "{{ '{% generation %}' }}",
            "{% set a = \"{% generation %}\" %}",
            "{% raw %}{% generation %}{% endraw %}",
            "{%- set generation_count = 1 %}",
            "{{ {'a': {'b': '}}{% generation %}'}} }}",
            "{% generations %}",
        ] {
            assert_eq!(rewrite(text), None, "{text}");
        }
        assert!(rewrite("{% raw %}{% endraw %}{% generation %}").is_some());
    }

    #[test]
    fn marks_become_byte_ranges() {
        let rendered = take_marks("ä\u{FDD0}bc\u{FDD1}d\u{FDD0}\u{FDD1}").expect("they come in pairs");
        assert_eq!(rendered, Rendered { text: "äbcd".to_owned(), generated: vec![2..4, 5..5] });
        let nested = take_marks("\u{FDD0}a\u{FDD0}b\u{FDD1}\u{FDD1}c").expect("they come in pairs");
        assert_eq!(
            (nested.text.as_str(), nested.generated.as_slice()),
            ("abc", std::slice::from_ref(&(0..2)))
        );
        assert_eq!(take_marks("\u{FDD0}a"), None);
        assert_eq!(take_marks("a\u{FDD1}"), None);
    }

    proptest! {
        #[test]
        fn rewriting_keeps_lines_and_everything_but_the_tag_names(text in "(\\{%-? ?(generation|endgeneration|if x|raw|endraw) ?%\\}|\\{\\{|\\}\\}|\\{#|#\\}|'|\"|\\\\|\n|é){0,12}") {
            if let Some(rewritten) = rewrite(&text) {
                prop_assert_eq!(rewritten.matches('\n').count(), text.matches('\n').count());
                let back = rewritten.replace("filter mark_generated", "generation").replace("endfilter", "endgeneration");
                prop_assert_eq!(back, text);
            }
        }
    }
}
