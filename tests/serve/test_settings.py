"""Settings come from the command line, the environment and a file, in that order of weight."""

from pathlib import Path

import pytest

from kiku.errors import ConfigError
from kiku.serve.settings import DEFAULT_ALIASES, Settings, is_loopback


def test_what_is_given_counts_before_the_environment_and_that_before_the_file(tmp_path: Path):
    file = tmp_path / "kiku.toml"
    file.write_text('port = 1\nslots = 2\nhost = "::1"\nmodel-alias = ["a", "b"]\nidle_s = 5\n')
    environment = {"KIKU_PORT": "3", "KIKU_SLOTS": "4", "KIKU_INSECURE": "yes"}
    settings = Settings.gathered({"port": 5, "slots": None}, environment, file)
    assert (settings.port, settings.slots, settings.host) == (5, 4, "::1")
    assert settings.model_alias == ("a", "b")
    assert settings.idle_s == 5.0
    assert settings.insecure is True
    assert settings.max_queue == Settings().max_queue


def test_the_file_may_be_named_in_the_environment(tmp_path: Path):
    file = tmp_path / "kiku.toml"
    file.write_text("max-queue = 7")
    assert Settings.gathered({}, {"KIKU_CONFIG": str(file)}).max_queue == 7


def test_lists_of_the_environment_have_commas():
    settings = Settings.gathered({}, {"KIKU_API_KEY": "a, b,", "KIKU_LANGUAGES": "en,fr"})
    assert settings.keys() == {"a", "b"}
    assert settings.languages == ("en", "fr")
    assert settings.model_alias == DEFAULT_ALIASES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "prot, which is not known"),
        ('port = "8080"', "port in .* must be a whole number, not '8080'"),
        ("port = true", "port in .* must be a whole number, not True"),
        ("insecure = 1", "insecure in .* must be true or false"),
        ("api-key = [1]", "must be a list of texts"),
        ("port = ", "is not TOML"),
        ("port = 70000", "--port must be at most 65535"),
        ("slots = 0", "--slots must be at least 1"),
        ("idle_s = -1", "--idle-s must be at least 0"),
        ("idle_s = nan", "--idle-s must be at least 0"),
        ('log_level = "loud"', "--log-level must be"),
        ('log_format = "xml"', "--log-format must be"),
    ],
)
def test_a_file_that_cannot_be_followed_is_told_by_name(tmp_path: Path, text: str, said: str):
    file = tmp_path / "kiku.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Settings.gathered({}, {}, file)


@pytest.mark.parametrize("name", ["api-key", "session-key", "session_store"])
def test_secrets_are_in_no_error(tmp_path: Path, name: str):
    file = tmp_path / "kiku.toml"
    file.write_text(f"{name} = {{ value = 'sesame' }}")
    with pytest.raises(ConfigError, match=f"{name} in .* must be") as told:
        Settings.gathered({}, {}, file)
    assert "sesame" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "text"), [("KIKU_PORT", "http"), ("KIKU_INSECURE", "perhaps"), ("KIKU_IDLE_S", "")]
)
def test_an_environment_that_cannot_be_followed_is_told_by_name(name: str, text: str):
    with pytest.raises(ConfigError, match=name):
        Settings.gathered({}, {name: text})


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings.gathered({}, {}, tmp_path / "none.toml")


def test_keys_come_from_both_places(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("\ufeffone\n\n two \n# of the night shift\n", "utf-8")
    settings = Settings(api_key=("three",), api_keys_file=file)
    assert settings.keys() == {"one", "two", "three"}


@pytest.mark.parametrize("content", [None, "", "\n \n", b"\xff\xfe"])
def test_a_file_without_keys_lets_nobody_in(tmp_path: Path, content: str | bytes | None):
    file = tmp_path / "keys"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="keys"):
        Settings(api_keys_file=file).keys()


def test_other_machines_want_a_key_or_a_word():
    with pytest.raises(ConfigError, match="--insecure"):
        Settings(host="0.0.0.0").keys()
    assert Settings(host="0.0.0.0", insecure=True).keys() == frozenset()
    assert Settings(host="0.0.0.0", api_key=("k",)).keys() == {"k"}
    assert Settings(host="127.0.0.1").keys() == frozenset()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_not_loopback(host: str):
    assert not is_loopback(host)


def test_a_file_of_settings_may_begin_as_editors_on_windows_write_it(tmp_path: Path):
    file = tmp_path / "kiku.toml"
    file.write_text("port = 9\n", "utf-8-sig")
    assert Settings.gathered({}, {}, file).port == 9


def test_a_path_in_a_file_of_settings_counts_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = tmp_path / "kiku.toml"
    for written, meant in (
        ("keys", tmp_path / "keys"),
        ("/etc/keys", Path("/etc/keys")),
        ("~/keys", tmp_path / "home" / "keys"),
    ):
        file.write_text(f'api-keys-file = "{written}"\nsession-store = "~/store"\n')
        found = Settings.gathered({}, {}, file)
        assert found.api_keys_file == meant
        assert found.session_store == str(tmp_path / "home" / "store")


@pytest.mark.parametrize("origin", ["example.org", "https://", "https://example.org/page", "*"])
def test_an_origin_is_written_as_browsers_do(origin: str):
    with pytest.raises(ConfigError, match="https://example"):
        Settings(allowed_origin=(origin,))
    assert Settings(allowed_origin=("http://localhost:3000", "capacitor://localhost"))
