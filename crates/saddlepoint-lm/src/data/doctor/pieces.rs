//! A sequence as text, split where training begins and ends.

use crate::data::Tokenizer;

/// Text of neighbouring tokens that are all trained or all not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text, special tokens spelled out.
    pub text: String,
    /// Whether it is trained.
    pub trained: bool,
}

/// Splits a sequence for display. A character whose bytes lie on both sides of a border is shown with the
/// second piece.
pub fn pieces(tokenizer: &Tokenizer, ids: &[u32], trained: &[bool]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut shown = String::new();
    let mut end = 0;
    for run in trained[..trained.len().min(ids.len())].chunk_by(|a, b| a == b) {
        end += run.len();
        // Decoded from the start: a decoder may treat the first token of a text differently.
        let text = tokenizer.decode_with_special_tokens(&ids[..end]);
        let text = if end < ids.len() { text.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { &text };
        let piece = text.strip_prefix(shown.as_str()).unwrap_or_default();
        if !piece.is_empty() {
            pieces.push(Piece { text: piece.to_owned(), trained: run[0] });
            text.clone_into(&mut shown);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::fixture::tokenizer;

    #[test]
    fn pieces_follow_the_mask() {
        let t = tokenizer();
        let ids = t.encode("<|im_start|>x🦀<|im_end|>").expect("encodes");
        let mut trained = vec![true; ids.len()];
        trained[..2].fill(false);
        let shown = pieces(&t, &ids, &trained);
        let piece = |text: &str, trained| Piece { text: text.to_owned(), trained };
        assert_eq!(shown, [piece("<|im_start|>x", false), piece("🦀<|im_end|>", true)]);
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_text(text in "[a-zé🦀 ]{0,20}", flags in prop::collection::vec(any::<bool>(), 90)) {
            let t = tokenizer();
            let ids = t.encode(&text).expect("encodes");
            let joined: String = pieces(&t, &ids, &flags[..ids.len()]).into_iter().map(|p| p.text).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
