"""What becomes of each parameter that a protocol's clients may send; docs/serve.md has tables of
it, and a test compares it with the signature of each vendor's SDK."""

from dataclasses import dataclass
from typing import Literal

Fate = Literal["honoured", "mapped", "ignored", "refused"]
"""honoured: does what its vendor's documentation says. mapped: does what comes nearest here.
ignored: a hint; the words do not depend on it. refused: would change the words and cannot be
honoured, so that asking for it is an error that names it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of one protocol."""

    name: str
    """The name on the wire, without "[]"."""
    fate: Fate
    note: str
    """What it does here, or why not; a sentence without a full stop."""
