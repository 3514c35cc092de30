"""docs/teach.md from its first to its last command, with few steps."""

import re
import shlex
import shutil
from pathlib import Path

import httpx
import pytest

import kiku
from kiku.checkpoint import load
from kiku.cli import main
from kiku.train.settings import read_settings
from tests.conftest import ROOT
from tests.serve.running import running

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_leads_to_a_model_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kiku.engine.onnx.usable_threads", lambda: 1)
    shutil.copytree(ROOT / "examples", "examples")
    commands: list[list[str]] = []
    for fence in _FENCE.finditer((ROOT / "docs" / "teach.md").read_text(encoding="utf-8")):
        kind, _, name = fence["info"].partition(" ")
        if name:
            few = re.sub(r"^(steps|log_every|save_every|dev_every|warmup) = \d+", r"\1 = 4",
                         fence["body"], flags=re.MULTILINE)  # fmt: skip
            Path(name).write_text(few)
        elif kind == "console":
            lines = fence["body"].splitlines()
            commands += [shlex.split(line.removeprefix("$ kiku ")) for line in lines]
    assert [command[:2] for command in commands] == [
        ["train", "align"], ["train", "pack"], ["train", "fit"], ["train", "export"],
        ["transcribe", "examples/digits.wav"], ["serve", "--model"],
    ]  # fmt: skip
    said: list[str] = []
    for command in commands[:-1]:
        few = ["--steps", "10"] if command[1] == "align" else []
        assert main([*command, *few]) == 0, capsys.readouterr().err
        said.append(capsys.readouterr().out)
    assert said[0].startswith("3 rows now have times")
    # of the two to train on, each as it is, and two copies of both
    assert re.match(r"3 rows -> dev 1, train [3-6] examples", said[1])
    assert "step 4/4  loss" in said[2]
    assert "dev " in said[2]
    with running(kiku.load(commands[-1][2])) as service:
        answer = httpx.post(
            f"{service.http}/v1/audio/transcriptions",
            files={"file": Path("examples/digits.wav").read_bytes()},
            data={"model": "model"},
            timeout=60,
        )
    assert answer.status_code == 200
    # Four steps with adapters have not made it forget.
    assert answer.json()["text"].split()[0] in said[4]
    assert "seven" in said[4]


def page_blocks(wanted: str) -> list[str]:
    page = (ROOT / "docs" / "teach.md").read_text(encoding="utf-8")
    return [fence["body"] for fence in _FENCE.finditer(page) if fence["info"] == wanted]


def test_the_page_makes_a_model_that_spells_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("manifest.jsonl").write_text('{"path": "a.wav", "text": "bonjour zéro"}\n')
    (command,) = page_blocks("sh")[0].splitlines()
    assert main(shlex.split(command)[1:]) == 0
    assert "letters that were missing: b j é" in capsys.readouterr().out
    assert load("letters").vocabulary.encode("bonjour zéro")


def test_the_longer_walk_is_one_that_can_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes half an hour: here its options are known, and its settings can be read."""
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in page_blocks("sh")[1].splitlines()]
    assert commands[0][:3] == ["python", "-m", "recipes.teach"]
    for command in commands[1:]:
        assert main([*command[1:], "--help"]) == 0, command
        capsys.readouterr()
    (settings,) = page_blocks("toml french.toml")
    Path("french.toml").write_text(settings)
    found = read_settings(Path("french.toml"))
    assert found.lora is not None
    assert found.lora.new_pieces == -1
    assert [Path(found.pack).name, Path(found.run).name] == ["pack", "run"]
    assert [command[2] for command in commands[1:5]] == ["vocab", "pack", "fit", "export"]
