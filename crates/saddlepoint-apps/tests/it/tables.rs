//! The corpus of the fuzzer through the reader of tables, and through what comes before a search.

use std::path::Path;

use saddlepoint_apps::dag::score::LeastSquares;
use saddlepoint_apps::dag::{Data, Scaling};
use saddlepoint_core::test::corpus;

#[test]
fn the_corpus_of_the_fuzzer_is_read_or_refused_with_its_place() {
    let files = corpus("table");
    assert!(files.len() >= 34, "{}", files.len());
    for (name, path) in files {
        let bytes = std::fs::read(&path).expect("readable");
        let result = Data::parse(&bytes, Path::new("t.csv"));
        assert_eq!(result.is_ok(), name.starts_with("good-"), "{name}: {result:?}");
        match result {
            Err(error) => {
                let told = error.to_string();
                assert!(told.starts_with("t.csv:") && !told.contains(char::is_control), "{name}: {told:?}");
            }
            Ok(data) => {
                assert!(data.rows() >= 2 && data.columns().iter().flatten().all(|x| x.is_finite()), "{name}");
                for scaling in [Scaling::None, Scaling::Centre, Scaling::Standardise] {
                    let scored = data.scaled(scaling).and_then(|data| LeastSquares::new(&data));
                    if let Err(error) = scored {
                        assert!(error.to_string().ends_with("measure it in other units"), "{name}: {error}");
                    }
                }
            }
        }
    }
}
