"""Tiny random decoders as Hugging Face folders: the models of the golden files.

Weights are drawn so that nothing is near a symmetric point: attention is peaked, the next-token
distributions are far from uniform, and no norm weight or bias keeps its initial value.
"""

import json
import math
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 97
PAD, BOS, EOS, UNK = 0, 1, 2, 3

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}

# Both spellings of the rotary settings occur in the wild: transformers 5 writes `rope_parameters`,
# everything before it `rope_theta` and `rope_scaling`. Two models are stored in each.
CONFIGS = {
    "llama": {
        "model_type": "llama",
        **COMMON,
        "num_hidden_layers": 3,
        "tie_word_embeddings": True,
        "rope_theta": 1e5,
        "max_position_embeddings": 256,
    },
    "qwen2": {
        "model_type": "qwen2",
        **COMMON,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 256,
    },
    "qwen3": {
        "model_type": "qwen3",
        **COMMON,
        "head_dim": 16,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 256,
    },
    "llama3-rope": {
        "model_type": "llama",
        **COMMON,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rope_theta": 1e4,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "max_position_embeddings": 512,
    },
}
OLD_STYLE = ("qwen2", "llama3-rope")

# A real size, for the same checks outside the test-suite; its files are not kept.
SMOLLM2 = {
    "model_type": "llama",
    **COMMON,
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "rope_theta": 1e5,
    "max_position_embeddings": 8192,
}


def config(name: str):
    """The transformers configuration of one of the models, or of SmolLM2-135M."""
    kwargs = dict(SMOLLM2 if name == "smollm2-shape" else CONFIGS[name])
    return AutoConfig.for_model(kwargs.pop("model_type"), **kwargs)


def random_model(name: str, seed: int):
    """A model with weights from `seed`, in float32."""
    model = AutoModelForCausalLM.from_config(config(name), attn_implementation="sdpa")
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, std):
        return torch.randn(shape, generator=generator) * std

    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if key.endswith("norm.weight"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif key.endswith("bias"):
                tensor.copy_(normal(tensor.shape, 0.5))
            elif "embed_tokens" in key or "lm_head" in key:
                tensor.copy_(normal(tensor.shape, 0.45 * math.sqrt(32 / tensor.shape[1])))
            else:
                gain = 1.5 if "q_proj" in key or "k_proj" in key else 1.0
                tensor.copy_(normal(tensor.shape, gain / math.sqrt(tensor.shape[1])))
    return model.eval()


def perturbed(model, seed: int, scale: float = 0.15):
    """A copy with every weight multiplied by `1 + scale * normal`."""
    other = AutoModelForCausalLM.from_config(model.config, attn_implementation="sdpa")
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.mul_(1 + scale * torch.randn(tensor.shape, generator=generator))
    return other.eval()


def tokenizer(vocab: int = VOCAB) -> PreTrainedTokenizerFast:
    """Word-level: `t17` is id 17, so text and ids are one to one. `</s>` closes a completion."""
    words = {f"t{i}": i for i in range(vocab)}
    for word, index in {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "<unk>": UNK}.items():
        del words[f"t{index}"]
        words[word] = index
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def save(model, folder: Path, old_style: bool = False) -> None:
    """Writes a Hugging Face folder; with `old_style`, `config.json` as transformers 4 wrote it."""
    model.save_pretrained(folder)
    tokenizer(model.config.vocab_size).save_pretrained(folder)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    if old_style:
        rope = settings.pop("rope_parameters")
        settings["rope_theta"] = rope.pop("rope_theta")
        settings["rope_scaling"] = rope if rope["rope_type"] != "default" else None
        settings["torch_dtype"] = settings.pop("dtype")
        settings["transformers_version"] = "4.46.0"
    write_json(path, settings)


def write_json(path: Path, value) -> None:
    """Indented, but lists of numbers or strings on one line."""
    text = json.dumps(value, indent=2)
    text = re.sub(r"\[[^][{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    path.write_text(text + "\n")


def load(folder: Path, dtype=torch.float32):
    """Reads a folder back, so that every golden value follows from the stored bytes."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
