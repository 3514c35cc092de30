"""Work in a slot, piece by piece."""

from typing import Any

from kiku.stream.recovery import Redecode, Truncate
from kiku.stream.work import RedecodeWork, TruncateWork


class Slot:
    """Has so many columns to read again."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[tuple[int, int | None]] = []

    def _read(self, frames: int, most: int | None) -> int:
        self.asked.append((frames, most))
        read = self.left if most is None else min(most, self.left)
        self.left -= read
        return read

    def truncate(self, frames: int, most: int | None) -> int:
        self._read(frames, most)
        return self.left

    def redecode(self, frames: int, most: int | None) -> tuple[tuple[list[int], list[float]], int]:
        read = self._read(frames, most)
        return (list(range(self.left, self.left + read)), [-0.5] * read), self.left


class Client:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def truncated(self, action: Truncate) -> None:
        self.told.append(action)

    def redecoded(self, action: Redecode, tokens: Any) -> None:
        self.told.append((action, tokens))


def test_a_truncation_says_whether_more_is_left_and_tells_its_client_once() -> None:
    slot, client, work = Slot(20), Client(), TruncateWork(Truncate(20))
    assert [work.run(slot, client, 8) for _ in range(3)] == [True, True, False]  # pyright: ignore
    assert slot.asked == [(20, 8)] * 3
    assert client.told == [Truncate(20)]


def test_what_is_decoded_again_in_pieces_is_told_as_a_whole() -> None:
    action = Redecode(5, "loop", "it looped")
    slot, client, work = Slot(5), Client(), RedecodeWork(action)
    assert [work.run(slot, client, 2) for _ in range(3)] == [True, True, False]  # pyright: ignore
    assert client.told == [(action, ([3, 4, 1, 2, 0], [-0.5] * 5))]
