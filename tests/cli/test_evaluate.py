"""`kiku evaluate`: figures on standard output, reports in a folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kiku.calibration import Calibration
from kiku.errors import KikuError
from tests.cli.conftest import Ran
from tests.cli.simple import SimpleBackend

Run = Callable[..., Ran]
Speech = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def dev(speech: Speech, tmp_path: Path) -> Path:
    rows = [("a.wav", "zero one two", "dev"), ("b.wav", "zero nine two", "train")]
    for name, *_ in rows:
        speech(tmp_path / name)
    path = tmp_path / "dev.jsonl"
    lines = [json.dumps({"path": p, "text": t, "split": s}) for p, t, s in rows]
    path.write_text("\n".join(lines))
    return path


def test_figures_are_printed(run: Run, dev: Path) -> None:
    ran = run("evaluate", dev, "--normalise", "basic", "--by", "split")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("word error rate  ")
    assert "16.7 %" in ran.out
    assert "1 substitutions, 0 deletions, 0 insertions" in ran.out
    assert "\nsplit  utterances" in ran.out


def test_a_folder_holds_reports_and_a_second_run_hears_nothing(
    run: Run, dev: Path, tmp_path: Path, backend: SimpleBackend
) -> None:
    first = run("evaluate", dev, "-o", tmp_path / "out", "--normalise", "basic")
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".")
    assert names == ["report.html", "report.json", "report.md", "results.jsonl"]
    backend.interrupt_at = 0
    second = run("evaluate", dev, "-o", tmp_path / "out", "--normalise", "basic")
    assert (second.code, second.out) == (0, first.out)
    fresh = run("evaluate", dev, "-o", tmp_path / "out", "--fresh")
    assert fresh.code == 130
    assert "interrupted after 0 of 0 recordings; run the same command again" in fresh.err


def test_there_are_no_more_slots_than_recordings(
    run: Run, dev: Path, backend: SimpleBackend
) -> None:
    assert run("evaluate", dev, "--slots", "99999999999999").code == 0
    assert backend.num_slots == 2
    assert run("evaluate", dev, "--slots", "1").code == 0
    assert backend.num_slots == 1


def test_what_no_model_will_hear_again_is_not_forgotten(
    run: Run, dev: Path, tmp_path: Path, backend: SimpleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise KikuError("no such model")

    first = run("evaluate", dev, "-o", tmp_path / "out", "--normalise", "basic")
    with monkeypatch.context() as patch:
        patch.setattr("kiku.load", load)
        assert run("evaluate", dev, "-o", tmp_path / "out", "--fresh").code == 1
    backend.interrupt_at = 0
    again = run("evaluate", dev, "-o", tmp_path / "out", "--normalise", "basic")
    assert (again.code, again.out) == (0, first.out)


def test_only_some_rows(run: Run, dev: Path) -> None:
    ran = run("evaluate", dev, "--only", "split=dev", "--normalise", "basic")
    assert "3 in 1 utterances" in ran.out
    assert run("evaluate", dev, "--only", "split").code == 2
    assert run("evaluate", dev, "--only", "split=test").code == 1


def test_a_comparison(run: Run, dev: Path, tmp_path: Path) -> None:
    assert run("evaluate", dev, "-o", tmp_path / "one", "--normalise", "basic").code == 0
    ran = run("evaluate", dev, "--against", tmp_path / "one", "--normalise", "basic", "--recorded")
    assert ran.code == 0
    assert "+0.00 points" in ran.out
    missing = run("evaluate", dev, "--against", tmp_path / "none")
    assert missing.code == 1
    assert "contains no results" in missing.err


def test_what_cannot_be_compared_is_told_of(run: Run, dev: Path, tmp_path: Path) -> None:
    assert run("evaluate", dev, "-o", tmp_path / "one", "--normalise", "basic").code == 0
    rows = [json.loads(line) for line in dev.read_text().splitlines()]
    rows[1] |= {"id": rows[1]["path"], "text": "zero", "end": 0.8}
    dev.write_text("\n".join(map(json.dumps, rows)))
    ran = run("evaluate", dev, "--against", tmp_path / "one", "--normalise", "basic")
    assert ran.code == 0
    assert (
        "one: b.wav: was transcribed with other settings in that evaluation (end None, not 0.8)"
        in ran.err
    )
    assert "1 of 2 rows were not compared" in ran.err
    assert " 1: 0 better, 0 worse" in ran.out


def test_a_row_that_cannot_be_evaluated_is_told_of(run: Run, dev: Path) -> None:
    with dev.open("a") as file:
        file.write('\n{"path": "none.wav", "text": ""}\n')
    ran = run("evaluate", dev)
    assert ran.code == 1
    assert "dev.jsonl, line 3: there is no file none.wav" in ran.err
    assert "1 of 3 rows were not evaluated" in ran.err
    assert ran.out


def test_a_calibration_is_written_and_applied(run: Run, speech: Speech, tmp_path: Path) -> None:
    sound = speech(tmp_path / "long.wav", 88.0)
    text = " ".join(("zero one two three four nine " * 19).split()[:110])
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"path": sound.name, "text": text}))
    ran = run("evaluate", path, "-o", tmp_path / "out", "--calibrate", "temperature", "--recorded",
              "--normalise", "basic")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "calibration.json: temperature, from 110 words" in ran.out
    made = Calibration.load(tmp_path / "out" / "calibration.json")
    assert made(0.9) == pytest.approx(92 / 110, abs=0.01)
    short = speech(tmp_path / "short.wav", 0.8)
    file = tmp_path / "out" / "calibration.json"
    own = run("transcribe", short, "--words", "--calibration", file)
    assert float(own.out.split()[2]) == pytest.approx(made(0.9), abs=1e-3)
    assert "the calibration was measured" not in own.err
    replace(made, model="other").save(tmp_path / "other.json")
    others = run("transcribe", short, "--calibration", tmp_path / "other.json")
    assert others.code == 0
    again = run("evaluate", path, "-o", tmp_path / "two", "--calibration", tmp_path / "other.json",
                "--calibrate", "isotonic", "--recorded")  # fmt: skip
    for ran in (others, again):
        assert "the calibration was measured with the model other" in ran.err
    assert "already have a calibration" in again.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--calibrate", "isotonic"], "add -o DIR"),
        (["--calibrate", "linear", "-o", "x"], "choose one of isotonic, temperature"),
        (["--calibration", "none.json"], "cannot be read"),
        (["--normalise", "dutch"], "'dutch' is not known"),
    ],
)
def test_what_makes_no_sense(run: Run, dev: Path, arguments: list[str], told: str) -> None:
    ran = run("evaluate", dev, *arguments)
    assert ran.code == 2
    assert told in ran.err


def test_a_folder_of_a_corpus_is_evaluated(run: Run, speech: Speech, tmp_path: Path) -> None:
    (folder := tmp_path / "kaldi").mkdir()
    speech(folder / "a.wav")
    (folder / "wav.scp").write_text("first a.wav\nlost b.wav\n")
    (folder / "text").write_text("first ZERO ONE TWO\nlost ZERO\n")
    ran = run("evaluate", folder, "--normalise", "none")
    assert ran.code == 1
    assert "0.0 %" in ran.out.splitlines()[0]
    assert ran.err == (
        f"kiku: {folder} has all its texts in capitals: they are read in small letters\n"
        "kiku: b.wav: there is no such file, but a text of it\n"
        "kiku: 1 of 2 rows were not evaluated\n"
    )


def test_there_is_no_manifest(run: Run, tmp_path: Path) -> None:
    ran = run("evaluate", tmp_path / "none.jsonl")
    assert ran.code == 1
    assert "no such manifest or folder" in ran.err


def test_what_is_read_is_not_replaced(
    run: Run, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kiku.load", None)
    results = dev.rename(tmp_path / "results.jsonl")
    file = tmp_path / "calibration.json"
    for options, said in (
        (
            [results, "-o", tmp_path, "--fresh"],
            "results.jsonl is a file that this command reads, and would be replaced",
        ),
        ([results, "-o", tmp_path / "x", "--against", tmp_path / "x"], "compared with itself"),
    ):
        (tmp_path / "x").mkdir(exist_ok=True)
        ran = run("evaluate", *options)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    results.rename(dev)
    file.write_text("{}")
    calibrated = ["--calibration", file, "--calibrate", "isotonic", "-o", tmp_path]
    ran = run("evaluate", dev, *calibrated)
    assert ran.code == 2
    assert "calibration.json is a file that this command reads" in ran.err
    (tmp_path / "report.md").write_text("mine")
    ran = run("evaluate", dev, "-o", tmp_path)
    assert ran.code == 1
    assert "report.md does not belong to an evaluation (there is no results.jsonl" in ran.err
    assert (tmp_path / "report.md").read_text() == "mine"
    ran = run("evaluate", dev, "-o", dev)
    assert ran.code == 1
    assert ran.err == f"kiku: {dev} is a file; -o needs a folder\n"
