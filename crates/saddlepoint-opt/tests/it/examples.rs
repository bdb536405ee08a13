//! The corpus of the fuzzer through the readers of examples.

use std::path::{Path, PathBuf};

use saddlepoint_opt::examples::{csv, libsvm};

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/examples")
}

#[test]
fn the_corpus_of_the_fuzzer_is_read_or_refused_with_its_place() {
    let mut count = 0;
    for file in std::fs::read_dir(corpus()).expect("the corpus is part of the project") {
        let path = file.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        count += 1;
        let Ok(text) = String::from_utf8(std::fs::read(&path).expect("readable")) else {
            assert_eq!(name, "bad-utf8", "the reader of files refuses it before these are asked");
            continue;
        };
        let place = Path::new("e");
        let [table, sparse] = [csv::parse(&text, place, None), libsvm::parse(&text, place)];
        assert_eq!(table.is_ok(), name.starts_with("good-csv"), "{name}: {table:?}");
        assert_eq!(sparse.is_ok(), name.starts_with("good-libsvm"), "{name}: {sparse:?}");
        for result in [table, sparse] {
            match result {
                Err(error) => assert!(error.to_string().starts_with("e:"), "{name}: {error}"),
                Ok(examples) => {
                    let w = vec![1.0; examples.features];
                    assert!((0..examples.len()).all(|i| examples.dot(i, &w).is_finite()), "{name}");
                }
            }
        }
    }
    assert!(count >= 34, "{count}");
}
