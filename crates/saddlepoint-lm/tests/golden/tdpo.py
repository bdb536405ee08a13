"""Writes tdpo.json: the loss of TDPO1 and TDPO2 as the authors define it, from the logits of a tiny random Llama. Usage: python
tdpo.py > tdpo.json"""

import torch
from peer import by_hand, write

cases = []
for variant, alpha, beta, picked in [
    ("tdpo1", 0.5, 0.1, [0, 1, 2, 3]), ("tdpo2", 0.5, 0.1, [0, 1, 2, 3]), ("tdpo2", 1.5, 0.5, [3, 1]), ("tdpo2", 0.0, 2.0, [2]),
]:

    def metrics(stats):
        ratio = torch.tensor([sum(p) - sum(r) for p, r in zip(stats["logp"], stats["ref_logp"])], dtype=torch.double)
        kl = torch.tensor([sum(rows) for rows in stats["divergence"]], dtype=torch.double)
        weight = 1.0 if variant == "tdpo1" else alpha
        margin = ratio[0::2] - ratio[1::2] - weight * (kl[1::2] - kl[0::2])
        rewards = beta * (ratio + kl)
        return {
            "loss": -torch.nn.functional.logsigmoid(beta * margin).mean().item(),
            "rewards/chosen": rewards[0::2].mean().item(), "rewards/rejected": rewards[1::2].mean().item(),
            "seq_kl/margins": (kl[0::2] - kl[1::2]).mean().item(),
        }

    cases.append(by_hand({"name": "tdpo", "variant": variant, "alpha": alpha, "beta": beta}, picked, metrics))
write(cases)
