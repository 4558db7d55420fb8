#!/usr/bin/env python3
"""Compares models exported as ONNX, run by onnxruntime, with the engine's own logits. Run by hand:

    python3 interop/onnx_check.py [--model PATH] [--keep DIR]

Makes a temporary virtual environment with onnx, onnxruntime and numpy from the package registry (or uses the current
one, if it has them), builds the example `logits` of bitnet-model, exports the bundled model and the four vector models in
both forms of weights, and checks for each of them:

* `onnx.checker` accepts the file, with full shape inference;
* the logits of onnxruntime for a sequence differ from the engine's by at most 1e-3 of the largest logit (3e-2 for models
  of more than two layers), with the same best token everywhere;
* decoding token by token with past keys and values gives the logits of one pass, within the same bounds;
* the engine loads the file again with logits that are equal to the original's, bit for bit.

Differences come from sums of floats in another order. Where an activation lies close to a half they round it to the
neighbouring int8, and in a deep model that reaches all later tokens: onnxruntime differs from itself as much when its
optimisations are switched off. That difference is shown beside the others. The exit status is 0 if all checks passed.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ["onnx", "onnxruntime", "numpy"]
FORMS = ["int8", "bits2"]
TOLERANCE, DEEP_TOLERANCE = 1e-3, 3e-2


def within_environment():
    """Runs this script again inside a fresh virtual environment if a package is missing."""
    try:
        import numpy, onnx, onnxruntime  # noqa: F401, E401

        return
    except ImportError:
        if os.environ.get("BITNET_ONNX_CHECK"):
            raise
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = pathlib.Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        environment = dict(os.environ, BITNET_ONNX_CHECK="1")
        sys.exit(subprocess.run([python, *sys.argv], env=environment).returncode)


def build():
    command = ["cargo", "build", "--profile", "ci", "-p", "bitnet-model", "--example", "logits"]
    subprocess.run(command, cwd=ROOT, check=True)
    return ROOT / "target" / "ci" / "examples" / ("logits.exe" if os.name == "nt" else "logits")


def engine_logits(program, model, tokens, *export):
    import numpy as np

    command = [program, model, ",".join(map(str, tokens)), *export]
    out = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    rows = [[int(word, 16) for word in line.split()] for line in out.splitlines()]
    return np.array(rows, dtype=np.uint32).view(np.float32)


def runtime_logits(session, tokens, steps):
    """Logits for `tokens`, given in pieces of the sizes `steps`."""
    import numpy as np

    caches = [i for i in session.get_inputs() if i.name.startswith("past_key_values")]
    past = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in caches}
    rows, at = [], 0
    for step in steps:
        ids = np.array([tokens[at : at + step]], np.int64)
        logits, *present = session.run(None, {"input_ids": ids, **past})
        past = dict(zip((i.name for i in caches), present))
        rows.append(logits[0])
        at += step
    return np.concatenate(rows)


def compare(what, found, expected, tolerance):
    import numpy as np

    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    same = int((found.argmax(-1) == expected.argmax(-1)).sum())
    good = difference <= tolerance and same == len(expected)
    verdict = "ok" if good else "FAILED"
    print(f"  {what}: {difference:.2e} of the largest logit, best token {same}/{len(expected)}: {verdict}")
    return good


def check(program, model, form, tokens, folder):
    import numpy as np
    import onnx
    import onnxruntime

    config = json.loads((model / "config.json").read_text())
    tokens = [token % config["vocab_size"] for token in tokens]
    tolerance = TOLERANCE if config["num_hidden_layers"] <= 2 else DEEP_TOLERANCE
    path = folder / f"{model.name}-{form}.onnx"
    expected = engine_logits(program, model, tokens, path, form)
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    size = sum(f.stat().st_size for f in folder.glob(path.name + "*"))
    print(f"{model.name}, {form} ({size / 1e6:.1f} MB)")
    one_pass = runtime_logits(session, tokens, [len(tokens)])
    pieces = runtime_logits(session, tokens, [len(tokens) // 2] + [1] * (len(tokens) - len(tokens) // 2))
    spread = np.abs(runtime_logits(plain, tokens, [1] * len(tokens)) - one_pass).max() / np.abs(expected).max()
    print(f"  onnxruntime and itself without optimisations: {spread:.2e} of the largest logit")
    again = engine_logits(program, path, tokens)
    equal = np.array_equal(again.view(np.uint32), expected.view(np.uint32))
    print(f"  loaded again: {'the same bits: ok' if equal else 'other logits: FAILED'}")
    return all([
        compare("one pass", one_pass, expected, tolerance),
        compare("token by token", pieces, expected, tolerance),
        equal,
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, action="append", help="check this model only (repeatable)")
    parser.add_argument("--keep", type=pathlib.Path, help="write the ONNX files here and keep them")
    arguments = parser.parse_args()
    within_environment()
    vectors = ROOT / "testdata" / "vectors"
    models = arguments.model or [
        ROOT / "crates" / "bitnet-tiny" / "model",
        *sorted(path.parent for path in vectors.glob("*/config.json")),
    ]
    program = build()
    tokens = [1, 17, 300, 42, 511, 3, 3, 250, 99, 7, 128, 64, 200, 11, 12, 13, 400, 401, 402, 5, 6, 77, 88, 499]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = [check(program, model.resolve(), form, tokens, folder) for model in models for form in FORMS]
    print(f"{sum(results)} of {len(results)} passed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
