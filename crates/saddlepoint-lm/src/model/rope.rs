//! Rotary keys of `config.json`: the `rope_parameters` of transformers 5 and the older
//! `rope_theta` with `rope_scaling`.

use serde_json::Value;

use super::json::{Keys, Object};
use crate::Result;
use crate::engine::{Rope, RopeScaling};

/// Base where the file names none, as in transformers.
const THETA: f64 = 10_000.0;

/// Reads the rotary embedding; `context` is the length that stands in for a missing original one.
pub(super) fn read(keys: Keys, context: usize) -> Result<Rope> {
    if !matches!(keys.number("partial_rotary_factor")?, None | Some(1.0)) {
        return Err(keys.refuse("partial_rotary_factor", "rotating a part of a head is not supported"));
    }
    let outer = keys.number("rope_theta")?.unwrap_or(THETA);
    // transformers lets a rope_scaling that is neither null nor empty win over rope_parameters.
    let scaling = keys.object("rope_scaling")?.filter(|object| !object.is_empty());
    let (name, object) = match scaling {
        Some(object) => ("rope_scaling", object),
        None => match keys.object("rope_parameters")? {
            Some(object) => ("rope_parameters", object),
            None => return checked(keys, Rope { theta: outer, scaling: RopeScaling::None }),
        },
    };
    let (prefix, object) = match object.get("full_attention").and_then(|inner| inner.as_object()) {
        Some(inner) => (format!("{name}.full_attention."), inner),
        None => (format!("{name}."), object),
    };
    let inner = Keys { path: keys.path, prefix: &prefix, object };
    if !matches!(inner.number("partial_rotary_factor")?, None | Some(1.0)) {
        return Err(inner.refuse("partial_rotary_factor", "rotating a part of a head is not supported"));
    }
    let theta = inner.number("rope_theta")?.unwrap_or(outer);
    let key = if inner.get("rope_type").is_some() { "rope_type" } else { "type" };
    let need = |key: &str| {
        let value =
            inner.number(key)?.ok_or_else(|| inner.refuse(key, "is missing; this rope_type needs it"))?;
        if value.is_finite() && value > 0.0 { Ok(value) } else { Err(inner.refuse(key, "must be positive")) }
    };
    let scaling = match inner.text(key)?.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear(need("factor")?),
        "llama3" => {
            let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
            if high <= low {
                return Err(inner.refuse("high_freq_factor", "must be greater than low_freq_factor"));
            }
            let outer = keys.count("original_max_position_embeddings")?;
            let original = outer.or(inner.count("original_max_position_embeddings")?).unwrap_or(context);
            RopeScaling::Llama3 { factor: need("factor")?, low, high, original }
        }
        _ => {
            return Err(inner.refuse(key, "this rope type is not supported (default, linear and llama3 are)"));
        }
    };
    checked(keys, Rope { theta, scaling })
}

/// Writes the base of the frequencies wherever [`read`] may look for it.
pub(super) fn set_theta(config: &mut Object, theta: f64) {
    config.insert("rope_theta".into(), theta.into());
    for name in ["rope_scaling", "rope_parameters"] {
        let Some(Value::Object(inner)) = config.get_mut(name) else { continue };
        let place = match inner.get_mut("full_attention") {
            Some(Value::Object(nested)) => nested,
            _ => inner,
        };
        if place.contains_key("rope_theta") {
            place.insert("rope_theta".into(), theta.into());
        }
    }
}

fn checked(keys: Keys, rope: Rope) -> Result<Rope> {
    if rope.theta.is_finite() && rope.theta > 0.0 {
        Ok(rope)
    } else {
        Err(super::bad(keys.path, format!("rope_theta must be positive, got {}", rope.theta)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn rope(config: &Value) -> Result<Rope, String> {
        let object = config.as_object().expect("an object");
        read(Keys::new(Path::new("config.json"), object), 2_048).map_err(|error| error.to_string())
    }

    #[test]
    fn both_spellings_say_the_same() {
        let llama3 = json!({
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        });
        let mut inside = llama3.clone();
        inside["rope_theta"] = json!(500_000.0);
        let old = rope(&json!({ "rope_theta": 500_000.0, "rope_scaling": llama3 })).expect("old form");
        let new = rope(&json!({ "rope_parameters": inside })).expect("new form");
        let scaling = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8_192 };
        assert_eq!(old, Rope { theta: 500_000.0, scaling });
        assert_eq!(old, new);
        let nested = json!({ "rope_parameters": { "full_attention": { "rope_theta": 7.0 } } });
        assert_eq!(rope(&nested).expect("nested"), Rope { theta: 7.0, scaling: RopeScaling::None });
        let linear = json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } });
        assert_eq!(rope(&linear).expect("linear"), Rope { theta: THETA, scaling: RopeScaling::Linear(2.0) });
    }

    #[test]
    fn another_base_is_read_back_from_every_spelling() {
        for config in [
            json!({}),
            json!({ "rope_theta": 7.0 }),
            json!({ "rope_theta": 7.0, "rope_scaling": { "type": "linear", "factor": 2.0 } }),
            json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 7.0 } }),
            json!({ "rope_theta": 3.0, "rope_parameters": { "full_attention": { "rope_theta": 7.0 } } }),
        ] {
            let before = rope(&config).expect("valid");
            let mut object = config.as_object().expect("an object").clone();
            set_theta(&mut object, 1e7);
            assert_eq!(rope(&Value::Object(object)).expect("valid"), Rope { theta: 1e7, ..before });
        }
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let yarn = json!({ "rope_parameters": { "rope_type": "yarn", "factor": 4.0 } });
        let message = rope(&yarn).expect_err("refused");
        assert_eq!(
            message,
            "config.json: rope_parameters.rope_type = \"yarn\": this rope type is not supported (default, \
             linear and llama3 are)"
        );
        let message = rope(&json!({ "rope_scaling": { "rope_type": "linear" } })).expect_err("refused");
        assert_eq!(message, "config.json: rope_scaling.factor = null: is missing; this rope_type needs it");
        let message =
            rope(&json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } })).expect_err("refused");
        assert!(message.contains("rope_parameters.partial_rotary_factor = 0.5"), "{message}");
        let message = rope(&json!({ "rope_theta": 0 })).expect_err("refused");
        assert_eq!(message, "config.json: rope_theta must be positive, got 0");
    }
}
