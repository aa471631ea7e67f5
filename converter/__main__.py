"""`python -m converter`, and the console script `converter`."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from converter.cli.main import run


def main() -> int:
    """Run the command line and return its exit code."""
    signal.signal(signal.SIGTERM, _leave)
    return run(sys.argv[1:])


def _leave(signal_number: int, frame: FrameType | None) -> NoReturn:
    """End as an exception does, so that temporary folders go: by default nothing is cleaned up."""
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
