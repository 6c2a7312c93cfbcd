"""A folder with arrays and a manifest that says what they are; a crash leaves no half of it.

    parameters-1.npz   the arrays; or .safetensors
    model.json         the manifest, with the checksums of both

The arrays are written first, under a name that no file had, and the manifest last; each appears
whole or not at all. So a crash leaves what was there before, or what was to replace it. Nothing is
ever pickled.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn import checkpoint
from jaxnn.atomic import atomic_write
from jaxnn.checkpoint import DamagedFileError
from jaxnn.reporting import plain, write_json

MANIFEST = "model.json"
FORMATS = ("npz", "safetensors")
_FORMAT, _VERSION = "jaxnn model", 1


def write(
    folder: Path, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any], format: str
) -> None:
    """Writes the arrays and the manifest; what was there before is replaced.

    One process at a time may write a folder.

    Args:
      folder: made if need be.
      arrays: by name.
      content: of the manifest.
      format: "npz" or "safetensors".

    Raises:
      OSError: it cannot be written; what was there still is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = [int(path.stem.partition("-")[2]) for path in _array_files(folder)]
    name = f"parameters-{max(used, default=0) + 1}.{format}"
    saved = {
        "file": name,
        "format": format,
        "sha256": _save(folder / name, arrays, format),
        "arrays": {n: [str(array.dtype), *array.shape] for n, array in arrays.items()},
    }
    head = {"format": _FORMAT, "version": _VERSION}
    manifest = plain({**head, **content, "parameters": saved})
    write_json(folder / MANIFEST, {**manifest, "sha256": _digest(manifest)})
    for path in _array_files(folder):
        if path.name != name:
            path.unlink()


def read(folder: Path) -> dict[str, Any]:
    """The manifest.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it is not what was written.
      ValueError: it is something else, or of another version of the format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}, expected what save_model wrote")
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ValueError(f"{path} is no manifest of a {_FORMAT}, expected what save_model wrote")
    if manifest.get("version") != _VERSION:
        raise ValueError(
            f"{path} has version {manifest.get('version')!r} of the format, expected {_VERSION}"
        )
    digest = manifest.pop("sha256", None)
    if digest != _digest(manifest):
        raise DamagedFileError(f"{path} is damaged: its checksum is not the one that was recorded")
    return manifest


def read_arrays(folder: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that the manifest speaks of.

    Raises:
      FileNotFoundError: their file is missing.
      DamagedFileError: it is not what was written.
    """
    saved = manifest["parameters"]
    path = folder / Path(saved["file"]).name
    if saved["format"] == "npz":
        return checkpoint.load(path, saved["sha256"])
    from safetensors.numpy import load

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != saved["sha256"]:
        raise DamagedFileError(f"{path} is damaged: its checksum is not the one that was recorded")
    return load(content)


def _save(path: Path, arrays: Mapping[str, np.ndarray], format: str) -> str:
    """Writes the arrays, and returns the SHA-256 of the file."""
    if format == "npz":
        return checkpoint.save(path, arrays)
    from safetensors.numpy import save

    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    with atomic_write(path) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def _array_files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if re.fullmatch(rf"parameters-\d+\.({'|'.join(FORMATS)})", path.name)
    ]


def _digest(manifest: Mapping[str, Any]) -> str:
    """The checksum of a manifest's content, however it is laid out."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
