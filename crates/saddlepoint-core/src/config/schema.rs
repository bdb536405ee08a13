//! A reading view of a JSON schema as schemars makes it from configuration types.

use serde_json::Value;

/// A place in a schema. References and optional values (`T` or null) are seen through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    root: &'a Value,
    here: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn root(schema: &'a Value) -> Self {
        Self { root: schema, here: schema }
    }

    fn at(self, here: &'a Value) -> Self {
        Self { root: self.root, here }
    }

    /// The schema objects that all apply here: this one, what it refers to, its `allOf` members, and the only
    /// alternative beside null.
    fn facets(self) -> Vec<&'a Value> {
        let mut facets = vec![self.here];
        let mut add = |here| facets.extend(self.at(here).facets());
        let target = self.here["$ref"].as_str().and_then(|path| self.root.pointer(path.strip_prefix('#')?));
        target.into_iter().for_each(&mut add);
        self.here["allOf"].as_array().into_iter().flatten().for_each(&mut add);
        if let [only] = options(self.here)[..] {
            add(only);
        }
        facets
    }

    fn find<T>(self, look: impl FnMut(&'a Value) -> Option<T>) -> Option<T> {
        self.facets().into_iter().find_map(look)
    }

    /// The kinds of value that may stand here, if there are several beside null.
    pub(super) fn alternatives(self) -> Vec<Node<'a>> {
        let options = self.find(|facet| Some(options(facet)).filter(|options| options.len() > 1));
        options.unwrap_or_default().into_iter().map(|here| self.at(here)).collect()
    }

    /// The key whose fixed text tells the alternatives apart (`name` of a method).
    pub(super) fn tag(self) -> Option<&'a str> {
        let alternatives = self.alternatives();
        let fixed = |node: &Node<'a>, key: &str| node.field(key).is_some_and(|field| field.fixed().is_some());
        let candidates = alternatives.first()?.fields();
        candidates
            .into_iter()
            .map(|(key, _)| key)
            .find(|key| alternatives.iter().all(|node| fixed(node, key)))
    }

    /// The one text that is allowed here, if it is one.
    pub(super) fn fixed(self) -> Option<&'a str> {
        self.find(|facet| facet["const"].as_str())
    }

    /// Keys of a table and what they hold. Alternatives that no tag tells apart count together.
    pub(super) fn fields(self) -> Vec<(&'a str, Node<'a>)> {
        let mut fields = self.own_fields();
        for (key, node) in self.alternatives().into_iter().flat_map(Node::fields) {
            if !fields.iter().any(|(known, _)| *known == key) {
                fields.push((key, node));
            }
        }
        fields
    }

    /// Of these, the keys that stand beside the alternatives, whichever is chosen.
    pub(super) fn own_fields(self) -> Vec<(&'a str, Node<'a>)> {
        let own = self.facets().into_iter().filter_map(|facet| facet["properties"].as_object()).flatten();
        own.map(|(key, here)| (key.as_str(), self.at(here))).collect()
    }

    pub(super) fn field(self, key: &str) -> Option<Node<'a>> {
        self.fields().into_iter().find_map(|(known, node)| (known == key).then_some(node))
    }

    /// Keys that a table here must have.
    pub(super) fn required(self) -> Vec<&'a str> {
        let lists = self.facets().into_iter().filter_map(|facet| facet["required"].as_array());
        lists.flatten().filter_map(Value::as_str).collect()
    }

    /// What the values of a table with free keys hold.
    pub(super) fn values(self) -> Option<Node<'a>> {
        self.find(|facet| facet.get("additionalProperties").filter(|here| here.is_object()))
            .map(|here| self.at(here))
    }

    /// What the `i`-th element of an array holds.
    pub(super) fn item(self, i: usize) -> Option<Node<'a>> {
        let here = self.find(|facet| facet["prefixItems"].get(i).or_else(|| facet.get("items")))?;
        here.is_object().then(|| self.at(here))
    }

    /// JSON types that may stand here; none means any.
    pub(super) fn types(self) -> Vec<&'a str> {
        let mut types: Vec<&str> = self
            .facets()
            .into_iter()
            .flat_map(|facet| match &facet["type"] {
                Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
                one => one.as_str().into_iter().collect::<Vec<_>>(),
            })
            .chain(self.alternatives().into_iter().flat_map(Node::types))
            .filter(|kind| *kind != "null")
            .collect();
        types.dedup();
        types
    }

    /// The texts that may stand here; none means that text is not restricted (or not allowed at all).
    pub(super) fn choices(self) -> Vec<&'a str> {
        let alternatives = self.alternatives();
        let any_text = |node: &Node<'_>| node.types().contains(&"string") && node.choices().is_empty();
        if alternatives.iter().any(any_text) {
            return Vec::new();
        }
        let listed = self.facets().into_iter().filter_map(|facet| facet["enum"].as_array()).flatten();
        let own = listed.filter_map(Value::as_str).chain(self.fixed());
        own.chain(alternatives.into_iter().flat_map(Node::choices)).collect()
    }

    /// Least and greatest number allowed.
    pub(super) fn range(self) -> (Option<f64>, Option<f64>) {
        (self.find(|facet| facet["minimum"].as_f64()), self.find(|facet| facet["maximum"].as_f64()))
    }

    /// Whether the value may be left unset.
    pub(super) fn optional(self) -> bool {
        let nullable = |facet: &Value| {
            let listed =
                facet["type"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "null"));
            listed || alternatives_of(facet).any(is_null)
        };
        self.facets().into_iter().any(nullable)
    }

    /// What the key has, or else what its type has.
    pub(super) fn default(self) -> Option<&'a Value> {
        self.find(|facet| facet.get("default")).filter(|value| !value.is_null())
    }

    /// First paragraph of the doc comment, on one line.
    pub(super) fn doc(self) -> String {
        let text = self.find(|facet| facet["description"].as_str()).unwrap_or_default();
        let paragraph = text.split("\n\n").next().unwrap_or_default();
        paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn alternatives_of(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten()
}

fn options(schema: &Value) -> Vec<&Value> {
    alternatives_of(schema).filter(|option| !is_null(option)).collect()
}

fn is_null(schema: &Value) -> bool {
    schema["type"] == "null"
}
