"""f-DPO and TDPO on real batches of SmolLM2: loss and gradient norm of a step against TRL and against the authors' definition.

    saddle convert SmolLM2-135M-Instruct.Q4_1.gguf smollm2/
    python parity_methods.py --saddle saddle --model smollm2/ --data dpo_en_demo.json --work parity-methods/

The policy is SmolLM2 with noise in its matrices, the reference SmolLM2 itself, so that log-ratios are not zero. A batch is
the shortest pairs of the file. Both sides read the same folders and the same pairs and tokenise them by themselves; that they
train on the same tokens is checked by the summed log-probabilities of chosen and rejected completions.

- `f-dpo` with each of TRL's four divergences: DPOTrainer with `f_divergence_type`.
- `tdpo`: `u - alpha (k_rejected - sg k_chosen)` for TDPO2 and `u - (k_rejected - k_chosen)` for TDPO1, `u` the difference of the
  log-ratios and `k` the summed KL of the reference from the policy (arXiv:2404.11999), by automatic differentiation.

One JSON line a method; exit code 1 if a relative difference of loss or gradient norm exceeds 1e-4.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from measure import use_threads

BOUND = 1e-4
PAIRS = 4
NOISE = 0.02
F_DPO = [
    ("reverse_kl", 0.5, 0.1),
    ("forward_kl", 0.5, 1e-3),
    ("js_divergence", 0.5, 0.1),
    ("alpha_divergence", 0.3, 0.01),
]
TDPO = [("tdpo1", 1.0, 0.1), ("tdpo2", 0.5, 0.1)]


def pairs(path: Path) -> list[dict]:
    """The shortest pairs, as TRL's conversational preference schema."""
    roles = {"system": "system", "human": "user", "gpt": "assistant"}

    def turn(message: dict) -> dict:
        return {"role": roles[message["from"]], "content": message["value"]}

    def length(row: dict) -> int:
        return sum(len(m["content"]) for part in row.values() for m in part)

    rows = [
        {
            "prompt": [turn(m) for m in row["conversations"]],
            "chosen": [turn(row["chosen"])],
            "rejected": [turn(row["rejected"])],
        }
        for row in json.loads(path.read_text())
    ]
    return sorted(rows, key=length)[:PAIRS]


def noisy(folder: Path, out: Path) -> None:
    """The policy: every matrix with normal noise of a fixed share of its deviation."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter += NOISE * parameter.std() * torch.randn(parameter.shape, generator=generator)
    shutil.copytree(folder, out, dirs_exist_ok=True)
    model.save_pretrained(out)


def ours(args: argparse.Namespace, config: dict, name: str) -> dict:
    """The metrics of one step of `saddle train`."""
    run = args.work / "runs" / name
    shutil.rmtree(run, ignore_errors=True)
    method = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    recipe = args.work / f"{name}.toml"
    recipe.write_text(
        f'[model]\npath = "policy"\n[data]\npath = "pairs.jsonl"\neval_path = "pairs.jsonl"\nmax_length = 4096\n[method]\n{method}\n'
        f'[tether]\ndivergence = "reverse_kl"\nreference = {{ checkpoint = "reference" }}\nbeta = {config["beta"]}\n'
        "max_completion_length = 1\n[optimizer]\nlearning_rate = 1e-9\nmax_grad_norm = 0\n"
        f'[train]\noutput_dir = "runs/{name}"\nmax_steps = 1\nlogging_steps = 1\nsave_steps = 0\nsample_prompts = 0\n'
        f"per_device_train_batch_size = {PAIRS}\n"
    )
    done = subprocess.run([args.saddle, "train", recipe, "--json"], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(row for row in rows if "grad_norm" in row)


def grad_norm(model) -> float:
    import torch

    return torch.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters() if p.grad is not None)).item()


def trainer(args: argparse.Namespace, rows: list[dict], settings: dict):
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load(name: str):
        return AutoModelForCausalLM.from_pretrained(args.work / name, dtype=torch.float32)

    return trl.DPOTrainer(
        load("policy"),
        ref_model=load("reference"),
        args=trl.DPOConfig(
            output_dir=str(args.work / "trl"),
            per_device_train_batch_size=PAIRS,
            max_length=4096,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(args.work / "reference"),
    )


def theirs(args: argparse.Namespace, rows: list[dict], settings: dict) -> dict:
    peer = trainer(args, rows, settings)
    batch = next(iter(peer.get_train_dataloader()))
    peer.model.train()
    loss = peer.compute_loss(peer.model, batch)
    loss.backward()
    logged = {key: values[-1] for key, values in peer._metrics["train"].items()}
    return {"loss": loss.item(), "grad_norm": grad_norm(peer.model), **logged}


def definition(args: argparse.Namespace, rows: list[dict], variant: str, alpha: float, beta: float) -> dict:
    import torch
    import torch.nn.functional as F

    peer = trainer(args, rows, {"beta": beta})
    batch = next(iter(peer.get_train_dataloader()))
    ids, mask = batch["input_ids"], batch["completion_mask"][:, 1:].bool()
    inputs = {"input_ids": ids, "attention_mask": batch["attention_mask"]}
    z = peer.model(**inputs).logits[:, :-1].log_softmax(-1)
    with torch.no_grad():
        r = peer.ref_model(**inputs).logits[:, :-1].log_softmax(-1)
    target = ids[:, 1:, None]
    logps = (z.gather(-1, target)[..., 0] * mask).sum(-1)
    ratio = logps - (r.gather(-1, target)[..., 0] * mask).sum(-1)
    kl = ((r.exp() * (r - z)).sum(-1) * mask).sum(-1)
    half = len(ids) // 2
    chosen, rejected = kl[:half], kl[half:]
    margin = ratio[:half] - ratio[half:]
    margin = margin - ((rejected - chosen) if variant == "tdpo1" else alpha * (rejected - chosen.detach()))
    loss = -F.logsigmoid(beta * margin).mean()
    loss.backward()
    sides = {"logps/chosen": logps[:half].mean().item(), "logps/rejected": logps[half:].mean().item()}
    return {"loss": loss.item(), "grad_norm": grad_norm(peer.model), **sides}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saddle", default="saddle", help="path of the binary")
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2")
    parser.add_argument("--data", type=Path, required=True, help="dpo_en_demo.json")
    parser.add_argument("--work", type=Path, default=Path("parity-methods"), help="folder for what is made")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    use_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    rows = pairs(args.data)
    (args.work / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(args.model, args.work / "reference", dirs_exist_ok=True)
    noisy(args.model, args.work / "policy")

    cases = []
    for kind, coefficient, beta in F_DPO:
        settings = {"beta": beta, "f_divergence_type": kind, "f_alpha_divergence_coef": coefficient}
        cases.append(({"name": "f-dpo", **settings}, kind, lambda settings=settings: theirs(args, rows, settings)))
    for variant, alpha, beta in TDPO:
        config = {"name": "tdpo", "variant": variant, "alpha": alpha, "beta": beta}
        cases.append((config, variant, lambda c=config: definition(args, rows, c["variant"], c["alpha"], c["beta"])))

    holds = True
    for config, name, peer in cases:
        got, want = ours(args, config, name), peer()
        errors = {
            key: abs(got[key] / want[key] - 1) for key in ("loss", "grad_norm", "logps/chosen", "logps/rejected")
        }
        fine = max(errors.values()) <= BOUND
        holds &= fine
        figures = {key: [got[key], want[key]] for key in ("loss", "grad_norm")}
        print(json.dumps({"method": config["name"], "kind": name, "ours_peer": figures, "relative": errors, "holds": fine}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
