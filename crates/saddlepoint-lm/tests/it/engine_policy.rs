//! Invariances of the policy: threads, storage, accumulation, and what it refuses.

use std::ops::ControlFlow;

use saddlepoint_core::seed::Seed;
use saddlepoint_lm::engine::{
    Cotangent, Divergence, Finish, Forest, GenerateConfig, Generator, LoraConfig, Policy, Prompt, Reference,
    Row, Setup, Storage, TokenEvent, Views, Want, Weights,
};
use saddlepoint_lm::model::ModelFolder;
use saddlepoint_lm::rollout::{Drawing, RolloutConfig, Round};

use crate::engine_golden::{folder, policy, setup};

const WANT: Want = Want {
    entropy: true,
    ref_logp: true,
    divergence: Some(Divergence::ReverseKl),
    temperature: None,
    score: false,
};

fn batch() -> Forest {
    let mut forest = Forest::default();
    for tree in 0..2u32 {
        let root = forest.root(&(0..60).map(|i| 4 + (i * 3 + tree) % 90).collect::<Vec<_>>());
        forest.completion(root, &(0..50).map(|i| 5 + (i * 7 + tree) % 80).collect::<Vec<_>>());
        forest.completion(root, &(0..20).map(|i| 6 + (i * 13 + tree) % 70).collect::<Vec<_>>());
    }
    forest
}

#[test]
fn one_thread_and_several_give_the_same_bytes() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut policy = policy("qwen3", false);
            let stats = policy.forward(&batch(), WANT).expect("statistics");
            let ones = vec![1.0; stats.logp.len()];
            let cotangent = Cotangent {
                logp: ones.clone(),
                entropy: ones.clone(),
                divergence: ones,
                ..Cotangent::default()
            };
            policy.backward(&cotangent).expect("gradients");
            let grads: Vec<u32> = policy.trainable().grads.iter().map(|g| g.to_bits()).collect();
            let stats: Vec<u64> = stats.logp.iter().chain(&stats.divergence).map(|v| v.to_bits()).collect();
            (stats, grads)
        })
    };
    let one = run(1);
    for threads in [2, 3, 4] {
        assert!(one == run(threads), "{threads} threads");
    }
}

#[test]
fn gradients_add_up_over_backward_passes() {
    let mut policy = policy("llama", false);
    let forest = batch();
    let cotangent = Cotangent { logp: vec![1.0; forest.rows.len()], ..Cotangent::default() };
    policy.forward(&forest, Want::default()).expect("statistics");
    policy.backward(&cotangent).expect("gradients");
    let once = policy.trainable().grads.to_vec();
    policy.forward(&forest, Want::default()).expect("statistics");
    policy.backward(&cotangent).expect("gradients");
    for (a, b) in once.iter().zip(policy.trainable().grads.iter()) {
        assert!((2.0 * a - b).abs() <= 1e-5 * b.abs().max(1e-3), "{a} twice is {b}");
    }
    policy.zero_grads();
    assert!(policy.trainable().grads.iter().all(|g| g.to_bits() == 0));
}

#[test]
fn frozen_weights_in_bf16_are_the_rounded_weights() {
    let model = ModelFolder::open(&folder("qwen2/policy")).expect("a model");
    let lora = LoraConfig::default();
    let make = |frozen| {
        let mut policy =
            Policy::new(model.shape.clone(), Setup { frozen, ..setup(Some(lora.clone()), false) })
                .expect("a policy");
        policy.load(model.source()).expect("weights");
        policy.init_adapter(&mut Seed::new(3).stream("adapter", &[]));
        policy
    };
    let (mut half, mut full) = (make(Storage::Bf16), make(Storage::F32));
    for spec in half.tensors().to_vec() {
        let (mut a, mut b) = (vec![0.0; spec.len()], vec![0.0; spec.len()]);
        half.base_tensor(&spec, &mut a);
        full.base_tensor(&spec, &mut b);
        for (a, b) in a.iter().zip(b) {
            let exact = if spec.dims.len() > 1 { half::bf16::from_f32(b).to_f32() } else { b };
            assert_eq!(a.to_bits(), exact.to_bits(), "{}", spec.name);
        }
    }
    let forest = batch();
    let stats = half.forward(&forest, Want { ref_logp: true, ..Want::default() }).expect("statistics");
    assert_eq!(stats.logp, stats.ref_logp, "an adapter with B = 0 changes nothing");
    let exact = full.evaluate(&forest, Want::default()).expect("statistics");
    let worst = stats.logp.iter().zip(&exact.logp).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst > 0.0 && worst < 0.3, "bf16 changes log-probabilities by {worst}");
    half.backward(&Cotangent { logp: vec![1.0; forest.rows.len()], ..Cotangent::default() })
        .expect("gradients");
    assert!(half.trainable().grads.iter().any(|g| *g != 0.0));
}

#[test]
fn a_sample_does_not_depend_on_its_batch_and_its_log_probabilities_are_the_policys() {
    let mut policy = policy("qwen3", false);
    let prompts: Vec<Prompt> = (0..5)
        .map(|i| Prompt { ids: (0..4 + i).map(|j| 4 + (j * 9 + i) % 90).collect(), samples: 3 })
        .collect();
    let draw = |policy: &Policy, max_batch: usize| {
        let config = GenerateConfig {
            max_new_tokens: 9,
            stop_ids: vec![2, 40, 41, 42],
            max_batch,
            ..GenerateConfig::default()
        };
        Generator::new(policy, config)
            .expect("a generator")
            .run(&prompts, Seed::new(11), &mut |_| ControlFlow::Continue(()))
            .expect("samples")
    };
    let all = draw(&policy, 8);
    assert_eq!(all.len(), 15);
    assert_eq!(all, draw(&policy, 1));
    assert_eq!(all, draw(&policy, 3));
    assert!(all.iter().any(|s| s.ids.len() < 9), "some sample ends early");
    for sample in &all {
        let mut forest = Forest::default();
        let root = forest.root(&prompts[sample.prompt].ids);
        forest.completion(root, &sample.ids);
        let stats = policy.evaluate(&forest, Want::default()).expect("statistics");
        for (a, b) in sample.logps.iter().zip(&stats.logp) {
            assert!((a - b).abs() < 1e-4, "sampled with {a}, trained with {b}");
        }
    }
}

/// Five thousand sampled tokens: what is trained has the log-probabilities with which it was sampled, whatever was decoded
/// together and however it is divided into passes.
#[test]
fn completions_are_trained_with_the_log_probabilities_of_sampling() {
    for (temperature, top_p) in [(1.0, 1.0), (0.7, 0.9)] {
        let mut policy = policy("qwen3", false);
        let prompts: Vec<Vec<u32>> =
            (0..20).map(|i| (0..3 + i % 7).map(|j| 4 + (j * 9 + i) % 90).collect()).collect();
        let ids: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let config =
            RolloutConfig { temperature, top_p, max_completion_length: 36, ..RolloutConfig::default() };
        let draw = |policy: &Policy, max_batch| {
            let drawing = Drawing { config: &config, num_generations: 7, stop: &[], max_batch };
            drawing.draw(policy, &ids, Seed::new(2)).expect("completions")
        };
        let completions = draw(&policy, 64);
        assert!(completions == draw(&policy, 5), "the same whatever was decoded together");
        let count = completions.len();
        let round = Round {
            examples: (0..20).collect(),
            completions,
            rewards: vec![None; count],
            advantages: vec![None; count],
            ..Round::default()
        };
        let want = Want { temperature: config.tempered(), ..Want::default() };
        let (mut worst, mut tokens) = (0.0_f64, 0);
        for size in [3, 10] {
            for start in (0..count).step_by(size) {
                let pass = round.pass(start..(start + size).min(count), |i| &prompts[i]);
                let stats = policy.evaluate(&pass.forest, want).expect("statistics");
                for (rows, judged) in pass.sequences.iter().zip(&pass.judged) {
                    for (new, old) in stats.logp[rows.clone()].iter().zip(judged.old_logp) {
                        worst = worst.max((new - old).abs());
                        tokens += 1;
                    }
                }
            }
        }
        assert!(
            tokens > 2 * 5000 && worst <= 1e-4,
            "{worst} over {tokens} tokens at temperature {temperature}"
        );
    }
}

/// Dividing logits by a temperature is dividing the head's matrix by it, for statistics and gradients.
#[test]
fn a_temperature_divides_the_logits() {
    let mut policy = policy("llama", false);
    let want = Want { temperature: Some(0.5), ..WANT };
    let ones = |stats: &saddlepoint_lm::engine::Stats| {
        let ones = vec![1.0; stats.logp.len()];
        Cotangent { logp: ones.clone(), entropy: ones.clone(), divergence: ones, ..Cotangent::default() }
    };
    let stats = policy.forward(&batch(), want).expect("statistics");
    policy.backward(&ones(&stats)).expect("gradients");
    let spec = policy.tensors().iter().find(|spec| spec.name.contains("q_proj")).expect("a matrix").clone();
    let gradient = policy.trainable().grads[spec.range()].to_vec();
    let sum = |stats: &saddlepoint_lm::engine::Stats| {
        stats.logp.iter().chain(&stats.entropy).chain(&stats.divergence).sum::<f64>()
    };
    let at =
        (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).expect("one");
    let mut moved = |step: f32| {
        policy.trainable().params[spec.offset + at] += step;
        let value = sum(&policy.evaluate(&batch(), want).expect("statistics"));
        policy.trainable().params[spec.offset + at] -= step;
        value
    };
    let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
    let exact = f64::from(gradient[at]);
    assert!((numeric - exact).abs() < 2e-2 * exact.abs(), "{numeric} against {exact}");
    // At one half every probability is squared and normalised: the most probable token gains.
    let plain = policy.evaluate(&batch(), WANT).expect("statistics");
    for (row, top1) in plain.top1.iter().enumerate().filter(|(_, top1)| **top1) {
        assert!(*top1 && stats.logp[row] >= plain.logp[row] && stats.entropy[row] <= plain.entropy[row]);
    }
}

#[test]
fn a_caller_ends_a_sample_and_the_others_do_not_notice() {
    let policy = policy("llama", false);
    let asked = [Prompt { ids: vec![5, 6, 7], samples: 3 }];
    let draw = |limit: usize| {
        let config = GenerateConfig { max_new_tokens: 8, ..GenerateConfig::default() };
        let mut seen = 0;
        let mut on_token = |event: TokenEvent| {
            seen += usize::from(event.index == 1);
            if event.index == 1 && seen == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut generator = Generator::new(&policy, config).expect("a generator");
        generator.run(&asked, Seed::new(1), &mut on_token).expect("samples")
    };
    let (ended, whole) = (draw(3), draw(9));
    assert_eq!((ended[1].ids.len(), ended[1].finish), (3, Finish::Stop));
    assert_eq!(ended[1].ids[..], whole[1].ids[..3]);
    assert_eq!((&ended[0], &ended[2]), (&whole[0], &whole[2]));
}

#[test]
fn narrower_weights_stay_close() {
    let policy = policy("llama", false);
    let asked = [Prompt { ids: vec![5, 6, 7, 8], samples: 1 }];
    let draw = |weights| {
        let config =
            GenerateConfig { max_new_tokens: 1, temperature: 0.0, weights, ..GenerateConfig::default() };
        let samples = Generator::new(&policy, config)
            .expect("a generator")
            .run(&asked, Seed::new(1), &mut |_| ControlFlow::Continue(()))
            .expect("samples");
        (samples[0].ids[0], samples[0].logps[0])
    };
    let (id, exact) = draw(Weights::F32);
    for weights in [Weights::Bf16, Weights::Int8] {
        let (other, logp) = draw(weights);
        assert_eq!(id, other);
        assert!((logp - exact).abs() < 0.1, "{weights:?}: {logp} against {exact}");
    }
}

#[test]
fn a_prompt_is_computed_with_the_weights_of_what_follows_it() {
    let model = ModelFolder::open(&folder("llama/policy")).expect("a model");
    let mut policy =
        Policy::new(model.shape.clone(), setup(Some(LoraConfig::default()), false)).expect("a policy");
    policy.load(model.source()).expect("weights");
    policy.init_adapter(&mut Seed::new(3).stream("adapter", &[]));
    for (i, v) in policy.trainable().params.iter_mut().enumerate() {
        *v += (i % 7) as f32 * 0.01 - 0.03;
    }
    let draw = |ids: &[u32], max_new_tokens, weights| {
        let config =
            GenerateConfig { max_new_tokens, temperature: 0.0, weights, ..GenerateConfig::default() };
        let asked = [Prompt { ids: ids.to_vec(), samples: 1 }];
        Generator::new(&policy, config)
            .expect("a generator")
            .run(&asked, Seed::new(1), &mut |_| ControlFlow::Continue(()))
            .expect("samples")
            .remove(0)
    };
    for weights in [Weights::F32, Weights::Bf16, Weights::Int8] {
        let whole = draw(&[5, 6, 7, 8], 9, weights);
        let rest = draw(&[[5, 6, 7, 8].as_slice(), &whole.ids[..5]].concat(), 4, weights);
        assert_eq!(rest.ids, whole.ids[5..]);
        // Beside 8-bit weights inputs are rounded to 16 bits: what differs in the last bit may be a level apart.
        let near = if weights == Weights::Int8 { 2e-4 } else { 1e-5 };
        for (a, b) in rest.logps.iter().zip(&whole.logps[5..]) {
            assert!((a - b).abs() < near, "{weights:?}: {a} after a prompt, {b} after a sample");
        }
    }
}

/// Two completions after a context of this many tokens.
fn after(context: u32) -> Forest {
    let mut forest = Forest::default();
    let root = forest.root(&(0..context).map(|i| 4 + (i * 5) % 90).collect::<Vec<_>>());
    forest.completion(root, &(0..9).map(|i| 5 + (i * 7) % 80).collect::<Vec<_>>());
    forest.completion(root, &(0..4).map(|i| 6 + (i * 13) % 70).collect::<Vec<_>>());
    forest
}

#[test]
fn the_reference_may_read_another_context() {
    let mut policy = policy("qwen3", false);
    let (long, short) = (after(70), after(3));
    let views = Views { policy: &long, reference: &short };
    let [both, own, other] =
        [views, (&long).into(), (&short).into()].map(|v| policy.evaluate(v, WANT).expect("statistics"));
    assert!(both.logp == own.logp && both.entropy == own.entropy);
    assert!(both.ref_logp == other.ref_logp && both.ref_logp != own.ref_logp);
    assert!(both.divergence != own.divergence && both.divergence != other.divergence);

    assert_gradient(&mut policy, views);

    let shorter = Views { policy: &long, reference: &batch() };
    let message = policy.evaluate(shorter, WANT).unwrap_err().to_string();
    assert_eq!(message, "batch: policy and reference are to predict different tokens");
}

/// The derivative of the divergence along its gradient is the gradient's norm.
fn assert_gradient(policy: &mut Policy, views: Views) {
    policy.zero_grads();
    let rows = policy.forward(views, WANT).expect("statistics").divergence.len();
    let cotangent = Cotangent { divergence: vec![1.0; rows], ..Cotangent::default() };
    policy.backward(&cotangent).expect("gradients");
    let trainable = policy.trainable();
    let (params, grads) = (trainable.params.to_vec(), trainable.grads.to_vec());
    let norm = grads.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let mut along = |step: f64| {
        let moved = params.iter().zip(&grads).map(|(p, g)| p + (step * f64::from(*g) / norm) as f32);
        policy.trainable().params.copy_from_slice(&moved.collect::<Vec<_>>());
        policy.evaluate(views, WANT).expect("statistics").divergence.iter().sum::<f64>()
    };
    let slope = (along(1e-3) - along(-1e-3)) / 2e-3;
    assert!((slope / norm - 1.0).abs() < 1e-2, "{slope} along a gradient of norm {norm}");
}

#[test]
fn the_reference_may_have_another_shape() {
    let open = |name: &str| ModelFolder::open(&folder(name)).expect("a model");
    let (model, other) = (open("llama/policy"), open("qwen3/policy"));
    assert!(!model.shape.same_weights(&other.shape));
    let alone = |model: &ModelFolder| {
        let mut policy = Policy::new(model.shape.clone(), setup(None, false)).expect("a policy");
        policy.load(model.source()).expect("weights");
        policy
    };
    let mut policy = alone(&model);
    policy.load_reference(&other.shape, other.source()).expect("weights");
    let forest = batch();
    let stats = policy.forward(&forest, WANT).expect("statistics");
    let [own, theirs] =
        [&model, &other].map(|model| alone(model).evaluate(&forest, Want::default()).expect("statistics"));
    assert!(stats.logp == own.logp && stats.ref_logp == theirs.logp);
    assert!(policy.reference_logps(&forest).expect("log-probabilities") == theirs.logp);
    let specs = policy.reference_tensors().to_vec();
    assert!(specs == other.shape.tensors());
    let norm = specs.iter().find(|spec| spec.name == "model.norm.weight").expect("a norm");
    let [mut values, mut expected] = [vec![0.0; norm.len()], vec![0.0; norm.len()]];
    policy.reference_tensor(norm, &mut values);
    other.source().read(norm, &mut expected).expect("a tensor");
    assert!(values == expected);

    // The divergence is that of the two distributions over the whole vocabulary.
    let mut forest = Forest::default();
    forest.root(&[5, 17, 3, 40, 8]);
    for at in [1, 4] {
        forest.rows.extend((0..97).map(|target| Row { at, target }));
    }
    let stats = policy.evaluate(&forest, WANT).expect("statistics");
    for rows in [0..97, 97..194] {
        let of = |logps: &[f64]| logps[rows.clone()].iter().map(|logp| logp.exp()).collect::<Vec<_>>();
        let exact = Divergence::ReverseKl.between(&of(&stats.logp), &of(&stats.ref_logp));
        let got = stats.divergence[rows.start];
        assert!(exact > 0.01 && (got / exact - 1.0).abs() < 1e-4, "{got} for {exact}");
    }
    assert_gradient(&mut policy, (&batch()).into());

    let wide = saddlepoint_lm::engine::Shape { vocab: 98, ..other.shape.clone() };
    let message = policy.load_reference(&wide, other.source()).unwrap_err().to_string();
    assert_eq!(message, "reference: predicts 98 tokens, and the policy 97");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let mut policy = policy("llama", false);
    let message = |result: saddlepoint_lm::Result<_>| {
        result.map(|_: saddlepoint_lm::engine::Stats| ()).unwrap_err().to_string()
    };
    let mut large = Forest::default();
    large.root(&vec![5; 513]);
    assert!(
        message(policy.evaluate(&large, Want::default()))
            .starts_with("batch: 513 tokens with 0 predictions exceed")
    );
    let mut foreign = Forest::default();
    let root = foreign.root(&[5, 97]);
    foreign.completion(root, &[6]);
    assert_eq!(
        message(policy.forward(&foreign, Want::default())),
        "tokenizer: token id 97 is outside the model's vocabulary of 97"
    );
    let error = policy.backward(&Cotangent::default()).unwrap_err().to_string();
    assert!(error.contains("no forward pass"), "{error}");

    let model = ModelFolder::open(&folder("llama/policy")).expect("a model");
    let none = Setup { reference: Reference::None, ..setup(None, false) };
    let mut alone = Policy::new(model.shape.clone(), none).expect("a policy");
    alone.load(model.source()).expect("weights");
    assert!(message(alone.evaluate(&batch(), WANT)).contains("there is no reference"));
    let off = Setup { reference: Reference::AdapterOff, ..setup(None, false) };
    assert!(Policy::new(model.shape.clone(), off).unwrap_err().to_string().contains("model.lora"));
}
