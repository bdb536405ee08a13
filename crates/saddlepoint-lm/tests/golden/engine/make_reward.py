"""Writes reward/: what transformers' classes for classification of sequences make of the tiny models; see README.md."""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

import tiny
from exact import Exact, widen
from make import float32, ids

HERE = Path(__file__).parent / "reward"


def scorer(name: str, seed: int):
    """A decoder of a family with one label on top."""
    base = tiny.random_model(name, seed)
    config = base.config
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    model.model.load_state_dict(base.model.state_dict())
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator))
    return model.eval()


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    for name, seed in (("llama", 71), ("qwen2", 72), ("qwen3", 73)):
        folder = HERE / name
        tiny.save(scorer(name, seed), folder / "model")
        exact = AutoModelForSequenceClassification.from_pretrained(folder / "model", attn_implementation="sdpa").eval()
        generator = torch.Generator().manual_seed(seed + 2)
        # One ends with padding, one holds some in the middle.
        sequences = [ids(generator, n) for n in (5, 9, 12, 3, 7, 7)]
        sequences[1][4] = tiny.PAD
        sequences[4] += [tiny.PAD, tiny.PAD]
        with Exact():
            exact = widen(exact)
            # PyTorch gives the padding token no gradient, even where it is read.
            exact.model.embed_tokens.padding_idx = None
            scores = torch.cat([exact(input_ids=torch.tensor([s])).logits[0] for s in sequences])
            loss = -F.logsigmoid(scores[0::2] - scores[1::2]).mean()
            loss.backward()
        save_file(float32({key: p.grad for key, p in exact.named_parameters()}), folder / "gradient.safetensors")
        golden = {
            "transformers": transformers.__version__, "sequences": sequences, "scores": scores.tolist(), "loss": loss.item(),
        }
        tiny.write_json(folder / "golden.json", golden)


main()
