"""What `kiku plan` tells as measured is what the benchmarks found."""

import importlib
import json
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kiku.checkpoint import DEMO, find, read_config
from kiku.checkpoint.model_shapes import SHAPES
from kiku.graph import precision_of_weights
from kiku.measure.fits import Fits, PlanOptions
from kiku.measure.hardware import cpu
from kiku.measure.known import Measured, described, measured, socket_us
from kiku.measure.machine import this_machine
from kiku.measure.roofline import step_ms
from tests.conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def plan_data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("plan_data")


def test_the_data_in_the_package_are_those_of_the_results(plan_data: ModuleType) -> None:
    rows = plan_data.collected(plan_data.RESULTS)
    assert plan_data.DATA.read_text(encoding="utf-8") == plan_data.text(rows), (
        "run  python benchmarks/plan_data.py"
    )
    kinds = {(row["what"], row["model"]) for row in rows}
    assert {("live", "1b"), ("live", "2.6b"), ("memory", "1b"), ("file", "demo")} <= kinds


Row = dict[str, Any]

STAMP = {"machine": "m", "threads": 2, "date": "2026-02-02", "commit": "c"}
KERNELS: Row = {"versions": {"kiku-kernels": "0"}}


@pytest.fixture
def collected(plan_data: ModuleType, tmp_path: Path) -> Callable[..., list[Row]]:
    """What becomes of these rows of results."""

    def collect(
        peers: Sequence[Row] = (), live: Sequence[Row] = (), serve: Sequence[Row] = ()
    ) -> list[Row]:
        for name, rows in (("peers", peers), ("live", live), ("serve", serve)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        return plan_data.collected(tmp_path)

    return collect


def streams(p99: float, count: int = 200, **values: Any) -> Row:
    return {
        **STAMP, "what": "streams", "shape": "1b", "precision": "int8", "window": "full",
        "streams": 2, "times": {"count": count, "p99_ms": p99}, **values,
    }  # fmt: skip


def memory(per_slot: int, **values: Any) -> Row:
    return {
        **STAMP, "what": "memory", "shape": "1b", "precision": "int8", "slots": 4,
        "after_a_minute": 1500, "per_slot": per_slot, **values,
    }  # fmt: skip


def test_the_last_day_with_full_windows_counts(collected: Callable[..., list[Row]]) -> None:
    rows = [
        streams(2.0), streams(1.0, date="2026-01-01"),
        streams(3.0, window="empty", date="2026-03-03"), streams(4.0, 5, date="2026-04-04"),
    ]  # fmt: skip
    (found,) = collected(rows)
    assert (found["p99_ms"], found["date"], found["streams"]) == (2.0, "2026-02-02", 2)
    assert found["rows"] == 1


def test_of_a_days_rows_the_middle_one_counts_whichever_was_the_last(
    collected: Callable[..., list[Row]],
) -> None:
    for times in permutations((30.0, 36.0, 79.0)):
        (found,) = collected([streams(p99, commit=f"c{p99}") for p99 in times])
        assert (found["p99_ms"], found["commit"], found["rows"]) == (36.0, "c36.0", 3)
    # A frame of `live.py` is of the same kind.
    live = {**STAMP, "what": "streams", "rows": [
        {"model": "1b", "streams": 2, "window": "full", "step": {"count": 200, "p99_ms": 40.0}},
        {"model": "1b", "streams": 2, "window": "kept", "step": {"count": 200, "p99_ms": 1.0}},
    ]}  # fmt: skip
    (found,) = collected([streams(30.0), streams(79.0)], [live])
    assert (found["p99_ms"], found["rows"]) == (40.0, 3)


def test_of_two_in_the_middle_that_counts_which_promises_less(
    collected: Callable[..., list[Row]],
) -> None:
    file = {**STAMP, "what": "file", "shape": "demo", "precision": "float32"}
    sockets = {**STAMP, "what": "serve"}
    for first, second in ((1, 2), (2, 1)):
        found = collected(
            [
                streams(first), streams(second), memory(100 * first), memory(100 * second),
                {**file, "speed": first}, {**file, "speed": second},
            ],
            serve=[{**sockets, "sockets": [{"us_a_frame": us}]} for us in (first, second)],
        )  # fmt: skip
        kinds = {row["what"]: row for row in found}
        assert [row["rows"] for row in found] == [2, 2, 2, 2]
        assert kinds["live"]["p99_ms"] == 2
        assert (kinds["memory"]["stream_bytes"], kinds["memory"]["fixed_bytes"]) == (200, 1300)
        assert kinds["file"]["speed"] == 1
        assert kinds["sockets"]["us_a_frame"] == 2
    best, good, bad, worst = (streams(p99) for p99 in (1, 2, 3, 4))
    (found,) = collected([worst, best, bad, good])
    assert found["p99_ms"] == 3


def test_keys_of_8_bits_are_a_kind_of_their_own(collected: Callable[..., list[Row]]) -> None:
    names = ("int8", "int8_kv8", "int4_kv8", "float32")
    rows = [streams(9.0, precision=name, **KERNELS) for name in names]
    rows += [memory(60, precision="int8_kv8", **KERNELS)]
    live = {**STAMP, **KERNELS, "what": "streams", "rows": [
        {"model": "1b", "precision": "int8_kv8", "streams": 10, "window": "full",
         "step": {"count": 200, "p99_ms": 50.0}},
    ]}  # fmt: skip
    found = collected(rows, [live])
    assert {(row["what"], row["dtype"], row["kv"], row.get("streams")) for row in found} == {
        ("live", "int8", "float16", 2), ("live", "int8", "int8", 2), ("live", "int4", "int8", 2),
        ("live", "float32", "float32", 2), ("live", "int8", "int8", 10),
        ("memory", "int8", "int8", None),
    }  # fmt: skip
    without = collected([streams(9.0, precision=name) for name in ("int8", "int8_kv8")])
    assert [(row["dtype"], row["kv"], row["rows"]) for row in without] == [("int8", "float32", 2)]


def test_memory_of_too_few_slots_and_what_failed_do_not_count(
    collected: Callable[..., list[Row]],
) -> None:
    few = memory(9, date="2026-03-03")
    del few["slots"]
    failed = streams(1.0, what="live", date="2026-03-03")
    del failed["times"]
    (found,) = collected([memory(200), few, failed])
    assert (found["stream_bytes"], found["fixed_bytes"]) == (200, 1300)


def test_what_was_measured_is_possible() -> None:
    """Every figure, within bounds of the model's shape and of machines with two cores."""
    shapes = {**SHAPES, DEMO: read_config(find(DEMO, weights=False))}
    fast, slow = cpu(2, 80), cpu(2, 15)
    for row in json.loads((ROOT / "src/kiku/measure/measured.json").read_text(encoding="utf-8")):
        if row["what"] == "sockets":
            assert 10 < row["us_a_frame"] < 1000, row
            continue
        config = shapes[row["model"]]
        parts = Fits(config, fast, PlanOptions(row["dtype"], row["kv"])).parts
        if row["what"] == "live":
            least, usual = (step_ms(parts, hardware, row["streams"]) for hardware in (fast, slow))
            assert least < row["p99_ms"] < 8 * usual, row
        elif row["what"] == "file":
            computing = sum(count / fast.rate(dtype) for part in parts for dtype, count in part.ops)
            assert 1 < row["speed"] < 1 / (computing * config.frame_rate), row
        else:
            assert row["what"] == "memory"
            keys, most = (sum(getattr(part, name) for part in parts)
                          for name in ("stream_bytes", "kept_stream_bytes"))  # fmt: skip
            assert keys < row["stream_bytes"] < 1.1 * most, row
            weights = sum(part.kept_bytes for part in parts)
            assert weights < row["fixed_bytes"] < weights + 5e8, row


def test_machines_have_the_names_that_benchmarks_give_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    assert described(this_machine()) == importlib.import_module("machine").stamp()["machine"]


def test_a_row_becomes_streams_and_memory() -> None:
    kept = [one for one in measured("1b", "int8") if one.kv_dtype == "float16"]
    assert len({one.machine for one in kept}) == len(kept) >= 2
    (one,) = [one for one in measured("1b", "int8") if one.kv_dtype == "float32"]
    assert [streams for streams, _ in one.live] == [1, 2, 4, 6, 8, 10]
    assert (one.streams_within(80), one.exceeded(80)) == (2, True)
    assert (one.streams_within(1e6), one.exceeded(1e6)) == (10, False)
    assert (one.streams_within(1), one.exceeded(1)) == (0, True)
    assert one.noise is None  # but for a hundredth
    assert one.fixed_bytes is one.stream_bytes is None  # that row was of two slots
    (known,) = [one for one in kept if one.stream_bytes is not None]
    assert (known.fixed_bytes or 0) > 1e9 > (known.stream_bytes or 0) > 1e8
    assert one.speed is None
    assert measured("1b", "fp8") == measured(None, "int8") == ()
    assert all(10 < us < 1000 for us in socket_us().values())


def test_more_streams_that_were_within_do_not_make_up_for_fewer_that_were_not() -> None:
    one = Measured("m", live=((1, 79.0), (2, 36.7), (6, 58.1), (8, 92.7), (10, 71.5)))
    assert (one.streams_within(80), one.exceeded(80)) == (6, True)
    assert (one.streams_within(75), one.exceeded(75)) == (0, True)
    assert (one.streams_within(100), one.exceeded(100)) == (10, False)
    assert one.noise == (1, 2)
    assert Measured("m", live=((1, 10.0), (2, 20.0), (4, 19.0))).noise is None


def test_the_share_of_the_roofline_that_is_told_is_the_one_that_was_reached(
    plan_data: ModuleType,
) -> None:
    """Of the latest run of each kind on each machine, with the bandwidth measured in it."""
    lines = (BENCHMARKS / "results/peers.jsonl").read_text().splitlines()
    shares: dict[str, dict[tuple[Any, ...], float]] = {}
    for row in map(json.loads, lines):
        if row["what"] not in ("live", "streams", "big") or row["window"] != "full":
            continue
        config, hardware = SHAPES[row["shape"]], cpu(2, row["bandwidth_gb_s"])
        options = PlanOptions(
            precision_of_weights(row["precision"]), plan_data.keys_of(row, row["precision"])
        )
        parts = Fits(config, hardware, options).parts
        share = step_ms(parts, hardware, row["streams"]) / row["times"]["p99_ms"]
        if "kiku-kernels" in row["versions"]:
            kind = row["shape"], row["precision"], row["streams"], row["what"]
            shares.setdefault(row["machine"], {})[kind] = share
    # One p99 of 200 steps is two standstills.
    usual = {machine: sorted(each.values())[1:] for machine, each in shares.items()}
    every = sorted(share for each in usual.values() for share in each)
    assert (round(every[0], 1), round(every[-1], 1)) == (0.4, 0.8)
    # What is assumed is a little less than what is usual on the machine that reaches least.
    least = min(each[len(each) // 2] for each in usual.values())
    assert 0 <= least - PlanOptions().efficiency < 0.15
