"""What holds for every socket, tried with Kyutai's protocol: words, slots, failures, limits."""

import json
import socket as system
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import kiku
from kiku.engine import SlotEngine
from kiku.serve import talk as talks
from kiku.serve.protocols.interface import Actions, Close, Push, Send
from kiku.serve.protocols.kyutai import KyutaiProtocol
from kiku.serve.protocols.own import OwnProtocol
from kiku.stream import Event, WordSession
from tests.serve.clients import FRAME, PATIENCE_S, RATE, KyutaiClient, kyutai, samples_of
from tests.serve.conftest import EXAMPLES
from tests.serve.own_client import OwnClient
from tests.serve.relay import relay
from tests.serve.running import Running, running
from tests.serve.talks import BusyReader, is_connected, stream_of, wait_for

ANSWERS, DIGITS = EXAMPLES / "answers.mp3", EXAMPLES / "digits.wav"
SPOKEN = "seven three zero one nine four"
"""The digits."""


@pytest.fixture(scope="module")
def said(demo: kiku.Recognizer) -> str:
    """What the recording says."""
    return demo.transcribe(ANSWERS).text


def cut(client: KyutaiClient) -> None:
    """Cut the connection without a word."""
    client.socket.socket.shutdown(system.SHUT_RDWR)


def hear(service: Running, sound: np.ndarray) -> str:
    with kyutai(service.ws) as client:
        client.speak(sound)
        return client.finish()


def test_the_words_are_those_of_the_file(service: Running, said: str):
    assert hear(service, samples_of(ANSWERS)) == said


@pytest.mark.parametrize("path", [
    "/api/asr-streaming", "/api/stream", "/v1/realtime?intent=transcription", "/v1/listen",
    "/v2/listen?model=flux-general-en",
])  # fmt: skip
def test_who_comes_while_it_drains_is_sent_on_before_the_upgrade(
    demo: kiku.Recognizer, path: str
) -> None:
    with running(demo) as service:
        service.service.is_draining = True
        with pytest.raises(InvalidStatus) as refused, connect(f"{service.ws}{path}"):
            pass
        service.service.is_draining = False
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) > 0


def test_streams_beside_each_other_do_not_mix(service: Running, demo: kiku.Recognizer):
    paths = [ANSWERS, EXAMPLES / "digits.wav", EXAMPLES / "directions.flac"]
    wanted = [demo.transcribe(path).text for path in paths]
    found: dict[int, str] = {}

    def visit(i: int) -> None:
        found[i] = hear(service, samples_of(paths[i]))

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [found[i] for i in range(3)] == wanted


def test_the_next_client_hears_nothing_of_the_one_before(service: Running):
    sound = samples_of(ANSWERS)
    for cut in (0.9, 1.3, 1.7):
        with kyutai(service.ws) as client:
            client.until("Ready")
            client.speak(sound[: int(cut * 24_000)])  # leaves in the middle of a word
        assert hear(service, np.zeros(FRAME * 30, np.float32)) == ""


def test_the_surplus_is_told_and_a_slot_comes_back(demo: kiku.Recognizer):
    with running(demo) as service:
        admission = service.service.admission
        with kyutai(service.ws) as a, kyutai(service.ws) as b, kyutai(service.ws) as c:
            with kyutai(service.ws) as d:
                for one in (a, b, c, d):
                    assert one.receive() == {"type": "Ready"}
                assert admission.num_taken == 4
                with kyutai(service.ws) as fifth:
                    assert fifth.receive() == {"type": "Error", "message": "no free channels"}
                    with pytest.raises(ConnectionClosed):
                        fifth.receive()
                assert httpx.get(f"{service.http}/ready").json()["slots_used"] == 4
            wait_for(lambda: admission.num_taken == 3)
            with kyutai(service.ws) as again:
                assert again.receive() == {"type": "Ready"}
        wait_for(lambda: admission.num_taken == 0 and service.service.num_open == 0)


def test_a_hundred_visits_leave_nothing_behind(demo: kiku.Recognizer):
    with running(demo) as service:
        for i in range(100):
            if i % 2:  # leaves as the words come
                with kyutai(service.ws) as client:
                    client.speak(np.zeros(FRAME * (i % 5), np.float32))
            else:  # is cut off without a word
                raw = system.create_connection(("127.0.0.1", service.port))
                raw.sendall(b"GET /api/asr-streaming HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                if i % 4:
                    raw.sendall(
                        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                    )
                raw.close()
        wait_for(lambda: service.service.admission.num_taken == 0)
        wait_for(lambda: demo.free_slots == 4 and service.service.num_open == 0)
        assert not service.app.sockets.talks


def test_without_a_key_the_upgrade_is_refused(demo: kiku.Recognizer, said: str):
    with running(demo, api_key=("sesame",)) as service:
        for headers in ({}, {"kyutai-api-key": "wrong"}):
            with (
                pytest.raises(InvalidStatus) as refused,
                kyutai(service.ws, additional_headers=headers),
            ):
                pass
            assert refused.value.response.status_code == 401
        with kyutai(service.ws, additional_headers={"kyutai-api-key": "sesame"}) as client:
            assert client.receive() == {"type": "Ready"}
        with kyutai(service.ws, "?auth_id=sesame") as client:
            assert client.receive() == {"type": "Ready"}
        with kyutai(service.ws, subprotocols=["token", "sesame"]) as client:
            assert client.socket.subprotocol == "token"
        assert httpx.get(f"{service.http}/metrics").status_code == 401
        assert httpx.get(f"{service.http}/nowhere").status_code == 401
        assert httpx.get(f"{service.http}/health").status_code == 200
        assert httpx.get(f"{service.http}/ready").status_code == 200


def test_a_page_of_another_host_is_refused(service: Running):
    with pytest.raises(InvalidStatus) as refused, kyutai(service.ws, origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with kyutai(service.ws, origin=service.http) as client:
        assert client.receive() == {"type": "Ready"}


def test_a_path_without_a_protocol_is_not_found(service: Running):
    with pytest.raises(InvalidStatus) as refused, connect(f"{service.ws}/api/nothing"):
        pass
    assert refused.value.response.status_code == 404


def test_compression_is_not_taken_up(service: Running):
    with connect(f"{service.ws}/api/asr-streaming", compression="deflate") as socket:
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


def test_what_cannot_be_understood_is_told_and_ends_that_client_alone(service: Running, said: str):
    with kyutai(service.ws) as good, kyutai(service.ws) as bad:
        sound = samples_of(ANSWERS)
        good.speak(sound[: len(sound) // 2])
        bad.socket.send(b"\xc1\xc1")
        assert "cannot be understood" in bad.until("Error")["message"]
        with pytest.raises(ConnectionClosed):
            bad.receive()
        good.speak(sound[len(sound) // 2 :])
        assert good.finish() == said


def test_a_message_that_is_too_long_ends_that_client_alone(demo: kiku.Recognizer, said: str):
    with running(demo, max_message_bytes=100_000) as service:
        with kyutai(service.ws) as bad:
            bad.socket.send(bytes(100_001))
            with pytest.raises(ConnectionClosed) as closed:
                bad.until("Error")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        assert hear(service, samples_of(ANSWERS)) == said


def test_a_mistake_in_a_protocol_ends_its_own_connection(
    service: Running, said: str, monkeypatch: pytest.MonkeyPatch
):
    asked = KyutaiProtocol.event

    def event(self: KyutaiProtocol, event: Event, waiting_s: float) -> Actions:
        if self.session == "broken":
            raise RuntimeError("a mistake")
        return asked(self, event, waiting_s)

    monkeypatch.setattr(KyutaiProtocol, "event", event)
    with kyutai(service.ws, "?session=broken") as broken:
        broken.speak(np.zeros(FRAME, np.float32))
        with pytest.raises(ConnectionClosed) as closed:
            broken.until("Error")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
    assert hear(service, samples_of(ANSWERS)) == said


def test_a_reader_that_reads_nothing_is_dropped_and_holds_nobody_up(
    demo: kiku.Recognizer, said: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    begun = KyutaiProtocol.event

    def event(self: KyutaiProtocol, event: Event, waiting_s: float) -> Actions:
        more = [Send(bytes(2**20))] * 8 if self.session == "flood" else []
        return [*begun(self, event, waiting_s), *more]

    monkeypatch.setattr(KyutaiProtocol, "event", event)
    with running(demo, write_s=0.5, resume_s=0.0) as service:
        # Nobody answers its goodbye: it waits for that no longer than it must.
        with kyutai(service.ws, "?session=flood", max_queue=1, close_timeout=0.1) as slow:
            slow.speak(np.zeros(FRAME * 8, np.float32))
            assert hear(service, samples_of(ANSWERS)) == said
            wait_for(lambda: service.service.admission.num_taken == 0)
        text = service.service.metrics.text().decode()
        assert 'kind="SlowReader"' in text
    assert "does not read its messages" in caplog.text
    assert "Exception" not in caplog.text


@pytest.mark.parametrize("several", [False, True])
def test_what_waits_is_bounded_in_bytes_too(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, several: bool
):
    """Eight channels of 48 kHz in floats are 1.5 MB a second, which wait as they came."""
    goes_on, most, seconds = threading.Event(), 8 * 2**20, 30
    decode = SlotEngine.decode

    def waits(self: SlotEngine, *given: Any) -> Any:
        goes_on.wait(PATIENCE_S)
        return decode(self, *given)

    monkeypatch.setattr(SlotEngine, "decode", waits)
    query = "encoding=f32le&rate=48000&channels=8"
    ended: list[float] = []

    def client(service: Running) -> None:
        with connect(f"{service.ws}/api/stream?{query}", compression=None) as socket:
            all_are_there.wait(PATIENCE_S)  # nobody gets a slot while a step waits
            for _ in range(10 * seconds):
                socket.send(bytes(4_800 * 8 * 4))
            socket.send('{"type": "close"}')
            for message in socket:
                if json.loads(message)["type"] == "end":
                    ended.append(json.loads(message)["duration"])

    count = 3 if several else 1
    all_are_there = threading.Barrier(count)
    with running(demo, read_ahead_bytes=most) as service:
        clients = [threading.Thread(target=client, args=(service,)) for _ in range(count)]
        try:
            for one in clients:
                one.start()
            talks = service.app.sockets.talks
            wait_for(lambda: len(talks) == count)
            received = -1
            while received != (received := sum(one.counters.num_received for one in talks)):
                time.sleep(1.0)
            held = [one.waiting_bytes for one in talks]
            assert max(held) < most / 2 + 2**20
            assert most / 4 < sum(held) < 1.7 * most
            assert received < 1.7 * most + count * 2**20
            if several:
                assert service.service.room_bytes == pytest.approx(most / count)
        finally:
            goes_on.set()
        for one in clients:
            one.join()
    assert ended == [pytest.approx(seconds)] * count


def test_an_idle_connection_is_closed_with_a_reason(demo: kiku.Recognizer):
    with running(demo, idle_s=0.3) as service, kyutai(service.ws) as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.until("Error")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        assert "0.3 seconds" in closed.value.rcvd.reason


@pytest.mark.parametrize("container", [False, True])
def test_an_idle_client_is_told_what_was_heard(
    demo: kiku.Recognizer, container: bool, tmp_path: Path
):
    client = OwnClient("idle", samples_of(DIGITS)[: int(5.3 * RATE)])  # up to the last word
    with running(demo, idle_s=0.5) as service:
        query = {"container": "true"} if container else {}
        with client.at(service.ws, **query):
            if container:
                path = tmp_path / "digits.wav"
                with wave.open(str(path), "wb") as file:
                    file.setparams((1, 2, RATE, 0, "NONE", ""))
                    file.writeframes(client.sound)
                client.socket.send(path.read_bytes())
            else:
                client.speak(0, 5.3)
            while client.receive()["type"] != "end":
                pass
            with pytest.raises(ConnectionClosed):
                client.receive()
            assert client.socket.close_code == 1000
            assert "0.5 seconds" in (client.socket.close_reason or "")
    assert " ".join(client.words) == SPOKEN


def test_an_idle_client_whose_end_does_not_come_is_hung_up_on(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(talks, "_TELL_S", 0.2)
    monkeypatch.setattr(OwnProtocol, "idle", lambda self, reason: [])
    client = OwnClient("endless", samples_of(DIGITS))
    with running(demo, idle_s=0.3) as service, client.at(service.ws):
        with pytest.raises(ConnectionClosed):
            client.receive()
        assert client.socket.close_code == 1000
        assert "0.3 seconds" in (client.socket.close_reason or "")


def test_requests_without_an_end_are_cut_off(demo: kiku.Recognizer):
    with running(demo, header_s=0.3) as service:
        with system.create_connection(("127.0.0.1", service.port)) as slow:
            slow.settimeout(PATIENCE_S)
            slow.sendall(b"GET /api/asr-streaming HTTP/1.1\r\nHost: x\r\n")
            assert slow.recv(100) == b""
        with kyutai(service.ws) as client:  # a socket may last longer than its head
            client.until("Ready")
            time.sleep(0.5)
            assert client.finish() == ""


def test_random_bytes_harm_nobody(service: Running, said: str):
    dice = np.random.default_rng(5)
    for size in (1, 30, 3_000, 100_000):
        with system.create_connection(("127.0.0.1", service.port)) as raw:
            raw.settimeout(PATIENCE_S)
            with suppress(ConnectionError):  # it is hung up on before all is sent or fetched
                raw.sendall(dice.bytes(size))
                raw.shutdown(system.SHUT_WR)
                while raw.recv(65_536):
                    pass
    assert hear(service, samples_of(ANSWERS)) == said


def test_silence_of_a_client_brings_the_open_word(service: Running, demo: kiku.Recognizer):
    sound = samples_of(ANSWERS)
    with kyutai(service.ws) as client:
        client.speak(sound)  # and nothing more: no marker, no close
        words = len(demo.transcribe(ANSWERS))
        while len(client.text.split()) < words:
            client.receive()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The digits in Ogg Opus."""
    path = tmp_path_factory.mktemp("ogg") / "digits.ogg"
    with av.open(str(path), "w") as out, av.open(str(DIGITS)) as source:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        for frame in source.decode(audio=0):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


class TestContainers:
    """What is asked behind the bytes of a recording comes behind its sound."""

    @staticmethod
    def parts(recording: bytes) -> list[bytes]:
        return [recording[at : at + 4_000] for at in range(0, len(recording), 4_000)]

    def test_a_marker_comes_behind_all_words(self, service: Running, recording: bytes):
        with kyutai(service.ws) as client:
            for part in self.parts(recording):
                client.send(type="OggOpus", data=part)
            assert client.finish() == SPOKEN

    def test_a_finalize_of_deepgrams_tells_all_words(self, service: Running, recording: bytes):
        heard: list[str] = []
        with connect(f"{service.ws}/v1/listen?model=nova-3") as socket:
            for part in self.parts(recording):
                socket.send(part)
            socket.send(json.dumps({"type": "Finalize"}))
            is_answered = False
            while not is_answered:
                message = json.loads(socket.recv(PATIENCE_S))
                is_answered = bool(message.get("from_finalize"))
                if message["type"] == "Results" and message["is_final"]:
                    heard.append(message["channel"]["alternatives"][0]["transcript"])
        assert " ".join(filter(None, heard)) == SPOKEN

    def test_finalizes_gaps_and_words_to_expect_keep_their_place(
        self, service: Running, demo: kiku.Recognizer, recording: bytes
    ):
        client = OwnClient("recorded", np.zeros(0, np.float32))
        with client.at(service.ws, container="true"):
            for part in self.parts(recording):
                client.socket.send(part)
            client.tell(type="gap", seconds=3.0)
            client.tell(type="configure", hotwords=["seven"])
            client.tell(type="finalize", tag="mine")
            while client.receive()["type"] != "finalized":
                pass
        assert " ".join(client.words) == SPOKEN
        wanted = demo.transcribe(DIGITS)
        starts = [one["start"] for one in client.messages if one["type"] == "word"]
        assert starts == pytest.approx([one.start for one in wanted.words], abs=0.2)
        assert client.messages[-1]["time"] == pytest.approx(wanted.duration + 3.0, abs=0.1)


class TestSessions:
    """A client that was cut off comes back: no word is lost, none is doubled."""

    @pytest.fixture
    def service(self, demo: kiku.Recognizer) -> Iterator[Running]:
        with running(demo) as one:
            yield one

    @pytest.mark.parametrize("cut_at", [0.2, 0.45, 0.8])
    def test_the_text_is_whole(self, service: Running, said: str, cut_at: float):
        sound = samples_of(ANSWERS)
        name = f"s{cut_at}"
        with kyutai(service.ws, f"?session={name}") as first:
            assert first.receive() == {"type": "Ready", "session": name, "taken": 0}
            first.speak(sound[: int(cut_at * len(sound))])
            if cut_at > 0.3:
                first.until("Word")
            cut(first)
        with kyutai(service.ws, f"?session={name}&after={first.count}") as second:
            ready = second.receive()
            assert ready["session"] == name
            taken = ready["taken"]
            assert 0 < taken <= int(cut_at * len(sound))
            second.speak(sound[taken:])
            second.finish()
        both = [one for one in [*first.messages, *second.messages] if one["type"] == "Word"]
        assert " ".join(one["text"] for one in both) == said
        steps = [one["step_idx"] for one in [*first.messages, *second.messages]
                 if one["type"] == "Step"]  # fmt: skip
        assert steps == sorted(set(steps))  # those that came while nobody listened are not kept
        assert steps[-1] >= len(sound) // FRAME

    def test_an_old_connection_that_seems_alive_gives_way(self, service: Running, said: str):
        sound = samples_of(ANSWERS)
        with kyutai(service.ws, "?session=twin") as first:
            first.speak(sound[: len(sound) // 2])
            first.until("Word")
            with kyutai(service.ws, f"?session=twin&after={first.count}") as second:
                second.speak(sound[second.receive()["taken"] :])
                second.finish()
                with pytest.raises(ConnectionClosed):
                    first.until("Error")
        words = [one["text"] for one in second.messages if one["type"] == "Word"]
        assert said.endswith(" ".join(words))

    def test_of_two_who_come_back_at_once_the_last_goes_on(self, demo: kiku.Recognizer, said: str):
        """The connection before them is still busy when they come."""
        client, other = (OwnClient("rush", samples_of(ANSWERS)) for _ in range(2))
        with running(demo, resume_s=0.5) as service:
            busy = BusyReader(service, client)
            query = f"{service.ws}/api/stream?session=rush&after={client.count}"
            with connect(query) as second:
                wait_for(lambda: busy.newcomer is not None)
                waiting = busy.newcomer
                with connect(query) as client.socket:
                    wait_for(lambda: busy.newcomer is not waiting)
                    busy.goes_on()
                    with pytest.raises(ConnectionClosed):
                        second.recv(PATIENCE_S)
                    assert second.close_code == 1012
                    ready = json.loads(client.socket.recv(PATIENCE_S))
                    time.sleep(1.0)  # longer than who is away may be
                    assert client.finish(ready["taken_s"]) == said
            wait_for(lambda: not service.app.sockets.talks)
            with other.at(service.ws):
                assert other.finish(0) == said

    def test_who_waits_to_go_on_with_a_talk_that_ends_is_hung_up_on(self, demo: kiku.Recognizer):
        client = OwnClient("late", samples_of(ANSWERS))
        with running(demo) as service:
            busy = BusyReader(service, client)
            with connect(f"{service.ws}/api/stream?session=late&after=1") as second:
                wait_for(lambda: busy.newcomer is not None)
                service.call(busy.talk.end_service)
                busy.goes_on()
                with pytest.raises(ConnectionClosed):
                    second.recv(PATIENCE_S)
                assert second.close_code == 1012

    def test_it_begins_anew_where_too_much_was_missed_or_the_time_is_over(
        self, demo: kiku.Recognizer
    ):
        with running(demo, resume_s=0.2) as service:
            with kyutai(service.ws, "?session=a") as first:
                first.speak(np.zeros(FRAME * 3, np.float32))
                first.until("Step")
                cut(first)
            wait_for(lambda: not service.app.sockets.talks)
            wait_for(lambda: service.service.admission.num_taken == 0)
            with kyutai(service.ws, "?session=a&after=0") as second:
                assert second.receive()["taken"] == 0

    @pytest.mark.parametrize("after", ["", "-1", "x", "99999", "1e3"])
    def test_a_place_that_cannot_be_begins_anew(self, service: Running, after: str):
        with kyutai(service.ws, "?session=b") as first:
            first.speak(np.zeros(FRAME * 3, np.float32))
            first.until("Step")
            cut(first)
        with kyutai(service.ws, f"?session=b&after={after}") as second:
            assert second.receive()["taken"] == 0
        # Nobody could come back to the first: its slot is free long before its minute is over.
        wait_for(lambda: service.service.admission.num_taken == 0, 30)

    def test_who_says_goodbye_does_not_come_back(self, service: Running):
        with kyutai(service.ws, "?session=d") as first:
            first.speak(np.zeros(FRAME * 3, np.float32))
            first.until("Step")
        wait_for(lambda: not service.app.sockets.talks)
        wait_for(lambda: service.service.admission.num_taken == 0)

    @pytest.mark.parametrize("how", ["cut", "dead"])
    def test_the_end_is_told_to_who_was_away_when_it_came(
        self, demo: kiku.Recognizer, said: str, how: str
    ):
        client = OwnClient("end", samples_of(ANSWERS))
        with running(demo) as service, relay(service.port) as between:
            admission = service.service.admission
            address = f"ws://127.0.0.1:{between.port}"
            with client.at(address):
                client.speak(0, client.seconds)
                client.words_until(2)
                (talk,) = service.app.sockets.talks
                between.swallows = how == "dead"  # the end is written, and arrives nowhere
                if how == "cut":
                    between.cut()
                    wait_for(lambda: not is_connected(talk))
                service.call(lambda: talk._stream.do([Close()]))
                wait_for(lambda: talk._stream.ended is not None)
                between.cut()
            wait_for(lambda: admission.num_taken == 0)
            assert service.app.sockets.talks  # the words are kept, and the slot is not
            between.swallows = False
            with client.at(address) as ready:
                assert ready["taken_s"] == pytest.approx(client.seconds, abs=0.01)
                while client.receive(5.0)["type"] != "end":
                    pass
                with pytest.raises(ConnectionClosed):
                    client.receive()
                assert client.socket.close_code == 1000
            wait_for(lambda: not service.app.sockets.talks, 5.0)
        assert " ".join(client.words) == said

    def test_who_was_told_the_end_is_forgotten(self, service: Running):
        client = OwnClient("over", samples_of(ANSWERS))
        with client.at(service.ws):
            client.finish(0)
        wait_for(lambda: not service.app.sockets.talks, 5.0)
        with client.at(service.ws) as ready:
            assert ready["taken_s"] == 0

    def test_a_failure_is_told_to_who_was_away(
        self, service: Running, monkeypatch: pytest.MonkeyPatch
    ):
        def accept(self: WordSession, *given: Any) -> None:
            raise RuntimeError("it is broken")

        client = OwnClient("broken", samples_of(ANSWERS))
        with client.at(service.ws):
            client.speak(0, 2.0)
            client.words_until(1)
            (talk,) = service.app.sockets.talks
            client.cut()
        wait_for(lambda: not is_connected(talk))
        with monkeypatch.context() as patch:
            patch.setattr(WordSession, "accept", accept)
            service.call(lambda: talk._stream.do([Push(bytes(4 * FRAME))]))
            wait_for(lambda: stream_of(talk) is None)
        with client.at(service.ws):
            while client.receive(5.0)["type"] != "error":
                pass
            with pytest.raises(ConnectionClosed):
                client.receive()
            assert client.socket.close_code == 1011
        assert client.messages[-1]["message"] == "it is broken"

    def test_a_session_belongs_to_a_key(self, demo: kiku.Recognizer):
        with running(demo, api_key=("one", "two")) as service:
            with kyutai(service.ws, "?session=c&auth_id=one") as first:
                first.speak(np.zeros(FRAME * 3, np.float32))
                first.until("Step")
                cut(first)
            with kyutai(service.ws, "?session=c&after=0&auth_id=two") as second:
                assert second.receive()["taken"] == 0


def test_a_stream_that_fails_is_told_and_the_others_go_on(
    demo: kiku.Recognizer, said: str, monkeypatch: pytest.MonkeyPatch
):
    begun = WordSession.accept

    def accept(self: WordSession, *given: Any) -> None:
        if self.duration > 0 and marked and self is marked[0]:
            raise RuntimeError("it is broken")
        begun(self, *given)

    marked: list[WordSession] = []
    monkeypatch.setattr(WordSession, "accept", accept)
    with running(demo) as service, kyutai(service.ws) as bad:
        bad.until("Ready")
        (talk,) = service.app.sockets.talks
        stream = stream_of(talk)
        assert stream is not None
        marked.extend(stream._sessions.each)
        with suppress(ConnectionClosed):  # it goes on speaking when its stream has failed already
            for _ in range(50):
                bad.send(type="Audio", pcm=[0.0] * FRAME)
        assert bad.until("Error")["message"] == "it is broken"
        with pytest.raises(ConnectionClosed) as closed:
            bad.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert hear(service, samples_of(ANSWERS)) == said
