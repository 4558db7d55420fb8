"""Writes the PyTorch files beside it, and what is in them as expected.json.

Run with torch 2.15 and numpy: python make_pytorch.py
"""
import argparse
import collections
import json
import pathlib

import torch

HERE = pathlib.Path(__file__).parent
NAMES = {
    torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32", torch.float64: "f64", torch.uint8: "u8",
    torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.bool: "bool",
    torch.uint16: "u16", torch.float8_e4m3fn: "f8_e4m3",
}
expected = {}


def describe(tensor):
    plain = tensor.detach().contiguous()
    raw = bytes(plain.clone().untyped_storage())[: plain.numel() * plain.element_size()]
    return {"dtype": NAMES[plain.dtype], "shape": list(plain.shape), "hex": raw.hex()}


def save(name, obj, state, **options):
    torch.save(obj, HERE / name, **options)
    expected[name] = {key: describe(tensor) for key, tensor in state.items()}


torch.manual_seed(7)
state = collections.OrderedDict()
for dtype in list(NAMES)[:10]:
    state[f"plain.{NAMES[dtype]}"] = (torch.randn(3, 5) * 50).to(dtype)
base = torch.randn(6, 8)
state["scalar"] = torch.tensor(2.5)
state["empty"] = torch.zeros(0, 4)
state["base"] = base
state["tied"] = base
state["rows"] = base[2:5]
state["column"] = base[:, 3]
state["transposed"] = base.t()
state["corner"] = base[1:4, 2:7]
state["steps"] = base[::2, ::3]
state["expanded"] = torch.arange(4, dtype=torch.int16).reshape(4, 1).expand(4, 6)
state["permuted"] = torch.arange(24, dtype=torch.int8).reshape(2, 3, 4).permute(2, 0, 1)
state["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
state["attributes"] = torch.nn.Parameter(torch.randn(2, 3))
state["attributes"].tag = "x"
save("zip.pt", state, state)
save("legacy.pt", state, state, _use_new_zipfile_serialization=False)
save("protocol4.pt", state, state, pickle_protocol=4)

newer = {"u16": torch.arange(5).to(torch.uint16), "f8": torch.randn(4).to(torch.float8_e4m3fn)}
save("untyped.pt", newer, newer)
save("untyped-legacy.pt", newer, newer, _use_new_zipfile_serialization=False)

# A training checkpoint of a wrapped model.
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 4)).sum().backward()
optimizer.step()
wrapped = collections.OrderedDict((f"module.{key}", value) for key, value in model.state_dict().items())
checkpoint = {
    "epoch": 3, "big": 2**80, "lr": 1e-4, "model_state_dict": wrapped, "optimizer": optimizer.state_dict(),
    "args": argparse.Namespace(lr=0.1), "rng_state": torch.get_rng_state(), "tags": {"a", "b"},
    "history": collections.defaultdict(list, loss=[1.0, 0.5]),
}
save("checkpoint.pt", checkpoint, model.state_dict())
save("checkpoint-legacy.pt", checkpoint, model.state_dict(), _use_new_zipfile_serialization=False)

# A whole model: its class would have to be imported.
torch.save(model, HERE / "module.pt")

text = json.dumps({"torch": torch.__version__, "files": expected}, indent=1)
(HERE / "expected.json").write_text(text + "\n")
