//! Text of a growing list of ids, piece by piece.

use super::Tokenizer;

/// Turns ids into text as they come. A piece never ends inside a UTF-8 character: bytes wait until the
/// character is whole. All pieces together with [`DecodeStream::finish`] are the text of all ids.
///
/// The text of an id depends on its neighbours (leading spaces, characters over several ids), so each step
/// decodes a short window of ids and emits what it adds.
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Context of the next piece, then the ids whose text is not yet whole.
    window: Vec<u32>,
    /// How many ids of the window are context.
    context: usize,
    /// How many bytes of the window's text have been emitted.
    shown: usize,
}

/// An incomplete character shows as up to this many `U+FFFD`: one, or with byte-fallback tokens one a byte.
const MAX_INCOMPLETE: usize = 3;

impl<'t> DecodeStream<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, window: Vec::new(), context: 0, shown: 0 }
    }

    /// Takes the next id and returns the text that is now whole, often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window);
        let pending =
            text.chars().rev().take(MAX_INCOMPLETE).take_while(|&c| c == char::REPLACEMENT_CHARACTER).count();
        let whole = text.len() - pending * char::REPLACEMENT_CHARACTER.len_utf8();
        let piece = text.get(self.shown..whole).unwrap_or_default().to_owned();
        self.shown = self.shown.max(whole);
        if pending == 0 {
            if piece.is_empty() {
                // A special token has no text and gives no context.
                self.window.pop();
            } else {
                self.window.drain(..self.context);
                self.context = self.window.len();
                self.shown = self.tokenizer.decode(&self.window).len();
            }
        }
        piece
    }

    /// Returns what is still held back; incomplete characters as `U+FFFD`.
    pub fn finish(self) -> String {
        self.tokenizer.decode(&self.window).get(self.shown..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::tokenizer;

    #[test]
    fn characters_over_several_ids_come_out_whole() {
        let t = tokenizer();
        let ids = t.encode("a🦀b").expect("encodes");
        let mut stream = t.stream();
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).filter(|p| !p.is_empty()).collect();
        assert_eq!(pieces, ["a", "🦀", "b"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn an_unfinished_character_is_emitted_at_the_end() {
        let t = tokenizer();
        let ids = t.encode("é").expect("encodes");
        let mut stream = t.stream();
        assert_eq!(stream.push(ids[0]), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_text(text in "\\PC{0,40}") {
            let t = tokenizer();
            let ids = t.encode(&text).expect("encodes");
            let mut stream = t.stream();
            let mut joined: String = ids.iter().map(|&id| stream.push(id)).collect();
            joined.push_str(&stream.finish());
            prop_assert_eq!(joined, t.decode(&ids));
        }

        #[test]
        fn any_ids_can_be_pushed(ids in prop::collection::vec(0u32..400, 0..40)) {
            let t = tokenizer();
            let mut stream = t.stream();
            for id in ids {
                stream.push(id);
            }
            stream.finish();
        }
    }
}
