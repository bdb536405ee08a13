//! How completions are divided into rounds, optimizer steps and passes.

use super::RolloutConfig;
use super::config::refused;
use crate::Result;
use crate::method::OnPolicy;
use crate::recipe::TrainConfig;

/// Numbers of one run. A round has `steps` steps, each goes through the next `a_step` of its completions, and the round is
/// gone through `iterations` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Completions a prompt.
    pub num_generations: usize,
    /// Completions of an optimizer step.
    pub a_step: usize,
    /// Optimizer steps that go once through a round.
    pub steps: usize,
    /// How often a round is gone through.
    pub iterations: usize,
}

/// Where an optimizer step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of its round.
    pub round: u64,
    /// Number of its step in the round, over all times that it is gone through.
    pub within: usize,
    /// First of its completions in the round.
    pub first: usize,
}

impl Plan {
    /// Of settings and what a method needs.
    ///
    /// # Errors
    /// The numbers do not fit together.
    pub fn new(config: &RolloutConfig, train: &TrainConfig, needs: &OnPolicy, method: &str) -> Result<Self> {
        config.check()?;
        let num_generations = config.num_generations.unwrap_or(needs.num_generations);
        if num_generations < needs.fewest {
            let fewest = needs.fewest;
            let problem = format!("must be at least {fewest} for `{method}`, got {num_generations}");
            return Err(refused("num_generations", problem));
        }
        let (passes, accumulated) = (
            config.steps_per_generation.unwrap_or(train.gradient_accumulation_steps),
            train.gradient_accumulation_steps,
        );
        if !passes.is_multiple_of(accumulated) {
            let problem = format!(
                "must be a multiple of train.gradient_accumulation_steps = {accumulated}, got {passes}: a round is \
                 divided into whole optimizer steps"
            );
            return Err(refused("steps_per_generation", problem));
        }
        let (a_step, a_pass) = (train.step_size(), train.per_device_train_batch_size);
        let plan =
            Self { num_generations, a_step, steps: passes / accumulated, iterations: config.num_iterations };
        if !plan.a_round().is_multiple_of(num_generations) {
            let problem = format!(
                "{num_generations} completions a prompt do not divide a round of {} ({passes} passes of \
                 train.per_device_train_batch_size = {a_pass} completions); choose numbers that do",
                plan.a_round()
            );
            return Err(refused("num_generations", problem));
        }
        if let Some(filter) = &config.filter {
            filter.check(num_generations)?;
        }
        if needs.whole_groups && !a_pass.is_multiple_of(num_generations) {
            let problem = format!(
                "{num_generations} completions a prompt do not divide a pass of train.per_device_train_batch_size = \
                 {a_pass}: `{method}` compares all of them; choose numbers that do"
            );
            return Err(refused("num_generations", problem));
        }
        if !needs.corrects && plan.steps * plan.iterations > 1 {
            let key = if plan.iterations > 1 { "num_iterations" } else { "steps_per_generation" };
            let problem = format!(
                "`{method}` needs new samples in every step: it does not correct for older ones; remove it"
            );
            return Err(refused(key, problem));
        }
        Ok(plan)
    }

    /// Completions of a round.
    pub fn a_round(&self) -> usize {
        self.a_step * self.steps
    }

    /// Prompts of a round.
    pub fn prompts(&self) -> usize {
        self.a_round() / self.num_generations
    }

    /// Optimizer steps of a pass over `prompts` prompts; perhaps not a whole number.
    pub fn steps_per_epoch(&self, prompts: usize) -> f64 {
        (prompts * self.num_generations * self.iterations) as f64 / self.a_step as f64
    }

    /// Where optimizer step `step`, counted from 0, stands.
    pub fn place(&self, step: u64) -> Place {
        let each = (self.steps * self.iterations) as u64;
        let within = (step % each) as usize;
        Place { round: step / each, within, first: within % self.steps * self.a_step }
    }

    /// The first optimizer step of a round.
    pub fn start(&self, round: u64) -> u64 {
        round * (self.steps * self.iterations) as u64
    }

    /// Whether the step is the last that uses its round.
    pub fn ends(&self, place: Place) -> bool {
        place.within + 1 == self.steps * self.iterations
    }

    /// Most prompts that one pass of `completions` completions touches.
    pub fn touched(&self, completions: usize) -> usize {
        // The first and the last of them may be touched in part.
        completions.min((completions + 2 * (self.num_generations - 1)) / self.num_generations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: OnPolicy =
        OnPolicy { num_generations: 8, fewest: 2, corrects: true, kl_in_reward: false, whole_groups: false };

    fn train(size: usize, accumulated: usize) -> TrainConfig {
        TrainConfig {
            per_device_train_batch_size: size,
            gradient_accumulation_steps: accumulated,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn steps_go_through_a_round_again_and_again() {
        let config = RolloutConfig {
            num_generations: Some(4),
            steps_per_generation: Some(6),
            num_iterations: 2,
            ..RolloutConfig::default()
        };
        let plan = Plan::new(&config, &train(4, 2), &NEEDS, "grpo").expect("fits");
        assert_eq!((plan.a_step, plan.a_round(), plan.prompts(), plan.steps), (8, 24, 6, 3));
        let places: Vec<_> =
            (0..8).map(|step| plan.place(step)).map(|p| (p.round, p.within, p.first)).collect();
        let expected =
            [(0, 0, 0), (0, 1, 8), (0, 2, 16), (0, 3, 0), (0, 4, 8), (0, 5, 16), (1, 0, 0), (1, 1, 8)];
        assert_eq!(places, expected);
        assert_eq!([0, 1, 2].map(|round| plan.start(round)), [0, 6, 12]);
        assert_eq!((0..7).filter(|&step| plan.ends(plan.place(step))).collect::<Vec<_>>(), [5]);
        // 12 prompts are two rounds.
        assert!((plan.steps_per_epoch(12) - 12.0).abs() < 1e-12);
    }

    #[test]
    fn a_pass_touches_no_more_prompts_than_said() {
        for num_generations in [1, 2, 3, 8] {
            let plan = Plan { num_generations, a_step: 0, steps: 1, iterations: 1 };
            for completions in 1..20_usize {
                for first in 0..8_usize {
                    let groups = (first + completions - 1) / num_generations - first / num_generations + 1;
                    assert!(groups <= plan.touched(completions), "{num_generations} {completions} {first}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_told() {
        let told = |config: RolloutConfig, train: &TrainConfig, needs: &OnPolicy| {
            Plan::new(&config, train, needs, "rloo").expect_err("refused").to_string()
        };
        let default = RolloutConfig::default;
        assert_eq!(
            told(RolloutConfig { num_generations: Some(1), ..default() }, &train(8, 1), &NEEDS),
            "rollout.num_generations: must be at least 2 for `rloo`, got 1"
        );
        assert_eq!(
            told(RolloutConfig { num_generations: Some(3), ..default() }, &train(4, 2), &NEEDS),
            "rollout.num_generations: 3 completions a prompt do not divide a round of 8 (2 passes of \
             train.per_device_train_batch_size = 4 completions); choose numbers that do"
        );
        assert_eq!(
            told(RolloutConfig { steps_per_generation: Some(3), ..default() }, &train(8, 2), &NEEDS),
            "rollout.steps_per_generation: must be a multiple of train.gradient_accumulation_steps = 2, got 3: a \
             round is divided into whole optimizer steps"
        );
        let whole = OnPolicy { whole_groups: true, ..NEEDS };
        assert_eq!(
            told(RolloutConfig { num_generations: Some(8), ..default() }, &train(4, 2), &whole),
            "rollout.num_generations: 8 completions a prompt do not divide a pass of \
             train.per_device_train_batch_size = 4: `rloo` compares all of them; choose numbers that do"
        );
        let new = OnPolicy { corrects: false, ..NEEDS };
        assert_eq!(
            told(RolloutConfig { num_iterations: 2, ..default() }, &train(8, 1), &new),
            "rollout.num_iterations: `rloo` needs new samples in every step: it does not correct for older ones; remove it"
        );
    }
}
