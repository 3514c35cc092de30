"""What Wyoming clients ask for with `transcribe`, for one utterance."""

from typing import Literal

import msgspec

from kiku.options import MAX_HOTWORD_CHARACTERS, MAX_HOTWORDS, Eagerness, Hotword

NAME_BOOST, TERM_BOOST = 3.0, 2.0
"""Boosts, in nats, of the names and terms that a client expects: names count more."""

_EAGERNESS: dict[str | None, Eagerness] = {
    None: "low",
    "relaxed": "low",
    "default": "medium",
    "aggressive": "high",
}


class TranscribeData(msgspec.Struct, frozen=True):
    """The data of `transcribe`."""

    name: str | None = None
    vad_sensitivity: Literal["relaxed", "default", "aggressive"] | None = None
    transcript_names: list[str] | None = None
    transcript_terms: list[str] | None = None

    @property
    def eagerness(self) -> Eagerness:
        """How soon a silence ends the utterance."""
        return _EAGERNESS[self.vad_sensitivity]

    @property
    def hotwords(self) -> tuple[Hotword, ...]:
        """Hotwords of the names and terms: as many as a stream may have, names first."""
        found: dict[str, Hotword] = {}
        for phrases, boost in (
            (self.transcript_names or (), NAME_BOOST), (self.transcript_terms or (), TERM_BOOST),
        ):  # fmt: skip
            for phrase in phrases:
                text = " ".join(phrase.split())
                if 0 < len(text) <= MAX_HOTWORD_CHARACTERS:
                    found.setdefault(text, Hotword(text, boost))
        return tuple(found.values())[:MAX_HOTWORDS]
