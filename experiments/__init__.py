"""The project's experiments, commands run from the repository root; see README.md here."""

import os
import signal
import sys
from importlib.util import find_spec


def _end_at_once(*_: object) -> None:
    os.write(2, b"experiments: interrupted\n")
    os._exit(130)


# As in ``python -m experiments.NAME`` until the module is found.
IS_COMMAND = sys.argv[:1] == ["-m"]
# During the seconds of the imports: an exception could be lost in an import.
if IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_at_once)

PACKAGES = ("cyclopts", "flint", "jinja2", "latex2mathml", "matplotlib", "pebble", "rich")
PACKAGES += ("safetensors", "scipy", "sklearn")


def _is_installed(package: str) -> bool:
    """Whether an import finds the package; None in ``sys.modules`` blocks an import."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


# JAX takes half a second to import: jaxnn is imported here only to say what is missing.
if not all(map(_is_installed, PACKAGES)):
    from jaxnn.types import require

    try:
        require("experiments", *PACKAGES)
    except ModuleNotFoundError as error:
        if not IS_COMMAND:
            raise
        print(f"experiments: {error}", file=sys.stderr)
        sys.exit(2)
