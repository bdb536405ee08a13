//! Named numbers of one step, in the order in which they were set.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// An ordered list of named values. Names follow TRL (`loss`, `rewards/margins`, `grad_norm`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value; a name that is there already keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// All names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A JSON object; values that are not finite become `null`.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, &value.is_finite().then_some(value))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_replaces_in_place_and_nulls_what_is_not_finite() {
        let mut metrics = Metrics::new();
        assert!(metrics.is_empty());
        metrics.set("loss", 2.0);
        metrics.set("kl", f64::NAN);
        metrics.set("loss", 0.1);
        assert_eq!(metrics.get("loss"), Some(0.1));
        assert_eq!(metrics.get("reward"), None);
        assert_eq!(metrics.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["loss", "kl"]);
        assert_eq!(serde_json::to_string(&metrics).unwrap(), r#"{"loss":0.1,"kl":null}"#);
    }
}
