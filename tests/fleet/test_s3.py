"""Recordings and results in S3, by s3fs, at a server of this process.

Wants the packages `s3fs` and `moto[server]`, which no extra brings.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import fsspec
import pytest

from kiku.errors import InputError, OutputError
from kiku.fleet.batch import Run, run_batch
from kiku.fleet.settings import BatchRequest, ModelSettings
from kiku.fleet.store import RowStore
from tests.fleet.conftest import Processes

pytest.importorskip("s3fs", reason="s3fs is not installed")
server = pytest.importorskip("moto.server", reason="moto[server] is not installed")

REQUEST = BatchRequest(ModelSettings("simple"))

pytestmark = [
    pytest.mark.usefixtures("probes_are_quick"),
    pytest.mark.filterwarnings("default"),  # s3fs and moto leave connections for the collector
]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, calls: Path) -> Iterator[Any]:
    """The file system, with the six recordings in s3://calls/2026, and s3://texts."""
    serving = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    url = f"http://{host}:{port}"
    urlopen(f"{url}/moto-api/reset", data=b"").close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    files = kind()
    for name in ("calls", "texts"):
        files.mkdir(name)
    for path in calls.rglob("*.wav"):
        files.put_file(str(path), f"calls/2026/{path.relative_to(calls)}")
    yield files
    kind.clear_instance_cache()
    serving.stop()


def test_from_a_bucket_into_another(bucket: Any, processes: Processes) -> None:
    source, output, formats = "s3://calls/2026", "s3://texts/2026", ["jsonl", "srt"]
    limit = Run(limit_hours=2.5 / 3600)
    first = run_batch(processes.make, source, output, REQUEST, formats, limit)
    assert 0 < first.progress.files < 6
    run_batch(processes.make, source, output, REQUEST, formats)  # what is missing
    assert run_batch(processes.make, source, output, REQUEST, formats).progress.of == 0
    assert sorted(processes.heard) == [f"{number}.wav" for number in range(6)]
    with RowStore(output) as store:
        rows = {row["path"]: row for row in store.rows()}
    assert rows["s3://calls/2026/1/5.wav"]["text"] == "zero one two"
    assert {row["problem"] for row in rows.values()} == {None}
    names = [name.removeprefix("texts/2026/") for name in bucket.find("texts")]
    captions = [f"captions/{number % 2}/{number}.wav.srt" for number in (0, 2, 4, 1, 3, 5)]
    assert names[:6] == captions
    assert [name.partition("-")[0] for name in names[7:]] == ["part", "part"]


def test_what_is_not_there_is_told(bucket: Any, processes: Processes) -> None:
    for source in ("s3://nobody/2026", "s3://calls/1999"):
        with pytest.raises(InputError, match=f"{source}: no such file or folder"):
            run_batch(processes.make, source, "s3://texts/2026", REQUEST)
    with pytest.raises(OutputError, match="bucket does not exist"):
        run_batch(processes.make, "s3://calls/2026", "s3://texst/2026", REQUEST)
    assert bucket.ls("") == ["calls", "texts"]
    assert processes.heard == []


def test_a_key_that_is_refused_is_told(
    bucket: Any, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = "s3://calls/2026", "s3://texts/2026"
    run_batch(processes.make, source, output, REQUEST, run=Run(limit_hours=1e-6))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    type(bucket).clear_instance_cache()
    with pytest.raises(InputError, match=r"s3://calls/2026: cannot be read \(.+\)"):
        run_batch(processes.make, source, output, REQUEST)
    with pytest.raises(OutputError, match=r"texts/2026 cannot be .* \(.+\): check the place"):
        RowStore(output)
