"""What tests of several rooms share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The models of the tests are tiny: threads that wait for one another cost far more than they bring,
# above all beside other programs. It counts from when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing where other programs run too. A run of CI can be repeated.
settings.register_profile("kiku", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("kiku")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests of the service wait much of their time."""
    allowed = getattr(os, "sched_getaffinity", None)
    return (len(allowed(0)) if allowed else os.cpu_count() or 1) + 1


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds README.md, docs and examples."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings of people, which are not part of the project; the test is skipped without them."""
    path = Path(os.environ.get("KIKU_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "clips.jsonl").is_file():
        pytest.skip(f"no recordings of people in {path}; say where they are in KIKU_DATA")
    return path


def without_torch(program: str) -> str:
    """The program, on a Python that has no torch (`sys` is imported)."""
    return f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("there is no torch here", name=name)
sys.meta_path.insert(0, NoTorch())
{program}
"""


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where models are kept that the tests convert: nobody's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIKU_CACHE", str(folder))
        yield folder
