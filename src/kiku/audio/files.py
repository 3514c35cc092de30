"""Recordings in any container and codec -> chunks of sound, as a stream.

Knows PyAV and how its formats misbehave; nothing of a recording but the frame at hand is kept in
memory. Does not know where bytes come from (`source`), nor when a file holds less than it says
(`truncation`).
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.error import EOFError as EndOfStream
from av.error import FFmpegError

from kiku.audio.chunk import Chunk
from kiku.audio.formats import check_finite, checked_peak, simple
from kiku.audio.input import AudioInput
from kiku.audio.resample import checked_rate
from kiku.audio.samples import chunk_size_of, even_chunks, fed
from kiku.audio.source import Reader, Source, open_source
from kiku.audio.truncation import whole_length_s
from kiku.errors import AudioError, TruncatedAudio

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)

# PyAV's own errors, and what its Python layer raises besides.
_AV_ERRORS = (FFmpegError, ValueError, ArithmeticError, RuntimeError)
# A demuxer that fails so often in a row will not recover.
_MAX_DEMUX_ERRORS = 16
# From as many planes on, PyAV does not know where they end.
_MAX_PLANES = 8
# Formats whose frames carry true timestamps, so that a jump in them is sound that is missing.
_TIMED_FORMATS = frozenset({"matroska", "mov", "flac", "ogg", "mpegts", "flv"})
# Formats in which nothing but sound follows the sound: an undecodable end was cut off.
_STRICT_FORMATS = frozenset({"matroska", "mov", "mpegts", "flv"})
# Jumps below are rounding of timestamps; jumps above are broken clocks.
_MIN_GAP_S, _MAX_GAP_S = 0.05, 60.0


def read_file(source: Source) -> Generator[Chunk, None, None]:
    """Decode a recording into chunks for `AudioInput.feed`, as the iterator is asked.

    Any container and codec that PyAV opens, with any rate and sample format. Of several audio
    tracks the default one is read. Sound that is missing or damaged in the middle becomes a gap
    where the format tells its length, so that later times stay right, and a warning is logged.

    Args:
        source: a path, "-" for standard input, or a file open for reading bytes (a pipe will do).

    Returns:
        The recording's own samples, [S] or [S, C] at its own rate, in integers where it has such
        and otherwise in float32; and gaps.

    Raises:
        AudioError: while iterating, for no such file, a folder, no permission, not a media file, no
            audio track, no samples, floats beyond 64.
        TruncatedAudio: after the last chunk: the recording ends too early.
    """
    return _decode(source, refuse_bad=False)


def read_chunks(
    source: Source, sample_rate: int, *, chunk_s: float = 1.0
) -> Iterator[npt.NDArray[np.float32]]:
    """Decode and resample a recording, chunk by chunk, as the iterator is asked.

    Any container and codec that PyAV opens, with any rate and sample format. Of several audio
    tracks the default one is read; several channels become one by their mean. Sound that is missing
    or damaged in the middle is replaced by as much silence where the format tells its length, so
    that later times stay right, and a warning is logged.

    Args:
        source: a path, "-" for standard input, or a file open for reading bytes (a pipe will do).
        sample_rate: samples a second of what comes out, 1,000 to 768,000.
        chunk_s: seconds in a chunk.

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
    # Who takes plain samples asks for no warnings: what is not a number is refused.
    return even_chunks(_fed(source, sample_rate), chunk_size)


def duration_s(source: Source) -> float | None:
    """How long a recording says it is, in seconds, for a progress bar; None where it does not say.

    An estimate for some formats (mp3, raw aac). Nothing is consumed: of standard input and pipes
    nothing is known, and an open file is put back to where it stood. What cannot be read has no
    duration either: `read_chunks` says why.
    """
    return _peeked(source, _stated_s)


def num_channels(source: Source) -> int | None:
    """How many channels a recording says it has; None where it does not say, as `duration_s`."""
    return _peeked(source, lambda _, track: track.codec_context.channels or None)


def _peeked(source: Source, look: Callable[[InputContainer, AudioStream], _T | None]) -> _T | None:
    """What `look` finds in an opened recording, of which nothing is consumed."""
    if (
        isinstance(source, str | os.PathLike)
        and os.fspath(source) != "-"
        and not Path(source).is_file()
    ):
        return None  # a named pipe can be opened once: whoever writes into it would be cut off
    try:
        with open_source(source) as reader:
            if not reader.seekable():
                return None
            try:
                with _open_container(reader) as container:
                    return look(container, _audio_track(container, reader))
            finally:
                reader.rewind()
    except AudioError:
        return None


class _Decoder(Protocol):
    """The part of PyAV's codec context that is used; its own annotation is incomplete."""

    def decode(self, packet: object) -> list[AudioFrame]: ...


@dataclass
class _Course:
    """How the reading of one recording went."""

    num_samples: int = 0  # of the sound that was given out
    given_s: float = 0.0  # sound and silence given out
    end_s: float = 0.0  # the end of the last frame by its own timestamp
    file_end_s: float = 0.0  # the end of the last packet of any track
    num_damaged: int = 0  # packets that could not be decoded
    num_damaged_last: int = 0  # those after the last good frame
    silence_s: float = 0.0  # put in the place of missing sound
    gave_up: bool = False  # the demuxer failed before the end


def _fed(source: Source, sample_rate: int) -> Generator[npt.NDArray[np.float32], None, None]:
    with closing(_decode(source, refuse_bad=True)) as chunks:
        yield from fed(AudioInput(sample_rate, checks=False), chunks)


def _decode(source: Source, *, refuse_bad: bool) -> Generator[Chunk, None, None]:
    """The chunks of a recording; at the end, raises what was wrong. What is not a number is refused
    or left in."""
    with open_source(source) as reader, _open_container(reader) as container:
        track = _audio_track(container, reader)
        course = _Course()
        stated_s = _stated_s(container, track)
        timed = _format(container) in _TIMED_FORMATS
        # A track that begins after the picture keeps its place in the film.
        start_s = (getattr(container, "start_time", None) or 0) / av.time_base
        for frame in _frames(container, track, course):
            rate = frame.sample_rate
            if timed and frame.pts is not None and frame.time_base is not None:
                frame_s = float(frame.pts * frame.time_base) - start_s
                gap_s = frame_s - course.given_s
                if _MIN_GAP_S < gap_s <= _MAX_GAP_S:
                    # What comes late at the beginning is not missing.
                    course.silence_s += gap_s if course.num_samples else 0.0
                    course.given_s += gap_s
                    yield Chunk(None, rate, round(gap_s * rate), frame.layout.nb_channels)
                course.end_s = max(course.end_s, frame_s + frame.samples / max(rate, 1))
            yield _chunk(frame, reader, course.num_samples if refuse_bad else None)
            course.num_samples += frame.samples
            course.given_s += frame.samples / rate
        _check_end(container, track, reader, course, stated_s)


def _open_container(reader: Reader) -> AbstractContextManager[InputContainer]:
    try:
        return av.open(
            reader,
            "r",
            metadata_errors="replace",
            # A playlist or session description must not make us open other files, or the network.
            container_options={"protocol_whitelist": "none"},
        )
    except _AV_ERRORS:
        _refuse(reader)


def _refuse(reader: Reader) -> NoReturn:
    """Say why nothing could be had from `reader`."""
    if reader.failure is not None:
        raise AudioError(
            f"{reader.label} could not be read ({reader.failure}): check the disk or the connection"
        ) from reader.failure
    if reader.num_bytes == 0:
        raise AudioError(f"{reader.label} is empty: record or copy it again") from None
    if reader.head[4:8] == b"ftyp":
        if not reader.seekable():
            raise AudioError(
                f"{reader.label} is an mp4 with its index at the end, which a pipe cannot reach: "
                "give it as a file"
            ) from None
        raise AudioError(
            f"{reader.label} is an mp4 without its index, so it was cut off or never finished: "
            "copy or record it again"
        ) from None
    raise AudioError(
        f"{reader.label} is not a recording that can be read: "
        "give an audio or video file, or convert it to wav or flac first"
    ) from None


def _audio_track(container: InputContainer, reader: Reader) -> AudioStream:
    track = container.streams.best("audio") or next(iter(container.streams.audio), None)
    if not isinstance(track, AudioStream):
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        if not kinds or _format(container) == "tty":
            _refuse(reader)  # FFmpeg takes a text file for a film of letters
        raise AudioError(
            f"{reader.label} has no audio track (only {kinds}): give a recording with sound"
        )
    # The annotation does not say so, but there is no context where no decoder exists.
    if getattr(track, "codec_context", None) is None:
        raise AudioError(
            f"{reader.label} has sound in a codec without a decoder here: "
            "convert it to wav or flac first"
        )
    return track


def _format(container: InputContainer) -> str:
    """The first name of the container's format: "mov", "matroska", "wav" ..."""
    return container.format.name.split(",")[0]


def _stated_s(container: InputContainer, track: AudioStream) -> float | None:
    if track.duration is not None and track.time_base is not None:
        stated_s = float(track.duration * track.time_base)
    else:
        # Absent where the container does not know, whatever the annotation says.
        stated_s = (getattr(container, "duration", None) or 0) / av.time_base
    return stated_s if stated_s > 0 else None


def _chunk(frame: AudioFrame, reader: Reader, first_sample: int | None) -> Chunk:
    """The samples of a frame. Of what is not a number the place is told, counted from
    `first_sample`; None leaves it in."""
    num_channels, num_samples = frame.layout.nb_channels, frame.samples
    try:
        packed = not frame.format.is_planar
        if frame.format.name.startswith("s64") or (not packed and num_channels >= _MAX_PLANES):
            # PyAV gives no array of 64-bit integers, and reads beyond the planes where there are
            # eight or more of them (this crashes the process): FFmpeg converts such frames.
            frame = AudioResampler(format="dbl").resample(frame)[0]
            packed = True
        array = frame.to_ndarray()
        if packed:
            planes = array[0, : num_samples * num_channels].reshape(-1, num_channels)
        else:
            planes = array[:, :num_samples].T
        planes = simple(planes if num_channels > 1 else planes[:, 0])
        peak = checked_peak(planes) if planes.dtype.kind == "f" else None
        if first_sample is not None:
            check_finite(planes, first_sample)
        return Chunk(planes, checked_rate(frame.sample_rate), num_samples, num_channels, None, peak)
    except AudioError as error:
        raise AudioError(f"{reader.label}: {error}") from None
    except (*_AV_ERRORS, IndexError) as error:
        raise AudioError(
            f"{reader.label} has samples that cannot be converted ({error}): "
            "convert it to wav or flac first"
        ) from None


def _frames(container: InputContainer, track: AudioStream, course: _Course) -> Iterator[AudioFrame]:
    """The decoded frames; packets that cannot be decoded are counted and left out."""
    decoder = cast("_Decoder", track.codec_context)
    for packet in _packets(container, track, course):
        try:
            frames = decoder.decode(packet)
        except EndOfStream:
            break
        except _AV_ERRORS:
            course.num_damaged += 1
            course.num_damaged_last += 1
            continue
        for frame in frames:
            if frame.samples and frame.sample_rate:
                course.num_damaged_last = 0
                yield frame


def _packets(
    container: InputContainer, track: AudioStream, course: _Course
) -> Iterator["Packet[Stream] | None"]:
    """The packets of `track`, then None, which makes the decoder give its rest."""
    # Of some formats only the end of all tracks together shows that they are whole.
    streams = container.streams.get() if _format(container) == "matroska" else [track]
    num_errors = 0
    while num_errors < _MAX_DEMUX_ERRORS:
        try:
            for packet in container.demux(*streams):
                if packet.size == 0:
                    continue
                num_errors = 0
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    course.file_end_s = max(course.file_end_s, float(end))
                if packet.stream_index == track.index:
                    yield packet
            break
        except IndexError:
            # At the end PyAV looks for tracks that it did not know when it opened the file.
            break
        except _AV_ERRORS:
            num_errors += 1
    course.gave_up = num_errors == _MAX_DEMUX_ERRORS
    yield None


def _check_end(
    container: InputContainer,
    track: AudioStream,
    reader: Reader,
    course: _Course,
    stated_s: float | None,
) -> None:
    """At the end of a recording: refuse it if it held nothing, say so if it was cut off."""
    if course.given_s == 0:
        if reader.failure is not None or (reader.head[4:8] == b"ftyp" and not reader.seekable()):
            _refuse(reader)
        what = "no sound that can be decoded" if course.num_damaged else "no samples"
        raise AudioError(f"{reader.label} holds {what}: record or copy it again")
    if reader.failure is not None:
        raise TruncatedAudio(
            f"{reader.label} could not be read beyond {course.given_s:.2f} s ({reader.failure}): "
            "what comes before was read; check the disk or the connection"
        ) from reader.failure
    if course.num_damaged or course.silence_s:
        _logger.warning(
            "%s is damaged: packets that could not be decoded: %d; silence in their place: %.2f s",
            reader.label,
            course.num_damaged,
            course.silence_s,
        )
    format_name = _format(container)
    whole_s = whole_length_s(
        format_name,
        track,
        reader,
        stated_s,
        end_s=max(course.given_s, course.end_s),
        file_end_s=course.file_end_s,
    )
    damaged_end = course.num_damaged_last > 0 and format_name in _STRICT_FORMATS
    if whole_s is None and not damaged_end and not course.gave_up:
        return
    stated = ""
    if whole_s is not None and whole_s > course.given_s:
        stated = f" although it says it lasts {whole_s:.2f} s"
    raise TruncatedAudio(
        f"{reader.label} breaks off after {course.given_s:.2f} s{stated}: "
        "what comes before was read; copy or record it again to have the rest"
    )
