"""The progress of a batch: what is done, how fast, and how much time is left."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kiku.fleet.batch import Round, run_batch
from kiku.fleet.planning import Block
from kiku.fleet.progress import Counter
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.transcriber import Transcribed
from tests.fleet.conftest import Processes


def test_time_left_goes_by_what_was_heard() -> None:
    now = 0.0
    counter = Counter(3, 100.0, lambda: now)
    assert counter.now().left_s is None
    now = 30.0  # 20 s of which are the start of Ray and of the models
    assert counter.now().wall_s == 0.0
    counter.add(40.0, 50.0, 10.0, failed=False)
    progress = counter.now()
    assert (progress.speed, progress.of_seconds) == (5.0, 110.0)
    assert progress.left_s == pytest.approx(12.0)
    counter.add(30.0, 0.0, 5.0, failed=True)
    assert counter.now().of_seconds == 80.0
    assert counter.now().failed == 1


@pytest.mark.usefixtures("probes_are_quick")
def test_time_counts_from_when_the_first_recording_was_begun(calls: Path, tmp_path: Path) -> None:
    class Slow(Processes):
        def transcribe(self, blocks: Sequence[Block], stage: Round) -> Iterator[Transcribed]:
            return (replace(one, took_s=1e4) for one in super().transcribe(blocks, stage))

    request = BatchRequest(ModelSettings("simple"))
    told: list[float] = []
    run_batch(
        Slow().make,
        calls,
        str(tmp_path / "out"),
        request,
        on_progress=lambda now: told.append(now.wall_s),
    )
    assert told[0] == 0.0
    assert min(told[1:]) >= 1e4
