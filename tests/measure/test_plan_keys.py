"""Plans with keys of 8 bits: what was measured with them, or times of 16 bits that are told."""

import pytest

from kiku.errors import InputError
from kiku.measure import known
from kiku.measure.fits import PlanOptions
from kiku.measure.hardware import cpu
from kiku.measure.plan import Plan, plan
from tests.measure.test_plan import HERE, ZEN5


def test_keys_of_8_bits_are_in_time_for_as_many_streams_as_were_measured_with_16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row for row in known._rows() if row["kv"] != "int8"]
    monkeypatch.setattr(known, "_rows", lambda: rows)
    here = plan("1b", HERE, PlanOptions("int8", "float16"), machine=ZEN5)
    found = plan("1b", HERE, PlanOptions("int8", "int8"), machine=ZEN5)
    assert (found.by_time, found.by_time.basis) == (here.by_time, "measured")
    assert here.stream_bytes.basis == "measured"
    assert found.stream_bytes.basis == "roofline"
    assert found.stream_bytes.value < here.stream_bytes.value
    assert (here.timed_kv_dtype, found.timed_kv_dtype) == (None, "float16")
    (said,) = (line for line in found.assumptions if line.startswith("times that were measured"))
    assert "keys and values in float16; with int8 none was measured" in said
    # Other keys have no times but their own.
    other = plan("1b", HERE, PlanOptions("int8", "bfloat16"), machine=ZEN5)
    assert (other.by_time.basis, other.timed_kv_dtype) == ("roofline", None)
    # Where no figure is a measured time there is nothing to say of it.
    loose = plan("1b", cpu(2, 1000, memory_gb=25), PlanOptions("int8", "int8"), machine=ZEN5)
    assert loose.by_time.basis == "roofline"
    assert loose.timed_kv_dtype is None
    assert not any("times that were measured" in line for line in loose.assumptions)


def test_one_measured_time_of_other_keys_is_enough_to_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [row for row in known._rows() if row["what"] == "sockets"]
    row = {"what": "live", "model": "1b", "dtype": "int8", "kv": "float16", "machine": "m",
           "date": "2026-12-01", "commit": "c", "streams": 1}  # fmt: skip
    options = PlanOptions("int8", "int8")
    monkeypatch.setattr(known, "_rows", lambda: [*others, {**row, "p99_ms": 90.0}])
    none = plan("1b", HERE, options, machine="m")
    assert (none.streams.value, none.streams.basis, none.step_ms) == (0, "measured", None)
    assert none.timed_kv_dtype == "float16"
    monkeypatch.setattr(known, "_rows", lambda: [*others, {**row, "p99_ms": 30.0}])
    one = plan("1b", cpu(2, 1000, memory_gb=1.35), options, machine="m")
    assert (one.streams.value, one.by_time.basis) == (1, "roofline")
    assert one.step_ms is not None
    assert (one.step_ms.basis, one.timed_kv_dtype) == ("measured", "float16")


def test_keys_of_8_bits_that_were_measured_have_their_own_times_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stamp = {"model": "1b", "dtype": "int8", "machine": "m", "date": "2026-12-01", "commit": "c"}
    eight, half = {**stamp, "kv": "int8"}, {**stamp, "kv": "float16"}
    times = [
        {**one, "what": "live", "streams": n, "p99_ms": ms}
        for one, n, ms in ((half, 1, 30.0), (half, 2, 90.0), (eight, 1, 29.0), (eight, 2, 70.0))
    ]
    bytes_of = [
        {**one, "what": "memory", "fixed_bytes": 1e9, "stream_bytes": size}
        for one, size in ((half, 116e6), (eight, 69e6))
    ]
    others = [row for row in known._rows() if row["what"] == "sockets"]

    def planned(*rows: dict[str, object]) -> Plan:
        monkeypatch.setattr(known, "_rows", lambda: [*others, *rows])
        slow = cpu(2, 5, memory_gb=25)  # so that the roofline promises nothing
        return plan("1b", slow, PlanOptions("int8", "int8"), machine="m")

    whole = planned(*times, *bytes_of)
    assert (whole.streams.value, whole.streams.basis) == (2, "measured")
    assert whole.step_ms is not None
    assert (whole.step_ms.value, whole.timed_kv_dtype) == (70.0, None)
    assert (whole.stream_bytes.value, whole.stream_bytes.basis) == (69e6, "measured")
    # Its own memory, and the times of 16 bits.
    part = planned(*times[:2], *bytes_of)
    assert (part.streams.value, part.timed_kv_dtype) == (1, "float16")
    assert (part.stream_bytes.value, part.stream_bytes.basis) == (69e6, "measured")
    # Its own times, and never the memory of 16 bits.
    part = planned(*times, bytes_of[0])
    assert (part.streams.value, part.timed_kv_dtype) == (2, None)
    assert part.stream_bytes.basis == "roofline"
    alone = planned(*times[2:])
    assert (alone.streams.value, alone.timed_kv_dtype) == (2, None)


def test_keys_of_8_bits_leave_room_for_more_streams_beside_rounded_weights() -> None:
    half, eight = (plan("1b", HERE, PlanOptions("int8", kv)) for kv in ("float16", "int8"))
    assert eight.streams.value > half.streams.value
    assert "kiku keeps them with --dtype int8_kv8" in "\n".join(eight.assumptions)
    with pytest.raises(InputError, match="kv_dtype int8 is for weights in int8 or int4, not float"):
        plan("1b", HERE, PlanOptions("float32", "int8"))


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_names_of_precisions_are_taken(weights: str) -> None:
    wanted = PlanOptions(weights, "int8")
    assert PlanOptions(f"{weights}_kv8") == wanted
    for wrong in (f"{weights}_kv8", "bfloat16_kv8", "_kv8"):
        with pytest.raises(InputError, match="dtype"):
            plan("1b", HERE, PlanOptions(wrong, "float16" if wrong.startswith("int") else None))
