"""Writes disco.json: DisCO's objective by its formulas and PyTorch's derivative of it on random log-probabilities.
Usage: python disco.py > disco.json"""

import math

import torch
from peer import write
from rollouts import rollout

cases = []
for i, settings in enumerate([
    {}, {"score": "l_ratio"}, {"score": "log_l", "dro": False, "kl_estimator": "low_var_kl", "delta": 0.01},
    {"score": "l_ratio", "tau": 0.2, "beta0": 3.0, "delta": 0.5},
]):
    stats = rollout(i, groups=4, each=4)
    config = {"name": "disco", **settings}
    logp = [torch.tensor(rows, dtype=torch.double, requires_grad=True) for rows in stats["logp"]]
    d = [p - torch.tensor(old, dtype=torch.double) for p, old in zip(logp, stats["old_logp"])]
    ratio = config.get("score", "log_l") == "l_ratio"
    tau = config.get("tau", 1.0 if ratio else 10.0)
    s = [x.exp().mean() if ratio else p.mean() for x, p in zip(d, logp)]
    learned = [j for j, r in enumerate(stats["rewards"]) if r is not None]
    objective = 0.0
    for g in range(4):
        side = lambda value: [s[j] for j in range(4 * g, 4 * g + 4) if stats["rewards"][j] == value]
        right, wrong = side(1.0), side(0.0)
        if right and wrong:
            wrong = torch.stack(wrong)
            soft = tau * (torch.logsumexp(wrong / tau, 0) - math.log(len(wrong)))
            objective = objective + (torch.stack(right).mean() - (soft if config.get("dro", True) else wrong.mean())) / 4
    x = torch.cat([d[j] for j in learned])
    kl = (x.exp() - x - 1).mean() if config.get("kl_estimator") == "low_var_kl" else (-x).mean()
    loss = -objective + config.get("beta0", 1e3) / 2 * (kl - config.get("delta", 1e-4)).clamp(min=0) ** 2
    loss.backward()
    zero = lambda rows: (rows.grad if rows.grad is not None else torch.zeros_like(rows)).tolist()
    worth = [{1.0: 1.0, 0.0: -1.0}.get(r, 0.0) for r in stats["rewards"]]
    cases.append({
        "config": config, **stats, "each": 4, "advantages": worth, "max_completion_length": 9,
        "metrics": {"loss": loss.item(), "disco/objective": objective.item(), "disco/kl": kl.item()},
        "cotangent": [zero(rows) for rows in logp],
    })
write(cases)
