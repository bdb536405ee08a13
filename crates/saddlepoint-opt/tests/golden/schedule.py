"""Writes schedule.json: learning rates of transformers' schedules. Usage: python schedule.py > schedule.json"""

import json
import torch
import transformers
from transformers import optimization as o

steps = 23
cases = []
for warmup in (0, 1, 5):
    for kind, make, rate in [
        ("constant", lambda opt: o.get_constant_schedule_with_warmup(opt, warmup), 0.0),
        ("linear", lambda opt: o.get_linear_schedule_with_warmup(opt, warmup, steps), 0.0),
        ("cosine", lambda opt: o.get_cosine_schedule_with_warmup(opt, warmup, steps), 0.0),
        ("cosine", lambda opt: o.get_cosine_with_min_lr_schedule_with_warmup(opt, warmup, steps, min_lr_rate=0.2), 0.2),
    ]:
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make(opt)
        factors = []
        for _ in range(steps + 2):
            factors.append(schedule.get_last_lr()[0])
            opt.step()
            schedule.step()
        cases.append({"kind": kind, "warmup": warmup, "min_lr_rate": rate, "factors": factors})
print(json.dumps({"transformers": transformers.__version__, "steps": steps, "cases": cases}))
