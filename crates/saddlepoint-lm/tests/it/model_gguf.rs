//! GGUF files: tiny ones made in the test, whole, damaged and truncated.

use std::path::Path;

use proptest::prelude::*;
use saddlepoint_lm::engine::{RopeScaling, Shape, TensorSpec};
use saddlepoint_lm::model::{Gguf, ModelFolder, fuzzing};
use tokenizers::Tokenizer;

use super::model_fixture::{self as fixture, GgufFile, Item};

fn open(file: &GgufFile) -> Result<ModelFolder, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, file.bytes()).expect("a temporary file");
    let shown = format!("{}", path.display());
    ModelFolder::open(&path).map_err(|error| error.to_string().replace(&shown, "m.gguf"))
}

fn read(model: &ModelFolder, spec: &TensorSpec) -> Vec<f32> {
    let mut out = vec![f32::NAN; spec.len()];
    model.source().read(spec, &mut out).expect("readable");
    out
}

#[test]
fn every_family_reads_back_its_shape_and_weights() {
    for family in ["llama", "qwen2", "qwen3"] {
        let model = open(&fixture::gguf(family)).expect("readable");
        assert_eq!(model.shape, fixture::shape(family));
        let specs = model.shape.tensors();
        for spec in &specs {
            assert_eq!(read(&model, spec), fixture::weights(spec), "{family}: {}", spec.name);
        }
        assert_eq!(model.source().unused(&specs), Vec::<String>::new());
        assert_eq!(model.source().unused(&specs[1..]), ["token_embd.weight"]);
    }
}

#[test]
fn version_2_and_a_folder_with_one_file_are_read() {
    let mut file = fixture::gguf("llama");
    file.version = 2;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("a.gguf"), file.bytes()).expect("writable");
    let model = ModelFolder::open(folder.path()).expect("readable");
    assert_eq!(model.shape, fixture::shape("llama"));
    // A tokenizer beside the file is preferred to the one in the metadata.
    std::fs::write(folder.path().join("tokenizer.json"), b"{}").expect("writable");
    assert_eq!(ModelFolder::open(folder.path()).expect("readable").tokenizer_json(), b"{}");
    std::fs::write(folder.path().join("b.gguf"), b"").expect("writable");
    let message = ModelFolder::open(folder.path()).expect_err("two").to_string();
    assert!(message.contains("holds several GGUF files: give one of them"), "{message}");
}

#[test]
fn the_tokenizer_is_rebuilt() {
    let model = open(&fixture::gguf("llama")).expect("readable");
    let tokenizer = Tokenizer::from_bytes(model.tokenizer_json()).expect("a tokenizer");
    let ids = |text: &str| tokenizer.encode(text, true).expect("encodes").get_ids().to_vec();
    let byte = |c: char| tokenizer.token_to_id(&c.to_string()).expect("a byte");
    assert_eq!(ids("hello hello"), [259, 260]);
    assert_eq!(ids("<|start|>hell<think><|end|>"), [fixture::START, 258, 263, fixture::END]);
    // Digits stand alone, so the space before them is a piece of its own.
    assert_eq!(ids(" 12"), [byte('\u{120}'), byte('1'), byte('2')]);
    assert_eq!(tokenizer.decode(&[260, 259, fixture::END], true).expect("decodes"), " hellohello");
    assert_eq!(tokenizer.token_to_id("[PAD290]"), None);
    assert_eq!(model.eos_ids(), [fixture::END]);
    assert_eq!((model.bos_id(), model.pad_id()), (Some(fixture::START), None));
    assert_eq!(model.chat_template(), Some(fixture::TEMPLATE));
    assert_eq!(model.tokenizer_config()["eos_token"], "<|end|>");
}

#[test]
fn begin_and_end_tokens_are_added_as_the_file_says() {
    let mut file = fixture::gguf("llama");
    let ids = |file: &GgufFile| {
        let model = open(file).expect("readable");
        let tokenizer = Tokenizer::from_bytes(model.tokenizer_json()).expect("a tokenizer");
        tokenizer.encode("hello", true).expect("encodes").get_ids().to_vec()
    };
    file.set("tokenizer.ggml.add_bos_token", Item::Bool(true));
    assert_eq!(ids(&file), [fixture::START, 259]);
    file.set("tokenizer.ggml.add_eos_token", Item::Bool(true));
    assert_eq!(ids(&file), [fixture::START, 259, fixture::END]);
    // Llama 3's tokenizers start with the token unless the file says otherwise.
    file.remove("tokenizer.ggml.add_eos_token");
    file.remove("tokenizer.ggml.add_bos_token");
    assert_eq!(ids(&file), [259]);
    file.set("tokenizer.ggml.pre", Item::Text("llama-bpe"));
    assert_eq!(ids(&file), [fixture::START, 259]);
}

/// The splitting rules differ in what they do with digits and spaces.
#[test]
fn each_known_rule_makes_a_tokenizer() {
    for (rule, expected) in [("gpt-2", 1), ("smollm", 4), ("qwen2", 4), ("llama-bpe", 2)] {
        let mut file = fixture::gguf("qwen2");
        file.set("tokenizer.ggml.pre", Item::Text(rule));
        let model = open(&file).expect("readable");
        let tokenizer = Tokenizer::from_bytes(model.tokenizer_json()).expect("a tokenizer");
        let mut pieces = tokenizers::PreTokenizedString::from("1234");
        let pre = tokenizer.get_pre_tokenizer().expect("a rule");
        tokenizers::PreTokenizer::pre_tokenize(pre, &mut pieces).expect("splits");
        let pieces = pieces.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        assert_eq!(pieces.len(), expected, "{rule}");
    }
}

#[test]
fn linear_scaling_and_the_factors_of_llama_3_are_read() {
    let mut file = fixture::gguf("llama");
    file.set("llama.rope.scaling.type", Item::Text("linear"));
    file.set("llama.rope.scaling.factor", Item::F32(2.0));
    assert_eq!(open(&file).expect("readable").shape.rope.scaling, RopeScaling::Linear(2.0));
    let mut file = fixture::gguf("llama");
    file.set("llama.rope.freq_base", Item::F32(500_000.0));
    // 8,192 / (2 pi 500,000^(2 i / 16)) turns: more than 4 below i = 4, less than 1 from i = 5 on, 1.84 at i = 4.
    let ramp = 8_192.0 / (2.0 * std::f64::consts::PI * 500_000.0_f64.sqrt());
    let smooth = (ramp - 1.0) / 3.0;
    let ramp = (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32;
    let mut push = |factors: [f32; 8]| {
        file.remove("rope_freqs.weight");
        let data = factors.iter().flat_map(|x| x.to_le_bytes()).collect();
        file.tensors.push(("rope_freqs.weight".into(), vec![8], 0, data));
        open(&file)
    };
    let model = push([1.0, 1.0, 1.0, 1.0, ramp, 8.0, 8.0, 8.0]).expect("readable");
    let expected = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8_192 };
    assert_eq!(model.shape.rope.scaling, expected);
    assert!(model.source().unused(&model.shape.tensors()).is_empty());
    let message = push([1.0, 1.0, 1.0, 2.0, ramp, 8.0, 8.0, 8.0]).expect_err("unknown");
    assert!(message.contains("does not hold the factors of Llama 3"), "{message}");
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let known = "gpt-2, smollm, qwen2 and llama-bpe are known";
    let remedy = "put the model's own tokenizer.json into a folder with the GGUF file and open the folder";
    let cases: Vec<(&str, Item, String)> = vec![
        (
            "general.architecture",
            Item::Text("gemma3"),
            "m.gguf: general.architecture = \"gemma3\": this architecture is not supported (llama, qwen2 and \
             qwen3 are)"
                .into(),
        ),
        ("llama.expert_count", Item::U32(8), "m.gguf: llama.expert_count = 8: is not supported".into()),
        (
            "llama.rope.scaling.type",
            Item::Text("yarn"),
            "m.gguf: llama.rope.scaling.type = \"yarn\": this rotary scaling is not supported (none and linear are)"
                .into(),
        ),
        (
            "llama.rope.dimension_count",
            Item::U32(8),
            "m.gguf: llama.rope.dimension_count = 8: must equal the width of a head, 16".into(),
        ),
        ("llama.block_count", Item::Text("one"), "m.gguf: llama.block_count = \"one\": must be one non-negative integer".into()),
        ("llama.attention.head_count_kv", Item::U32(0), "m.gguf: the number of key-value heads must be between 1 and 4096, got 0".into()),
        ("llama.rope.freq_base", Item::F32(f32::NAN), "m.gguf: llama.rope.freq_base = NaN: must be positive".into()),
        ("general.alignment", Item::U32(24), "m.gguf: general.alignment = 24: must be a power of two".into()),
        (
            "split.count",
            Item::U32(2),
            "m.gguf: split.count = 2: models split over several files are not supported; join them with \
             llama-gguf-split --merge"
                .into(),
        ),
        (
            "tokenizer.ggml.model",
            Item::Text("llama"),
            format!("m.gguf: tokenizer.ggml.model = \"llama\": only byte-level BPE (gpt2) can be rebuilt; {remedy}"),
        ),
        (
            "tokenizer.ggml.pre",
            Item::Text("tekken"),
            format!("m.gguf: tokenizer.ggml.pre = \"tekken\": it is unknown how to split text ({known}); {remedy}"),
        ),
        (
            "tokenizer.ggml.merges",
            Item::Texts(vec!["h e".into(), "x y".into()]),
            format!("m.gguf: tokenizer.ggml.merges = 2 strings: merge 1 (\"x y\") does not join two tokens to a third; {remedy}"),
        ),
        ("tokenizer.ggml.eos_token_id", Item::U32(300), "m.gguf: tokenizer.ggml.eos_token_id = 300: there are only 300 tokens".into()),
        ("tokenizer.ggml.token_type", Item::I32s(vec![1]), "m.gguf: tokenizer.ggml.token_type = 1 numbers: there are 300 tokens".into()),
    ];
    for (key, item, expected) in cases {
        let mut file = fixture::gguf("llama");
        file.set(key, item);
        assert_eq!(open(&file).expect_err(key), expected);
    }
    for (key, expected) in [
        (
            "llama.embedding_length",
            "m.gguf: llama.embedding_length is missing: the model cannot be described without it",
        ),
        ("token_embd.weight", "m.gguf: tensor token_embd.weight is missing or not a matrix"),
    ] {
        let mut file = fixture::gguf("llama");
        file.remove(key);
        assert_eq!(open(&file).expect_err(key), expected);
    }
}

#[test]
fn a_tensor_that_would_change_the_result_is_not_ignored() {
    let mut file = fixture::gguf("llama");
    file.tensors.push(("blk.0.attn_q.bias".into(), vec![32], 0, vec![0; 128]));
    let expected =
        "m.gguf: tensor blk.0.attn_q.bias is not part of this architecture as we know it: not supported";
    assert_eq!(open(&file).expect_err("refused"), expected);
}

#[test]
fn damaged_tensors_are_named() {
    let model = |change: &dyn Fn(&mut GgufFile)| {
        let mut file = fixture::gguf("llama");
        change(&mut file);
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("m.gguf"), file.bytes()).expect("writable");
        let model = ModelFolder::open(folder.path()).expect("opens");
        let failure = model.shape.tensors().iter().find_map(|spec| {
            let mut out = vec![0.0; spec.len()];
            model.source().read(spec, &mut out).err()
        });
        let message = failure.expect("a damaged tensor").to_string();
        message.rsplit_once("m.gguf: ").expect("names the file").1.to_owned()
    };
    let nan = model(&|file| file.tensors[2].3[4 * 33..][..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_eq!(
        nan,
        "element [1, 1] of tensor blk.0.attn_q.weight is not finite (NaN); the file is damaged or the run that \
         wrote it had diverged: use another checkpoint"
    );
    let dims = model(&|file| file.tensors[2].1 = vec![16, 64]);
    assert_eq!(dims, "tensor blk.0.attn_q.weight has dimensions [16, 64], the metadata ask for [32, 32]");
    let missing = model(&|file| file.remove("output_norm.weight"));
    assert_eq!(missing, "tensor output_norm.weight is missing (the file has 10)");
    let kind = model(&|file| file.tensors[1].2 = 20);
    assert_eq!(
        kind,
        "tensor blk.0.attn_norm.weight is stored as type 20; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, \
         Q5_K and Q6_K can be read"
    );
}

#[test]
fn other_files_are_told_apart() {
    let parse = |bytes: &[u8]| {
        Gguf::parse(Path::new("f"), Box::new(bytes.to_vec())).expect_err("refused").to_string()
    };
    assert_eq!(parse(b"PK\x03\x04....."), "f: is not a GGUF file: it does not start with GGUF");
    assert_eq!(parse(b"GGUF\x01\0\0\0"), "f: GGUF version 1 is not supported (2 and 3 are)");
    assert_eq!(parse(b"GGUF\0\0\0\x03"), "f: big-endian GGUF files are not supported");
    let many = [b"GGUF\x03\0\0\0", &u64::MAX.to_le_bytes()[..], &[0; 8]].concat();
    let expected = "f: the number of tensors: 18446744073709551615 are announced but 8 bytes follow: the file is \
                    truncated or damaged";
    assert_eq!(parse(&many), expected);
}

/// The smallest file that passes everything, so that every prefix of it can be tried.
fn small() -> Vec<u8> {
    let mut file = fixture::gguf("llama");
    let keep: Vec<String> = fixture::tokens()[..4].iter().map(|(token, _)| token.clone()).collect();
    file.set("tokenizer.ggml.tokens", Item::Texts(keep));
    file.set("tokenizer.ggml.token_type", Item::I32s(vec![1, 1, 3, 3]));
    file.set("tokenizer.ggml.merges", Item::Texts(Vec::new()));
    file.set("tokenizer.ggml.bos_token_id", Item::U32(2));
    file.set("tokenizer.ggml.eos_token_id", Item::U32(3));
    for (_, dims, kind, data) in &mut file.tensors {
        // Q4_0 blocks of 18 bytes for 32 weights.
        (*kind, *data) = (2, vec![0; dims.iter().product::<usize>() / 32 * 18]);
    }
    file.bytes()
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small();
    fuzzing::gguf(&bytes).expect("the whole file is fine");
    for length in 0..bytes.len() {
        let error = fuzzing::gguf(&bytes[..length]).expect_err("truncated");
        assert!(error.to_string().starts_with("fuzz.gguf: "), "{length}: {error}");
    }
}

proptest! {
    /// Whatever the bytes, reading ends with a model or a message.
    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((0_usize..3_000, any::<u8>()), 1..6)) {
        let mut bytes = small();
        for (at, value) in flips {
            bytes[at] = value;
        }
        if let Err(error) = fuzzing::gguf(&bytes) {
            prop_assert!(error.to_string().contains("fuzz.gguf"));
        }
    }
}

#[test]
fn a_huge_shape_is_refused_before_anything_is_allocated() {
    let mut file = fixture::gguf("llama");
    file.set("llama.feed_forward_length", Item::U32(u32::MAX));
    let expected = "m.gguf: the feed-forward width must be between 1 and 16777216, got 4294967295";
    assert_eq!(open(&file).expect_err("refused"), expected);
    let shape = Shape { layers: 1 << 20, ..fixture::shape("llama") };
    let null = serde_json::json!({});
    let message =
        ModelFolder::new(shape, b"{}".to_vec(), &null, &null, None).expect_err("refused").to_string();
    assert_eq!(message, "new model: the number of layers must be between 1 and 4096, got 1048576");
}
