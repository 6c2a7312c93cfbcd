"""How long after the start of its process a script came how far."""

import json
import sys
import time
from typing import SupportsFloat

_started = float(sys.argv[1])
_reached: dict[str, float] = {}


def reached(stage: str) -> None:
    """Notes the seconds since the start: "imports", or "first_step", which has been compiled."""
    _reached[stage] = time.time() - _started


def finish(accuracy: SupportsFloat) -> None:
    """Prints the result, and when everything was reached, as one line of JSON."""
    reached("result")
    print(json.dumps(_reached | {"accuracy": float(accuracy)}))
