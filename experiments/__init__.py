"""The project's experiments, commands run from the repository root; see README.md here."""

import sys
from importlib.util import find_spec

PACKAGES = ("cyclopts", "jinja2", "latex2mathml", "matplotlib", "mpmath", "pebble", "rich")
PACKAGES += ("safetensors", "scipy", "sklearn")


def _is_installed(package: str) -> bool:
    """Whether an import finds the package; None in ``sys.modules`` blocks an import."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


# JAX takes half a second to import: jaxnn is imported here only to say what is missing.
if not all(map(_is_installed, PACKAGES)):
    from jaxnn.extras import require

    try:
        require("experiments", *PACKAGES)
    except ModuleNotFoundError as error:
        if sys.argv[0] != "-m":  # as in ``python -m experiments.NAME`` until the module is found
            raise
        print(f"experiments: {error}", file=sys.stderr)
        sys.exit(2)
