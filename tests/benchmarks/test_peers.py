"""What becomes of rows of results; and, `heavy`, that the whole run works at a tiny shape."""

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kiku.engine.kernels import Kernels
from kiku.measure.times import Times
from tests.conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("report")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers")


def row(what: str, **values: Any) -> dict[str, Any]:
    return {
        "what": what, "run": "r", "date": "2026-11-23", "commit": "c", "machine": "m",
        "versions": {"kiku": "0.1.0"}, "threads": 2, "bandwidth_gb_s": 40.0, "shape": "1b",
        "precision": "int8", **values,
    }  # fmt: skip


def live(precision: str, window: str, ms: float, peer: str, **theirs: float) -> dict[str, Any]:
    return row(
        "live", precision=precision, window=window, streams=1, peer_precision=peer,
        ms_per_frame={"kiku": ms, **theirs}, times=Times.of([ms / 1000]).to_dict(),
        **{f"ratio_to_{who}": round(t / ms, 2) for who, t in theirs.items()},
        codec_ms=8.0, decoder_ms=ms - 8, limit={"ms": 20.0}, share_of_limit=0.8,
        peers={
            f"{who} {peer}": {"step": Times.of([t / 1000]).to_dict(), "codec": 9.0, "decoder": 90.0}
            for who, t in theirs.items()
        },
        reasons={},
    )  # fmt: skip


def streams(what: str, count: int, p99_s: float, precision: str = "int8") -> dict[str, Any]:
    times = Times.of([p99_s]).to_dict()
    return row(what, streams=count, window="full", precision=precision, times=times)


ROWS = [
    live("int8", "full", 99.0, "bfloat16", transformers=99.0, moshi=99.0),  # an older one
    live("int8", "empty", 30.0, "bfloat16", transformers=150.0, moshi=330.0),
    live("int8", "full", 32.0, "bfloat16", transformers=160.0, moshi=320.0),
    live("int4", "full", 20.0, "bfloat16", transformers=160.0, moshi=320.0),
    live("int8", "full", 30.0, "float32", transformers=176.0, moshi=240.0),  # not int4's turn
    streams("streams", 1, 0.03), streams("streams", 6, 0.08), streams("streams", 8, 0.081),
    streams("big", 1, 0.09), streams("big", 1, 0.06, "int4"),
    row("memory", after_load=1_100_000_000, after_a_minute=1_600_000_000, per_slot=200_000_000,
        private=700_000_000),
    row("start", loaded_s=1.0, first_tokens_s=1.5, first_word_s=None),
    row("soak", shape="demo", hours=3.0, position=135_000, change=0.08,
        resident_after_a_minute=None, resident_at_the_end=None,
        at_the_end=Times.of([0.002]).to_dict(), after_a_minute=Times.of([0.002]).to_dict()),
]  # fmt: skip


def test_targets_take_the_worst_of_the_latest_rows(report: ModuleType) -> None:
    found = report.Rows(ROWS, "1b")
    said = {target.text: target.measured(found) for target in report.TARGETS}
    assert said["1B int8, one live stream: times as fast as transformers"] == 5.0
    assert said["1B int8, one live stream: times as fast as moshi"] == 8.0
    assert said["1B int4 against int8"] == 1.6
    assert said["2.6B, one live stream, p99 of a step"] == 60
    assert said["1B int8, live streams at once with p99 up to 80 ms"] == 6
    assert said["1B int8, one stream, private after a minute"] == 0.7
    assert said["1B int8, from the command to the first text"] == 1.5
    assert said["a step after three hours against after a minute"] == 8
    assert said["1B int8, decoder, in blocks of 16"] is None


@pytest.mark.parametrize(
    ("p99_s", "fit"), [((0.03, 0.07, 0.09, 0.07), 6), ((0.09, 0.07, 0.07, 0.07), 0)]
)
def test_more_streams_that_were_in_time_do_not_make_up_for_fewer_that_were_not(
    report: ModuleType, p99_s: tuple[float, ...], fit: int
) -> None:
    rows = [streams("streams", n, p99) for n, p99 in zip((1, 6, 8, 10), p99_s, strict=True)]
    said = {target.text: target.measured(report.Rows(rows, "1b")) for target in report.TARGETS}
    assert said["1B int8, live streams at once with p99 up to 80 ms"] == fit


def test_keys_of_8_bits_are_told_and_are_no_target(report: ModuleType) -> None:
    more = [streams("streams", 6, 0.09, "int8_kv8"), row("memory", precision="int8_kv8",
            after_load=1, after_a_minute=2, per_slot=69_000_000, private=900_000_000)]  # fmt: skip
    found = report.Rows([*ROWS, *more], "1b")
    said = {target.text: target.measured(found) for target in report.TARGETS}
    assert said["1B int8, live streams at once with p99 up to 80 ms"] == 6
    assert said["1B int8, one stream, private after a minute"] == 0.7
    text = report.table([*ROWS, *more])
    assert "| 6 | 1b, int8_kv8 | full | 90.0 |" in text
    assert "Memory, 1b int8_kv8:" in text


def test_the_page_says_what_the_results_do(report: ModuleType) -> None:
    rows = report.read(BENCHMARKS / "results/peers.jsonl")
    targets = report.table(rows).split("\n\n")[0]
    assert targets in (ROOT / "docs/speed.md").read_text(encoding="utf-8")


def test_the_memorys_speed_is_that_of_rows_with_times(report: ModuleType) -> None:
    bytes_alone = row("memory", after_load=1, after_a_minute=2, per_slot=3, bandwidth_gb_s=7.0)
    assert "memory read at 40 to 40 GB/s" in report.table([ROWS[0], bytes_alone])
    assert "memory read at 7 to 7 GB/s" in report.table([bytes_alone])


def test_peers_that_were_measured_one_after_the_other_all_stand_in_the_table(
    report: ModuleType,
) -> None:
    older = live("int8", "full", 30.0, "float32", transformers=176.0, moshi=240.0)
    parts = [
        live("int8", "full", 30.0, "float32", transformers=170.0),
        live("int8", "full", 31.0, "float32", moshi=250.0),
    ]
    text = report.table([older, *({**part, "run": "later"} for part in parts)])
    assert "| transformers, float32 | full | 170.0 |" in text
    assert "| moshi, float32 | full | 250.0 |" in text
    assert "240.0" not in text
    assert "176.0" not in text


def test_the_table_says_which_targets_are_met(report: ModuleType) -> None:
    text = report.table(ROWS)
    assert "| 1B int8, one stream, private after a minute | ≤ 0.8 GB |  | 0.7 GB | yes |" in text
    assert "1.60 GB after a minute, 0.70 of them private, 200 MB for another stream" in text
    assert (
        "| a step after three hours against after a minute | ≤ 5 % slower |  | 8 % slower | no |"
        in text
    )
    assert "| not measured |  |" in text
    assert "| moshi, float32 | full | 240.0 |" in text


def test_the_page_keeps_what_stands_around_the_table(report: ModuleType) -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.filled(page, "new") == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="the page has no"):
        report.filled("nothing", "new")
    report.filled((ROOT / "docs" / "speed.md").read_text(), "new")


def test_everything_is_written(report: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "peers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    (tmp_path / "speed.md").write_text(f"{report.BEGIN}{report.END}")
    report.write(tmp_path, tmp_path)
    assert (tmp_path / "peers.md").read_text().startswith("| | target |")
    assert "![" in (tmp_path / "speed.md").read_text()
    drawn = (tmp_path / "speed.svg").read_bytes()
    report.write(tmp_path, tmp_path)
    assert (tmp_path / "speed.svg").read_bytes() == drawn


def test_what_memory_cannot_hold_at_once_is_measured_in_parts(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = peers.GROUPS[1]
    monkeypatch.setattr(peers, "_available", lambda: 64e9)
    assert list(peers._that_fit(group, "1b")) == [list(group)]
    monkeypatch.setattr(peers, "_available", lambda: 9e9)
    assert list(peers._that_fit(group, "1b")) == [[group[0], peer] for peer in group[1:]]
    assert list(peers._that_fit([], "1b")) == []


def test_keys_of_8_bits_take_no_more_memory_than_others(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = next(peers.groups(["int8_kv8"]))
    monkeypatch.setattr(peers, "_available", lambda: 64e9)
    assert list(peers._that_fit(group, "1b")) == [list(group)]
    assert [peers._bytes(name) for name in ("int8_kv8", "int4_kv8")] == [1.2, 0.8]


def test_further_precisions_have_their_turns_beside_the_usual_ones(peers: ModuleType) -> None:
    assert tuple(peers.groups([])) == peers.GROUPS
    first, *others = peers.groups(["int8_kv8", "int4"])
    usual = peers.GROUPS[0]
    assert first == (*usual[:2], ("kiku", "int8_kv8"), *usual[2:])
    assert others == list(peers.GROUPS[1:])


def test_further_precisions_are_measured_live(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[tuple[str, str]]] = []
    monkeypatch.setattr(peers, "_available", lambda: 64e9)
    monkeypatch.setattr(peers, "_live_group", lambda *given: measured.append(given[-1]))
    run = Noted("int8_kv8")
    run.args.peers = ["kiku"]
    peers.live(run)
    names = [[precision for _, precision in members] for members in measured]
    assert names == [["int8", "int4", "int8_kv8"], ["int8", "float32"]]


class Noted:
    """A run that measures nothing, and notes what was asked."""

    def __init__(self, *also: str) -> None:
        self.args = Namespace(shape="1b", streams=[1, 6], also=also)
        self.threads = 1
        self.asked: list[tuple[str, list[int]]] = []
        self.added: list[tuple[str, str]] = []

    def folder(self, shape: str, precision: str) -> str:
        return f"{shape}-{precision}"

    def streams_part(self, folder: str, streams: list[int]) -> list[dict[str, Any]]:
        self.asked.append((folder, streams))
        row = {"step": Times.of([0.03]).to_dict(), "codec": None, "decoder": None}
        return [{**row, "streams": n, "past": 0, "standstills": {}} for n in streams]

    def add(self, what: str, **values: Any) -> None:
        self.added.append((what, values["precision"]))


def test_as_many_streams_in_each_precision_follow_one_another(peers: ModuleType) -> None:
    run = Noted("int8_kv8", "int8")
    peers.streams(run)
    assert run.asked == [
        ("1b-int8", [1]), ("1b-int8_kv8", [1]), ("1b-int8", [6]), ("1b-int8_kv8", [6]),
    ]  # fmt: skip
    assert run.added == [("streams", "int8"), ("streams", "int8_kv8")] * 2


def test_the_big_model_and_memory_are_measured_in_further_precisions(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers.subprocesses, "memory", lambda *_, **__: Namespace(to_dict=dict))
    run = Noted("int4_kv8")
    peers.big(run)
    peers.memory(run)
    names = ("int8", "int4", "int4_kv8")
    assert run.added == [(what, name) for what in ("big", "memory") for name in names]


@pytest.mark.parametrize(
    ("also", "library", "says"),
    [
        ("int8,int7", "here", "there is no precision int7"),
        ("int8_kv8", None, "keys of 8 bits need kiku-kernels: it is off"),
        ("int8_kv8,int4_kv8", "here", None),
        ("int4", None, None),
    ],
)
def test_precisions_that_cannot_be_are_told(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    also: str, library: str | None, says: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(peers, "kernels", lambda: Kernels(library, "", "it is off"))
    monkeypatch.setattr(sys, "argv", ["peers.py", "--also", also])
    if says is None:
        assert peers._arguments().also == also.split(",")
        return
    with pytest.raises(SystemExit):
        peers._arguments()
    assert says in capsys.readouterr().err


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_whole_run_works_at_a_tiny_shape(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    (docs / "speed.md").write_text((ROOT / "docs" / "speed.md").read_text())
    command = [
        sys.executable, str(BENCHMARKS / "peers.py"), "--shape", "tiny", "--frames", "3",
        "--streams", "1,2", "--threads", "1", "--out", str(results), "--docs", str(docs),
        "--also", "int8_kv8",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (results / "peers.jsonl").read_text().splitlines()]
    assert {one["what"] for one in rows} == {
        "live", "streams", "block", "big", "file", "product", "memory", "start", "soak",
    }  # fmt: skip
    for one in rows:
        if one["what"] == "live":
            assert all(one["ms_per_frame"].values()), one["reasons"]
