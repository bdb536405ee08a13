//! A batch as a forest: shared prefixes are stored and computed once, nothing is padded.

use std::ops::Range;

/// Tokens that continue their parent. A root (no parent) starts at position 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of the segment it continues; always smaller than its own.
    pub parent: Option<usize>,
    /// Its tokens in [`Forest::tokens`]; never empty.
    pub tokens: Range<usize>,
    /// Position of its first token, counted from the root's first token.
    pub start: usize,
    /// Index of the tree it belongs to.
    pub tree: usize,
}

/// A prediction that somebody wants: the token after `at` is `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Index in [`Forest::tokens`] of the token whose hidden state predicts.
    pub at: usize,
    /// The token predicted.
    pub target: u32,
}

/// The batch. Built with [`Forest::root`] and [`Forest::child`]; each tree's segments are contiguous.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forest {
    /// Token ids of all segments, `[N]`.
    pub tokens: Vec<u32>,
    /// The segments, parents before children.
    pub segments: Vec<Segment>,
    /// The predictions, `[R]`.
    pub rows: Vec<Row>,
    /// Of each prediction the tokens whose log-probabilities are wanted beside the target's, each once; empty if none are of any.
    pub listed: Vec<Vec<u32>>,
}

impl Forest {
    /// Starts a tree and returns its root segment.
    pub fn root(&mut self, tokens: &[u32]) -> usize {
        let tree = self.segments.last().map_or(0, |last| last.tree + 1);
        self.push(None, 0, tree, tokens)
    }

    /// Continues `parent`, which must belong to the newest tree.
    pub fn child(&mut self, parent: usize, tokens: &[u32]) -> usize {
        let (start, tree) = {
            let p = &self.segments[parent];
            (p.start + p.tokens.len(), p.tree)
        };
        assert_eq!(self.segments.last().map(|s| s.tree), Some(tree), "a child belongs to the newest tree");
        self.push(Some(parent), start, tree, tokens)
    }

    fn push(&mut self, parent: Option<usize>, start: usize, tree: usize, tokens: &[u32]) -> usize {
        assert!(!tokens.is_empty(), "a segment has at least one token");
        let from = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.segments.push(Segment { parent, tokens: from..self.tokens.len(), start, tree });
        self.segments.len() - 1
    }

    /// Asks for the prediction of every token of `completion` after segment `prompt`, which is hung
    /// below it as a child. Only the tokens that something follows are computed. Returns the rows.
    pub fn completion(&mut self, prompt: usize, completion: &[u32]) -> Range<usize> {
        assert!(!completion.is_empty(), "a completion has at least one token");
        let from = self.rows.len();
        let last = self.segments[prompt].tokens.end - 1;
        self.rows.push(Row { at: last, target: completion[0] });
        if completion.len() > 1 {
            let child = self.child(prompt, &completion[..completion.len() - 1]);
            let first = self.segments[child].tokens.start;
            for (i, &target) in completion[1..].iter().enumerate() {
                self.rows.push(Row { at: first + i, target });
            }
        }
        from..self.rows.len()
    }

    /// Adds one sequence as a tree of its own and asks for the prediction of each token `i` with
    /// `supervised[i]` (the first token has no prediction and must not be supervised). Returns the rows.
    pub fn sequence(&mut self, tokens: &[u32], supervised: &[bool]) -> Range<usize> {
        assert_eq!(tokens.len(), supervised.len(), "one flag a token");
        assert!(!supervised[0], "the first token of a sequence has no prediction");
        let last = supervised.iter().rposition(|&s| s).expect("a sequence has a supervised token");
        let from = self.rows.len();
        let root = self.root(&tokens[..last]);
        let first = self.segments[root].tokens.start;
        for i in 1..=last {
            if supervised[i] {
                self.rows.push(Row { at: first + i - 1, target: tokens[i] });
            }
        }
        from..self.rows.len()
    }

    /// Number of tokens `N`.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The chain of segments from the root down to `segment`, inclusive.
    pub fn chain(&self, segment: usize) -> Vec<usize> {
        let mut chain = vec![segment];
        while let Some(parent) = self.segments[chain[chain.len() - 1]].parent {
            chain.push(parent);
        }
        chain.reverse();
        chain
    }
}
