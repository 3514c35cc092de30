"""How many streams fit, and what is said of it."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from itertools import product
from pathlib import Path

import pytest

from kiku.checkpoint import KNOWN_REPOS, find
from kiku.checkpoint.model_shapes import SHAPES
from kiku.converted import convert
from kiku.engine.gpu.rings import RING_DTYPES
from kiku.errors import CheckpointError, InputError
from kiku.measure import known
from kiku.measure.fits import (
    DTYPES,
    ENOUGH,
    Fits,
    PlanOptions,
)
from kiku.measure.hardware import GPUS, Hardware, cpu, gpu
from kiku.measure.plan import Plan, Wanted, model_of, plan
from kiku.measure.roofline import KV_BITS, step_ms
from tests.checkpoint.models import write_native_folder

H100 = GPUS["h100"]
EPYC = "AMD EPYC (AVX2, AVX-512, AVX-512 VNNI, AVX-512 BF16), 2 cores, 25 GB"
ZEN5 = EPYC.replace("AVX-512,", "AVX-512, AVX-VNNI,")
HERE = cpu(2, 36.4, memory_gb=25)  # the machine of that name
KEYS = PlanOptions(kv_dtype="float32")  # as it had them, before kiku-kernels


def counts(plans: Sequence[Plan]) -> list[float]:
    return [one.streams.value for one in plans]


@pytest.mark.parametrize("said", known.PUBLISHED, ids=lambda said: f"{said.model}-{said.gpu}")
def test_nobody_published_more_than_what_is_possible(said: known.PublishedStreams) -> None:
    found = plan(said.model, GPUS[said.gpu])
    assert found.at_most >= said.streams
    (beside,) = found.published
    assert beside.published == said
    assert 0.1 < beside.share < 1


def test_the_share_that_others_reach_is_the_one_that_is_told() -> None:
    shares = [plan(said.model, GPUS[said.gpu]).published[0].share for said in known.PUBLISHED]
    assert (round(min(shares), 1), round(max(shares), 1)) == (0.2, 0.4)
    assert "comes to 0.2 to 0.4" in "\n".join(plan("1b", H100).assumptions)
    assert "the benchmarks reach 0.4 to 0.8" in "\n".join(plan("1b", HERE).assumptions)


def test_keys_of_16_bits_are_said_to_want_the_kernels() -> None:
    def says(hardware: Hardware, options: PlanOptions | None = None) -> bool:
        return "as kiku-kernels keep them" in "\n".join(
            plan("1b", hardware, options or PlanOptions()).assumptions
        )

    assert says(HERE)
    assert not says(HERE, KEYS)
    assert not says(HERE, PlanOptions("float32"))
    assert not says(H100)


def test_what_is_published_stands_beside_its_own_model_and_gpu_only() -> None:
    assert plan("1b", GPUS["h200"]).published == ()
    assert plan("demo", H100).published == ()
    (said,) = plan("kyutai/stt-1b-en_fr-candle", H100).published
    assert said.published.streams == 400


def test_the_smaller_of_memory_and_time_counts() -> None:
    roomy = plan("1b", gpu("h100", memory_gb=10_000))
    assert roomy.by_memory is not None
    assert roomy.streams == roomy.by_time
    assert roomy.by_time.value < roomy.by_memory.value
    usual = plan("1b", H100)
    assert usual.streams == usual.by_memory
    assert usual.streams.value * usual.stream_bytes.value + usual.fixed_bytes.value <= 72e9
    assert usual.at_most == usual.by_memory.value
    assert roomy.by_time.value < roomy.at_most < roomy.by_memory.value


def test_a_step_within_the_budget_is_the_rooflines_divided_by_the_efficiency() -> None:
    fast = gpu("h100", memory_gb=10_000)
    for efficiency in (1.0, 0.5, 0.25):
        found = plan("1b", fast, PlanOptions(efficiency=efficiency, p99_ms=20))
        assert found.step_ms is not None
        assert 19 < found.step_ms.value <= 20
    few, more, most = counts([plan("1b", fast, PlanOptions(efficiency=e)) for e in (0.1, 0.5, 1)])
    assert few < more < most


def test_fewer_bits_and_more_memory_never_hold_fewer_streams() -> None:
    def kv(*names: str) -> list[float]:
        return counts([plan("2.6b", H100, PlanOptions(kv_dtype=name)) for name in names])

    found = kv("float32", "bfloat16", "float16", "fp8")
    assert found == sorted(found)
    few, more = counts([plan("2.6b", H100, PlanOptions(dtype=name)) for name in DTYPES[:2]])
    assert few < more
    big = cpu(96, 500, memory_gb=128)
    weights = counts([plan("2.6b", big, PlanOptions(dtype=name)) for name in DTYPES[2:4]])
    assert weights == sorted(weights)
    sizes = counts([plan("1b", gpu("l4", memory_gb=size)) for size in (1, 8, 16, 24, 48, 96)])
    assert sizes == sorted(sizes)
    shares = counts([plan("1b", H100, PlanOptions(memory_share=share)) for share in (0.1, 0.5, 1)])
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize(
    ("hardware", "options", "says"),
    [
        (gpu("l4", memory_gb=4), PlanOptions(), "weights take 5.46 GB, but 0.9 of the memory is 3"),
        (gpu("l4", memory_gb=6.2), PlanOptions(), "a stream 192.0 MB, but 0.9 of the memory is 5"),
        (gpu("l4", memory_gb=6.8), PlanOptions(), "a stream 192.0 MB, and computing, a spare slot"),
        (gpu("l4", bandwidth_gb_s=20), PlanOptions(), r"one stream takes 5\d\d.* weights"),
        (HERE, PlanOptions(p99_ms=1), "may take at most 1; reading the weights alone takes"),
    ],
)
def test_where_nothing_fits_it_says_what_is_too_big(
    hardware: Hardware, options: PlanOptions, says: str
) -> None:
    found = plan("2.6b", hardware, options, Wanted(streams=10))
    assert found.streams.value == 0
    assert found.problem is not None
    assert re.search(says, found.problem), found.problem
    assert found.step_ms is None
    assert found.live_need is None


def test_a_machine_whose_memory_is_too_small_takes_no_recordings_either() -> None:
    found = plan("2.6b", gpu("l4", memory_gb=4), wanted=Wanted(hours_per_day=10))
    assert (found.recordings, found.recordings_at_once, found.recordings_need) == (None, 0, None)
    slow = plan("2.6b", gpu("l4", bandwidth_gb_s=20), wanted=Wanted(hours_per_day=10))
    assert slow.streams.value == 0
    assert slow.recordings_need is not None  # they have time


def test_machines_are_counted() -> None:
    usual = plan("1b", H100)
    each = int(usual.streams.value)
    for streams, machines in ((1, 1), (each, 1), (each + 1, 2), (10 * each, 10)):
        need = plan("1b", H100, wanted=Wanted(streams=streams, price=2.5)).live_need
        assert need is not None
        assert (need.machines, need.basis) == (machines, "roofline")
        assert need.cost_per_day == machines * 24 * 2.5
    two = plan("1b", H100, wanted=Wanted(streams=each + 1)).live_need
    assert two is not None
    assert two.cost_per_day is None
    half = -(-(each + 1) // 2)
    assert two.memory_bytes_each == usual.fixed_bytes.value + half * usual.stream_bytes.value


def test_recordings_are_counted_by_how_fast_they_go() -> None:
    found = plan("1b", H100, wanted=Wanted(hours_per_day=100_000, price=2))
    speed, need = found.recordings, found.recordings_need
    assert speed is not None
    assert need is not None
    assert need.machine_hours_per_day == pytest.approx(100_000 / speed.value)
    assert need.machines == -(-need.machine_hours_per_day // 24) > 1
    assert need.cost_per_day == 2 * need.machine_hours_per_day


def test_each_process_of_the_server_feeds_so_many_streams() -> None:
    one = known.streams_a_process(12.5)
    slowest = max(known.socket_us().values())
    assert one * 12.5 * slowest <= 1e6 < (one + 1) * 12.5 * slowest
    assert known.streams_a_process(1e9) == 1
    found = plan("1b", gpu("h200"), wanted=Wanted(streams=one + 1, hours_per_day=1))
    assert found.processes == -(-int(found.streams.value) // one) > 1
    assert found.live_need is not None
    assert found.recordings_need is not None
    assert (found.live_need.processes_each, found.recordings_need.processes_each) == (2, 1)
    none = plan("2.6b", gpu("l4", memory_gb=5))
    assert (none.streams.value, none.processes) == (0, 0)


def test_as_many_recordings_at_once_as_bring_something() -> None:
    found = plan("1b", H100)
    assert found.by_memory is not None
    assert found.recordings is not None
    assert 1 < found.recordings_at_once < found.by_memory.value
    parts = Fits(SHAPES["1b"], H100, found.options).parts
    full = found.by_memory.value * 80 / (step_ms(parts, H100, int(found.by_memory.value)) / 0.5)
    half = found.recordings_at_once // 2 * 80
    half /= step_ms(parts, H100, found.recordings_at_once // 2) / 0.5
    assert half < ENOUGH * full <= found.recordings.value <= full


def test_what_was_measured_on_this_machine_takes_the_place_of_estimates() -> None:
    found = plan("1b", HERE, KEYS, machine=EPYC)
    assert (found.streams.value, found.streams.basis) == (2, "measured")
    assert found.step_ms is not None
    assert found.step_ms.basis == "measured"
    assert found.step_ms.value == pytest.approx(65.6, abs=0.1)
    zen5 = plan("1b", HERE, machine=ZEN5)
    assert (zen5.streams.value, zen5.streams.basis) == (10, "measured")
    assert zen5.fixed_bytes.basis == zen5.stream_bytes.basis == "measured"
    assert zen5.stream_bytes.value == pytest.approx(116e6, rel=0.01)
    demo = plan("demo", cpu(2, 1, memory_gb=25), machine=EPYC)
    assert (demo.by_time.value, demo.by_time.basis) == (16, "measured")  # more were not tried
    assert plan("demo", HERE, machine=EPYC).by_time.basis == "roofline"  # which has more
    assert demo.recordings is not None
    assert (demo.recordings.value, demo.recordings.basis) == (78.3, "measured")


def test_what_was_measured_and_did_not_fit_does_not_fit() -> None:
    found = plan("2.6b", HERE, PlanOptions("int4", "float32"), machine=EPYC)
    assert (found.streams.value, found.streams.basis) == (0, "measured")
    assert found.problem is not None
    assert found.problem.startswith("a step of one stream takes 94.4 ms but may take at most 80")


def test_of_a_noisy_row_the_first_that_took_too_long_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {1: 30.0, 2: 36.7, 4: 43.0, 6: 58.1, 8: 92.7, 10: 71.5}
    given = {"what": "live", "model": "1b", "dtype": "int8", "kv": "float16", "machine": "noisy"}
    stamp = {"threads": 2, "date": "2026-11-29", "commit": "0"}
    rows = [{**given, **stamp, "streams": n, "p99_ms": ms} for n, ms in times.items()]
    others = [row for row in known._rows() if row["what"] != "live"]
    monkeypatch.setattr(known, "_rows", lambda: [*others, *rows])
    found = plan("1b", HERE, machine="noisy")
    assert (found.by_time.value, found.by_time.basis) == (6, "measured")
    assert found.step_ms is not None
    assert found.step_ms.value == pytest.approx(58.1, abs=0.1)
    assert [row.noise for row in found.measured if row.machine == "noisy"] == [(8, 10)]


def test_elsewhere_and_otherwise_it_stands_beside() -> None:
    for other in (
        plan("1b", HERE),
        plan("1b", HERE, machine="another"),
        plan("1b", HERE, PlanOptions(kv_dtype="bfloat16"), machine=EPYC),
    ):
        assert other.streams.basis == other.stream_bytes.basis == "roofline"
        assert {EPYC} < {row.machine for row in other.measured}
    assert plan("1b", H100).measured == ()
    assert plan("1b", HERE, PlanOptions(dtype="bf16")).measured == ()


def test_types_are_those_of_the_hardware_unless_chosen() -> None:
    def types(model: str, hardware: Hardware, *chosen: str) -> tuple[str, ...]:
        found = plan(model, hardware, PlanOptions(*chosen)).options
        return str(found.dtype), str(found.kv_dtype)

    assert types("1b", H100) == ("bfloat16", "bfloat16")
    assert types("1b", HERE) == ("int8", "float16")
    assert types("demo", HERE) == ("float32", "float32")
    assert types("1b", HERE, "int4", "bf16") == ("int4", "bfloat16")
    assert PlanOptions("bf16", "bf16") == PlanOptions("bfloat16", "bfloat16")


def test_assumptions_have_their_numbers() -> None:
    text = "\n".join(plan("1b", gpu("a100"), PlanOptions(None, "fp8", efficiency=0.25)).assumptions)
    for part in (
        "2,039 GB/s", "1.68 GB (bfloat16)", "50.69 MB (fp8)", "divided by 0.25", "60 s",
        "829 positions",
    ):  # fmt: skip
        assert part in text, part
    assert "877 positions" in "\n".join(plan("1b", HERE).assumptions)
    turned = "\n".join(plan("1b", HERE, PlanOptions("bfloat16")).assumptions)
    assert "bfloat16 is turned into float32" in turned
    assert "turned into" not in "\n".join(plan("1b", H100).assumptions)
    assert "2 cores" in "\n".join(plan("1b", HERE).assumptions)


def test_the_servers_work_is_that_of_the_slowest_machine_and_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        {"what": "sockets", "model": "any", "dtype": "any", "machine": machine, "us_a_frame": us}
        for machine, us in (("swift", 100.0), ("slow", 400.0), ("usual", 200.0))
    ]
    monkeypatch.setattr(known, "_rows", lambda: rows)
    text = "\n".join(plan("1b", H100).assumptions)
    assert "measured to be 100 to 400 microseconds of one core; as slow as on slow, one" in text
    assert "serves up to 200 streams" in text


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e300, 10**400])
@pytest.mark.parametrize("name", ["p99_ms", "efficiency", "memory_share"])
def test_options_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be from .* to"):
        PlanOptions(**{name: value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e300, 10**400])
@pytest.mark.parametrize("name", ["streams", "hours_per_day", "price"])
def test_targets_that_cannot_be_are_refused(name: str, value: float) -> None:
    if name == "price" and value == 0:
        value = -1e-9  # what costs nothing can be
    with pytest.raises(InputError, match=f"{name} must be from .* to"):
        Wanted(**{"streams": 1, name: value})


def test_more_that_makes_no_sense() -> None:
    with pytest.raises(InputError, match=r"p99_ms must be at most 80, the length of a frame"):
        plan("1b", H100, PlanOptions(p99_ms=81))
    with pytest.raises(InputError, match=r"dtype must be one of float32, bfloat16.*not 'fp4'"):
        PlanOptions("fp4")
    with pytest.raises(InputError, match=r"kv_dtype must be one of .*not 'int4'"):
        PlanOptions(kv_dtype="int4")
    with pytest.raises(InputError, match="price needs something to be paid for"):
        Wanted(price=3)
    with pytest.raises(CheckpointError, match="neither an existing folder nor a repository"):
        plan("no such model", H100)


@pytest.mark.parametrize(
    ("options", "not_on", "on", "says"),
    [
        (
            PlanOptions("int8"), H100, HERE,
            "^dtype on a GPU must be one of float32, bfloat16: no engine of kiku supports int8",
        ),
        (PlanOptions("int4"), H100, HERE, "supports int4 there"),
        (
            PlanOptions(kv_dtype="float8"), HERE, H100,
            "^kv_dtype on a processor must be one of float32, bfloat16, float16, int8: .* "
            "supports fp8",
        ),
        (
            PlanOptions(kv_dtype="int8"), H100, HERE,
            "^kv_dtype on a GPU must be one of float32, bfloat16, float16, fp8: .* supports int8",
        ),
    ],
)  # fmt: skip
def test_types_that_no_engine_has_on_this_kind_of_hardware_are_refused(
    options: PlanOptions, not_on: Hardware, on: Hardware, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        plan("1b", not_on, options)
    assert plan("1b", on, options).streams.value >= 0


@pytest.mark.parametrize("given", [{"dtype": "fp8"}, {"kv_dtype": "int4"}])
def test_types_that_no_engine_has_anywhere_are_not_known(given: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"must be one of .*, not '{next(iter(given.values()))}'"):
        PlanOptions(**given)  # type: ignore[arg-type]


def test_keys_are_called_as_the_engine_and_as_data_sheets_call_them() -> None:
    assert PlanOptions(kv_dtype="float8") == PlanOptions(kv_dtype="fp8")
    known = {PlanOptions(kv_dtype=name).kv_dtype for name in RING_DTYPES}
    assert known == set(KV_BITS) - {"int8"}  # on processors only


def test_models_are_known_by_name_repository_and_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as offline:
        offline.setattr("kiku.measure.plan.find", None)
        for repo in KNOWN_REPOS:
            assert model_of(repo.repo_id)[1] is SHAPES["2.6b" if "2.6b" in repo.repo_id else "1b"]
        assert model_of("1B") == ("1b", SHAPES["1b"])
    demo = find("demo").config.parent
    assert model_of(str(demo))[1] == model_of("demo")[1]
    shutil.copytree(demo, tmp_path / "kyutai" / "stt-1b-en_fr")
    monkeypatch.chdir(tmp_path)
    assert model_of("kyutai/stt-1b-en_fr")[1] == model_of("demo")[1]


def test_converted_models_are_read_without_their_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path))
    folder = convert("demo", precision="int8", folder=tmp_path / "here").folder
    demo = model_of("demo")[1]
    monkeypatch.setattr("kiku.measure.plan.find", None)
    assert model_of(str(folder)) == ("demo", demo)


def test_figures_stand_under_numbers_and_not_under_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIKU_CACHE", str(tmp_path))
    own = convert(write_native_folder(tmp_path / "demo"), folder=tmp_path / "here").folder
    assert model_of(str(own))[0] == "demo"
    assert plan(str(own), HERE, machine=EPYC).measured == ()
    assert plan("demo", HERE).measured != ()


def test_what_costs_nothing_can_be() -> None:
    need = plan("1b", H100, wanted=Wanted(streams=1, price=0)).live_need
    assert need is not None
    assert need.cost_per_day == 0


def test_extreme_numbers_end_in_numbers() -> None:
    for extremes in product((1e-6, 1e7), repeat=3):
        names = ("memory_gb", "bandwidth_gb_s", "tflops")
        card = gpu("h100", **dict(zip(names, extremes, strict=True)))
        for part, p99_ms in product((1e-6, 1), (1e-6, 80)):
            options = PlanOptions(efficiency=part, memory_share=part, p99_ms=p99_ms)
            found = plan("1b", card, options, Wanted(10**12, 1e12, 1e12))
            json.dumps(found.to_dict(), allow_nan=False)
            assert (found.problem is None) == (found.streams.value > 0)


def test_a_plan_is_frozen_and_becomes_json() -> None:
    found = plan("1b", HERE, KEYS, Wanted(10, 100, 1), machine=EPYC)
    with pytest.raises(FrozenInstanceError):
        found.model = "another"  # pyright: ignore
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["streams"] == {"value": 2, "basis": "measured"}
    assert plain["live_need"]["machines"] == 5
    assert plain["hardware"]["rates"]["int8"] == HERE.rate("int8")


def test_numbers_of_a_model_are_enough() -> None:
    found = plan(SHAPES["1b"], H100)
    assert found.streams == plan("1b", H100).streams
    assert found.model == "a model"
    assert [said.published.streams for said in found.published] == [400]
