"""Compares our logits on SmolLM2 with those of transformers, both on the same dequantised weights.

    python parity_smollm2.py prepare --gguf MODEL.gguf --out parity/
    saddle convert MODEL.gguf smollm2/
    saddle score --model smollm2/ --data parity/texts.jsonl --json > parity/scored.jsonl
    saddle generate --model smollm2/ --prompts parity/prompts.jsonl --temperature 0 --json > parity/generated.jsonl
    python parity_smollm2.py compare --gguf MODEL.gguf --folder smollm2/ --parity parity/ [--logits ours.safetensors]

`prepare` writes texts that the model itself samples, more than 2,000 tokens in all, and prompts cut from them. `compare`
shows

- weights: every tensor of the folder that `saddle convert` wrote, loaded by transformers, against transformers' own
  reading of the GGUF file (dequantised, rotary permutation undone);
- token ids and log-probability of every token of the texts, as `saddle score` reports them. A log-probability is
  the token's logit less the log-normaliser, so an error of the logits shows in it;
- top-1: `saddle generate` at temperature 0 takes our most probable token at every step. transformers reads prompt and
  completion in one pass, and its most probable token must be the one taken at each of the positions. A position
  where the two differ does not disturb the later ones, since both see our tokens;
- with `--logits`, a safetensors file with `logits [T, V]` (float32; row i is the prediction after token i, the texts
  one after another): the logits themselves, and top-1 at each of these rows.

Near ties are real: where two logits are closer than the rounding of two programs, neither answer is wrong. They
are not left out. `near_ties` counts the positions whose two best logits of transformers differ by less than twice the bound.

Exit code 1 if something is missed: 2e-3 on logits and log-probabilities, 1e-6 relative on weights, top-1 equal on
2,000 tokens.
"""

import argparse
import json
import sys
from pathlib import Path

import measure  # noqa: F401  (sets what transformers reads when imported)

BOUND = 2e-3
TOKENS = 2000
STARTS = [
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
    tokens, texts, prompts = 0, [], []
    for start in STARTS:
        ids = tokenizer(start, return_tensors="pt")
        # A margin over an equal share, since decoding and encoding again may merge tokens.
        new = TOKENS // len(STARTS) + 16
        out = model.generate(**ids, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=new, min_new_tokens=new)[0]
        texts.append({"text": tokenizer.decode(out)})
        prompts += [{"prompt": tokenizer.decode(out[:length])} for length in (16, 48, 96, 160)]
        tokens += len(tokenizer(texts[-1]["text"]).input_ids)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("texts.jsonl", texts), ("prompts.jsonl", prompts)):
        (args.out / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(json.dumps({"texts": len(texts), "tokens": tokens, "prompts": len(prompts)}))
    return 0


def worst_weight(model, other) -> tuple[str, float]:
    """The tensor that differs most, relative to its norm."""
    theirs, ours = model.state_dict(), other.state_dict()
    if theirs.keys() != ours.keys():
        raise SystemExit(f"tensors differ by name: {sorted(theirs.keys() ^ ours.keys())}")
    errors = {k: ((ours[k] - theirs[k]).norm() / theirs[k].norm()).item() for k in theirs}
    worst = max(errors, key=errors.get)
    return worst, errors[worst]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Reader:
    """transformers' predictions, and how clear its choices are."""

    def __init__(self, model):
        self.model = model
        self.near_ties = 0

    def logits(self, ids: list[int]):
        """`[T, V]`"""
        import torch

        with torch.inference_mode():
            logits = self.model(torch.tensor([ids]), use_cache=False).logits[0]
        best, second = logits.topk(2).values.T
        self.near_ties += int((best - second < 2 * BOUND).sum())
        return logits


def compare_scores(reader: Reader, tokenizer, parity: Path, dump) -> dict:
    import torch
    import torch.nn.functional as F

    texts = [row["text"] for row in lines(parity / "texts.jsonl")]
    samples = [row for row in lines(parity / "scored.jsonl") if "token_ids" in row]
    if len(samples) != len(texts):
        raise SystemExit(f"{len(samples)} scored samples for {len(texts)} texts")
    logp_worst = logit_worst = 0.0
    rows = scored = same = 0
    for index, (text, sample) in enumerate(zip(texts, samples, strict=True)):
        ids, logps = sample["token_ids"], torch.tensor(sample["logps"], dtype=torch.float64)
        expected = tokenizer(text).input_ids
        if ids[: len(expected)] != expected or ids[len(expected) :] not in ([], [tokenizer.eos_token_id]):
            raise SystemExit(f"text {index}: token ids differ from those of transformers' tokenizer")
        logits = reader.logits(ids)
        first = len(ids) - len(logps)  # 1: the first token of a text has no prediction
        targets = torch.tensor(ids[first:])
        theirs = F.log_softmax(logits[first - 1 : -1].double(), -1).gather(1, targets[:, None])[:, 0]
        logp_worst = max(logp_worst, (theirs - logps).abs().max().item())
        scored += len(logps)
        if dump is not None:
            ours = dump[rows : rows + len(ids)]
            logit_worst = max(logit_worst, (ours - logits).abs().max().item())
            same += int((ours.argmax(-1) == logits.argmax(-1)).sum())
        rows += len(ids)
    result = {"texts": len(texts), "tokens_scored": scored, "logps_max_abs": logp_worst}
    if dump is not None:
        if len(dump) != rows:
            raise SystemExit(f"{len(dump)} rows of logits for {rows} tokens")
        result |= {"logits_max_abs": logit_worst, "logits_top1_agree": same / rows}
    return result


def compare_greedy(reader: Reader, tokenizer, parity: Path) -> dict:
    import torch

    generated = [row for row in lines(parity / "generated.jsonl") if "token_ids" in row]
    tokens, gaps = 0, []
    for row in generated:
        prompt, new = tokenizer(row["prompt"]).input_ids, torch.tensor(row["token_ids"])
        logits = reader.logits(prompt + row["token_ids"])[len(prompt) - 1 : -1]
        best, choice = logits.max(-1)
        taken = logits.gather(1, new[:, None])[:, 0]
        gaps += (best - taken)[choice != new].tolist()
        tokens += len(new)
    return {"tokens_generated": tokens, "top1_agree": 1 - len(gaps) / max(tokens, 1), "top1_gaps_where_not": gaps}


def compare(args: argparse.Namespace) -> int:
    from safetensors.torch import load_file

    model, tokenizer = load(args.gguf.parent, args.gguf.name)
    name, error = worst_weight(model, load(args.folder)[0])
    reader = Reader(model)
    dump = load_file(args.logits)["logits"] if args.logits else None
    result = {"weights_worst": name, "weights_relative": error}
    result |= compare_scores(reader, tokenizer, args.parity, dump) | compare_greedy(reader, tokenizer, args.parity)
    result["near_ties"] = reader.near_ties
    holds = (
        error <= 1e-6
        and result["logps_max_abs"] <= BOUND
        and result.get("logits_max_abs", 0.0) <= BOUND
        and result["top1_agree"] == result.get("logits_top1_agree", 1.0) == 1.0
        and min(result["tokens_scored"], result["tokens_generated"]) >= TOKENS
    )
    print(json.dumps({**result, "holds": holds}))
    return 0 if holds else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("prepare", help="write texts to score and prompts to continue")
    command.add_argument("--gguf", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True, help="folder for texts.jsonl and prompts.jsonl")
    command.set_defaults(run=prepare)
    command = commands.add_parser("compare", help="compare with transformers")
    command.add_argument("--gguf", type=Path, required=True)
    command.add_argument("--folder", type=Path, required=True, help="folder written by `saddle convert`")
    command.add_argument("--parity", type=Path, required=True, help="folder of `prepare`, scored.jsonl and generated.jsonl")
    command.add_argument("--logits", type=Path, help="safetensors file with `logits [T, V]`")
    command.set_defaults(run=compare)
    args = parser.parse_args()
    sys.exit(args.run(args))


if __name__ == "__main__":
    main()
