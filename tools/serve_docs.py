"""Writes what docs/serve.md has from the code: settings, and each protocol's parameters.

python tools/serve_docs.py            # writes them
python tools/serve_docs.py --check    # only says whether they are up to date
"""

import argparse
import ast
import importlib
import inspect
import re
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

from kiku.serve import settings
from kiku.serve.protocols.parameters import Parameter
from kiku.serve.settings import Settings

PROTOCOLS = (
    ("OpenAI, recordings", "openai_rest", "PARAMETERS"),
    ("OpenAI Realtime", "openai_realtime_session", "PARAMETERS"),
    ("Deepgram, live", "deepgram_query", "LISTEN_PARAMETERS"),
    ("Deepgram, turns", "deepgram_query", "FLUX_PARAMETERS"),
    ("Deepgram, recordings", "deepgram_query", "FILE_PARAMETERS"),
    ("Wyoming", "wyoming", "PARAMETERS"),
    ("kiku's own socket", "own", "PARAMETERS"),
)
"""What each table is called, and where it stands."""

PAGE = Path(__file__).parents[1] / "docs" / "serve.md"


def documented(source: str, name: str) -> dict[str, str]:
    """The text below each field of a class, first sentence, by name."""
    tree = ast.parse(source)
    body = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name).body
    found: dict[str, str] = {}
    for one, after in pairwise(body):
        if (
            isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[one.target.id] = " ".join(after.value.value.split()).rstrip(".")
    return found


def settings_table() -> str:
    """Each setting, its default, and what it is."""
    told, plain = documented(inspect.getsource(settings), "Settings"), Settings()
    rows = ["| option | if not given | |", "|---|---|---|"]
    for one in fields(Settings):
        value = getattr(plain, one.name)
        if isinstance(value, tuple):
            value = " ".join(map(str, value)) or None
        if isinstance(value, bool):
            value = str(value).lower()
        shown = "" if value is None else f"`{value}`"
        rows.append(f"| `{one.name.replace('_', '-')}` | {shown} | {told.get(one.name, '')} |")
    return "\n".join(rows)


def parameter_tables() -> str:
    """The parameters of each protocol, and what becomes of them."""
    parts: list[str] = []
    for title, module, name in PROTOCOLS:
        loaded = importlib.import_module(f"kiku.serve.protocols.{module}")
        known: tuple[Parameter, ...] = getattr(loaded, name)
        rows = [f"**{title}**", "", "| parameter | | |", "|---|---|---|"]
        rows += [f"| `{one.name}` | {one.fate} | {one.note} |" for one in known]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def filled(page: str) -> str:
    """The page with its tables as the code says."""
    for name, table in (("settings", settings_table()), ("parameters", parameter_tables())):
        mark = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not mark.search(page):
            raise SystemExit(f"{PAGE} has no place for the table {name}")
        page = mark.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page)
    return page


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    page = PAGE.read_text("utf-8")
    wanted = filled(page)
    if given.check:
        return int(page != wanted)
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
