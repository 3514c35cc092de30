"""What is missing is heard, whatever dies on the way: nothing twice, nothing lost."""

import json
import os
import subprocess
import sys
from collections import Counter as Count
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from kiku.errors import InputError, KikuError, MissingExtra
from kiku.fleet.batch import KILLED, Broken, Run, run_batch, survey, transcribe
from kiku.fleet.progress import Progress
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.store import RowStore
from kiku.options import StreamOptions
from tests.conftest import ROOT
from tests.fleet.conftest import MakeSpeech, Processes

REQUEST = BatchRequest(ModelSettings("simple"))

pytestmark = pytest.mark.usefixtures("probes_are_quick")


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Where results go."""
    return str(tmp_path / "out")


def rows_in(output: str) -> dict[str, dict[str, Any]]:
    """By name; each recording once."""
    with RowStore(output) as store:
        rows = list(store.rows())
    assert max(Count(row["path"] for row in rows).values(), default=1) == 1
    return {Path(row["path"]).name: row for row in rows}


def test_all_are_heard_and_a_second_run_has_nothing_to_do(
    calls: Path, output: str, processes: Processes
) -> None:
    told: list[Progress] = []
    report = run_batch(processes.make, calls, output, REQUEST, on_progress=told.append)
    rows = rows_in(output)
    assert sorted(rows) == [f"{number}.wav" for number in range(6)]
    assert rows["5.wav"]["text"] == "zero one two"
    assert rows["0.wav"]["text"] == "zero"
    assert (report.survey.files, report.survey.finished, report.killed) == (6, 0, [])
    assert [one.files for one in told] == [0, 1, 2, 3, 4, 5, 6]
    assert told[-1].seconds == pytest.approx(told[-1].of_seconds) == pytest.approx(8.4)
    assert told[-1].left_s == 0
    says = json.loads((Path(output) / "options" / f"{REQUEST.digest}.json").read_text())
    assert says["model"] == "simple"
    assert says["options"] == StreamOptions().to_dict()
    again = run_batch(processes.make, calls, output, REQUEST)
    assert (again.survey.finished, again.progress.of) == (6, 0)
    assert len(processes.heard) == 6


def test_what_changed_is_heard_again(
    calls: Path, output: str, processes: Processes, speech: MakeSpeech
) -> None:
    run_batch(processes.make, calls, output, REQUEST)
    processes.heard.clear()
    speech(calls / "0" / "0.wav", 3.0)
    speech(calls / "new.wav")
    run_batch(processes.make, calls, output, REQUEST)
    assert sorted(processes.heard) == ["0.wav", "new.wav"]
    processes.heard.clear()
    other = BatchRequest(REQUEST.settings, StreamOptions(end_s=0.5))
    run_batch(processes.make, calls, output, other)
    assert len(processes.heard) == 7


def test_a_broken_recording_is_a_row_with_its_problem(
    calls: Path, output: str, processes: Processes
) -> None:
    (calls / "broken.wav").write_bytes(b"no sound")
    whole = (calls / "1" / "5.wav").read_bytes()
    (calls / "cut.wav").write_bytes(whole[: len(whole) // 2])
    report = run_batch(processes.make, [calls, {"path": "/gone.wav"}], output, REQUEST)
    rows = rows_in(output)
    assert "broken.wav" in rows["broken.wav"]["problem"]
    assert "no such file" in rows["gone.wav"]["problem"]
    assert "ends early" in rows["cut.wav"]["problem"]
    assert rows["cut.wav"]["text"] == "zero one"
    assert report.progress.failed == 3
    assert sum(row["problem"] is None for row in rows.values()) == 6

    # It is finished, until it is asked for again.
    sources = [calls, {"path": "/gone.wav"}]
    found = survey(sources, output, model="simple")
    assert (len(found.items), found.finished, found.failed_before) == (0, 9, 3)
    found = survey(sources, output, model="simple", run=Run(retry_failed=True))
    assert (len(found.items), found.finished, found.failed_before) == (3, 6, 0)
    (calls / "cut.wav").write_bytes(whole)
    processes.heard.clear()
    assert run_batch(processes.make, calls, output, REQUEST).progress.of == 1
    assert processes.heard == ["cut.wav"]  # whose size is another
    run_batch(processes.make, calls, output, REQUEST, run=Run(retry_failed=True))
    assert processes.heard == ["cut.wav", "broken.wav"]
    with RowStore(output) as store:
        paths = Count(Path(row["path"]).name for row in store.rows())
    assert paths["broken.wav"] == 1


AGAIN = Run(retry_failed=True)


def test_what_is_not_heard_again_keeps_its_row(
    calls: Path, output: str, processes: Processes
) -> None:
    whole = (calls / "1" / "5.wav").read_bytes()
    for name in ("a.wav", "b.wav", "c.wav"):
        (calls / name).write_bytes(whole[: len(whole) // 2])
    run_batch(processes.make, calls, output, REQUEST)
    before = rows_in(output)
    assert before["b.wav"]["text"] == "zero one"
    processes.heard.clear()

    # Another source, a limit, a model that cannot be loaded, and a run that dies at once.
    run_batch(processes.make, calls / "a.wav", output, REQUEST, run=AGAIN)
    limit = Run(retry_failed=True, limit_hours=1e-6)
    run_batch(processes.make, calls, output, REQUEST, run=limit)
    assert processes.heard == ["a.wav", "a.wav"]

    def no_model(request: BatchRequest, run: Run) -> Any:
        raise KikuError("no such model")

    def stop(progress: Progress) -> None:
        if progress.files:
            raise KeyboardInterrupt

    with pytest.raises(KikuError, match="no such model"):
        run_batch(no_model, calls, output, REQUEST, run=AGAIN)
    with pytest.raises(KeyboardInterrupt):
        run_batch(processes.make, calls, output, REQUEST, run=AGAIN, on_progress=stop)
    assert rows_in(output) == before

    # And what is heard again has one row.
    processes.heard.clear()
    run_batch(processes.make, calls, output, REQUEST, run=AGAIN)
    assert sorted(processes.heard) == ["a.wav", "b.wav", "c.wav"]
    assert rows_in(output) == before


def test_a_run_that_is_killed_behind_the_new_row_leaves_it(
    calls: Path, output: str, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.deadly = ["3.wav"]
    run_batch(processes.make, calls, output, REQUEST)
    processes.deadly = []
    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "_take_out_old", lambda _: None)
        run_batch(processes.make, calls, output, REQUEST, run=AGAIN)
    assert survey(calls, output, model="simple").failed_before == 0
    assert survey(calls, output, model="simple", run=AGAIN).items == []
    assert run_batch(processes.make, calls, output, REQUEST, run=AGAIN).progress.of == 0
    assert rows_in(output)["3.wav"]["problem"] is None


def test_a_process_that_dies_loses_its_block_which_is_heard_again(
    calls: Path, output: str, processes: Processes
) -> None:
    processes.dies_at = 1
    report = run_batch(processes.make, calls, output, REQUEST)
    assert len(rows_in(output)) == 6
    assert (report.progress.files, report.killed) == (6, [])
    assert Count(processes.heard) == Count(f"{number}.wav" for number in range(6))
    (_, first), (stage, second) = processes.rounds
    assert stage == "few"
    lost = set(chain.from_iterable(second))
    assert any(lost <= set(block) for block in first)
    assert len(lost) < 6


def test_what_kills_its_process_is_heard_once_alone_and_then_told(
    calls: Path, output: str, processes: Processes
) -> None:
    processes.deadly = ["3.wav"]
    report = run_batch(processes.make, calls, output, REQUEST)
    rows = rows_in(output)
    assert rows["3.wav"]["problem"] == KILLED
    assert report.killed == [str(calls / "1" / "3.wav")]
    assert [rows[f"{number}.wav"]["problem"] for number in (0, 1, 2, 4, 5)] == [None] * 5
    # In a block, with as many as there are slots, and alone.
    inside = [[b for b in blocks if "3.wav" in b] for _, blocks in processes.rounds]
    assert [len(found) for found in inside] == [1, 1, 1]
    assert len(inside[1][0]) <= processes.slots
    assert inside[2] == [["3.wav"]]
    assert [stage for stage, _ in processes.rounds] == ["many", "few", "alone"]
    # Who heard it has it told; another run does not die of it again.
    processes.rounds.clear()
    run_batch(processes.make, calls, output, REQUEST)
    assert processes.rounds == []


def test_an_answer_that_comes_twice_is_written_once(
    calls: Path, output: str, processes: Processes
) -> None:
    processes.twice = True
    assert run_batch(processes.make, calls, output, REQUEST).progress.files == 6
    assert len(rows_in(output)) == 6


def test_a_round_that_breaks_off_goes_on_as_long_as_something_is_done(
    calls: Path, output: str, processes: Processes
) -> None:
    processes.breaks_at = 3
    with pytest.raises(Broken, match="the cluster is gone"):
        run_batch(processes.make, calls, output, REQUEST)
    # What is left was asked for again as it was, and not told as what kills processes.
    (_, first), (stage, second) = processes.rounds
    assert stage == "many"
    left = set(chain.from_iterable(first)) - set(processes.heard)
    assert set(chain.from_iterable(second)) == left
    assert len(rows_in(output)) == 3
    processes.breaks_at = None
    run_batch(processes.make, calls, output, REQUEST)
    assert {row["problem"] for row in rows_in(output).values()} == {None}


def test_a_run_that_is_stopped_keeps_what_it_has(
    calls: Path, output: str, processes: Processes
) -> None:
    def stop(progress: Progress) -> None:
        if progress.files == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(processes.make, calls, output, REQUEST, on_progress=stop)
    assert len(rows_in(output)) == 4
    report = run_batch(processes.make, calls, output, REQUEST)
    assert (report.survey.finished, report.progress.files) == (4, 2)
    assert len(rows_in(output)) == 6
    assert len(processes.heard) == 6


def test_only_so_many_hours(calls: Path, output: str, processes: Processes) -> None:
    limit = Run(limit_hours=3.5 / 3600)
    found = survey(calls, output, model="simple", run=limit)
    assert [Path(item.path).name for item in found.items] == ["0.wav", "2.wav"]  # 0.8 and 1.28 s
    assert found.hours * 3600 == pytest.approx(2.08)
    assert not Path(output).exists()
    report = run_batch(processes.make, calls, output, REQUEST, run=limit)
    assert report.progress.files == 2
    assert sorted(rows_in(output)) == ["0.wav", "2.wav"]
    assert survey(calls, output, model="simple", run=limit).finished == 2


def test_channels_one_by_one(
    speech: MakeSpeech, tmp_path: Path, output: str, processes: Processes
) -> None:
    speech(tmp_path / "two.wav", 1.0, 2)
    request = BatchRequest(REQUEST.settings, StreamOptions(channel="each"))
    run_batch(processes.make, tmp_path / "two.wav", output, request, ["jsonl", "srt"])
    with RowStore(output) as store:
        rows = list(store.rows())
    assert [(row["channel"], row["text"]) for row in rows] == [(0, "zero one"), (1, "zero one")]
    assert "[1] zero" in (Path(output) / "captions" / "two.wav.srt").read_text()
    assert run_batch(processes.make, tmp_path / "two.wav", output, request).progress.of == 0


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_name_that_is_not_utf8_is_heard_once(
    kind: str, speech: MakeSpeech, tmp_path: Path, output: str, processes: Processes
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of the extra fleet, is not installed")
    speech(tmp_path / "calls" / "a.wav")
    speech(tmp_path / "calls" / os.fsdecode(b"caf\xe9.wav"))
    for files in (2, 0):
        report = run_batch(processes.make, tmp_path / "calls", output, REQUEST, [kind, "srt"])
        assert report.progress.of == files
    assert len(rows_in(output)) == 2


def test_captions_do_not_replace_one_another(
    speech: MakeSpeech, tmp_path: Path, output: str, processes: Processes
) -> None:
    both = [speech(tmp_path / name / "a.wav") for name in ("x", "y")]
    with pytest.raises(InputError, match=r"would both be called a\.wav"):
        run_batch(processes.make, both, output, REQUEST, ["jsonl", "srt"])
    first = Run(limit_hours=1e-6)
    with pytest.raises(InputError, match=r"would both be called a\.wav"):
        run_batch(processes.make, both, output, REQUEST, ["jsonl", "srt"], first)
    run_batch(processes.make, both[:1], output, REQUEST, ["jsonl", "srt"])
    with pytest.raises(InputError, match=r"would both be called a\.wav"):
        run_batch(processes.make, both, output, REQUEST, ["jsonl", "srt"])  # the other is missing
    run_batch(processes.make, both, output, REQUEST)  # rows have paths


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", ["a.wav", os.fsdecode(b"caf\xe9.wav")])
def test_captions_do_not_replace_those_of_another_run(
    kind: str, name: str, speech: MakeSpeech, tmp_path: Path, output: str, processes: Processes
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of the extra fleet, is not installed")
    formats, captions = [kind, "srt"], Path(output) / "captions" / f"{name}.srt"
    for folder, seconds in (("x", 0.5), ("y", 2.0)):
        speech(tmp_path / folder / name, seconds)
    run_batch(processes.make, tmp_path / "x", output, REQUEST, formats)
    first = captions.read_text()
    other = BatchRequest(REQUEST.settings, StreamOptions(end_s=0.2))
    for source, request in (("y", REQUEST), ("x", other)):
        with pytest.raises(
            InputError, match=r"would be called .*\.wav, like those of .*x/.*, made by"
        ):
            run_batch(processes.make, tmp_path / source, output, request, formats)
        assert captions.read_text() == first
    assert len(processes.heard) == 1  # it is told before anything is heard

    # Rows have paths and options; and what is the same recording may have new captions.
    run_batch(processes.make, tmp_path / "y", output, REQUEST, [kind])
    run_batch(processes.make, tmp_path / "x", output, other, [kind])
    speech(tmp_path / "x" / name, 3.0)
    run_batch(processes.make, tmp_path / "x", output, REQUEST, formats)
    assert captions.read_text() != first


def test_captions_of_a_run_that_was_killed_before_its_rows_are_its_own(
    calls: Path, output: str, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "flush", lambda _: None)
        run_batch(processes.make, calls, output, REQUEST, ["jsonl", "srt"])
    assert rows_in(output) == {}
    assert run_batch(processes.make, calls, output, REQUEST, ["jsonl", "srt"]).progress.files == 6


def test_where_case_makes_no_other_file_captions_differ_in_more_than_that(
    speech: MakeSpeech, tmp_path: Path, output: str, processes: Processes
) -> None:
    formats = ["jsonl", "srt"]
    lower, upper = (speech(tmp_path / name) for name in ("x/caf\u00e9.wav", "y/CAFE\u0301.WAV"))
    run_batch(processes.make, [lower, upper], output + "2", REQUEST, formats)
    Path(output).mkdir()
    # As it is where names differ in more than case: one file is called .lock and .LOCK.
    (Path(output) / ".lock").touch()
    os.link(Path(output) / ".lock", Path(output) / ".LOCK")
    with pytest.raises(InputError, match="would both be called"):
        run_batch(processes.make, [lower, upper], output, REQUEST, formats)
    run_batch(processes.make, lower, output, REQUEST, formats)
    with pytest.raises(InputError, match="would be called"):
        run_batch(processes.make, upper, output, REQUEST, formats)


@pytest.mark.parametrize("formats", [["docx"], ["jsonl", "parquet"]])
def test_formats_are_checked(
    formats: list[str], calls: Path, output: str, processes: Processes
) -> None:
    with pytest.raises(InputError, match="format"):
        run_batch(processes.make, calls, output, REQUEST, formats)


@pytest.mark.parametrize("values", [{"actors": 0}, {"limit_hours": 0.0}])
def test_runs_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be"):
        Run(**values)


def test_without_ray_it_is_told_politely(
    calls: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[fleet\]'"):
        transcribe(calls, output, model="simple")


def test_ray_reports_to_nobody_before_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("import os; SEEN = os.environ['RAY_USAGE_STATS_ENABLED']\n")
    program = (
        "from kiku.fleet.quiet_ray import import_ray\n"
        "import sys; assert 'ray' not in sys.modules\n"
        "import os; os.environ['RAY_USAGE_STATS_ENABLED'] = '1'\n"
        "print(import_ray('a test').SEEN)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", "PATH": ""},
    )  # fmt: skip
    assert ran.stdout == "0\n"
