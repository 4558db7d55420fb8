#!/usr/bin/env python3
"""Makes the ONNX files of this folder, in the forms that exporters write, and what onnxruntime computes with them.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy && python3 make_fixtures.py

Each folder holds one small decoder with random weights: hidden 32, feed-forward 48, two layers, two heads of 16 with one
key/value head, vocabulary 40. `expected.json` has the tokens and, for each folder, the logits of onnxruntime.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
HIDDEN, FFN, LAYERS, HEADS, KV, DIM, VOCAB = 32, 48, 2, 2, 1, 16, 40
THETA, EPS = 10000.0, 1e-5
TOKENS = [3, 17, 39, 0, 8, 8, 21, 30, 5]
SHAPES = {
    "self_attn.q_proj": (HEADS * DIM, HIDDEN), "self_attn.k_proj": (KV * DIM, HIDDEN),
    "self_attn.v_proj": (KV * DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * DIM),
    "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN),
}


class Graph:
    """A graph being put together. `anonymous` gives values numbers for names and nodes none."""

    def __init__(self, anonymous=False, opset=17):
        self.nodes, self.tensors, self.anonymous, self.count, self.opset = [], [], anonymous, 0, opset

    def fresh(self, hint):
        self.count += 1
        return str(self.count) if self.anonymous else f"{hint}_{self.count}"

    def op(self, op, *inputs, path="", outputs=1, domain="", **attributes):
        names = [self.fresh(f"{path}/{op}_output" if path else op) for _ in range(outputs)]
        name = "" if self.anonymous or not path else f"{path}/{op}"
        twin = sum(node.name.startswith(name) for node in self.nodes) if name else 0
        name += f"_{twin}" if twin else ""
        self.nodes.append(helper.make_node(op, list(inputs), names, name=name, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def reduce(self, op, x, **path):
        """A reduction of the last axis; since version 18 axes are an input."""
        if self.opset < 18:
            return self.op(op, x, axes=[-1], keepdims=1, **path)
        return self.op(op, x, self.constant(np.array([-1], np.int64)), keepdims=1, **path)

    def constant(self, array, hint="Constant", tensor=None):
        """A Constant node."""
        tensor = tensor or numpy_helper.from_array(np.asarray(array), "")
        name = self.fresh(hint)
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def initializer(self, name, array=None, tensor=None):
        name = self.fresh(name) if self.anonymous else name
        tensor = tensor or numpy_helper.from_array(np.ascontiguousarray(array), name)
        tensor.name = name
        self.tensors.append(tensor)
        return name


def model(seed, sub_norms, tied):
    """Trits, scales and dense tensors of a model, all numbers bf16-exact."""
    random = np.random.default_rng(seed)
    round_bf16 = lambda x: (np.asarray(x, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    m = {"model.embed_tokens": round_bf16(random.normal(size=(VOCAB, HIDDEN)))}
    if not tied:
        m["lm_head"] = round_bf16(random.normal(size=(VOCAB, HIDDEN)))
    norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
    if sub_norms:
        norms |= {"self_attn.attn_sub_norm": HEADS * DIM, "mlp.ffn_sub_norm": FFN}
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            trits = random.integers(-1, 2, shape).astype(np.int8)
            m[f"model.layers.{layer}.{name}"] = (trits, round_bf16(random.uniform(0.1, 0.4)))
        for name, size in norms.items():
            m[f"model.layers.{layer}.{name}"] = round_bf16(random.uniform(0.5, 1.5, size))
    m["model.norm"] = round_bf16(random.uniform(0.5, 1.5, HIDDEN))
    return m


def decoder(g, m, linear, relu2, head, late_query=False, sub_norms=False):
    """The nodes of a decoder; `linear(g, name, x)` writes a projection, `head(g, x)` the output layer."""
    c = {k: g.constant(np.float32(v)) for k, v in dict(eps=EPS, qmax=127, qmin=-128, floor=1e-5, two=2).items()}

    def norm(name, x):
        path = "/" + name.replace(".", "/").replace("layers/", "layers.")
        weight = g.initializer(name + ".weight", m[name])
        square = g.op("Pow", x, c["two"], path=path)
        root = g.op("Sqrt", g.op("Add", g.reduce("ReduceMean", square, path=path), c["eps"]), path=path)
        return g.op("Mul", weight, g.op("Mul", x, g.op("Div", g.constant(np.float32(1)), root)), path=path)

    def shape(values):
        return g.constant(np.array(values, np.int64))

    table = g.initializer("model.embed_tokens.weight", m["model.embed_tokens"])
    x = g.op("Gather", table, "input_ids", path="/model/embed_tokens")
    count = g.op("Gather", g.op("Shape", "input_ids"), g.constant(np.int64(1)))
    zero, one = g.constant(np.int64(0)), g.constant(np.int64(1))
    positions = g.op("Range", zero, count, one)
    column = g.op("Unsqueeze", positions, shape([1]))
    row = g.op("Unsqueeze", positions, shape([0]))
    hidden = g.op("Greater", row, column)
    inverse = g.constant((1.0 / THETA ** (np.arange(0, DIM, 2) / DIM)).astype(np.float32))
    angles = g.op("Mul", g.op("Cast", column, to=T.FLOAT), inverse)
    angles = g.op("Concat", angles, angles, axis=-1)
    cos, sin = g.op("Cos", angles), g.op("Sin", angles)

    def heads(x, n):
        return g.op("Transpose", g.op("Reshape", x, shape([0, 0, n, DIM])), perm=[0, 2, 1, 3])

    def rotate(x):
        low, high = g.op("Split", x, shape([DIM // 2, DIM // 2]), axis=-1, outputs=2)
        turned = g.op("Concat", g.op("Neg", high), low, axis=-1)
        return g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))

    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        h = norm(at + "input_layernorm", x)
        order = ["k_proj", "v_proj", "q_proj"] if late_query else ["q_proj", "k_proj", "v_proj"]
        qkv = {name: linear(g, f"{at}self_attn.{name}", h) for name in order}
        q, k = rotate(heads(qkv["q_proj"], HEADS)), rotate(heads(qkv["k_proj"], KV))
        v = heads(qkv["v_proj"], KV)
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]), path=f"/model/layers.{layer}/self_attn")
        scores = g.op("Mul", scores, g.constant(np.float32(DIM**-0.5)))
        scores = g.op("Where", hidden, g.constant(np.float32(-1e30)), scores)
        o = g.op("MatMul", g.op("Softmax", scores, axis=-1), v, path=f"/model/layers.{layer}/self_attn")
        o = g.op("Reshape", g.op("Transpose", o, perm=[0, 2, 1, 3]), shape([0, 0, HEADS * DIM]))
        if sub_norms:
            o = norm(at + "self_attn.attn_sub_norm", o)
        x = g.op("Add", x, linear(g, at + "self_attn.o_proj", o))
        h = norm(at + "post_attention_layernorm", x)
        order = ["up_proj", "gate_proj"] if late_query else ["gate_proj", "up_proj"]
        both = {name: linear(g, f"{at}mlp.{name}", h) for name in order}
        gate = both["gate_proj"]
        if relu2:
            act = g.op("Pow", g.op("Relu", gate), c["two"])
        else:
            act = g.op("Mul", gate, g.op("Sigmoid", gate))
        h = g.op("Mul", act, both["up_proj"])
        if sub_norms:
            h = norm(at + "mlp.ffn_sub_norm", h)
        x = g.op("Add", x, linear(g, at + "mlp.down_proj", h))
    return head(g, norm("model.norm", x))


def quantized(g, x):
    """int8 values of a row as floats, and their scale."""
    limit = [g.constant(np.float32(v)) for v in (1e-5, 127, -128)]
    largest = g.reduce("ReduceMax", g.op("Abs", x))
    scale = g.op("Div", limit[1], g.op("Max", largest, limit[0]))
    return g.op("Clip", g.op("Round", g.op("Mul", x, scale)), limit[2], limit[1]), scale


def fake_quantized(g, x):
    q, scale = quantized(g, x)
    return g.op("Div", q, scale)


def path_of(name):
    return "/" + name.replace(".", "/").replace("layers/", "layers.")


def half_in_numbers(array, kind):
    """A tensor of half floats whose bits stand in int32_data."""
    array = np.asarray(array, np.float32)
    bits = array.astype(np.float16).view(np.uint16) if kind == T.FLOAT16 else (array.view(np.uint32) >> 16)
    tensor = T(data_type=kind, dims=array.shape)
    tensor.int32_data.extend(int(b) for b in bits.reshape(-1))
    return tensor


def finish(folder, g, logits, relu2, tied, opsets=(), external=None):
    out = HERE / folder
    out.mkdir(exist_ok=True)
    g.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        g.nodes, "decoder",
        [helper.make_tensor_value_info("input_ids", T.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", T.FLOAT, ["batch", "sequence", VOCAB])],
        g.tensors,
    )
    imports = [helper.make_opsetid("", g.opset), *(helper.make_opsetid(*o) for o in opsets)]
    model = helper.make_model(graph, opset_imports=imports, producer_name="pytorch")
    model.ir_version = {25: 13, 21: 10}.get(g.opset, 8)
    save = dict(save_as_external_data=True, location=external, size_threshold=512) if external else {}
    onnx.save(model, out / "model.onnx", **save)
    for file in out.iterdir():
        file.chmod(0o644)
    onnx.checker.check_model(str(out / "model.onnx"))
    config = {
        "architectures": ["BitNetForCausalLM" if relu2 else "LlamaForCausalLM"],
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "hidden_act": "relu2" if relu2 else "silu",
        "rms_norm_eps": EPS, "rope_theta": THETA, "max_position_embeddings": 64, "tie_word_embeddings": tied,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
    }
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    [result] = session.run(["logits"], {"input_ids": np.array([TOKENS], np.int64)})
    return [float(v) for v in result.reshape(-1)]


def transposed_head(table):
    """As torch writes a tied head: a second copy of the table, transposed."""
    return lambda g, x: g.op("MatMul", x, g.initializer("onnx::MatMul_999", table.T), path="/lm_head")


def torch_named():
    """Renamed transposed weights in products whose nodes kept the names of modules."""
    m = model(1, True, True)
    g = Graph()

    def linear(g, name, x):
        trits, scale = m[name]
        weight = g.initializer(f"onnx::MatMul_{len(g.tensors) + 400}", (trits * scale).T)
        return g.op("MatMul", fake_quantized(g, x), weight, path=path_of(name))

    logits = decoder(g, m, linear, True, transposed_head(m["model.embed_tokens"]), sub_norms=True)
    return finish("torch-named", g, logits, True, True)


def anonymous():
    """No names at all; Constant nodes, half floats as numbers, Gemm, Transpose and Cast, data in another file."""
    m = model(2, False, False)
    g = Graph(anonymous=True)

    def linear(g, name, x):
        trits, scale = m[name]
        dense = trits * scale
        x = fake_quantized(g, x)
        if "q_proj" in name:
            half = g.constant(None, tensor=half_in_numbers(dense, T.FLOAT16))
            return g.op("MatMul", x, g.op("Transpose", g.op("Cast", half, to=T.FLOAT), perm=[1, 0]))
        if "up_proj" in name:
            half = g.initializer("", tensor=half_in_numbers(dense.T, T.BFLOAT16))
            return g.op("MatMul", x, g.op("Cast", half, to=T.FLOAT))
        if "gate_proj" in name:
            return g.op("MatMul", x, g.constant(np.ascontiguousarray(dense.T)))
        rows, cols = dense.shape
        flat = g.op("Reshape", x, g.constant(np.array([-1, cols], np.int64)))
        if "down_proj" in name:
            y = g.op("Gemm", flat, g.initializer("", np.ascontiguousarray(dense.T)))
        else:
            zeros = g.constant(np.zeros(rows, np.float32))
            y = g.op("Gemm", flat, g.initializer("", dense), zeros, transB=1)
        return g.op("Reshape", y, g.constant(np.array([1, -1, rows], np.int64)))

    head = lambda g, x: g.op("MatMul", x, g.initializer("", m["lm_head"].T))
    logits = decoder(g, m, linear, False, head, late_query=True)
    return finish("anonymous", g, logits, False, False, external="weights.bin")


def blocks():
    """MatMulNBits of two bits with packed zero points; a block of zeros has a scale of its own."""
    m = model(3, True, True)
    g = Graph()

    def linear(g, name, x):
        trits, scale = m[name]
        rows, cols = trits.shape
        if "k_proj" in name:
            trits[3, :16] = 0
        count = cols // 16
        codes = (trits + 1).astype(np.uint8).reshape(rows, count, 4, 4)
        packed = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
        scales = np.full((rows, count), scale, np.float32)
        if "k_proj" in name:
            scales[3, 0] = 1.0
        zeros = np.full((rows, (count + 3) // 4), 0x55, np.uint8)
        named = name.replace("self_attn", "attn")
        inputs = [
            g.initializer(named + ".MatMul.weight_Q2", packed),
            g.initializer(named + ".MatMul.weight_scales", scales.reshape(-1)),
            g.initializer(named + ".MatMul.weight_zp", zeros.reshape(-1)),
        ]
        return g.op("MatMulNBits", fake_quantized(g, x), *inputs, path=path_of(named), domain="com.microsoft",
                    K=cols, N=rows, bits=2, block_size=16)

    logits = decoder(g, m, linear, True, transposed_head(m["model.embed_tokens"]), sub_norms=True)
    return finish("blocks", g, logits, True, True, opsets=[("com.microsoft", 1)])


def integers():
    """Integers: DequantizeLinear of int8, uint8, int4 and int2, a cast that is multiplied, MatMulInteger with a scale behind it."""
    # With this seed no activation lies so close to a half that another order of operations rounds it the other way.
    m = model(7, False, False)
    g = Graph(anonymous=True, opset=25)

    def linear(g, name, x):
        trits, scale = m[name]
        factor = g.constant(np.float32(scale))
        if "q_proj" in name:
            weight = g.op("DequantizeLinear", g.initializer("", trits), factor)
            return g.op("MatMul", fake_quantized(g, x), g.op("Transpose", weight, perm=[1, 0]))
        if "k_proj" in name:
            weight = g.initializer("", (trits.T.astype(np.int32) + 128).astype(np.uint8))
            weight = g.op("DequantizeLinear", weight, factor, g.constant(np.uint8(128)))
            return g.op("MatMul", fake_quantized(g, x), weight)
        if "v_proj" in name:
            weight = g.op("Cast", g.initializer("", np.ascontiguousarray(trits.T)), to=T.FLOAT)
            return g.op("MatMul", fake_quantized(g, x), g.op("Mul", weight, factor))
        if "o_proj" in name or "up_proj" in name:
            kind = T.INT4 if "o_proj" in name else T.INT2
            tensor = helper.make_tensor("", kind, trits.T.shape, trits.T.reshape(-1).tolist())
            weight = g.op("DequantizeLinear", g.initializer("", tensor=tensor), factor)
            return g.op("MatMul", fake_quantized(g, x), weight)
        q, by = quantized(g, x)
        sums = g.op("MatMulInteger", g.op("Cast", q, to=T.INT8), g.initializer("", np.ascontiguousarray(trits.T)))
        sums = g.op("Cast", sums, to=T.FLOAT)
        if "gate" in name:
            return g.op("Mul", g.op("Div", sums, by), factor)
        return g.op("Div", sums, g.op("Mul", by, g.constant(np.float32(1.0 / scale))))

    head = lambda g, x: g.op("MatMul", x, g.op("Transpose", g.initializer("", m["lm_head"]), perm=[1, 0]))
    logits = decoder(g, m, linear, False, head)
    return finish("integers", g, logits, False, False)


def masters():
    """Masters that the graph rounds itself; all weights under the names of a checkpoint."""
    m = model(5, True, True)
    random = np.random.default_rng(6)
    g = Graph()

    def linear(g, name, x):
        trits, scale = m[name]
        noisy = (trits * scale * 1.5 + random.uniform(-0.04, 0.04, trits.shape)).astype(np.float32)
        weight = g.initializer(name + ".weight", noisy)
        mean = g.op("ReduceMean", g.op("Abs", weight), keepdims=0)
        inverse = g.op("Reciprocal", g.op("Max", mean, g.constant(np.float32(1e-5))))
        limits = [g.constant(np.float32(v)) for v in (-1, 1)]
        rounded = g.op("Clip", g.op("Round", g.op("Mul", weight, inverse)), *limits)
        weight = g.op("Transpose", g.op("Div", rounded, inverse), perm=[1, 0])
        return g.op("MatMul", fake_quantized(g, x), weight, path=path_of(name))

    logits = decoder(g, m, linear, True, transposed_head(m["model.embed_tokens"]), sub_norms=True)
    return finish("masters", g, logits, True, True)


def main():
    made = {
        "torch-named": torch_named(), "anonymous": anonymous(), "blocks": blocks(),
        "integers": integers(), "masters": masters(),
    }
    (HERE / "expected.json").write_text(json.dumps({"tokens": TOKENS, "logits": made}) + "\n")


if __name__ == "__main__":
    main()
