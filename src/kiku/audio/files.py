"""Recordings in any container and codec -> chunks of sound, as a stream.

Only the present frame is kept in memory. Does not know where bytes come from (`source`), how
containers are opened (`container`), when a player would play a frame (`player`), nor whether a file
holds less than it states (`truncation`).
"""

import logging
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container.input import InputContainer

from kiku.audio.checks import OnWarning, StreamWarning
from kiku.audio.chunk import Chunk
from kiku.audio.container import (
    audio_track,
    chunk_of,
    format_of,
    frames,
    may_restart,
    open_container,
    refuse,
    start_s,
    stated_s,
)
from kiku.audio.course import Course
from kiku.audio.input import AudioInput
from kiku.audio.ogg import MAGIC, OggLink, ogg_links
from kiku.audio.player import PlayerClock
from kiku.audio.samples import chunk_size_of, even_chunks, fed
from kiku.audio.source import FileSource, Reader, open_source
from kiku.audio.truncation import Heard, whole_length_s
from kiku.errors import AudioError, TruncatedAudio

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)

# Names of formats that are samples and nothing else, which FFmpeg recognises by the extension of a
# file (".ul", ".sw"): it assumes 44,100 samples a second, whatever the rate is.
_HEADERLESS = re.compile(r"alaw|mulaw|vidc|[fsu](8|16|24|32|64)([bl]e)?")
# Codecs that keep floats as they were written.
_WRITTEN_FLOATS = ("pcm_", "wavpack")
# Formats in which only sound follows the sound: if the end cannot be decoded, it was cut off.
_STRICT_FORMATS = frozenset({"matroska", "mov", "mpegts", "flv", "nut"})


def read_file(
    source: FileSource, *, on_warning: OnWarning | None = None, track: int | None = None
) -> Generator[Chunk, None, None]:
    """Decode a recording into chunks for `AudioInput.feed`, one at each step of the iterator.

    Any container and codec that PyAV opens, with any rate and sample format. Sound that is missing
    or damaged in the middle becomes a gap where the format states its length, so that later times
    stay right, and a warning is logged.

    Args:
        source: a path, "-" for standard input, or a file open for reading bytes (a pipe will do).
        on_warning: called with each warning; None logs it.
        track: which of several audio tracks, from 0; None is the default one.

    Returns:
        Chunks with the recording's own samples, [S] or [S, C] at its own rate, as integers where it
        has integers and otherwise as float32; and gaps.

    Raises:
        AudioError: while iterating, for no such file, a folder, no permission, not a media file, no
            audio track or none of this number, no samples, samples without a header, floats beyond
            64.
        TruncatedAudio: after the last chunk, if the recording ends too early.
    """
    return _decode(source, on_warning or _log, refuse_bad=False, track=track)


def read_chunks(
    source: FileSource,
    sample_rate: int,
    *,
    chunk_s: float = 1.0,
    on_warning: OnWarning | None = None,
) -> Iterator[npt.NDArray[np.float32]]:
    """Decode and resample a recording, one chunk at each step of the iterator.

    Any container and codec that PyAV opens, with any rate and sample format. Of several audio
    tracks the default one is read; several channels become one by their mean. Sound that is missing
    or damaged in the middle is replaced by as much silence where the format states its length, so
    that later times stay right, with a warning.

    Args:
        source: a path, "-" for standard input, or a file open for reading bytes (a pipe will do).
        sample_rate: samples a second of what comes out, 1,000 to 768,000.
        chunk_s: seconds in a chunk.
        on_warning: called with each warning, those about the sound (silence, clipping, channels
            that cancel) after the last sample. None logs what is damaged, and does not check the
            sound.

    Returns:
        An iterator of [S] float32 chunks of `round(chunk_s * sample_rate)` samples, the last one
        shorter.

    Raises:
        AudioError: at the call, for `sample_rate` or `chunk_s`; while iterating, for no such file,
            a folder, no permission, not a media file, no audio track, no samples, NaN or infinity.
        TruncatedAudio: while iterating, after the last readable sample: the recording ends too
            early.
    """
    chunk_size = chunk_size_of(sample_rate, chunk_s)
    # Plain samples come without marks where they were no numbers, so NaN and infinity are refused.
    return even_chunks(_fed(source, sample_rate, on_warning), chunk_size)


def duration_s(source: FileSource, track: int | None = None) -> float | None:
    """The length that a recording states, in seconds, for a progress bar; None if it states none.

    It is an estimate for some formats (mp3, raw aac). Nothing is consumed: standard input and pipes
    give None, and an open file is put back to where it stood. A recording that cannot be read gives
    None too; `read_chunks` says why.
    """
    return _peeked(source, track, stated_s)


def num_channels(source: FileSource, track: int | None = None) -> int | None:
    """The number of channels that a recording states; None where `duration_s` would give None."""
    return _peeked(source, track, lambda _, found: found.codec_context.channels or None)


def _peeked(
    source: FileSource,
    track: int | None,
    look: Callable[[InputContainer, AudioStream], _T | None],
) -> _T | None:
    """What `look` finds in a recording, which is opened without consuming anything of it."""
    if (
        isinstance(source, str | os.PathLike)
        and os.fspath(source) != "-"
        and not os.path.isfile(source)
    ):
        return None  # a named pipe can be opened once: its writer would be cut off
    try:
        with open_source(source) as reader:
            if not reader.seekable():
                return None
            try:
                with open_container(reader) as container:
                    return look(container, audio_track(container, reader, track))
            finally:
                reader.rewind()
    except AudioError:
        return None


@dataclass(slots=True)
class _Read:
    """How one recording is read, and how much of it was read, all its links together."""

    reader: Reader
    on_warning: OnWarning
    refuse_bad: bool
    """Whether NaN and infinity are refused."""
    clock: PlayerClock
    track: int | None = None
    """Which audio track is read, from 0; None is the default one."""
    num_channels: int = 0
    """Channels of the first frame; 0 before it."""
    num_samples: int = 0
    """Samples of the sound so far, gaps not counted."""


def _log(warning: StreamWarning) -> None:
    _logger.warning("%s", warning.message)


def _fed(
    source: FileSource, sample_rate: int, on_warning: OnWarning | None
) -> Generator[npt.NDArray[np.float32], None, None]:
    audio = AudioInput(sample_rate, checks=on_warning is not None)
    with closing(_decode(source, on_warning or _log, refuse_bad=True)) as chunks:
        yield from fed(audio, chunks, on_warning)


def _decode(
    source: FileSource, on_warning: OnWarning, *, refuse_bad: bool, track: int | None = None
) -> Generator[Chunk, None, None]:
    """The chunks of a recording, and then the error, if it ends too early. NaN and infinity are
    refused with `refuse_bad`, and otherwise left in."""
    with open_source(source) as reader:
        read = _Read(reader, on_warning, refuse_bad, PlayerClock(on_warning), track)
        is_ogg = reader.peek(len(MAGIC)) == MAGIC
        try:
            yield from _decode_links(read) if is_ogg else _decode_one(read, None)
        finally:
            read.clock.report()


def _decode_links(read: _Read) -> Iterator[Chunk]:
    """The chunks of an ogg recording, link by link; after a fault in one link, the next is read."""
    broken: AudioError | None = None
    for link in ogg_links(read.reader):
        if broken is not None:
            read.on_warning(StreamWarning("damaged", str(broken), read.clock.given_s))
        broken = None
        try:
            yield from _decode_one(read, link)
        except TruncatedAudio as error:
            broken = error
        except AudioError as error:
            broken = error
            if read.num_samples:
                broken = TruncatedAudio(
                    f"{read.reader.label} cannot be read beyond {read.clock.given_s:.2f} s "
                    f"({error}): what comes before was read"
                )
    if broken is not None:
        raise broken


def _decode_one(read: _Read, link: OggLink | None) -> Iterator[Chunk]:
    """The chunks of one container, and then the error, if it ends too early."""
    with open_container(read.reader, link) as container:
        _refuse_headerless(container, read.reader)
        track = audio_track(container, read.reader, read.track)
        course, clock = Course(), read.clock
        length_s = stated_s(container, track)
        # A track that begins after the picture keeps its place in the film.
        clock.begin(may_restart=may_restart(container), is_filled=course.is_filled)
        is_coded = not track.codec_context.name.startswith(_WRITTEN_FLOATS)
        try:
            for frame, time in frames(container, track, read.reader, course):
                first_sample = read.num_samples if read.refuse_bad else None
                chunk = chunk_of(frame, read.reader, first_sample, is_coded=is_coded)
                read.num_samples += frame.samples
                yield from clock.place(_as_at_first(chunk, read), time)
        except AudioError:
            yield from clock.rest()
            raise
        yield from clock.rest()
        _check_end(container, track, read, course, length_s=length_s, link=link)


def _refuse_headerless(container: InputContainer, reader: Reader) -> None:
    name = format_of(container)
    if _HEADERLESS.fullmatch(name):
        raise AudioError(
            f"{reader.label} contains samples ({name}) without a header, so their rate is not "
            "known: give their format, as in kiku transcribe --raw mulaw,8000,1"
        )


def _as_at_first(chunk: Chunk, read: _Read) -> Chunk:
    """The chunk itself; but if it is mono and the recording had more channels at first, its channel
    is repeated for each of them, so that a session that takes one of them still gets sound."""
    read.num_channels = read.num_channels or chunk.num_channels
    data = chunk.data
    if chunk.num_channels != 1 or read.num_channels == 1 or not isinstance(data, np.ndarray):
        return chunk
    planes = np.broadcast_to(data[:, None], (len(data), read.num_channels))
    return Chunk(planes, chunk.rate, chunk.num_samples, read.num_channels, None, chunk.peak)


def _warn_of_damage(read: _Read, course: Course) -> None:
    """Warn if packets could not be decoded, or silence took their place."""
    silence_s, read.clock.silence_s = read.clock.silence_s, 0.0
    if course.num_damaged or silence_s:
        message = (
            f"{read.reader.label} is damaged: packets that could not be decoded: "
            f"{course.num_damaged}; silence in their place: {silence_s:.2f} s"
        )
        read.on_warning(StreamWarning("damaged", message, read.clock.given_s))


def _check_end(
    container: InputContainer,
    track: AudioStream,
    read: _Read,
    course: Course,
    *,
    length_s: float | None,
    link: OggLink | None,
) -> None:
    """At the end of a recording, refuse it if it held no sound, warn if it was damaged, and raise
    TruncatedAudio if it was cut off."""
    reader, given_s = read.reader, read.clock.given_s
    if given_s == 0:
        if reader.failure is not None or (reader.head[4:8] == b"ftyp" and not reader.seekable()):
            refuse(reader)
        if course.lacked_memory:
            raise AudioError(
                f"{reader.label} cannot be decoded: the recording needs more memory than there "
                "is; copy or convert it"
            )
        what = "no sound that can be decoded" if course.num_damaged else "no samples"
        raise AudioError(f"{reader.label} contains {what}: record or copy it again")
    if reader.failure is not None:
        raise TruncatedAudio(
            f"{reader.label} could not be read beyond {given_s:.2f} s ({reader.failure}): "
            "what comes before was read; check the disk or the connection"
        ) from reader.failure
    _warn_of_damage(read, course)
    format_name, last = format_of(container), course.last_packet
    whole_s = whole_length_s(
        format_name,
        track,
        reader,
        Heard(
            length_s,
            max(given_s, read.clock.end_s),
            course.file_end_s,
            course.num_packets,
            b"" if last is None else bytes(last),
            is_last_short=last is not None and last.is_corrupt,
            start_s=start_s(container),
            last_place=None if last is None else last.pos,
        ),
    )
    damaged_end = course.num_damaged_last > 0 and format_name in _STRICT_FORMATS
    never_ended = link is not None and not link.is_ended
    if whole_s is None and not damaged_end and not course.gave_up and not never_ended:
        return
    stated = ""
    if whole_s is not None and whole_s > given_s:
        stated = f" although it states {whole_s:.2f} s"
    raise TruncatedAudio(
        f"{reader.label} ends early, after {given_s:.2f} s{stated}: what comes before was read; "
        "copy or record it again to have the rest"
    )
