"""Which messages of a session are kept, and that of the others it is known that they are not."""

from kiku.serve.message_history import MAX_BYTES, MAX_MESSAGES, MessageHistory
from kiku.serve.protocols.interface import Send


def test_all_messages_of_the_usual_length_are_kept():
    history = MessageHistory()
    for i in range(MAX_MESSAGES + 1):
        history.add(Send(f"{i} " + 300 * "x"))
    assert not history.has_all_after(0)
    assert history.has_all_after(1)
    assert [one.data[:6] for one in history.after(MAX_MESSAGES)] == ["20000 "]


def test_long_ones_are_kept_as_far_as_there_is_room():
    for history in (MessageHistory(), MessageHistory(["old"] * 5, 5)):
        count = history.count
        for i in range(100):
            history.add(Send(bytes([i]) * 2**20))
        kept = history.after(0)
        assert sum(len(one.data) for one in kept) <= MAX_BYTES
        assert history.count == count + 100
        assert not history.has_all_after(history.count - len(kept) - 1)
        assert history.has_all_after(history.count - len(kept))
        assert kept[-1].data[:1] == bytes([99])


def test_a_message_that_is_too_long_by_itself_is_known_to_be_missing():
    history = MessageHistory(["a", bytes(MAX_BYTES)], 2)
    assert history.after(0) == []
    assert history.has_all_after(2)
    assert not history.has_all_after(1)
    history.add(Send("b"))
    assert [one.data for one in history.after(2)] == ["b"]
