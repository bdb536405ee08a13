"""What the golden scripts of methods on rewards share: random completions, TRL's advantages by its formulas, and TRL's losses by
its own code, with the model's forward pass replaced by given log-probabilities. Needs TRL 1.16."""

import random
from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
from accelerate import Accelerator

LONGEST = 9


def rollout(seed, groups, each, apart=0.35):
    """Completions whose log-probabilities moved by up to `apart` since they were sampled; the last group has equal rewards, and
    one completion has none."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, LONGEST) for _ in range(groups * each)]
    rows = lambda low, high: [[draw.uniform(low, high) for _ in range(n)] for n in lengths]
    logp = rows(-3.0, 0.0)
    moved = lambda by: [[p + draw.uniform(-by, by) for p in row] for row in logp]
    rewards = [draw.choice([0.0, 0.0, 1.0, 0.5]) for _ in lengths[:-each]] + [1.0] * each
    rewards[1] = None
    top1 = [[draw.random() < 0.5 for _ in row] for row in logp]
    return {
        "logp": logp, "old_logp": moved(apart), "ref_logp": moved(0.5), "entropy": rows(0.0, 2.0), "top1": top1,
        "rewards": rewards,
    }


def nanstd(x, dim=None):
    """Deviation of a sample without what is not a number, as in TRL's utils; 0 of a single value."""
    mean = torch.nanmean(x, dim=dim, keepdim=True) if dim is not None else torch.nanmean(x)
    count = (~x.isnan()).sum(dim) if dim is not None else (~x.isnan()).sum()
    variance = torch.nansum((x - mean) ** 2, dim=dim) if dim is not None else torch.nansum((x - mean) ** 2)
    return torch.sqrt(variance / (count - 1).clamp(min=1))


def advantages(rewards, each, scale):
    """Those of GRPOTrainer._generate_and_score_completions."""
    r = torch.tensor([float("nan") if r is None else r for r in rewards], dtype=torch.double)
    mean = torch.nanmean(r.view(-1, each), dim=1).repeat_interleave(each)
    std = nanstd(r.view(-1, each), 1).repeat_interleave(each) if scale == "group" else nanstd(r).expand_as(r)
    worth = r - mean
    return torch.nan_to_num(worth if scale == "none" else worth / (std + 1e-4))


def left_out(rewards, each, normalize):
    """Those of RLOOTrainer._generate_and_score_completions."""
    grouped = rewards.view(-1, each)
    counts = (~grouped.isnan()).sum(1, keepdim=True)
    worth = rewards - ((grouped.nansum(1, keepdim=True) - grouped) / (counts - 1)).view(-1)
    if normalize:
        worth = (worth - torch.nanmean(worth)) / (nanstd(worth) + 1e-4)
    return torch.nan_to_num(worth)


def padded(rows):
    return torch.tensor([row + [0.0] * (LONGEST - len(row)) for row in rows], dtype=torch.double)


def entropy(stats, learned):
    values = [h for j in learned for h in stats["entropy"][j]]
    return sum(values) / len(values)


def loss(name, stats, worth, masked, settings):
    """Loss and metrics of TRL's trainer, and the derivative by the log-probabilities. What has no reward is masked here, as what was
    cut is with mask_truncated_completions."""
    masked = set(masked) | {j for j, reward in enumerate(stats["rewards"]) if reward is None}
    lengths = [len(row) for row in stats["logp"]]
    mask = torch.tensor([[int(t < n and j not in masked) for t in range(LONGEST)] for j, n in enumerate(lengths)])
    logp = padded(stats["logp"]).requires_grad_()
    trainer = object.__new__({"grpo": trl.GRPOTrainer, "rloo": trl.RLOOTrainer}[name])
    trainer.accelerator = Accelerator(cpu=True)
    trainer.model = SimpleNamespace(training=True)
    trainer._metrics = {"train": defaultdict(list)}
    trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = trainer.use_vllm = False
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold = 1.0, None
    trainer.current_gradient_accumulation_steps = 1
    trainer.max_completion_length = LONGEST
    trainer.beta = settings.get("beta", 0.0)
    trainer.epsilon_low = settings.get("epsilon", 0.2)
    trainer.epsilon_high = settings.get("epsilon_high", trainer.epsilon_low)
    trainer.loss_type = settings.get("loss_type", "dapo")
    trainer.importance_sampling_level = settings.get("importance_sampling_level", "token")
    trainer.args = SimpleNamespace(
        use_bias_correction_kl=settings.get("use_bias_correction_kl", False), delta=None, steps_per_generation=1
    )
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, padded(stats["entropy"]), None)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    old = padded(stats["old_logp"])
    # A masked completion has the ratio 1 in RLOO, whose value would be its advantage.
    seen = torch.tensor([0.0 if j in masked else worth[j].item() for j in range(len(lengths))], dtype=torch.double)
    value = trainer._compute_loss(None, {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": mask,
        "advantages": seen, "old_per_token_logps": old, "old_logps": (old * mask).sum(1),
        "ref_per_token_logps": padded(stats["ref_logp"]), "num_items_in_batch": mask.sum(),
    })
    value.backward()
    # Of one process and one pass, smallest and largest are of sequences, which are not reported here.
    logged = {k: v[-1] for k, v in trainer._metrics["train"].items() if not k.endswith(("_min", "_max"))}
    if name == "rloo" or settings.get("importance_sampling_level") == "sequence":
        # TRL counts masked sequences among those whose ratio could be clipped.
        share = len(lengths) / (len(lengths) - len(masked))
        logged = {k: v * share if k.startswith("clip_ratio/") else v for k, v in logged.items()}
    return {
        "advantages": worth.tolist(), "metrics": {"loss": value.item(), **logged}, "max_completion_length": LONGEST,
        "cotangent": [logp.grad[j, :n].tolist() for j, n in enumerate(lengths)],
    }
