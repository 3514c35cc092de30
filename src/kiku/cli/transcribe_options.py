"""Options that only `kiku transcribe` takes: which recordings, and where results go."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer

from kiku.cli.inputs import Recording, find_recordings
from kiku.cli.options import MaxDuration, SoundOptions, WritingOptions
from kiku.cli.outputs import STANDARD
from kiku.errors import KikuError

_Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", help="Audio or video files, folders of them, or - for standard input."
    ),
]
_Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Folder for the results, or for one recording a file such as talk.srt.",
    ),
]
_Words = Annotated[
    bool,
    typer.Option("--words", help="txt: one word on each line, with start, end and probability."),
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only results and errors, no progress.")
]
_Progress = Annotated[
    bool,
    typer.Option(
        "--progress",
        help="Report progress also without a terminal: the loaded model, and each file written.",
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
_Skip = Annotated[
    bool,
    typer.Option("--skip-existing", help="Skip recordings whose files exist; the exit code is 0."),
]
_Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Include the folders inside folders.")
]
_Slots = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1,
        help=
            "Number of recordings to transcribe at once. Default: 1; with --ray, 8 in each "
            "process, or 64 on a GPU.",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Which recordings there are, and how many are transcribed at once."""

    TITLE: ClassVar[str] = SoundOptions.TITLE

    paths: _Paths
    recursive: _Recursive = False
    max_duration: MaxDuration = None
    slots: _Slots = None

    def found(self) -> list[Recording | KikuError]:
        """The recordings, and in place of a path that leads to none the error."""
        return list[Recording | KikuError](find_recordings(self.paths, recursive=self.recursive))


@dataclass(frozen=True, slots=True)
class ResultOptions(WritingOptions):
    """What is written, and where it goes."""

    output: _Output = None
    words: _Words = False
    force: _Force = False
    skip_existing: _Skip = False

    @property
    def place(self) -> str | None:
        """The file or folder for results; None is standard output."""
        return None if self.output == STANDARD else self.output


@dataclass(frozen=True, slots=True)
class ProgressOptions:
    """What is shown on the way."""

    quiet: _Quiet = False
    progress: _Progress = False
