"""transformers' own tests of this model, on kiku's classes.

    python tools/transformers_tests.py CHECKOUT [--with kiku.hf.auto] [tests ...]

`--with` names the module whose classes are tested: kiku.hf.auto, kiku.hf or transformers itself.
CHECKOUT is a checkout of transformers of the version that is installed; its tests also want
`parameterized` and `datasets`. Prints the tests that passed, failed and were skipped. Those that
transformers' own classes pass are the measure: run it with each, and compare.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

_PACKAGE = "transformers.models.kyutai_speech_to_text"
_TESTS = "tests/models/kyutai_speech_to_text"


class _Instead:
    """A pytest plugin: says whose classes are tested, and counts."""

    def __init__(self, name: str) -> None:
        self.name, self.found = name, dict[str, list[str]]()

    def pytest_report_header(self) -> str:
        """The class that the tests will find."""
        model = importlib.import_module("transformers").KyutaiSpeechToTextModel
        return f"{self.name}: {model.__module__}.{model.__qualname__}"

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the outcome of each test."""
        if report.when == "call" or report.outcome != "passed":
            self.found.setdefault(report.outcome, []).append(report.nodeid.rpartition("::")[2])


def replace(name: str) -> None:
    """Put the classes of a module in the place of transformers'."""
    if name == "kiku.hf.auto":
        importlib.import_module(name).register()
    elif name == "kiku.hf":
        ours, transformers = importlib.import_module(name), importlib.import_module("transformers")
        for key in ("Config", "FeatureExtractor", "Processor", "Model", "ForConditionalGeneration"):
            key = "KyutaiSpeechToText" + key
            own_module = getattr(transformers, key).__module__
            for module in ("transformers", _PACKAGE, own_module):
                setattr(importlib.import_module(module), key, getattr(ours, key))


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--with", dest="name", default="kiku.hf.auto")
    parser.add_argument("tests", nargs="*", default=[_TESTS])
    args = parser.parse_intermixed_args()
    import pytest

    os.chdir(args.checkout)
    sys.path.insert(0, str(args.checkout.resolve()))
    replace(args.name)
    instead = _Instead(args.name)
    code = pytest.main(["-q", "--import-mode=importlib", *args.tests], plugins=[instead])
    for outcome, names in sorted(instead.found.items()):
        print(f"{outcome}: {len(names)}", *(names if outcome == "failed" else ()), sep="\n  ")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
