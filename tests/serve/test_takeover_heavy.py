"""Two real processes, of which one is killed without warning."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kiku
from tests.serve.clients import samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.own_client import OwnClient
from tests.serve.redis_server import needs_redis, redis_server
from tests.serve.test_serve_command import served

ANSWERS = EXAMPLES / "answers.mp3"

pytestmark = pytest.mark.heavy


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, or a Redis."""
    if request.param == "folder":
        yield str(tmp_path)
        return
    with redis_server(tmp_path) as address:
        yield address


@pytest.mark.parametrize("keeps_sound", [True, False])
@pytest.mark.parametrize(
    ("num_frames", "store"),
    [(28, "folder"), (51, "folder"), (79, "folder"),
     pytest.param(51, "redis", marks=needs_redis)],
    indirect=["store"],
)  # fmt: skip
def test_a_process_that_is_killed_loses_no_more_than_the_last_second(
    store: str, demo: kiku.Recognizer, num_frames: int, keeps_sound: bool
):
    wanted = demo.transcribe(ANSWERS).words
    client = OwnClient("killed", samples_of(ANSWERS))
    killed_s = num_frames * 0.08
    options = ("--session-store", store)
    with served(*options) as a, served(*options) as b:
        with client.at(a.ws):
            begun = time.monotonic()
            for i in range(num_frames):  # in real time, as people speak
                client.speak(i * 0.08, (i + 1) * 0.08)
                time.sleep(max(0.0, begun + (i + 1) * 0.08 - time.monotonic()))
            while True:  # what it has told until now
                try:
                    client.receive(0.01)
                except TimeoutError:
                    break
            a.process.kill()
        with client.at(b.ws) as ready:
            taken_s = ready["taken_s"]
            # Written about once a second, on a machine that has other work, too.
            assert killed_s - 2.5 < taken_s <= killed_s + 0.01
            client.finish(taken_s if keeps_sound else killed_s)
    if keeps_sound or taken_s >= killed_s - 1e-3:
        assert client.words == [one.text for one in wanted]
        return
    sure = [one.text for one in wanted if one.end < taken_s - 0.2 or one.start > killed_s + 0.2]
    found = iter(client.words)
    assert all(word in found for word in sure), (client.words, sure)
    ends = [one["end"] for one in client.messages if one["type"] == "word"]
    assert ends == sorted(ends)
    assert len(client.words) <= len(wanted) + 1  # what the hole leaves may sound like a word
