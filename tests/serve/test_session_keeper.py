"""The keeper of sessions: a talk that cannot be written keeps no other from being written."""

import pytest

import kiku
from kiku.serve import session_keeper
from kiku.serve.talk import Talk
from tests.serve.test_resumed_talks import Client, in_a_loop, texts
from tests.serve.toy import ToyService, settle, toy_store

__all__ = ["toy_store"]

pytestmark = pytest.mark.usefixtures("toy_store")


def break_snapshots(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*given: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(talk.recorder, "snapshot", snapshot)


@in_a_loop
async def test_a_talk_that_cannot_be_written_keeps_no_other_from_it(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session_keeper, "_TICK_S", 0.0)
    monkeypatch.setattr(session_keeper, "KEEP_S", 0.0)
    a, b, bad, good = ToyService(demo), ToyService(demo), Client(12), Client(12)
    for client, session in ((bad, "bad"), (good, "good")):
        await client.connect(a, session=session)
        await client.speak(20)
    await settle()  # both are written
    break_snapshots(a.talks[0], monkeypatch)
    for client in (bad, good):
        await client.speak(20)
    await a.hear(3.0)
    await settle()
    for client in (bad, good):
        client.read()
        assert len(client.words) > 2
    assert caplog.text.count("its session cannot be kept any more") == 1
    bad.cut()
    await bad.connect(a, session="bad")  # it lives on where it is
    assert bad.num_resumed == 1
    await a.kill(writes=False)
    for client, session in ((bad, "bad"), (good, "good")):
        client.cut()
        await client.connect(b, session=session)
    assert bad.num_begun == 1
    assert good.num_begun == 0
    assert good.ready["taken_bytes"] == 40 * 3_840
    for client in (bad, good):
        await client.finish(b)
        assert client.words == texts(12)


@in_a_loop
async def test_a_talk_that_cannot_be_written_does_not_hold_up_the_end(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, bad, good = ToyService(demo), ToyService(demo), Client(12), Client(12)
    for client, session in ((bad, "bad"), (good, "good")):
        await client.connect(a, session=session)
        await client.speak(20)
        await a.write()
    break_snapshots(a.talks[0], monkeypatch)
    await a.end()
    for client, session in ((bad, "bad"), (good, "good")):
        client.read()
        assert client.connection is not None
        assert client.connection.code == 1012
        await client.connect(b, session=session)
        assert client.num_resumed == 1  # from what was written before
        await client.finish(b)
        assert client.words == texts(12)


@in_a_loop
async def test_a_client_comes_back_to_a_talk_that_cannot_be_written(
    demo: kiku.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, client = ToyService(demo), Client(12)
    await client.connect(a)
    await client.speak(20)
    await a.write()
    break_snapshots(a.talks[0], monkeypatch)
    client.cut()
    await settle()
    await client.connect(a)
    assert client.num_resumed == 1
    await client.finish(a)
    assert client.words == texts(12)
