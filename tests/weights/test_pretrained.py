"""Weights by name: from a hub and from URLs, both served on loopback with files made here."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data

import nfspec
from nfspec.errors import BackendError, InputError, WeightError
from nfspec.weights import pretrained as module
from nfspec.weights.pretrained import weights_file
from nfspec.weights.published import PUBLISHED

COMMIT = "a" * 40


class Served(ThreadingHTTPServer):
    """A hub of one repository, `timm/test_nfnet.r160_in1k`, and files at URLs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}  # what the hub states in place of the true one
        self.cut = 0  # bytes after which the next answer ends
        self.asked: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing is said."""

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, whole):
        server = self.server
        server.asked.append((self.command, self.path))
        path = re.sub(r"/resolve/(main|v1|a{40})/", "/resolve/main/", self.path)
        data = server.files.get(path)
        if data is None:
            repository = f"{path.partition('/resolve')[0]}/"
            known = any(name.startswith(repository) for name in server.files)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        digest = server.digests.get(path, hashlib.sha256(data).hexdigest())
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if whole and server.cut:
            self.wfile.write(data[start : server.cut])
            server.cut = 0
            self.wfile.flush()
            self.connection.close()
        elif whole:
            self.wfile.write(data[start:])


@pytest.fixture
def served(monkeypatch, tmp_path):
    server = Served()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def network():
    spec = nfspec.load("timm/test_nfnet")
    plan = nfspec.resolve(spec)
    return spec, plan, nfspec.init(plan, seed=3)


@pytest.fixture(scope="module")
def timms(network, tmp_path_factory):
    """The bytes of timm's file of the network."""
    _, plan, params = network
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    nfspec.weights.to_timm_file(path, plan, params)
    return path.read_bytes()


REPOSITORY = "/timm/test_nfnet.r160_in1k/resolve/main/model.safetensors"
PROGRAM = """
import json, sys
import nfspec
from nfspec.weights.pretrained import weights_file
said = []
try:
    if sys.argv[1] == "read":
        net = nfspec.pretrained(sys.argv[2], progress=said.append)
        found = [net.spec.name, len(net.params), str(net.path)]
    else:
        found = str(weights_file(sys.argv[2], said.append))
except nfspec.NfspecError as error:
    found = f"{type(error).__name__}: {error}"
print(json.dumps([found, said]))
"""


def asked(served, tmp_path, what, name, **variables):
    """A call in a process of its own: huggingface_hub reads its variables as it is imported."""
    command = [sys.executable, "-c", PROGRAM, what, name]
    return json.loads(run(served, tmp_path, command, **variables).splitlines()[-1])


def run(served, tmp_path, command, **variables):
    """The output of a program that knows this hub alone."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": served.url,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_by_name_then_offline_then_with_a_revision(served, tmp_path, timms):
    served.files[REPOSITORY] = timms
    name = "timm/test_nfnet.r160_in1k"
    (spec, count, path), said = asked(served, tmp_path, "read", name)
    assert spec == "timm/test_nfnet" and count > 20 and Path(path).read_bytes() == timms
    assert said == [f"fetching hf-hub:{name}, model.safetensors, {len(timms) / 1e6:,.1f} MB ..."]
    gets = [each for each in served.asked if each[0] == "GET" and "resolve" in each[1]]
    again, said = asked(served, tmp_path, "read", name, HF_HUB_OFFLINE="1")
    assert again == [spec, count, path] and said == []
    assert [e for e in served.asked if e[0] == "GET" and "resolve" in e[1]] == gets
    found, _ = asked(served, tmp_path, "file", f"hf-hub:{name}@v1")
    assert Path(found).read_bytes() == timms


@pytest.mark.slow  # it starts a framework five times, and trains for a minute
def test_from_a_name_to_a_photograph_a_training_and_a_file(served, tmp_path, timms):
    """The second round is offline."""
    served.files[REPOSITORY] = timms
    name, spec = "timm/test_nfnet.r160_in1k", "timm/test_nfnet"
    photo = get_sample_data("grace_hopper.jpg", asfileobj=False)
    rounds = ({}, {"HF_HUB_OFFLINE": "1"})
    commands = (
        ("predict", spec, "--weights", name, "--backend", "torch", "--top", "2", photo),
        ("train", spec, "digits", "--init", name,  "--size", "32",
         "--epochs", "1", "--batch", "64", "--backend", "torch", "--out", "run", "--force"),
        ("evaluate", "run"),
        ("export", spec, "--weights", name, "--to", "onnx", "--size", "64", "--force"),
    )  # fmt: skip
    said = [
        [run(served, tmp_path, [sys.executable, "-m", "nfspec", *each], **how) for each in commands]
        for how in rounds
    ]  # fmt: skip
    first, again = said
    assert first == again
    assert first[0].count("%") == 2 and "grace_hopper.jpg" in first[0]
    assert "top-1" in first[1] and "top-1" in first[2]
    assert "THE SAME NETWORK: timm/test_nfnet in onnxruntime" in first[3]
    whole = [each for each in served.asked if each[0] == "GET" and each[1] == REPOSITORY]
    assert len(whole) == 1


def test_what_a_hub_does_not_have(served, tmp_path, timms):
    served.files["/someone/empty/resolve/main/README.md"] = b"nothing"
    served.files[REPOSITORY] = timms
    for name, words in (
        ("hf-hub:someone/empty", "has none of model.safetensors, pytorch_model.bin"),
        ("hf-hub:timm/test_nfnet.r160_in1", "no such repository; did you mean"),
    ):
        found, _ = asked(served, tmp_path, "file", name)
        assert found.startswith(f"WeightError: {name}: ") and words in found
    found, _ = asked(served, tmp_path, "file", "hf-hub:timm/never", HF_HUB_OFFLINE="1")
    assert "is not in the cache, and the hub cannot be reached" in found


def test_a_damaged_file_of_a_hub_is_refused_and_gone(served, tmp_path, timms):
    served.files[REPOSITORY] = timms
    served.digests[REPOSITORY] = hashlib.sha256(b"another").hexdigest()
    found, _ = asked(served, tmp_path, "file", "timm/test_nfnet.r160_in1k")
    assert "is damaged, as its sha256 is not the one that the hub states" in found
    left = [each for each in (tmp_path / "hub").rglob("*") if each.name == "model.safetensors"]
    assert left == []
    del served.digests[REPOSITORY]
    found, _ = asked(served, tmp_path, "file", "timm/test_nfnet.r160_in1k")
    assert Path(found).read_bytes() == timms


def test_a_url_is_fetched_once_and_from_where_it_was_cut(served, timms):
    url = f"{served.url}/net.safetensors"
    served.files["/net.safetensors"], served.cut = timms, 1000
    with pytest.raises(WeightError, match=r"after 1,000 of .* bytes; run the command again to go"):
        weights_file(url)
    said = []
    path = weights_file(url, said.append)
    assert path.read_bytes() == timms and "(the rest of it)" in said[0]
    before = len(served.asked)
    assert weights_file(Path(url)) == path  # a Path has one slash after the colon
    assert len(served.asked) == before
    assert not list(path.parent.glob("*.part"))


def test_a_name_that_states_a_digest(served, timms):
    digest = hashlib.sha256(timms).hexdigest()[:8]
    for good, name in ((True, f"net-{digest}.pth"), (False, "net-0123abcd.pth")):
        served.files[f"/{name}"] = timms
        if good:
            assert weights_file(f"{served.url}/{name}").read_bytes() == timms
            continue
        with pytest.raises(WeightError, match="does not begin with 0123abcd"):
            weights_file(f"{served.url}/{name}")
    assert len(list(module.cache_folder("weights").rglob("*.pth"))) == 1
    assert not list(module.cache_folder("weights").rglob("*.part"))


def test_urls_that_cannot_be_fetched(served):
    for url, kind, words in (
        (f"{served.url}/absent.npz", WeightError, "Not Found"),
        (f"{served.url}/page.html", InputError, r"a URL that ends in .*\.npz"),
        ("http://127.0.0.1:9/a.npz", WeightError, "refused"),
    ):
        with pytest.raises(kind, match=words):
            weights_file(url)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf-hub:", "expected hf-hub:owner/name"),
        ("hf-hub:../../etc/passwd", "expected hf-hub:owner/name"),
        ("hf-hub:a/b@../../x", "expected hf-hub:owner/name"),
        ("timm/dm_nfnet_f0.dm_in1", "did you mean"),
        ("deepmind/nfnet-f7", "did you mean"),
    ],
)
def test_names_that_are_none(name, words):
    with pytest.raises(InputError, match=words):
        weights_file(name)


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("deepmind/nfnet-f0")
    path.parent.mkdir()
    path.touch()
    assert weights_file("deepmind/nfnet-f0") == path
    assert weights_file("absent.npz") == Path("absent.npz")


def test_what_the_names_are_of():
    for each in PUBLISHED.values():
        assert each.variant in nfspec.variants()
        assert each.where.startswith(("https://", "hf-hub:timm/"))
    with pytest.raises(InputError, match="not a name that says of which network"):
        nfspec.pretrained("hf-hub:a/b")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendError, match=r"pip install"):
        weights_file("hf-hub:a/b")


def test_weights_of_another_number_of_classes(served, network, timms, tmp_path):
    params = network[2]
    served.files["/net.safetensors"] = timms
    ten = nfspec.load("timm/test_nfnet", {"head.classes": 10})
    net = nfspec.pretrained(f"{served.url}/net.safetensors", ten)
    assert net.changes and net.spec is ten
    np.testing.assert_array_equal(net.params["stem.conv0.kernel"], params["stem.conv0.kernel"])


def test_names_in_python():
    """Whatever asks a network about images takes them, and says what is near to a wrong one."""
    image = np.zeros((40, 40, 3), np.uint8)
    for ask in (nfspec.predict, nfspec.embed):
        with pytest.raises(InputError, match='did you mean "deepmind/nfnet-f'):
            ask("timm/test_nfnet", image, weights="deepmind/nfnet-f7")
