"""The letters of a text: what of it is spoken, and which words they belong to."""

import unicodedata


def letters_of(word: str) -> str:
    """The letters and digits of a word, in lower case: the part of it that is spoken."""
    return "".join(c for c in word.casefold() if c.isalnum())


def spoken_words(text: str) -> list[str]:
    """The words of a text, each with at least one letter or digit.

    A part without any ("?", "-", "%") is joined to the word before it, or at the beginning of the
    text to the first word.
    """
    words: list[str] = []
    before = ""
    for part in text.split():
        if letters_of(part):
            words.append(f"{before} {part}".strip())
            before = ""
        elif words:
            words[-1] += f" {part}"
        else:
            before = f"{before} {part}".strip()
    return words


def sign_without_letters(text: str) -> str | None:
    """The first part of a text that is spoken but has no letters that tell how: "%", "&", "+"."""
    parts = (part for part in text.split() if not letters_of(part))
    return next((part for part in parts if any(map(_is_spoken, part))), None)


def _is_spoken(letter: str) -> bool:
    return letter in "%&@#" or unicodedata.category(letter) in ("Sc", "Sm")
