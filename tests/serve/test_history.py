"""Which messages of a session are kept, and that of the others it is known that they are not."""

from kiku.serve.history import MOST, MOST_BYTES, History
from kiku.serve.protocols.interface import Send


def test_all_messages_of_the_usual_length_are_kept():
    history = History()
    for i in range(MOST + 1):
        history.add(Send(f"{i} " + 300 * "x"))
    assert not history.knows_behind(0)
    assert history.knows_behind(1)
    assert [one.data[:6] for one in history.behind(MOST)] == ["20000 "]


def test_long_ones_are_kept_as_far_as_there_is_room():
    for history in (History(), History(["old"] * 5, 5)):
        count = history.count
        for i in range(100):
            history.add(Send(bytes([i]) * 2**20))
        kept = history.behind(0)
        assert sum(len(one.data) for one in kept) <= MOST_BYTES
        assert history.count == count + 100
        assert not history.knows_behind(history.count - len(kept) - 1)
        assert history.knows_behind(history.count - len(kept))
        assert kept[-1].data[:1] == bytes([99])


def test_a_message_that_is_too_long_by_itself_is_known_to_be_missing():
    history = History(["a", bytes(MOST_BYTES)], 2)
    assert history.behind(0) == []
    assert history.knows_behind(2)
    assert not history.knows_behind(1)
    history.add(Send("b"))
    assert [one.data for one in history.behind(2)] == ["b"]
