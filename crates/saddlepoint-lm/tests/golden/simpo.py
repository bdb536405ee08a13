"""Writes simpo.json from the loss of TRL's CPOTrainer with loss_type="simpo". Usage: python simpo.py > simpo.json"""

from types import SimpleNamespace

import torch
from peer import by_hand, write
from trl.experimental.cpo import CPOTrainer

cases = []
for beta, gamma, picked in [(2.0, 0.5, [0, 1, 2, 3]), (0.1, 0.5, [3, 1]), (2.5, 1.4, [2])]:
    settings = SimpleNamespace(
        alpha=0.0, loss_type="simpo", simpo_gamma=gamma, beta=beta, label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )

    def metrics(stats):
        means = torch.tensor([sum(rows) / len(rows) for rows in stats["logp"]], dtype=torch.double)
        losses, chosen, rejected = CPOTrainer.cpo_loss(settings, means[0::2], means[1::2])
        return {
            "loss": losses.mean().item(), "rewards/chosen": chosen.mean().item(), "rewards/rejected": rejected.mean().item(),
        }

    cases.append(by_hand({"name": "simpo", "beta": beta, "simpo_gamma": gamma}, picked, metrics))
write(cases)
