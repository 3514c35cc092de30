"""Options in themes: a command takes dataclasses as arguments, and their fields are its options.

A class may have a `TITLE`, under which `--help` lists its options; several may share one. Nothing
here knows what an option means.
"""

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints

from typer.core import TyperCommand
from typer.models import OptionInfo

LISTED_LAST = {"is_last": True}
"""Metadata of a field whose option is listed behind all others of its class, also behind those that
another class adds to them."""

_ORDINARY = "Options"


def themed(command: Callable[..., int]) -> Callable[..., int]:
    """Turn a command into a function for typer: each dataclass among its arguments is replaced by
    an option for each of its fields, and built from these when the command is called."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    themes: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if is_dataclass(hints[name]):
            themes[name] = hints[name]
            flat += _options_of(themes[name])
        else:
            flat.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> int:
        made = {
            name: theme(**{field.name: given.pop(field.name) for field in fields(theme)})
            for name, theme in themes.items()
        }
        return command(**given, **made)

    run.__annotations__ = {one.name: one.annotation for one in flat}
    vars(run)["__signature__"] = signature.replace(parameters=flat)
    return run


def _options_of(theme: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(theme, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=_under(getattr(theme, "TITLE", None), hints[field.name]),
        )
        for field in sorted(fields(theme), key=lambda one: "is_last" in one.metadata)
    ]


def _under(title: str | None, annotation: Any) -> Any:
    """The option that an annotation describes, listed under this title; arguments have none."""
    kind, option = get_args(annotation)
    if title is None or not isinstance(option, OptionInfo):
        return annotation
    listed = copy(option)
    listed.rich_help_panel = title
    return Annotated[kind, listed]


class ThemedCommand(TyperCommand):
    """A command whose help lists its options under the titles of their themes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the themes in the command's order, and options without a theme."""
        listed: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            ordinary = "Arguments" if parameter.param_type_name == "argument" else _ORDINARY
            title = getattr(parameter, "rich_help_panel", None) or ordinary
            if (record := parameter.get_help_record(ctx)) is not None:
                listed.setdefault(title, []).append(record)
        listed[_ORDINARY] = listed.pop(_ORDINARY, [])  # at the end
        for title, records in listed.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
