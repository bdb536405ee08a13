"""Writes ppo.json: losses, metrics and PyTorch's derivatives of PPO on random log-probabilities and values, by the lines of
PPOTrainer.train of TRL 0.23 (TRL 1.16 has no PPO), with the functions that it uses. Usage: python ppo.py TRL-0.23-FOLDER > ppo.json"""

import json
import random
import sys

import torch
from rollouts import LONGEST, padded, rollout


def old_core(folder):
    """`masked_mean`, `masked_var` and `masked_whiten` of TRL 0.23's core.py, alone: the rest of it needs older libraries."""
    text = open(f"{folder}/trl/core.py").read()
    start = text.index("def masked_mean")
    names = {"torch": torch, "Optional": __import__("typing").Optional}
    exec(text[start : text.index("class LengthSampler")], names)
    return names["masked_mean"], names["masked_whiten"]


masked_mean, masked_whiten = old_core(sys.argv[1])
DEFAULT = {"kl_coef": 0.05, "cliprange": 0.2, "vf_coef": 0.1, "cliprange_value": 0.2, "gamma": 1.0, "lam": 0.95}


def case(seed, whiten=True, **settings):
    args = {**DEFAULT, **settings}
    stats = rollout(seed, groups=6, each=1)
    # Unlike the others, no completion without a reward: PPOTrainer knows none.
    stats["rewards"] = [0.3 if r is None else r for r in stats["rewards"]]
    draw = random.Random(1000 + seed)
    lengths = [len(row) for row in stats["logp"]]
    old_values = [[draw.uniform(-1, 1) for _ in range(n)] for n in lengths]
    score = [[v + draw.uniform(-0.5, 0.5) for v in row] for row in old_values]
    mask = torch.tensor([[t < n for t in range(LONGEST)] for n in lengths])
    old, values = padded(stats["old_logp"]), padded(old_values)

    rewards = -args["kl_coef"] * (old - padded(stats["ref_logp"])) * mask
    rewards[torch.arange(len(lengths)), torch.tensor(lengths) - 1] += torch.tensor(stats["rewards"], dtype=torch.double)
    last, reversed_ = 0, []
    for t in reversed(range(LONGEST)):
        following = values[:, t + 1] if t < LONGEST - 1 else 0.0
        delta = rewards[:, t] + args["gamma"] * following - values[:, t]
        last = delta + args["gamma"] * args["lam"] * last
        reversed_.append(last)
    advantages = torch.stack(reversed_[::-1], axis=1)
    returns = advantages + values
    if whiten:
        advantages = masked_whiten(advantages, mask)
    advantages = torch.masked_fill(advantages, ~mask, 0)

    logp, vpred = padded(stats["logp"]).requires_grad_(), padded(score).requires_grad_()
    clipped = torch.clamp(vpred, values - args["cliprange_value"], values + args["cliprange_value"])
    plain, held = torch.square(vpred - returns), torch.square(clipped - returns)
    vf_loss = 0.5 * masked_mean(torch.max(plain, held), mask)
    ratio = torch.exp(logp - old)
    pg, pg2 = -advantages * ratio, -advantages * torch.clamp(ratio, 1 - args["cliprange"], 1 + args["cliprange"])
    pg_loss = masked_mean(torch.max(pg, pg2), mask)
    loss = pg_loss + args["vf_coef"] * vf_loss
    loss.backward()
    of = lambda tensor: [tensor[j, :n].tolist() for j, n in enumerate(lengths)]
    metrics = {
        "loss": loss.item(), "loss/policy_avg": pg_loss.item(), "loss/value_avg": vf_loss.item(),
        "val/clipfrac_avg": masked_mean((held > plain).double(), mask).item(),
        "clip_ratio/region_mean": masked_mean((pg2 > pg).double(), mask).item(),
    }
    return {
        "config": {"name": "ppo", "normalize_advantages": whiten, **settings}, **stats, "each": 1, "score": score,
        "old_values": old_values, "token_advantages": of(advantages), "returns": of(returns), "metrics": metrics,
        "max_completion_length": LONGEST, "cotangent": of(logp.grad), "score_cotangent": of(vpred.grad),
    }


cases = [
    case(0), case(1, whiten=False), case(2, kl_coef=0.0, vf_coef=1.0), case(3, gamma=0.97, lam=0.8, cliprange=0.1),
    case(4, cliprange_value=0.05, vf_coef=0.5, lam=1.0, whiten=False),
]
json.dump({"trl": "0.23.1", "torch": torch.__version__, "cases": cases}, sys.stdout)
