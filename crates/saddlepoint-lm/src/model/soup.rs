//! The weighted mean of several models' weights (a model soup; as the reference of a policy: SALSA, Chegini et al. 2024,
//! arXiv:2411.01798).

use std::fmt;

use super::{ModelFolder, bad};
use crate::Result;
use crate::engine::{TensorSpec, WeightSource};

/// Each tensor is the weighted mean of that tensor in several models, in the order given, summed in double precision.
pub struct Soup<'a> {
    parts: Vec<Part<'a>>,
}

/// A model and its share; the shares sum to 1.
struct Part<'a> {
    model: &'a ModelFolder,
    weights: &'a dyn WeightSource,
    share: f64,
}

/// Least cosine of two models' matrices. Fine-tuning moves weights by a small part of their length, and those of models from
/// different random weights are orthogonal.
const RELATED: f64 = 0.5;

impl<'a> Soup<'a> {
    /// From models of one shape and their weights, which are divided by their sum.
    ///
    /// # Errors
    /// A model has another shape, or other angles of positions, than the first.
    ///
    /// # Panics
    /// Without a model.
    pub fn new(parts: Vec<(&'a ModelFolder, f64)>) -> Result<Self> {
        Self::with(parts.into_iter().map(|(model, weight)| (model, model.source(), weight)).collect())
    }

    /// As [`Self::new`] with weights that come from elsewhere than from the model's own files.
    ///
    /// # Errors
    /// As [`Self::new`].
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn with(parts: Vec<(&'a ModelFolder, &'a dyn WeightSource, f64)>) -> Result<Self> {
        let first = parts.first().expect("a soup has an ingredient").0;
        for (other, ..) in &parts {
            let than = first.path().display();
            if !other.shape.same_weights(&first.shape) {
                let size = |model: &ModelFolder| {
                    let shape = &model.shape;
                    format!("{} layers of width {} and {} tokens", shape.layers, shape.hidden, shape.vocab)
                };
                let (has, asked) = (size(other), size(first));
                let problem =
                    format!("has another shape ({has}) than {than} ({asked}): their weights have no mean");
                return Err(bad(other.path(), problem));
            }
            if other.shape.rope != first.shape.rope {
                return Err(bad(other.path(), format!("has other rotary angles than {than}")));
            }
        }
        let total: f64 = parts.iter().map(|(.., weight)| weight).sum();
        let part = |(model, weights, weight)| Part { model, weights, share: weight / total };
        Ok(Self { parts: parts.into_iter().map(part).collect() })
    }

    /// Refuses models that were not fine-tuned from the same one: their mean is none of what they have learned. The least cosine
    /// of the matrices of the first and of another; 1 of a single model.
    ///
    /// # Errors
    /// The cosine is below 0.5, or a tensor cannot be read.
    pub fn check_related(&self, specs: &[TensorSpec]) -> Result<f64> {
        let first = &self.parts[0];
        let mut least = 1.0_f64;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for other in &self.parts[1..] {
            let [mut ab, mut aa, mut bb] = [0.0_f64; 3];
            for spec in specs.iter().filter(|spec| spec.dims.len() > 1) {
                a.resize(spec.len(), 0.0);
                b.resize(spec.len(), 0.0);
                first.weights.read(spec, &mut a)?;
                other.weights.read(spec, &mut b)?;
                for (a, b) in a.iter().zip(&b).map(|(&a, &b)| (f64::from(a), f64::from(b))) {
                    ab += a * b;
                    aa += a * a;
                    bb += b * b;
                }
            }
            let cosine = ab / (aa * bb).sqrt();
            // Not a number where all weights are 0.
            if cosine.is_nan() || cosine < RELATED {
                let problem = format!(
                    "was not fine-tuned from the same model as {} (cosine of their weights {cosine:.3}, least {RELATED}): a mean \
                     of the two knows nothing of either",
                    first.model.path().display()
                );
                return Err(bad(other.model.path(), problem));
            }
            least = least.min(cosine);
        }
        Ok(least)
    }
}

impl fmt::Debug for Soup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| (part.model.path(), part.share))).finish()
    }
}

impl WeightSource for Soup<'_> {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<()> {
        let mut mean = vec![0.0_f64; out.len()];
        for part in &self.parts {
            part.weights.read(spec, out)?;
            mean.iter_mut().zip(&*out).for_each(|(m, &v)| *m += part.share * f64::from(v));
        }
        out.iter_mut().zip(mean).for_each(|(o, m)| *o = m as f32);
        Ok(())
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        self.parts.iter().flat_map(|part| part.weights.unused(specs)).collect()
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;
    use saddlepoint_opt::divergence::Divergence;

    use super::*;
    use crate::data::generate::Task;
    use crate::recipe::NewModel;

    /// The numbers of one model, whatever is asked for.
    struct Numbers(Vec<f32>);

    impl WeightSource for Numbers {
        fn read(&self, _: &TensorSpec, out: &mut [f32]) -> Result<()> {
            out.copy_from_slice(&self.0);
            Ok(())
        }

        fn unused(&self, _: &[TensorSpec]) -> Vec<String> {
            Vec::new()
        }
    }

    fn model() -> ModelFolder {
        let task = Task::Largest;
        let (shape, nothing) = (NewModel::default().shape(14), serde_json::json!({}));
        ModelFolder::new(shape, task.tokenizer_json(), &task.tokenizer_config(), &nothing, None)
            .expect("a model")
    }

    /// The mean of `parts` with their weights.
    fn blended(parts: &[(&[f32], f64)]) -> Vec<f64> {
        let model = model();
        let numbers: Vec<Numbers> = parts.iter().map(|(numbers, _)| Numbers(numbers.to_vec())).collect();
        let parts = numbers.iter().zip(parts);
        let parts = parts.map(|(numbers, part)| (&model, numbers as &dyn WeightSource, part.1)).collect();
        let mut mean = vec![0.0; numbers[0].0.len()];
        let spec = TensorSpec { name: "x".to_owned(), dims: vec![mean.len()], offset: 0 };
        Soup::with(parts).expect("of one shape").read(&spec, &mut mean).expect("numbers");
        mean.into_iter().map(f64::from).collect()
    }

    fn softmax(z: &[f64]) -> Vec<f64> {
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        z.iter().map(|z| z.exp() / sum).collect()
    }

    // Weights are kept in single precision.
    const RTOL: f64 = 1e-6;

    const FIRST: [f32; 3] = [1.2, -0.3, 0.4];
    const SECOND: [f32; 3] = [-0.2, 0.9, 0.4];

    #[test]
    fn means_are_those_of_v5() {
        let (first, second) = ([0.1, -0.2, 0.3], [0.5, 0.2, -0.1]);
        let half = blended(&[(&first, 1.0), (&second, 1.0)]);
        assert_close!(half, [0.3, 0.0, 0.1], rtol = RTOL, atol = 1e-8);
        assert_close!(blended(&[(&first, 0.25), (&second, 0.75)]), [0.4, 0.1, 0.0], rtol = RTOL, atol = 1e-8);
        assert_eq!(half, blended(&[(&second, 1.0), (&first, 1.0)]), "in either order");
        assert_eq!(blended(&[(&first, 0.5), (&first, 0.5)]), first.map(f64::from), "of a model and itself");
    }

    #[test]
    fn the_soup_of_log_linear_models_is_the_geometric_mean_of_v1() {
        let p = |share: f64| softmax(&blended(&[(&FIRST, share), (&SECOND, 1.0 - share)]));
        let first = softmax(&FIRST.map(f64::from));
        for (share, probabilities, divergence) in [
            (0.0, [0.171_635_961_877_95, 0.515_622_925_161_12, 0.312_741_112_960_93], 0.525_077_884_325_84),
            (0.25, [0.259_582_649_099_77, 0.407_106_631_724_99, 0.333_310_719_175_24], 0.292_130_119_109_58),
            (0.5, [0.367_165_401_110_93, 0.300_609_605_355_73, 0.332_224_993_533_35], 0.126_144_481_066_23),
            (0.75, [0.484_251_397_927_73, 0.206_976_278_291_36, 0.308_772_323_780_92], 0.030_104_369_918_06),
            (1.0, [0.597_921_937_517_66, 0.133_414_417_674_57, 0.268_663_644_807_77], 0.0),
        ] {
            assert_close!(p(share), probabilities, rtol = RTOL);
            let got = Divergence::ReverseKl.between(&first, &p(share));
            assert_close!(got, divergence, rtol = 1e-6, atol = 1e-7);
        }
        let mixture: Vec<f64> = first.iter().zip(p(0.0)).map(|(a, b)| f64::midpoint(*a, b)).collect();
        assert_close!(
            mixture,
            [0.384_778_949_697_81, 0.324_518_671_417_85, 0.290_702_378_884_35],
            rtol = RTOL
        );
        let third: &[f32] = &[0.5, 0.5, -1.0];
        let three = blended(&[(&FIRST, 1.0), (&SECOND, 1.0), (third, 1.0)]);
        assert_close!(
            softmax(&three),
            [0.409_402_000_820_58, 0.358_297_707_880_98, 0.232_300_291_298_45],
            rtol = RTOL
        );
    }

    #[test]
    fn the_optimum_near_a_reference_is_that_of_v3() {
        let (reward, beta) = ([1.0, 0.0, 0.5], 0.5_f64);
        for (share, optimum, expected, divergence, value) in [
            (
                1.0,
                [0.836_472_704_866_67, 0.025_259_286_991_16, 0.138_268_008_142_16],
                0.905_606_709_387_76,
                0.146_947_101_443_14,
                0.832_133_158_218_16,
            ),
            (
                0.5,
                [0.692_677_039_504_98, 0.076_750_803_702_22, 0.230_572_156_792_80],
                0.807_963_117_901_38,
                0.250_677_663_152_54,
                0.682_624_286_325_11,
            ),
        ] {
            let reference = softmax(&blended(&[(&FIRST, share), (&SECOND, 1.0 - share)]));
            let tilted: Vec<f64> = reference.iter().zip(reward).map(|(p, r)| p * (r / beta).exp()).collect();
            let z: f64 = tilted.iter().sum();
            let p: Vec<f64> = tilted.iter().map(|p| p / z).collect();
            let of_reward: f64 = p.iter().zip(reward).map(|(p, r)| p * r).sum();
            let kl = Divergence::ReverseKl.between(&p, &reference);
            assert_close!(p, optimum, rtol = RTOL);
            assert_close!([of_reward, kl, beta * z.ln()], [expected, divergence, value], rtol = 2e-6);
            assert_close!(of_reward - beta * kl, value, rtol = 1e-6);
        }
    }

    #[test]
    fn the_soup_of_networks_is_not_the_mean_of_their_outputs_as_in_v4() {
        // W row by row, then v; the network is v relu(W x).
        let first: &[f32] = &[1.0, -1.0, 0.5, 0.5, 1.0, 0.5, -0.5, 1.0];
        let second: &[f32] = &[-1.0, 1.0, 0.5, -0.5, 0.5, 1.0, 1.0, -0.5];
        let output = |parts: &[(&[f32], f64)]| -> Vec<f64> {
            let w = blended(parts);
            let h: Vec<f64> = w[..4].chunks(2).map(|row| (row[0] + 0.5 * row[1]).max(0.0)).collect();
            w[4..].chunks(2).map(|row| row[0] * h[0] + row[1] * h[1]).collect()
        };
        assert_close!(output(&[(first, 1.0)]), [0.875, 0.5], rtol = RTOL);
        assert_close!(output(&[(second, 1.0)]), [0.25, -0.125], rtol = RTOL);
        assert_close!(output(&[(first, 0.5), (second, 0.5)]), [0.375, 0.125], rtol = RTOL);
    }
}
