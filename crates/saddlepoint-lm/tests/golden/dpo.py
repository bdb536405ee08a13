"""Writes dpo.json from TRL's DPOTrainer. Usage: python dpo.py > dpo.json

`label_smoothing` 0 is TRL's `sigmoid`. TRL's `sigmoid` ignores label_smoothing, so the smoothed cases are its `aot` with
one pair a batch, where sorting does nothing and the formula is conservative DPO's."""

from peer import case, write

cases = []
for beta, smoothing, picked in [
    (0.1, 0.0, [0, 1, 2, 3]), (0.5, 0.0, [3, 1]), (2.0, 0.0, [2]), (0.1, 0.1, [0]), (0.5, 0.3, [2]),
]:
    config = {"name": "dpo", "beta": beta, "label_smoothing": smoothing}
    kind = "aot" if smoothing else "sigmoid"
    cases.append(case(config, picked, beta=beta, label_smoothing=smoothing, loss_type=[kind]))
for beta, smoothing, picked in [(0.1, 0.1, [0, 1, 2, 3]), (0.5, 0.4, [3, 1])]:
    config = {"name": "dpo", "beta": beta, "label_smoothing": smoothing, "loss_type": "robust"}
    cases.append(case(config, picked, beta=beta, label_smoothing=smoothing, loss_type=["robust"]))
write(cases)
