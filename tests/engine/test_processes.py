"""Forked processes, and what ONNX Runtime leaves behind: each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.engine.engines import KINDS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_BEGINNING = """
import gc, os, signal, sys, warnings
warnings.simplefilter("ignore")  # Python's own, about a fork beside threads
import numpy as np
from pathlib import Path
from kiku.errors import StreamError
from tests import tiny
from tests.engine.engines import graphs, said, sound

KIND, FOLDER = sys.argv[1], Path(sys.argv[2])

def load(threads=2):
    if KIND == "torch":
        from kiku.engine.torch import torch_engine, use_threads
        use_threads(threads)
        return torch_engine(tiny.codec(), tiny.lm(), slots=2, device="cpu")
    from kiku.engine.onnx import onnx_engine
    return onnx_engine(FOLDER, tiny.model_config(), slots=2, threads=threads)

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
"""

_FREED = """
def work():
    global engine
    told = 0
    for call in (
        lambda: engine.step([slot], sound(1)), engine.open, lambda: engine.save(slot),
        lambda: engine.mark(slot), lambda: engine.truncate(slot, 3),
        lambda: engine.redecode(slot, 3), lambda: engine.set_decoding(slot),
        lambda: engine.restore(slot, b""), lambda: engine.encode([slot], sound(1)),
        lambda: engine.decode([slot], np.zeros((1, 4), np.int64)),
    ):
        try:
            call()
        except StreamError as error:
            assert "before this process was forked" in str(error), error
            told += 1
    assert told == 10, told
    engine.close(slot)
    del engine
    gc.collect()
    print("freed", flush=True)

in_child(work)
more = said(engine, slot, sound(5, 3))
engine.close(slot)
slot, _ = engine.open()
assert said(engine, slot, sound(20)) == expected
print("parent", flush=True)
"""

_OWN = """
def work():
    own = load()
    slot, _ = own.open()
    assert said(own, slot, sound(20)) == expected
    in_child(lambda: None)
    del own
    gc.collect()
    print("own", flush=True)

in_child(work)
in_child(work)
assert said(engine, slot, sound(5, 3))
print("parent", flush=True)
"""

_GONE = """
engine.close(slot)
del engine
gc.collect()
in_child(lambda: print("child", flush=True))
print("parent", flush=True)
"""


def run(program: str, kind: str, folder: Path, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", _BEGINNING + program, kind, str(folder)],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def folder() -> Path:
    from tests.engine.engines import graphs

    return graphs()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("program", "printed"),
    [(_FREED, ["freed", "parent"]), (_OWN, ["own", "own", "parent"]),
     (_GONE, ["child", "parent"])],
    ids=["freed", "own", "gone"],
)  # fmt: skip
def test_a_forked_process(kind: str, program: str, printed: list[str], folder: Path) -> None:
    assert run(program, kind, folder, OMP_NUM_THREADS="2").split() == printed


_QUIET = """
before = dict(os.environ)
if len(sys.argv) > 3:
    import onnxruntime
import kiku.engine.onnx
assert dict(os.environ) == before
engine = load()
engine.open()
engine.step([0], sound(3), [3])
assert dict(os.environ) == before
print(sorted(str(path) for path in Path(os.environ["HOME"]).rglob("*")))
"""


@pytest.mark.parametrize("variable", [None, "0", "1", ""])
def test_the_runtime_writes_nothing_and_the_environment_stays(
    variable: str | None, folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    places = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")
    begin = _BEGINNING.split("engine = load()")[0].replace("from tests.engine.engines", (
        "before_all = dict(os.environ)\nimport kiku.engine.onnx\n"
        "assert dict(os.environ) == before_all\nfrom tests.engine.engines"
    ))  # fmt: skip
    environment = {**os.environ, **dict.fromkeys(places, str(home))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    if variable is not None:
        environment["ORT_DISABLE_TELEMETRY"] = variable
    ran = subprocess.run(
        [sys.executable, "-B", "-c", begin + _QUIET, "onnx", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[]\n"
    assert ran.stderr == ""
    assert list(home.rglob("*")) == []
