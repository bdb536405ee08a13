//! Recipes as files, and every contradiction that is refused.

use std::fs;

use saddlepoint_opt::optimizer::lion::Kappa;
use saddlepoint_opt::optimizer::{
    AdamWConfig, LionConfig, OptimizerConfig as Rule, SgdConfig, SignSgdConfig,
};

use super::*;
use crate::tether::dual::{Augmented, DualConfig, Gains, Hinge};
use crate::tether::{Ingredient, ReferenceConfig};

const SMALL: &str = "[model]\npath = \"m\"\n[data]\npath = \"d.jsonl\"\n";

fn load(text: &str) -> Result<Recipe> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("recipe.toml");
    fs::write(&file, text).expect("written");
    Recipe::load(&file, &[])
}

fn refusal(text: &str) -> String {
    load(text).expect_err("refused").to_string()
}

#[test]
fn paths_start_at_the_recipe_and_a_resolved_recipe_reads_back() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("recipe.toml");
    let text = "[model]\npath = \"m\"\nlora = { r = 4 }\n[data]\npath = \"/data/d.jsonl\"\neval_fraction = 0.1\n\
                [method]\nname = \"dpo\"\nbeta = 0.2\n[tether]\nbudget = 3.0\n\
                reference = { soup = [{ path = \"a\" }, { path = \"b\", weight = 2.0 }] }\n";
    fs::write(&file, text).expect("written");
    let teacher = "teacher = { path = \"large\", recipe = \"large.toml\" }".to_owned();
    let mut named = Recipe::read(&file, &[teacher]).expect("a recipe").teacher.expect("given");
    assert_eq!(named.path.take(), Some(place.path().join("large")));
    assert_eq!(named.recipe.take(), Some(place.path().join("large.toml")));
    let recipe = Recipe::load(&file, &["method.beta=0.3".to_owned()]).expect("valid");
    assert_eq!(recipe.model.path, Some(place.path().join("m")));
    assert_eq!(recipe.data.path, Some(PathBuf::from("/data/d.jsonl")));
    assert_eq!(recipe.train.output_dir, place.path().join("output"));
    let soup = [("a", 1.0), ("b", 2.0)];
    let soup = soup.map(|(name, weight)| Ingredient { path: place.path().join(name), weight });
    let reference = recipe.tether.as_ref().map(|tether| tether.reference.clone());
    assert_eq!(reference, Some(ReferenceConfig::Soup(soup.to_vec())));
    assert_eq!(recipe.method.build().expect("valid").beta(), Some(0.3));
    assert!((recipe.learning_rate() - 1e-6).abs() < 1e-20, "the default of dpo");
    let again = place.path().join("again.toml");
    fs::write(&again, config::to_toml(&recipe)).expect("written");
    assert_eq!(Recipe::load(&again, &[]).expect("valid"), recipe);
}

#[test]
fn contradictions_are_refused() {
    for (text, message) in [
        ("[data]\npath = \"d\"\n".to_owned(), "model: needs one of `path`, `recipe` and `new`"),
        (
            "[model]\npath = \"m\"\nnew = {}\n[data]\npath = \"d\"\n".to_owned(),
            "model: takes one of `path`, `recipe` and `new`, got several",
        ),
        ("[model]\npath = \"m\"\n".to_owned(), "data: needs `path` or `generate`"),
        (
            "[model]\npath = \"m\"\n[data]\npath = \"d\"\ngenerate = {}\n".to_owned(),
            "data: takes `path` or `generate`, not both",
        ),
        (
            "[model]\npath = \"m\"\n[data]\ngenerate = {}\neval_fraction = 0.1\n".to_owned(),
            "data.generate: generated data has its own `eval_samples`; remove eval_path and eval_fraction",
        ),
        (
            "[model]\nnew = { hidden_size = 30 }\n[data]\ngenerate = {}\n".to_owned(),
            "model.new.hidden_size: must be a multiple of 2 x num_attention_heads = 8, got 30",
        ),
        (
            "[model]\nnew = { num_key_value_heads = 3 }\n[data]\ngenerate = {}\n".to_owned(),
            "model.new.num_key_value_heads: must divide num_attention_heads = 4, got 3",
        ),
        (
            "[model]\nnew = {}\nlora = {}\n[data]\ngenerate = {}\n".to_owned(),
            "model.lora: an adapter on random weights learns nothing; remove it",
        ),
        (
            "[model]\npath = \"m\"\ndtype = \"bf16\"\n[data]\npath = \"d\"\n".to_owned(),
            "model.dtype: `bf16` is for weights that are not trained: add `lora`, or use `f32` (default)",
        ),
        (
            format!("{SMALL}[tether]\nbudget = 1.0\n"),
            "tether: is measured on held-out prompts: set data.eval_path or data.eval_fraction",
        ),
        (
            format!("{SMALL}[train]\nload_best_model_at_end = true\n"),
            "train.load_best_model_at_end: needs an evaluation: set data.eval_path or data.eval_fraction",
        ),
        (
            format!(
                "{SMALL}eval_fraction = 0.1\n[tether]\nbudget = 1.0\n[train]\nload_best_model_at_end = true\n"
            ),
            "train.load_best_model_at_end: contradicts tether.budget, which chooses the model at the end; remove one",
        ),
        (format!("{SMALL}eval_fraction = 1.0\n"), "data.eval_fraction: must be in [0, 1), got 1 (default 0)"),
        (
            format!("{SMALL}[optimizer]\nadam_beta1 = 1.0\n"),
            "optimizer.adam_beta1: must be in [0, 1), got 1 (default 0.9)",
        ),
        (
            format!("{SMALL}[optimizer]\nname = \"lion\"\nbeta2 = 1.0\n"),
            "optimizer.beta2: must be in [0, 1), got 1 (default 0.99)",
        ),
        (
            format!("{SMALL}[optimizer]\nname = \"lion\"\nkappa = {{ name = \"huber\", e = 0.0 }}\n"),
            "optimizer.kappa.e: must be > 0, got 0 (it has no default)",
        ),
        (
            format!("{SMALL}[optimizer]\nlearning_rate = -1.0\n"),
            "optimizer.learning_rate: must be >= 0, got -1",
        ),
        (
            format!("{SMALL}[train]\nwarmup_ratio = 2.0\n"),
            "train.warmup_ratio: must be in [0, 1], got 2 (default 0)",
        ),
        (
            format!("{SMALL}[train]\nmin_lr_rate = 0.1\n"),
            "train.min_lr_rate: needs lr_scheduler_type = \"cosine\"; remove it or change the type",
        ),
        (
            format!("{SMALL}[train]\nper_device_train_batch_size = 0\n"),
            "train.per_device_train_batch_size: must be at least 1, got 0",
        ),
        (
            format!("{SMALL}[train]\nnum_train_epochs = 0.0\n"),
            "train.num_train_epochs: must be > 0, got 0 (default 3)",
        ),
        (
            format!("{SMALL}[method]\nname = \"dpo\"\nbeta = 0.0\n"),
            "method.beta: must be > 0, got 0 (default 0.1)",
        ),
        (
            format!("{SMALL}[reward]\nreward_funcs = [{{ name = \"exact_match\" }}]\n"),
            "reward: has no use: sft learns from no rewards; remove it",
        ),
        (format!("{SMALL}[reward]\n"), "reward.reward_funcs: needs at least one reward"),
        (
            format!("{SMALL}[rollout]\n"),
            "rollout: has no use: sft learns from no rewards of its own completions; remove it",
        ),
        (
            format!("{SMALL}[method]\nname = \"grpo\"\n"),
            "reward: is missing: `grpo` learns from rewards; name them in reward.reward_funcs",
        ),
        (
            rewarded("grpo", "[rollout]\ntemperature = -1.0\n"),
            "rollout.temperature: must be > 0, got -1 (default 1)",
        ),
        (
            rewarded("grpo", "[rollout]\nserver = { url = \"http://localhost:80000\" }\n"),
            "rollout.server.url: must name a host, such as http://localhost:8000, got \"http://localhost:80000\"",
        ),
        (
            rewarded("grpo", "[rollout]\nserver = { url = \"http://a\", concurrency = 0 }\n"),
            "rollout.server.concurrency: must be from 1 to 1024, got 0 (default 16)",
        ),
        (
            rewarded("rloo", "[rollout]\nnum_generations = 3\n"),
            "rollout.num_generations: 3 completions a prompt do not divide a round of 8 (1 passes of \
             train.per_device_train_batch_size = 8 completions); choose numbers that do",
        ),
        (
            rewarded("reinforce", "[rollout]\nsteps_per_generation = 2\n"),
            "rollout.steps_per_generation: `reinforce` needs new samples in every step: it does not correct for older \
             ones; remove it",
        ),
        (
            rewarded(
                "grpo",
                "[rollout]\ntemperature = 0.6\n[tether]\nbudget = 1.0\n[train]\nmax_steps = 1\n",
            )
            .replace("d.jsonl\"", "d.jsonl\"\neval_fraction = 0.1"),
            "rollout.temperature: must be 1 with a tether, got 0.6: the divergence is that of the policy's own distribution",
        ),
        (
            rewarded(
                "grpo",
                "[rollout]\nserver = { url = \"http://s\" }\nmax_staleness = 1\n[tether]\nbudget = 1.0\n[train]\nmax_steps = 1\n",
            )
            .replace("[model]", "[model]\nlora = { r = 4 }")
            .replace("d.jsonl\"", "d.jsonl\"\neval_fraction = 0.1"),
            "rollout.max_staleness: must be 0 with a tether, got 1: the divergence there is that at the policy's own completions, \
             and has no weights for those of an older one; remove one",
        ),
        (
            rewarded(
                "kdrl\"\nkl_estimator = \"full",
                "[teacher]\npath = \"t\"\n[rollout]\nserver = { url = \"http://s\" }\nmax_staleness = 1\n",
            )
            .replace("[model]", "[model]\nlora = { r = 4 }"),
            "rollout.max_staleness: must be 0 with method.kl_estimator = \"full\", got 1: the divergence there is that at the \
             policy's own completions, and has no weights for those of an older one; remove one",
        ),
        (
            rewarded("grpo", "[train]\nprecompute_ref_log_probs = true\n"),
            "train.precompute_ref_log_probs: has no use: grpo asks the reference about completions, which are not known \
             before",
        ),
        (
            rewarded("kdrl", ""),
            "teacher: is missing: `kdrl` learns from a second model; name it in teacher.path, teacher.recipe or \
             teacher.server",
        ),
        (rewarded("kdrl", "[teacher]\n"), "teacher: needs `path`, `recipe` or `server`"),
        (
            rewarded("kdrl", "[teacher]\npath = \"t\"\nrecipe = \"t.toml\"\n"),
            "teacher: takes one of `path`, `recipe` and `server`; remove the others",
        ),
        (
            rewarded("kdrl", "[teacher]\npath = \"t\"\nserver = { url = \"http://t\" }\n"),
            "teacher: takes one of `path`, `recipe` and `server`; remove the others",
        ),
        (
            rewarded("kdrl", "[teacher]\nserver = { url = \"http://t\", timeout = 0 }\n"),
            "teacher.server.timeout: must be in (0, 1e5] seconds, got 0 (default 300)",
        ),
        (
            rewarded("kdrl\"\nkl_estimator = \"full", "[teacher]\nserver = { url = \"http://t\" }\n"),
            "method.kl_estimator: reads whole distributions, which a server does not give: use \"k2\" or \"k3\", which read \
             the sampled token, or \"top_k\", which bounds the divergence from below by the most probable ones; or load the \
             teacher here with teacher.path",
        ),
        (
            rewarded("kdrl\"\nkl_estimator = \"top_k", "[teacher]\npath = \"t\"\n"),
            "method.kl_estimator: reads the most probable tokens that a server gives; of a teacher in this process the whole \
             distribution is there: use \"full\"",
        ),
        (
            rewarded("kdrl", "[teacher]\nserver = { url = \"http://t\" }\ntop_k = 5\n"),
            "teacher.top_k: has no use, got 5: the most probable tokens are read of a server alone, with \
             method.kl_estimator = \"top_k\"; remove it",
        ),
        (
            rewarded(
                "kdrl\"\nkl_estimator = \"top_k",
                "[teacher]\nserver = { url = \"http://t\" }\ntop_k = 0\n",
            ),
            "teacher.top_k: must be at least 1, got 0 (default 20)",
        ),
        (
            rewarded("kdrl", "[teacher]\nserver = { url = \"http://t\" }\n[rollout]\ntemperature = 0.6\n"),
            "rollout.temperature: must be 1 with teacher.server, got 0.6: a server gives log-probabilities at temperature 1, \
             and policy and teacher are compared at the temperature of sampling; load the teacher here with teacher.path",
        ),
        (
            rewarded("grpo", "[teacher]\npath = \"t\"\n"),
            "teacher: has no use: `grpo` learns from none; remove it (tether.reference = { checkpoint = ... } holds the \
             policy to another model)",
        ),
        (
            rewarded("kdrl", "[teacher]\npath = \"t\"\n[tether]\nbeta = 0.1\n"),
            "tether: contradicts `kdrl`, whose divergence is that from its teacher; remove it (a budget of the divergence \
             from another model is grpo with tether.reference = { checkpoint = ... })",
        ),
        (
            rewarded("kdrl", "[teacher]\npath = \"t\"\n[rollout]\nnum_iterations = 2\n"),
            "rollout.num_iterations: `kdrl` needs new samples in every step: it does not correct for older ones; remove it",
        ),
        (precomputed("sft", ""), "train.precompute_ref_log_probs: has no use: sft reads no reference"),
        (
            precomputed("tdpo", ""),
            "train.precompute_ref_log_probs: has no use: tdpo reads whole distributions of the reference",
        ),
        (
            precomputed("hypo", ""),
            "train.precompute_ref_log_probs: has no use: hypo asks the reference about samples, which are not known before",
        ),
        (
            precomputed("simpo", "[tether]\nbeta = 0.1\n"),
            "train.precompute_ref_log_probs: has no use: the tether reads whole distributions of the reference for simpo",
        ),
        (
            precomputed("dpo", "[tether]\nbudget = 2.0\n"),
            "train.precompute_ref_log_probs: has no use: the tether reads whole distributions of the reference for dpo",
        ),
        (
            precomputed("dpo", "[tether]\nbeta = 0.1\nreference = { previous = 9 }\n"),
            "train.precompute_ref_log_probs: contradicts tether.reference, which moves; remove one",
        ),
        (
            format!(
                "{SMALL}[method]\nname = \"implicit-reward\"\nv_mode = \"batch_mean\"\n[train]\ngradient_accumulation_steps = 2\n"
            ),
            "train.gradient_accumulation_steps: must be 1 with these settings of method `implicit-reward`, got 2: the loss \
             of a sequence depends on the others of its pass, so the passes of a step would not add up to the step; \
             raise train.per_device_train_batch_size instead",
        ),
    ] {
        assert_eq!(refusal(&text), message);
    }
}

/// A recipe that learns from a reward.
fn rewarded(method: &str, more: &str) -> String {
    format!(
        "{SMALL}[method]\nname = \"{method}\"\n[reward]\nreward_funcs = [{{ name = \"exact_match\" }}]\n{more}"
    )
}

/// A recipe that computes the reference's log-probabilities before training.
fn precomputed(method: &str, more: &str) -> String {
    format!(
        "{SMALL}eval_fraction = 0.1\n[method]\nname = \"{method}\"\n{more}[train]\nprecompute_ref_log_probs = true\n"
    )
}

#[test]
fn the_name_of_an_optimizer_decides_its_keys() {
    let optimizer = |text: &str| load(&format!("{SMALL}[optimizer]\n{text}")).map(|recipe| recipe.optimizer);
    let rule = |text: &str| optimizer(text).expect("valid").rule;
    let adamw = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    assert_eq!(rule("weight_decay = 0.1\n"), Rule::Adamw(adamw));
    let lion = LionConfig { weight_decay: 1.0, kappa: Kappa::Lp { p: 1.5 }, ..LionConfig::default() };
    let text =
        "name = \"lion\"\nweight_decay = 1\nkappa = { name = \"lp\", p = 1.5 }\nlearning_rate = 1e-4\n";
    assert_eq!(
        optimizer(text).expect("valid"),
        OptimizerConfig { rule: Rule::Lion(lion), learning_rate: Some(1e-4), max_grad_norm: 1.0 }
    );
    assert_eq!(rule("name = \"sgd\"\n"), Rule::Sgd(SgdConfig::default()));
    assert_eq!(rule("name = \"sign-sgd\"\n"), Rule::SignSgd(SignSgdConfig::default()));
    let message = optimizer("name = \"lion\"\nadam_beta1 = 0.9\n").expect_err("refused").to_string();
    assert!(message.contains("unknown key optimizer.adam_beta1; did you mean"), "{message}");
    let message = optimizer("name = \"lions\"\n").expect_err("refused").to_string();
    assert!(message.ends_with("got \"lions\"; did you mean \"lion\"?"), "{message}");
}

#[test]
fn the_dual_of_a_tether_decides_its_keys() {
    let recipe = |text: &str| load(&format!("{SMALL}eval_fraction = 0.1\n[tether]\nbudget = 1.0\n{text}"));
    let dual = |text: &str| recipe(text).expect("valid").tether.expect("given").dual;
    assert_eq!(dual("kp = 2\n"), DualConfig::NuPi(Gains { kp: 2.0, ..Gains::default() }));
    let hinge = Hinge { rho: Some(3.0), growth: 1.0 };
    assert_eq!(dual("dual = \"squared_hinge\"\nrho = 3\n"), DualConfig::SquaredHinge(hinge));
    let augmented = Augmented { growth: 2.0, ..Augmented::default() };
    let text = "dual = \"augmented_lagrangian\"\ngrowth = 2\n";
    assert_eq!(dual(text), DualConfig::AugmentedLagrangian(augmented));
    for (text, told) in [
        ("dual = \"squared_hinge\"\nkp = 1.0\n", "tether.kp; did you mean tether[nu_pi].kp?"),
        ("rho = 1.0\n", "tether.rho; did you mean tether[augmented_lagrangian].rho?"),
        ("dual = \"squared_hinge\"\ninitial_beta = 1.0\n", "tether[nu_pi].initial_beta?"),
    ] {
        let message = recipe(text).expect_err("refused").to_string();
        assert!(message.contains("unknown key tether.") && message.ends_with(told), "{message}");
    }
    let message = recipe("dual = \"hinge\"\n").expect_err("refused").to_string();
    let names = "\"nu_pi\", \"augmented_lagrangian\", \"squared_hinge\"";
    assert!(message.ends_with(&format!("tether.dual: must be one of {names}, got \"hinge\"")), "{message}");
}

#[test]
fn the_name_of_a_reward_decides_its_keys() {
    let told = |text: &str| refusal(&format!("{SMALL}[reward]\nreward_funcs = [{text}]\n"));
    for (text, message) in [
        (
            "{ name = \"exact_match\", colum = \"x\" }",
            "unknown key reward.reward_funcs[0].colum; did you mean reward.reward_funcs[0].column?",
        ),
        ("{ name = \"exact_mach\" }", "got \"exact_mach\"; did you mean \"exact_match\"?"),
        ("{ weight = 1.0 }", "reward.reward_funcs[0].name"),
        (
            "{ name = \"get_soft_overlong_punishment\", soft_punish_cache = 3 }",
            "reward.reward_funcs[0].max_completion_len",
        ),
    ] {
        let told = told(text);
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    let message = refusal(&format!("{SMALL}[train]\nmax_step = 3\n"));
    assert!(message.contains("unknown key train.max_step; did you mean train.max_steps?"), "{message}");
    let message = refusal(&format!("{SMALL}[method]\nname = \"dpo\"\nbetta = 3\n"));
    assert!(message.contains("method.betta"), "{message}");
}

#[test]
fn steps_follow_from_records() {
    let train = TrainConfig {
        per_device_train_batch_size: 4,
        gradient_accumulation_steps: 2,
        num_train_epochs: 1.5,
        ..TrainConfig::default()
    };
    assert_eq!((train.steps_per_epoch(17), train.total_steps(17)), (3, 5));
    assert_eq!(TrainConfig { max_steps: Some(7), ..train }.total_steps(17), 7);
}

#[test]
fn every_key_is_documented() {
    for key in config::keys::<Recipe>() {
        assert!(!key.doc.is_empty(), "{} has no doc comment", key.path);
    }
}
