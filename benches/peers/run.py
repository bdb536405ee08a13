"""Runs `saddle bench` and the peers in turns and prints the ratios.

    python run.py --saddle ../../target/release/saddle [step] [dpo] [generate] [grpo] [llama] [--rounds 3] [--json]

Each round starts one process of ours and one of each peer, one after the other, so that a neighbour's
load or a slow minute of the machine falls on both. The speed-up is the median over the rounds of
(peer's median seconds / ours); the work is the same by construction and checked where both count it.
The peers get their fastest allocator settings for the seconds; their peak memory is taken from a run of
its own with the default settings, where it is lower. Exit code 1 if something that must hold does not. `llama` needs the GGUF files of make_gguf.py
(`--gguf FOLDER`).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent

# Keeps freed blocks instead of returning them to the kernel: PyTorch's steps are up to a fifth shorter, its
# peak about a tenth higher. Same effect as the tcmalloc or jemalloc that PyTorch's tuning guide advises.
KEEP_MEMORY = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"


@dataclass
class Comparison:
    """One row of the table: ours against a peer, and what must hold."""

    label: str
    ours: list[str]
    peer: list[str]
    speedup: float
    aim: float | None = None
    memory: float | None = None
    """Most that our peak memory may be, as a fraction of the peer's."""
    same_tokens: bool = True
    """Whether both count the same tokens a run (a shared prompt counts once for us, twice for TRL)."""
    peer_mb: float | None = None
    """Peak memory of the peer with the default allocator settings."""
    rounds: list[tuple[dict, dict]] = field(default_factory=list)


def comparisons(names: list[str], gguf: Path | None) -> list[Comparison]:
    table = {
        "step": [
            Comparison("step", ["step"], ["torch_step.py"], speedup=1 / 0.85, aim=1 / 0.70, memory=0.7),
        ],
        "dpo": [
            Comparison("dpo", ["dpo"], ["trl_dpo.py"], speedup=3.0, aim=4.5, memory=0.4, same_tokens=False),
        ],
        "grpo": [
            Comparison("grpo f32", ["grpo", "--weights", "f32"], ["trl_grpo.py"], speedup=2.2, memory=0.4),
            Comparison("grpo int8", ["grpo", "--weights", "int8"], ["trl_grpo.py"], speedup=4.0, aim=6.0, memory=0.4),
        ],
        # The three goals are multiples of what transformers does in float32.
        "generate": [
            Comparison("generate f32", ["generate", "--weights", "f32"], ["hf_generate.py"], speedup=2.0, aim=3.0),
            Comparison("generate bf16", ["generate", "--weights", "bf16"], ["hf_generate.py"], speedup=3.5),
            Comparison("generate int8", ["generate", "--weights", "int8"], ["hf_generate.py"], speedup=5.0),
        ],
        "llama": [
            Comparison(
                f"generate {ours} / llama.cpp {theirs}",
                ["generate", "--weights", ours],
                ["llama_generate.py", "--model", str((gguf or Path()) / f"smollm2-{theirs}.gguf")],
                speedup=1.3,
            )
            for ours, theirs in (("f32", "F32"), ("bf16", "F16"), ("int8", "Q8_0"))
        ],
    }
    return [comparison for name in names for comparison in table[name]]


def run(argv: tuple[str, ...], environment: dict[str, str]) -> dict:
    """The last line of standard output as JSON."""
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def tokens(result: dict) -> float:
    """What one run counts."""
    return result["tokens_per_s"] * result["median_s"]


def summary(comparison: Comparison) -> dict:
    ours, peers = zip(*comparison.rounds, strict=True)
    speedup = statistics.median(p["median_s"] / o["median_s"] for o, p in comparison.rounds)
    peer_mb = min(comparison.peer_mb or math.inf, *(p["peak_rss_mb"] for p in peers))
    ours_mb = statistics.median(o["peak_rss_mb"] for o in ours)
    memory = ours_mb / peer_mb
    holds = speedup >= comparison.speedup and (comparison.memory is None or memory <= comparison.memory)
    return {
        "name": comparison.label,
        "peer": peers[0]["peer"],
        "ours_s": statistics.median(o["median_s"] for o in ours),
        "peer_s": statistics.median(p["median_s"] for p in peers),
        "speedup": speedup,
        "speedup_must": comparison.speedup,
        "speedup_aim": comparison.aim,
        "memory": memory,
        "memory_must": comparison.memory,
        "ours_mb": ours_mb,
        "peer_mb": peer_mb,
        "gemm_fraction": ours[-1].get("gemm_fraction"),
        "bandwidth_fraction": ours[-1].get("bandwidth_fraction"),
        "rounds": len(comparison.rounds),
        "holds": holds,
    }


def show(rows: list[dict]) -> None:
    def number(value, digits=2):
        return "-" if value is None else f"{value:.{digits}f}"

    head = ["", "peer", "ours s", "peer s", "speed-up", "must", "aim", "memory", "must", "gemm", "bandwidth", ""]
    lines = [head]
    for row in rows:
        lines.append(
            [row["name"], row["peer"], number(row["ours_s"], 3), number(row["peer_s"], 3), number(row["speedup"])]
            + [number(row[key]) for key in ("speedup_must", "speedup_aim", "memory", "memory_must")]
            + [number(row["gemm_fraction"]), number(row["bandwidth_fraction"]), "holds" if row["holds"] else "MISSED"]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="step, dpo, generate, grpo, llama [default: the first three]")
    parser.add_argument("--saddle", default="saddle", help="path of the binary")
    parser.add_argument("--gguf", type=Path, help="folder of smollm2-{F32,F16,Q8_0}.gguf, for `llama`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON line a row in place of the table")
    args = parser.parse_args()
    names = args.names or ["step", "dpo", "generate"]
    if unknown := set(names) - {"step", "dpo", "generate", "grpo", "llama"}:
        parser.error(f"unknown benchmark {sorted(unknown)[0]}; known are step, dpo, generate, grpo, llama")
    if "llama" in names and args.gguf is None:
        parser.error("llama needs --gguf FOLDER, written by make_gguf.py")

    environment = {"OMP_NUM_THREADS": str(args.threads), "PYTHONDONTWRITEBYTECODE": "1"}
    fast = environment | {"GLIBC_TUNABLES": KEEP_MEMORY}
    rows = comparisons(names, args.gguf)

    def peer(row: Comparison, *more: str) -> tuple[str, ...]:
        script, *options = row.peer
        return (sys.executable, str(HERE / script), *options, "--threads", str(args.threads), *more)

    for row in rows:
        if row.memory is not None:
            row.peer_mb = run(peer(row, "--warmup", "1", "--runs", "1"), environment)["peak_rss_mb"]
    for index in range(args.rounds):
        results: dict[tuple[str, ...], dict] = {}  # rows may share a peer: it runs once a round
        for row in rows:
            ours = (args.saddle, "bench", *row.ours, "--runs", str(args.runs), "--threads", str(args.threads), "--json")
            theirs = peer(row, "--runs", str(args.runs))
            for argv, variables in ((ours, environment), (theirs, fast)):
                if argv not in results:
                    results[argv] = run(argv, variables)
            pair = results[ours], results[theirs]
            if row.same_tokens and abs(tokens(pair[0]) / tokens(pair[1]) - 1) > 0.01:
                sys.exit(f"{row.label}: ours ran {tokens(pair[0]):.0f} tokens, the peer {tokens(pair[1]):.0f}; not comparable")
            row.rounds.append(pair)
            print(
                f"round {index + 1}  {row.label}: ours {pair[0]['median_s']:.3f} s, {pair[1]['peer']} {pair[1]['median_s']:.3f} s",
                file=sys.stderr,
            )

    summaries = [summary(row) for row in rows]
    if args.json:
        for row in summaries:
            print(json.dumps(row))
    else:
        show(summaries)
    sys.exit(0 if all(row["holds"] for row in summaries) else 1)


if __name__ == "__main__":
    main()
