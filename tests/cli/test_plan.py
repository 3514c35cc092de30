"""`kiku plan`: what it accepts, and what it prints."""

import json
from collections.abc import Callable

import pytest

from kiku.measure import known, machine
from kiku.measure.machine import Machine
from tests.cli.conftest import Ran

Run = Callable[..., Ran]
KEYS = ("--kv-dtype", "float32")  # as that machine had them, before kiku-kernels
OTHER = ("--cpu", "--cores", 8, "--bandwidth-gb-s", 60, "--memory-gb", 64)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is one that was measured."""
    known = ("AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16")
    found = Machine("AMD EPYC", "x86_64", known, 2, 25_000_000_000)
    monkeypatch.setattr(machine, "this_machine", lambda: found)
    monkeypatch.setattr(machine, "read_bandwidth", lambda *_, **__: 36e9)


def test_a_gpu(run: Run) -> None:
    ran = run("plan", "--model", "1b", "--gpu", "h100")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "1b: weights bfloat16, keys and values bfloat16, codec float32"
    assert lines[1] == "on NVIDIA H100 SXM, 80 GB, read at 3,350 GB/s"
    rows = {line[:14].strip(): line.split()[-1] for line in lines if "  roofline" in line}
    assert rows.keys() >= {"live streams", "by memory", "by time", "at most"}
    assert "published: 400 live streams, Kyutai's Rust server" in ran.out
    assert "\nassumed\n  hardware: NVIDIA H100 datasheet" in ran.out
    assert "\nmachines" not in ran.out


def test_more_streams_than_one_process_feeds_are_told_with_their_processes(run: Run) -> None:
    ran = run("plan", "--gpu", "h200", "--streams", 700)
    told = [line for line in ran.out.splitlines() if "processes of kiku serve" in line]
    assert [line.split("  ")[0] for line in told] == ["live streams", "machines, live"]
    assert "in at least 5 processes" in told[0]  # for 1,021
    assert "in at least 3 processes" in told[1]
    assert "one process serves up to 253 streams" in ran.out
    few = run("plan", "--gpu", "l4", "--streams", 30)
    assert "processes of kiku serve" not in few.out


def test_every_figure_says_where_it_is_from(run: Run, here: None) -> None:
    ran = run("plan", "--cpu", "--model", "1b", *KEYS, "--streams", 5, "--price", 0.5)
    figures = ran.out.split("\n\n")[1].splitlines()
    assert all((" measured" in line) != (" roofline" in line) for line in figures)
    assert figures[0].split() == ["live", "streams", "2", "measured"]
    assert figures[1].split() == [
        "by",
        "memory",
        "89",
        *["roofline", "1.13", "GB,", "and", "239.7", "MB", "for", "each"],
    ]
    (need,) = (line for line in ran.out.splitlines() if line.startswith("machines"))
    assert need.split()[:4] == ["machines,", "live", "3", "measured"]
    assert need.endswith("72.0 machine hours a day, costing 36.00 a day")


def test_this_machine_may_be_unknown_to_the_benchmarks(
    run: Run, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda: Machine("Z80", "z80", (), 1, None))
    monkeypatch.setattr(machine, "read_bandwidth", lambda *_, **__: 8e9)
    ran = run("plan", "--cpu")
    assert ran.code == 0
    assert "on Z80, cores: 1, read at 8 GB/s" in ran.out
    assert "unknown" in ran.out
    assert "give --memory-gb" in ran.out
    assert "no live stream fits: a step of one stream takes" in ran.out
    assert "measured: 1, 2, 4, 6, 8, 10 live: p99 of a step 64.6, 65.6" in ran.out
    assert " ms, keys and values in float16" in ran.out


def test_a_row_that_was_noisy_is_told_so(
    run: Run, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {1: 79.0, 2: 36.7, 8: 92.7, 10: 71.5}
    given = {"what": "live", "model": "1b", "dtype": "int8", "kv": "float16", "machine": "noisy",
             "threads": 2, "date": "2026-11-29", "commit": "0"}  # fmt: skip
    rows = [{**given, "streams": n, "p99_ms": ms} for n, ms in times.items()]
    others = [row for row in known._rows() if row["what"] != "live"]
    monkeypatch.setattr(known, "_rows", lambda: [*others, *rows])
    ran = run("plan", "--cpu", "--model", "1b")
    assert "measured: 1, 2, 8, 10 live: p99 of a step 79.0, 36.7, 92.7, 71.5 ms" in ran.out
    assert "71.5 ms (noisy: 1 took longer than 2), keys and values in float16" in ran.out


def test_times_of_other_keys_are_said_to_be(
    run: Run, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [row for row in known._rows() if row["what"] == "sockets"]
    given = {"what": "live", "model": "1b", "dtype": "int8", "kv": "float16", "date": "2026-11-29",
             "commit": "0"}  # fmt: skip

    def measured(*times: tuple[int, float]) -> None:
        name = known.described(machine.this_machine())
        rows = [{**given, "machine": name, "streams": n, "p99_ms": ms} for n, ms in times]
        monkeypatch.setattr(known, "_rows", lambda: [*others, *rows])

    measured((1, 30.0), (2, 90.0))
    ran = run("plan", "--cpu", "--kv-dtype", "int8")
    assert "measured  p99 of a step up to 80 ms, keys in float16\n" in ran.out
    assert "measured  with 1, keys in float16\n" in ran.out
    assert "measured here had keys and values in float16; with int8 none was measured" in ran.out
    assert json.loads(run("plan", "--cpu", "--json").out)["timed_kv_dtype"] is None
    own = run("plan", "--cpu")
    assert "measured  p99 of a step up to 80 ms\n" in own.out
    assert "had keys and values in" not in own.out
    little = Machine("AMD EPYC", "x86_64", (), 2, 1_350_000_000)  # of the memory, for one stream
    monkeypatch.setattr(machine, "this_machine", lambda: little)
    measured((1, 30.0))
    ran = run("plan", "--cpu", "--kv-dtype", "int8")
    assert "roofline  p99 of a step up to 80 ms\n" in ran.out
    assert "measured  with 1, keys in float16\n" in ran.out


def test_another_processor(run: Run) -> None:
    ran = run("plan", *OTHER, "--dtype", "int4", "--hours-per-day", 1000)
    assert ran.code == 0, ran.err
    assert "on a processor, cores: 8, 64 GB, read at 60 GB/s" in ran.out
    assert "\nmachines, recordings" in ran.out


def test_json_has_all_of_it(run: Run) -> None:
    ran = run("plan", "--gpu", "l40s", "--streams", 1000, "--hours-per-day", 9, "--json")
    found = json.loads(ran.out)
    assert found["streams"] == {"value": found["by_time"]["value"], "basis": "roofline"}
    assert found["live_need"]["machines"] == -(-1000 // found["streams"]["value"])
    assert found["recordings_need"]["machines"] == 1
    assert found["published"][0]["published"]["streams"] == 64
    assert found["options"]["kv_dtype"] == "bfloat16"


def test_choices_reach_the_plan(run: Run) -> None:
    options = {
        "--dtype": "float32", "--kv-dtype": "fp8", "--p99-ms": 40.0, "--efficiency": 0.25,
        "--memory-share": 0.5,
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    found = json.loads(run("plan", "--gpu", "l4", *words, "--json").out)
    assert list(found["options"].values()) == list(options.values())


def test_an_unknown_gpu_is_known_by_its_numbers(run: Run) -> None:
    numbers = ("--memory-gb", 192, "--bandwidth-gb-s", 5300, "--tflops", 1307)
    assert "on mi300x, 192 GB, read at 5,300 GB/s" in run("plan", "--gpu", "mi300x", *numbers).out
    assert "on a GPU, 192 GB" in run("plan", *numbers).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to plan for: give --gpu NAME (b200, "),
        (("--gpu", "h1000"), "no numbers for a GPU 'h1000'; choose one of b200, h200, h100"),
        (("--gpu", "x", "--memory-gb", 1), "(missing: --bandwidth-gb-s, --tflops)"),
        (("--gpu", "h100", "--cpu"), "--cpu and --gpu cannot be used together"),
        ((*OTHER, "--tflops", 1), "--cpu and --tflops cannot be used together"),
        (("--gpu", "h100", "--cores", 4), "a GPU and --cores cannot be used together"),
        (("--cpu", "--cores", 4), "needs both --cores and --bandwidth-gb-s"),
        (("--cpu", "--memory-gb", 4), "needs both --cores and --bandwidth-gb-s"),
        ((*OTHER[:2], 0, *OTHER[3:]), "--cores must be from 1 to 10,000,000, not 0"),
        (("--gpu", "h100", "--bandwidth-gb-s", "nan"), "--bandwidth-gb-s must be from 1e-06 to"),
        (("--gpu", "h100", "--memory-gb", "-1"), "--memory-gb must be from 1e-06 to"),
        (("--gpu", "h100", "--tflops", "inf"), "--tflops must be from 1e-06 to"),
        (("--gpu", "h100", "--p99-ms", "100"), "--p99-ms must be at most 80, the length of a"),
        (("--gpu", "h100", "--p99-ms", "nan"), "--p99-ms must be from 1e-06 to"),
        (("--gpu", "h100", "--efficiency", "1.5"), "--efficiency must be from 1e-06 to 1,"),
        (("--gpu", "h100", "--memory-share", "0"), "--memory-share must be from 1e-06 to"),
        (("--gpu", "h100", "--streams", "0"), "--streams must be from 1 to"),
        (("--gpu", "h100", "--streams", "9" * 300), "--streams must be from 1 to"),
        (("--gpu", "h100", "--hours-per-day", "1e99"), "--hours-per-day must be from 1e-06 to"),
        (
            ("--gpu", "h100", "--price", "3"),
            "--price needs something to be paid for: give --streams or --hours",
        ),
        (("--gpu", "h100", "--price", "-3", "--streams", 1), "--price must be from 0 to"),
        (("--gpu", "h100", "--dtype", "fp4"), "--dtype must be one of float32, bfloat16"),
        (("--gpu", "h100", "--kv-dtype", "int4"), "--kv-dtype must be one of float32"),
    ],
)
def test_what_makes_no_sense_is_told(run: Run, arguments: tuple[object, ...], says: str) -> None:
    ran = run("plan", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_a_model_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_bandwidth", None)  # not read in vain
    ran = run("plan", "--cpu", "--model", "nothing")
    assert ran.code == 1
    assert "'nothing' is neither an existing folder nor a repository" in ran.err


def test_where_nothing_fits_it_says_why(run: Run) -> None:
    ran = run("plan", "--model", "2.6b", "--gpu", "l4", "--memory-gb", 4, "--streams", 3)
    assert ran.code == 0
    assert "live streams  0 " in ran.out
    assert "no live stream fits: the weights take 5.46 GB, but 0.9 of the memory is" in ran.out
    assert "\nmachines" not in ran.out
