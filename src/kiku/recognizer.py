"""The public face: a model, its slots, and every way to have it listen."""

import asyncio
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, BinaryIO, NoReturn, Protocol, cast, overload

import numpy as np
from numpy.typing import NDArray

from kiku.audio import (
    Chunk,
    StreamWarning,
    array_chunks,
    as_mono,
    decoded,
    duration_s,
    is_decoder,
    is_file,
    is_rated,
    read_file,
    read_twice,
    refuse_backwards,
    samples_of,
    source_of,
)
from kiku.audio.files import OnWarning
from kiku.config import ModelConfig
from kiku.decoding import Picker, token_picker
from kiku.engine import SamplingParams, SlotEngine
from kiku.errors import ConfigError, InputError
from kiku.foreign import TRANSCRIBING, explained, options_named
from kiku.live import LiveStream
from kiku.live_async import AsyncStream, Waiters
from kiku.open_stream import SavedStream, StreamSetup
from kiku.options import (
    MAX_CHANNELS,
    AudioFormat,
    DecodingOptions,
    Prompt,
    StreamOptions,
    callback,
    checked_stream_options,
    timeout_s,
)
from kiku.prompting import read_prompt
from kiku.scheduler import Binding, Member, Opening, Scheduler, SlotOptions
from kiku.serial import shown, whole_number
from kiku.stream import TokenSession, WordSession
from kiku.text import Vocabulary
from kiku.transcription import OnProgress, RecordingBatch, RecordingTask, Transcript, Transcription


class SampleArray(Protocol):
    """Samples in an array of numpy's, or in what gives one: a tensor in main memory."""

    def __array__(self) -> Any:
        """The array."""
        ...


class RecordingDecoder(Protocol):
    """Gives a recording's samples and their rate when it is asked, as torchcodec's `AudioDecoder`
    does."""

    def get_all_samples(self) -> Any:
        """Something with `data`, [C, S], and `sample_rate`."""
        ...


SourceSamples = SampleArray | tuple[int, SampleArray] | Mapping[str, Any] | RecordingDecoder
"""Samples, whose rate is said beside them; or with it: `(rate, samples)`, a row of a dataset, or a
decoder."""

Source = str | os.PathLike[str] | BinaryIO | SourceSamples
"""A path, "-" for standard input, an open binary file, or samples."""

_FOREIGN = {
    **options_named(
        [one.name for one in fields(DecodingOptions)],
        "write options=StreamOptions(decoding=DecodingOptions({}))",
    ),
    **options_named([one.name for one in fields(StreamOptions)], "write options=StreamOptions({})"),
    **TRANSCRIBING,
}
"""What is no argument of `transcribe`, and how it is said instead."""


class Recognizer:
    """A model with a number of slots, for any number of threads.

    `transcribe` is for recordings, `stream` and `astream` are for sound as it comes. All that is
    open at the same time is stepped together.
    """

    def __init__(
        self,
        engine: SlotEngine,
        config: ModelConfig,
        vocabulary: Vocabulary,
        *,
        name: str,
        max_block: int | None = None,
    ) -> None:
        """Around an engine that is ready; `load` makes one from a checkpoint.

        Args:
            engine: with its slots.
            config: of the model.
            vocabulary: its text tokens.
            name: how the model was called.
            max_block: frames of a stream that one step takes at most; None leaves it to the engine.
        """
        self.config = config
        self.vocabulary = vocabulary
        self.name = name
        self.scheduler = Scheduler(engine, max_block)
        """Through which all that is open is stepped: for who drives it himself."""
        self._state_key: bytes | None = None

    def __repr__(self) -> str:
        engine = self.scheduler.engine
        free, count = engine.free_slots, engine.num_slots
        return f"<Recognizer {self.name}, {engine.description}, {free} of {count} slots free>"

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a loaded model cannot be copied or sent to another process: send its name, and load "
            "it there"
        )

    @property
    def free_slots(self) -> int:
        """Slots that nothing holds."""
        return self.scheduler.free_slots

    @property
    def state_key(self) -> bytes | None:
        """Set it to sign saved streams with; only those signed with it are then taken."""
        return self._state_key

    @state_key.setter
    def state_key(self, key: bytes | None) -> None:
        if not (key is None or isinstance(key, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"state_key must be bytes or None, not a {type(key).__name__}: write "
                'b"a secret of your own", or text.encode()'
            )
        self._state_key = key

    # Live streams.

    def stream(
        self,
        options: StreamOptions | None = None,
        *,
        state: bytes | None = None,
        timeout: float | None = 0.0,
    ) -> LiveStream:
        """Open a live stream: push sound into it from any thread, and iterate over its events.

        Args:
            options: what it hears and says; None is words alone.
            state: what `save` of another stream gave, to go on with that; None begins a new one.
                Where `options` is None, text is picked as that stream did; else as they say behind
                the sound that it had been given.
            timeout: seconds to wait for a free slot; None waits as long as others hold them.

        Raises:
            NoFreeSlot: all slots are held.
            InputError: `options` or `timeout` are something else.
            ConfigError: options that this model cannot follow.
            StreamError: the state is damaged, or of another model, engine or key.
        """
        wait_s = timeout_s(timeout)
        options, members = self._live_members(options, state)
        bindings = self.scheduler.open(Opening(members, live=True), wait_s)
        return LiveStream(self._setup(options, bindings))

    async def astream(
        self,
        options: StreamOptions | None = None,
        *,
        state: bytes | None = None,
        timeout: float | None = 0.0,
        recorded: bool = False,
    ) -> AsyncStream:
        """As `stream`, for tasks: nothing of it blocks the event loop.

        Args:
            options: as `stream`.
            state: as `stream`.
            timeout: as `stream`.
            recorded: the sound is a recording's, pushed as fast as it is taken: it is heard in the
                time that streams of people who speak leave.
        """
        wait_s = timeout_s(timeout)
        options, members = await asyncio.to_thread(self._live_members, options, state)
        waiters = Waiters(asyncio.get_running_loop())
        at_once = wait_s is not None and wait_s <= 0
        opening = Opening(
            members, live=not recorded, driven=True, at_once=at_once, on_done=waiters.weak_wake
        )
        self.scheduler.request(opening)
        try:
            async with asyncio.timeout(None if at_once else wait_s):
                await waiters.until(lambda: opening.done)
        except TimeoutError:
            if not self.scheduler.cancel(opening):
                raise self.scheduler.no_free_slot(opening) from None
        except BaseException:
            self.scheduler.give_up(opening)
            raise
        return AsyncStream(self._setup(options, opening.result()), waiters)

    def _live_members(
        self, options: StreamOptions | None, state: bytes | None
    ) -> tuple[StreamOptions, list[Member]]:
        """What a live stream opens, from a saved state where there is one."""
        if state is None:
            options = checked_stream_options(options)
            return options, self._members(options, options.num_sessions())
        saved = SavedStream(state, self.state_key)
        decoding = None if options is None else checked_stream_options(options).decoding
        options = saved.hears(checked_stream_options(options))
        members = self._members(options, max(1, saved.num_channels))
        return options, [saved.member(i, one, decoding) for i, one in enumerate(members)]

    def _members(self, options: StreamOptions, count: int) -> list[Member]:
        """So many sessions as `options` want them, with what their slots need."""
        if count > MAX_CHANNELS:
            raise ConfigError(
                f"{count} channels cannot be heard one by one, {MAX_CHANNELS} can: "
                "choose one with `channel`, or mix them"
            )
        num_slots = self.scheduler.engine.num_slots
        if options.channel == "each" and count > num_slots:
            raise ConfigError(
                f"to hear {count} channels one by one takes as many slots, and there are "
                f"{num_slots}: load the model with slots={count}"
            )
        return [
            Member(
                WordSession(self.config, self.vocabulary, options, channel=channel),
                self._slot_options(options.decoding),
                None if options.prompt is None else options.prompt.slot,
            )
            for channel in (range(count) if options.channel == "each" else [None])
        ]

    def _slot_options(self, decoding: DecodingOptions) -> SlotOptions:
        picker = token_picker(decoding, self.vocabulary, self.config)
        return SlotOptions(picker, decoding.num_codebooks)

    def _setup(self, options: StreamOptions, bindings: Sequence[Binding]) -> StreamSetup:
        return StreamSetup(self.scheduler, options, bindings, lambda: self.state_key)

    # Recordings.

    @overload
    def transcribe(
        self,
        source: Source,
        options: StreamOptions | None = None,
        *,
        rate: int | None = None,
        timeout: float | None = None,
        progress: OnProgress | None = None,
    ) -> Transcript: ...
    @overload
    def transcribe(
        self,
        source: Sequence[Source],
        options: StreamOptions | None = None,
        *,
        rate: int | None = None,
        timeout: float | None = None,
        progress: OnProgress | None = None,
    ) -> list[Transcript]: ...
    @explained(_FOREIGN)
    def transcribe(
        self,
        source: Source | Sequence[Source],
        options: StreamOptions | None = None,
        *,
        rate: int | None = None,
        timeout: float | None = None,
        progress: OnProgress | None = None,
    ) -> Transcript | list[Transcript]:
        """What is said in a recording.

        Args:
            source: a path to anything with sound in it, "-" for standard input, an open binary
                file, or samples ([S] or [S, C]), also as `(rate, samples)`; or a row of a dataset:
                `{"array": samples, "sampling_rate": rate}`, `{"bytes": ...}`, `{"path": ...}` or a
                decoder with `get_all_samples`. A list of such is transcribed side by side in the
                free slots; what stopped one of them stands in its `problem`.
            options: what is heard, and how; see `StreamOptions`.
            rate: of samples, in Hz, where these do not say it themselves. Files know theirs.
            timeout: seconds to wait for a free slot; None waits as long as others hold them.
            progress: is called, from this thread and at most five times a second, with the seconds
                heard and those there are (of several recordings together); the latter is None where
                one does not say how long it is. The last call gives both alike. What it raises
                stops this call, and nothing else.

        Raises:
            AudioError: the recording cannot be read. One that stops in the middle is told in
                `problem`; and, if it is no list, by a warning, `IncompleteTranscript`, which holds
                the transcript in case that warnings are errors.
            InputError: samples without their rate, no such source, or `options` that are something
                else.
            NoFreeSlot: there was none in time, or only this thread could free one.
        """
        _refuse_other_than_lists(source)
        if isinstance(source, list | tuple) and not is_rated(source):
            sources = cast("Sequence[Source]", source)
            several = self.transcriptions(
                sources, options, rate=rate, timeout=timeout, progress=progress
            )
            return [one.result_or_problem() for one in several]
        one = self.transcription(
            cast("Source", source), options, rate=rate, timeout=timeout, progress=progress
        )
        return one.result()

    @explained(_FOREIGN)
    def transcription(
        self,
        source: Source,
        options: StreamOptions | None = None,
        *,
        rate: int | None = None,
        timeout: float | None = None,
        progress: OnProgress | None = None,
    ) -> Transcription:
        """As `transcribe`, word by word: work happens while you iterate."""
        return self.transcriptions(
            [source], options, rate=rate, timeout=timeout, progress=progress
        )[0]

    @explained(_FOREIGN)
    def transcriptions(
        self,
        sources: Iterable[Source],
        options: StreamOptions | None = None,
        *,
        rate: int | None = None,
        timeout: float | None = None,
        progress: OnProgress | None = None,
    ) -> list[Transcription]:
        """As `transcription`, for recordings that go side by side."""
        wait_s, told = timeout_s(timeout), callback(progress, "progress")
        _refuse_single(sources)
        sources = list(sources)  # which may have been a generator
        _refuse_twice(sources)
        wanted = checked_stream_options(options)
        # A recording knows how it is written, but an array not which of its axes is time.
        axis = wanted.format.channels_axis
        wanted = replace(wanted, format=AudioFormat(channels_axis=axis))
        if wanted.rate_check is None:
            wanted = replace(wanted, rate_check=wanted.signal_checks)
        recordings = [self._recording(source, wanted, rate) for source in sources]
        _refuse_rate_of_files(sources, rate)
        batch = RecordingBatch(self.scheduler, recordings, wait_s, told)
        return [Transcription(recording, batch, self.name) for recording in recordings]

    def _recording(self, source: Source, options: StreamOptions, rate: int | None) -> RecordingTask:
        """One that is not opened yet: what is wrong with its sound is told when it is read."""
        if isinstance(source, int | float):  # one of a list of numbers
            samples_of([source], rate)
        found: list[StreamWarning] = []
        chunks, length = _read(source, rate, options, found.append)
        end_s = math.inf if options.end_s is None else options.end_s
        # What comes behind the end is not heard anyway.
        most_s = math.inf if end_s <= options.max_duration_s else options.max_duration_s
        return RecordingTask(
            chunks, lambda n: self._members(options, options.num_sessions(n)), most_s,
            options.start_s, end_s,
            lambda: _wanted_s(length(), options), warnings=found,
        )  # fmt: skip

    def prompt(self, text: str, source: Source, *, rate: int | None = None) -> Prompt:
        """Have the model hear a recording and write its text, for `StreamOptions.prompt`: streams
        that begin so go on in that spelling, language and style. Takes a free slot for the while.

        Args:
            text: what is said in the recording.
            source: some seconds, as for `transcribe`.
            rate: as for `transcribe`.

        Raises:
            ConfigError: a text that is empty, cannot be spelled, or is longer than what is said; a
                recording of more than a minute.
            AudioError: the recording cannot be read.
            InputError: `text` is no text, or samples have no rate.
            NoFreeSlot: all slots are held by streams of this thread.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"the text of a prompt must be a text, not {shown(text)}: give what is said in the "
                "recording, and the recording behind it"
            )
        chunks, _ = _read(source, rate, StreamOptions())
        _refuse_rate_of_files([source], rate)
        return read_prompt(self.scheduler, self.config, self.vocabulary, text, chunks)

    # Tokens.

    @overload
    def tokens(
        self,
        samples: SampleArray,
        *,
        max_tokens: int | None = None,
        picker: Picker | SamplingParams | None = None,
    ) -> NDArray[np.int64]: ...
    @overload
    def tokens(
        self,
        samples: Sequence[SampleArray],
        *,
        max_tokens: int | None = None,
        picker: Picker | SamplingParams | None = None,
    ) -> list[NDArray[np.int64]]: ...
    def tokens(
        self,
        samples: SampleArray | Sequence[SampleArray],
        *,
        max_tokens: int | None = None,
        picker: Picker | SamplingParams | None = None,
    ) -> NDArray[np.int64] | list[NDArray[np.int64]]:
        """The raw text token of every frame, for research and parity.

        Nothing is put before or after the sound. Token t was chosen having heard frames 0 .. t - 1,
        so it speaks of the sound `text_delay_s` before it. These are the tokens that transformers'
        `generate` gives after the start id, and moshi's `LMGen` fed with the first frame twice.

        Args:
            samples: [S] mono at the model's rate, or several such arrays, which share the slots.
            max_tokens: stop there.
            picker: picks each token from the logits [V]; None takes the likeliest. A callable is
                for one array only: it may remember.

        Returns:
            [S // frame_size] token ids, or one such array for each that was given.

        Raises:
            InputError: not [S], a `max_tokens` that is none, or a callable for several arrays.
            AudioError: samples that are not finite numbers.
            NoFreeSlot: all slots are held.
        """
        most = whole_number(max_tokens)
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
            raise InputError(
                f"max_tokens must be a whole number of at least 0, not {shown(max_tokens)}: leave "
                "it out to have all"
            )
        several = not _is_one_sound(samples)
        if several and callable(picker):
            raise InputError("a picker may remember, so it is for one array: pass them one by one")
        arrays: Sequence[Any] = cast("Sequence[Any]", samples) if several else [samples]
        frames = [self._token_frames(array, most) for array in arrays]
        sessions = [None if one is None else TokenSession(one) for one in frames]
        options = SlotOptions(picker)
        self.scheduler.run([Member(one, options) for one in sessions if one is not None])
        tokens = [np.array([] if one is None else one.tokens, np.int64) for one in sessions]
        return tokens if several else tokens[0]

    def _token_frames(
        self, samples: SampleArray, max_tokens: int | None
    ) -> NDArray[np.float32] | None:
        """The frames [T, S] that must be heard for the tokens; None where no token is wanted."""
        if np.ndim(samples) != 1:
            found = f"of shape {list(np.shape(samples))}" if hasattr(samples, "shape") else ""
            raise InputError(
                f"samples must be an array [S], mono at the model's rate, or a list of such, not "
                f"{found or shown(samples)}: give np.array(..., np.float32), or of a file the "
                "chunks of kiku.audio.read_chunks, joined"
            )
        mono = as_mono(samples)
        size = self.config.frame_size
        count = len(mono) // size
        count = count if max_tokens is None else min(count, max_tokens)
        # Token 0 needs no frame, so the last one wanted comes with the frame before.
        return mono[: (count - 1) * size].reshape(-1, size) if count else None


def _is_one_sound(samples: Any) -> bool:
    """Whether it is one array, or no list of arrays either."""
    is_name = isinstance(samples, str | bytes | os.PathLike)
    return is_name or hasattr(samples, "__array__") or not isinstance(samples, Iterable)


def _read(
    source: Source,
    rate: int | None,
    options: StreamOptions,
    on_warning: OnWarning | None = None,
) -> tuple[Iterator[Chunk], Callable[[], float | None]]:
    """The sound of a recording, of which nothing is read yet, and a look at how long it says it is.

    Raises:
        InputError: it is nothing that can be read.
    """
    if is_decoder(source):
        return _decoded_chunks(source, rate), lambda: None
    known = source_of(source)
    samples = samples_of(known, rate)
    if samples is not None:
        axis = options.format.channels_axis
        return _array_chunks(*samples, axis), partial(_seconds_of, *samples, axis)
    chunks = read_file(known, on_warning=on_warning, track=options.track)
    return chunks, partial(duration_s, known, options.track)


def _refuse_single(sources: Any) -> None:
    """One recording in the place of several would be taken apart: a name into its letters."""
    refuse_backwards(sources)
    is_one = is_rated(sources) or is_decoder(sources) or is_file(sources)
    kind = cast("type[Any]", type(sources))
    if is_one or issubclass(kind, bytes | bytearray | Mapping) or hasattr(kind, "__array__"):
        raise InputError(
            f"a list of recordings is wanted, not one {kind.__name__}: write "
            "transcription(source), or transcriptions([source])"
        )
    if not isinstance(sources, Iterable):
        raise InputError(f"a list of recordings is wanted, not {shown(sources)}")


def _refuse_other_than_lists(source: Any) -> None:
    """What several recordings stand in is a list: an iterator could also be one of numbers."""
    refuse_backwards(source)
    kind = cast("type[Any]", type(source))
    is_one = isinstance(source, str | bytes | bytearray | memoryview | list | tuple | Mapping)
    if is_one or is_decoder(source) or is_file(source) or hasattr(source, "__array__"):
        return
    if isinstance(source, Iterable):
        raise InputError(
            f"a {kind.__name__} is no recording, and several stand in a list: write list(...) "
            "around it"
        )


def _refuse_twice(sources: Sequence[Any]) -> None:
    """Refuse one open file in two places before any of it is read: each of the two would hear what
    the other left of it."""
    files = [
        _path_of(cast("Mapping[str, Any]", one)) if isinstance(one, Mapping) else one
        for one in sources
    ]
    found = read_twice(files)
    if found is None:
        return
    first, second = found
    what = "standard input" if files[first] == "-" else "the same open file"
    raise InputError(
        f"{what} stands twice in the list, as sources[{first}] and sources[{second}], and it can "
        "be read once: leave one of them out, or open the file again for it"
    )


def _path_of(row: Mapping[str, Any]) -> Any:
    """The path of a row that has nothing else."""
    return row.get("path") if row.get("array") is None and row.get("bytes") is None else None


def _refuse_rate_of_files(sources: Sequence[Source], rate: int | None) -> None:
    """Refuse a rate where every source is a file: files know theirs, and bytes without a header
    were probably meant. In a list with samples among the files it is the rate of the samples."""
    if rate is None or not sources or not all(map(_is_file, sources)):
        return
    raise InputError(
        f"rate={rate} is of samples, and files know theirs: leave rate out; of bytes without a "
        "header write np.frombuffer(data, np.int16) with their rate=..."
    )


def _is_file(source: Source) -> bool:
    return not is_decoder(source) and is_file(source_of(source))


def _wanted_s(length_s: float | None, options: StreamOptions) -> float | None:
    """Up to where a recording is heard that says it is so long."""
    end_s = math.inf if options.end_s is None else options.end_s
    return None if length_s is None else min(length_s, end_s, options.max_duration_s)


def _seconds_of(samples: Any, rate: int, channels_axis: int | None) -> float | None:
    try:
        shape = np.shape(samples)
        if channels_axis is not None and len(shape) == 2:
            return shape[1 - channels_axis % 2] / rate
        return max(shape, default=0) / rate
    except (TypeError, ValueError, ArithmeticError):  # which is told when they are read
        return None


def _array_chunks(samples: Any, rate: int, channels_axis: int | None) -> Iterator[Chunk]:
    yield from array_chunks(samples, rate, channels_axis=channels_axis)


def _decoded_chunks(source: Any, rate: int | None) -> Iterator[Chunk]:
    samples = samples_of(decoded(source), rate)
    assert samples is not None
    yield from array_chunks(*samples)


__all__ = ["Recognizer", "Source"]
