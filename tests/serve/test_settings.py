"""Settings come from the command line, the environment and a file, in that order of weight."""

import re
from pathlib import Path

import pytest

from kiku.errors import ConfigError
from kiku.serve.settings import DEFAULT_ALIASES, Settings, is_loopback, unknown_names
from tests.conftest import ROOT


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
        ("prot = 1", r"prot, which is not known; did you mean port\?$"),
        ('language = ["en"]', r"language, which is not known; did you mean languages\?$"),
        ("max_conections = 1", r"did you mean max-connections\?$"),
        ("qwertz = 1", "which is not known; docs/serve.md lists the settings"),
        ('port = "8080"', "port in .* must be a whole number, not '8080'"),
        ("port = true", "port in .* must be a whole number, not True"),
        ("insecure = 1", "insecure in .* must be true or false"),
        ("api-key = [1]", "must be a list of texts"),
        ("port = ", "is not TOML"),
        ("[serve]\nport = 1", r"has a table \[serve\]: write its lines above all tables$"),
        ("api-key = []", "api-key in .*kiku.toml must not be empty"),
        ('languages = ["english"]', "languages in .*kiku.toml must be .* not 'english'$"),
        ('host = "localhost:80"', "host in .*kiku.toml must have no port, .*: give it to --port"),
        ("max-message-bytes = 0", "max-message-bytes in .*kiku.toml must be at least 1"),
        ("max-upload-bytes = 0", "must be at least 1"),
        ("max-connections = 0", "must be at least 1"),
        ("max-connections-per-key = 0", "must be at least 1"),
        ("max-requests-per-minute = 0", "must be at least 1"),
        ("decoder-bytes = 0", "must be at least 1"),
        ("header-s = 0", "header-s in .*kiku.toml must be more than 0"),
        ("body-s = 0.0", "must be more than 0"),
        ("max-upload-s = 0", "must be more than 0"),
        ("read-ahead-s = 0", "must be more than 0"),
        ('calibration = ""', "calibration in .* must be a path"),
        ('api-keys-file = ""', "api-keys-file in .* must be a path"),
        ("port = 70000", "port in .*kiku.toml must be at most 65535"),
        ("slots = 0", "slots in .*kiku.toml must be at least 1"),
        ("idle_s = -1", "idle-s in .*kiku.toml must be at least 0"),
        ("idle_s = nan", "idle-s in .*kiku.toml must be at least 0"),
        ('log_level = "loud"', "log-level in .*kiku.toml must be"),
        ('log_format = "xml"', "log-format in .*kiku.toml must be"),
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
    ("name", "text"),
    [
        ("KIKU_PORT", "http"),
        ("KIKU_INSECURE", "perhaps"),
        ("KIKU_IDLE_S", ""),
        ("KIKU_LOG_LEVEL", "loud"),
        ("KIKU_SLOTS", "0"),
        ("KIKU_LANGUAGES", "en,english"),
        ("KIKU_API_KEY", ""),
        ("KIKU_API_KEY", " , "),
        ("KIKU_API_KEYS_FILE", ""),
    ],
)
def test_an_environment_that_cannot_be_followed_is_told_by_name(name: str, text: str):
    with pytest.raises(ConfigError, match=name):
        Settings.gathered({}, {name: text})


def test_what_is_given_is_told_by_its_option():
    for given, said in (
        ({"slots": 0}, "--slots must be at least 1, not 0"),
        ({"languages": ("english",)}, "--language must be"),
        ({"host": "[::1]:80"}, "--host must have no port"),
        ({"api_key": ("",)}, "--api-key must not be empty"),
    ):
        with pytest.raises(ConfigError, match=f"^{said}"):
            Settings.gathered(given, {"KIKU_SLOTS": "3", "KIKU_LANGUAGES": "en"})


def test_a_level_may_be_written_in_capitals():
    assert Settings.gathered({}, {"KIKU_LOG_LEVEL": "INFO"}).log_level == "info"


@pytest.mark.parametrize("host", ["::1", "localhost", "example.org", "127.0.0.1", "::"])
def test_hosts_without_a_port(host: str):
    assert Settings(host=host).host == host


def test_a_model_of_a_file_may_be_a_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    file = tmp_path / "kiku.toml"
    for given, wanted in (
        ("./mine", str(tmp_path / "mine")), ("../mine", str(tmp_path / ".." / "mine")),
        ("~/mine", str(Path("/home/me/mine"))), ("/mine", str(Path("/mine"))),
        ("demo", "demo"), ("kyutai/stt-1b-en_fr", "kyutai/stt-1b-en_fr"),
    ):  # fmt: skip
        file.write_text(f'model = "{given}"')
        assert Settings.gathered({}, {}, file).model == wanted
    assert Settings.gathered({}, {"KIKU_MODEL": "./mine"}, file).model == "./mine"
    assert Settings.gathered({"model": "~/mine"}, {}, file).model == str(Path("/home/me/mine"))


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


def test_a_file_of_keys_may_have_comments_and_the_mark_that_windows_writes(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("one\n# my keys\n  # more\ntwo#2\n", encoding="utf-8-sig")
    assert Settings(api_keys_file=file).keys() == {"one", "two#2"}
    file.write_text("# one\n")
    with pytest.raises(ConfigError, match="contains no key"):
        Settings(api_keys_file=file).keys()


def test_a_file_may_begin_with_the_mark_that_windows_writes(tmp_path: Path):
    file = tmp_path / "kiku.toml"
    file.write_text("port = 5", encoding="utf-8-sig")
    assert Settings.gathered({}, {}, file).port == 5


def test_paths_in_a_file_count_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    file = folder / "kiku.toml"
    file.write_text('api-keys-file = "keys"\nsession-store = "kept"\ncalibration = "c.json"')
    for named in (file, Path("etc/kiku.toml")):
        settings = Settings.gathered({}, {}, named)
        assert settings.api_keys_file is not None
        assert settings.session_store is not None
        assert settings.calibration is not None
        assert settings.api_keys_file.resolve() == folder / "keys"
        assert settings.calibration.resolve() == folder / "c.json"
        assert Path(settings.session_store).resolve() == folder / "kept"
    file.write_text('api-keys-file = "/keys"\nsession-store = "redis://host:1/0"')
    settings = Settings.gathered({}, {}, file)
    assert settings.api_keys_file == Path("/keys")
    assert settings.session_store == "redis://host:1/0"
    beside = Settings.gathered(
        {"api_keys_file": Path("keys")}, {"KIKU_SESSION_STORE": "kept"}, file
    )
    assert (beside.api_keys_file, beside.session_store) == (Path("keys"), "kept")


def test_a_tilde_is_the_home_folder_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "kiku.toml").write_text('api-keys-file = "~/keys"\nsession-store = "~/kept"')
    given = {"api_keys_file": Path("~/keys"), "session_store": "~/kept"}
    for settings in (
        Settings.gathered({}, {}, Path("~/kiku.toml")),
        Settings.gathered({}, {"KIKU_CONFIG": "~/kiku.toml"}),
        Settings.gathered(given, {}),
        Settings.gathered({}, {"KIKU_API_KEYS_FILE": "~/keys", "KIKU_SESSION_STORE": "~/kept"}),
    ):
        assert settings.api_keys_file == home / "keys"
        assert settings.session_store == str(home / "kept")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("https://example.org", "https://example.org"),
        ("https://Example.org/", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("null", "null"),
    ],
)
def test_origins_are_named_as_browsers_name_them(given: str, named: str):
    assert Settings(allowed_origin=(given,)).allowed_origin == (named,)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("example.org", "https://example.org,"),
        ("localhost:3000", "https://localhost:3000,"),
        ("//example.org", "https://example.org,"),
        ("https://example.org/page", "https://example.org,"),
        ("https://example.org?a=b", "https://example.org,"),
        ("https://*.example.org", "https://example.org,"),
        ("https://[bad", "https://example.org,"),
        ("https://example.org:port", "https://example.org,"),
        ("*", "https://example.org,"),
        ("", "https://example.org,"),
    ],
)
def test_an_origin_that_no_page_has_is_refused(given: str, hint: str):
    with pytest.raises(ConfigError, match="--allowed-origin must be the scheme and") as caught:
        Settings(allowed_origin=(given,))
    assert f"{hint} not {given!r}" in str(caught.value)


def test_what_is_named_as_a_setting_and_is_none_is_told():
    environment = {
        "KIKU_LANGUAGE": "en", "KIKU_QWERTZ": "1", "KIKU_PORT": "1", "KIKU_CACHE": "/c",
        "KIKU_SERVICE_HOST": "10.0.0.1", "KIKU_SERVICE_PORT_HTTP": "80", "HOME": "/",
        "KIKU_WEB_PORT": "tcp://x:1", "KIKU_PORT_80_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    assert list(unknown_names(environment)) == [
        "KIKU_LANGUAGE is set, but is not a setting of kiku serve; did you mean KIKU_LANGUAGES?",
        "KIKU_QWERTZ is set, but is not a setting of kiku serve; docs/serve.md lists the settings",
    ]


def test_names_that_kiku_reads_are_known():
    read: set[str] = set()
    for folder in ("src", "kernels", "tests/parity", "tests/kernels", "deploy"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".rs", ".toml") and file.is_file():
                read |= set(re.findall(r"KIKU_[A-Z_]*[A-Z]", file.read_text("utf-8")))
    assert {"KIKU_CACHE", "KIKU_GOLDEN_TOKENS"} <= read
    assert list(unknown_names(dict.fromkeys(read, ""))) == []


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
