"""Writes ipo.json from TRL's DPOTrainer with loss_type="ipo". Usage: python ipo.py > ipo.json"""

from peer import case, write

write([
    case({"name": "ipo", "beta": beta}, picked, beta=beta, loss_type=["ipo"])
    for beta, picked in [(0.1, [0, 1, 2, 3]), (0.5, [3, 1]), (2.0, [2])]
])
