"""`push_to_hub` sends what `save_pretrained` writes; a hub of the test's own takes it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from kiku.errors import CheckpointError, InputError
from kiku.hf import (
    GenerationConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
)


class Hub:
    """Stands where `HfApi` does, and writes down what it is asked for."""

    calls: list[tuple[str, Any, dict[str, Any]]]
    error: Exception | None

    def __init__(self, token: Any = None) -> None:
        self.calls.append(("login", token, {}))

    def create_repo(self, repo_id: str, **asked: Any) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("create", repo_id, asked))

    def create_branch(self, repo_id: str, **asked: Any) -> None:
        self.calls.append(("branch", repo_id, asked))

    def upload_folder(self, *, folder_path: Path, **asked: Any) -> Any:
        names = sorted(path.name for path in folder_path.iterdir())
        self.calls.append(("upload", names, asked))
        return SimpleNamespace(commit_url="https://hub/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    Hub.calls, Hub.error = [], None
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def test_a_model_and_a_processor_are_sent(
    ours: KyutaiSpeechToTextForConditionalGeneration,
    processor: KyutaiSpeechToTextProcessor,
    hub: type[Hub],
) -> None:
    assert ours.push_to_hub("me/stt", private=True, token="secret") == "https://hub/commit/1"
    (_, token, _), (_, repo, made), (_, names, asked) = hub.calls
    assert (token, repo, made) == ("secret", "me/stt", {"private": True, "exist_ok": True})
    assert "model.safetensors" in names
    assert "config.json" in names
    assert asked["commit_message"] == "Upload KyutaiSpeechToTextForConditionalGeneration"
    hub.calls.clear()
    processor.push_to_hub("me/stt", commit_message="mine", revision="other", max_shard_size=None)
    kinds = [kind for kind, _, _ in hub.calls]
    assert kinds == ["login", "create", "branch", "upload"]
    assert "tokenizer.json" in hub.calls[-1][1]
    assert hub.calls[-1][2]["commit_message"] == "mine"
    assert hub.calls[-1][2]["revision"] == "other"
    for part in (processor.tokenizer, processor.feature_extractor, ours.config, GenerationConfig()):
        hub.calls.clear()
        part.push_to_hub("me/stt", create_pr=True)
        assert hub.calls[-1][2]["create_pr"] is True
        assert hub.calls[-1][1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.HFValidationError("no slash"), "is not a repository id: no slash"),
        (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set; unset it"),
        (ConnectionError("no route"), r"refused me/stt \(no route\); check the network"),
        (errors.LocalTokenNotFoundError("no token"), "no token.*hf auth whoami"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    hub: type[Hub], error: Exception, message: str
) -> None:
    hub.error = error
    with pytest.raises(CheckpointError, match=message):
        GenerationConfig().push_to_hub("me/stt")


def test_unknown_arguments_are_refused(
    ours: KyutaiSpeechToTextForConditionalGeneration, hub: type[Hub], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="push_to_hub does not know colour"):
        GenerationConfig().push_to_hub("me/stt", colour="red")
    assert not hub.calls
    for asked in ({"push_to_hub": True}, {"variant": "fp16"}, {"is_main_process": False}):
        with pytest.raises(InputError, match="save_pretrained does not know"):
            ours.save_pretrained(tmp_path, **asked)
    assert not list(tmp_path.iterdir())
    ours.save_pretrained(tmp_path, push_to_hub=False, is_main_process=True, variant=None)
    assert list(tmp_path.iterdir())
