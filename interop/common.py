"""What the checks share: an interpreter with packages, models to convert, running the command."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = ROOT / "testdata" / "vectors"
BUNDLED = ROOT / "crates" / "bitnet-tiny" / "model"


def start(packages):
    """Reads the arguments; runs this script again in an environment that has the packages, unless one is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bitnet", help="the program to check")
    parser.add_argument("--python", help="an interpreter that has the packages")
    arguments = parser.parse_args()
    inside = os.environ.get("BITNET_INTEROP") == "1"
    if not inside:
        environment = dict(os.environ, BITNET_INTEROP="1", TORCHDYNAMO_DISABLE="1", HF_HUB_OFFLINE="1")
        command = [str(pathlib.Path(sys.argv[0]).resolve()), str(pathlib.Path(arguments.bitnet).resolve())]
        if arguments.python:
            sys.exit(subprocess.run([arguments.python, *command], env=environment).returncode)
        with tempfile.TemporaryDirectory(prefix="bitnet-interop-") as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            python = pathlib.Path(folder) / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", *packages], check=True)
            sys.exit(subprocess.run([python, *command], env=environment).returncode)
    return arguments.bitnet


def convert(bitnet, source, out, form):
    """Converts a model; returns the report."""
    command = [bitnet, "convert", str(source), str(out), "--to", form, "--json", "-q"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Outcomes:
    """Checks, told as they are made."""

    def __init__(self):
        self.failed = 0

    def check(self, what, good, detail=""):
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what}{': ' + detail if detail else ''}", flush=True)

    def finish(self):
        print("all good" if not self.failed else f"{self.failed} checks failed")
        sys.exit(1 if self.failed else 0)
