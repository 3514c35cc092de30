"""What nobody holds any more is gone at once, not when the garbage collector comes: an engine is
large, and collections are rare where tensors are few and big."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from kiku import Recognizer
from kiku.scheduler import Member, Scheduler
from kiku.stream import TokenSession
from tests import tiny
from tests.engine.engines import make_engine, sound

RATE = tiny.model_config().sample_rate


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_the_engine_of_a_batch_that_is_over() -> None:
    engine = make_engine("torch", slots=2)
    seen = weakref.ref(engine)
    Scheduler(engine).run([Member(TokenSession(sound(5, seed))) for seed in range(3)])
    del engine
    assert seen() is None


def test_the_engine_of_a_recognizer_that_has_heard_files_and_streams() -> None:
    rec = Recognizer(
        make_engine("torch", slots=2), tiny.model_config(), tiny.vocabulary(), name="tiny"
    )
    seen = weakref.ref(rec.scheduler.engine)
    rec.transcribe(sound(5).reshape(-1), rate=RATE)
    with rec.stream() as stream:
        worker = rec.scheduler._driver._worker
        stream.push(sound(5).reshape(-1))
        stream.close()
        list(stream.events())
    assert worker is not None
    worker.join(60)  # it leaves by itself, and holds the scheduler until then
    del rec, stream
    assert seen() is None
