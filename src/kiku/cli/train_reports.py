"""What `kiku train vocab`, `align` and `pack` print when they have ended."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiku.train.align import Aligned
    from kiku.train.pack import Packed
    from kiku.train.vocab import Grown

_SHOWN = 20
"""Dropped rows that are printed; pack.json has them all."""


def vocab_report(done: "Grown") -> str:
    """The model that was made, and its new pieces."""
    size, new = len(done.vocabulary), done.new
    lines = [f"{done.folder}: {size:,} pieces, {len(new):,} of them new (ids {new.start} on)"]
    if done.letters:
        lines.append(f"letters that were missing: {' '.join(done.letters)}")
    longest = sorted((done.vocabulary.piece(i) for i in new), key=len, reverse=True)
    lines.append(f"longest new pieces: {' '.join(longest[:_SHOWN])}")
    if done.recut:
        lines.append(
            f"{len(done.recut):,} words that the model could already spell are now split "
            f"differently, and have to be learned again: {' '.join(done.recut[:_SHOWN])}"
        )
    return "\n".join(lines) + "\n"


def align_report(done: "Aligned", output: Path, report: Path, drawn: Path) -> str:
    """How many rows have times, and which were left out or look wrong.

    Args:
        done: the result.
        output: the manifest that was written.
        report: a file with all rows that were left out or look wrong.
        drawn: a file with pictures of those that look wrong.
    """
    others = len(done.rows) - done.timed
    more = f", {others:,} more needed none" if others else ""
    lines = [f"{done.timed:,} rows now have times{more}: {output}"]
    for name, found in (("left out", done.left_out), ("to check", done.doubtful)):
        if found:
            lines.append(f"{name}: {len(found):,} (all of them are in {report})")
            lines += [f"  {one.row}: {one.why}" for one in found[:_SHOWN]]
    if done.pictures:
        lines.append(f"pictures of them: {drawn}")
    return "\n".join(lines) + "\n"


def pack_report(done: "Packed") -> str:
    """How many examples there are, and what was dropped or cannot be spelled."""
    counts = ", ".join(f"{split} {count:,}" for split, count in sorted(done.examples.items()))
    lines = [
        f"{done.rows:,} rows -> {counts or 'no'} examples, {done.seconds / 3600:.3f} h of sound, "
        f"in {done.folder}"
    ]
    if done.resumed_at:
        lines.append(f"continued from {done.resumed_at:,} of {done.index.num_units:,}")
    unknown = done.index.unknown
    if unknown:
        lines.append(
            "letters that the vocabulary has no pieces for ( kiku train vocab  makes a model "
            "that has them):"
        )
        lines += [
            f"  {one.letter!r} in {one.words:,} words, first in {one.word!r} at {one.at_s:.2f} s "
            f"of {one.row}"
            for one in unknown[:_SHOWN]
        ]
    dropped = done.index.dropped
    if dropped:
        lines.append(f"dropped {len(dropped):,} rows:")
        lines += [f"  {one.row}: {one.why}" for one in dropped[:_SHOWN]]
    if len(dropped) > _SHOWN:
        lines.append(f"  ... all of them are in {done.folder / 'pack.json'}")
    return "\n".join(lines) + "\n"
