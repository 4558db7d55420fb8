#!/usr/bin/env python3
"""Reference vectors for the BitNet embedding architectures: tiny Qwen3 and Gemma 3 text models with random weights.

The models are those of Hugging Face transformers in float32; every projection is replaced by an RMS norm, an int8
fake-quantised activation and absmean ternary weights, as the BitNet embedding models have them. Masters are bf16.

    pip install torch transformers safetensors numpy
    python interop/embedding_reference.py testdata/vectors

Two folders are written, tiny-qwen3-embedding (names without a prefix, configuration as transformers 5 writes it) and
tiny-gemma3-embedding (names with "model.", configuration as transformers 4 wrote it), each with reference.safetensors:
tokens [T] i64, hidden_f32 [T, hidden] behind the final norm, logits_f32 [T, vocab] by the embedding.

Seeds are tried until no activation lies so close to an int8 rounding border that float noise could decide about it.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Gemma3TextConfig, Gemma3TextModel, Qwen3Config, Qwen3Model

TOKENS = [1, 17, 100, 42, 7, 111, 127, 55, 5, 5, 90, 33]
# Least distance of an activation from a rounding border, in int8 steps.
MARGIN = 1e-4


class Margin:
    least = 1.0


class RowNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class TernaryLinear(nn.Module):
    """Norm, int8 rows, ternary weights with one scale."""

    def __init__(self, linear, eps):
        super().__init__()
        assert linear.bias is None
        self.weight = nn.Parameter(linear.weight.detach().clone())
        self.norm = RowNorm(linear.in_features, eps)

    def forward(self, x):
        x = self.norm(x)
        scale = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        steps = x * scale
        border = ((steps - steps.floor()) - 0.5).abs().min().item()
        Margin.least = min(Margin.least, border)
        rows = steps.round().clamp(-128, 127) / scale
        mean = self.weight.abs().mean().clamp(min=1e-5)
        trits = (self.weight / mean).round().clamp(-1, 1)
        return nn.functional.linear(rows, trits * mean)


def replace_projections(module, eps):
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, TernaryLinear(child, eps))
        else:
            replace_projections(child, eps)


def randomise(model, seed, centre_of_native_norms):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if name.endswith("_proj.norm.weight"):
            values = 1.0 + 0.3 * values
        elif parameter.dim() == 1:
            values = centre_of_native_norms + 0.3 * values
        elif "embed_tokens" not in name:
            values = 0.7 * values
        # What is stored is bf16; what is computed is float32.
        parameter.data.copy_(values.to(torch.bfloat16).float())


def build(kind):
    common = dict(vocab_size=128, num_hidden_layers=2, rms_norm_eps=1e-6, bos_token_id=2, eos_token_id=1,
                  pad_token_id=0, attn_implementation="eager")
    if kind == "qwen3":
        config = Qwen3Config(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2,
                             head_dim=32, rope_theta=1e6, max_position_embeddings=512, **common)
        return config, Qwen3Model(config).float().eval()
    common["num_hidden_layers"] = 3
    config = Gemma3TextConfig(hidden_size=48, intermediate_size=80, num_attention_heads=2, num_key_value_heads=1,
                              head_dim=32, query_pre_attn_scalar=40, sliding_window=5,
                              layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                              rope_parameters={
                                  "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
                                  "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                              },
                              max_position_embeddings=512, **common)
    return config, Gemma3TextModel(config).float().eval()


def old_gemma_config(config):
    """The same configuration as transformers 4 wrote it."""
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim", "hidden_activation", "max_position_embeddings", "rms_norm_eps",
             "query_pre_attn_scalar", "sliding_window", "attention_bias", "bos_token_id", "eos_token_id"]
    out = {name: getattr(config, name) for name in names}
    out.update(architectures=["Gemma3TextModel"], model_type="gemma3_text", torch_dtype="bfloat16",
               rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling={"rope_type": "linear", "factor": 4.0},
               sliding_window_pattern=3, attn_logit_softcapping=None, final_logit_softcapping=None)
    return out


def write(kind, out):
    tokens = torch.tensor([TOKENS])
    for seed in range(2000):
        config, model = build(kind)
        replace_projections(model, config.rms_norm_eps)
        randomise(model, seed, 0.0 if kind == "gemma3" else 1.0)
        Margin.least = 1.0
        with torch.no_grad():
            hidden = model(input_ids=tokens, use_cache=False).last_hidden_state[0]
        if Margin.least > MARGIN:
            break
    else:
        raise SystemExit(f"{kind}: no seed keeps its distance from rounding borders")
    folder = out / f"tiny-{kind}-embedding"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "model." if kind == "gemma3" else ""
    weights = {prefix + n: p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if kind == "gemma3":
        text = json.dumps(old_gemma_config(config), indent=2)
    else:
        config.architectures = ["Qwen3Model"]
        config.dtype = "bfloat16"
        text = config.to_json_string(use_diff=False)
    (folder / "config.json").write_text(text.rstrip() + "\n")
    logits = hidden @ model.embed_tokens.weight.detach().T
    reference = {"tokens": tokens[0], "hidden_f32": hidden.contiguous(), "logits_f32": logits.contiguous()}
    save_file(reference, folder / "reference.safetensors")
    print(f"{kind}: seed {seed}, margin {Margin.least:.1e}, largest hidden {hidden.abs().max():.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    destination = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "testdata/vectors")
    for kind in ["qwen3", "gemma3"]:
        write(kind, destination)
