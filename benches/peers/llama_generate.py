"""Greedy decoding at batch 8 in llama.cpp: eight sequences in one `llama_decode` a step.

    python llama_generate.py --model FOLDER/smollm2-F32.gguf [--flash-attention on|off] [--runs 5]

The work is that of hf_generate.py: 8 prompts of 64 tokens, 64 new tokens each, nothing stops early.
The 8 most probable tokens are found with numpy on llama.cpp's logits, about 1 % of a step.
"""

import argparse
import ctypes
from pathlib import Path

import numpy as np

from measure import print_result, timed


class Decoder:
    """A model with a context for `batch` sequences of `length` tokens."""

    def __init__(self, path: Path, batch: int, prompt: int, length: int, threads: int, flash: bool, unified: bool):
        import llama_cpp as ll

        self.ll = ll
        self.quiet = ll.llama_log_callback(lambda *_: None)
        ll.llama_log_set(self.quiet, ctypes.c_void_p(0))
        ll.llama_backend_init()
        self.model = ll.llama_model_load_from_file(str(path).encode(), ll.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        params = ll.llama_context_default_params()
        params.n_ctx = batch * length
        params.n_batch = params.n_ubatch = batch * prompt
        params.n_seq_max = batch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.kv_unified = unified
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"{path}: llama.cpp cannot make a context")
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.batch = ll.llama_batch_init(batch * prompt, 0, 1)

    def clear(self) -> None:
        self.ll.llama_memory_clear(self.ll.llama_get_memory(self.context), False)

    def decode(self, ids: np.ndarray, start: int) -> np.ndarray:
        """Feeds `ids [sequences, tokens]` at positions from `start`; the most probable next ids `[sequences]`."""
        index = 0
        for sequence, row in enumerate(ids.tolist()):
            for offset, token in enumerate(row):
                self.batch.token[index] = token
                self.batch.pos[index] = start + offset
                self.batch.n_seq_id[index] = 1
                self.batch.seq_id[index][0] = sequence
                self.batch.logits[index] = offset == len(row) - 1
                index += 1
        self.batch.n_tokens = index
        if status := self.ll.llama_decode(self.context, self.batch):
            raise SystemExit(f"llama_decode failed with status {status}")
        logits = np.ctypeslib.as_array(self.ll.llama_get_logits(self.context), (len(ids), self.vocab))
        return logits.argmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--flash-attention", default="on", choices=["on", "off"])
    parser.add_argument("--kv", default="unified", choices=["unified", "separate"], help="one cache or one a sequence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()

    length = args.prompt + args.new
    flash, unified = args.flash_attention == "on", args.kv == "unified"
    decoder = Decoder(args.model, args.batch, args.prompt, length, args.threads, flash, unified)
    prompts = np.random.default_rng(0).integers(3, decoder.vocab, (args.batch, args.prompt))

    def run() -> None:
        decoder.clear()
        ids = decoder.decode(prompts, 0)
        for position in range(args.prompt, length - 1):
            ids = decoder.decode(ids[:, None], position)

    seconds = timed(run, args.warmup, args.runs)
    settings = {"model": args.model.name, "flash_attention": args.flash_attention, "kv": args.kv}
    print_result("generate", "llama.cpp", seconds, args.batch * args.new, version=decoder.ll.__version__, **settings)


if __name__ == "__main__":
    main()
