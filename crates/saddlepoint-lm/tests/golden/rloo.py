"""Writes rloo.json: losses, metrics and PyTorch's derivatives of TRL's RLOOTrainer on random log-probabilities.
Usage: python rloo.py > rloo.json"""

import torch
from rollouts import left_out, loss, rollout
from peer import write

cases = []
for i, (settings, masked) in enumerate([
    ({}, []), ({"beta": 0.0, "epsilon": 0.1, "epsilon_high": 0.4}, [3]), ({"beta": 0.5, "normalize_advantages": True}, []),
]):
    stats = rollout(i, groups=4, each=3, apart=0.1)
    config = {"name": "rloo", "beta": 0.05, **settings}
    kl = [sum(p) - sum(q) for p, q in zip(stats["old_logp"], stats["ref_logp"])]
    rewards = torch.tensor([float("nan") if r is None else r for r in stats["rewards"]], dtype=torch.double)
    worth = left_out(rewards - config["beta"] * torch.tensor(kl, dtype=torch.double), 3, config.get("normalize_advantages", False))
    cases.append({"config": config, **stats, "each": 3, "kl": kl, "masked": masked, **loss("rloo", stats, worth, masked, settings)})
write(cases)
