"""Whether a small model learns tasks from rewards: success before and after, over seeds, for four methods and under a budget.

    python benches/learning.py --saddle target/release/saddle --runs runs/learning [--seeds 5] [--jobs 2] [--json]

For each task a small decoder is trained from nothing on data of which half is right, once. Each method then goes on from
it with rewards of 0 and 1 from the task's own rule. Success is the share of 1,000 held-out problems that one sample each
answers right, before and after. A method learns if the whole 95 % interval (Student's t over seeds) of the difference is
above 0. Under a budget GRPO is to end within a tenth of it: the interval over seeds of the divergence that is measured at the
end meets that range. A run that is there already is read, not repeated. Exit code 1 if one does not learn or a budget is
missed.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Two-sided 97.5 % quantiles of Student's t by degrees of freedom.
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

TASKS = {"countdown": 1, "arithmetic": 2}
METHODS = {
    "grpo": ["method.name=grpo"],
    "rloo": ["method.name=rloo"],
    "ppo": ["method.name=ppo"],
    "disco": ["method.name=disco"],
}
BUDGET = 0.2

BASE = """
[model]
new = {{ hidden_size = 128, intermediate_size = 384, num_hidden_layers = 3, num_attention_heads = 4, num_key_value_heads = 2 }}
[data]
generate = {{ task = "{task}", difficulty = {difficulty}, samples = 40000, eval_samples = 500, right = 0.5 }}
[method]
name = "sft"
[optimizer]
learning_rate = 2e-3
[train]
output_dir = "base-{task}"
per_device_train_batch_size = 64
max_steps = 600
lr_scheduler_type = "cosine"
warmup_steps = 50
max_completion_length = 16
"""

PRACTICE = """
[model]
recipe = "base-{task}.toml"
[data]
generate = {{ task = "{task}", difficulty = {difficulty}, samples = 10000, eval_samples = 1000 }}
[method]
name = "grpo"
[rollout]
num_generations = 8
max_completion_length = 16
[reward]
reward_funcs = [{{ name = "task_reward" }}]
[optimizer]
learning_rate = 1e-4
[train]
output_dir = "unused"
per_device_train_batch_size = 128
max_steps = 100
sample_prompts = 1000
max_completion_length = 16
"""


def run(saddle: Path, recipe: Path, out: Path, settings: list[str]) -> dict:
    """The summary of the run in `out`, which is made if it has not ended."""
    summary = out / "summary.json"
    if not summary.is_file():
        words = [*settings, f"train.output_dir={json.dumps(str(out.resolve()))}", "train.threads=1"]
        argv = [str(saddle), "train", str(recipe), "--json", *(["--resume"] if out.is_dir() else [])]
        done = subprocess.run(argv + [w for s in words for w in ("--set", s)], stdout=subprocess.DEVNULL)
        # 1 says that a budget did not hold, which is what is to be seen here.
        if done.returncode not in (0, 1):
            sys.exit(f"{out}: saddle ended with {done.returncode}")
    return json.loads(summary.read_text())


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval."""
    mean = statistics.mean(values)
    half = QUANTILES[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saddle", required=True, type=Path)
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)

    # Without a budget 100 steps end at about half of it.
    bounded = ["method.name=grpo", f"tether.budget={BUDGET}", "tether.final_prompts=1000", "train.max_steps=300"]
    variants = {**METHODS, "grpo, budget": bounded}
    failed = False
    for task, difficulty in TASKS.items():
        base, practice = (options.runs / f"{name}-{task}.toml" for name in ("base", "practice"))
        base.write_text(BASE.format(task=task, difficulty=difficulty))
        practice.write_text(PRACTICE.format(task=task, difficulty=difficulty))
        run(options.saddle, base, options.runs / f"base-{task}", [])
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = {
                (name, seed): pool.submit(
                    run,
                    options.saddle,
                    practice,
                    options.runs / f"{task}-{name.replace(', ', '-')}-{seed}",
                    [*settings, f"train.seed={seed}"],
                )
                for name, settings in variants.items()
                for seed in range(options.seeds)
            }
            summaries = {key: future.result() for key, future in runs.items()}
        for name in variants:
            these = [summaries[name, seed] for seed in range(options.seeds)]
            before = statistics.mean(s["samples"]["accuracy_before"] for s in these)
            after = statistics.mean(s["samples"]["accuracy_after"] for s in these)
            mean, low, high = interval([s["samples"]["accuracy_after"] - s["samples"]["accuracy_before"] for s in these])
            row = {"task": task, "method": name, "before": before, "after": after, "gain": mean, "interval": [low, high]}
            row["learns"] = low > 0
            line = f"{task:11} {name:13} {before:.3f} -> {after:.3f}  gain {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            if "budget" in name:
                at, low, high = interval([s["tether"]["measured"] for s in these])
                row |= {"budget": BUDGET, "measured": at, "measured_interval": [low, high]}
                row["within"] = low <= 1.1 * BUDGET and high >= 0.9 * BUDGET and at <= 1.1 * BUDGET
                line += f"  divergence {at:.3f} [{low:.3f}, {high:.3f}] of {BUDGET} {'' if row['within'] else 'NOT WITHIN A TENTH'}"
            failed |= not row["learns"] or not row.get("within", True)
            print(json.dumps(row) if options.json else f"{line} {'' if row['learns'] else 'DOES NOT LEARN'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
