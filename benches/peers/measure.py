"""What the peer benchmarks share: the model's shape, threads, timing and the JSON line they print."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Read by transformers when it is imported; the benchmarks need no network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def last_line(argv: list[str]) -> dict:
    """What a program says last on standard output, as JSON."""
    done = subprocess.run(argv, capture_output=True, text=True)
    # Code 1 of saddle: the tolerance was not reached, as with a limit of iterations.
    if done.returncode not in (0, 1) or not done.stdout.strip():
        sys.exit(f"{' '.join(argv)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def smollm2(attention: str = "sdpa", dtype=None):
    """SmolLM2-135M's shape with random weights. Speed does not depend on the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    # Made in its final type, so that the peak memory is not that of a conversion.
    return LlamaForCausalLM._from_config(
        LlamaConfig(**SMOLLM2), attn_implementation=attention, dtype=dtype or torch.float32
    )


def use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
    torch.set_num_interop_threads(1)


def timed(function, warmup: int, runs: int) -> list[float]:
    """Seconds of each run after the warm-up runs."""
    seconds = []
    for _ in range(warmup + runs):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def peak_rss_mb() -> float:
    """Highest resident size this process has had (VmHWM), in MB of 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM in /proc/self/status")


def print_result(name: str, peer: str, seconds: list[float], tokens: int, **more) -> None:
    """One JSON line with the keys of `saddle bench --json`, and the peer's name and settings."""
    median = statistics.median(seconds)
    line = {
        "name": name,
        "peer": peer,
        "median_s": median,
        "min_s": min(seconds),
        "runs": len(seconds),
        "tokens_per_s": tokens / median,
        "peak_rss_mb": round(peak_rss_mb(), 1),
        **more,
    }
    print(json.dumps(line), flush=True)
