"""Readers of the formats of tables and images, by the libraries of the extra ``data``.

A reader takes the files of a data set by part ("train", "test") and returns the examples of every
part as the files hold them; ``splits.make_splits`` does the rest, for all formats alike. No reader
unpickles, and none takes memory for a size that a header claims.
"""

import csv
import io
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnn.data.arrays import content_of, inflatable
from jaxnn.data.splits import DataError, expect
from jaxnn.files import decoding, open_regular, printable, short
from jaxnn.losses import are_few
from jaxnn.types import did_you_mean, require

logger = logging.getLogger("jaxnn.data")

Files = Mapping[str, Sequence[Path]]
Label = str | int | None
"""The label column of a table: the name, the position, or None for the column that looks so."""


class Examples(NamedTuple):
    """The examples of a part as a source has them."""

    inputs: np.ndarray  # [N, ...]
    targets: Any  # [N] numbers or texts; None for a table without the label column
    names: tuple[str, ...] = ()  # of the classes, where the targets are positions among the names
    notes: tuple[str, ...] = ()  # decisions of the reader, for the log


Reader = Callable[[Files, Label], dict[str, Examples]]


class Table(NamedTuple):
    """Columns of equal length: numbers, or texts as objects."""

    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    origin: object  # for messages


LABELS = ("label", "labels", "class", "target", "targets", "y", "category", "species")
_COUNTS = ("", "unnamed: 0", "id", "index", "__index_level_0__")
_MISSING = ("", "?", " ?", "-", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "NULL", "null", "None")
_MOST_COLUMNS = 2**16
_PIXEL = re.compile(r"(pixel|px|p)?_?\d+|\d+x\d+", re.IGNORECASE)


def _first(files: Files) -> Path:
    return next(iter(files.values()))[0]


# Tables.


def tables(read: Callable[[Path], Table]) -> Reader:
    """A reader of tables with a label column."""

    def read_all(files: Files, label: Label) -> dict[str, Examples]:
        parts = {part: [*map(read, paths)] for part, paths in files.items()}
        return from_tables({part: _stack(each) for part, each in parts.items()}, label)

    return read_all


def _stack(parts: Sequence[Table]) -> Table:
    """The rows of several files."""
    first = parts[0]
    for other in parts:
        same = other.names == first.names
        expect(same, f"{other.origin} has other columns", f"the columns of {first.origin}")
    if len(parts) == 1:
        return first
    columns = zip(*(part.columns for part in parts), strict=True)
    return first._replace(columns=tuple(map(np.concatenate, columns)))


def from_tables(parts: Mapping[str, Table], label: Label) -> dict[str, Examples]:
    """Inputs and targets of the tables of every part; columns belong together by name.

    Raises:
      DataError: no column, or no single column, is the label; a column of inputs holds texts or
        lacks values; a part lacks a column.
    """
    train = next(iter(parts.values()))
    place, notes = label_place(train, label)
    counts = [i for i in range(len(train.names)) if i != place and _only_counts(train, i)]
    if counts:
        notes.append(f"without the column {train.names[counts[0]]!r}, which numbers the rows")
    kept = [i for i in range(len(train.names)) if i != place and i not in counts]
    expect(kept, f"{train.origin} has no column but the label", "columns of inputs")
    found = {}
    for part, table in parts.items():
        columns = dict(zip(table.names, table.columns, strict=True))
        if table.names == train.names:
            inputs, targets = [table.columns[i] for i in kept], table.columns[place]
        else:
            lacking = [train.names[i] for i in kept if train.names[i] not in columns]
            fault = f"{table.origin} lacks the column {[*lacking, 0][0]!r}"
            expect(not lacking, fault, f"columns as in {train.origin}")
            inputs = [columns[train.names[i]] for i in kept]
            targets = columns.get(train.names[place])
        if targets is None:
            found[part] = Examples(np.empty(0), None)
            continue
        names = [train.names[i] for i in kept]
        _complete([train.names[place]], [targets], table.origin)
        rows = inputs_of(Table(tuple(names), tuple(inputs), table.origin))
        found[part] = Examples(rows, targets, notes=tuple(notes if table is train else ()))
    return found


def label_place(table: Table, label: Label) -> tuple[int, list[str]]:
    """The position of the label column, and a note where the name does not say "label"."""
    names, listed = table.names, short(", ".join(map(repr, table.names)), 200)
    if label is not None:
        return _named_place(table, label, listed), []
    known = [i for i, name in enumerate(names) if name.strip().lower() in LABELS]
    candidates = known or _label_by_content(table)
    if len(candidates) == 1 and len(names) > 1:
        (place,) = candidates
        at = {0: "first", len(names) - 1: "last"}.get(place, f"{place + 1}th")
        plain = names[place].strip().lower() in LABELS[:5]
        return place, [] if plain else [f"the label is the {at} column, {names[place]!r}"]
    hint = "label=NAME or label=POSITION, such as label=0 or label=-1, for the column to predict"
    raise DataError(f"{table.origin} has the columns {listed}, expected {hint}")


def _label_by_content(table: Table) -> list[int]:
    """The columns that may be the label, without regard to names.

    A single column is: the only column of texts, unless the last column has few whole numbers; the
    last column of few whole numbers, unless the first has; or the first, before columns of bytes
    as many as an image has pixels.
    """
    columns, last = table.columns, len(table.columns) - 1
    texts = [i for i, column in enumerate(columns) if column.dtype == object]
    ends = [i for i in {0, last} if _may_be_classes(columns[i])]
    if texts:
        return texts if texts == [last] else [*{*texts, *(i for i in ends if i == last)}]
    pixels = math.isqrt(last) ** 2 == last >= 64 and _are_bytes(columns[1:])
    return ends if ends != [0] or pixels else []


def _named_place(table: Table, label: str | int, listed: str) -> int:
    names = table.names
    if isinstance(label, str) and label in names:
        found = f"{table.origin} has the column {label!r} {names.count(label)} times"
        expect(names.count(label) == 1, found, "the position of the label")
        return names.index(label)
    if isinstance(label, int) or re.fullmatch(r"-?\d{1,9}", label):
        place, count = int(label), len(names)
        expect(-count <= place < count, f"label is {place}", f"a position among {count} columns")
        return place % count
    hint = did_you_mean(label, names)
    raise DataError(f"label is {label!r}, expected a column of {table.origin}: {listed}{hint}")


def _only_counts(table: Table, place: int) -> bool:
    """Whether a column numbers the rows, as an index that was written with the table."""
    name, column = table.names[place].strip().lower(), table.columns[place]
    numbers = name in _COUNTS and column.dtype.kind in "iu" and len(column) > 1
    return numbers and len(np.unique(column)) == len(column)


def _may_be_classes(column: np.ndarray) -> bool:
    """Whether a column holds a few whole numbers, of two values at least."""
    if column.dtype.kind not in "biuf" or not _are_whole(column):
        return False
    values = len(np.unique(column))
    return values > 1 and are_few(values, len(column))


def _are_whole(column: np.ndarray) -> bool:
    return column.dtype.kind in "biu" or bool((column % 1 == 0).all())


def _are_bytes(columns: Sequence[np.ndarray]) -> bool:
    """Whether all values are whole numbers 0..255."""
    return all(
        c.dtype.kind in "biuf" and c.size and c.min() >= 0 and c.max() <= 255 and _are_whole(c)
        for c in columns
    )


def _complete(names: Sequence[str], columns: Sequence[np.ndarray], origin: object) -> None:
    """DataError with the column and the count for values that are missing or not finite."""
    wrong = {}
    for name, column in zip(names, columns, strict=True):
        if column.dtype == object:
            count = sum(value is None or value in ("", "?") for value in column)
        elif column.dtype.kind == "f":
            with np.errstate(over="ignore"):
                count = int((~np.isfinite(column.astype(np.float32))).sum())
        else:
            count = 0
        if count:
            wrong[name] = count
    if wrong:
        first, more = next(iter(wrong)), len(wrong) - 1
        others = f", {sum(wrong.values())} in {more + 1} columns together" if more else ""
        raise DataError(
            f"{origin}: {wrong[first]} of {len(columns[0])} values in the column {first!r} are "
            f"missing or not finite{others}, expected a finite number in every place: fill or drop "
            "these rows"
        )


def inputs_of(table: Table) -> np.ndarray:
    """The inputs in all columns of a table: [N, in], or images [N, side, side]."""
    _complete(table.names, table.columns, table.origin)
    return _rows(table.columns, table.names, table.origin)


def _rows(columns: Sequence[np.ndarray], names: Sequence[str], origin: object) -> np.ndarray:
    """The columns of inputs as [N, in]; or as images [N, side, side], if they are pixels."""
    numeric = "numbers: encode the texts as numbers, or name the column to predict by label"
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind not in "biuf":
            text = next((v for v in column.tolist() if not _is_number(str(v))), [*column, ""][0])
            expect(False, f"{origin}: the column {name!r} holds {short(repr(text), 40)}", numeric)
    pixels = _are_bytes(columns)
    rows = np.empty((len(columns[0]), len(columns)), np.uint8 if pixels else np.float32)
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        if not pixels:
            _require_32_bits(name, column, origin)
        rows[:, place] = column
    side = math.isqrt(len(names))
    square = side >= 8 and side**2 == len(names) and all(map(_PIXEL.fullmatch, names))
    return rows.reshape(-1, side, side) if pixels and square else rows


def _require_32_bits(name: str, column: np.ndarray, origin: object) -> None:
    """DataError for a column, such as of seconds since 1970, whose digits 32 bits cannot hold."""
    if not column.size:
        return
    low, high = float(column.min()), float(column.max())
    lost = max(-low, high) * float(np.finfo(np.float32).eps)
    found = f"{origin}: the column {name!r} lies in {low:.10g}..{high:.10g}"
    expected = "a difference that 32 bits hold: subtract the least value"
    expect(high == low or lost < (high - low) / 1000, found, expected)


def as_column(values: Any) -> np.ndarray:
    """A column [N]: numbers, booleans, or texts and None as objects."""
    array = np.asarray(values)
    expect(array.ndim == 1, f"a column has the shape {array.shape}", "[N], and columns of one name")
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype != object:
        return array
    plain = [None if _is_missing(value) else value for value in array.tolist()]
    present = [value for value in plain if value is not None]
    if all(isinstance(value, bool) for value in present) and len(present) == len(plain):
        return np.array(plain, bool)
    if not any(isinstance(value, str | bytes) for value in present):
        try:
            return np.array([math.nan if v is None else float(v) for v in plain], float)
        except (TypeError, ValueError):
            return np.array([*map(str, plain)], object)
    texts = (v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in plain)
    column = np.empty(len(plain), object)
    column[:] = [text if text is None else str(text).strip() for text in texts]
    return column


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def read_csv(path: Path) -> Table:
    """A table in text: separated by commas, tabs, semicolons, bars or blanks, with a header or not.

    A first line is a header if a text stands above a number, or if the line is 0, 1, 2, ...
    """
    require("data", "pyarrow")
    from pyarrow import csv as arrow

    content = content_of(path)
    with decoding(f"{path}: not a readable table", DataError):
        content = _without_comments(_in_utf8(content, path).lstrip(b"\r\n"))
        lines = content[: 2**22].decode("utf-8", "replace").splitlines()[:20]
        separator = _separator(lines)
        if separator == " ":
            content = re.sub(rb"[ \t]+", b",", re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", content))
            lines, separator = [",".join(line.split()) for line in lines], ","
        first, *others = [*csv.reader(lines[:2], delimiter=separator)] or [[]]
        expect(
            len(first) <= _MOST_COLUMNS,
            f"{path} has {len(first)} columns",
            f"at most {_MOST_COLUMNS}",
        )
        header = _is_header(first, others[0] if others else [])
        commas = separator in (";", "\t") and not re.search(r"\d\.\d", "".join(lines))
        table = arrow.read_csv(
            io.BytesIO(content),
            arrow.ReadOptions(
                use_threads=False,
                block_size=2**24,
                column_names=[*map(str, range(len(first)))],
                skip_rows=int(header),
            ),
            arrow.ParseOptions(delimiter=separator),
            arrow.ConvertOptions(null_values=[*_MISSING], decimal_point="," if commas else "."),
        )
        columns = [_of_arrow(column) for column in table.columns]
    names = tuple(first) if header else tuple(map(str, range(len(first))))
    return Table(tuple(name.strip() for name in names), tuple(columns), path)


def _in_utf8(content: bytes, path: Path) -> bytes:
    """A text in UTF-8, without a mark of the byte order; any other is taken for Windows-1252."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16").encode()
    try:
        content.decode()
    except UnicodeDecodeError:
        logger.warning(f"{printable(path)}: the text is not UTF-8, and read as Windows-1252")
        return content.decode("cp1252", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def _without_comments(content: bytes) -> bytes:
    """A table without the lines of # at the start, unless the last of the lines is the header."""
    comment = b""
    while content.startswith(b"#") and b"\n" in content:
        comment, _, content = content.partition(b"\n")
    names, first = (re.split(rb"[\t;,|]", line) for line in (comment, content.partition(b"\n")[0]))
    header = len(names) == len(first) > 1
    return comment.lstrip(b"# ") + b"\n" + content if header else content


def _separator(lines: Sequence[str]) -> str:
    """The separator that gives all lines an equal number of cells, of two at least."""
    for separator in "\t;,|":
        counts = {len(row) for row in csv.reader(lines, delimiter=separator) if row}
        if len(counts) == 1 and counts != {1}:
            return separator
    blanks = {len(line.split()) for line in lines if line.strip()}
    return " " if len(blanks) == 1 and blanks != {1} else ","


def _is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether texts stand above numbers, among names that are all texts, or count."""
    numbers = [cell for cell in first if _is_number(cell)]
    counts = all(cell.isdecimal() for cell in numbers) and bool(
        np.all(np.diff(np.array([int(cell) for cell in numbers])) == 1)
    )
    above = zip(first, second, strict=False)
    texts = any(not _is_number(one) and _is_number(two) for one, two in above)
    if not numbers:
        return texts or (len(first) > 1 and all(first) and len({*first}) == len(first))
    return counts and (texts or (len(numbers) == len(first) > 3 and first[0] == "0"))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return cell.strip() in _MISSING and cell != ""
    return True


def _of_arrow(column: Any) -> np.ndarray:
    """The values of a column of Arrow; equal texts share memory."""
    if hasattr(column.type, "index_type"):
        column = column.unify_dictionaries().combine_chunks()
        if hasattr(column, "chunk"):
            column = column.chunk(0)
        texts = as_column([*column.dictionary.to_pylist(), None])
        return texts[column.indices.fill_null(len(texts) - 1).to_numpy()]
    found = as_column(column.to_numpy())
    small = found.dtype == np.int64 and found.size and 0 <= found.min() <= found.max() <= 255
    return found.astype(np.uint8) if small else found


_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(.*)", re.IGNORECASE)


def read_arff(path: Path) -> Table:
    """A table of Weka and OpenML: numbers, nominal values and texts."""
    text = _in_utf8(content_of(path), path).decode()
    lines = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "%"]
    start = next((i for i, line in enumerate(lines) if line.lower() == "@data"), len(lines))
    found = [(m[1], m[2]) for line in lines[:start] if (m := _ATTRIBUTE.match(line))]
    data = lines[start + 1 :]
    expect(found and data, f"{path}: not a readable ARFF file", "lines @attribute, and @data")
    expect(data[0][0] != "{", f"{path} holds sparse rows, {short(data[0], 40)}", "rows such as a,b")
    with decoding(f"{path}: not a readable ARFF file", DataError):
        rows = [*_cells(data)]
        wrong = next((row for row in rows if len(row) != len(found)), None)
        expect(wrong is None, f"{path}: a row is {short(str(wrong), 60)}", f"{len(found)} values")
        names = tuple(name.strip("'\"") for name, _ in found)
        cells = zip(*rows, strict=True)
        columns = [_arff_column(*each) for each in zip(cells, names, found, strict=True)]
    return Table(names, tuple(columns), path)


def _cells(lines: Sequence[str]) -> Iterator[list[str]]:
    """The values of lines of ARFF, in which either quotation mark keeps commas and blanks."""
    quote = "'" if any("'" in line for line in lines) else '"'
    rows = csv.reader(lines, quotechar=quote, escapechar="\\", skipinitialspace=True)
    return ([cell.strip() for cell in row] for row in rows)


def _arff_column(cells: Sequence[str], name: str, attribute: tuple[str, str]) -> np.ndarray:
    present, kind = [None if cell == "?" else cell for cell in cells], attribute[1]
    if kind.partition(" ")[0].lower() in ("numeric", "real", "integer"):
        return np.array([math.nan if cell is None else float(cell) for cell in present])
    known = {*next(_cells([kind.strip("{} ")]))} if kind[0] == "{" else {*present}
    unknown = next((cell for cell in present if cell not in (None, *known)), None)
    expect(unknown is None, f"{name} is {unknown!r}", f"one of {kind}")
    return as_column(present)


# Parquet: tables, and tables with images of Hugging Face.


def read_parquet(files: Files, label: Label) -> dict[str, Examples]:
    """Tables; or images, which Hugging Face keeps as encoded files in a column of the table."""
    arrow = {part: [*map(_arrow_table, paths)] for part, paths in files.items()}
    schema = next(iter(arrow.values()))[0].schema
    image = next((field.name for field in schema if _holds_files(field.type)), None)
    tables = {
        part: _stack(
            [_table(one, path, image) for one, path in zip(some, files[part], strict=True)]
        )
        for part, some in arrow.items()
    }
    if image is None:
        return from_tables(tables, label)
    train = next(iter(tables.values()))
    place, notes = (0, []) if len(train.names) == 1 else label_place(train, label)
    for part, table in tables.items():
        alike = table.names == train.names and image in arrow[part][0].column_names
        expect(alike, f"{table.origin} has other columns", f"those of {train.origin}")
        _complete([train.names[place]], [table.columns[place]], table.origin)
    sources = {
        part: [
            (f"{path}: image {i}", cell.as_py)
            for one, path in zip(some, files[part], strict=True)
            for i, cell in enumerate(one[image])
        ]
        for part, some in arrow.items()
    }
    images, names = _decoded(sources), _feature_names(schema, train.names[place])
    names = names if train.columns[place].dtype.kind in "iu" else ()
    return {
        part: Examples(images[part], table.columns[place], names, tuple(notes))
        for part, table in tables.items()
    }


def _holds_files(kind: Any) -> bool:
    from pyarrow import types

    members = {field.name for field in kind} if types.is_struct(kind) else set()
    return "bytes" in members or types.is_binary(kind) or types.is_large_binary(kind)


def _arrow_table(path: Path) -> Any:
    """The columns of a Parquet file, read in batches: a claimed size is no size."""
    require("data", "pyarrow")
    import pyarrow as arrow
    from pyarrow import parquet

    with open_regular(path) as file, decoding(f"{path}: not a readable Parquet file", DataError):
        limit = inflatable(os.fstat(file.fileno()).st_size)
        known = parquet.ParquetFile(file)
        found = known.metadata
        claimed = 8 * found.num_rows * found.num_columns
        claim = f"{path}: claims {found.num_rows} x {found.num_columns} values"
        expect(claimed <= limit, claim, f"at most {limit} bytes")
        is_text = arrow.types.is_string, arrow.types.is_large_string
        texts = [f.name for f in known.schema_arrow if any(test(f.type) for test in is_text)]
        batches, size = [], 0
        whole = parquet.ParquetFile(file, read_dictionary=texts)
        for batch in whole.iter_batches(1024, use_threads=False):
            batches.append(batch)
            size += batch.nbytes
            expect(size <= limit, f"{path} decompresses to more than {limit} bytes", "fewer")
        return arrow.Table.from_batches(batches, whole.schema_arrow if not batches else None)


def _table(arrow: Any, path: Path, image: str | None) -> Table:
    """The columns of numbers and texts."""
    with decoding(f"{path}: not a readable Parquet file", DataError):
        names = tuple(name for name in arrow.column_names if name != image)
        return Table(names, tuple(_of_arrow(arrow[name]) for name in names), path)


def _feature_names(schema: Any, label: str) -> tuple[str, ...]:
    """The names of the classes in the metadata that Hugging Face writes; () without."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


# Images.


def read_pictures(files: Files, label: Label) -> dict[str, Examples]:
    """PNG and JPEG files in a folder per class, whose name is the label."""
    expect(label is None, f"label is {label!r}", "None: the folders of images are the labels")
    sources = {
        part: [(path, partial(content_of, path)) for path in paths] for part, paths in files.items()
    }
    images = _decoded(sources)
    return {
        part: Examples(images[part], np.array([path.parent.name for path in paths], object))
        for part, paths in files.items()
    }


Sources = Mapping[str, Sequence[tuple[object, Callable[[], Any]]]]
"""Encoded images by part: the name for messages, and a function that returns the bytes."""

_MODES = ("L", "RGB", "RGBA")


def _decoded(sources: Sources) -> dict[str, np.ndarray]:
    """Images [N, H, W, C] of a size: 1, 3 or 4 channels, as many as any image needs."""
    require("data", "PIL")
    from PIL import ImageOps

    pairs = [pair for part in sources.values() for pair in part]
    size, modes, total = (0, 0), set(), 0
    for name, read in pairs:
        with _opened(name, read) as (image, held):
            own = image.size[::-1] if _orientation(image) > 4 else image.size
            size = size if any(size) else own
            here, there = (" x ".join(map(str, each)) for each in (own, size))
            expect(own == size, f"{name} has {here} pixels", f"{there} as {pairs[0][0]}")
            modes.add(_mode(image))
            total += held
            image.verify()  # the checksums of PNG, which decoding leaves aside
    mixed = len({"I;16"} & modes) and len(modes) > 1
    expect(not mixed, f"{pairs[0][0]}, ...: images of 8 and of 16 bits", "one kind of pixels")
    mode = "I;16" if modes == {"I;16"} else max(modes, key=_MODES.index)
    channels = max(1, len(mode)) if mode in ("RGB", "RGBA") else 1
    shape = size[1], size[0], channels
    limit, claimed = inflatable(total), len(pairs) * math.prod(shape)
    found = f"{pairs[0][0]}, ...: {len(pairs)} images of {shape} take {claimed} bytes"
    expect(claimed <= limit, found, f"at most {limit}")
    images = {}
    for part, some in sources.items():
        dtype = np.uint16 if mode == "I;16" else np.uint8
        images[part] = np.empty((len(some), *shape), dtype)
        for place, (name, read) in enumerate(some):
            with _opened(name, read) as (image, _):
                upright = ImageOps.exif_transpose(image) if _orientation(image) > 1 else image
                pixels = upright if mode == "I;16" else upright.convert(mode)
                images[part][place] = np.asarray(pixels).reshape(shape)
    return images


@contextmanager
def _opened(name: object, read: Callable[[], Any]) -> Iterator[tuple[Any, int]]:
    """An image of which the header alone is read, and the size of the file."""
    from PIL import Image, UnidentifiedImageError

    found = read()
    content = (found.get("bytes") if isinstance(found, dict) else found) or b""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        fault = f"{name}: not a readable PNG or JPEG image"
        with decoding(fault, DataError):
            try:
                image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
            except UnidentifiedImageError:  # whose text is an address in memory
                raise DataError(f"{fault}, by the first bytes") from None
            with image:
                yield image, len(content)


def _orientation(image: Any) -> int:
    """How a camera was held: 1 upright, above 4 on a side; programs turn such images upright."""
    return image.getexif().get(0x0112, 1) if image.format == "JPEG" else 1


def _mode(image: Any) -> str:
    """The channels of an image: "L", "RGB", "RGBA", or "I;16" for 16 bits."""
    if image.mode.startswith("I"):
        return "I;16"
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


# Rows of numbers, and images in binary.


def read_libsvm(files: Files, label: Label) -> dict[str, Examples]:
    """Rows ``target place:value place:value ...``, as LIBSVM and SVMlight take."""
    require("data", "sklearn")
    from sklearn.datasets import load_svmlight_files

    expect(label is None, f"label is {label!r}", f"None for {_first(files)}, which is no table")
    paths = [(part, path) for part, some in files.items() for path in some]
    contents = [content_of(path) for _, path in paths]
    with decoding(f"{_first(files)}: not a readable file of LIBSVM", DataError):
        options: Any = {"dtype": np.float32}
        loaded = load_svmlight_files([*map(io.BytesIO, contents)], **options)
        limit = inflatable(sum(map(len, contents)))
        claimed = 4 * sum(math.prod(rows.shape) for rows in loaded[::2])
        found = f"{_first(files)}: {loaded[0].shape[1]} columns take {claimed} bytes"
        expect(claimed <= limit, found, f"at most {limit}")
        rows = [each.toarray() for each in loaded[::2]]
    parts: dict[str, Examples] = {}
    for part in files:
        places = [i for i, (of, _) in enumerate(paths) if of == part]
        inputs, targets = (
            np.concatenate([each[i] for i in places]) for each in (rows, loaded[1::2])
        )
        parts[part] = Examples(inputs, targets)
    return parts


_CIFAR_NAMES = {1: "batches.meta.txt", 2: "fine_label_names.txt"}


def read_cifar(files: Files, label: Label) -> dict[str, Examples]:
    """CIFAR-10 and CIFAR-100 in their binary version, with the names of the (fine) labels."""
    expect(label is None, f"label is {label!r}", f"None for {_first(files)}, which is no table")
    return {part: _cifar(paths) for part, paths in files.items()}


def _cifar(paths: Sequence[Path]) -> Examples:
    first = paths[0]
    labels = 2 if re.fullmatch(r"(train|test)\.bin", first.name, re.IGNORECASE) else 1
    record, classes = labels + 3072, 10**labels
    contents = [content_of(path) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        found = f"{path}: holds {len(content)} bytes"
        fits = content and len(content) % record == 0
        expect(fits, found, f"examples of {record} bytes, as CIFAR's")
    rows = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, record)
    targets = rows[:, labels - 1]
    expect(targets.max() < classes, f"{first}: a label is {targets.max()}", f"0..{classes - 1}")
    names: tuple[str, ...] = ()
    if (listed := first.parent / _CIFAR_NAMES[labels]).is_file():
        names = tuple(content_of(listed).decode("utf-8", "replace").split())
    images = rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Examples(images, targets, names if len(names) == classes else ())
