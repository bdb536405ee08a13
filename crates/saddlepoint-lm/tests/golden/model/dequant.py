"""Writes dequant.json: random blocks of every GGUF type that we read, and what the gguf package makes of them.

Run with the gguf package installed (made with gguf 0.19.0, numpy's default_rng(7)):
    python dequant.py
Bytes and the bits of the f32 results are little-endian hexadecimal.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Byte offsets of the f16 numbers in a block: they must be finite and of both signs.
HALVES = {
    T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}

rng = np.random.default_rng(7)
cases = []
for kind in [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K]:
    weights, size = GGML_QUANT_SIZES[kind]
    count = 4 if weights > 1 else 64
    if kind in (T.F32, T.BF16):
        values = (rng.standard_normal(count) * 10.0 ** rng.integers(-12, 12, count)).astype(np.float32)
        data = values.view(np.uint8).reshape(count, 4)
        data = np.ascontiguousarray(data if kind == T.F32 else data[:, 2:])
    else:
        data = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for at in HALVES[kind]:
            halves = (rng.standard_normal((count, 1)) * 0.05).astype(np.float16)
            data[:, at : at + 2] = halves.view(np.uint8)
        # One subnormal and one zero scale.
        data[0, HALVES[kind][0] : HALVES[kind][0] + 2] = [3, 0]
        data[1, HALVES[kind][0] : HALVES[kind][0] + 2] = [0, 0]
    out = np.ascontiguousarray(dequantize(data, kind), dtype="<f4")
    assert np.isfinite(out).all()
    cases.append({"type": kind.name, "id": int(kind), "bytes": data.tobytes().hex(), "values": out.tobytes().hex()})

golden = {"gguf": version("gguf"), "numpy": version("numpy"), "cases": cases}
Path(__file__).with_name("dequant.json").write_text(json.dumps(golden, indent=1) + "\n")
