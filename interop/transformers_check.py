"""Folders that `bitnet convert` writes, run by transformers.

Checked for each vector model: the packed and the bf16 folder, and a packed folder that went through GGUF, load with
`AutoModelForCausalLM` and give the logits of the original (testdata/vectors, made by transformers) within the suggested
tolerance; and the tokenizer of the bundled model encodes as before.
"""

import pathlib
import tempfile

import common

bitnet = common.start(["torch", "transformers", "accelerate", "safetensors", "numpy"])

import json  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

NAMES = ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"]
TEXTS = ["Hello, world!", "  two  spaces\n\n", "I'LL pay 1234567 €", "你好 🚀", "def f(x): return x+1", ""]


def logits(folder, tokens):
    """Logits in f32 arithmetic: loaded as bf16, which packed weights need, then widened."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.eval().to(torch.float32)
    for module in model.modules():
        if hasattr(module, "dtype") and isinstance(getattr(module, "dtype"), torch.dtype):
            try:
                module.dtype = torch.float32
            except AttributeError:
                pass
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def compare(outcomes, what, found, wanted, limit):
    error = float((found - wanted).abs().max() / wanted.abs().max())
    outcomes.check(f"{what}: logits", error <= limit, f"largest difference {error:.2e} of the largest logit, allowed {limit}")


def main():
    outcomes = common.Outcomes()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    tokens = json.loads((common.VECTORS / "reference.json").read_text())["tokens"]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in NAMES:
            reference = load_file(common.VECTORS / name / "reference.safetensors")["logits_f32"]
            # Packed folders have scales in bf16. Masters give the scale to the last bits of f32.
            for form, limit in (("safetensors-packed", 4e-3), ("safetensors-bf16", 1e-5)):
                out = folder / f"{name}-{form}"
                common.convert(bitnet, common.VECTORS / name, out, form)
                compare(outcomes, f"{name} as {form}", logits(out, tokens), reference, limit)
            through = folder / f"{name}.gguf"
            common.convert(bitnet, common.VECTORS / name, through, "gguf-i2_s")
            for form, limit in (("safetensors-packed", 4e-3), ("safetensors-bf16", 1e-5)):
                out = folder / f"{name}-gguf-{form}"
                common.convert(bitnet, through, out, form)
                compare(outcomes, f"{name} through GGUF as {form}", logits(out, tokens), reference, limit)
        through, back = folder / "tiny.gguf", folder / "tiny-back"
        common.convert(bitnet, common.BUNDLED, through, "gguf-i2_s")
        common.convert(bitnet, through, back, "safetensors-packed")
        before = transformers.AutoTokenizer.from_pretrained(common.BUNDLED)
        after = transformers.AutoTokenizer.from_pretrained(back)
        same = all(before(text)["input_ids"] == after(text)["input_ids"] for text in TEXTS)
        outcomes.check("bitnet-tiny through GGUF: the tokenizer encodes as before", same)
        chat = [{"role": "user", "content": "Hi"}]
        render = [t.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for t in (before, after)]
        outcomes.check("bitnet-tiny through GGUF: the chat template renders as before", render[0] == render[1])
    outcomes.finish()


main()
