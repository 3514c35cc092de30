"""Lengths by what recordings say and by their bytes; limits; blocks."""

import subprocess
import sys
from pathlib import Path

import pytest

from kiku.fleet import durations
from kiku.fleet.planning import MOST, WINDOW, Lengths, blocks_of, lengths_of, within
from kiku.fleet.sources import Item, find_items
from tests.fleet.conftest import MakeSpeech


def _items(sizes: list[int], ending: str = "wav") -> list[Item]:
    return [Item(f"/{number}.{ending}", size) for number, size in enumerate(sizes)]


def test_lengths_go_by_bytes_where_they_were_not_looked_into() -> None:
    items = _items([1000 * (1 + number % 7) for number in range(1000)])
    looked: list[Item] = []

    def look(some: list[Item]) -> list[float | None]:
        looked.extend(some)
        return [(item.size or 0) / 500 for item in some]

    found = lengths_of(items, look)  # pyright: ignore[reportArgumentType]
    assert len(looked) == 200
    assert looked[-1] is items[995]  # from all over the list
    assert found.seconds == pytest.approx([(item.size or 0) / 500 for item in items])
    assert found.stated == 200


def test_each_kind_has_its_own_rate() -> None:
    items = [*_items([4000], "wav"), *_items([100], "mp3"), Item("/more.mp3", 300)]
    asked = {"/0.wav": 1.0, "/0.mp3": 10.0}
    found = lengths_of(items, lambda some: [asked.get(item.path) for item in some])
    assert found.seconds == pytest.approx([1.0, 10.0, 30.0])
    # Of what nobody knows: 128 kbit a second.
    assert lengths_of(_items([32_000]), lambda some: [None]).seconds == [2.0]


def test_a_manifest_need_not_be_looked_into() -> None:
    items = [Item("/a.wav", 10, 5.0), Item("/gone.wav", None)]
    assert lengths_of(items, lambda some: [1 / 0 for _ in some]) == Lengths([5.0, 0.0], 1)


def test_only_the_part_that_is_heard_counts() -> None:
    assert Lengths([10.0, 3.0, 1.0], 3).between(2.0, 5.0).seconds == [3.0, 1.0, 0.0]


def test_recordings_say_how_long_they_are(speech: MakeSpeech, tmp_path: Path) -> None:
    speech(tmp_path / "a.wav", 1.5)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    assert durations.probe_durations(find_items(tmp_path)) == [1.5, None]


def test_a_recording_that_breaks_the_process_breaks_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = "import os, sys; print('[1, 2.5]', flush=True); os.kill(os.getpid(), 11)"
    run = subprocess.run

    def broken(command: list[str], **more: object) -> object:
        assert command[0] == sys.executable
        return run([sys.executable, "-c", breaks], **more)  # pyright: ignore[reportCallIssue, reportArgumentType]

    monkeypatch.setattr(subprocess, "run", broken)
    assert durations.probe_durations(_items([1, 2, 3])) == [None, 2.5, None]


def test_within_a_limit() -> None:
    assert within([10.0, 20.0, 30.0], None) == 3
    assert within([10.0, 20.0, 30.0], 30.0) == 2
    assert within([10.0, 20.0, 30.0], 29.0) == 1
    assert within([10.0], 1.0) == 1  # else it would never be done


def test_every_recording_is_in_one_block_and_the_longest_come_first() -> None:
    items = _items([0] * 100)
    lengths = [float(number % 10 + 1) for number in range(100)]
    seconds = dict(zip((item.path for item in items), lengths, strict=True))
    blocks = list(blocks_of(items, lengths, lanes=4))
    assert sorted(item.path for block in blocks for item in block) == sorted(seconds)
    inside = [seconds[item.path] for block in blocks for item in block]
    assert inside == sorted(inside, reverse=True)


@pytest.mark.parametrize(("length", "smallest"), [(0.0, 15), (2.0, 7), (60.0, 4)])
def test_blocks_become_smaller_so_that_no_lane_ends_long_after_the_others(
    length: float, smallest: int
) -> None:
    """Each lane takes the next block when it is free, as Ray has it."""
    lanes, items = 6, _items([0] * 800)
    counts = [len(one) for one in blocks_of(items, [length] * 800, lanes=lanes, least=4)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-2] == smallest  # 15 s, but as many recordings as fill the slots
    busy = [0] * lanes
    for count in counts:
        busy[busy.index(min(busy))] += count
    assert max(busy) - min(busy) <= smallest


def test_a_few_short_ones_are_for_all_lanes() -> None:
    assert [len(one) for one in blocks_of(_items([0] * 5), [1.0] * 5, lanes=6, least=4)] == [1] * 5


def test_recordings_are_sorted_within_a_window_only() -> None:
    items = _items([0] * (2 * WINDOW))
    lengths = [1.0] * WINDOW + [100.0] * WINDOW
    first = {item.path for item in items[:WINDOW]}
    blocks = list(blocks_of(items, lengths))
    early = [all(item.path in first for item in block) for block in blocks]
    assert early == sorted(early, reverse=True)
    assert early[0]
    assert not early[-1]


def test_blocks_fill_the_slots_but_are_no_larger_than_they_may_be() -> None:
    hours = _items([0] * 64)
    assert {len(b) for b in blocks_of(hours, [3600.0] * 64, lanes=4, least=8)} == {8}
    # Fewer than that where there are not enough for all lanes.
    assert {len(b) for b in blocks_of(hours[:8], [3600.0] * 8, lanes=4, least=8)} == {2}
    short = _items([0] * 10_000)
    assert max(len(b) for b in blocks_of(short, [0.01] * 10_000)) <= MOST
