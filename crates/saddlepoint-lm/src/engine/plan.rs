//! How much memory a run will take, known before it starts.

/// Bytes by part, in the order in which they are allocated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Name and bytes.
    pub parts: Vec<(String, u64)>,
}

impl MemoryPlan {
    /// Adds a part.
    pub fn add(&mut self, name: &str, bytes: u64) {
        self.parts.push((name.to_owned(), bytes));
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}
