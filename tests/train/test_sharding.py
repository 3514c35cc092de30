"""Weights in parts: one process that has all parts, and two that share them."""

import json
import shutil
import signal
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import distributed

from kiku.checkpoint import load
from kiku.errors import TrainingError
from kiku.train import processes
from kiku.train.export import export
from kiku.train.fit import fit
from kiku.train.processes import Processes
from kiku.train.settings import FitSettings, TrainSettings, read_settings
from kiku.train.state import RunState
from kiku.train.tensor_files import write_tensors
from tests.train.packs import write_config, write_pack
from tests.train.runs import curve_of, quiet, state_of
from tests.train.torchrun import torchrun

SETTINGS = "dev_every = 4\nclip = 0.5\nema = 0.9\n"
"""The norm is clipped in every step, and the mean is far from the weights."""
KEEP = "[loss]\nkeep = 2.0\n"
LORA = (
    '[lora]\nrank = 4\nalpha = 8\ntargets = ["q_proj", "v_proj", "fc1"]\nnew_pieces = 3\n'
    'also = ["out_norm"]\ndropout = 0.1\n'
)
KINDS = {
    "all weights": ("", ""),
    "held to what was said": ("", KEEP),
    "adapters": ("", KEEP + LORA),
    "computed twice": ("checkpointing = true\n", KEEP),
    "adapters in bfloat16": ('precision = "bfloat16"\n', LORA),
    "the codec, too": ("", KEEP + "[codec]\nlr = 1e-3\n"),
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"), tiny_folder, marked=3, sound=True)


@pytest.fixture
def config(tmp_path: Path, pack: Path, tiny_folder: Path):
    """Writes the settings of a run and reads them."""

    def write(run: str, train: str = "", more: str = "") -> FitSettings:
        path = tmp_path / f"{run}.toml"
        write_config(
            path, pack=pack, model=tiny_folder, run=tmp_path / run, train=SETTINGS + train,
            more=more,
        )  # fmt: skip
        return read_settings(path)

    return write


@pytest.fixture
def one_of_one(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A group of one process, in which weights are cut into one part."""

    def in_parts(self: Processes, train: TrainSettings) -> bool:
        return train.shard

    monkeypatch.setattr(Processes, "in_parts", in_parts)
    store = distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def assert_same(one: RunState, two: RunState) -> None:
    """To the bit."""
    for a, b in ((one.weights, two.weights), (one.average, two.average)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert one.moments.keys() == two.moments.keys() == one.weights.keys()
    for name, moments in one.moments.items():
        assert all(map(torch.equal, moments, two.moments[name]))


def assert_close(one: RunState, two: RunState) -> None:
    """As processes that share out their batches in another way round otherwise."""
    assert one.step == two.step
    for a, b in ((one.weights, two.weights), (one.average, two.average)):
        for name in a:
            torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=1e-3)
    for name, moments in one.moments.items():
        for a, b in zip(moments, two.moments[name], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-2)


def assert_close_curves(one: FitSettings, two: FitSettings) -> None:
    for a, b in zip(curve_of(one), curve_of(two), strict=True):
        for name in ("loss", "text", "keep", "grad_norm", "dev_loss"):
            assert bool(a[name]) == bool(b[name])
            if a[name]:
                assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3, abs=1e-6), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_one_part_is_the_whole(config, one_of_one: None, kind: str) -> None:
    """To the bit: whatever is trained, means, moments, curve; also when it goes on in the other
    way."""
    train, more = KINDS[kind]
    whole, parts = config("whole", train, more), config("parts", train + "shard = true\n", more)
    fit(whole, on_progress=quiet)
    fit(parts, on_progress=quiet)
    assert_same(state_of(parts), state_of(whole))
    assert curve_of(parts) == curve_of(whole)
    assert float(curve_of(whole)[-1]["grad_norm"]) > 0.5

    def stop(line: str) -> None:
        if line.startswith("step 8/"):
            raise KeyboardInterrupt

    for name, first, then in (("a", "", "shard = true\n"), ("b", "shard = true\n", "")):
        with pytest.raises(KeyboardInterrupt):
            fit(config(name, train + first, more), on_progress=stop)
        assert fit(config(name, train + then, more), on_progress=quiet).resumed_at == 5
        assert_same(state_of(config(name)), state_of(whole))
        assert curve_of(config(name)) == curve_of(whole)


def test_alone_there_are_no_parts(config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kiku.train.fit.shard", None)
    assert fit(config("alone", "shard = true\n"), on_progress=quiet).step == 12


def test_tensors_are_written_as_safetensors_has_them(tmp_path: Path) -> None:
    tensors = {
        "half": torch.tensor([1.5, -2.0, 0.25], dtype=torch.bfloat16),
        "turned": torch.arange(6.0).view(2, 3).T,
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 4, dtype=torch.float16),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"said": json.dumps("é")})
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    raw = (tmp_path / "t.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    begins = [header[name]["data_offsets"][0] % one.element_size() for name, one in tensors.items()]
    assert [length % 8, *begins] == [0] * 5
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["said"]) == "é"


PROGRAM = """
import os, signal, sys
from pathlib import Path
from kiku.train.fit import fit
from kiku.train.settings import read_settings
def say(line):
    if line.startswith(f"step {sys.argv[2]}/"):
        os.kill(os.getpid(), signal.SIGKILL)
for config in sys.argv[1].split(","):
    fit(read_settings(Path(config)), on_progress=say)
"""


def together(folder: Path, runs: str, killed_at: int = 0) -> int:
    """Two processes under torchrun, which do one run after the other; the one that speaks is killed
    when it tells of a step."""
    (folder / "program.py").write_text(PROGRAM)
    configs = ",".join(str(folder / f"{run}.toml") for run in runs.split())
    ran = torchrun(str(folder / "program.py"), configs, str(killed_at))
    if killed_at:
        assert str(-signal.SIGKILL) in ran.stderr
    else:
        assert ran.returncode == 0, ran.stderr
    return ran.returncode


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["held to what was said", "adapters", "the codec, too"])
def test_two_that_share_are_one_with_twice_the_batches(config, tmp_path: Path, kind: str) -> None:
    _, more = KINDS[kind]
    more = more.replace("dropout = 0.1", "")
    alone, shared = config("alone", "accumulate = 2\n", more), config("s", "shard = true\n", more)
    fit(alone, on_progress=quiet)
    together(tmp_path, "s")
    assert_close(state_of(shared), state_of(alone))
    assert_close_curves(shared, alone)
    done = export(Path(shared.run), tmp_path / "model", which="last", dtype="float32")
    assert done.step == 12
    state, lm = state_of(shared), load(tmp_path / "model", dtype="float32").lm
    assert torch.equal(lm.out_norm.weight, state.weights["out_norm.weight"])


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_a_kill_of_one_that_shares_changes_nothing(config, tmp_path: Path) -> None:
    """To the bit where it goes on in parts; closely where each has all from then on."""
    whole, killed = config("whole", "shard = true\n", KEEP), config("k", "shard = true\n", KEEP)
    together(tmp_path, "whole")
    assert together(tmp_path, "k", killed_at=8) != 0
    assert state_of(killed).step == 5
    shutil.copytree(killed.run, tmp_path / "other")
    together(tmp_path, "k")
    assert_same(state_of(killed), state_of(whole))
    assert curve_of(killed) == curve_of(whole)
    other = config("other", "", KEEP)
    together(tmp_path, "other")
    assert_close(state_of(other), state_of(whole))
    assert_close_curves(other, whole)
    with pytest.raises(TrainingError, match="another processes"):
        fit(replace(whole, train=replace(whole.train, shard=False)), on_progress=quiet)


def test_a_group_finds_nothing_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    store = distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    monkeypatch.setattr(processes, "_store", lambda: store)
    one, two = (processes._store_of_one_group() for _ in range(2))  # pyright: ignore[reportPrivateUsage]
    one.set("address", "of one")
    assert one.check(["address"])
    assert not two.check(["address"])


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_two_processes_may_do_several_runs(config, tmp_path: Path) -> None:
    """One after the other, in parts or not: each as if it were the only one."""
    shared = [config(f"s{number}", "shard = true\n") for number in range(3)]
    apart = [config(f"a{number}") for number in range(2)]
    together(tmp_path, "s0 a0 s1 a1")
    together(tmp_path, "s2")
    for one in shared[1:]:
        assert_same(state_of(one), state_of(shared[0]))
        assert curve_of(one) == curve_of(shared[0])
    assert_same(*map(state_of, apart))
    assert_close(state_of(apart[0]), state_of(shared[0]))
