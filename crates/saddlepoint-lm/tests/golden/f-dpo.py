"""Writes f-dpo.json from TRL's DPOTrainer with each f_divergence_type. Usage: python f-dpo.py > f-dpo.json

TRL logs the log-ratio times beta as the reward whatever the divergence, so those metrics are left out."""

from peer import case, write

KEYS = ["mean_token_accuracy", "rewards/accuracies", "logps/chosen", "logps/rejected"]

cases = []
for kind, coefficient, beta, picked in [
    ("reverse_kl", 0.5, 0.1, [0, 1, 2, 3]), ("forward_kl", 0.5, 1e-3, [0, 1, 2, 3]), ("js_divergence", 0.5, 0.1, [0, 1, 2, 3]),
    ("alpha_divergence", 0.5, 0.01, [0, 1, 2, 3]), ("alpha_divergence", 0.3, 0.01, [3, 1]), ("alpha_divergence", 0.7, 0.1, [2]),
]:
    settings = {"beta": beta, "f_divergence_type": kind, "f_alpha_divergence_coef": coefficient}
    cases.append(case({"name": "f-dpo", **settings}, picked, KEYS, **settings))
write(cases)
