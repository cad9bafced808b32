"""Part of `gpu.py`: the tests that are marked `gpu`, with the device's distance from the CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gpu_part import Part, part

ROOT = Path(__file__).resolve().parents[1]


class Recorder:
    """A plugin of pytest that records each test as it ends."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            values = dict(report.user_properties)
            reason = {} if report.outcome == "passed" else {"reason": str(report.longrepr)[-600:]}
            name = report.nodeid.rpartition("::")[2]
            self._part.record("test", name=name, outcome=report.outcome, seconds=report.duration, **values, **reason)


def main() -> int:
    this, _ = part(__doc__)
    os.environ["UWBENCH_TEST_DEVICE"] = this.device
    import pytest

    words = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    return int(pytest.main([*words, str(ROOT / "tests/extraction/test_device.py")], plugins=[Recorder(this)]))


if __name__ == "__main__":
    sys.exit(main())
