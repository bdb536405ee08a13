//! Verdicts of the standard, and what is refused.

use serde_json::json;

use super::super::tests::case;
use super::*;

fn allows(schema: Value, value: &Value) -> bool {
    Schema::new(schema).expect("a schema").allows(value).expect("judged")
}

#[test]
fn verdicts_are_those_of_the_standard() {
    // (schema, allowed, refused), after the examples of the JSON Schema test suite, draft 2020-12.
    for (schema, yes, no) in [
        (json!({"type": "integer"}), json!([1, 1.0, -3]), json!([1.5, "1", null, true])),
        (json!({"type": ["string", "null"]}), json!(["", null]), json!([0, []])),
        (
            json!({"enum": [6, "foo", [], {"foo": 12}]}),
            json!([6.0, {"foo": 12.0}, []]),
            json!([7, {"foo": 13}]),
        ),
        (json!({"const": {"a": 1, "b": 2}}), json!([{"b": 2, "a": 1}]), json!([{"a": 1}, 5])),
        (json!({"minimum": 1.1}), json!([2.6, 1.1, "x"]), json!([0.6])),
        (json!({"exclusiveMaximum": 3.0}), json!([2.2]), json!([3.0, 3.5])),
        (json!({"multipleOf": 0.01}), json!([0.07, 4.5, 0]), json!([0.008])),
        (json!({"minLength": 2, "maxLength": 3}), json!(["fo", "日本語", 100]), json!(["f", "long"])),
        (json!({"pattern": "^a*$"}), json!(["aaa", true]), json!(["abc"])),
        (json!({"items": {"type": "integer"}}), json!([[], [1, 2], {"x": "y"}]), json!([[1, "x"]])),
        (
            json!({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}),
            json!([[1, "x"], [1], []]),
            json!([["x", 1], [1, "x", 2]]),
        ),
        (json!({"uniqueItems": true}), json!([[1, 2], [1, true]]), json!([[1, 1.0], [{"a": 1}, {"a": 1}]])),
        (json!({"required": ["foo"]}), json!([{"foo": 1}, 12]), json!([{"bar": 1}])),
        (
            json!({"properties": {"foo": {}, "bar": {}}, "patternProperties": {"^v": {}}, "additionalProperties": false}),
            json!([{"foo": 1}, {"foo": 1, "vroom": 2}, []]),
            json!([{"foo": 1, "quux": 2}]),
        ),
        (json!({"additionalProperties": {"type": "boolean"}}), json!([{"a": true}]), json!([{"a": 1}])),
        (
            json!({"patternProperties": {"f.*o": {"type": "integer"}}}),
            json!([{"foo": 1, "x": "y"}]),
            json!([{"fooo": "a"}]),
        ),
        (json!({"minProperties": 1, "maxProperties": 1}), json!([{"a": 1}]), json!([{}, {"a": 1, "b": 2}])),
        (json!({"allOf": [{"minimum": 2}, {"maximum": 4}]}), json!([3]), json!([1, 5])),
        (json!({"anyOf": [{"type": "integer"}, {"minimum": 2}]}), json!([1, 2.5]), json!([1.5])),
        (json!({"oneOf": [{"type": "integer"}, {"minimum": 2}]}), json!([1, 2.5]), json!([3, 1.5])),
        (json!({"not": {"type": "integer"}}), json!(["foo"]), json!([1])),
        (
            json!({"if": {"exclusiveMaximum": 0}, "then": {"minimum": -10}, "else": {"multipleOf": 2}}),
            json!([-1, 4]),
            json!([-100, 3]),
        ),
        (
            json!({"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["v"]}}, "$ref": "#/$defs/node"}),
            json!([{"v": 1}, {"v": 1, "next": {"v": 2}}]),
            json!([{"v": 1, "next": {}}]),
        ),
        (json!(true), json!([1]), json!([])),
        (json!(false), json!([]), json!([1])),
    ] {
        for value in yes.as_array().expect("a list") {
            assert!(allows(schema.clone(), value), "{schema} allows {value}");
        }
        for value in no.as_array().expect("a list") {
            assert!(!allows(schema.clone(), value), "{schema} refuses {value}");
        }
    }
}

#[test]
fn what_is_not_understood_is_refused_with_its_place() {
    for (schema, told) in [
        (
            json!({"properties": {"a": {"dependentRequired": {}}}}),
            "has the keyword `dependentRequired` at #/properties/a, which is not understood here",
        ),
        (
            json!({"pattern": "(a"}),
            "has \"(a\" at #/pattern, which is not a regular expression: unclosed group",
        ),
        (
            json!({"$ref": "#/$defs/no"}),
            "has \"#/$defs/no\" at #/$ref, which must be a place in this schema, such as #/$defs/name",
        ),
        (json!({"minLength": -1}), "has -1 at #/minLength, which must be a count"),
        (json!({"anyOf": {}}), "has {} at #/anyOf, which must be a list of schemas"),
        (json!([]), "has [] at #, which must be a table, true or false"),
    ] {
        assert_eq!(Schema::new(schema).expect_err("refused"), told);
    }
    let circle = Schema::new(json!({"$ref": "#"})).expect("a schema");
    assert_eq!(circle.allows(&json!(1)), Err("leads in circles, or deeper than 200".to_owned()));
    let doubles = json!({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}});
    let nested = (0..60).fold(json!(1), |value, _| json!([value]));
    let told = "branches so much that 1000000 rules do not decide";
    assert_eq!(Schema::new(doubles).expect("a schema").allows(&nested), Err(told.to_owned()));
}

#[test]
fn json_is_the_whole_completion_or_its_last_fenced_block() {
    let schema = json!({"type": "object", "required": ["a"]});
    let reward = MatchesSchema::new(SchemaConfig { column: Some("schema".to_owned()), path: None });
    let reward = reward.expect("valid");
    for (completion, value) in [
        ("{\"a\": 1}", 1.0),
        ("Here it is:\n```json\n{\"a\": 1}\n```\nDone.", 1.0),
        ("{\"b\": 1}", 0.0),
        ("{\"a\": 1} and more", 0.0),
        ("", 0.0),
    ] {
        for column in [schema.clone(), json!(schema.to_string())] {
            let case = case(completion, &[("schema", column)]);
            assert_eq!(reward.score(&[case]).expect("judged"), [Some(value)], "{completion:?}");
        }
    }
    assert_eq!(reward.score(&[case("{}", &[])]).expect("judged"), [None]);
    let bad = case("{}", &[("schema", json!({"type": "int"}))]);
    let told = "column `schema` (prompt \"a prompt\") has \"int\" at #/type, which must be one of null, boolean, integer, \
                number, string, array, object, or a list of them";
    assert_eq!(reward.score(&[bad]).expect_err("refused").to_string(), told);
}

#[test]
fn a_schema_file_is_read_when_the_recipe_is() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("schema.json");
    std::fs::write(&file, "{\"type\": \"array\"}").expect("written");
    let reward = MatchesSchema::new(SchemaConfig { path: Some(file.clone()), column: None }).expect("valid");
    assert_eq!(reward.score(&[case("[]", &[]), case("1", &[])]).expect("judged"), [Some(1.0), Some(0.0)]);
    std::fs::write(&file, "{\"typ\": 1}").expect("written");
    let told = MatchesSchema::new(SchemaConfig { path: Some(file.clone()), column: None });
    let told = told.expect_err("refused").to_string();
    assert!(told.starts_with("path: ") && told.contains("the keyword `typ` at #"), "{told}");
    assert!(MatchesSchema::new(SchemaConfig::default()).is_err());
}
