"""Forked processes, and what ONNX Runtime leaves behind: each in a process of its own."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import ROOT
from tests.engine.engines import graphs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_BEGINNING = """
import gc, os, pickle, signal, sys, warnings
warnings.simplefilter("ignore")  # Python's own, about a fork beside threads
import numpy as np
from pathlib import Path

KIND, FOLDER, CONFIG = sys.argv[1], Path(sys.argv[2]), pickle.loads(bytes.fromhex(sys.argv[3]))
SIZE = CONFIG.frame_size

def load(threads=2):
    if KIND == "torch":
        from kiku.engine.torch import torch_engine, use_threads
        from tests import tiny
        use_threads(threads)
        return torch_engine(tiny.codec(), tiny.lm(), slots=2, device="cpu")
    from kiku.engine.onnx import onnx_engine
    return onnx_engine(FOLDER, CONFIG, slots=2, threads=threads)

def sound(num_frames, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal((num_frames, SIZE)) * 0.3).astype(np.float32)

def said(engine, slot, frames):
    parts = [frames[at : at + 8] for at in range(0, len(frames), 8)]
    return [t for part in parts for t in engine.step([slot], part, [len(part)]).tokens.tolist()]
"""
"""A program's first lines; it imports torch only where torch is tried."""

_FORKS = """
from kiku.errors import StreamError

def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        signal.alarm(150)
        work()  # and to the end of the program, as any
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"status {status}"

engine = load()
slot, _ = engine.open()
expected = said(engine, slot, sound(20))

def freed():
    global engine
    told = 0
    for call in (
        lambda: engine.step([slot], sound(1)), engine.open, lambda: engine.save(slot),
        lambda: engine.mark(slot), lambda: engine.truncate(slot, 3),
        lambda: engine.redecode(slot, 3), lambda: engine.set_decoding(slot),
        lambda: engine.restore(slot, b""), lambda: engine.check(b""),
        lambda: engine.encode([slot], sound(1)),
        lambda: engine.decode([slot], np.zeros((1, 4), np.int64)),
    ):
        try:
            call()
        except StreamError as error:
            assert "before this process was forked" in str(error), error
            told += 1
    assert told == 11, told
    engine.close(slot)
    gc.unfreeze()
    del engine
    gc.collect()
    print("freed", flush=True)

def own():
    own = load()
    slot, _ = own.open()
    assert said(own, slot, sound(20)) == expected
    in_child(lambda: None)
    del own
    gc.collect()
    print("own", flush=True)

gc.freeze()  # or each child walks through all of PyTorch's objects when it ends
in_child(freed)
more = said(engine, slot, sound(5, 3))
engine.close(slot)
slot, _ = engine.open()
assert said(engine, slot, sound(20)) == expected
print("parent", flush=True)

in_child(own)
in_child(own)
assert said(engine, slot, sound(5, 3)) == more
print("parent", flush=True)

engine.close(slot)
gc.unfreeze()
del engine
gc.collect()
gc.freeze()
in_child(lambda: print("child", flush=True))
print("parent", flush=True)
"""


def run(program: str, kind: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    config = pickle.dumps(tiny.model_config()).hex()
    return subprocess.run(
        [sys.executable, "-B", "-c", _BEGINNING + program, kind, str(graphs()), config],
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_forked_processes(kind: str) -> None:
    """A child is told of its parent's engine, may free it, and may have its own; a parent goes on.
    So may both where the engine had gone before."""
    ran = run(_FORKS, kind, **os.environ | {"OMP_NUM_THREADS": "2"})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["freed", "parent", "own", "own", "parent", "child", "parent"]


_QUIET = """
before = dict(os.environ)
import kiku.engine.onnx
assert dict(os.environ) == before
engine = load()
engine.open()
engine.step([0], sound(3), [3])
assert dict(os.environ) == before
assert "torch" not in sys.modules
print(sorted(str(path) for path in Path(os.environ["HOME"]).rglob("*")))
"""


@pytest.mark.parametrize("variable", [None, "0", "1", ""])
def test_the_runtime_writes_nothing_and_the_environment_stays(
    variable: str | None, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    places = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")
    environment = {**os.environ, **dict.fromkeys(places, str(home))}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    if variable is not None:
        environment["ORT_DISABLE_TELEMETRY"] = variable
    ran = run(_QUIET, "onnx", **environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[]\n"
    assert ran.stderr == ""
    assert list(home.rglob("*")) == []
