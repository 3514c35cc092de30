"""In a process that was forked from one that has a model: one clear error, never a hang."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.conftest import ROOT
from tests.guarantees.conftest import LONG_S

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

_BEGIN = """
import gc, json, os, sys, time
import numpy as np
import kiku
from kiku.audio import read_chunks
engine, used, children = sys.argv[1:]
rec = kiku.load("demo", engine=engine, device="cpu", slots=3, threads=1)
if used == "used":
    rec.transcribe("examples/digits.wav")
idle, busy = rec.stream(), rec.stream()
idle.push(np.zeros(24_000, np.float32))
while idle.waiting_s:
    time.sleep(0.01)
# At work while the process forks; PyTorch takes many times as long for a second of it.
busy.push(np.ones(24_000 * (4 if engine == "torch" else 20), np.float32) * 0.1)
def told(call):
    try:
        call()
    except kiku.KikuError as error:
        assert "spawn" in str(error), error
        return "told"
    return "nothing"
gc.freeze()  # or each child walks through all of PyTorch's objects when it ends
for child in json.loads(children):
    pid = os.fork()
    if pid == 0:
        exec(child)
        sys.stdout.flush()
        os._exit(0) if "os._exit" in child else sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, (child, status)
busy.stop()
sound = np.concatenate(list(read_chunks("examples/digits.wav", 24_000)))
print("parent", rec.transcribe(sound[:48_000], rate=24_000).text)
"""

CHILDREN = {
    "transcribe": 'print(told(lambda: rec.transcribe("examples/digits.wav")))',
    "tokens": "print(told(lambda: rec.tokens(np.zeros(9_600, np.float32))))",
    "stream": "print(told(rec.stream))",
    "push": "print(told(lambda: idle.push(np.zeros(9_600, np.float32))))",
    "event": "print(told(idle.next_event))",
    "events in time": "print(told(lambda: idle.next_event(0)))",
    "poll": "print(told(idle.poll))",
    "silence": "print(told(lambda: idle.push_silence(0.1)))",
    "decoding": "print(told(lambda: idle.set_decoding(None)))",
    "close": "print(told(idle.close))",
    "save": "print(told(busy.save))",
    "finalize": "print(told(idle.finalize)); os._exit(0)",
    "free": "gc.unfreeze(); del rec, idle, busy; gc.collect(); print('told')",
    "with": "print(told(lambda: idle.__exit__(None, None, None)) and 'told')",
}


def run(engine: str, used: str, children: Sequence[str]) -> list[str]:
    """What the children and then their parent say."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _BEGIN, engine, used, json.dumps(children)],
        cwd=ROOT, capture_output=True, text=True, timeout=2 * LONG_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("engine", "used", "in_one"),
    [
        ("onnx", "used", []),
        # A child with torch takes half a second to end.
        ("torch", "unused", ["transcribe", "tokens", "stream", "event", "push", "save", "with"]),
    ],
    ids=["onnx", "torch"],
)
def test_the_child_is_told(engine: str, used: str, in_one: list[str]) -> None:
    children = ["\n".join(CHILDREN[name] for name in in_one)] if in_one else []
    children += [child for name, child in CHILDREN.items() if name not in in_one]
    said = run(engine, used, children)
    assert said == ["told"] * len(CHILDREN) + ["parent seven three"]


def test_a_child_may_load_a_model_of_its_own() -> None:
    child = (
        'own = kiku.load("demo", engine=engine, threads=1)\n'
        'print("told" if own.transcribe("examples/digits.wav").words else "nothing")'
    )
    assert run("onnx", "used", [child])[0] == "told"


def test_onnx_runtime_reports_to_nobody(tmp_path: object) -> None:
    program = (
        "import os; before = dict(os.environ)\n"
        "import kiku; kiku.load('demo', engine='onnx').transcribe('examples/digits.wav')\n"
        "assert dict(os.environ) == before"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "KIKU_CACHE": f"{tmp_path}/cache"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
    assert os.listdir(str(tmp_path)) == ["cache"]


_FORKS_BESIDE = """
import os, threading
import numpy as np
from kiku.audio import AudioInput
ended = threading.Event()
def fork():
    while not ended.is_set():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
threading.Thread(target=fork, daemon=True).start()
sound = np.random.default_rng(0).normal(0, 0.1, (48_000, 2)).astype(np.float32)
for samples in sound[:, 0], sound:
    audio = AudioInput(24_000)
    for _ in range(300):
        audio.feed(audio.check(samples))
    audio.end()
ended.set()
print("heard")
"""


def test_a_process_that_forks_all_the_time_goes_on_hearing() -> None:
    """OpenBLAS ends its threads before a fork; a sum that they were helping with never ends."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS_BESIDE],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "4"},
    )  # fmt: skip
    assert ended.stdout == "heard\n", ended.stderr


_ROOMS = ("audio", "decoding", "scheduler", "serve", "stream", "text")
_PRODUCTS = frozenset(
    {"dot", "matmul", "inner", "vdot", "vecdot", "tensordot", "outer", "linalg", "cov", "corrcoef"}
)
_BOUNDED = {"audio/power.py", "audio/checks.py"}
"""Where products are only made of few values, which takes no other thread."""


def test_no_room_of_the_driver_has_numpy_multiply_at_length() -> None:
    source = ROOT / "src" / "kiku"
    hall = [path for room in _ROOMS for path in (source / room).rglob("*.py")]
    found: set[str] = set()
    for path in [*hall, *source.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            is_named = isinstance(node, ast.Attribute) and node.attr in _PRODUCTS
            if is_named or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)):
                found.add(path.relative_to(source).as_posix())
    assert found == _BOUNDED
