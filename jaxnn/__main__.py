"""The console command ``jaxnn``: verifies claims, tells the version."""

import sys
from collections.abc import Sequence

from jaxnn import __version__

USAGE = """\
usage: jaxnn verify FILE.py ...   verify the claims of Python files; --help lists the flags
       jaxnn --version            print the version"""

BAD_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command, and returns the exit status: 2 for an unknown command."""
    command, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command == "verify":
        from jaxnn.verify.__main__ import main as verify

        return verify(arguments, program="jaxnn verify")
    if command in ("--help", "-h", "--version"):
        print(f"jaxnn {__version__}" if command == "--version" else USAGE)
        return 0
    print(f"jaxnn: {command!r} is no command, expected verify or --version", file=sys.stderr)
    return BAD_USAGE


if __name__ == "__main__":
    sys.exit(main())
