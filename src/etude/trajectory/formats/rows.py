"""Files of rows: JSON Lines, JSON, either of them gzipped, and Parquet.

Reading never stops at a bad row: each comes out as a `Row`, whose `problem` says what is wrong with it.
"""

import gzip
import io
import json
import math
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from etude.core.errors import FormatError

LIMIT = 32 * 2**20
"""Bytes in the longest line that is read."""
DEPTH = 100
"""Levels of lists and objects inside one another."""
BOM = b"\xef\xbb\xbf"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Row:
    """One row of a file, read or not."""

    line: int
    """Line of a JSON Lines file, or number of the row in any other, from 1; 0 stands for the whole file."""
    value: Any = None
    raw: bytes = b""
    problem: str = ""


def loads(text: str) -> Any:
    """Parse JSON strictly. Raises FormatError for what JSON forbids, or nothing could store or write again."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"not JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise FormatError(f"nested more than {DEPTH} levels deep") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise FormatError(f"a number that is too long: {error}") from None
    # Few brackets cannot nest deeply, so that most rows are not walked.
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise FormatError(f"nested more than {DEPTH} levels deep")
    if SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"half a surrogate pair, {error.object[error.start]!a}, which no text can hold") from None
    return value


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise FormatError(f"the number {text:.40} is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_float=_float, parse_constant=_constant)


def _depth(value: Any) -> int:
    deepest, rest = 0, [(value, 1)]
    while rest:
        at, depth = rest.pop()
        deepest = max(deepest, depth)
        inside = at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
        rest += [(x, depth + 1) for x in inside if isinstance(x, (dict, list))]
    return deepest


# -- reading -------------------------------------------------------------------------------------------------------


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """Every row of a file, good or bad. Lines of white space are not rows.

    Raises FormatError when there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path} is not a file")
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1" or path.suffix == ".parquet":
        return _parquet(path)
    return _text(path, zipped=start[:2] == b"\x1f\x8b")


def _text(path: Path, *, zipped: bool) -> Iterator[Row]:
    line = 0
    try:
        with cast(IO[bytes], gzip.open(path) if zipped else path.open("rb")) as file:
            for row in _document(file) if path.name.removesuffix(".gz").endswith(".json") else _lines(file):
                line = row.line
                yield row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Row(line + 1, problem=f"the gzip file is damaged from here on: {error}")


def _lines(file: IO[bytes]) -> Iterator[Row]:
    line = 0
    while raw := file.readline(LIMIT + 1):
        line += 1
        if len(raw) > LIMIT:
            size = len(raw)
            more = raw
            while more and not more.endswith(b"\n"):
                more = file.readline(2**20)
                size += len(more)
            yield Row(line, raw=raw[:1000], problem=f"a line of {size} bytes; the limit is {LIMIT}")
            continue
        raw = raw.removeprefix(BOM) if line == 1 else raw
        if raw.strip():
            yield _row(line, raw.rstrip(b"\r\n"))


def _row(line: int, raw: bytes) -> Row:
    try:
        value = loads(raw.decode())
    except UnicodeDecodeError as error:
        problem = f"bad UTF-8 in line {line} at byte {error.start}: 0x{raw[error.start]:02x} ({error.reason})"
        return Row(line, raw=raw, problem=problem)
    except FormatError as error:
        return Row(line, raw=raw, problem=str(error))
    if not isinstance(value, dict):
        return Row(line, raw=raw, problem=f"{kind(value)}, not an object")
    return Row(line, value, raw)


def _document(file: IO[bytes]) -> Iterator[Row]:
    """A `.json` file: an array of rows, one row over many lines, or JSON Lines under another name."""
    raw = file.read().removeprefix(BOM)
    text = raw.decode(errors="surrogateescape")
    if not text.lstrip().startswith("["):
        whole = _row(1, raw.strip())
        lines = list(_lines(io.BytesIO(raw))) if whole.problem else []
        yield from lines if any(not row.problem for row in lines) else [whole] if raw.strip() else []
        return
    # One element at a time, leniently, to find where it ends; then strictly, so that a bad one leaves the rest.
    element, at, decoder = 0, text.index("[") + 1, json.JSONDecoder()
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        element += 1
        if text[at : at + 1] == "]":
            if after := text[at + 1 :].strip():
                yield Row(
                    element, raw=after.encode(errors="surrogateescape"), problem="text after the end of the array"
                )
            return
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            rest = text[at:].encode(errors="surrogateescape")
            yield Row(
                element, raw=rest, problem=f"row {element} is not JSON, so the rest of the array is lost: {error}"
            )
            return
        yield _row(element, text[at:end].encode(errors="surrogateescape"))
        at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        at += text[at : at + 1] == ","


_SPACE = re.compile(r"\s*")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for value in batch.to_pylist():
                    line += 1
                    yield _parquet_row(line, without_nulls(value))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Row(line + 1 if line else 0, problem=f"the Parquet file cannot be read from here on: {error}")


def _parquet_row(line: int, value: dict[str, Any]) -> Row:
    try:
        return Row(line, loads(json.dumps(value, ensure_ascii=False)))
    except (TypeError, FormatError) as error:
        return Row(line, raw=repr(value).encode(), problem=f"a value that JSON cannot hold: {error}")


def without_nulls(value: Any) -> Any:
    """A Parquet struct fills in every field that any row has; what is null was not there."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def kind(value: Any) -> str:
    """What a JSON value is, for messages.

    >>> kind([1])
    'a list'
    """
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


# -- writing -------------------------------------------------------------------------------------------------------


def write_rows(rows: Iterable[dict[str, Any]], path: str | os.PathLike[str]) -> int:
    """Write rows as the suffix says (`.jsonl`, `.json`, either with `.gz`, `.parquet`); the number written.

    The file appears when it is complete. Raises FormatError for another suffix, or rows without one Parquet schema.
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if suffix not in (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet"):
        raise FormatError(
            f"{path}: cannot tell what to write; end it in .jsonl, .json, .jsonl.gz, .json.gz or .parquet"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}.tmp")
    try:
        count = _write_parquet(rows, temporary) if suffix == ".parquet" else _write_text(rows, temporary, suffix)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write_text(rows: Iterable[dict[str, Any]], path: Path, suffix: str) -> int:
    array, count = suffix.startswith(".json") and not suffix.startswith(".jsonl"), 0
    opener = gzip.open if suffix.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8", newline="\n") as file:
        for row in rows:
            count += 1
            before = "" if not array else "[\n" if count == 1 else ",\n"
            file.write(before + json.dumps(row, ensure_ascii=False, allow_nan=False) + ("" if array else "\n"))
        file.write("" if not array else "\n]\n" if count else "[]\n")
    return count


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_closed(row) for row in rows]
    # `from_pylist` takes its columns from the first row alone.
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    try:
        pq.write_table(pa.table({name: _column(values) for name, values in columns.items()}), path, compression="zstd")
    except pa.ArrowException as error:
        raise FormatError(f"these rows have no common Parquet schema ({error}); write .jsonl instead") from error
    return len(rows)


def _column(values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError):
        array = None
    if array is None or "struct<>" in str(array.type):  # Parquet has no struct without fields
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in values])
    return array


def _closed(value: Any) -> Any:
    """What has no fixed fields (a tool's schema, a call's arguments) as a JSON string, as Parquet needs."""
    if isinstance(value, dict):
        return {
            k: json.dumps(v, ensure_ascii=False)
            if k in ("tools", "arguments") and not isinstance(v, str)
            else _closed(v)
            for k, v in value.items()
        }
    return [_closed(v) for v in value] if isinstance(value, list) else value
