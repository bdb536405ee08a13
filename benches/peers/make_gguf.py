"""Rewrites SmolLM2's GGUF file in other types, for the comparison with llama.cpp.

    python make_gguf.py SmolLM2-135M-Instruct.Q4_1.gguf FOLDER [F32 F16 Q8_0]

Writes FOLDER/smollm2-TYPE.gguf: the dequantised matrices in the type, norms in F32, all metadata kept.
"""

import argparse
from pathlib import Path

import gguf
from gguf.quants import dequantize, quantize

FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
WRITTEN_BY_THE_WRITER = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")


def metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for key, entry in reader.fields.items():
        if key.startswith(WRITTEN_BY_THE_WRITER):
            continue
        kind = entry.types[0]
        inner = entry.types[1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, entry.contents(), kind, sub_type=inner)


def convert(source: Path, target: Path, name: str) -> None:
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    metadata(reader, writer)
    writer.add_file_type(FILE_TYPES[name])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        kind = gguf.GGMLQuantizationType[name] if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("types", nargs="*", metavar="TYPE", help=", ".join(FILE_TYPES))
    args = parser.parse_args()
    types = args.types or ["F32", "F16", "Q8_0"]
    for unknown in set(types) - set(FILE_TYPES):
        parser.error(f"unknown type {unknown}")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in types:
        convert(args.source, args.folder / f"smollm2-{name}.gguf", name)


if __name__ == "__main__":
    main()
