"""docs/serve.md says what the code does."""

import re
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import pytest

from kiku.cli import main
from kiku.cli import serve as command
from kiku.engine.choice import EngineName
from kiku.serve.settings import Settings
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "serve.md"


def test_the_tables_follow_from_the_code():
    result = subprocess.run(
        [sys.executable, "tools/serve_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, f"run  python tools/serve_docs.py  {result.stderr}"


def test_every_setting_is_told():
    page = PAGE.read_text(encoding="utf-8")
    page = page.partition("<!-- settings: begin -->")[2].partition("<!-- settings: end -->")[0]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for one in fields(Settings):
        (row,) = [row for row in rows if row.startswith(f"| `{one.name.replace('_', '-')}` |")]
        assert row.rstrip("| ").split("|")[-1].strip(), f"{one.name} has no text"


def test_every_engine_is_named_wherever_engines_are(capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--help"]) == 0
    (row,) = [one for one in PAGE.read_text("utf-8").splitlines() if one.startswith("| `engine`")]
    bullet = (ROOT / "docs" / "python.md").read_text("utf-8").partition("- `engine`")[2]
    (told,) = [one for one in capsys.readouterr().out.splitlines() if "--engine" in one]
    for engine in get_args(EngineName):
        for text in (told, row, bullet.partition("\n- ")[0]):
            assert engine in text


def test_what_is_written_as_an_option_is_one():
    given = [command.AddressOptions, command.ServedModelOptions, command.AccessOptions,
             command.BoundOptions, command.KeptOptions]  # fmt: skip
    there = {one.name for theme in given for one in fields(theme)}
    page = PAGE.read_text(encoding="utf-8")
    for one in fields(Settings):
        flag = f"--{one.name.replace('_', '-')}"
        said = re.search(rf"{flag}(?![a-z-])", page)
        assert one.name in there or said is None, f"kiku serve has no {flag}"


def test_nothing_is_left_to_be_filled_in():
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- parts -->" not in page
    assert "<!-- figures -->" not in page
