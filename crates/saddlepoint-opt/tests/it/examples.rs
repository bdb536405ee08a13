//! The corpus of the fuzzer through the readers of examples.

use std::path::Path;

use saddlepoint_core::test::corpus;
use saddlepoint_opt::examples::{csv, libsvm};

#[test]
fn the_corpus_of_the_fuzzer_is_read_or_refused_with_its_place() {
    let files = corpus("labelled");
    assert!(files.len() >= 34, "{}", files.len());
    for (name, path) in files {
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
                Err(error) => {
                    let told = error.to_string();
                    assert!(told.starts_with("e:") && !told.contains(char::is_control), "{name}: {told:?}");
                }
                Ok(examples) => {
                    let w = vec![1.0; examples.features];
                    assert!((0..examples.len()).all(|i| examples.dot(i, &w).is_finite()), "{name}");
                }
            }
        }
    }
}
