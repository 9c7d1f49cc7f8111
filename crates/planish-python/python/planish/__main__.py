"""The program `planish`: `python -m planish`."""

import signal
import sys

from planish import _planish


def main() -> int:
    """Runs the program with the arguments of this process. Returns its exit code."""
    # What Python does at Ctrl-C is not what the program does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _planish.main(["planish", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
