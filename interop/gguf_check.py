"""GGUF files that `bitnet convert` writes, read by the Python package `gguf` of llama.cpp.

Checked: the file opens, every tensor has the type and shape that it should, TQ1_0 and TQ2_0 dequantised by the package
are trit times scale of the packed original, I2_S bytes are the documented layout, norms and tables are the original's,
and the tokenizer's metadata is there.
"""

import json
import tempfile

import common

bitnet = common.start(["gguf", "numpy"])

import pathlib  # noqa: E402

import gguf  # noqa: E402
import numpy  # noqa: E402

PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm",
}


def bf16(data):
    return (data.astype(numpy.uint32) << 16).view(numpy.float32)


def safetensors(path):
    """All tensors of a file, bf16 as f32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        part = data[8 + size + start:8 + size + end]
        kind = {"BF16": numpy.uint16, "U8": numpy.uint8, "F32": numpy.float32, "F16": numpy.float16}[entry["dtype"]]
        values = numpy.frombuffer(part, kind).reshape(entry["shape"])
        tensors[name] = bf16(values) if entry["dtype"] == "BF16" else values
    return tensors


def unpack(packed):
    """Trits of transformers' packing: four blocks of rows in the bits of a byte."""
    return numpy.concatenate([((packed >> shift) & 3).astype(numpy.int8) - 1 for shift in (0, 2, 4, 6)])


def permute(weights, heads):
    """The order of query and key rows in files of the architecture llama."""
    rows, cols = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def i2_s(data, shape):
    """Trits and scale of bytes in the layout of 128-groups."""
    rows, cols = shape
    raw = numpy.frombuffer(data, numpy.uint8)
    groups = raw[:rows * cols // 4].reshape(-1, 32)
    codes = numpy.stack([(groups >> shift) & 3 for shift in (6, 4, 2, 0)], axis=1)
    return codes.reshape(rows, cols).astype(numpy.int8) - 1, raw[rows * cols // 4:][:4].view(numpy.float32)[0]


def check_model(outcomes, folder, name, source, config, llama):
    packed = folder / f"{name}-packed"
    common.convert(bitnet, source, packed, "safetensors-packed")
    original = safetensors(packed / "model.safetensors")
    for form in ("tq1_0", "tq2_0", "i2_s"):
        out = folder / f"{name}.{form}.gguf"
        if form != "i2_s" and config["hidden_size"] % 256:
            continue
        common.convert(bitnet, packed, out, f"gguf-{form}")
        check_file(outcomes, f"{name} {form}", out, form, original, config, llama)


def check_file(outcomes, what, path, form, original, config, llama):
    raw = path.read_bytes()
    reader = OpenReader(path, form)
    worst, trits_equal, others_equal = 0.0, True, True
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        if tensor.name.startswith("blk.") and tensor.name.split(".")[2] in PARTS:
            _, layer, part, _ = tensor.name.split(".")
            hf = f"model.layers.{layer}.{PARTS[part]}.weight"
            trits, scale = unpack(original[hf]), float(original[f"{hf}_scale"][0])
            if llama and part in ("attn_q", "attn_k"):
                heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
                trits = permute(trits, heads)
            if form == "i2_s":
                start = int(tensor.data_offset)
                found, stored = i2_s(raw[start:start + trits.size // 4 + 32], shape)
                trits_equal &= bool((found == trits).all())
                worst = max(worst, abs(stored / scale - 1))
            else:
                values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
                expected = trits.astype(numpy.float32) * numpy.float32(numpy.float16(scale))
                trits_equal &= bool((values == expected).all())
            continue
        hf = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
              "output.weight": "lm_head.weight"}.get(tensor.name)
        if hf is None:
            _, layer, part, _ = tensor.name.split(".")
            hf = f"model.layers.{layer}.{NORMS[part]}.weight"
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        others_equal &= bool((values == original[hf]).all())
    outcomes.check(f"{what}: {len(reader.tensors)} tensors open", len(reader.tensors) > 10)
    outcomes.check(f"{what}: ternary tensors dequantise to trit * scale", trits_equal and worst == 0)
    outcomes.check(f"{what}: norms and tables are equal", others_equal)
    tokens = reader.get_field("tokenizer.ggml.tokens")
    if tokens is not None:
        merges = reader.get_field("tokenizer.ggml.merges")
        template = reader.get_field("tokenizer.chat_template")
        good = len(tokens.data) == config["vocab_size"] and merges is not None and template is not None
        outcomes.check(f"{what}: vocabulary of {len(tokens.data)}, merges and template are there", good)


def OpenReader(path, form):
    """The package does not know type 36: for I2_S it is told its size, as one byte a block of four and a tail."""
    if form != "i2_s":
        return gguf.GGUFReader(path)
    return PatchedReader(path)


class PatchedReader:
    """Header and metadata by the package, tensors of type 36 by their offsets."""

    def __init__(self, path):
        # The enum of the package has no member 36; its parser of tensor entries and fields is used all the same.
        original = gguf.GGUFReader._build_tensors
        self.tensors = []

        def build(reader, start, fields):
            for field in fields:
                _, name, _, dims, kind, offset = field.parts
                entry = Entry()
                entry.name = str(bytes(name), "utf-8")
                entry.shape = dims
                entry.data_offset = int(start + offset[0])
                entry.tensor_type = int(kind[0])
                if entry.tensor_type != 36:
                    entry.tensor_type = gguf.GGMLQuantizationType(entry.tensor_type)
                    count = int(numpy.prod(dims))
                    block, size = gguf.GGML_QUANT_SIZES[entry.tensor_type]
                    data = reader.data[entry.data_offset:entry.data_offset + count * size // block]
                    kinds = {0: numpy.float32, 1: numpy.float16}
                    entry.data = data.view(kinds.get(int(entry.tensor_type), numpy.uint8))
                self.tensors.append(entry)

        gguf.GGUFReader._build_tensors = build
        try:
            self.reader = gguf.GGUFReader(path)
        finally:
            gguf.GGUFReader._build_tensors = original

    def get_field(self, name):
        return self.reader.get_field(name)


class Entry:
    """A tensor."""


def main():
    outcomes = common.Outcomes()
    print(f"gguf {getattr(gguf, '__version__', '')} {gguf.__file__}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tiny-bitnet-packed", "tiny-llama-bitlinear", "bitnet-tiny"):
            source = common.BUNDLED if name == "bitnet-tiny" else common.VECTORS / name
            config = json.loads((source / "config.json").read_text())
            check_model(outcomes, pathlib.Path(folder), name, source, config, "llama" in name)
    outcomes.finish()


main()
