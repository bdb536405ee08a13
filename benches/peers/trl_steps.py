"""What the benchmarks of TRL's trainers share: arguments, settings and the clock of their steps."""

import argparse
import time

from measure import use_threads

# float32 on the CPU with the fused optimizer, and nothing written.
SETTINGS = {
    "optim": "adamw_torch_fused",
    "bf16": False,
    "use_cpu": True,
    "logging_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


def arguments(parser: argparse.ArgumentParser, warmup: int, runs: int) -> argparse.Namespace:
    """Adds what every trainer takes, reads the command line and sets the number of threads."""
    parser.add_argument("--r", type=int, default=16)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=warmup)
    parser.add_argument("--runs", type=int, default=runs)
    args = parser.parse_args()
    use_threads(args.threads)
    return args


def lora(r: int):
    """LoRA on all linear layers."""
    import peft

    return peft.LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")


def clock():
    """A callback whose `seconds` are those of the steps, each from the end of the one before."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.ends: list[float] = []

        def on_train_begin(self, *_, **__):
            self.ends.append(time.perf_counter())

        def on_step_end(self, *_, **__):
            self.ends.append(time.perf_counter())

        @property
        def seconds(self) -> list[float]:
            return [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]

    return Clock()
