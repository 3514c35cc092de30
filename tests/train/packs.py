"""Packs and settings that several tests train with."""

from pathlib import Path

from kiku.checkpoint import load
from kiku.train.examples import PackOptions
from kiku.train.folders import read_rows
from kiku.train.pack import pack
from tests.train.recordings import write_corpus


def write_pack(
    folder: Path,
    model: Path,
    count: int = 12,
    dev: int = 3,
    *,
    marked: int = 0,
    sound: bool = False,
) -> Path:
    """A pack of tones for the tiny model; every row whose number `marked` divides is marked."""
    rows = read_rows(write_corpus(folder / "corpus", count, seconds=2.0, dev=dev, marked=marked))
    pack(rows, load(model), folder / "pack", PackOptions(shard_s=12.0, sound=sound))
    return folder / "pack"


def write_config(
    path: Path, *, pack: Path, model: Path, run: Path, train: str = "", more: str = ""
) -> Path:
    """A TOML file; `train` goes into its table, `more` behind it."""
    path.write_text(
        f'model = "{model}"\npack = "{pack}"\nrun = "{run}"\ndevice = "cpu"\n[train]\n'
        f"steps = 12\nbatch = 3\nlr = 3e-3\nwarmup = 3\nlog_every = 2\nsave_every = 5\n{train}\n"
        f"{more}\n"
    )
    return path
