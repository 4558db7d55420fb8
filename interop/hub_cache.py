#!/usr/bin/env python3
"""Checks that bitnet and Python's huggingface_hub share one cache, in both directions.

Run by hand: python3 interop/hub_cache.py [path of the bitnet binary]

A temporary virtual environment gets huggingface_hub from the package registry. Both programs then talk to a Hub on
loopback, which serves the bundled model, with HF_ENDPOINT. Nothing outside a temporary folder is touched. Prints one line
a check; the exit code is 0 only if all hold.
"""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "crates" / "bitnet-tiny" / "model"
REPO = "org/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def contents():
    """The files that are served, by name."""
    files = {path.name: path.read_bytes() for path in sorted(MODEL.iterdir()) if path.suffix in (".json", ".safetensors")}
    files["README.md"] = b"---\nlicense: mit\n---\n# Tiny\n\nStories.\n"
    return files


def is_large(name):
    return name.endswith(".safetensors")


def etag(name, content):
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the Hub that both programs use."""

    protocol_version = "HTTP/1.1"
    files = {}
    seen = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.reply(head=True)

    def do_GET(self):
        self.reply(head=False)

    def reply(self, head):
        Hub.seen.append((self.command, self.path))
        path = self.path.split("?")[0].strip("/")
        if path == f"api/models/{REPO}" or path.startswith(f"api/models/{REPO}/revision/"):
            return self.send(200, {"content-type": "application/json"}, json.dumps(self.info()).encode(), head)
        if path.startswith(f"api/models/{REPO}/tree/"):
            return self.send(200, {"content-type": "application/json"}, json.dumps(self.tree()).encode(), head)
        prefix = f"{REPO}/resolve/"
        name = path[len(prefix):].partition("/")[2] if path.startswith(prefix) else None
        if name not in Hub.files:
            return self.send(404, {"x-error-code": "EntryNotFound"}, b"", head)
        content = Hub.files[name]
        headers = {"x-repo-commit": COMMIT, "etag": f'"{etag(name, content)}"'}
        if is_large(name):
            headers["x-linked-etag"] = headers["etag"]
            headers["x-linked-size"] = str(len(content))
        start = 0
        asked = self.headers.get("range", "")
        if asked.startswith("bytes=") and asked.endswith("-"):
            start = int(asked[6:-1])
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, headers, content[start:], head)

    def info(self):
        siblings = []
        for name, content in Hub.files.items():
            sibling = {"rfilename": name, "size": len(content), "blobId": etag(name, content)}
            if is_large(name):
                sibling["lfs"] = {"sha256": etag(name, content), "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {"_id": "0", "id": REPO, "modelId": REPO, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                "likes": 0, "siblings": siblings}

    def tree(self):
        out = []
        for name, content in Hub.files.items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": etag(name, content)}
            if is_large(name):
                entry["lfs"] = {"oid": etag(name, content), "size": len(content), "pointerSize": 130}
            out.append(entry)
        return out

    def send(self, status, headers, body, head):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)


class Checks:
    def __init__(self):
        self.failed = 0

    def that(self, what, holds, detail=""):
        print(f"{'ok  ' if holds else 'FAIL'} {what}{'' if holds else f': {detail}'}", flush=True)
        self.failed += not holds


def python(home, code):
    """Runs code in a process of its own: huggingface_hub reads its variables once."""
    environment = dict(os.environ, HF_HOME=str(home))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def bitnet(binary, home, *args, offline=False):
    environment = dict(os.environ, HF_HOME=str(home))
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    return subprocess.run([binary, *args], env=environment, capture_output=True, text=True)


def content_requests():
    return [path for method, path in Hub.seen if method == "GET" and "/resolve/" in path]


def python_first(binary, home, checks):
    """What huggingface_hub downloads, bitnet finds."""
    code = f"""
import json, huggingface_hub as h
print(json.dumps({{n: h.hf_hub_download({REPO!r}, n) for n in {sorted(Hub.files)!r}}}))
"""
    paths = python(home, code)
    Hub.seen.clear()
    done = bitnet(binary, home, "pull", REPO, "--json", "-q", offline=True)
    checks.that("bitnet finds what huggingface_hub downloaded", done.returncode == 0, done.stderr)
    if done.returncode == 0:
        snapshot = json.loads(done.stdout)["snapshot"]
        checks.that("  in the same place", pathlib.Path(paths["config.json"]).parent == pathlib.Path(snapshot), snapshot)
    checks.that("  without the network", not Hub.seen, Hub.seen)
    done = bitnet(binary, home, "pull", REPO, "-q")
    checks.that("bitnet pull fetches nothing again", done.returncode == 0 and not content_requests(), Hub.seen)
    done = bitnet(binary, home, "generate", "Once upon a time", "-m", REPO, "-n", "5", "-q", "--offline")
    checks.that("bitnet runs it", done.returncode == 0 and done.stdout, done.stderr)
    done = bitnet(binary, home, "list", "--json", offline=True)
    listed = json.loads(done.stdout or "[]")
    checks.that("bitnet lists it as loadable", [m["name"] for m in listed if m["loadable"]] == [REPO], done.stdout)
    done = bitnet(binary, home, "rm", REPO, "--yes", "--json")
    left = python(home, "import json, huggingface_hub as h; i = h.scan_cache_dir(); print(json.dumps([len(i.repos), len(i.warnings)]))")
    checks.that("what bitnet removes is gone for huggingface_hub", done.returncode == 0 and left == [0, 0], left)


def bitnet_first(binary, home, checks):
    """What bitnet downloads, huggingface_hub finds."""
    done = bitnet(binary, home, "pull", REPO, "-q")
    checks.that("bitnet pulls", done.returncode == 0, done.stderr)
    bitnet(binary, home, "inspect", REPO, "--offline", "-q")
    Hub.seen.clear()
    code = f"""
import json, huggingface_hub as h
paths = {{n: h.hf_hub_download({REPO!r}, n, local_files_only=True) for n in {sorted(Hub.files)!r}}}
scan = h.scan_cache_dir()
repo = list(scan.repos)[0]
print(json.dumps(dict(
    paths=paths,
    snapshot=h.snapshot_download({REPO!r}, local_files_only=True),
    from_cache=h.try_to_load_from_cache({REPO!r}, "config.json"),
    warnings=[str(w) for w in scan.warnings],
    repos=[r.repo_id for r in scan.repos], refs=sorted(repo.refs), files=repo.nb_files, size=repo.size_on_disk,
)))
"""
    found = python(home, code)
    same = all(pathlib.Path(path).read_bytes() == Hub.files[name] for name, path in found["paths"].items())
    checks.that("huggingface_hub finds what bitnet pulled (local_files_only)", same, found["paths"])
    checks.that("  as a snapshot", pathlib.Path(found["snapshot"]) == pathlib.Path(done.stdout.strip()), found["snapshot"])
    checks.that("  by try_to_load_from_cache", found["from_cache"] == found["paths"]["config.json"], found["from_cache"])
    checks.that("  without the network", not Hub.seen, Hub.seen)
    checks.that("its scan has no warnings", found["warnings"] == [], found["warnings"])
    total = sum(map(len, Hub.files.values()))
    facts = (found["repos"], found["refs"], found["files"], found["size"])
    checks.that("  and the right figures", facts == ([REPO], ["main"], len(Hub.files), total), facts)
    python(home, f"import json, huggingface_hub as h; print(json.dumps(h.snapshot_download({REPO!r})))")
    checks.that("huggingface_hub downloads nothing again", not content_requests(), content_requests())
    code = """
import json, huggingface_hub as h
scan = h.scan_cache_dir()
scan.delete_revisions(*[r.commit_hash for repo in scan.repos for r in repo.revisions]).execute()
print(json.dumps(len(h.scan_cache_dir().repos)))
"""
    left = python(home, code)
    listed = json.loads(bitnet(binary, home, "list", "--json").stdout or "[]")
    checks.that("what huggingface_hub removes is gone for bitnet", left == 0 and listed == [], listed)


def locks(binary, home, checks):
    """Each waits for the lock of the other."""
    tag = etag("model.safetensors", Hub.files["model.safetensors"])
    lock = home / "hub" / ".locks" / "models--org--tiny" / f"{tag}.lock"
    lock.parent.mkdir(parents=True)
    code = f"""
import sys
from huggingface_hub.utils import WeakFileLock
with WeakFileLock({str(lock)!r}):
    print("held", flush=True)
    sys.stdin.readline()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    environment = dict(os.environ, HF_HOME=str(home))
    puller = subprocess.Popen([binary, "pull", REPO], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    waits = puller.poll() is None and not (home / "hub/models--org--tiny/refs/main").exists()
    checks.that("bitnet waits for a lock that huggingface_hub holds", waits)
    holder.stdin.write("\n")
    holder.stdin.close()
    holder.wait()
    _, said = puller.communicate()
    checks.that("  and goes on when it is free", puller.returncode == 0 and "waiting for another process" in said, said)


def inside(binary):
    """All checks, with huggingface_hub importable."""
    import huggingface_hub

    print(f"huggingface_hub {huggingface_hub.__version__}, {binary}")
    Hub.files = contents()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("HF_")]:
        del os.environ[name]
    os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HUB_DISABLE_TELEMETRY="1")
    checks = Checks()
    for number, check in enumerate((python_first, bitnet_first, locks)):
        with tempfile.TemporaryDirectory() as home:
            check(binary, pathlib.Path(home), checks)
    print("all checks hold" if not checks.failed else f"{checks.failed} checks fail")
    return 1 if checks.failed else 0


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "--inside":
        return inside(sys.argv[2])
    default = next((ROOT / "target" / p / "bitnet" for p in ("release", "ci") if (ROOT / "target" / p / "bitnet").exists()), None)
    binary = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else default
    if binary is None or not binary.exists():
        sys.exit("build bitnet first (cargo build --release) or give its path")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        interpreter = next(p for p in (pathlib.Path(folder) / "bin" / "python", pathlib.Path(folder) / "Scripts" / "python.exe") if p.exists())
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "huggingface_hub"], check=True)
        return subprocess.run([interpreter, __file__, "--inside", str(binary)]).returncode


if __name__ == "__main__":
    sys.exit(main())
