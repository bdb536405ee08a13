"""What a step of each method on preference pairs costs, beside a step of DPO on the same batches.

    python benches/methods.py --saddle target/release/saddle --model models/smollm2 --data PATH/dpo_en_demo.json [--rounds 3] [--json]

Every round runs each variant once, one after the other, so that a slow minute falls on all. A variant is two runs of
`saddle train`, one longer by STEPS steps: their difference is the time of the steps alone, without loading, the
measurements before and after, and writing. Memory is the largest resident size of the longer run. Exit code 1 if a
variant that must not cost more than 1.3 times DPO's time or 1.15 times its memory does.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

SHORT, STEPS = 2, 6
TIME, MEMORY = 1.3, 1.15

RECIPE = """
[model]
path = {model}
lora = {{ r = 16 }}
[data]
path = {data}
max_length = 256
eval_fraction = 0.03
[method]
name = "dpo"
[optimizer]
learning_rate = 1e-4
[train]
per_device_train_batch_size = 2
sample_prompts = 0
"""

# A budget that is not measured in between: what its term costs a step.
BUDGET = ["tether.budget=4.0", "tether.prompts=2", "tether.max_completion_length=8", "tether.every=1000"]

# Name, settings, and whether the limits are meant for it: `hypo` draws samples from the policy in every step, which
# no other offline method does.
VARIANTS = [
    ("dpo", ["method.name=dpo"], True),
    ("dpo, exact budget", ["method.name=dpo", *BUDGET], True),
    ("f-dpo, Jensen-Shannon", ["method.name=f-dpo", "method.f_divergence_type=js_divergence"], True),
    ("f-dpo, exact budget", ["method.name=f-dpo", "method.f_divergence_type=js_divergence", *BUDGET], True),
    ("tdpo", ["method.name=tdpo"], True),
    ("tdpo, exact budget", ["method.name=tdpo", *BUDGET], True),
    ("ipo", ["method.name=ipo"], True),
    ("simpo", ["method.name=simpo"], True),
    ("orpo", ["method.name=orpo"], True),
    ("hypo", ["method.name=hypo"], False),
]


def run(argv: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of one run of `saddle train`."""
    read, write = os.pipe()
    pid = os.posix_spawn(
        argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_CLOSE, read)]
    )
    os.close(write)
    with os.fdopen(read) as out:
        lines = out.read().strip().splitlines()
    _, status, usage = os.wait4(pid, 0)
    # 1 says that a budget did not hold, which a few steps need not.
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"{' '.join(argv)} failed")
    return json.loads(lines[-1])["seconds"], usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saddle", required=True, type=Path)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    figures: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        path = {key: json.dumps(str(getattr(options, key).resolve())) for key in ("model", "data")}
        recipe.write_text(RECIPE.format(**path))
        for number in range(options.rounds):
            for name, settings, _ in VARIANTS:
                seconds, peak = [], 0.0
                for steps in (SHORT, SHORT + STEPS):
                    out = f"{folder}/{number}-{len(figures[name])}-{VARIANTS.index((name, settings, _))}-{steps}"
                    extra = [*settings, f"train.max_steps={steps}", f"train.output_dir={out}"]
                    argv = [str(options.saddle.resolve()), "train", str(recipe), "--json"]
                    took, peak = run(argv + [word for setting in extra for word in ("--set", setting)])
                    seconds.append(took)
                figures[name].append(((seconds[1] - seconds[0]) / STEPS, peak))
                print(f"round {number + 1}: {name}: {figures[name][-1][0]:.2f} s, {peak:.0f} MB", file=sys.stderr)

    failed = False
    base = figures["dpo"]
    for name, _, limited in VARIANTS:
        own = figures[name]
        time = statistics.median(a[0] / b[0] for a, b in zip(own, base))
        memory = statistics.median(a[1] / b[1] for a, b in zip(own, base))
        over = limited and (time > TIME or memory > MEMORY)
        failed |= over
        row = {"variant": name, "step_s": statistics.median(a[0] for a in own), "time": time, "memory": memory, "limited": limited, "over": over}
        if options.json:
            print(json.dumps(row))
        else:
            print(f"{name:24} {row['step_s']:6.2f} s   time {time:4.2f}   memory {memory:4.2f}{'   over' if over else ''}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
