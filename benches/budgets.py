"""Whether a budget holds: three methods under three budgets, and penalties for comparison.

    python benches/budgets.py --saddle target/release/saddle --recipe examples/quickstart.toml --runs runs/budgets-quickstart [--json]
    python benches/budgets.py --saddle target/release/saddle --model models/smollm2 --data PATH/persona/*.jsonl --runs runs/budgets
        --results docs/budgets.jsonl [--json]

The first line takes a recipe of preference pairs, without the settings of its method. Each run of the second trains SmolLM2 with LoRA on pairs of answers to statements (Anthropic's model-written evaluations; all files are
one data set, of which a run sees a part once) and measures the divergence at the end on held-out prompts. The controller's
gains are softer than its defaults, since the divergence of these short answers differs much from prompt to prompt; the
learning rate does not fall to zero, since a policy that stands still no longer follows beta; and what the controller leaves is
made up for at the end by `rescale`. A run that is there already is read, not repeated, and so is a line of `--results`, to which each
run adds one: runs take minutes each, and may be made on several days. A budget is kept if the measured
divergence is at most 1.1 of it, and used if its 95 % interval is not below 0.9 of it or if the tether ended at
the method's own beta, where it does not bind. A penalty does the same for a budget if with one beta the intervals of all
three methods meet the range of a tenth around it; methods that can no longer be part of that are not run.
Exit code 1 if a budget is not kept and used, or if a penalty does the same.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

BUDGETS = (0.5, 2.0, 8.0)
BETAS = (0.1, 0.3)
METHODS = {
    "dpo": ["method.name=dpo"],
    "f-dpo, Jensen-Shannon": ["method.name=f-dpo", "method.f_divergence_type=js_divergence"],
    "tdpo": ["method.name=tdpo"],
}
OWN = 0.1  # beta of the three methods where the tether adds nothing

RECIPE = """
[model]
path = {model}
dtype = "bf16"
lora = {{ r = 16, lora_alpha = 32.0 }}
[data]
path = {data}
eval_fraction = 0.12
[method]
name = "dpo"
[tether]
every = 8
prompts = 96
final_prompts = 1200
rescale = true
max_completion_length = 16
kp = 0.5
ki = 0.3
kd = 0.5
nu = 0.5
[optimizer]
learning_rate = 4e-4
[train]
output_dir = "unused"
max_steps = 72
per_device_train_batch_size = 8
lr_scheduler_type = "cosine"
min_lr_rate = 0.25
logging_steps = 10
"""


def quoted(path: Path) -> str:
    """The absolute path as TOML has it."""
    return json.dumps(str(path.resolve()))


def without_method(recipe: Path) -> str:
    """The text of a recipe with its method's name alone, no form of the tether and absolute paths of other recipes."""
    lines, table = [], ""
    for line in recipe.read_text().splitlines():
        key = line.split("=")[0].strip()
        if line.startswith("["):
            table = line.strip()
        elif table == "[method]" and key not in ("", "name") or table == "[tether]" and key in ("budget", "beta"):
            continue
        elif table == "[model]" and key == "recipe":
            line = f"recipe = {quoted(recipe.parent / tomllib.loads(line)['recipe'])}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def run(saddle: Path, recipe: Path, out: Path, settings: list[str]) -> dict:
    """The tether of the run in `out`, which is made if it has not ended."""
    summary = out / "summary.json"
    if not summary.is_file():
        words = [*settings, f"train.output_dir={quoted(out)}"]
        resume = ["--resume"] if out.is_dir() else []
        argv = [str(saddle), "train", str(recipe), "--json", *resume]
        done = subprocess.run(argv + [w for s in words for w in ("--set", s)], stdout=subprocess.DEVNULL)
        # 1 says that a budget did not hold, which is what is to be seen here.
        if done.returncode not in (0, 1):
            sys.exit(f"{out}: saddle ended with {done.returncode}")
    return json.loads(summary.read_text())["tether"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("saddle", "runs"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--recipe", type=Path, help="a recipe of preference pairs, in place of SmolLM2's")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, help="a file of ends of runs, read and continued")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.recipe is None and None in (options.model, options.data):
        parser.error("either --recipe, or --model and --data")
    options.runs.mkdir(parents=True, exist_ok=True)
    recipe = options.runs / "recipe.toml"
    if options.recipe is not None:
        recipe.write_text(without_method(options.recipe))
    else:
        data = options.runs / "data.jsonl"
        data.write_text("".join(path.read_text().rstrip("\n") + "\n" for path in options.data))
        recipe.write_text(RECIPE.format(model=quoted(options.model), data=quoted(data)))

    lines = options.results.read_text().splitlines() if options.results and options.results.is_file() else []
    known = {(row["recipe"], row["run"]): row for row in map(json.loads, lines)}
    text = RECIPE if options.recipe is None else options.recipe.read_text()
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    def end(form: str, value: float, method: str) -> dict:
        """How this run ended, which is added to the results."""
        settings = [*METHODS[method], f"tether.{form}={value}"]
        if form == "beta":
            settings.append("tether.rescale=false")  # there is no budget that it could meet
        name = f"{settings[0].split('=')[1]}-{form}-{value}"
        if row := known.get((digest, name)):
            return row
        tether = run(options.saddle, recipe, options.runs / name, settings)
        row = {"recipe": digest, "run": name} | {k: tether[k] for k in ("measured", "interval", "held", "beta")}
        if options.results:
            with options.results.open("a") as file:
                print(json.dumps(row), file=file)
        return row

    def show(row: dict, **verdict: bool) -> None:
        low, high = row["interval"]
        words = [name if holds else f"NOT {name.upper()}" for name, holds in verdict.items()]
        shown = f"{row['run']:20} measured {row['measured']:.3f} [{low:.3f}, {high:.3f}]  {'  '.join(words)}"
        print(json.dumps(row | verdict) if options.json else shown.rstrip(), flush=True)

    failed = False
    for budget in BUDGETS:
        for method in METHODS:
            row = end("budget", budget, method)
            kept = row["measured"] <= 1.1 * budget
            used = row["interval"][1] >= 0.9 * budget or row["beta"] <= 1.001 * OWN
            failed |= not (kept and used)
            show(row, kept=kept, used=used)
    for beta in BETAS:
        met = set(BUDGETS)
        for method in METHODS:
            if met:
                row = end("beta", beta, method)
                low, high = row["interval"]
                met = {budget for budget in met if low <= 1.1 * budget and high >= 0.9 * budget}
                show(row)
        for budget in met:
            print(f"beta {beta} brings all three methods to {budget} nats", file=sys.stderr)
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
