"""Compares our logits on SmolLM2 with those of transformers, both on the same dequantised weights.

    python parity_smollm2.py prepare --gguf MODEL.gguf --out parity.jsonl
    saddle convert MODEL.gguf smollm2/
    saddle score --model smollm2/ --data parity.jsonl --json > ours.jsonl
    python parity_smollm2.py compare --gguf MODEL.gguf --folder smollm2/ --score ours.jsonl [--logits ours.safetensors]

`prepare` writes texts that the model itself samples, 2,000 tokens in all. `compare` shows three things:

- weights: every tensor of the folder that `saddle convert` wrote, loaded by transformers, against
  transformers' own reading of the GGUF file (dequantised, rotary permutation undone): equal to the bit.
- log-probabilities of every token as `saddle score` reports them, on the token ids it reports.
- logits, from a safetensors file with `logits [T, V]` (float32): row i is the prediction after token i,
  the samples one after another, for the last token of each sample too. Here the top-1 token is compared directly.

Without `--logits`, top-1 agreement cannot be read off log-probabilities of single tokens. Two things stand in.
If the lines have `top1` (a bool for each log-probability: the scored token is the most probable one), it is compared
with transformers at every position. And the smallest gap between transformers' two best logits is printed: where it
is more than twice the largest logit difference, top-1 is equal by necessity. Log-probabilities and logits differ by
the log-normaliser only, so an error of a logit of the scored token shows in them.

Near ties are real: if two logits are closer than float32 rounding of the two programs, neither answer is wrong. Such
positions are counted apart (`near_ties`), not dropped.

Exit code 1 if a bound is missed: 2e-3 on logits and log-probabilities, 1e-6 relative on weights, top-1 equal.
"""

import argparse
import json
import sys
from pathlib import Path

import measure  # noqa: F401  (sets what transformers reads when imported)

BOUND = 2e-3
TOKENS = 2000
PROMPTS = [
    "The history of the printing press begins",
    "To bake a loaf of bread, first",
    "def quicksort(items):",
    "Once upon a time, in a village by the sea,",
    "The derivative of a product of two functions",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a short poem about autumn.<|im_end|>\n<|im_start|>assistant\n",
    "Dear Sir or Madam, I am writing to",
]


def load(folder: Path, gguf: str | None = None):
    """Model and tokenizer in float32; a GGUF file is dequantised into plain matrices."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    extra = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))
    return model, tokenizer


def prepare(args: argparse.Namespace) -> int:
    import torch

    model, tokenizer = load(args.gguf.parent, args.gguf.name)
    torch.manual_seed(0)
    total, lines = 0, []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        # A margin over an equal share, since decoding and encoding again may merge tokens.
        new = TOKENS // len(PROMPTS) + 16
        out = model.generate(**ids, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=new, min_new_tokens=new)
        text = tokenizer.decode(out[0], skip_special_tokens=False)
        total += len(tokenizer(text).input_ids)
        lines.append(json.dumps({"text": text}))
    args.out.write_text("\n".join(lines) + "\n")
    print(json.dumps({"samples": len(lines), "tokens": total}))
    return 0


def worst_weight(model, other) -> tuple[str, float]:
    """The tensor that differs most, relative to its norm."""
    theirs, ours = model.state_dict(), other.state_dict()
    if theirs.keys() != ours.keys():
        raise SystemExit(f"tensors differ by name: {sorted(theirs.keys() ^ ours.keys())}")
    errors = {k: ((ours[k] - theirs[k]).norm() / theirs[k].norm()).item() for k in theirs}
    worst = max(errors, key=errors.get)
    return worst, errors[worst]


def compare(args: argparse.Namespace) -> int:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    model, tokenizer = load(args.gguf.parent, args.gguf.name)
    result, holds = {}, True
    if args.folder:
        other, _ = load(args.folder)
        name, error = worst_weight(model, other)
        result |= {"weights_worst": name, "weights_relative": error}
        holds &= error <= 1e-6
        del other

    texts = [json.loads(line)["text"] for line in args.data.read_text().splitlines()] if args.data else []
    samples = [json.loads(line) for line in args.score.read_text().splitlines()]
    samples = [s for s in samples if "token_ids" in s]
    dump = load_file(args.logits)["logits"] if args.logits else None
    logp_worst = logit_worst = 0.0
    rows = scored = top1_same = near_ties = flagged = flags_same = 0
    smallest_gap = float("inf")
    for index, sample in enumerate(samples):
        ids, logps = sample["token_ids"], torch.tensor(sample["logps"], dtype=torch.float64)
        if texts and tokenizer(texts[index]).input_ids != ids:
            raise SystemExit(f"sample {index}: token ids differ from transformers' tokenizer")
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        # `logps` covers the last tokens: all but the first for plain text, the completion for a pair.
        first = len(ids) - len(logps)
        predictions = logits[first - 1 : -1]
        targets = torch.tensor(ids[first:])
        expected = F.log_softmax(predictions.double(), -1).gather(1, targets[:, None])[:, 0]
        logp_worst = max(logp_worst, (expected - logps).abs().max().item())
        scored += len(logps)
        best, second = logits.topk(2).values.T
        smallest_gap = min(smallest_gap, (best - second).min().item())
        near_ties += int((best - second < 2 * BOUND).sum())
        if "top1" in sample:
            flagged += len(logps)
            flags_same += int((torch.tensor(sample["top1"]) == (predictions.argmax(-1) == targets)).sum())
        if dump is not None:
            ours = dump[rows : rows + len(ids)]
            logit_worst = max(logit_worst, (ours - logits).abs().max().item())
            top1_same += int((ours.argmax(-1) == logits.argmax(-1)).sum())
        rows += len(ids)

    result |= {"samples": len(samples), "tokens": rows, "scored": scored, "logps_max_abs": logp_worst}
    result |= {"smallest_gap": smallest_gap, "near_ties": near_ties}
    holds &= scored > 0 and logp_worst <= BOUND
    if flagged:
        result["top1_flags_agree"] = flags_same / flagged
        holds &= flags_same == flagged
    if dump is not None:
        if len(dump) != rows:
            raise SystemExit(f"{args.logits}: {len(dump)} rows of logits for {rows} tokens")
        result |= {"logits_max_abs": logit_worst, "top1_agree": top1_same / rows}
        holds &= logit_worst <= BOUND and top1_same == rows
    print(json.dumps({**result, "holds": holds}))
    return 0 if holds else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare", help="write the texts to score")
    command.add_argument("--gguf", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=prepare)
    command = commands.add_parser("compare", help="compare with transformers")
    command.add_argument("--gguf", type=Path, required=True)
    command.add_argument("--folder", type=Path, help="folder written by `saddle convert`")
    command.add_argument("--data", type=Path, help="what `prepare` wrote, to compare the token ids too")
    command.add_argument("--score", type=Path, required=True, help="output of `saddle score --json`")
    command.add_argument("--logits", type=Path, help="safetensors file with `logits [T, V]`")
    command.set_defaults(run=compare)
    args = parser.parse_args()
    sys.exit(args.run(args))


if __name__ == "__main__":
    main()
