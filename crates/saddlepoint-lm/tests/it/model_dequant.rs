//! Block formats against the `gguf` package: every bit.

use saddlepoint_lm::model::Kind;
use serde_json::Value;

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("a string");
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal")).collect()
}

#[test]
fn every_format_decodes_to_the_bits_of_the_gguf_package() {
    let golden: Value = serde_json::from_str(include_str!("../golden/model/dequant.json")).expect("JSON");
    let cases = golden["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 11);
    for case in cases {
        let name = &case["type"];
        let kind = Kind::from_id(case["id"].as_u64().expect("an id") as u32).expect("a known type");
        let (data, expected) = (bytes(&case["bytes"]), bytes(&case["values"]));
        let (weights, size) = kind.block();
        assert_eq!(data.len() / size * weights * 4, expected.len(), "{name}: block size");
        let mut out = vec![f32::NAN; expected.len() / 4];
        kind.decode(&data, &mut out);
        for (i, (x, bits)) in out.iter().zip(expected.chunks_exact(4)).enumerate() {
            assert_eq!(x.to_le_bytes(), bits, "{name}: weight {i} is {x}");
        }
    }
}
