"""`pip install kiku`, without extras, is enough to convert a model and to listen."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from tests.conftest import ROOT

_LISTEN = """
import sys
blocked = set(sys.argv[2].split())
class OnlyWhatIsRequired:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError("not required by kiku", name=name)
sys.meta_path.insert(0, OnlyWhatIsRequired())
from kiku.cli import main
sys.exit(main(["transcribe", sys.argv[1], "--dtype", "int4"]) or main(["models", "verify"]))
"""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(package: str, known: set[str]) -> set[str]:
    """The distributions that come with one, itself included; those of extras are left out."""
    if _normal(package) in known:
        return known
    known.add(_normal(package))
    try:
        needed = requires(package) or []
    except PackageNotFoundError:  # for another system
        return known
    for requirement in needed:
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and "extra ==" not in requirement:
            _required(name[0], known)
    return known


def test_the_demo_listens_with_what_kiku_requires_and_nothing_else() -> None:
    required = _required("kiku", set())
    assert "onnxruntime" in required
    assert "torch" not in required
    blocked = [
        module
        for module, distributions in packages_distributions().items()
        if not required & set(map(_normal, distributions)) and module not in sys.stdlib_module_names
    ]
    assert "torch" in blocked
    ran = subprocess.run(
        [sys.executable, "-c", _LISTEN, str(ROOT / "examples/digits.wav"), " ".join(blocked)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("seven three zero one nine four\n")
