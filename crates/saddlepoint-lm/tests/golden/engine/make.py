"""Writes the golden files of the engine's tests; see README.md for every key.

    python make.py                          # the four tiny models
    python make.py qwen3                    # one of them
    python make.py smollm2-shape --out FOLDER     # the same files at SmolLM2-135M's size, outside the project

All values and gradients come from transformers in float64 on the stored float32 weights, and are
compared here with what transformers gives in float32 (`float32_check` in golden.json).
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import peft
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

import tiny
from exact import Exact, widen

HERE = Path(__file__).parent
BETA = 0.1
SEEDS = {"llama": 11, "qwen2": 22, "qwen3": 33, "llama3-rope": 44, "smollm2-shape": 66}
WITH_DIVERGENCES = ("llama", "qwen3")
LENGTHS = {"llama": (23, 2, 9), "qwen2": (23, 9), "qwen3": (23, 9), "llama3-rope": (150, 9), "smollm2-shape": (23, 9)}
PAIRS = [(7, 5, 9), (3, 6, 2)]  # lengths of prompt, chosen and rejected
NEW_TOKENS = 12
MIN_GAP = 0.02


def ids(generator, count: int, vocab: int = tiny.VOCAB) -> list[int]:
    return torch.randint(4, vocab, (count,), generator=generator).tolist()


def logits(model, sequence: list[int]):
    return model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]


def of_completion(model, prompt, completion):
    """Log-distributions `[C, V]` that predict the completion's tokens."""
    rows = logits(model, prompt + completion)[len(prompt) - 1 : -1]
    return F.log_softmax(rows, dim=-1)


def picked(logdist, targets):
    return logdist.gather(1, torch.tensor(targets)[:, None])[:, 0]


def entropy(p):
    return -(p.exp() * p).sum(-1)


def kl(p, q):
    """`KL(p || q)` of log-distributions, by row."""
    return (p.exp() * (p - q)).sum(-1)


def jensen_shannon(p, q):
    m = torch.logaddexp(p, q) - math.log(2)
    return (kl(p, m) + kl(q, m)) / 2


DIVERGENCES = {
    "reverse_kl": kl,
    "forward_kl": lambda p, q: kl(q, p),
    "jensen_shannon": jensen_shannon,
}


def preference(policy, reference, pairs):
    """TRL's sigmoid DPO loss: sums of completion log-probabilities, mean over the pairs.

    `reference()` gives the context in which `policy` is the reference, or another model.
    """
    rows, losses = [], []
    for pair in pairs:
        row, margin = {}, 0.0
        for side, sign in (("chosen", 1), ("rejected", -1)):
            logps = picked(of_completion(policy, pair["prompt"], pair[side]), pair[side])
            with torch.no_grad():
                ref = picked(reference(pair["prompt"], pair[side]), pair[side])
            ratio = logps.sum() - ref.sum()
            margin = margin + sign * ratio
            row[f"{side}_values"] = {
                "logps": logps.tolist(),
                "ref_logps": ref.tolist(),
                "sum": logps.sum().item(),
                "ref_sum": ref.sum().item(),
                "reward": (BETA * ratio).item(),
            }
        loss = -F.logsigmoid(BETA * margin)
        losses.append(loss)
        rows.append({**row, "loss": loss.item(), "margin": (BETA * margin).item()})
    return torch.stack(losses).mean(), rows


def gradients(model, scalar) -> dict[str, torch.Tensor]:
    """Derivative of `scalar` with respect to every trainable parameter, in its own precision."""
    names, tensors = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad], strict=True)
    return dict(zip(names, torch.autograd.grad(scalar, tensors), strict=True))


def relative_error(a: dict, b: dict) -> float:
    """Largest over the tensors of `||a - b|| / ||b||`."""
    return max(((a[k].double() - b[k]).norm() / b[k].norm()).item() for k in b)


def float32(tensors: dict) -> dict:
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def greedy(model, seed: int) -> dict:
    """A continuation whose every choice is clear: no top-two gap of logits below MIN_GAP, no
    end-of-sequence token, at least half of the tokens distinct. Prompts are drawn until one gives it."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5000):
        prompt = ids(generator, 6, model.config.vocab_size)
        sequence, gaps = list(prompt), []
        for _ in range(NEW_TOKENS):
            top = logits(model, sequence)[-1].topk(2)
            gaps.append((top.values[0] - top.values[1]).item())
            sequence.append(top.indices[0].item())
        new = sequence[len(prompt) :]
        if min(gaps) >= MIN_GAP and tiny.EOS not in new and len(set(new)) >= NEW_TOKENS // 2:
            return {"prompt": prompt, "ids": new, "gaps": gaps}
    raise SystemExit("no prompt with a clear continuation; change the seed")


def values(policy, reference, sequences, pairs) -> tuple[dict, torch.Tensor]:
    """What is stored in golden.json without any gradient."""
    with torch.no_grad():
        out = {"sequences": []}
        for sequence in sequences:
            logdist = F.log_softmax(logits(policy, sequence), dim=-1)
            best, second = logdist[:-1].topk(2).values.T
            assert (best - second).min() > 1e-3, "top1 is a near tie; change the seed"
            out["sequences"].append(
                {
                    "ids": sequence,
                    "logps": picked(logdist[:-1], sequence[1:]).tolist(),
                    "entropy": entropy(logdist[:-1]).tolist(),
                    "top1": logdist[:-1].argmax(-1).tolist(),
                }
            )
        rows = []
        for pair in pairs:
            row = {}
            for side in ("chosen", "rejected"):
                p = of_completion(policy, pair["prompt"], pair[side])
                q = of_completion(reference, pair["prompt"], pair[side])
                row[side] = {name: f(p, q).tolist() for name, f in DIVERGENCES.items()}
                row[side]["entropy"] = entropy(p).tolist()
            rows.append(row)
        out["statistics"] = rows
        return out, logits(policy, sequences[0])


def objectives(policy, reference, pairs):
    """The scalars whose gradients are stored: sums over the tokens of all completions."""
    totals = {name: 0.0 for name in ("entropy", *DIVERGENCES)}
    for pair in pairs:
        for side in ("chosen", "rejected"):
            p = of_completion(policy, pair["prompt"], pair[side])
            with torch.no_grad():
                q = of_completion(reference, pair["prompt"], pair[side])
            totals["entropy"] = totals["entropy"] + entropy(p).sum()
            for name, f in DIVERGENCES.items():
                totals[name] = totals[name] + f(p, q).sum()
    return totals


def difference_error(policy, reference, pairs, grads) -> float:
    """Relative error of the DPO gradient against a central difference along a random direction. Were
    anything computed in float32, it would be about 1e-2 at this step."""
    losses = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        named = dict(policy.named_parameters())
        direction = {k: torch.randn(g.shape, generator=generator, dtype=g.dtype) for k, g in grads.items()}
        step = 1e-3 / math.sqrt(sum(d.numel() for d in direction.values()))  # moves the weights by 1e-3 in all
        slope = sum((grads[k] * d).sum().item() for k, d in direction.items())
        for move in (step, -2 * step, step):
            for key, d in direction.items():
                named[key].add_(d, alpha=move)
            losses.append(preference(policy, lambda p, c: of_completion(reference, p, c), pairs)[0].item())
    return abs((losses[0] - losses[1]) / (2 * step) / slope - 1)


def dpo_gradients(policy, reference, pairs):
    loss, rows = preference(policy, lambda p, c: of_completion(reference, p, c), pairs)
    return loss, rows, gradients(policy, loss)


def make(name: str, out: Path) -> None:
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    seed = SEEDS[name]
    old_style = name in tiny.OLD_STYLE
    model = tiny.random_model(name, seed)
    tiny.save(model, folder / "policy", old_style)
    tiny.save(tiny.perturbed(model, seed + 1), folder / "reference", old_style)

    generator = torch.Generator().manual_seed(seed + 2)

    def draw(count: int) -> list[int]:
        return ids(generator, count, model.config.vocab_size)

    sequences = [draw(n) for n in LENGTHS[name]]
    pairs = [{"prompt": draw(p), "chosen": draw(c - 1) + [tiny.EOS], "rejected": draw(r)} for p, c, r in PAIRS]

    single, single_ref = tiny.load(folder / "policy"), tiny.load(folder / "reference")
    _, logits32 = values(single, single_ref, sequences, pairs)
    loss32, _, grads32 = dpo_gradients(single, single_ref, pairs)
    policy, reference = tiny.load(folder / "policy"), tiny.load(folder / "reference")
    with Exact():
        policy, reference = widen(policy), widen(reference)
        golden, logits64 = values(policy, reference, sequences, pairs)
        assert logits64.dtype == torch.float64
        loss, rows, grads = dpo_gradients(policy, reference, pairs)
        golden["greedy"] = greedy(policy, seed + 3)
        written = {"dpo": grads}
        if name in WITH_DIVERGENCES:
            totals = objectives(policy, reference, pairs)
            golden["objectives"] = {key: total.item() for key, total in totals.items()}
            # Each gradient needs the graph, so it is built anew rather than kept.
            for key in totals:
                written[key] = gradients(policy, objectives(policy, reference, pairs)[key])
        # Last, because it moves the weights.
        finite_difference = difference_error(policy, reference, pairs, grads)
        assert finite_difference < 1e-6, finite_difference

    golden["preference"] = {"beta": BETA, "loss": loss.item(), "pairs": [p | r for p, r in zip(pairs, rows, strict=True)]}
    golden["float32_check"] = {
        "logits_max_abs": (logits32.double() - logits64).abs().max().item(),
        "loss_relative": abs(loss32.item() - loss.item()) / abs(loss.item()),
        "dpo_gradient_relative": relative_error(grads32, grads),
    }
    golden["finite_difference_check"] = finite_difference
    golden["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    save_file(float32({"logits": logits64}), folder / "logits.safetensors")
    for key, tensors in written.items():
        save_file(float32(tensors), folder / f"gradient-{key}.safetensors")
    if name == "llama":
        golden["adapter"] = adapter(folder, pairs, sequences, seed + 4)
    tiny.write_json(folder / "golden.json", golden)
    report(name, golden, model.config.vocab_size)


def adapter(folder: Path, pairs, sequences, seed: int) -> dict:
    """A LoRA adapter in PEFT's format on the llama model; its reference is the model without it."""
    generator = torch.Generator().manual_seed(seed)
    model = peft.get_peft_model(
        tiny.load(folder / "policy"),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if "lora_" in key:
                std = 0.3 if "lora_B" in key else 1 / math.sqrt(tensor.shape[1])
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
    model.peft_config["default"].base_model_name_or_path = "policy"
    target = folder / "adapter"
    model.save_pretrained(target, save_embedding_layers=False)
    (target / "README.md").unlink()
    settings = json.loads((target / "adapter_config.json").read_text())
    settings["target_modules"].sort()  # PEFT writes a set
    tiny.write_json(target / "adapter_config.json", settings)

    model = peft.PeftModel.from_pretrained(tiny.load(folder / "policy"), target, is_trainable=True).eval()
    with Exact():
        widen(model)

        def off(prompt, completion):
            with model.disable_adapter():
                return of_completion(model, prompt, completion)

        loss, rows = preference(model, off, pairs)
        grads = {k.replace(".default.", "."): g for k, g in gradients(model, loss).items()}
        with torch.no_grad():
            table = logits(model, sequences[0])
            continuation = greedy(model, seed + 1)
    stored = load_file(target / "adapter_model.safetensors")
    assert grads.keys() == stored.keys()
    save_file(float32({"logits": table}), folder / "adapter-logits.safetensors")
    save_file(float32(grads), folder / "adapter-gradient-dpo.safetensors")
    return {"loss": loss.item(), "pairs": rows, "greedy": continuation}


def report(name: str, golden: dict, vocab: int) -> None:
    """Shows that the model is a fair test: distributions neither uniform nor degenerate."""
    first = golden["sequences"][0]["entropy"]
    divergence = [v for row in golden["statistics"] for side in row.values() for v in side["reverse_kl"]]
    check = golden["float32_check"]
    print(
        f"{name}: entropy {min(first):.2f}..{max(first):.2f} of {math.log(vocab):.2f} nats, "
        f"reverse KL {min(divergence):.3f}..{max(divergence):.3f}, loss {golden['preference']['loss']:.6f}, "
        f"smallest greedy gap {min(golden['greedy']['gaps']):.3f}, float32 differs by "
        f"{check['logits_max_abs']:.1e} (logits), {check['dpo_gradient_relative']:.1e} (gradient)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SEEDS))
    parser.add_argument("--out", type=Path, default=HERE, help="where the folders are made")
    args = parser.parse_args()
    for unknown in set(args.names) - set(SEEDS):
        parser.error(f"unknown model {unknown}")
    if "smollm2-shape" in args.names and args.out == HERE:
        parser.error("smollm2-shape takes 2 GB; name a folder outside the project with --out")
    for name in args.names or tiny.CONFIGS:
        make(name, args.out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
