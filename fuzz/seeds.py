"""Writes the seeds of the targets gguf and safetensors (made with gguf 0.19.0, safetensors 0.8.0, numpy 2.4.6).

Files named good-* must be read, bad-* refused.
"""

import json
import struct
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import save

CORPUS = Path(__file__).parent / "corpus"


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def model(arch, kind=T.F32, hidden=32, tweak=lambda writer: None, pre="smollm"):
    """A one-layer model with four tokens; zero weights in the format `kind`."""
    path = CORPUS / "model.tmp"
    writer = GGUFWriter(path, arch)
    heads, width = 2, hidden // 2
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_key_length(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["a", "b", "ab", "<|end|>"])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ messages }}")

    def tensor(name, *dims):
        if len(dims) == 1 or kind == T.F32:
            writer.add_tensor(name, np.zeros(dims, dtype=np.float32))
        elif kind == T.F16:
            writer.add_tensor(name, np.zeros(dims, dtype=np.float16))
        else:
            weights, size = GGML_QUANT_SIZES[kind]
            writer.add_tensor(name, np.zeros((dims[0], dims[1] // weights * size), dtype=np.uint8), raw_dtype=kind)

    tensor("token_embd.weight", 4, hidden)
    tensor("output_norm.weight", hidden)
    tensor("blk.0.attn_norm.weight", hidden)
    tensor("blk.0.attn_q.weight", heads * width, hidden)
    tensor("blk.0.attn_k.weight", width, hidden)
    tensor("blk.0.attn_v.weight", width, hidden)
    if arch == "qwen2":
        tensor("blk.0.attn_q.bias", heads * width)
        tensor("blk.0.attn_k.bias", width)
        tensor("blk.0.attn_v.bias", width)
    if arch == "qwen3":
        tensor("blk.0.attn_q_norm.weight", width)
        tensor("blk.0.attn_k_norm.weight", width)
        tensor("output.weight", 4, hidden)
    tensor("blk.0.attn_output.weight", hidden, heads * width)
    tensor("blk.0.ffn_norm.weight", hidden)
    tensor("blk.0.ffn_gate.weight", hidden, hidden)
    tensor("blk.0.ffn_up.weight", hidden, hidden)
    tensor("blk.0.ffn_down.weight", hidden, hidden)
    tweak(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    path.unlink()
    return data


CORPUS.mkdir(exist_ok=True)
for kind in [T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0]:
    put("gguf", f"good-llama-{kind.name.lower()}", model("llama", kind))
for kind in [T.Q4_K, T.Q5_K, T.Q6_K]:
    block = np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    extra = lambda w: w.add_tensor("extra.weight", block, raw_dtype=kind)
    put("gguf", f"good-extra-{kind.name.lower()}", model("llama", T.Q4_0, tweak=extra))
put("gguf", "good-qwen2", model("qwen2", T.Q4_0, pre="qwen2"))
put("gguf", "good-qwen3", model("qwen3", T.Q4_0, pre="llama-bpe"))
whole = model("llama", T.Q4_0)
put("gguf", "bad-empty", b"")
put("gguf", "bad-magic", b"GGML" + whole[4:])
put("gguf", "bad-version", whole[:4] + struct.pack("<I", 9) + whole[8:])
put("gguf", "bad-counts", whole[:8] + struct.pack("<QQ", 1 << 62, 1 << 62) + whole[24:])
put("gguf", "bad-truncated-metadata", whole[:400])
put("gguf", "bad-truncated-data", whole[:-100])
put("gguf", "bad-string-length", whole[:24] + struct.pack("<Q", 1 << 40) + whole[32:])
put("gguf", "bad-yarn", model("llama", T.Q4_0, tweak=lambda w: w.add_string("llama.rope.scaling.type", "yarn")))
put("gguf", "bad-alignment", model("llama", T.Q4_0, tweak=lambda w: w.add_uint32("general.alignment", 7)))
put("gguf", "bad-experts", model("llama", T.Q4_0, tweak=lambda w: w.add_expert_count(8)))
at = whole.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight")
put("gguf", "bad-dims", whole[: at + 4] + struct.pack("<QQ", 1 << 40, 1 << 40) + whole[at + 20 :])
put("gguf", "bad-type", whole[: at + 20] + struct.pack("<I", 99) + whole[at + 24 :])
put("gguf", "bad-offset", whole[: at + 24] + struct.pack("<Q", (1 << 64) - 32) + whole[at + 32 :])

tensors = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "h": np.arange(4, dtype=np.float16),
    "n": np.zeros((0, 3), dtype=np.float32),
}
whole = save(tensors, metadata={"format": "pt"})
put("safetensors", "good-small", whole)
put("safetensors", "good-none", save({}))
put("safetensors", "bad-integers", save({"i": np.arange(3)}))
put("safetensors", "bad-nan", save({"w": np.array([1.0, np.nan], dtype=np.float32)}))
put("safetensors", "bad-empty", b"")
put("safetensors", "bad-truncated-header", whole[:40])
put("safetensors", "bad-truncated-data", whole[:-3])
put("safetensors", "bad-trailing", whole + b"\0")
put("safetensors", "bad-length", struct.pack("<Q", (1 << 64) - 1) + whole[8:])


def headed(header, data):
    header = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(header)) + header + data


def entry(start, end, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


put("safetensors", "bad-overlap", headed({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)))
put("safetensors", "bad-gap", headed({"a": entry(4, 8)}, bytes(8)))
put("safetensors", "bad-reversed", headed({"a": entry(4, 0)}, bytes(4)))
put("safetensors", "bad-product", headed({"a": entry(0, 4, shape=(1 << 33, 1 << 33))}, bytes(4)))
put("safetensors", "bad-offsets", headed({"a": entry(0, (1 << 64) - 1)}, bytes(4)))
put("safetensors", "bad-json", headed(b'{"a": {', bytes(4)))
put("safetensors", "bad-nesting", headed(b"[" * 4000, b""))
put("safetensors", "bad-missing-field", headed({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)))
