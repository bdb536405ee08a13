//! No weight that is NaN or infinite enters or leaves a model.

use std::path::Path;

use super::Dtype;
use crate::{Error, Result};

/// Position of element `index` in a tensor of these dimensions, for example `[3, 17]`.
fn place(dims: &[usize], mut index: usize) -> String {
    let mut position: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&dim| {
            let here = index % dim;
            index /= dim;
            here
        })
        .collect();
    position.reverse();
    format!("{position:?}")
}

/// Refuses weights read from `path` that are not finite.
pub(super) fn check_read(path: &Path, name: &str, dims: &[usize], values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite {
            what: format!("{}: element {} of tensor {name}", path.display(), place(dims, index)),
            value: f64::from(values[index]),
            remedy: "the file is damaged or the run that wrote it had diverged: use another checkpoint"
                .into(),
        }),
    }
}

/// Refuses weights to be written to `path` that `dtype` cannot hold.
pub(super) fn check_write(
    path: &Path,
    name: &str,
    dims: &[usize],
    values: &[f32],
    dtype: Dtype,
) -> Result<()> {
    match values.iter().position(|&x| !dtype.holds(x)) {
        None => Ok(()),
        Some(index) => {
            let value = values[index];
            let stored = if value.is_finite() { format!(" as {}", dtype.name()) } else { String::new() };
            Err(Error::NotFinite {
                what: format!("{}: element {} of tensor {name}{stored}", path.display(), place(dims, index)),
                value: f64::from(value),
                remedy: if value.is_finite() {
                    "write F32 or BF16, which hold it".into()
                } else {
                    "the model has diverged: resume from an earlier checkpoint with a lower learning rate"
                        .into()
                },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_tensor_and_element() {
        let values = [0.0, 1.0, 2.0, f32::NEG_INFINITY, 4.0, 5.0];
        let message =
            check_read(Path::new("m.gguf"), "w", &[2, 3], &values).expect_err("infinite").to_string();
        assert_eq!(
            message,
            "m.gguf: element [1, 0] of tensor w is not finite (-inf); the file is damaged or the run that wrote \
             it had diverged: use another checkpoint"
        );
    }

    #[test]
    fn half_precision_overflow_is_not_written() {
        let path = Path::new("m.safetensors");
        assert!(check_write(path, "w", &[2], &[1.0, 65_504.0], Dtype::F16).is_ok());
        assert!(check_write(path, "w", &[2], &[1.0, 1e30], Dtype::Bf16).is_ok());
        let message =
            check_write(path, "w", &[2], &[1.0, 1e5], Dtype::F16).expect_err("overflow").to_string();
        assert_eq!(
            message,
            "m.safetensors: element [1] of tensor w as F16 is not finite (100000); write F32 or BF16, which hold it"
        );
    }
}
