"""Containers and codecs, opened by PyAV -> frames of one audio track, with their timestamps.

Knows PyAV and how its formats misbehave. Does not know how frames become chunks of a recording
(`files`), nor when each should be played (`player`).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container.input import InputContainer
from av.error import EOFError as EndOfStream

from kiku.audio.chunk import Chunk
from kiku.audio.course import Course
from kiku.audio.demuxer_file import AV_ERRORS, DemuxerFile
from kiku.audio.formats import MAX_FLOAT, check_finite, checked_peak, simple
from kiku.audio.ogg import OggLink
from kiku.audio.resample import checked_rate
from kiku.audio.source import Reader
from kiku.errors import AudioError

if TYPE_CHECKING:
    from av.codec.context import CodecContext
    from av.packet import Packet
    from av.stream import Stream

# Formats whose demuxers fail where the bytes end, as if they were damaged there.
_FAIL_AT_END = frozenset({"wsaud"})
# A demuxer that fails this often in a row will not recover.
_MAX_DEMUX_ERRORS = 16
# With this many planes or more, PyAV does not know where they end.
_MAX_PLANES = 8
# FFmpeg's AVFMT_GENERIC_INDEX: the format has no index of its own, and no timestamps either; those
# that it has are counted from the bytes and say nothing. These two formats have true timestamps.
_NO_INDEX, _TIMED = 0x0100, frozenset({"ogg", "flac"})
# AVFMT_TS_DISCONT: timestamps may restart anywhere. (In ogg only from link to link.)
_RESTARTS = 0x0200
# Formats whose end and holes are judged by all tracks together.
_FILMS = frozenset({"matroska", "flv", "asf", "rm", "mpegts", "mpeg"})


class _Decoder(Protocol):
    """The part of PyAV's codec context that is used; its own annotation is incomplete."""

    def decode(self, packet: object) -> list[AudioFrame]: ...


def open_container(
    reader: Reader, link: OggLink | None = None
) -> AbstractContextManager[InputContainer]:
    """Open the container that `reader` holds, or one link of it; AudioError if it holds none."""
    try:
        container = av.open(
            DemuxerFile(reader, link),
            "r",
            metadata_errors="replace",
            # A playlist or session description must not make us open other files, or the network.
            container_options={"protocol_whitelist": "none"},
        )
    except AV_ERRORS:
        reader.raise_interruption()
        refuse(reader)
    if reader.interruption is not None:  # the bytes before it may be enough to open a container
        container.close()
    reader.raise_interruption()
    return container


def refuse(reader: Reader) -> NoReturn:
    """Raise the AudioError that says why nothing could be read from `reader`."""
    if reader.failure is not None:
        raise AudioError(
            f"{reader.label} could not be read ({reader.failure}): check the disk or the connection"
        ) from reader.failure
    if reader.num_bytes == 0:
        raise AudioError(f"{reader.label} is empty: record or copy it again") from None
    if reader.head[4:8] == b"ftyp":
        if not reader.seekable():
            raise AudioError(
                f"{reader.label} is an mp4 with its index at the end, which cannot be reached in "
                "a pipe: give it as a file"
            ) from None
        raise AudioError(
            f"{reader.label} is an mp4 without its index, so it was cut off or never finished: "
            "copy or record it again"
        ) from None
    raise AudioError(
        f"{reader.label} is not a recording that can be read: "
        "give an audio or video file, or convert it to wav or flac first"
    ) from None


def audio_track(
    container: InputContainer, reader: Reader, number: int | None = None
) -> AudioStream:
    """The audio track to decode: the one with this number, from 0, or the default one. AudioError
    if there is no such track."""
    tracks = container.streams.audio
    track = container.streams.best("audio") or next(iter(tracks), None)
    if number is not None and tracks:
        if number >= len(tracks):
            raise AudioError(
                f"{reader.label} has no audio track {number}: it has {_listed(tracks)}"
            )
        track = tracks[number]
    if not isinstance(track, AudioStream):
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        if not kinds or format_of(container) == "tty":
            refuse(reader)  # FFmpeg takes a text file for a film of letters
        raise AudioError(
            f"{reader.label} has no audio track (only {kinds}): give a recording with sound"
        )
    # Whatever the annotation says, a codec without a decoder has no context.
    if getattr(track, "codec_context", None) is None:
        raise AudioError(
            f"{reader.label} has sound in a codec without a decoder here: "
            "convert it to wav or flac first"
        )
    return track


def _listed(tracks: Sequence[AudioStream]) -> str:
    """The tracks in words: "0 (eng, aac, 2 channels), 1 (fra, Commentary, aac, 1 channel)"."""
    return ", ".join(f"{number} ({_described(track)})" for number, track in enumerate(tracks))


def _described(track: AudioStream) -> str:
    context: CodecContext | None = getattr(track, "codec_context", None)
    count = getattr(context, "channels", 0)
    parts = [
        track.metadata.get("language", ""),
        track.metadata.get("title", ""),
        "no decoder" if context is None else context.name,
        f"{count} {'channel' if count == 1 else 'channels'}" if count else "",
    ]
    return ", ".join(part for part in parts if part)


def format_of(container: InputContainer) -> str:
    """The first name of the container's format: "mov", "matroska", "wav" ..."""
    return container.format.name.split(",")[0]


def _has_timestamps(container: InputContainer) -> bool:
    """Whether its frames carry timestamps of their own, so that a jump in them has a meaning."""
    return format_of(container) in _TIMED or not container.format.flags & _NO_INDEX


def may_restart(container: InputContainer) -> bool:
    """Whether the container's timestamps may restart anywhere."""
    return bool(container.format.flags & _RESTARTS) and format_of(container) != "ogg"


def start_s(container: InputContainer) -> float:
    """The timestamp at which the recording begins, in seconds; a player counts from there."""
    return (getattr(container, "start_time", None) or 0) / av.time_base


def stated_s(container: InputContainer, track: AudioStream) -> float | None:
    """The length of a track in seconds, as it states or as FFmpeg estimates; None if neither is
    there."""
    if track.duration is not None and track.time_base is not None:
        seconds = float(track.duration * track.time_base)
    else:
        # Whatever the annotation says, this is absent where the container states none.
        seconds = (getattr(container, "duration", None) or 0) / av.time_base
    return seconds if seconds > 0 else None


def chunk_of(
    frame: AudioFrame, reader: Reader, first_sample: int | None, *, is_coded: bool = False
) -> Chunk:
    """The samples of a frame.

    Args:
        frame: the frame.
        reader: the recording that the frame is from.
        first_sample: index of the frame's first sample in the recording, for an error about a NaN
            or infinite sample; None leaves such samples in.
        is_coded: clip floats far above full scale, since FFmpeg's decoder of Opus sometimes gives
            bursts of hundreds. Otherwise such floats were integers, and are refused.
    """
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
        if is_coded and planes.dtype.kind == "f":
            planes = planes.clip(-MAX_FLOAT, MAX_FLOAT)
        peak = checked_peak(planes) if planes.dtype.kind == "f" else None
        if first_sample is not None:
            check_finite(planes, first_sample)
        return Chunk(planes, checked_rate(frame.sample_rate), num_samples, num_channels, None, peak)
    except AudioError as error:
        raise AudioError(f"{reader.label}: {error}") from None
    except (*AV_ERRORS, IndexError) as error:
        raise AudioError(
            f"{reader.label} has samples that cannot be converted ({error}): "
            "convert it to wav or flac first"
        ) from None


def frames(
    container: InputContainer, track: AudioStream, reader: Reader, course: Course
) -> Iterator[tuple[AudioFrame, float | None]]:
    """The decoded frames, each with its timestamp in seconds from the beginning of the recording,
    or None where the format has no true timestamps. Packets that cannot be decoded are left out.

    Raises:
        BaseException: whatever interrupted a read of `reader`, such as Ctrl-C.
    """
    timed, origin_s = _has_timestamps(container), start_s(container)
    decoder = cast("_Decoder", track.codec_context)
    for packet in _packets(container, track, reader, course):
        try:
            decoded = decoder.decode(packet)
        except EndOfStream:
            break
        except AV_ERRORS as error:
            course.lacked_memory |= isinstance(error, MemoryError)
            course.num_damaged += 1
            course.num_damaged_last += 1
            continue
        for frame in decoded:
            if frame.samples and frame.sample_rate:
                course.num_damaged_last = 0
                time = None
                if timed and frame.pts is not None and frame.time_base is not None:
                    time = float(frame.pts * frame.time_base) - origin_s
                yield frame, time


def _packets(
    container: InputContainer, track: AudioStream, reader: Reader, course: Course
) -> Iterator["Packet[Stream] | None"]:
    """The packets of `track`, then None, which makes the decoder give its last frames."""
    streams = container.streams.get() if format_of(container) in _FILMS else [track]
    num_errors, origin_s = 0, start_s(container)
    while num_errors < _MAX_DEMUX_ERRORS:
        try:
            for packet in container.demux(*streams):
                reader.raise_interruption()
                if packet.size == 0:
                    continue
                num_errors = 0
                is_sound = packet.stream_index == track.index
                if packet.pts is not None:
                    time, base = float(packet.pts * packet.time_base), packet.time_base
                    seconds = float((packet.duration or 0) * base)
                    course.note(time - origin_s, seconds, is_sound=is_sound)
                if is_sound:
                    course.num_packets += 1
                    course.last_packet = packet
                    yield packet
            break
        except IndexError:
            # At the end PyAV looks for tracks that it did not know when it opened the file.
            break
        except AV_ERRORS as error:
            course.lacked_memory |= isinstance(error, MemoryError)
            num_errors += 1
    reader.raise_interruption()
    is_end = format_of(container) in _FAIL_AT_END and reader.tell() >= reader.num_bytes
    course.gave_up = num_errors == _MAX_DEMUX_ERRORS and not is_end
    yield None
