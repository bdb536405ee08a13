"""Writes kdrl.json: KDRL's loss on random log-probabilities. With k3 and no mask it is TRL's GRPO loss (bnpo, no clip) with the
teacher as its reference; the others are by the formulas, with PyTorch's derivative. Usage: python kdrl.py > kdrl.json"""

import torch
from peer import write
from rollouts import LONGEST, entropy, loss, rollout

EACH, GROUPS = 4, 4


def advantages(rewards, std):
    r = torch.tensor([float("nan") if r is None else r for r in rewards], dtype=torch.double).view(-1, EACH)
    centred = r - torch.nanmean(r, 1, keepdim=True)
    count = (~r.isnan()).sum(1, keepdim=True)
    deviation = (torch.nansum(centred**2, 1, keepdim=True) / (count - (std == "sample") * 1)).sqrt()
    return torch.nan_to_num((centred / (deviation + 1e-6)).view(-1))


def by_hand(stats, worth, config, step):
    learned = [j for j, reward in enumerate(stats["rewards"]) if reward is not None]
    tensor = lambda rows: torch.tensor(rows, dtype=torch.double)
    logp = [tensor(rows).requires_grad_() for rows in stats["logp"]]
    tokens = sum(len(stats["logp"][j]) for j in learned)
    beta = max(config.get("beta_init", 5e-3) - config.get("beta_delta", 5e-5) * step, config.get("beta_min", 1e-3))
    pull = 1.0
    if config.get("mode") == "sequential":
        pull, beta = (0.0, 1.0) if step < config["kd_steps"] else (1.0, 0.0)
    mask = config.get("mask", "none")
    right = lambda j: stats["rewards"][j] == 1.0
    solved = lambda j: any(right(i) for i in range(j // EACH * EACH, j // EACH * EACH + EACH))
    kept = [j for j in learned if not ((mask == "response" and right(j)) or (mask == "group" and solved(j)))]
    divisor = sum(len(stats["logp"][j]) for j in kept) if config.get("mask_normalizer") == "kept" else tokens
    value, kl = 0.0, 0.0
    for j in learned:
        ratio = (logp[j] - tensor(stats["old_logp"][j])).exp()
        value = value - pull * (ratio * worth[j]).sum() / tokens
        r = tensor(stats["ref_logp"][j]) - logp[j]
        k3 = r.exp() - r - 1
        exact = tensor(stats["divergence"][j])
        d = {"k2": r**2 / 2, "k3": k3, "full": exact}[config.get("kl_estimator", "k2")]
        kl += (exact if config.get("kl_estimator") == "full" else k3).sum().item() / tokens
        if j in kept:
            value = value + beta * d.sum() / divisor
    value.backward()
    masked = 1 - sum(len(stats["logp"][j]) for j in kept) / tokens
    zero = lambda rows: (rows.grad if rows.grad is not None else torch.zeros_like(rows)).tolist()
    return {
        "advantages": worth.tolist(), "max_completion_length": LONGEST, "cotangent": [zero(rows) for rows in logp],
        "metrics": {
            "loss": value.item(), "kl": kl, "kdrl/beta": beta, "kdrl/masked": masked, "entropy": entropy(stats, learned),
        },
    }


def of_trl(stats, worth, config):
    settings = {"loss_type": "bnpo", "beta": config["beta_init"], "epsilon": 1e9}
    said = loss("grpo", stats, worth, [], settings)
    return {**said, "metrics": {key: said["metrics"][key] for key in ("loss", "kl", "entropy")}}


cases = []
for i, (step, settings) in enumerate([
    (0, {"kl_estimator": "k3", "beta_init": 0.3, "beta_min": 0.3}),
    (0, {"kl_estimator": "k3", "beta_init": 0.3, "beta_min": 0.3, "std": "sample"}),
    (50, {}),
    (50, {"mask": "response", "beta_init": 0.3, "beta_delta": 0.001}),
    (90, {"mask": "response", "mask_normalizer": "kept", "kl_estimator": "k3"}),
    (0, {"mask": "group", "mask_normalizer": "kept", "beta_init": 0.3}),
    (0, {"mask": "group", "kl_estimator": "full", "beta_init": 0.3}),
    (3, {"mode": "sequential", "kd_steps": 4}),
    (4, {"mode": "sequential", "kd_steps": 4}),
]):
    stats = rollout(i, GROUPS, EACH)
    draw = torch.Generator().manual_seed(i)
    stats["divergence"] = [torch.rand(len(row), generator=draw, dtype=torch.double).tolist() for row in stats["logp"]]
    config = {"name": "kdrl", **settings}
    worth = advantages(stats["rewards"], config.get("std", "population"))
    said = of_trl(stats, worth, config) if i < 2 else by_hand(stats, worth, config, step)
    if i < 2:
        again = by_hand(stats, worth, config, step)
        for a, b in zip(said["cotangent"], again["cotangent"]):
            assert torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-14)
    cases.append({"config": config, **stats, "each": EACH, "step": step, **said})
write(cases)
