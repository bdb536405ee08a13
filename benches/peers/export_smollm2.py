"""Loads what `saddle` wrote from SmolLM2 in the programs it is meant for, and compares what they compute.

    saddle train examples/smollm2-dpo.toml --set data.path=... --set train.max_steps=8 --set train.output_dir=lora
    saddle train examples/smollm2-sft.toml --set data.path=... --set train.max_steps=8 --set train.output_dir=full
    python parity_smollm2.py prepare --gguf MODEL.gguf --out parity/
    python export_smollm2.py --saddle target/release/saddle --gguf MODEL.gguf --texts parity/texts.jsonl \\
        --adapter lora/model --full full/model --out export/ [--llama llama.cpp/]

Compared, each with what `saddle score` says of the same weights, are the log-probabilities of every token:

- `adapter`: PEFT puts the adapter on transformers' own reading of the GGUF file;
- `merged`: transformers reads the folder of `saddle convert MODEL.gguf export/merged --merge lora/model`;
- `full`: transformers reads the folder of the fine-tuned model;
- with `--llama`, `merged.gguf` and `full.gguf`: llama.cpp's `convert_hf_to_gguf.py` converts the two folders to float32, and
  llama.cpp computes the rest, its cache in float32. `--llama` is a copy of llama.cpp; the source package of
  llama-cpp-python (`install.sh --llama`) has one:

      pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
      tar xf llama_cpp_python-0.3.36.tar.gz
      ... --llama llama_cpp_python-0.3.36/vendor/llama.cpp

`moved` is how far training moved the log-probabilities at most: far more than the bound, or the check would say
nothing. Token ids, and a conversation rendered with the folder's chat template, must be those of the GGUF file.

Exit code 1 if something is missed: 2e-3 on log-probabilities, ids and rendering equal, weights moved by 0.1 nats.
"""

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path

import measure  # noqa: F401  (sets what transformers reads when imported)
from parity_smollm2 import BOUND, lines, load

MOVED = 0.1
CHAT = [
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "Because of scattering."},
    {"role": "user", "content": "Of what?"},
]


def score(args: argparse.Namespace, model: Path, adapter: Path | None = None) -> list[dict]:
    """`saddle score` of the texts: token ids and log-probabilities."""
    command = [args.saddle, "score", "--model", model, "--data", args.texts, "--json"]
    command += ["--adapter", adapter] if adapter else []
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def of_transformers(model, ids: list[int]):
    """Log-distributions `[T, V]` after each token, in float64."""
    import torch

    with torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)


def of_llama(model, ids: list[int]):
    """The same from llama.cpp."""
    import torch

    model.reset()
    model.eval(ids)
    return torch.tensor(model.scores[: len(ids)]).double().log_softmax(-1)


def worst(samples: list[dict], logdist) -> float:
    """Largest difference of a log-probability in `samples` from what `logdist` gives for its ids."""
    import torch

    differences = []
    for sample in samples:
        ids, ours = sample["token_ids"], torch.tensor(sample["logps"], dtype=torch.float64)
        first = len(ids) - len(ours)
        theirs = logdist(ids)[first - 1 : -1].gather(1, torch.tensor(ids[first:])[:, None])[:, 0]
        differences.append((theirs - ours).abs().max().item())
    return max(differences)


def moved(samples: list[dict], base: list[dict]) -> float:
    """Largest change of a log-probability by training."""
    return max(abs(a - b) for x, y in zip(samples, base, strict=True) for a, b in zip(x["logps"], y["logps"], strict=True))


def check(name: str, samples: list[dict], base: list[dict], logdist, same_ids: bool) -> bool:
    result = {
        "what": name,
        "tokens": sum(len(sample["logps"]) for sample in samples),
        "logps_max_abs": worst(samples, logdist),
        "moved": moved(samples, base),
        "same_ids": same_ids,
    }
    holds = result["logps_max_abs"] <= BOUND and result["moved"] >= MOVED and same_ids
    print(json.dumps({**result, "holds": holds}), flush=True)
    return holds


def converted(args: argparse.Namespace, folder: Path, name: str):
    """llama.cpp's model of a folder, converted by its own script."""
    from llama_cpp import Llama

    target = args.out / f"{name}.gguf"
    script = args.llama / "convert_hf_to_gguf.py"
    command = [sys.executable, script, folder, "--outtype", "f32", "--outfile", target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-2000:]}")
    float32 = 0  # GGML_TYPE_F32
    return Llama(str(target), n_ctx=1024, logits_all=True, type_k=float32, type_v=float32, verbose=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saddle", type=Path, required=True, help="the program")
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2, from which both runs started")
    parser.add_argument("--texts", type=Path, required=True, help="texts to score (JSONL)")
    parser.add_argument("--adapter", type=Path, required=True, help="`model` of a run with LoRA")
    parser.add_argument("--full", type=Path, required=True, help="`model` of a run without")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the merged model and GGUF files")
    parser.add_argument("--llama", type=Path, help="a copy of llama.cpp")
    args = parser.parse_args()

    from peft import PeftModel

    merged = args.out / "merged"
    args.out.mkdir(parents=True)
    subprocess.run([args.saddle, "convert", args.gguf, merged, "--merge", args.adapter], check=True, stdout=subprocess.DEVNULL)

    base, tokenizer = load(args.gguf.parent, args.gguf.name)
    texts = [row["text"] for row in lines(args.texts)]
    ids = [tokenizer(text).input_ids for text in texts]
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    before = score(args, args.gguf)
    samples = score(args, args.gguf, args.adapter)
    holds = all(sample["token_ids"][: len(i)] == i for sample, i in zip(samples, ids, strict=True))
    peft = PeftModel.from_pretrained(base, args.adapter).eval()
    holds = check("adapter", samples, before, lambda i: of_transformers(peft, i), holds)
    del base, peft

    for name, folder in (("merged", merged), ("full", args.full)):
        model, own = load(folder)
        same = [own(text).input_ids for text in texts] == ids
        same &= own.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == chat
        samples = score(args, folder)
        holds &= check(name, samples, before, lambda i, model=model: of_transformers(model, i), same)
        del model
        gc.collect()
        if args.llama:
            model = converted(args, folder, name)
            same = [model.tokenize(text.encode(), add_bos=False, special=True) for text in texts] == ids
            holds &= check(f"{name}.gguf", samples, before, lambda i, model=model: of_llama(model, i), same)
            model.close()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
