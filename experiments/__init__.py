"""The project's experiments, commands run from the repository root; see README.md here."""

import sys

from jaxnn.extras import require

PACKAGES = ("cyclopts", "jinja2", "latex2mathml", "matplotlib", "mpmath", "pebble", "rich")
PACKAGES += ("safetensors", "scipy", "sklearn")

try:
    require("experiments", *PACKAGES)
except ModuleNotFoundError as error:
    if sys.argv[0] != "-m":  # as in ``python -m experiments.NAME`` until the module is found
        raise
    print(f"experiments: {error}", file=sys.stderr)
    sys.exit(2)
