"""`kiku bench` and `kiku doctor`: what they accept, and what they print."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kiku.cli import bench as command
from kiku.config import ModelConfig
from kiku.engine.choice import usable_threads
from kiku.measure import doctor, dummy, subprocesses
from kiku.recognizer import Recognizer
from tests import tiny
from tests.cli.conftest import Ran
from tests.measure.timed import Timed

Run = Callable[..., Ran]
GB = 1_000_000_000
CONFIG = ModelConfig(tiny.codec_config(), tiny.lm_config(), text_delay_s=0.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was opened; nothing is measured in other processes, and engines are not real."""
    seen: dict[str, Any] = {}

    def open_model(source: str, **options: Any) -> Any:
        seen.update(source=source, **options)
        return Recognizer(Timed(options["slots"]), CONFIG, tiny.vocabulary(), name="timed")

    def write(folder: Path, config: ModelConfig, precision: str) -> Path:
        seen["written"] = (config.lm.transformer.num_layers, precision)
        return folder

    monkeypatch.setattr(dummy, "open_model", open_model)
    monkeypatch.setattr(dummy, "write_dummy_model", write)
    monkeypatch.setattr(
        subprocesses, "memory", lambda *_, **__: subprocesses.MemoryUse(GB, 2 * GB, GB // 5, 1)
    )
    monkeypatch.setattr(
        subprocesses, "start", lambda *_, **__: subprocesses.StartUp(1.5, 1.75, None)
    )
    return seen


def test_everything_is_shown_and_written(run: Run, asked: dict[str, Any], tmp_path: Path) -> None:
    ran = run("bench", "--frames", 3, "--streams", "1,3", "--json", tmp_path / "b.json")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("demo\n")
    for head in ("LIVE STREAMS", "FRAMES IN A BLOCK", "A RECORDING", "MEMORY", "START"):
        assert f"\n{head}" in ran.out
    assert "2,000 MB" in ran.out
    assert "no words" in ran.out
    assert (asked["source"], asked["slots"], asked["precision"]) == ("demo", 3, None)
    written = json.loads((tmp_path / "b.json").read_text())
    assert [row["streams"] for row in written["live"]] == [1, 1, 3, 3]
    assert [row["size"] for row in written["block"]] == [1, 4, 8, 16]
    assert written["model"] == "demo"


def test_a_shape_is_written_first(run: Run, asked: dict[str, Any]) -> None:
    ran = run("bench", "--shape", "2.6b", "--what", "block", "--frames", 2)
    assert ran.code == 0, ran.err
    assert asked["written"] == (48, "int8")
    assert ran.out.startswith("2.6b, random weights, int8\n")
    assert "LIVE" not in ran.out
    assert not Path(asked["source"]).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--what", "live,smell"), "'smell' is not known; choose from live"),
        (("--what", ","), "nothing to measure"),
        (("--streams", "1,two"), "'1,two' is not a list of numbers"),
        (("--streams", "0"), "must be at least 1"),
        (("--shape", "7b"), "7b"),
        (("demo", "--shape", "1b"), "--shape: it replaces the model, but demo was named as well"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = run("bench", *arguments)
    assert ran.code == 2
    assert said in ran.err


def test_what_cannot_be_heard_or_written_is_told_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_measure", None)
    (tmp_path / "letter.wav").write_text("just a letter\n" * 50)
    for options, said in (
        (("--sound", tmp_path / "none.wav"), "none.wav: no such file"),
        (("--sound", tmp_path / "letter.wav"), "not a recording that can be read"),
        (("--json", tmp_path), "is a folder; name a file in it"),
    ):
        ran = run("bench", *options)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("kiku: ")
        assert said in ran.err


def test_what_fails_is_told_in_a_sentence(
    run: Run, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> subprocesses.MemoryUse:
        raise subprocesses.ChildFailed("measuring failed with exit code 9: killed")

    monkeypatch.setattr(subprocesses, "memory", fail)
    ran = run("bench", "--what", "memory")
    assert (ran.code, ran.err) == (1, "kiku: measuring failed with exit code 9: killed\n")


def test_there_is_something_to_hear_where_nobody_brings_a_recording(tmp_path: Path) -> None:
    from contextlib import ExitStack

    from kiku.audio import duration_s

    with ExitStack() as stack:
        path = command._noise_file(stack)
        assert duration_s(str(path)) == 2.0
    assert not path.exists()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is measured."""
    monkeypatch.setattr(doctor, "read_bandwidth", lambda *_, **__: 40e9)
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path))


@pytest.mark.usefixtures("quiet")
def test_the_doctor_tells_what_is_here(run: Run) -> None:
    ran = run("doctor")
    assert ran.code == 0, ran.err
    for word in ("onnxruntime", "processor", "40 GB/s", "extra torch", "kernels", "TYPICAL"):
        assert word in ran.out
    told = json.loads(run("doctor", "--json").out)
    assert told["machine"]["threads"] == usable_threads()
    assert told["missing"] == []


@pytest.mark.usefixtures("quiet")
def test_the_doctor_tells_the_rest_where_nobody_is_at_home(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKU_CACHE", "~no-such-user-here/cache")
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    told = {line[:18].strip(): line[18:].strip() for line in ran.out.splitlines()}
    assert told["converted models"] == "nowhere: set KIKU_CACHE to a folder for them"
    assert told["memory bandwidth"] == "40 GB/s"
    assert json.loads(run("doctor", "--json").out)["cache"] is None


@pytest.mark.usefixtures("quiet")
def test_the_doctor_minds_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package-here"))
    ran = run("doctor")
    assert ran.code == 1
    assert "MISSING" in ran.out
    assert ran.err.startswith("kiku: missing: no-such-package-here;")
