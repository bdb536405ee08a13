"""Writes smollm2.json: what transformers makes of SmolLM2-135M-Instruct.Q4_1.gguf.

    python smollm2.py PATH/SmolLM2-135M-Instruct.Q4_1.gguf      (made with transformers 5.23.0, gguf 0.19.0)

Token ids come from the published pipeline (digits one by one, then byte-level), set on transformers' tokenizer
because its GGUF reader does not know the rule `smollm`. A checksum is sum((i + 1) * bits[i]) mod 2^64.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

path = Path(sys.argv[1]).resolve()
kw = {"gguf_file": path.name}
tokenizer = AutoTokenizer.from_pretrained(path.parent, **kw)
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
)
texts = [
    "Hello world",
    "It's 1234 o'clock,  isn't it?\n\tYes.",
    "naïve café 東京 🙂 <b>x</b>",
    "<|im_start|>user\nWhat is 17 * 23?<|im_end|>\n<|im_start|>assistant\n",
    "",
]
chat = [{"role": "user", "content": "Hi"}]
prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
ids = {text: tokenizer(text, add_special_tokens=True)["input_ids"] for text in [*texts, prompt]}

model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **kw)
checksums = {}
for name, tensor in model.state_dict().items():
    bits = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint32).astype(np.uint64)
    checksums[name] = str(int((bits * np.arange(1, len(bits) + 1, dtype=np.uint64)).sum(dtype=np.uint64)))
checksums.pop("lm_head.weight")
golden = {"transformers": version("transformers"), "prompt": prompt, "ids": ids, "checksums": checksums}
Path(__file__).with_name("smollm2.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
