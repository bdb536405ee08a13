//! Fenced blocks of Markdown.

/// The content of the last closed block; of those that name one of `languages`, if any does.
pub(super) fn last<'a>(text: &'a str, languages: &[&str]) -> Option<&'a str> {
    let mut blocks: Vec<(&str, &str)> = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("```") {
        let (info, body) = after.split_once('\n')?;
        let Some((block, behind)) = body.split_once("```") else { break };
        blocks.push((info.trim(), block));
        rest = behind;
    }
    let named = blocks.iter().rev().find(|(info, _)| languages.contains(info));
    named.or(blocks.last()).map(|(_, block)| *block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_of_the_language_is_taken() {
        let text = "```python\na\n```\nthen\n```py\nb\n```\nprints\n```text\nc\n```\n";
        assert_eq!(last(text, &["python", "py"]), Some("b\n"));
        assert_eq!(last(text, &["json"]), Some("c\n"));
        assert_eq!(last("```python\nnot closed", &["python"]), None);
        assert_eq!(last("none", &["python"]), None);
        assert_eq!(last("```", &["python"]), None);
    }
}
