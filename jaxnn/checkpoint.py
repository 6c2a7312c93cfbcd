"""Arrays in files that are written whole or not at all, and whose damage is noticed."""

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from jaxnn.atomic import atomic_write, naming
from jaxnn.types import PyTree


class DamagedFileError(ValueError):
    """A file that is not what was written."""


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> str:
    """Writes the arrays as ``.npz``, atomically.

    Returns:
      The SHA-256 of the file, in hexadecimal.

    Raises:
      ValueError: an array of Python objects, which only pickle could write.
      OSError: it cannot be written; what was there before is there still.
    """
    with naming(path), atomic_write(path) as file:
        hashing = _Hashing(file)
        write(hashing, arrays)
        return hashing.digest.hexdigest()


def write(file: "IO[bytes] | _Hashing", arrays: Mapping[str, np.ndarray]) -> None:
    """``save``, to an open file."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def load(path: str | os.PathLike[str], digest: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file that ``save`` wrote; nothing is ever unpickled.

    Args:
      path: the file.
      digest: what ``save`` returned, to be compared with.

    Raises:
      DamagedFileError: the file has another digest, or is no ``.npz`` of arrays.
      OSError: it cannot be read.
    """
    return parse(Path(path).read_bytes(), str(path), digest)


def parse(content: bytes, origin: str, digest: str | None = None) -> dict[str, np.ndarray]:
    """``load``, from the content of a file."""
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise DamagedFileError(
            f"{origin} is damaged: its checksum is not the one that was recorded"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name.removesuffix(".npy"): _read(archive, name) for name in archive.namelist()}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        # A flipped bit of a zip file can as well ask for a password, or for an unknown method.
        raise DamagedFileError(f"{origin} is damaged, or no .npz file of arrays") from None


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def named_leaves(prefix: str, tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of a tree by their places in it, such as ``params[0].weight``."""
    leaves = jax.tree.leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def restore(prefix: str, template: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """A tree like the template, of the leaves that ``named_leaves`` named.

    Raises:
      DamagedFileError: one is missing.
    """
    leaves = []
    for path, leaf in jax.tree.leaves_with_path(template):
        name = prefix + jax.tree_util.keystr(path)
        if name not in arrays:
            raise DamagedFileError(f"there is no array {name!r}")
        array = arrays[name]
        # A .npz file has no name for the types that NumPy itself has not, such as bfloat16.
        leaves.append(array.view(leaf.dtype) if array.dtype.kind == "V" else array)
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


class _Hashing(io.RawIOBase):
    """A file to write to that computes the digest of what passes; zip files need no seeking."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)
