"""`Recognizer`: a model with its slots, and every way to transcribe with it."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import NoReturn, cast, overload

import numpy as np
from numpy.typing import NDArray

from kiku.audio import is_rated
from kiku.config import ModelConfig
from kiku.decoding import Picker, token_picker
from kiku.engine import SamplingParams, SlotEngine
from kiku.errors import ConfigError, InputError
from kiku.foreign import TRANSCRIBING, explained, options_named
from kiku.live import AsyncStream, LiveStream, SavedStream, StreamSetup, Waiters
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
from kiku.serial import shown
from kiku.stream import WordSession
from kiku.text import Vocabulary
from kiku.tokens import read_tokens
from kiku.transcription import (
    OnProgress,
    PartialTranscript,
    RecordingBatch,
    RecordingTask,
    Transcript,
    Transcription,
)
from kiku.transcription.sources import (
    SampleArray,
    Source,
    read_source,
    recording_sound,
    refuse_other_than_lists,
    refuse_rate_of_files,
    refuse_single,
    refuse_twice,
)

_FOREIGN = {
    **options_named(
        [one.name for one in fields(DecodingOptions)],
        "write options=StreamOptions(decoding=DecodingOptions({}))",
    ),
    **options_named([one.name for one in fields(StreamOptions)], "write options=StreamOptions({})"),
    **TRANSCRIBING,
}
"""Names that are no arguments of `transcribe`, and what to write instead."""


class Recognizer:
    """A model with a number of slots, for any number of threads.

    `transcribe` is for recordings; `stream` and `astream` are for live sound. All recordings and
    streams that are open at the same time are stepped together.
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
        """Wrap an engine that is ready. `load` makes both from a checkpoint.

        Args:
            engine: the engine with its slots.
            config: the model's config.
            vocabulary: the model's text tokens.
            name: the name by which the model was loaded.
            max_block: how many frames of one stream a step may take; None leaves it to the engine.
        """
        self.config = config
        self.vocabulary = vocabulary
        self.name = name
        self.scheduler = Scheduler(engine, max_block)
        """Steps everything that is open; only of interest to programs that drive it themselves."""
        self._state_key: bytes | None = None

    def __repr__(self) -> str:
        engine, free = self.scheduler.engine, self.scheduler.free_slots
        count = engine.num_slots
        return f"<Recognizer {self.name}, {engine.description}, {free} of {count} slots free>"

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a loaded model cannot be copied or sent to another process: send its name, and load "
            "it there"
        )

    @property
    def free_slots(self) -> int:
        """Number of slots that are not in use."""
        return self.scheduler.free_slots

    @property
    def state_key(self) -> bytes | None:
        """The key that signs saved streams. If it is set, only streams signed with it are
        resumed."""
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
            options: which sound it takes, how text is picked, and which events it gives; None is
                the default, which gives words alone.
            state: what `save` of another stream returned, to resume it; None begins a new stream.
                If `options` is None, text is picked as in the saved stream; otherwise as `options`
                say, from the end of the sound that had been pushed before the save.
            timeout: how many seconds to wait for a free slot; None waits as long as others hold
                them.

        Raises:
            NoFreeSlot: all slots are held.
            InputError: `options` or `timeout` are something else.
            ConfigError: this model cannot follow the options.
            StreamError: the state is damaged, or of another model, engine or key.
        """
        wait_s = timeout_s(timeout)
        options, members = self._live_members(options, state)
        bindings = self.scheduler.open(Opening(members, live=True, timeout=wait_s))
        return LiveStream(self._setup(options, bindings))

    async def astream(
        self,
        options: StreamOptions | None = None,
        *,
        state: bytes | None = None,
        timeout: float | None = 0.0,
        recorded: bool = False,
    ) -> AsyncStream:
        """As `stream`, for the tasks of an event loop, which it never blocks.

        Args:
            options: as `stream`.
            state: as `stream`.
            timeout: as `stream`.
            recorded: whether the sound is a recording's, pushed as fast as it is taken. It is then
                processed in the time that live streams leave.
        """
        wait_s = timeout_s(timeout)
        options, members = await asyncio.to_thread(self._live_members, options, state)
        waiters = Waiters(asyncio.get_running_loop())
        opening = Opening(
            members, live=not recorded, driven=True, timeout=wait_s, on_done=waiters.weak_wake
        )
        self.scheduler.request(opening)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(opening.wait_s):
                    await waiters.until(lambda: opening.done)
            bindings = self.scheduler.take_slots(opening)
        except BaseException:
            self.scheduler.give_up(opening)
            raise
        return AsyncStream(self._setup(options, bindings), waiters)

    def _live_members(
        self, options: StreamOptions | None, state: bytes | None
    ) -> tuple[StreamOptions, list[Member]]:
        """The checked options of a live stream and its members, resumed from `state` if there is
        one."""
        if state is None:
            options = checked_stream_options(options)
            return options, self._members(options, options.num_sessions())
        saved = SavedStream(state, self.state_key, self.scheduler.engine)
        decoding = None if options is None else checked_stream_options(options).decoding
        options = saved.with_channels(checked_stream_options(options))
        sessions = self._sessions(options, max(1, saved.num_channels))
        return options, saved.members(sessions, decoding)

    def _members(self, options: StreamOptions, count: int) -> list[Member]:
        """New sessions (see `_sessions`), each with what its slot needs."""
        prompt = options.prompt
        begun = None if prompt is None else self.scheduler.engine.check(prompt.slot)
        return [
            Member(session, self._slot_options(options.decoding), begun)
            for session in self._sessions(options, count)
        ]

    def _sessions(self, options: StreamOptions, count: int) -> list[WordSession]:
        """New sessions for one sound: one, or one for each of its `count` channels."""
        if count > MAX_CHANNELS:
            raise ConfigError(
                f"{count} channels cannot be transcribed separately, at most {MAX_CHANNELS} can: "
                "choose one with `channel`, or mix them"
            )
        num_slots = self.scheduler.engine.num_slots
        if options.channel == "each" and count > num_slots:
            raise ConfigError(
                f"to transcribe {count} channels separately takes as many slots, and there are "
                f"{num_slots}: load the model with slots={count}"
            )
        return [
            WordSession(self.config, self.vocabulary, options, channel=channel)
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
        """Transcribe a recording, or several.

        Args:
            source: a path to a file with sound, "-" for standard input, an open binary file, or
                samples ([S] or [S, C]), also as `(rate, samples)`; or a row of a dataset:
                `{"array": samples, "sampling_rate": rate}`, `{"bytes": ...}`, `{"path": ...}` or a
                decoder with `get_all_samples`. The recordings of a list are transcribed side by
                side in the free slots; if one of them is stopped by an error, its `problem` holds
                that.
            options: which part of the sound is transcribed, and how; see `StreamOptions`.
            rate: samples a second, for samples that come without a rate. Files know theirs.
            timeout: how many seconds to wait for a free slot; None waits as long as others hold
                them.
            progress: called from this thread, at most five times a second, with the seconds heard
                and the seconds in all, of all recordings together. The latter is None if one of
                them does not say how long it is. In the last call both are equal. What the callback
                raises stops this call, and nothing else.

        Raises:
            AudioError: the recording cannot be read. If it stops in the middle, `problem` holds the
                error instead; and if `source` is not a list, there is a warning,
                `IncompleteTranscript`, which holds the transcript for programs that make warnings
                errors.
            InputError: samples have no rate, `source` is nothing that can be read, or `options` are
                something else.
            NoFreeSlot: no slot was free in time, or only this thread could free one.
        """
        refuse_other_than_lists(source)
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
        """As `transcribe`, but word by word: the work is done while you iterate."""
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
        """As `transcription`, for several recordings, which are transcribed side by side."""
        wait_s, on_progress = timeout_s(timeout), callback(progress, "progress")
        refuse_single(sources)
        sources = list(sources)  # it may be a generator
        refuse_twice(sources)
        wanted = checked_stream_options(options)
        # A recording knows its own format, but an array does not know which axis is time.
        axis = wanted.format.channels_axis
        wanted = replace(wanted, format=AudioFormat(channels_axis=axis))
        if wanted.rate_check is None:
            wanted = replace(wanted, rate_check=wanted.signal_checks)
        recordings = [self._recording(source, wanted, rate) for source in sources]
        refuse_rate_of_files(sources, rate)
        batch = RecordingBatch(self.scheduler, recordings, wait_s, on_progress)
        return [Transcription(recording, batch, self.name) for recording in recordings]

    def _recording(self, source: Source, options: StreamOptions, rate: int | None) -> RecordingTask:
        so_far = PartialTranscript()
        sound = recording_sound(source, rate, options, so_far.warnings.append)
        return RecordingTask(
            sound, lambda count: self._members(options, options.num_sessions(count)), so_far
        )

    def prompt(self, text: str, source: Source, *, rate: int | None = None) -> Prompt:
        """Make a prompt for `StreamOptions.prompt`: the model processes a recording together with
        its text, and streams with this prompt continue in that spelling, language and style. This
        takes a free slot while it runs.

        Args:
            text: what is said in the recording.
            source: a recording of some seconds, as for `transcribe`.
            rate: as for `transcribe`.

        Raises:
            ConfigError: the text is empty, cannot be spelled, or is longer than what is said; or
                the recording lasts more than a minute.
            AudioError: the recording cannot be read.
            InputError: `text` is not text, or samples have no rate.
            NoFreeSlot: all slots are held by streams of this thread.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(
                f"the text of a prompt must be text, not {shown(text)}: give the words of the "
                "recording, then the recording"
            )
        chunks, _ = read_source(source, rate, StreamOptions())
        refuse_rate_of_files([source], rate)
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
        """Return the raw text token of every frame, for research and parity.

        No silence is added before or after the sound. Token t is picked from frames 0 .. t - 1, so
        it belongs to the sound `text_delay_s` before it. These are the tokens that transformers'
        `generate` returns after the start id, and moshi's `LMGen` fed with the first frame twice.

        Args:
            samples: [S] mono at the model's rate, or several such arrays, which share the slots.
            max_tokens: how many tokens to return at most; None returns all.
            picker: picks each token from the logits [V]; None takes the likeliest. A callable may
                be given with one array only, because it may keep a state.

        Returns:
            [S // frame_size] token ids, or a list with such an array for each array given.

        Raises:
            InputError: `samples` are not [S], `max_tokens` is not a number of tokens, or a callable
                was given with several arrays.
            AudioError: samples are not finite numbers.
            NoFreeSlot: all slots are held.
        """
        return read_tokens(self.scheduler, self.config, samples, max_tokens, picker)


__all__ = ["Recognizer", "Source"]
