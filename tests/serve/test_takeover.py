"""A session goes on in another process: no word is lost, none is doubled."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

import kiku
from kiku.serve import session_keeper, session_recorder, sockets
from kiku.serve.protocols.interface import Close
from kiku.serve.session_store import StoreDown, Write
from kiku.serve.session_stores.folder import FolderStore
from kiku.serve.talk import Talk
from tests.serve.clients import FRAME, PATIENCE_S, RATE, kyutai, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.own_client import OwnClient
from tests.serve.redis_server import free_port, needs_redis, redis_server
from tests.serve.running import Running, running
from tests.serve.talks import is_connected, stream_of, wait_for

ANSWERS = EXAMPLES / "answers.mp3"
Pair = tuple[Running, Running]
STORES = ["folder", pytest.param("redis", marks=needs_redis)]


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return samples_of(ANSWERS)


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    """[S] digits, four times, in loud noise."""
    digits = samples_of(EXAMPLES / "digits.wav")
    noise = np.random.default_rng(1).standard_normal(len(digits)).astype(np.float32)
    return np.tile((digits + 0.16 * noise).clip(-1, 1), 4)


@pytest.fixture(scope="module")
def said(demo: kiku.Recognizer) -> str:
    return demo.transcribe(ANSWERS).text


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store."""
    if getattr(request, "param", "folder") == "redis":
        return str(request.getfixturevalue("redis"))
    return str(tmp_path / "sessions")


@pytest.fixture(scope="module", autouse=True)
def _often() -> Iterator[None]:
    """Tests wait for writes, and for a look at what others have written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_keeper, "KEEP_S", 0.1)
        patch.setattr(session_recorder, "_HEARTBEAT_S", 0.3)
        yield


@pytest.fixture(scope="module", params=STORES)
def both(
    demo: kiku.Recognizer, request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:  # fmt: skip
    """Two services that share a store, of each kind."""
    if request.param == "redis":
        address = request.getfixturevalue("redis")
    else:
        address = str(tmp_path_factory.mktemp("sessions"))
    with running(demo, session_store=address) as a, running(demo, session_store=address) as b:
        yield a, b


@pytest.fixture
def pair(both: Pair) -> Pair:
    """Both without a talk."""
    wait_for(lambda: not any(one.app.sockets.talks for one in both))
    return both


def kept(service: Running, count: int) -> bool:
    """Whether so many messages of the one talk, and all its sound, are in the store."""
    ((_, watched),) = service.app.sockets._keeper._watched.items()
    recorder = watched.recorder
    is_whole = not recorder._is_changed and not recorder._waiting and watched.writing is None
    return is_whole and recorder.generation is not None and recorder._num_stored >= count


def code_of(socket: ClientConnection) -> int:
    """With which a connection is closed, behind what comes before."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(PATIENCE_S)
    assert socket.close_code is not None
    return socket.close_code


def moves(service: Running, how: str) -> float:
    """How many sessions have moved so."""
    found = service.service.metrics.sessions_moved.labels(how)._value.get()
    return float(found)


@pytest.mark.parametrize("says_told", [True, False])
def test_another_process_goes_on_while_the_first_still_lives(
    pair: Pair, demo: kiku.Recognizer, sound: np.ndarray, said: str, says_told: bool
):
    client = OwnClient("one", sound)
    a, b = pair
    counts = moves(b, "sound"), moves(a, "away")
    with client.at(a.ws) as ready:
        assert ready["taken_s"] == 0
        client.speak(0, 3.4)
        client.words_until(3)
        before = client.socket
        wait_for(lambda: kept(a, client.count))
        with client.at(b.ws, says_told=says_told) as ready:
            assert ready["taken_s"] == pytest.approx(3.4, abs=0.01)
            assert ready["taken_bytes"] == round(ready["taken_s"] * RATE) * 2
            assert client.finish(ready["taken_s"]) == said
        # The first process notices, and ends its talk without another word.
        wait_for(lambda: not a.app.sockets.talks)
        assert code_of(before) == 1012
    assert moves(b, "sound") == counts[0] + 1
    assert moves(a, "away") == counts[1] + 1
    starts = [one["start"] for one in client.messages if one["type"] == "word"]
    assert starts == pytest.approx([one.start for one in demo.transcribe(ANSWERS).words], abs=0.2)
    assert client.messages[-1]["duration"] == pytest.approx(client.seconds, abs=0.01)


@pytest.mark.parametrize("says_told", [True, False])
@pytest.mark.parametrize("cut_s", [2.3, 4.0, 5.5])
def test_words_that_were_told_after_the_last_write_come_once(
    pair: Pair, sound: np.ndarray, said: str, says_told: bool,
    cut_s: float,
):  # fmt: skip
    client = OwnClient("late", sound)
    a, b = pair
    with client.at(a.ws):
        client.speak(0, 1.6)
        client.words_until(1)
        wait_for(lambda: kept(a, client.count))
        (watched,) = a.app.sockets._keeper._watched.values()
        watched.due = float("inf")  # it dies here, and only its client does not know
        client.speak(1.6, cut_s)
        client.words_until(2 if cut_s < 4 else 4)
        with client.at(b.ws, says_told=says_told) as ready:
            assert 1.5 < ready["taken_s"] < cut_s
            assert client.finish(ready["taken_s"]) == said
    ends = [one["end"] for one in client.messages if one["type"] == "word"]
    assert ends == sorted(ends)


def test_messages_that_the_client_has_not_had_are_told_again(
    pair: Pair, sound: np.ndarray, said: str
):
    client = OwnClient("deaf", sound)
    a, b = pair
    with client.at(a.ws):
        client.speak(0, 5.0)
        client.words_until(2)
        wait_for(lambda: next(iter(a.app.sockets.talks)).history.count >= 8)
        wait_for(lambda: kept(a, 8))
        with client.at(b.ws) as ready:
            assert client.finish(ready["taken_s"]) == said


def test_a_client_that_keeps_no_sound_loses_none_that_was_written(
    pair: Pair, sound: np.ndarray, said: str
):
    client = OwnClient("poor", sound)
    a, b = pair
    with client.at(a.ws):
        client.speak(0, 4.4)  # in the middle of a word
        client.words_until(2)
        wait_for(lambda: kept(a, client.count))
        with client.at(b.ws) as ready:
            assert ready["taken_s"] == pytest.approx(4.4)
            assert client.finish(4.4) == said


ALL = {"turns": "medium", "partials": "true", "pauses": "true"}


@pytest.fixture(scope="module")
def whole(service: Running, sound: np.ndarray) -> list[dict[str, Any]]:
    """All that is told of the sound where nothing comes between."""
    client = OwnClient("whole", sound)
    with client.at(service.ws, **ALL):
        client.finish(0)
    return client.messages


@pytest.mark.parametrize("store", STORES, indirect=True)
@pytest.mark.parametrize("cut_s", [1.0, 3.1, 6.9])
def test_a_process_that_ends_in_order_hands_its_streams_over_exactly(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, whole: list[dict[str, Any]], cut_s: float
):
    client = OwnClient("planned", sound)
    given = {"session_store": store, "session_key": "secret", "drain_s": 0.0}
    with running(demo, **given) as b:
        with running(demo, **given) as a, client.at(a.ws, **ALL):
            client.speak(0, cut_s)
            while client.receive()["type"] != "pause":
                pass
            a.call(lambda: a.app.drain(0))
            with suppress(ConnectionClosed):
                while True:
                    client.receive()
            assert client.socket.close_code == 1012
        with client.at(b.ws, **ALL) as ready:
            assert 0 < ready["taken_s"] <= cut_s + 1e-6
            assert ready["taken_bytes"] == round(ready["taken_s"] * RATE) * 2
            client.finish(ready["taken_s"])
        assert moves(b, "exactly") == 1
    assert client.messages == whole


@contextmanager
def spoken_to_the_first(demo: kiku.Recognizer, store: str, client: OwnClient) -> Iterator[Pair]:
    """Two services that share a store and a key, of which the first has heard and kept 4.4 s, in
    the middle of a word."""
    given = {"session_store": store, "session_key": "secret"}
    with running(demo, **given) as b, running(demo, **given) as a, client.at(a.ws):
        client.speak(0, 4.4)
        client.words_until(2)
        wait_for(lambda: kept(a, client.count))
        yield a, b


@pytest.mark.parametrize("drain_s", [30.0, 0.5])
def test_a_client_that_is_cut_while_its_process_ends_loses_nothing(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, said: str, drain_s: float
):
    client = OwnClient("hasty", sound)
    with spoken_to_the_first(demo, store, client) as (a, b):
        (talk,) = a.app.sockets.talks
        draining = asyncio.run_coroutine_threadsafe(a.app.drain(drain_s), a.loop)
        wait_for(lambda: a.service.is_draining)
        client.cut()
        wait_for(lambda: not is_connected(talk))
        if drain_s < 1:  # nobody has come back until then
            draining.result(PATIENCE_S)
        else:
            time.sleep(0.3)
        with client.at(b.ws) as ready:
            assert ready["taken_s"] == pytest.approx(4.4)
            assert client.finish(4.4) == said
        draining.result(PATIENCE_S)  # which waits for nobody who has gone elsewhere
        assert moves(b, "exactly") == (drain_s < 1)


def test_what_cannot_be_handed_over_in_time_stays_as_it_was_written(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, said: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    async def freeze(self: Talk) -> None:
        await asyncio.sleep(PATIENCE_S)

    monkeypatch.setattr(sockets, "_HAND_OVER_S", 0.1)
    client = OwnClient("stuck", sound)
    with spoken_to_the_first(demo, store, client) as (a, b):
        monkeypatch.setattr(Talk, "freeze", freeze)
        a.call(lambda: a.app.drain(0))
        assert code_of(client.socket) == 1012
        with client.at(b.ws) as ready:
            assert ready["taken_s"] == pytest.approx(4.4)
            assert client.finish(4.4) == said
    assert "Exception" not in caplog.text


def test_a_stream_that_was_saved_with_another_key_leaves_its_sound(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, said: str
):
    client = OwnClient("forged", sound)
    other = kiku.load("demo", slots=1)
    given = {"session_store": store, "drain_s": 0.0}
    with running(other, session_key="another", **given) as b:
        with running(demo, session_key="one", **given) as a, client.at(a.ws):
            client.speak(0, 4.0)
            client.words_until(3)
            a.call(lambda: a.app.drain(0))
            assert code_of(client.socket) == 1012
        with client.at(b.ws) as ready:
            assert client.finish(ready["taken_s"]) == said
        assert moves(b, "sound") == moves(b, "refused") == 1


def test_turns_pauses_and_partials_go_on(
    pair: Pair, sound: np.ndarray, whole: list[dict[str, Any]]
):
    client = OwnClient("turns", sound)
    a, b = pair
    with client.at(a.ws, **ALL):
        client.speak(0, 3.4)
        client.words_until(2)
        wait_for(lambda: kept(a, client.count))
        with client.at(b.ws, **ALL) as ready:
            client.finish(ready["taken_s"])
    for kind in ("word", "turn_start", "turn_end"):
        found = [one for one in client.messages if one["type"] == kind]
        assert len(found) == len([one for one in whole if one["type"] == kind]), kind
    # The delay that runs out behind the sound has its end's time, in more or fewer frames.
    times = [one["time"] for one in client.messages if one["type"] == "pause"]
    end = times.index(times[-1]) + 1
    assert times[:end] == list(dict.fromkeys(times[:end]))
    assert set(times) == {one["time"] for one in whole if one["type"] == "pause"}


def test_what_was_asked_and_not_answered_is_asked_again(pair: Pair, sound: np.ndarray, said: str):
    client = OwnClient("asks", sound)
    a, b = pair
    with client.at(a.ws):
        client.speak(0, 3.0)
        client.words_until(2)
        (talk,) = a.app.sockets.talks
        talk._stream._listener.cancel()  # it tells nothing any more, and takes what comes
        client.tell(type="configure", hotwords=["seven"])
        client.tell(type="finalize", tag="mine")
        client.speak(3.0, client.seconds)
        client.tell(type="close")
        wait_for(lambda: talk.recorder._is_closed and kept(a, 0))
        with client.at(b.ws) as ready:
            assert ready["taken_s"] == pytest.approx(client.seconds)
            while client.receive()["type"] != "end":
                pass
            assert code_of(client.socket) == 1000
    assert " ".join(client.words) == said
    assert [one["tag"] for one in client.messages if one["type"] == "finalized"] == ["mine"]


def test_a_change_of_decoding_is_made_again_where_it_was(pair: Pair, noisy: np.ndarray):
    """All is heard again, as nothing of it was told. In such noise each quarter is heard otherwise
    where another word is to be expected."""
    a, b = pair
    whole, cut = OwnClient("uncut", noisy), OwnClient("changed", noisy)

    def speak_all(client: OwnClient) -> None:
        for i, hotwords in enumerate((["off"], [], ["up"], [])):
            client.tell(type="configure", hotwords=hotwords)
            client.speak(i * client.seconds / 4, (i + 1) * client.seconds / 4)
        client.tell(type="close")

    with whole.at(a.ws):
        speak_all(whole)
        while whole.receive()["type"] != "end":
            pass
    wait_for(lambda: not a.app.sockets.talks)
    with cut.at(a.ws):
        (talk,) = a.app.sockets.talks
        talk._stream._listener.cancel()  # it tells nothing, and takes what comes
        talk._stream._told_s = 0.0
        speak_all(cut)
        wait_for(lambda: talk.recorder._is_closed and kept(a, 0))
        with cut.at(b.ws, after=0) as ready:
            assert ready["taken_s"] == pytest.approx(cut.seconds)
            while cut.receive()["type"] != "end":
                pass
    assert whole.words[:2] == ["three", "off"]
    assert cut.words == whole.words


def test_clients_of_kyutais_protocol_move(pair: Pair, sound: np.ndarray, said: str):
    a, b = pair
    with kyutai(a.ws, "?session=k", max_queue=None) as first:
        first.until("Ready")
        first.speak(sound[: 40 * FRAME])
        while first.until("Step")["step_idx"] < 40:
            pass
        assert len(first.text.split()) >= 2
        wait_for(lambda: kept(a, first.count))
        with kyutai(b.ws, f"?session=k&after={first.count}") as second:
            taken = second.receive()["taken"]
            assert taken == 40 * FRAME
            second.speak(sound[taken:])
            second.finish()
    both = [*first.messages, *second.messages]
    assert " ".join(one["text"] for one in both if one["type"] == "Word") == said
    steps = [one["step_idx"] for one in both if one["type"] == "Step"]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("cut_s", [4.0, 5.5])
def test_clients_of_kyutais_protocol_may_say_how_far_they_were_told(
    pair: Pair, sound: np.ndarray, said: str, cut_s: float
):
    a, b = pair
    with kyutai(a.ws, "?session=far", max_queue=None) as first:
        first.until("Ready")
        first.speak(sound[: 20 * FRAME])
        first.until("EndWord")
        wait_for(lambda: kept(a, first.count))
        (watched,) = a.app.sockets._keeper._watched.values()
        watched.due = float("inf")  # it dies here, and only its client does not know
        first.speak(sound[20 * FRAME : round(cut_s * RATE)])
        while len(first.text.split()) < 3:
            first.receive()
        end_s = first.until("EndWord")["stop_time"]
        # It has lost count of its messages, but not of what was said.
        query = f"?session=far&after={first.count + 25}&told={end_s}"
        with kyutai(b.ws, query) as second:
            second.speak(sound[second.receive()["taken"] :])
            second.finish()
    both = [*first.messages, *second.messages]
    assert " ".join(one["text"] for one in both if one["type"] == "Word") == said


@pytest.mark.parametrize("says_told", [True, False])
def test_clients_of_kyutais_protocol_that_were_told_half_a_word(
    pair: Pair, sound: np.ndarray, said: str, says_told: bool
):
    a, b = pair
    with kyutai(a.ws, f"?session=half{says_told}", max_queue=None) as first:
        first.until("Ready")
        first.speak(sound[: 20 * FRAME])
        end_s = first.until("EndWord")["stop_time"]
        wait_for(lambda: kept(a, first.count))
        (watched,) = a.app.sockets._keeper._watched.values()
        watched.due = float("inf")  # it dies here, and only its client does not know
        first.speak(sound[20 * FRAME : round(4.0 * RATE)])
        first.until("Word")
        query = f"?session=half{says_told}&after={first.count}"
        with kyutai(b.ws, query + (f"&told={end_s}" if says_told else "")) as second:
            second.speak(sound[second.receive()["taken"] :])
            second.finish()
    words: list[str] = []
    is_open = False
    for one in [*first.messages, *second.messages]:
        if one["type"] == "Word":
            if is_open:  # the same again, as the end of it was not told
                words.pop()
            words.append(one["text"])
        if one["type"] in ("Word", "EndWord"):
            is_open = one["type"] == "Word"
    assert " ".join(words) == said
    kinds = [one["type"] for one in second.messages if one["type"] in ("Word", "EndWord")]
    assert kinds[0] == ("Word" if says_told else "EndWord")


def test_it_may_come_back_to_the_first_process_and_is_not_heard_twice(
    pair: Pair, sound: np.ndarray, said: str
):
    client = OwnClient("to and fro", sound)
    a, b = pair
    with client.at(a.ws):
        client.speak(0, 2.4)
        client.words_until(1)
        wait_for(lambda: kept(a, client.count))
        (watched,) = a.app.sockets._keeper._watched.values()
        watched.due = float("inf")  # it does not notice by itself
        with client.at(b.ws) as ready:
            client.speak(ready["taken_s"], 4.6)  # and is cut off before it has had a word of it
            wait_for(lambda: kept(b, 6))
            with client.at(a.ws) as ready:
                assert ready["taken_s"] == pytest.approx(4.6)
                assert client.finish(ready["taken_s"]) == said


def test_it_moves_again_and_again(pair: Pair, sound: np.ndarray, said: str):
    client = OwnClient("often", sound)
    for i, (end_s, count) in enumerate(((1.9, 1), (3.0, 2), (4.4, 3), (5.6, 4))):
        here, there = pair[i % 2], pair[1 - i % 2]
        with client.at(here.ws) as ready:
            assert (ready["taken_s"] > 0) == (i > 0)
            client.speak(ready["taken_s"], end_s)
            client.words_until(count)
            wait_for(lambda there=there: not there.app.sockets.talks)
            wait_for(lambda here=here: kept(here, client.count))
            client.cut()
    with client.at(pair[0].ws) as ready:
        assert client.finish(ready["taken_s"]) == said


def test_a_session_that_has_ended_is_not_kept(pair: Pair, sound: np.ndarray):
    client = OwnClient("over", sound)
    a, b = pair
    with client.at(a.ws):
        client.finish(0)
    wait_for(lambda: not a.service._background)
    with client.at(b.ws) as ready:
        assert ready["taken_s"] == 0


def test_the_end_that_came_while_its_client_was_away_is_told_by_another_process(
    pair: Pair, sound: np.ndarray, said: str
):
    client = OwnClient("away", sound)
    a, b = pair
    with client.at(a.ws):
        client.speak(0, client.seconds)
        client.words_until(2)
        (talk,) = a.app.sockets.talks
        client.cut()
    wait_for(lambda: not is_connected(talk))
    a.call(lambda: talk._stream.do([Close()]))
    wait_for(lambda: stream_of(talk) is None and kept(a, talk.history.count))
    with client.at(b.ws):
        while client.receive(5.0)["type"] != "end":
            pass
        with pytest.raises(ConnectionClosed):
            client.receive()
        assert client.socket.close_code == 1000
    assert " ".join(client.words) == said
    assert b.service.admission.num_taken == 0


def test_files_are_their_owners_alone(demo: kiku.Recognizer, store: str, sound: np.ndarray):
    client = OwnClient("private/../..", sound)
    with running(demo, session_store=store) as a, client.at(a.ws):
        client.speak(0, 2.0)
        client.words_until(1)
        wait_for(lambda: kept(a, client.count))
        found = [one for one in Path(store).rglob("*") if one.is_file()]
        assert len(found) > 2
        assert {one.stat().st_mode & 0o777 for one in found} == {0o600}
        assert all("private" not in str(one) for one in found)


def test_what_a_killed_process_left_is_forgotten_where_nobody_has_a_session(
    demo: kiku.Recognizer, store: str, monkeypatch: pytest.MonkeyPatch
):
    left = FolderStore(Path(store))
    for name, ttl_s in (("a" * 40, 0.01), ("b" * 40, 600.0), ("c" * 40, 1.0)):
        generation = left.begin(name, ttl_s)
        left.write([Write(name, generation, {"x": b"speech"}, [], ttl_s)])
    monkeypatch.setattr(session_keeper, "_SWEEP_S", 0.05)
    with running(demo, session_store=store) as a:
        wait_for(lambda: not (Path(store) / ("a" * 40)).exists())
        wait_for(lambda: not (Path(store) / ("c" * 40)).exists())  # whose time ends here
        assert (Path(store) / ("b" * 40)).exists()
        assert a.service.metrics.store_failures._value.get() == 0


# What is wrong with a store, and with what is in it.


@pytest.mark.parametrize("damage", ["cut", "foreign", "gone", "empty"])
def test_stored_sessions_that_cannot_be_read_begin_anew(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, said: str, damage: str
):
    client = OwnClient("hurt", sound)
    with running(demo, session_store=store) as b:
        with running(demo, session_store=store) as a, client.at(a.ws):
            client.speak(0, 3.0)
            client.words_until(2)
            wait_for(lambda: kept(a, client.count))
            (watched,) = a.app.sockets._keeper._watched.values()
            watched.due = float("inf")
            for file in Path(store).glob("[0-9a-f]*/[0-9a-f]*-*"):
                if damage == "gone":
                    file.unlink()
                else:
                    data = file.read_bytes()
                    other = {"cut": data[: len(data) // 2], "foreign": b"\x93\x01\x02\x03",
                             "empty": b""}[damage]  # fmt: skip
                    file.write_bytes(other)
            with client.at(b.ws) as ready:
                assert ready["taken_s"] == 0
                client.messages.clear()
                assert client.finish(0) == said
        assert moves(b, "refused") == 1


def test_a_session_belongs_to_a_key(demo: kiku.Recognizer, store: str, sound: np.ndarray):
    given = {"session_store": store, "api_key": ("one", "two")}
    client = OwnClient("mine", sound)
    with running(demo, **given) as a, running(demo, **given) as b, client.at(a.ws, auth_id="one"):
        client.speak(0, 3.0)
        client.words_until(1)
        wait_for(lambda: kept(a, client.count))
        with client.at(b.ws, auth_id="two") as ready:
            assert ready["taken_s"] == 0
        with client.at(b.ws, auth_id="one") as ready:
            assert ready["taken_s"] == pytest.approx(3.0)


def test_a_session_of_another_model_begins_anew(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    client = OwnClient("which", sound)
    with running(demo, session_store=store) as a, running(demo, session_store=store) as b:
        monkeypatch.setattr(b.app.sockets._keeper, "_model", "another")
        with client.at(a.ws):
            client.speak(0, 3.0)
            client.words_until(1)
            wait_for(lambda: kept(a, client.count))
            with client.at(b.ws) as ready:
                assert ready["taken_s"] == 0


def test_where_no_slot_is_free_it_stays_where_it_is(pair: Pair, sound: np.ndarray, said: str):
    a, b = pair
    client = OwnClient("full", sound)
    with client.at(a.ws):
        client.speak(0, 3.0)
        client.words_until(1)
        wait_for(lambda: kept(a, client.count))
        with b.service.permit(4), pytest.raises(InvalidStatus) as refused, client.at(b.ws):
            pass
        assert refused.value.response.status_code == 503
    with OwnClient("other", sound).at(b.ws):
        pass


class Down:
    """A store that is down, or hangs."""

    def __init__(self) -> None:
        self.ends = threading.Event()
        self.hangs = False
        self.num_begun = 0

    def begin(self, *given: Any) -> Any:
        self.num_begun += 1
        self.fail()

    def fail(self, *given: Any) -> Any:
        if self.hangs:
            self.ends.wait(PATIENCE_S)
        raise StoreDown("it is not there")

    claim = write = remove = sweep = fail

    def close(self) -> None:
        pass


@pytest.mark.parametrize("hangs", [False, True])
def test_a_store_that_is_down_or_hangs_holds_up_nobody(
    demo: kiku.Recognizer, store: str, sound: np.ndarray, said: str, hangs: bool,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(session_keeper, "_WRITE_S", 0.2)
    monkeypatch.setattr(session_keeper, "_CLAIM_S", 0.2)
    client, down = OwnClient("down", sound), Down()
    down.hangs = hangs
    with running(demo, session_store=store, drain_s=0.0) as a:
        a.app.sockets._keeper._store = down
        try:
            with client.at(a.ws):
                client.speak(0, 3.0)
                client.words_until(1)
                failures = a.service.metrics.store_failures
                wait_for(lambda: failures._value.get() > 2)
                client.cut()
            with client.at(a.ws) as ready:  # to the same process
                assert ready["taken_s"] == pytest.approx(3.0)
                assert client.finish(3.0) == said
            with OwnClient("fresh", sound).at(a.ws, after=3) as ready:
                assert ready["taken_s"] == 0
        finally:
            down.ends.set()
    assert caplog.text.count("sessions cannot be stored") == 1


def test_the_end_does_not_wait_for_a_store_that_is_down(
    demo: kiku.Recognizer, store: str, sound: np.ndarray
):
    client, down = OwnClient("down", sound), Down()
    with running(demo, session_store=store) as a, client.at(a.ws):
        a.app.sockets._keeper._store = down
        client.speak(0, 3.0)
        client.words_until(1)
        (watched,) = a.app.sockets._keeper._watched.values()
        wait_for(lambda: a.app.sockets._keeper._is_down)
        watched.due = float("inf")
        wait_for(lambda: watched.writing is None)
        num_begun = down.num_begun
        a.call(lambda: a.app.drain(0))
        assert code_of(client.socket) == 1012
        assert down.num_begun == num_begun


@needs_redis
def test_a_redis_that_is_started_again_forgets_and_is_written_to_again(
    demo: kiku.Recognizer, tmp_path: Path, sound: np.ndarray, said: str
):
    client, port = OwnClient("again", sound), free_port()
    address = f"redis://127.0.0.1:{port}/0"
    given = {"session_store": address}
    with running(demo, **given) as a, running(demo, **given) as b, client.at(a.ws):
        failures = a.service.metrics.store_failures
        with redis_server(tmp_path, port):
            client.speak(0, 1.6)
            client.words_until(1)
            wait_for(lambda: kept(a, client.count))
        client.speak(1.6, 2.8)
        wait_for(lambda: failures._value.get() > 0)
        with redis_server(tmp_path, port):
            client.speak(2.8, 4.4)
            client.words_until(3)
            wait_for(lambda: kept(a, client.count))
            with client.at(b.ws) as ready:
                assert client.finish(ready["taken_s"]) == said
