#!/usr/bin/env python3
"""GGUF files that `bitnet convert` writes, run by other engines. Run by hand, with builds of them that are there:

    cargo build --release && cargo build --release -p bitnet-model --examples
    python3 interop/engines_check.py target/release \\
        --engine bitnet.cpp=/path/to/build/bin:i2_s,tq2_0 "--engine=ik_llama.cpp=/path/to/build/bin:i2_s>iq2_bn"

After the colon stand the forms to try, `i2_s>iq2_bn` for one that the engine's own `llama-quantize` is to turn into
another first; after a further colon, arguments for the programs that compute. An engine is the folder of its programs `llama-tokenize`, `llama-cli` and
`llama-perplexity`; nothing is downloaded or built. For the bundled model in each form:

* the engine loads the file;
* texts become the same tokens there as here;
* it continues a prompt greedily with the same text, or where they part is told;
* log-probabilities that it saves for a text (in steps of about 1e-4) are compared with those
  of the scalar oracle of this engine for the same file and tokens: mean Kullback-Leibler divergence, largest difference
  where one of both gives a probability of a thousandth at least, share of equal best tokens, perplexity.

Engines differ in arithmetic (FORMATS: activations in int8 with one scale a token, or a scale for 64 or 256 values; tables
multiplied in bf16 or f32; keys and values in f16 or f32), so bits are not equal. The exit status is 0 if all checks passed.
"""

import argparse
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

import common

PROMPTS = ["Once upon a time", "The sound of the train", "In the kitchen, the smell of"]
TEXTS = [
    "Hello, world!", "  two  spaces and\ttabs\n\nlines  ", "I'll say 12345678 it's 3.14159, DON'T",
    "Größe, naïve café, Привет, мир! 你好，世界。 👩‍👩‍👧‍👦", "snake_case x+=1; if (a&&b) { return !c; } // \"s\"",
]
CONTEXT, CHUNKS, ANSWER = 256, 2, 24
# What rounding activations otherwise explains; a wrong scale, layout or row order is far beyond.
MEAN_DIVERGENCE, LEAST_AGREEMENT = 2e-3, 0.96


class Failed(Exception):
    """A program ended with an error; its last words."""


def run(command, timeout=600):
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode:
        words = (done.stderr + done.stdout).decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in words if "error" in line.lower() or "assert" in line.lower()]
        raise Failed(f"exit {done.returncode}: " + " / ".join((errors or words)[-3:]))
    return done.stdout.decode("utf-8", "replace")


def our_tokens(ours, model, text, folder):
    place = folder / "text"
    place.write_text(text, encoding="utf-8")
    return [int(token) for token in run([ours / "examples" / "tokens", model, place]).split(",")]


def our_log_probabilities(ours, model, tokens):
    """A row for each token, by the scalar oracle."""
    rows = []
    out = run([ours / "examples" / "logits", model, ",".join(map(str, tokens))])
    for line in out.splitlines():
        bits = bytes.fromhex(line.replace(" ", ""))
        logits = struct.unpack(f">{len(bits) // 4}f", bits)
        top = max(logits)
        total = top + math.log(sum(math.exp(logit - top) for logit in logits))
        rows.append([logit - total for logit in logits])
    return rows


def saved_chunks(path):
    """What `llama-perplexity --kl-divergence-base` saved: tokens of each chunk, and rows for its second half."""
    data = path.read_bytes()
    if data[:8] != b"_logits_":
        raise Failed("the saved logits begin with other bytes")
    context, vocabulary, chunks = struct.unpack_from("<Iii", data, 8)
    at = 20
    tokens = struct.unpack_from(f"<{context * chunks}i", data, at)
    at += 4 * context * chunks
    width = 2 * ((vocabulary + 1) // 2) + 4
    count = context - 1 - context // 2
    for chunk in range(chunks):
        rows = []
        for _ in range(count):
            step, least = struct.unpack_from("<ff", data, at)
            codes = struct.unpack_from(f"<{vocabulary}H", data, at + 8)
            rows.append([least + step * code for code in codes])
            at += 2 * width
        yield list(tokens[chunk * context:(chunk + 1) * context]), rows


class Findings:
    """Sums over compared rows."""

    def __init__(self):
        self.rows = self.agree = 0
        self.divergence = self.ours = self.theirs = self.worst = 0.0

    def add(self, mine, other, following):
        self.rows += 1
        self.agree += mine.index(max(mine)) == other.index(max(other))
        self.divergence += sum(math.exp(a) * (a - b) for a, b in zip(mine, other) if a > -16)
        self.worst = max([self.worst] + [abs(a - b) for a, b in zip(mine, other) if max(a, b) > math.log(1e-3)])
        self.ours -= mine[following]
        self.theirs -= other[following]

    def __str__(self):
        perplexities = [math.exp(total / self.rows) for total in (self.ours, self.theirs)]
        return (f"{self.rows} positions, mean KL {self.divergence / self.rows:.2e}, largest difference {self.worst:.3f}, "
                f"same best token {100 * self.agree / self.rows:.1f} %, perplexity {perplexities[0]:.4f} here, "
                f"{perplexities[1]:.4f} there")


def compare_logits(ours, engine, extra, model, theirs, folder):
    saved = folder / "saved"
    run([engine / "llama-perplexity", "-m", theirs, "-f", common.ROOT / "testdata/bitnet-tiny/eval.txt", "-c", CONTEXT,
         "-b", CONTEXT, "--chunks", CHUNKS, "-t", 2, "--kl-divergence-base", saved, *extra])
    findings = Findings()
    bos = our_tokens(ours, model, "", folder)[0]
    for tokens, rows in saved_chunks(saved):
        # The engine begins each chunk as it begins a text.
        mine = our_log_probabilities(ours, model, [bos] + tokens[1:])
        first = CONTEXT // 2
        for i, row in enumerate(rows):
            findings.add(mine[first + i], row, tokens[first + i + 1])
    return findings


def compare_tokens(ours, engine, model, theirs, folder):
    """The first text whose tokens differ, or nothing."""
    for text in PROMPTS + TEXTS:
        place = folder / "text"
        place.write_text(text, encoding="utf-8")
        out = run([engine / "llama-tokenize", "-m", theirs, "-f", place, "--ids", "--log-disable"])
        line = [line for line in out.splitlines() if line.startswith("[")][-1]
        found = [int(token) for token in line.strip("[] ").split(",")]
        mine = our_tokens(ours, model, text, folder)
        if found != mine:
            return f"{text!r}: {mine} here, {found} there"
    return None


def continuation(ours, engine, extra, model, theirs, prompt):
    """The answers of both, greedily."""
    mine = run([ours / "bitnet", "generate", prompt, "-m", model, "-n", ANSWER, "--temp", 0, "--repeat-penalty", 1, "-q"])
    found = run([engine / "llama-cli", "-m", theirs, "-p", prompt, "-n", ANSWER, "--temp", 0, "--repeat-penalty", 1.0,
                  "-t", 2, "--no-display-prompt", *extra])
    found = found.replace("[end of text]", "").strip()
    return mine.strip().removeprefix(prompt).strip(), found.removeprefix(prompt).strip()


def written(ours, engine, form, folder):
    """The file that is written here, and the one that the engine runs: the same, or what its quantiser makes of it."""
    form, _, other = form.partition(">")
    model = folder / f"tiny.{form}.gguf"
    if not model.exists():
        common.convert(ours / "bitnet", common.BUNDLED, model, f"gguf-{form}")
    if not other:
        return model, model
    theirs = folder / f"tiny.{form}.{other}.gguf"
    run([engine / "llama-quantize", "--allow-requantize", "--token-embedding-type", "bf16", model, theirs, other])
    return model, theirs


def check_form(outcomes, what, ours, engine, form, extra, folder):
    model, theirs = written(ours, engine, form, folder)
    different = compare_tokens(ours, engine, model, theirs, folder)
    outcomes.check(f"{what}: same tokens of {len(PROMPTS + TEXTS)} texts", different is None, different or "")
    findings = compare_logits(ours, engine, extra, model, theirs, folder)
    close = findings.divergence / findings.rows < MEAN_DIVERGENCE and findings.agree / findings.rows > LEAST_AGREEMENT
    outcomes.check(f"{what}: logits", close, str(findings))
    for prompt in PROMPTS:
        mine, found = continuation(ours, engine, extra, model, theirs, prompt)
        alike = next((i for i, (a, b) in enumerate(zip(mine, found)) if a != b), min(len(mine), len(found)))
        detail = "the same" if mine == found else f"parts after {alike} of {len(mine)} characters\n  {mine!r}\n  {found!r}"
        # Where two tokens are as good as each other, any rounding decides; so only the beginning must be the same.
        outcomes.check(f"{what}: continues {prompt!r}", alike > 0, detail)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("ours", type=pathlib.Path, help="folder of `bitnet` and of the `examples` of bitnet-model")
    parser.add_argument("--engine", action="append", required=True, metavar="NAME=FOLDER:FORM[,FORM][:ARGUMENTS]")
    arguments = parser.parse_args()
    outcomes = common.Outcomes()
    with tempfile.TemporaryDirectory(prefix="bitnet-engines-") as folder:
        for engine in arguments.engine:
            name, _, rest = engine.partition("=")
            place, forms, extra = (rest.split(":", 2) + ["", ""])[:3]
            if not place or not forms:
                sys.exit(f"--engine {engine}: expected NAME=FOLDER:FORM")
            for form in forms.split(","):
                what = f"{name} {form}"
                try:
                    check_form(outcomes, what, arguments.ours, pathlib.Path(place), form, extra.split(), pathlib.Path(folder))
                except Failed as error:
                    outcomes.check(f"{what}: loads and runs", False, str(error))
    outcomes.finish()


main()
