"""Writes adamw.json: a trajectory of torch.optim.AdamW. Usage: python adamw.py > adamw.json"""

import json
import torch

torch.manual_seed(0)
n, split, steps = 37, 20, 12
p = torch.randn(n, dtype=torch.float32)
grads = [(torch.randn(n) * torch.logspace(-6, 1, n)).float() for _ in range(steps)]
lrs = [1e-2 * (1 - t / steps) for t in range(steps)]
out = {"torch": torch.__version__, "weight_decay": 0.1, "decayed": split, "start": p.tolist(), "lr": lrs}
out["grads"] = [g.tolist() for g in grads]
a = torch.nn.Parameter(p[:split].clone())
b = torch.nn.Parameter(p[split:].clone())
opt = torch.optim.AdamW([{"params": [a], "weight_decay": 0.1}, {"params": [b], "weight_decay": 0.0}], lr=1.0, fused=True)
out["params"] = []
for g, lr in zip(grads, lrs):
    for group in opt.param_groups:
        group["lr"] = lr
    a.grad, b.grad = g[:split].clone(), g[split:].clone()
    opt.step()
    out["params"].append(torch.cat([a, b]).tolist())
print(json.dumps(out))
