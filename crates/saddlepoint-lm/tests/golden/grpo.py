"""Writes grpo.json: losses, metrics and PyTorch's derivatives of TRL's GRPOTrainer on random log-probabilities.
Usage: python grpo.py > grpo.json"""

from rollouts import advantages, loss, rollout
from peer import write

cases = []
for i, (settings, scale, masked) in enumerate([
    ({}, "group", []),
    ({"loss_type": "grpo", "beta": 0.04}, "group", []),
    ({"loss_type": "bnpo", "epsilon": 0.1, "epsilon_high": 0.28, "beta": 0.3, "use_bias_correction_kl": True}, "batch", [1, 6]),
    ({"loss_type": "dr_grpo", "beta": 0.1}, "none", [5]),
    ({"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.02}, "group", [0]),
    ({"loss_type": "dapo", "importance_sampling_level": "sequence", "epsilon": 0.03, "beta": 0.2, "use_bias_correction_kl": True}, "none", []),
    ({"loss_type": "dapo", "epsilon_high": 0.5, "epsilon": 0.05, "beta": 1.0}, "group", [2]),
]):
    stats = rollout(i, groups=3, each=4)
    worth = advantages(stats["rewards"], 4, scale)
    config = {"name": "grpo", "scale_rewards": scale, **settings}
    cases.append({"config": config, **stats, "each": 4, "masked": masked, **loss("grpo", stats, worth, masked, settings)})
write(cases)
