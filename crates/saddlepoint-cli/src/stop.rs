//! Text that comes in pieces, up to the first stop text.

/// Shows text as soon as it is certain that no stop text begins in it.
#[derive(Debug)]
pub(crate) struct UntilStop<'a> {
    stops: &'a [String],
    /// The beginning of what may become a stop text.
    held: String,
    stopped: bool,
}

impl<'a> UntilStop<'a> {
    /// None of `stops` may be empty.
    pub(crate) fn new(stops: &'a [String]) -> Self {
        UntilStop { stops, held: String::new(), stopped: false }
    }

    /// Takes the next piece and returns what can be shown now.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(|at| begins(*at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back when no more text comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop text has come.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&str], stops: &[String]) -> (String, bool) {
        let mut until = UntilStop::new(stops);
        let mut shown: String = pieces.iter().map(|piece| until.push(piece)).collect();
        shown += &until.finish();
        (shown, until.stopped())
    }

    #[test]
    fn a_stop_text_over_several_pieces_is_not_shown() {
        let stops = ["\n\nQ:".to_owned(), "END".to_owned()];
        assert_eq!(cut(&["An answer.\n", "\nQ", ": next"], &stops), ("An answer.".into(), true));
        assert_eq!(cut(&["An answer.\n", "\nQuestions"], &stops), ("An answer.\n\nQuestions".into(), false));
        assert_eq!(cut(&["EN", "EN", "D", "D"], &stops), ("EN".into(), true));
        assert_eq!(cut(&["a", "b"], &[]), ("ab".into(), false));
    }

    #[test]
    fn nothing_is_held_back_longer_than_needed() {
        let stops = ["aab".to_owned()];
        let mut until = UntilStop::new(&stops);
        assert_eq!(
            [until.push("a"), until.push("a"), until.push("a"), until.push("c")],
            ["", "", "a", "aac"]
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(pieces in prop::collection::vec("[ab]{0,3}", 0..8), stops in prop::collection::vec("[ab]{1,3}", 0..3)) {
            let whole = pieces.concat();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let end = stops.iter().filter_map(|stop| whole.find(stop)).min();
            let expected = (whole[..end.unwrap_or(whole.len())].to_owned(), end.is_some());
            // A longer stop that begins earlier may still be incomplete when a shorter one is whole.
            let overlapping = stops.iter().any(|a| stops.iter().any(|b| a != b && a.contains(b.as_str())));
            prop_assume!(!overlapping);
            prop_assert_eq!(cut(&pieces, &stops), expected);
        }
    }
}
