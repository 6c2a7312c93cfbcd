"""Files that are written whole or not at all, and arrays in safetensors files with a digest.

The metadata of a safetensors file has a JSON manifest: types and shapes of the arrays, further
entries, and the digest, the SHA-256 of the manifest and all bytes. Nothing is ever unpickled.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np

from jaxnn.types import PyTree, require, require_type, shown

Arrays = Mapping[str, np.ndarray]
Manifest = dict[str, Any]

_STORED = re.compile("bool|u?int(8|16|32|64)|b?float16|float(32|64)")
"""The types of all safetensors versions; arrays of further types are stored as bytes."""


def printable(text: object, *, keep: str = "", encoding: str = "utf-8") -> str:
    r"""The text in characters that a terminal, a page, a figure and a file show as they are.

    Control characters, terminal escapes, line ends, invisible characters and marks that reverse the
    direction of writing become escapes such as ``\x1b``; so do bytes of a path that are no text.

    Args:
      text: any object; the text is ``str(text)``.
      keep: characters to show unchanged, such as line ends.
      encoding: further characters become escapes where the encoding has no such characters.

    Example:
      >>> print(printable("red \x1b[31m"), printable("0.5 ± 0.1", encoding="ascii"))
      red \x1b[31m 0.5 +- 0.1
    """

    def shown(character: str) -> str:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # a byte of a path that is no text
            character = chr(code - 0xDC00)
        elif (
            character in keep or character.isprintable() or unicodedata.category(character) == "Zs"
        ):
            if character.encode(encoding, "ignore"):
                return character
            if character == "±":
                return "+-"
        return character.encode("unicode_escape").decode()

    text = str(text)
    safe = text.isprintable() and (text.isascii() or encoding == "utf-8")
    return text if safe else "".join(map(shown, text))


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if os.name == "posix" else 2**40


class DamagedFileError(ValueError):
    """The content of a file differs from the written content."""

    def __init__(self, message: object):
        """Makes the message printable: the names in a damaged file are a stranger's."""
        super().__init__(printable(message))


def as_path(name: str, value: Any) -> Path:
    """A path; TypeError for what is neither a text nor a path, ValueError for a NUL in the text."""
    require_type(isinstance(value, str | os.PathLike), name, value, "a path")
    if "\0" in str(value):
        raise ValueError(f"{name} is {shown(value)}, expected a path without a NUL character")
    return Path(value)


def make_folder(folder: Path, error: type[Exception] = NotADirectoryError) -> None:
    """Creates a folder and all missing parents, names on the disk; ``error`` if a file is there."""
    if folder.exists() and not folder.is_dir():
        raise error(f"{folder} is a file, expected a folder")
    if not folder.exists():
        make_folder(folder.parent, error)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a regular file to read: a FIFO would wait for ever, a device would fill the memory.

    Raises:
      OSError: the file cannot be read, is no regular file, or is larger than the memory.
    """
    return open(path, "rb", opener=_regular)


def _regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= _MEMORY:
        return descriptor
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        fault = f"holds {found.st_size} bytes, expected at most the machine's memory, {_MEMORY}"
        raise OSError(errno.EFBIG, fault, path)
    raise OSError(errno.EINVAL, "expected a regular file, found a pipe, device or folder", path)


@contextmanager
def decoding(fault: str, error: type[ValueError]) -> Iterator[None]:
    """Turns any exception of a decoder into ``error``, one line; errors of the system pass.

    Args:
      fault: the beginning of the line; the decoder's reason follows in parentheses.
      error: the documented exception, which passes.
    """
    try:
        yield
    except Exception as reason:
        if isinstance(reason, error) or getattr(reason, "errno", None) is not None:
            raise
        said = " ".join(str(reason).split()) or type(reason).__name__
        raise error(f"{fault} ({short(said)})") from None


def short(text: str, length: int = 160) -> str:
    """The text, or the beginning of a long text."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


class Check(NamedTuple):
    """The leaf of a schema."""

    expected: str
    holds: Callable[[Any], object]


COUNT = Check("a whole number above 0", lambda v: type(v) is int and 0 < v < 2**31)
WHOLE = Check("a whole number of at least 0", lambda v: type(v) is int and 0 <= v < 2**31)
TEXT = Check("a text", lambda v: isinstance(v, str))
NUMBER = Check("a finite number", lambda v: type(v) in (int, float) and abs(v) < 1e308)


def misfit(value: Any, schema: Any, name: str) -> str:
    """The first part of a value in JSON's types that does not fit a schema; "" where all fit.

    Args:
      value: such as a manifest.
      schema: a ``Check``; a list with the schema of every entry; a tuple with a schema for each
        entry; or a dict with schemas by name: a missing name counts as null, further names are
        free.
      name: the value's name, as in ``scale[1] is "a", expected a finite number``.
    """
    if isinstance(schema, Check):
        return "" if schema.holds(value) else _unfit(value, schema.expected, name)
    if isinstance(schema, dict):
        if type(value) is not dict:
            return _unfit(value, "values by name", name)
        faults = ((f".{key}", misfit(value.get(key), part, "")) for key, part in schema.items())
    else:
        if type(value) is not list:
            return _unfit(value, "a list", name)
        entries = schema if isinstance(schema, tuple) else schema * len(value)
        if len(value) != len(entries):
            return _unfit(value, f"a list of {len(entries)}", name)
        parts = zip(range(len(value)), value, entries, strict=True)
        faults = ((i, misfit(entry, part, "")) for i, entry, part in parts)
    place, fault = next(filter(itemgetter(1), faults), ("", ""))
    place = f"[{place}]" if isinstance(place, int) else place
    return fault and f"{name}{place}{fault}"


def _unfit(value: Any, expected: str, name: str) -> str:
    return f"{name} is {short(json.dumps(value), 60)}, expected {expected}"


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file beside ``path`` and moves the file onto ``path`` on success.

    On any exception, KeyboardInterrupt included, the temporary file is removed and ``path`` keeps
    the earlier content. Several processes may write ``path`` at once: the last to finish wins.
    Temporary files of killed processes are removed.

    Args:
      path: the file to create or replace, in an existing folder.
      mode: "wb", or "w" for UTF-8 text with line ends as written (as the csv module expects).

    Raises:
      ValueError: an unknown mode.
      OSError: the file cannot be written; the message names the file.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}, expected 'wb' or 'w'")
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    remove_leftovers(path.parent)
    try:
        with _created(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if type(error) is OSError and error.errno is None:  # by NumPy, on a full disk
            raise OSError(f"{error}: {os.fspath(path)!r}") from error
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def _created(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A new file, locked while open."""
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)
    while True:
        # "x" instead of the tempfile module: the permissions then follow the user's umask.
        with open(path, mode.replace("w", "x"), encoding=encoding, newline=newline) as file:
            if _is_locked(file, path):  # else a process took the new file for a leftover
                yield file
                return


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of ``atomic_write`` that a killed process has left."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                with suppress(OSError), open(path, "r+b") as file:
                    if _lock(file):  # no process is writing
                        path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes out by a locked file, which is removed at the end.

    Raises:
      BlockingIOError: another process has the lock.
      OSError: the file cannot be written.
    """
    with open(path, "a") as file:
        if not _is_locked(file, path):
            raise BlockingIOError(errno.EAGAIN, "in use by another process", os.fspath(path))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _is_locked(file: IO[Any], path: Path) -> bool:
    """Locks a file if no process has; whether the path still names the file."""
    try:
        return _lock(file) is not False and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[Any]) -> bool | None:
    """Whether the file is locked for this process; None where the system has no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Waits until the names in a folder are on the disk, where the system offers the wait."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def pack(arrays: Arrays, manifest: Mapping[str, Any] | None = None) -> tuple[bytes, str]:
    """The content of a file of arrays of any number type, and a manifest in JSON's types.

    Returns:
      The content, and the digest in hexadecimal.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
      ValueError: an array of objects or texts.
    """
    require("safetensors", "safetensors")
    from safetensors.numpy import save

    stored, raw, described = {}, {}, {}
    for name, array in arrays.items():
        array = np.asarray(array, order="C")
        if array.dtype.kind not in "biufcV" or array.dtype.names:
            raise ValueError(f"array {name!r} has the dtype {array.dtype}, expected numbers")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        described[name] = [array.dtype.name, *array.shape]
        raw[name] = array.reshape(-1).view(np.uint8)
        stored[name] = array if _STORED.fullmatch(array.dtype.name) else raw[name]
    written = {**(manifest or {}), "arrays": described}
    digest = _digest(written, raw)
    text = json.dumps({**written, "sha256": digest}, sort_keys=True, allow_nan=False)
    return save(stored, {"manifest": text}), digest


def unpack(
    content: bytes, origin: str | Path, digest: str | None = None
) -> tuple[Manifest, dict[str, np.ndarray]]:
    """The manifest and the arrays in a file by ``pack``, compared with a recorded digest.

    Raises:
      ModuleNotFoundError: safetensors is not installed.
      DamagedFileError: the digest differs, or ``pack`` did not make the content of ``origin``.
    """
    require("safetensors", "safetensors")
    from safetensors import deserialize

    with decoding(f"{origin} is damaged, or no file of arrays by jaxnn", DamagedFileError):
        raw = {name: entry["data"] for name, entry in deserialize(content)}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        manifest = json.loads(header["__metadata__"]["manifest"])
        written, recomputed = manifest.pop("sha256"), _digest(manifest, raw)
    if written != recomputed or digest not in (None, written):
        raise DamagedFileError(f"{origin} is damaged: its checksum is not the recorded checksum")
    with decoding(f"{origin} is damaged: the arrays are not as described", DamagedFileError):
        described = manifest.pop("arrays")
        arrays = {name: _array(raw[name], *described[name]) for name in {**raw, **described}}
    return manifest, arrays


def _array(raw: Any, dtype: str, *shape: int) -> np.ndarray:
    known = np.dtype(dtype)
    if known.name != dtype or known.kind not in "biufcV" or min(shape, default=0) < 0:
        raise ValueError(f"dtype {dtype} and shape {shape}, expected numbers")
    return np.frombuffer(raw, known).reshape(shape)


def _digest(manifest: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    found = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for name in sorted(raw):
        found.update(name.encode())
        found.update(raw[name])
    return found.hexdigest()


def named_leaves(prefix: str, tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by place: ``params[0].weight``."""
    leaves = jax.tree.leaves_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def shapes(prefix: str, tree: PyTree, *replicates: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all leaves by place, with the numbers of replicates in front."""
    leaves = named_leaves(prefix, tree)
    return {name: (*replicates, *np.shape(leaf)) for name, leaf in leaves.items()}


def require_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], origin: str
) -> None:
    """ValueError with the name of the first array whose shape is not as expected."""
    for name in {**found, **expected}:
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{printable(name)} has the shape {found.get(name)}, expected {expected.get(name)} "
                f"{origin}"
            )


def restore(prefix: str, template: PyTree, arrays: Arrays) -> PyTree:
    """A tree like the template, of arrays that ``named_leaves`` named.

    Raises:
      DamagedFileError: an array is missing, or of another shape or type than in the template.
    """
    names = named_leaves(prefix, template)
    if missing := names.keys() - arrays.keys():
        raise DamagedFileError(f"there is no array {min(missing)!r}")
    for name, leaf in names.items():
        found, expected = ((a.dtype.name, *a.shape) for a in (arrays[name], leaf))
        if found != expected:
            raise DamagedFileError(f"array {name!r} is {found}, expected {expected}")
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in names])
