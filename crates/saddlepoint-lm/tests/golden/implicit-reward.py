"""Writes implicit-reward.json: the objectives by their definition phi(z) = -f*(-z), with IQ-Learn's phi' as the weights, on the
log-probabilities of a tiny random Llama. No framework has the method. Usage: python implicit-reward.py > implicit-reward.json"""

import math

import torch
from peer import by_hand, write

# phi, IQ-Learn's phi' (iq_learn/iq.py, where it is a detached weight), and where rewards are cut.
OBJECTIVES = {
    "total_variation": (lambda r: r, lambda r: torch.ones_like(r), -math.inf),
    "chi_squared": (lambda r: r - r**2 / 4, lambda r: 1 - r / 2, -math.inf),
    "hellinger": (lambda r: r / (1 + r), lambda r: 1 / (1 + r) ** 2, -0.95),
    "js_divergence": (
        lambda r: torch.log(2 - torch.exp(-r)), lambda r: torch.exp(-r) / (2 - torch.exp(-r)), -math.log(2) + 0.05,
    ),
    "forward_kl": (lambda r: -torch.exp(-r - 1), lambda r: torch.exp(-(r + 1)), -31.0),
}

cases = []
for kind, beta, v_mode, token_mean, picked in [
    ("chi_squared", 0.05, "zero", False, [0, 1, 2, 3]), ("total_variation", 0.1, "zero", False, [0, 1, 2, 3]),
    ("hellinger", 0.05, "zero", False, [0, 1, 2, 3]), ("js_divergence", 0.05, "zero", False, [3, 1]),
    ("hellinger", 0.5, "zero", True, [0, 1, 2, 3]), ("js_divergence", 0.2, "zero", True, [2]),
    ("forward_kl", 0.05, "zero", False, [0, 1, 2, 3]), ("chi_squared", 0.1, "batch_mean", False, [0, 1, 2, 3]),
    ("hellinger", 0.1, "batch_mean", False, [0, 1, 2, 3]),
]:
    phi, weight, edge = OBJECTIVES[kind]

    def metrics(stats):
        ratios = [torch.tensor(p, dtype=torch.double) - torch.tensor(r, dtype=torch.double) for p, r in zip(stats["logp"], stats["ref_logp"])]
        s = beta * (torch.cat(ratios) if token_mean else torch.stack([ratio.sum() for ratio in ratios]))
        value = -s.mean() if v_mode == "batch_mean" else torch.zeros((), dtype=torch.double)
        r = s + value
        cut = r.clamp(min=edge).requires_grad_()
        slope, = torch.autograd.grad(phi(cut).sum(), cut)
        torch.testing.assert_close(slope, weight(cut.detach()))
        return {
            "loss": -(phi(cut.detach()) - value).mean().item() / beta, "implicit_reward/mean": r.mean().item(),
            "implicit_reward/weight": weight(cut.detach()).mean().item(),
            "implicit_reward/clamped": (r < edge).double().mean().item(),
            "nll_loss": -sum(sum(rows) for rows in stats["logp"]) / sum(len(rows) for rows in stats["logp"]),
        }

    config = {"name": "implicit-reward", "f_divergence_type": kind, "beta": beta, "v_mode": v_mode, "token_mean": token_mean}
    cases.append(by_hand(config, picked, metrics))
write(cases)
