"""Writes robust-dpo.json from TRL's DPOTrainer with loss_type="robust". Usage: python robust-dpo.py > robust-dpo.json"""

from peer import case, write

write([
    case(
        {"name": "robust-dpo", "beta": beta, "label_smoothing": smoothing}, picked, beta=beta, label_smoothing=smoothing,
        loss_type=["robust"],
    )
    for beta, smoothing, picked in [(0.1, 0.1, [0, 1, 2, 3]), (0.5, 0.4, [3, 1]), (2.0, 0.0, [2])]
])
