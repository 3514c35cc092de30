"""`kiku transcribe --ray`: what it is told and says; who hears is not Ray here."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kiku.calibration import Calibration
from kiku.cli import transcribe_fleet
from kiku.fleet import Progress
from kiku.fleet.batch import Run as FleetRun
from kiku.fleet.settings import BatchRequest
from tests.cli.conftest import Ran
from tests.fleet.conftest import Processes

Run = Callable[..., Ran]
Speech = Callable[..., Path]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[BatchRequest, FleetRun]]:
    """What was asked of Ray."""
    found: list[tuple[BatchRequest, FleetRun]] = []

    def on_ray(request: BatchRequest, run: FleetRun) -> AbstractContextManager[Processes]:
        found.append((request, run))
        return Processes().make(request, run)

    monkeypatch.setattr("kiku.fleet.on_ray.on_ray", on_ray)
    return found


@pytest.fixture
def calls(speech: Speech, tmp_path: Path) -> Path:
    """A folder with two recordings."""
    (tmp_path / "calls" / "in").mkdir(parents=True)
    speech(tmp_path / "calls" / "a.wav", 0.8)
    speech(tmp_path / "calls" / "in" / "b.wav", 1.6)
    return tmp_path / "calls"


def _texts(out: Path) -> list[str]:
    rows = [json.loads(line) for part in sorted(out.glob("part-*.jsonl"))
            for line in part.read_text().splitlines()]  # fmt: skip
    return sorted(row["text"] for row in rows)


def test_rows_and_captions(
    run: Run, calls: Path, tmp_path: Path, asked: list[tuple[BatchRequest, FleetRun]]
) -> None:
    out = tmp_path / "out"
    ran = run("transcribe", "--ray", "head:6379", calls, "-o", out, "-f", "jsonl,srt",
              "--dtype", "int4", "--threads", 2, "--slots", 3, "--actors", 5,
              "--hotword", "zero")  # fmt: skip
    assert (ran.code, ran.out) == (0, "")
    begun, done = ran.err.splitlines()
    assert begun == "kiku: 2 recordings, about 2.4 s of sound; Ray starts"
    assert done.startswith("kiku: 2 recordings, 2.4 s of sound in ")
    assert ran.err.endswith(f"; rows are in {out}\n")
    assert _texts(out) == ["zero", "zero one"]
    assert (out / "captions" / "in" / "b.wav.srt").is_file()
    ((request, where),) = asked
    assert where == FleetRun("head:6379", 5)
    assert (request.settings.dtype, request.settings.threads, request.settings.slots) == (
        "int4", 2, 3,
    )  # fmt: skip
    assert [one.text for one in request.options.decoding.phrases] == ["zero"]


@pytest.mark.usefixtures("asked")
def test_a_second_run_says_what_was_done(run: Run, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("transcribe", calls, "--ray", "-o", out, "-q").err == ""
    ran = run("transcribe", calls, "--ray", "-o", out)
    assert ran.err.startswith("kiku: 2 of 2 were already done; 0 recordings")


@pytest.mark.usefixtures("asked")
def test_a_calibration_of_another_model_is_told(run: Run, calls: Path, tmp_path: Path) -> None:
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    for file in (own, other):
        Calibration(kind="temperature", temperature=2.0, model=f"made/{file.stem}").save(file)
    said = [
        run("transcribe", "--ray", calls, "-o", tmp_path / "out", "--model", "somebody/own",
            "--calibration", file, "-q").err
        for file in (own, other)
    ]  # fmt: skip
    assert said[0] == ""
    assert said[1].startswith(
        "kiku: warning: the calibration was measured with the model made/other"
    )


@pytest.mark.usefixtures("asked")
def test_failures_are_counted(run: Run, calls: Path, tmp_path: Path) -> None:
    (calls / "broken.wav").write_bytes(b"no sound")
    ran = run("transcribe", "--ray", calls, "-o", tmp_path / "out")
    assert ran.code == 1
    assert ", 1 of them not complete: see their rows; rows are in" in ran.err


def test_a_dry_run_tells_what_it_would_take(
    run: Run, calls: Path, tmp_path: Path, asked: list[tuple[BatchRequest, FleetRun]]
) -> None:
    out = tmp_path / "out"
    ran = run("transcribe", "--ray", calls, "-o", out, "--dry-run", "--gpu", "l4",
              "--price", 3_600_000, "--model", "1b")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split(maxsplit=2) for line in ran.out.splitlines()]
    assert lines[0] == ["recordings", "2", "0 are finished"]
    assert lines[1][:2] == ["to", "do"]
    assert "roofline, on NVIDIA L4, 64 at once" in ran.out
    assert lines[-1][0] == "cost"
    assert float(lines[-1][1].replace(",", "")) > 0
    assert not out.exists()
    assert asked == []


def test_a_dry_run_plans_with_the_slots_of_the_run(run: Run, calls: Path, tmp_path: Path) -> None:
    ran = run("transcribe", "--ray", calls, "-o", tmp_path / "out", "--dry-run", "--gpu", "l4",
              "--model", "1b", "--slots", 2)  # fmt: skip
    (line,) = [line for line in ran.out.splitlines() if line.startswith("kiku plan")]
    assert line.endswith("roofline, on NVIDIA L4, 2 at once")


def test_a_dry_run_refuses_what_the_run_would(run: Run, calls: Path, tmp_path: Path) -> None:
    dry = ("transcribe", "--ray", calls, "--dry-run", "-o")
    ran = run(*dry, tmp_path / "out", "-f", "jsonl,parquet")
    assert (ran.code, "rows are written in one format" in ran.err) == (2, True)
    (tmp_path / "taken").write_text("mine")
    ran = run(*dry, tmp_path / "taken")
    assert ran.code == 1
    assert "is a file: name another folder" in ran.err
    twice = (calls / "a.wav", calls / "in" / "a.wav")
    twice[1].write_bytes(twice[0].read_bytes())
    ran = run("transcribe", "--ray", *twice, "--dry-run", "-o", tmp_path / "out", "-f", "srt")
    assert (ran.code, "would both be called a.wav" in ran.err) == (2, True)


def test_a_dry_run_on_this_processor(run: Run, calls: Path, tmp_path: Path) -> None:
    ran = run("transcribe", "--ray", calls, "-o", tmp_path / "out", "--dry-run")
    assert ran.code == 0
    assert "kiku plan" in ran.out
    ran = run("transcribe", "--ray", calls, "-o", tmp_path / "out", "--dry-run", "--gpu", "abacus")
    assert ran.code == 2
    assert "abacus" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.wav", "--actors", 2], "--actors: it needs --ray"),
        (["a.wav", "--dry-run"], "--dry-run: it needs --ray"),
        (["a.wav", "--limit-hours", 0], "--limit-hours: it needs --ray"),
        (["--ray", "a.wav"], "-o: --ray writes to a folder"),
        (["--ray", "-", "-o", "out"], "--ray needs files"),
        (["--ray", "auto", "-o", "out"], "--ray needs files"),
        (
            ["--ray", "auto", "head:1", "a.wav", "-o", "out"],
            "two addresses were given, auto and head:1",
        ),
        (["--ray", "a.wav", "-o", "out", "--words"], "--words: it cannot be used with --ray"),
        (["--ray", "a.wav", "-o", "out", "--raw", "s16le,8000,1"], "--raw: it cannot"),
        (["--ray", "a.wav", "-o", "out", "--max-line-width", 20], "--max-line-width: it cannot"),
        (["--ray", "a.wav", "-o", "out", "-f", "json"], "'json' is not a format"),
        (["--ray", "a.wav", "-o", "out", "-f", "all"], "choose from jsonl, parquet, srt, vtt, txt"),
        (["--ray", "nothing", "-o", "out"], "nothing: no such file"),
        (["--ray", "nothing", "-o", "out", "--limit-hours", "-1"], "limit_hours must be above 0"),
    ],
)
def test_what_makes_no_sense(
    arguments: list[object],
    said: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("transcribe", *arguments)
    assert ran.code == 2
    assert said in ran.err.replace("Invalid value for ", "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_called_as_an_address(
    run: Run, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    asked: list[tuple[BatchRequest, FleetRun]],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    speech(tmp_path / "auto")
    assert run("transcribe", "--ray", "auto", "-o", "out").code == 0
    assert asked[0][1].address is None


def test_without_ray_it_is_told_politely(
    run: Run, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = run("transcribe", "--ray", calls, "-o", tmp_path / "out")
    assert ran.code == 1
    assert ran.err.endswith("run  pip install '.[fleet]'  where kiku's repository was cloned\n")


def test_how_far_it_is() -> None:
    progress = Progress(120, 500, 754.0, 3600.0, 18.0, 3)
    assert transcribe_fleet.line_of(progress) == (
        "120 of 500 recordings, 12:34 of about 1:00:00 of sound, 41.9x, 1:08 left, 3 failed"
    )
    assert transcribe_fleet.line_of(Progress(0, 5, 0.0, 60.0, 1.0, 0)) == (
        "0 of 5 recordings, 0.0 s of about 1:00 of sound, 0.0x"
    )


def test_lines_come_even_if_no_recording_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait_for(text: str) -> None:
        while text not in capsys.readouterr().err:
            time.sleep(0.01)

    monkeypatch.setattr(transcribe_fleet, "LINE_EVERY_S", 0.01)
    with transcribe_fleet.progress_lines(quiet=False) as show:
        assert show is not None
        show(Progress(0, 2, 0.0, 60.0, 0.0, 0))
        wait_for("kiku: 0 of 2 recordings, 0.0 s of about 1:00 of sound, 0.0x\n")
        show(Progress(1, 2, 30.0, 60.0, 59.8, 0))  # as long again is left
        wait_for("kiku: 1 of 2 recordings, 30.0 s of about 1:00 of sound, 0.5x, ")
        wait_for("x, 1:")  # time goes on
    with transcribe_fleet.progress_lines(quiet=True) as show:
        assert show is None


def test_without_ray_installed_it_is_the_option_that_is_named(
    run: Run, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = run("transcribe", "--ray", calls, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "--ray needs an extra that is not installed: run  pip install '.[fleet]'" in ran.err
