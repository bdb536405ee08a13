"""Writes orpo.json from the odds ratio of TRL's ORPOTrainer. Usage: python orpo.py > orpo.json

The supervised term is the paper's: the mean over pairs of the chosen completion's mean."""

from types import SimpleNamespace

import torch
from peer import by_hand, write
from trl.experimental.orpo import ORPOTrainer

cases = []
for beta, picked in [(0.1, [0, 1, 2, 3]), (0.5, [3, 1]), (2.0, [2])]:
    settings = SimpleNamespace(beta=beta, accelerator=SimpleNamespace(device="cpu"))

    def metrics(stats):
        means = torch.tensor([sum(rows) / len(rows) for rows in stats["logp"]], dtype=torch.double)
        losses, chosen, rejected, ratio, odds = ORPOTrainer.odds_ratio_loss(settings, means[0::2], means[1::2])
        supervised = -means[0::2].mean().item()
        return {
            "loss": supervised - losses.mean().item(), "nll_loss": supervised, "rewards/chosen": chosen.mean().item(),
            "rewards/rejected": rejected.mean().item(), "log_odds_ratio": ratio.item(), "log_odds_chosen": odds.item(),
        }

    cases.append(by_hand({"name": "orpo", "beta": beta}, picked, metrics))
write(cases)
