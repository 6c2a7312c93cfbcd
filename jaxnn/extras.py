"""Packages of the extras: imported where they are needed, one clear line where they are missing."""

from importlib.util import find_spec

DISTRIBUTION = "jaxnn-basics"
"""The name on the package index; ``import jaxnn`` stays the import."""


def require(extra: str, *packages: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
      extra: the extra of ``pyproject.toml`` that installs the packages, such as "search".
      *packages: import names.

    Raises:
      ModuleNotFoundError: a package is missing; the message has the pip command.
    """
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ModuleNotFoundError(
            f"{', '.join(missing)} {verb} not installed, expected the extra {extra!r}: "
            f"pip install '{DISTRIBUTION}[{extra}]'",
            name=missing[0],
        )


def is_installed(package: str) -> bool:
    """Whether the import would find the package; a blocked import (None in sys.modules) counts."""
    try:
        return find_spec(package) is not None
    except (ValueError, ModuleNotFoundError):
        return False
