"""Transcribes one recording after the other; if one fails, its words until then are kept."""

import json
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from kiku.audio import duration_s
from kiku.audio.source import FileSource
from kiku.cli import terminal
from kiku.cli.inputs import STDIN, Recording
from kiku.cli.outputs import exists, forget_partial, partial_of, refuse_existing, write_result
from kiku.cli.progress import Bars, Meter
from kiku.cli.raw import RawFormat, opened
from kiku.cli.terminal import FAILED, INTERRUPTED, ReaderGone, describe
from kiku.cli.word_output import Flow, Lines, Nothing, Output, WordTable, table_line
from kiku.errors import AudioError, KikuError, OutputError, TruncatedAudio
from kiku.options import StreamOptions
from kiku.recognizer import Recognizer
from kiku.text import FORMATS, CaptionOptions, Word
from kiku.text.cues import channel_label
from kiku.transcription import Transcription

TXT = "txt"
"""The format whose text is shown as it comes."""


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """What to do with every recording."""

    formats: Sequence[str]
    output: Path | None
    """The folder for results, or the file; None is standard output, in one format."""
    is_one_file: bool
    """Whether `output` is a file, for the one recording in the one format."""
    captions: CaptionOptions
    words: bool
    """Whether txt is a table of words."""
    force: bool
    skip_existing: bool
    quiet: bool
    several: bool
    """Whether more than one recording was named."""
    options: StreamOptions = field(default_factory=StreamOptions)
    """Which part of the sound is transcribed, and how."""
    raw: RawFormat | None = None
    """How samples without a header are written."""
    at_once: int = 1
    """Recordings that are transcribed side by side."""

    @property
    def to_files(self) -> bool:
        """Whether results go into files."""
        return self.output is not None

    @property
    def is_json_lines(self) -> bool:
        """Whether several JSON documents go to one output, each on a line."""
        return self.formats == ["json"] and not self.to_files and self.several

    def captions_of(self, result: Transcription, *, whole: bool) -> CaptionOptions:
        """The options for what is written of one recording."""
        warnings = [one.to_dict() for one in result.warnings]
        return replace(self.captions, duration=result.heard_s, partial=not whole, warnings=warnings)

    def document(self, ending: str, words: Sequence[Word], options: CaptionOptions) -> str:
        """The result in one format."""
        if ending == TXT and self.words:
            return "".join(map(table_line, words))
        text = FORMATS[ending](words, options)
        if self.is_json_lines:
            return json.dumps(json.loads(text), ensure_ascii=False) + "\n"
        return text


class TranscribeRun:
    """All recordings of one command."""

    def __init__(
        self,
        recognizer: Recognizer,
        request: TranscribeRequest,
        outputs: Mapping[Recording, Mapping[str, Path]],
        meter: Meter,
        *,
        debug: bool,
    ) -> None:
        """Choose the output; nothing is transcribed yet.

        Args:
            recognizer: has a free slot.
            request: what to do with every recording.
            outputs: the files for each recording; empty if results go to standard output.
            meter: shows the progress.
            debug: let unexpected errors through.
        """
        self._recognizer = recognizer
        self._request = request
        self._outputs = outputs
        self._meter = meter
        self._debug = debug
        self._on_terminal = sys.stdout.isatty()
        self._output = self._choose_output()
        self._side_by_side: Mapping[Recording, Transcription] = {}
        self._told: set[Recording] = set()
        self._interrupted = False

    def _choose_output(self) -> Output:
        request = self._request
        if request.to_files and (request.quiet or not self._on_terminal):
            return Nothing()
        if not request.to_files and request.formats != [TXT]:
            return Nothing()
        if request.words:
            return WordTable()
        # Words flow onto a terminal unless bars move below them; a pipe gets whole lines.
        return Flow() if self._on_terminal and not self._meter.visible else Lines()

    def all(self, found: Sequence[Recording | KikuError]) -> int:
        """Transcribe the recordings; give the exit code. Errors in `found` were printed before."""
        durations = self._durations(found)
        self._side_by_side = self._begun_at_once(list(durations))
        num_failed = 0
        try:
            with self._meter.showing(list(durations.values())) as bars:
                for item in found:
                    if isinstance(item, Recording):
                        num_failed += not self._one(item, durations[item], bars)
                    else:
                        num_failed += 1
                        self._deliver_nothing()
        except KeyboardInterrupt:
            self._keep_others()
            return INTERRUPTED
        self._meter.closing(len(durations))
        if num_failed and len(found) > 1:
            terminal.error(
                f"{num_failed} of {len(found)} recordings could not be transcribed completely"
            )
        return FAILED if num_failed else 0

    def _begun_at_once(self, recordings: Sequence[Recording]) -> Mapping[Recording, Transcription]:
        """Begin the recordings side by side, each in a slot as soon as one is free; none if they
        go one after the other."""
        if self._request.at_once == 1 or len(recordings) == 1:
            return {}
        several = self._recognizer.transcriptions(
            [one.source for one in recordings], self._request.options
        )
        return dict(zip(recordings, several, strict=True))

    def _keep_others(self) -> None:
        """Deliver the words so far of recordings that ran next to the interrupted one."""
        self._interrupted, bars = True, Bars([])
        for recording, result in self._side_by_side.items():
            if recording not in self._told and result.so_far:
                with suppress(KeyboardInterrupt):
                    self._one(recording, None, bars)

    def _durations(self, found: Sequence[Recording | KikuError]) -> dict[Recording, float | None]:
        """Seconds of each recording, if the progress is shown; else None."""
        recordings = [item for item in found if isinstance(item, Recording)]
        # Opening hundreds of files takes a while, which is not worth it for lines in a log.
        wanted = self._meter.visible or len(recordings) == 1
        wanted &= self._request.raw is None and not self._request.quiet
        track = self._request.options.track
        return {
            r: duration_s(r.source, track) if wanted and r.source != STDIN else None
            for r in recordings
        }

    def _one(self, recording: Recording, duration: float | None, bars: Bars) -> bool:
        """Transcribe one recording; return whether all of it succeeded."""
        files = self._outputs.get(recording, {})
        try:
            with opened(recording.source, self._request.raw) as source:
                return self._of_source(recording, source, files, duration, bars)
        except AudioError as error:  # the file cannot even be opened
            terminal.error(str(error))
            self._deliver_nothing()
            return False

    def _of_source(
        self,
        recording: Recording,
        source: FileSource,
        files: Mapping[str, Path],
        duration: float | None,
        bars: Bars,
    ) -> bool:
        if files and self._request.skip_existing:
            files = {ending: path for ending, path in files.items() if not exists(path)}
            if not files:  # another run of kiku has written them in the meantime
                return True
        try:
            if not self._request.force:
                refuse_existing(files)
        except OutputError as error:
            terminal.error(str(error))
            return False
        result = self._side_by_side.get(recording)
        if result is None:
            result = self._recognizer.transcription(source, self._request.options)
        self._told.add(recording)
        bars.follow(
            recording.label,
            duration,
            lambda: result.heard_s,
            lambda: self._output.pending if self._on_terminal else "",
        )
        stopped = self._follow(recording, result)
        self._tell_warnings(recording, result)
        self._meter.heard_s += result.heard_s
        words = sorted(
            result.so_far, key=lambda word: word.start
        )  # the words of all channels in one order
        if stopped is None:
            return self._deliver(files, words, self._request.captions_of(result, whole=True))
        kept = bool(words) or isinstance(stopped, TruncatedAudio)
        partial = {ending: partial_of(path) for ending, path in files.items()}
        options = self._request.captions_of(result, whole=False)
        written = kept and self._deliver(partial, words, options)
        terminal.error(
            _stopped(recording, stopped, result.heard_s)
            + _where(partial.values() if written else (), bool(words))
        )
        if isinstance(stopped, KeyboardInterrupt):
            raise stopped
        if not kept:
            self._deliver_nothing()
        return False

    def _follow(
        self, recording: Recording, result: Transcription
    ) -> Exception | KeyboardInterrupt | None:
        """Show the words as they come; return the error that ended them too early, if one did."""
        shown = 0
        stopped: Exception | KeyboardInterrupt | None = None
        is_cut = self._interrupted and not result.done
        if is_cut:  # Ctrl-C during one recording ends all of them
            result.stop()
        try:
            self._output.begin(recording.label if self._request.several else None)
            # The recognizer's warning is reported below, as the recording's problem.
            with warnings.catch_warnings(action="ignore"):
                for word in result:
                    self._output.add(word)
                    shown += 1
            stopped = KeyboardInterrupt() if is_cut else result.problem
        except ReaderGone:
            raise
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
        except Exception as error:
            if self._debug and not isinstance(error, KikuError):
                raise
            stopped = KeyboardInterrupt() if self._interrupted else error
        # Free the slot for the next recording; the open word becomes the last of this one.
        result.stop()
        try:
            for word in result.so_far[shown:]:
                self._output.add(word)
            self._output.end()
        except OutputError as error:  # standard output may take the next recording again
            if stopped is None:
                stopped = error
            elif not isinstance(stopped, OutputError):
                terminal.error(str(error))
        return stopped

    def _tell_warnings(self, recording: Recording, result: Transcription) -> None:
        """Print the warnings about the sound, each kind once for each channel."""
        if self._request.quiet:
            return
        told: set[tuple[str, int | None]] = set()
        for warning in result.warnings:
            if (warning.kind, warning.channel) not in told:
                told.add((warning.kind, warning.channel))
                message = f"{channel_label(warning.channel)}{warning.message}"
                terminal.error(f"warning: {_labelled(recording, message)}")

    def _deliver(
        self, files: Mapping[str, Path], words: Sequence[Word], options: CaptionOptions
    ) -> bool:
        """Write or print the result; return whether it is where it should be."""
        request = self._request
        if not request.to_files:
            (ending,) = request.formats
            if ending != TXT:
                return self._say(request.document(ending, words, options))
            return True
        good = True
        for ending, path in files.items():
            text = request.document(ending, words, options)
            try:
                write_result(path, text)
                self._meter.note(f"wrote {path}")
                if not options.partial:
                    forget_partial(path)
            except OutputError as error:
                terminal.error(f"{error}; the text follows on standard output instead")
                self._say(text)
                good = False
        return good

    def _deliver_nothing(self) -> None:
        """Print a line without a result, so that lines of JSON match the recordings."""
        if self._request.is_json_lines:
            self._say("null\n")

    def _say(self, text: str) -> bool:
        """Print text on standard output; return whether that succeeded."""
        try:
            terminal.echo(text)
        except OutputError as error:
            terminal.error(str(error))
            return False
        return True


def _stopped(recording: Recording, why: Exception | KeyboardInterrupt, heard_s: float) -> str:
    """The message about what ended a recording too early."""
    if isinstance(why, KeyboardInterrupt):
        return f"interrupted after {heard_s:.1f} s of {recording.label}"
    return _labelled(recording, describe(why))


def _labelled(recording: Recording, message: str) -> str:
    return message if recording.label in message else f"{recording.label}: {message}"


def _where(files: Collection[Path], spoken: bool) -> str:
    """The part of a message that says where the words until then are."""
    if files:
        return f"; the words until then are in {', '.join(map(str, files))}"
    return "; the words until then are printed above" if spoken else ""
