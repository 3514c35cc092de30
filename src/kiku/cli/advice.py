"""Answers a mistake on the command line with the command that was probably meant.

Knows how typer words its errors; does not know what the commands do.
"""

import os
import re
import shlex
from collections.abc import Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

import typer

from kiku.audio import ENDINGS

_NO_COMMAND = re.compile(r"No such command '(?P<typed>.*?)'")
_CLOSE, _CLEARLY = 0.8, 0.1
# What a value must be, by the kind of pydantic's error.
_MUST = {
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
}
_TOO_MANY = re.compile(r"Got unexpected extra argument\(s\) \((?P<typed>.*)\)")


def advise(error: typer.TyperException, arguments: Sequence[str], program: Any) -> str:
    """What is wrong, and what to type instead.

    Args:
        error: typer's error.
        arguments: what was typed after `kiku`.
        program: typer's command `kiku`, which has all others.
    """
    meant = _no_option(error, arguments) or _no_command(error, arguments)
    if meant is not None:
        said, right = meant
        if right:
            return f"{said}; did you mean  {shlex.join(['kiku', *right])}"
    else:
        said = _said(error)
    # If the value of an option is missing, the error does not know the command.
    command = _command(error) if getattr(error, "ctx", None) else _typed(arguments, program)
    return f"{said}; {command} --help lists what there is"


def _said(error: typer.TyperException) -> str:
    """typer's message; in our words where a value is no number or out of range."""
    said, cause = error.format_message().rstrip("."), error.__cause__
    # typer tells the first of pydantic's errors.
    faults: list[dict[str, Any]] = getattr(cause, "errors", list[dict[str, Any]])()
    fault = faults[0] if faults else dict[str, Any]()
    must = _MUST.get(fault.get("type", ""))
    if must is not None:
        head = said.partition(": ")[0]
        return f"{head}: must be {must.format(**fault.get('ctx', {}))}, not {fault['input']}"
    return said.replace(": Value error, ", ": ")


def _typed(arguments: Sequence[str], program: Any) -> str:
    """The command as it was typed: "kiku train pack"."""
    names, command = ["kiku"], program
    for one in arguments:
        found = getattr(command, "commands", {}).get(one)
        if found is not None:
            names.append(one)
            command = found
        elif not one.startswith("-"):
            break
    return " ".join(names)


def empty_argument(arguments: Sequence[str]) -> str | None:
    """What is wrong if an argument is empty, as "$TALK" is if TALK is not set: as a path it would
    be the current folder.

    Args:
        arguments: what was typed after `kiku`.
    """
    for before, typed in zip(["kiku", *arguments], arguments, strict=False):
        name, equals, value = typed.partition("=") if typed.startswith("--") else ("", "", "")
        empty = name if equals and not value else before if not typed else None
        if empty is not None:
            return f"the value after {empty} is empty; give one (is a variable not set?)"
    return None


_Meant = tuple[str, list[str]] | None
"""What is wrong, and the right arguments, or none if they cannot be guessed."""


def _no_option(error: typer.TyperException, arguments: Sequence[str]) -> _Meant:
    typed: str | None = getattr(error, "option_name", None)
    if typed is None or not error.format_message().startswith("No such option"):
        return None
    for at, one in enumerate(arguments):
        if one.startswith("-") and Path(one).exists():
            right = [*arguments[:at], f"./{one}", *arguments[at + 1 :]]
            return f"{one} is read as options, and there is no option {typed}", right
    near: Sequence[str] = getattr(error, "possibilities", None) or ()
    if _command(error) == "kiku":
        named = next((one for one in arguments if one in _commands(error)), None)
        if named is not None:
            rest = [one for one in arguments if one != named]
            return f"{typed} must come after the command", [named, *rest]
        if any(map(_is_recording, arguments)):
            return f"{typed} is an option of a command, not of kiku itself", [
                "transcribe",
                *arguments,
            ]
        near = get_close_matches(typed, _options_of_transcribe(error))
    right = _closest(typed, near)
    if right is None:
        others = "" if _command(error) == "kiku" else ", ".join(sorted(near))
        return f"{_command(error)} has no option {typed}{others and f' (near it: {others})'}", []
    renamed = [_renamed(one, typed, right) for one in arguments]
    if _command(error) == "kiku":
        return f"kiku itself has no option {typed}", ["transcribe", "RECORDING", *renamed]
    return f"there is no option {typed}", renamed


def _commands(error: typer.TyperException) -> list[str]:
    """The commands of the program or group that the error is from."""
    context: Any = getattr(error, "ctx", None)
    return context.command.list_commands(context) if hasattr(context, "command") else []


def _options_of_transcribe(error: typer.TyperException) -> list[str]:
    context: Any = getattr(error, "ctx", None)
    command = context and context.command.get_command(context, "transcribe")
    return [name for one in command.params for name in one.opts] if command else []


def _closest(typed: str, near: Sequence[str]) -> str | None:
    """The option that was meant, if one is clearly closer than the others."""
    likeness = {one: SequenceMatcher(None, typed, one).ratio() for one in near}
    first, *others = sorted(near, key=lambda one: -likeness[one]) or [""]
    if likeness.get(first, 0.0) < _CLOSE:
        return None
    return first if all(likeness[first] - likeness[one] > _CLEARLY for one in others) else None


def _no_command(error: typer.TyperException, arguments: Sequence[str]) -> _Meant:
    message = error.format_message()
    if found := _NO_COMMAND.search(message):
        typed = found["typed"]
        if _is_recording(typed):
            return f"there is no command {typed}", ["transcribe", *arguments]
        near = get_close_matches(typed, _commands(error), 1)
        right = [near[0] if one == typed else one for one in arguments] if near else []
        return f"there is no command {typed}", right
    if found := _TOO_MANY.search(message):
        for at, typed in enumerate(arguments if _command(error) == "kiku listen" else ()):
            if at and found["typed"].startswith(typed) and _is_recording(typed):
                right = [*arguments[:at], "--from", *arguments[at:]]
                return "kiku listen takes a recording with --from", right
        return f"{_command(error)} does not take the further argument {found['typed']}", []
    return None


def _command(error: typer.TyperException) -> str:
    """The command that the error is from: "kiku transcribe"."""
    return getattr(getattr(error, "ctx", None), "command_path", None) or "kiku"


def _renamed(argument: str, typed: str, right: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{right}{equals}{value}" if name == typed else argument


def _is_recording(typed: str) -> bool:
    """Whether this looks like a recording, or a folder of recordings."""
    return Path(typed).suffix.lower() in ENDINGS or "/" in typed or os.path.exists(typed)
