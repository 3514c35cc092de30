"""Sources, and what is said when the hub does not give what was asked for. No network here."""

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

import kiku
from kiku.checkpoint import DEMO, KNOWN_REPOS, find, hub, is_local
from kiku.checkpoint.corrections import PUBLISHED
from kiku.config import CodecConfig
from kiku.errors import CheckpointError

Download = Callable[..., str]
REPO = "kyutai/stt-1b-en_fr"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Download], None]:
    """Let a function stand for the hub."""

    def install(download: Download) -> None:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)

    return install


def _folder_as_hub(folder: Path, asked: list[tuple[str, str | None]]) -> Download:
    def download(repo_id: str, name: str, *, revision: str | None, **_: Any) -> str:
        assert repo_id == REPO
        asked.append((name, revision))
        if not (folder / name).is_file():
            raise errors.EntryNotFoundError(f"404 for {name}")
        return str(folder / name)

    return download


def test_only_the_files_that_are_needed_are_fetched(
    native_folder: Path, serve: Callable[[Download], None]
) -> None:
    asked: list[tuple[str, str | None]] = []
    serve(_folder_as_hub(native_folder, asked))
    files = find(REPO, revision="v1")
    assert files.name == REPO
    assert files.layout == "native"
    assert {revision for _, revision in asked} == {"v1"}
    assert sorted(name for name, _ in asked) == [
        "config.json", "mimi.safetensors", "mimi_config.json", "model.safetensors",
        "tokenizer.json",
    ]  # fmt: skip


def _pushed_to_after(first: str, folder: Path, cache: Path, asked: list[str]) -> Download:
    """A hub whose branch moves on once the file `first` was fetched."""

    def download(repo_id: str, name: str, *, revision: str | None, **_: Any) -> str:
        pushed = first in asked
        asked.append(name)
        commit = revision or ("b" if pushed else "a") * 40
        if not (folder / name).is_file():
            raise errors.EntryNotFoundError(f"404 for {name}")
        snapshot = cache / "models--kyutai--stt" / "snapshots" / commit
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, snapshot / name)
        return str(snapshot / name)

    return download


@pytest.mark.parametrize("layout", ["native_folder", "transformers_folder"])
def test_a_push_in_between_does_not_mix_two_models(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path, serve: Callable[[Download], None]
) -> None:
    asked: list[str] = []
    folder: Path = request.getfixturevalue(layout)
    serve(_pushed_to_after("config.json", folder, tmp_path / "cache", asked))
    files = find(REPO)
    assert files.vocabulary is not None
    found = {files.config, files.vocabulary, *files.weights}
    assert {path.parent.name for path in found} == {"a" * 40}
    assert len(asked) == len(set(asked)), "each file is asked for once"


def test_an_open_place_is_not_asked_again(
    transformers_folder: Path, tmp_path: Path, serve: Callable[[Download], None]
) -> None:
    asked: list[str] = []
    serve(_pushed_to_after("config.json", transformers_folder, tmp_path / "cache", asked))
    place = hub.open_place(REPO)
    assert place.get("config.json") == place.get("config.json")
    assert place.get("nothing") is place.get("nothing") is None
    small = find(place, weights=False)
    whole = find(place)
    assert small.config == whole.config
    assert whole.weights[0].parent.name == "a" * 40
    assert len(asked) == len(set(asked))


def test_a_file_in_a_folder_of_the_repository_tells_the_commit_too(
    tmp_path: Path, serve: Callable[[Download], None]
) -> None:
    (tmp_path / "repo/sub").mkdir(parents=True)
    (tmp_path / "repo/sub/mimi.safetensors").touch()
    serve(_pushed_to_after("", tmp_path / "repo", tmp_path / "cache", []))
    place = hub.Repo(REPO, None)
    assert place.get("sub/mimi.safetensors") is not None
    assert place.commit == "a" * 40


def test_without_weights_the_big_files_stay_away(
    native_folder: Path, serve: Callable[[Download], None]
) -> None:
    asked: list[tuple[str, str | None]] = []
    serve(_folder_as_hub(native_folder, asked))
    find(REPO, weights=False)
    assert not any("safetensors" in name for name, _ in asked)


def test_a_transformers_repository(
    transformers_folder: Path, serve: Callable[[Download], None]
) -> None:
    asked: list[tuple[str, str | None]] = []
    serve(_folder_as_hub(transformers_folder, asked))
    assert find(REPO).layout == "transformers"
    assert ("model.safetensors.index.json", None) not in asked, "one file: no index is looked for"


def test_a_repository_that_lacks_files(
    native_folder: Path, serve: Callable[[Download], None]
) -> None:
    (native_folder / "mimi.safetensors").unlink()
    serve(_folder_as_hub(native_folder, []))
    with pytest.raises(
        CheckpointError, match=r"not a complete checkpoint: mimi\.safetensors missing"
    ):
        find(REPO)


def _http(kind: type[Exception], message: str) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


_OFFLINE = errors.OfflineModeIsEnabled("offline")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_http(errors.GatedRepoError, "403"), "is gated: accept its terms at https://hugging"),
        (_http(errors.RepositoryNotFoundError, "404"), "there is no repository"),
        (_http(errors.RevisionNotFoundError, "404"), "has no revision 'v9'"),
        (_http(errors.HfHubHTTPError, "500 broken"), "the hub refused config.json .*500 broken"),
        (_caused(errors.LocalEntryNotFoundError("x"), OSError("no route")), "no route.*network"),
        (_caused(errors.LocalEntryNotFoundError("x"), _OFFLINE), "--offline or HF_HUB_OFFLINE"),
        (_OFFLINE, "--offline or HF_HUB_OFFLINE"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk.*HF_HOME"),
        (OSError(errno.EACCES, "denied"), "cannot be stored in .*denied.*HF_HOME"),
        (OSError(errno.EIO, "broken"), "could not be downloaded: .*broken"),
        (errors.HFValidationError("bad"), "not a repository id"),
    ],
)
def test_each_failure_is_one_sentence(
    error: Exception, message: str, serve: Callable[[Download], None]
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    serve(download)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        find(REPO, revision="v9")
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


def test_a_broken_connection_in_the_middle(serve: Callable[[Download], None]) -> None:
    import httpx2

    def download(*_: Any, **__: Any) -> str:
        raise httpx2.ReadTimeout("the read timed out")

    serve(download)
    with pytest.raises(CheckpointError, match="could not be downloaded: the read timed out"):
        find(REPO)


def test_our_own_bugs_are_not_dressed_up(serve: Callable[[Download], None]) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError

    serve(download)
    with pytest.raises(ZeroDivisionError):
        find(REPO)


def test_an_address_in_another_repository(
    native_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hf://` as Kyutai's loader understands it."""
    config = native_folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "mimi_name": "hf://else/where/sub/mimi.safetensors"}))

    def download(repo_id: str, name: str, *, revision: str | None, **_: Any) -> str:
        assert (repo_id, name, revision) == ("else/where", "sub/mimi.safetensors", None)
        return str(native_folder / "mimi.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
    assert find(native_folder).codec == (native_folder / "mimi.safetensors",)


@pytest.mark.parametrize("source", ["./nowhere", "nowhere", "a/b/c", "/no/such/folder", "", "\0"])
def test_a_source_that_is_nothing(source: str) -> None:
    with pytest.raises(CheckpointError, match="neither an existing folder nor a repository") as e:
        find(source)
    assert REPO in str(e.value)


def test_what_lies_on_this_machine(native_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(native_folder.parent))
    for source in (DEMO, native_folder, str(native_folder), f"~/{native_folder.name}"):
        assert is_local(source)
    for source in (REPO, "~no-such-user/x", "a" * 5000, native_folder / "config.json"):
        assert not is_local(source)


def test_a_home_of_nobody_is_no_folder() -> None:
    for load in (find, kiku.load):
        with pytest.raises(
            CheckpointError, match="'~no-such-user/x' is neither an existing folder"
        ):
            load("~no-such-user/x")


def test_a_folder_that_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: Any) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name in ("is_file", "is_dir"):
        monkeypatch.setattr(Path, name, refuse)
    for load in (find, kiku.load):
        with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
            load(tmp_path)


def test_without_a_home_the_cache_of_the_hub_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library would make a folder that is called `~`."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
    with pytest.raises(CheckpointError, match="no home folder for the hub's cache; set HF_HOME"):
        find(REPO)


def test_a_file_instead_of_its_folder(native_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; a checkpoint is the folder"):
        find(native_folder / "model.safetensors")


def test_a_folder_has_no_revision(native_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="has no revision 'v1'"):
        find(native_folder, revision="v1")


def test_a_folder_wins_over_a_repository_of_its_name(
    native_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kyutai").mkdir()
    native_folder.rename(tmp_path / REPO)
    monkeypatch.chdir(tmp_path)
    assert find(REPO).config == Path(REPO) / "config.json"


def test_the_demo_is_the_folder_inside_the_package() -> None:
    try:
        place = hub.open_place(DEMO)
    except CheckpointError as e:
        assert "demo model is not in this installation" in str(e)  # noqa: PT017
    else:
        assert isinstance(place, hub.Folder)
        assert place.path.parts[-2:] == ("kiku", "demo")


def test_known_repositories() -> None:
    ids = [repo.repo_id for repo in KNOWN_REPOS]
    assert len(set(ids)) == len(ids) == 6
    assert all(
        (repo.layout == "transformers") == repo.repo_id.endswith("-trfs") for repo in KNOWN_REPOS
    )


def test_the_list_the_corrections_and_the_readme_agree(repo_root: Path) -> None:
    readme = (repo_root / "README.md").read_text()
    rows = re.findall(r"^\| `(kyutai/\S+)` \|(.*)\|$", readme, re.MULTILINE)
    assert [name for name, _ in rows] == [repo.repo_id for repo in KNOWN_REPOS]
    for repo, (_, row) in zip(KNOWN_REPOS, rows, strict=True):
        cells = [cell.strip() for cell in row.split("|")]
        known = next(p for p in PUBLISHED if (p.num_layers == 16) == ("-1b-" in repo.repo_id))
        languages = {"English": "en", "French": "fr"}
        assert ", ".join(languages[word] for word in cells[0].split(", ")) == repo.languages
        assert repo.text_delay_s == known.delay_s
        assert cells[1] == f"{repo.text_delay_s} s"
        assert cells[2] == f"{known.window / CodecConfig().frame_rate:g} s"
        assert cells[3] == f"{repo.download_gb} GB"
        assert ("pauses" in cells[4]) == (repo.num_pause_heads > 0)
        assert ("transformers" in cells[4]) == (repo.layout == "transformers")


def test_looking_for_files_does_not_need_torch() -> None:
    code = "import sys, kiku.checkpoint; kiku.checkpoint.find; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
