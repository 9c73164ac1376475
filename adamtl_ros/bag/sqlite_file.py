# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Reading .db3 files, whole or damaged.

SQLite reads a whole one.  What it cannot reach of a damaged one, because the pages that lead there
are gone, is found page by page: https://www.sqlite.org/fileformat.html.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager
from pathlib import Path
import sqlite3
from typing import Any

from adamtl_ros.bag.storage import Contents
from adamtl_ros.bag.storage import counted
from adamtl_ros.bag.storage import line
from adamtl_ros.bag.storage import Message
from adamtl_ros.bag.storage import Problem
from adamtl_ros.bag.storage import type_name

_LEAF = 13
"""Type of a page with rows of a table."""


def contents(file: Path, problem: Problem) -> Contents:
    """Return what the tables tell, or, of a damaged file, what is found in its pages."""
    try:
        with _database(file) as database:
            counts = dict(database.execute(
                'SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id'))
            return Contents(
                [(*topic, counts.get(number, 0)) for number, topic in _topics(database).items()],
                _span(database))
    except sqlite3.Error as error:
        _tell(file, error, problem)
    topics = _salvaged_topics(file)
    found = counted(
        Message(*topics[topic], time, b'')
        for _, topic, time, _ in _salvaged(file, topics.__contains__))
    named = {(name, kind) for name, kind, _ in found.topics}
    empty = [(*topic, 0) for topic in topics.values() if topic not in named]
    return Contents([*found.topics, *empty], found.span)


def span(file: Path) -> tuple[int, int] | None:
    """Return when the first and the last message were recorded, None where that is damaged."""
    try:
        with _database(file) as database:
            return _span(database)
    except sqlite3.Error:
        return None


def _span(database: sqlite3.Connection) -> tuple[int, int] | None:
    first, last = database.execute(
        'SELECT MIN(timestamp), MAX(timestamp) FROM messages').fetchone()
    return (first, last) if isinstance(first, int) and isinstance(last, int) else None


def messages(file: Path, topics: Collection[str], problem: Problem) -> Iterator[Message]:
    """Read the messages of the topics by their time; what a damaged file has left as it lies."""
    seen = set()
    known: dict[Any, tuple[str, str]] = {}
    try:
        with _database(file) as database:
            known = _topics(database)
            wanted = [number for number, (name, _) in known.items() if name in topics]
            for number, topic, time, data in database.execute(
                    'SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN '
                    f'({", ".join("?" * len(wanted))}) ORDER BY timestamp, id', wanted):
                seen.add(number)
                if isinstance(time, int) and isinstance(data, bytes):
                    yield Message(*known[topic], time, data)
                else:
                    problem(
                        f'{file.name}: the row {number} of its messages holds '
                        f'{type(time).__name__} and {type(data).__name__}: expected an integer '
                        'time and bytes')
            return
    except sqlite3.Error as error:
        _tell(file, error, problem)
    known = known or _salvaged_topics(file)
    wanted_ids = {number for number, (name, _) in known.items() if name in topics}
    for number, topic, time, data in _salvaged(file, wanted_ids.__contains__):
        if number not in seen:
            yield Message(*known[topic], time, data)


def _tell(file: Path, error: sqlite3.Error, problem: Problem) -> None:
    problem(f'{file.name} is damaged or ends in the middle ({line(error)})')


@contextmanager
def _database(file: Path) -> Iterator[sqlite3.Connection]:
    """Open for reading alone, the log of a recorder that was killed included."""
    with file.open('rb') as stream:
        header = stream.read(100)
    # Of a page that is there in part, SQLite takes the rest to be zeros.
    pages, size = int.from_bytes(header[28:32], 'big'), _page_size(header)
    if header[24:28] == header[92:96] and file.stat().st_size < pages * size:
        raise sqlite3.DatabaseError(
            f'{file.stat().st_size} of {pages * size} bytes are there')
    log, shared = (file.with_name(f'{file.name}-{name}') for name in ('wal', 'shm'))
    logged = log.is_file() and log.stat().st_size > 0
    leave = shared.exists()
    # Without a log no locks are needed, nor a folder that can be written.
    address = f'{file.absolute().as_uri()}?mode=ro{"" if logged else "&immutable=1"}'
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            database.text_factory = lambda data: data.decode(errors='replace')
            yield database
    finally:
        if logged and not leave:
            shared.unlink(missing_ok=True)


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], 'big')
    size = 65536 if size == 1 else size
    return 4096 if size < 512 or size & (size - 1) else size


def _topics(database: sqlite3.Connection) -> dict[Any, tuple[str, str]]:
    return {
        number: (str(name), type_name(str(kind), str(encoding)))
        for number, name, kind, encoding in database.execute(
            'SELECT id, name, type, serialization_format FROM topics')}


def _salvaged_topics(file: Path) -> dict[int, tuple[str, str]]:
    """Return the topics by their number, from rows that look like those of the table."""
    return {
        number: (row[1], type_name(row[2], row[3])) for number, row in _rows(file, 400)
        if len(row) >= 4 and all(isinstance(each, str) for each in row[1:4])
        and row[1].startswith('/')}


def _salvaged(
        file: Path, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the messages, (number, topic, time, data), in the order of their pages."""
    for number, row in _rows(file):
        if len(row) == 4 and row[0] is None and isinstance(row[3], bytes) \
                and isinstance(row[1], int) and isinstance(row[2], int) and wanted(row[1]):
            yield number, row[1], row[2], row[3]


def _rows(file: Path, longest: int = 2**31) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number and the values of all rows that are whole and not above a length."""
    with file.open('rb') as stream:
        header = stream.read(100)
        size = _page_size(header)
        usable = size - (header[20:21] or b'\0')[0]

        def page(number: int) -> bytes:
            stream.seek((number - 1) * size)
            return stream.read(size)

        for number in range(1, file.stat().st_size // size + 2):
            data = page(number)
            start = 100 if number == 1 else 0
            if data[start:start + 1] != bytes((_LEAF,)):
                continue
            for cell in range(int.from_bytes(data[start + 3:start + 5], 'big')):
                place = start + 8 + 2 * cell
                try:
                    yield _row(
                        data, int.from_bytes(data[place:place + 2], 'big'), usable, page, longest)
                except (IndexError, ValueError):
                    continue  # it is not whole, or none of ours


def _row(
        data: bytes, place: int, usable: int, page: Callable[[int], bytes],
        longest: int) -> tuple[int, list[Any]]:
    """Read the row that begins at a place of a page; ValueError or IndexError: not whole."""
    length, place = _varint(data, place)
    number, place = _varint(data, place)
    if length > longest:
        raise ValueError
    here = length
    if length > usable - 35:
        least = (usable - 12) * 32 // 255 - 23
        here = least + (length - least) % (usable - 4)
        if here > usable - 35:
            here = least
    parts = [data[place:place + here]]
    missing = length - here
    following = int.from_bytes(data[place + here:place + here + 4], 'big') if missing else 0
    while missing:
        more = page(following) if following else b''
        parts.append(more[4:min(usable, 4 + missing)])
        missing -= len(parts[-1])
        following = int.from_bytes(more[:4], 'big')
        if not parts[-1]:
            raise ValueError
    return number, _values(b''.join(parts), length)


def _values(payload: bytes, length: int) -> list[Any]:
    if len(payload) != length:
        raise ValueError
    end, place = _varint(payload, 0)
    kinds = []
    while place < end:
        kind, place = _varint(payload, place)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        if kind >= 12:
            size = (kind - 12) // 2
            raw = payload[place:place + size]
            values.append(raw.decode(errors='replace') if kind % 2 else raw)
        else:
            size = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]
            raw = payload[place:place + size]
            values.append(
                None if kind in (0, 7) else kind - 8 if kind >= 8 else
                int.from_bytes(raw, 'big', signed=True))
        if len(raw) != size:
            raise ValueError
        place += size
    return values


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number of up to nine bytes at a place, and the place behind it."""
    value = 0
    for index in range(9):
        byte = data[place + index]
        if index == 8:
            return value << 8 | byte, place + 9
        value = value << 7 | byte & 127
        if byte < 128:
            break
    return value, place + index + 1
