"""Arrays in files that are written whole or not at all, and whose damage is noticed."""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from jaxnn.atomic import atomic_write
from jaxnn.types import PyTree


class DamagedFileError(ValueError):
    """A file that is not what was written."""


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> str:
    """Writes the arrays as ``.npz``, atomically.

    Returns:
      The SHA-256 of the file, in hexadecimal.
    """
    with atomic_write(path) as file:
        hashing = _Hashing(file)
        np.savez(hashing, allow_pickle=False, **arrays)
        return hashing.digest.hexdigest()


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
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFileError(f"{origin} is no .npz file of arrays: {error}") from None


def named_leaves(prefix: str, tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of a tree by their places in it, such as ``params[0].weight``."""
    leaves = jax.tree.leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def restore(prefix: str, template: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """A tree like the template, of the leaves that ``named_leaves`` named.

    Raises:
      DamagedFileError: one is missing.
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(template)]
    if missing := [path for path in paths if prefix + path not in arrays]:
        raise DamagedFileError(f"there is no array {prefix + missing[0]!r}")
    leaves: Sequence[Any] = [arrays[prefix + path] for path in paths]
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
