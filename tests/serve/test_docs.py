"""docs/serve.md says what the code does."""

import subprocess
import sys
from dataclasses import fields

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


def test_nothing_is_left_to_be_filled_in():
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- parts -->" not in page
    assert "<!-- figures -->" not in page
