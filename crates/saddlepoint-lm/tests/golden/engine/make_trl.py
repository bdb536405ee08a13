"""Writes trl_dpo/: 20 optimizer steps of TRL's DPOTrainer on a tiny model; see README.md.

The same run is repeated here by a plain loop in float64. How far TRL's float32 run is from it
(`float64_check`) says how much of a difference rounding alone explains.
"""

import json
import shutil
import tempfile
from pathlib import Path

import datasets
import torch
import torch.nn.functional as F
import transformers
import trl
from safetensors.torch import save_file

import tiny
from exact import Exact, widen
from make import float32, ids, of_completion, picked

HERE = Path(__file__).parent / "trl_dpo"
PAIRS, BATCH, STEPS = 40, 4, 20
BETA, LEARNING_RATE, WEIGHT_DECAY, CLIP = 0.1, 1e-3, 0.1, 1.0
SEED = 55
METRICS = (
    "loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
    "logps/chosen", "logps/rejected", "entropy", "mean_token_accuracy",
)  # fmt: skip


def text(tokens: list[int]) -> str:
    return " ".join(f"t{i}" for i in tokens)


def make_pairs() -> list[dict]:
    """Chosen completions rise, rejected ones are random, so that there is something to learn."""
    generator = torch.Generator().manual_seed(SEED)

    def between(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    pairs = []
    for _ in range(PAIRS):
        start = between(4, tiny.VOCAB - 20)
        pairs.append(
            {
                "prompt": text(ids(generator, between(3, 10))),
                "chosen": " " + text(range(start, start + between(3, 12))),
                "rejected": " " + text(ids(generator, between(3, 12))),
            }
        )
    return pairs


def run_trl(folder: Path, pairs: list[dict]):
    """The trainer's log, its tokenised pairs and its final model."""
    with tempfile.TemporaryDirectory() as scratch:
        args = trl.DPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=WEIGHT_DECAY,
            max_grad_norm=CLIP,
            beta=BETA,
            max_length=256,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        )
        trainer = trl.DPOTrainer(
            model=tiny.load(folder),
            ref_model=tiny.load(folder),
            args=args,
            train_dataset=datasets.Dataset.from_list(pairs),
            processing_class=tiny.tokenizer(),
        )
        trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    rows = [{key: row[key] for key in ("step", *METRICS)} for row in logged]
    keys = ("prompt_ids", "chosen_ids", "rejected_ids")
    tokenised = [{key: example[key] for key in keys} for example in trainer.train_dataset]
    return rows, tokenised, trainer.model, args


def run_exact(folder: Path, pairs: list[dict]):
    """The same steps in float64, without TRL."""
    model, reference = tiny.load(folder), tiny.load(folder)
    rows = []
    with Exact():
        model, reference = widen(model), widen(reference)
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() == 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
            lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8,
        )  # fmt: skip
        for step in range(STEPS):
            batch = [pairs[(step * BATCH + i) % PAIRS] for i in range(BATCH)]
            sides = {"chosen": [], "rejected": []}
            rewards = {"chosen": [], "rejected": []}
            for pair in batch:
                for side in sides:
                    prompt, completion = pair["prompt_ids"], pair[f"{side}_ids"]
                    logp = picked(of_completion(model, prompt, completion), completion).sum()
                    with torch.no_grad():
                        ref = picked(of_completion(reference, prompt, completion), completion).sum()
                    sides[side].append(logp)
                    rewards[side].append(BETA * (logp - ref))
            chosen, rejected = torch.stack(rewards["chosen"]), torch.stack(rewards["rejected"])
            loss = -F.logsigmoid(chosen - rejected).mean()
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            rows.append(
                {
                    "loss": loss.item(),
                    "grad_norm": norm.item(),
                    "rewards/chosen": chosen.mean().item(),
                    "rewards/rejected": rejected.mean().item(),
                    "rewards/margins": (chosen - rejected).mean().item(),
                    "logps/chosen": torch.stack(sides["chosen"]).mean().item(),
                    "logps/rejected": torch.stack(sides["rejected"]).mean().item(),
                }
            )
    return rows, model


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    folder = HERE / "initial"
    tiny.save(tiny.random_model("llama", SEED), folder)
    pairs = make_pairs()
    rows, tokenised, final, args = run_trl(folder, pairs)
    exact_rows, exact = run_exact(folder, tokenised)

    # The first rewards are zero, so differences are compared with the largest value of each metric.
    check = {
        key: max(abs(a[key] - b[key]) for a, b in zip(rows, exact_rows, strict=True)) / max(abs(b[key]) for b in exact_rows)
        for key in exact_rows[0]
    }
    exact_state = exact.state_dict()
    check["final_weights"] = max(
        ((value.double() - exact_state[key]).norm() / exact_state[key].norm()).item()
        for key, value in final.state_dict().items()
    )
    settings = {
        "beta": BETA, "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "weight_decay": WEIGHT_DECAY,
        "adam_beta1": args.adam_beta1, "adam_beta2": args.adam_beta2, "adam_epsilon": args.adam_epsilon,
        "optim": args.optim.value,
        "max_grad_norm": CLIP, "per_device_train_batch_size": BATCH, "max_steps": STEPS, "max_length": args.max_length,
    }  # fmt: skip
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    golden = {"settings": settings, "pairs": tokenised, "steps": rows, "float64_check": check, "versions": versions}
    tiny.write_json(HERE / "golden.json", golden)
    (HERE / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    save_file(float32(dict(final.named_parameters())), HERE / "final.safetensors")
    for row in rows:
        print(f"{row['step']:3} loss {row['loss']:.6f} norm {row['grad_norm']:.4f} margins {row['rewards/margins']:+.5f}")
    print("relative to float64:", {key: f"{value:.1e}" for key, value in check.items()})
    assert max(check.values()) < 1e-4, "TRL and the plain loop disagree"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
