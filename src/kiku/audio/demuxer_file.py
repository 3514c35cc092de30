"""The bytes of a recording as FFmpeg's demuxers read them, through PyAV.

Keeps Ctrl-C and errors of a disk from being lost in PyAV's C code. Does not know what the bytes
mean (`container`), nor where they come from (`source`).
"""

from collections.abc import Callable, Generator
from functools import partial
from struct import Struct
from typing import TypeVar

from av.error import FFmpegError

from kiku.audio.ogg import OggLink
from kiku.audio.source import Reader

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")

AV_ERRORS = (FFmpegError, ValueError, ArithmeticError, RuntimeError)
"""PyAV's own errors, and what its Python layer raises besides."""

# A seek that a demuxer asks for: whether there is one, its offset, and from where that counts.
_MOVE = Struct("<?qi")


class DemuxerFile:
    """The bytes of a recording, or of one link of it, as PyAV reads them.

    If a call that PyAV makes here raises, PyAV's C code passes on only an `Exception`. Ctrl-C is
    printed and forgotten, and the recording goes on or seems to end there; `SystemExit` ends the
    process at once. A `try` inside a function does not help: a signal's handler may run where the
    function begins, before its first line. So nothing that PyAV calls here begins in Python: `read`
    and `tell` resume generators, in the middle of a `try`; `seek` is a function in C, which notes
    where to go before the next read or tell.
    """

    def __init__(self, reader: Reader, link: OggLink | None) -> None:
        """Prepare for PyAV. Whatever is raised in a call is kept in `reader` (see `_answers`)."""
        file = reader if link is None else link
        self.name, self.seekable = file.name, file.seekable
        place = _Place(reader, file)
        reads, tells = _answers(reader, place.read, b""), _answers(reader, place.tell, 0)
        next(reads)
        next(tells)
        self.read, self.tell = reads.send, tells.__next__
        # It returns None; PyAV calls `tell` if it needs the new offset.
        self.seek = partial(_MOVE.pack_into, place.move, 0, True)


class _Place:
    """The place of a demuxer in a recording, and the place to which it has asked to go."""

    def __init__(self, reader: Reader, file: Reader | OggLink) -> None:
        """`file` is all of `reader`, or a link of it."""
        self.move = bytearray(_MOVE.size)
        self._reader, self._file = reader, file

    def read(self, num_bytes: int) -> bytes:
        """The next bytes."""
        self._go()
        return self._file.read(num_bytes)

    def tell(self, _: None) -> int:
        """The offset of the next byte."""
        self._go()
        return self._reader.tell()

    def _go(self) -> None:
        moves, offset, whence = _MOVE.unpack(self.move)
        if moves:
            self.move[0] = False
            self._reader.seek(offset, whence)


def _answers(
    reader: Reader, ask: Callable[[_Asked], _Answer], nothing: _Answer
) -> Generator[_Answer, _Asked, None]:
    """A generator that gives `nothing` first, and then the answer of `ask` to each value that is
    sent to it. It never raises: an error becomes the reader's `failure`, and an interruption, such
    as Ctrl-C, becomes its `interruption`, after which all answers are `nothing`."""
    answer = nothing
    while True:
        try:
            while True:  # within the `try`: a second signal may come where the loop repeats
                try:
                    asked = yield answer
                    answer = nothing
                    if reader.interruption is None:
                        answer = ask(asked)
                except GeneratorExit:
                    return
                except AV_ERRORS as error:
                    answer, reader.failure = nothing, error
                except BaseException as error:
                    answer, reader.interruption = nothing, reader.interruption or error
        except BaseException as error:
            answer, reader.interruption = nothing, reader.interruption or error
