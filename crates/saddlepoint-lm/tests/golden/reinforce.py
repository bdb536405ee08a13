"""Writes reinforce.json: the objective of REINFORCE and PyTorch's derivative of it on random log-probabilities.
Usage: python reinforce.py > reinforce.json"""

import torch
from rollouts import entropy, rollout
from peer import write

cases = []
for i, (settings, masked) in enumerate([
    ({}, []), ({"baseline": "none", "beta": 0.2}, [3]), ({"baseline": "group", "beta": 0.0}, [0, 1]),
]):
    stats = rollout(i, groups=3, each=3)
    config = {"name": "reinforce", **settings}
    kl = torch.tensor([sum(p) - sum(q) for p, q in zip(stats["old_logp"], stats["ref_logp"])], dtype=torch.double)
    r = torch.tensor([float("nan") if r is None else r for r in stats["rewards"]], dtype=torch.double)
    r = r - config.get("beta", 0.0) * kl
    baseline = {
        "batch": r.nanmean().expand(len(r)), "none": torch.zeros(len(r)).double(),
        "group": r.view(-1, 3).nanmean(1).repeat_interleave(3),
    }[config.get("baseline", "batch")]
    worth = torch.nan_to_num(r - baseline)
    logp = [torch.tensor(rows, dtype=torch.double, requires_grad=True) for rows in stats["logp"]]
    learned = [j for j in range(len(logp)) if j not in masked]
    value = -sum(worth[j] * logp[j].sum() for j in learned) / len(logp)
    value.backward()
    metrics = {"loss": value.item(), "entropy": entropy(stats, [j for j in learned if stats["rewards"][j] is not None])}
    cotangent = [(rows.grad if rows.grad is not None else torch.zeros_like(rows)).tolist() for rows in logp]
    cases.append({
        "config": config, **stats, "each": 3, "kl": kl.tolist(), "masked": masked, "advantages": worth.tolist(),
        "metrics": metrics, "cotangent": cotangent, "max_completion_length": 9,
    })
write(cases)
