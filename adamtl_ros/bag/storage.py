# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the files of a recording are, by what they hold, and without their compression."""

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path
import re
import shutil
from typing import Any
from typing import NamedTuple

from adamtl_ros.paths import natural_key

# Those of ROS 1 are named to be refused, not overlooked.
_NAMES = re.compile(r'\.(mcap|db3|bag)(\.(zstd|zst|lz4))?$')
_MAGICS = {
    b'\x89MCAP0\r\n': 'mcap', b'SQLite format 3\0': 'sqlite3', b'#ROSBAG V': 'ros1',
    b'\x28\xb5\x2f\xfd': 'zstd', b'\x04\x22\x4d\x18': 'lz4'}
_SUFFIXES = {'.mcap': 'mcap', '.db3': 'sqlite3', '.zstd': 'zstd', '.zst': 'zstd', '.lz4': 'lz4'}

LATEST = 2**63 - 1
"""The last time in ns that a recording can have."""

Problem = Callable[[str], None]
"""Is told what is wrong with a file."""


class Message(NamedTuple):
    """One message: its topic and type, when it was recorded (ns), and its CDR bytes."""

    topic: str
    kind: str
    time: int
    data: bytes | memoryview


class Contents(NamedTuple):
    """
    What lies in a file.

    topics: (name, type, number of messages or None) of each.  span: when the first and the last
    message were recorded, ns; None where there is none or the file does not tell.
    """

    topics: list[tuple[str, str, int | None]]
    span: tuple[int, int] | None


def counted(messages: Iterable[Message]) -> Contents:
    """Return the contents of a file that tells of them only by its messages."""
    counts: Counter[tuple[str, str]] = Counter()
    first, last = LATEST, -1
    for message in messages:
        counts[message.topic, message.kind] += 1
        first, last = min(first, message.time), max(last, message.time)
    topics: list[tuple[str, str, int | None]] = [
        (*key, number) for key, number in counts.items()]
    return Contents(topics, (first, last) if topics else None)


def type_name(name: str, encoding: str) -> str:
    """Return the type of messages, which is one of ROS only where they are CDR."""
    return name if encoding in ('cdr', '') else f'{name} ({encoding})'


def is_recording(path: Path) -> bool:
    """Return whether a recording lies at a path, or some lie right in the folder there."""
    if path.is_dir():
        return (path / 'metadata.yaml').exists() or bool(recording_files(path))
    # A pipe would lose what is read of it here.
    return bool(_NAMES.search(path.name)) or path.is_file() and kind_of(path) in (
        'mcap', 'sqlite3', 'ros1')


def recording_files(folder: Path) -> list[Path]:
    """Return the files of recordings right in a folder, in the order people count in."""
    return sorted(
        (file for file in folder.iterdir() if _NAMES.search(file.name) and file.is_file()),
        key=natural_key)


def kind_of(file: Path) -> str:
    """Return mcap, sqlite3, ros1, zstd, lz4 or '', by the content, else by the name."""
    with file.open('rb') as stream:
        return packing(stream.read(16)) or _SUFFIXES.get(file.suffix, '')


def packing(data: bytes) -> str:
    """Return what begins as these bytes do, '' where that is nothing known."""
    return next((kind for magic, kind in _MAGICS.items() if data.startswith(magic)), '')


def unpack(file: Path, kind: str, target: Path, problem: Problem) -> None:
    """Write a file without its compression; of a damaged one what comes before the damage."""
    with target.open('wb') as out, file.open('rb') as packed:
        try:
            if kind == 'zstd':
                import zstandard
                zstandard.ZstdDecompressor().copy_stream(packed, out)
            else:
                import lz4.frame
                with lz4.frame.open(packed) as stream:
                    shutil.copyfileobj(stream, out)
        except OSError as error:
            raise OSError(
                error.errno, f'{error.strerror}: unpacking needs room in {target.parent}; set '
                'TMPDIR to another folder', str(file)) from None
        except ImportError:
            raise
        except Exception as error:  # each package has errors of its own for damage
            problem(f'{file.name} is damaged or cut off ({line(error)})')


def unpacked(data: bytes | memoryview) -> bytes | memoryview:
    """Return a message's CDR bytes, which some recordings compress one by one."""
    kind = packing(bytes(data[:4]))
    if kind == 'zstd':
        import zstandard
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if kind == 'lz4':
        import lz4.frame
        plain: bytes = lz4.frame.decompress(data)
        return plain
    return data


def line(error: Any) -> str:
    """Return what an error says on one line."""
    return ' '.join(f'{error or type(error).__name__}'.split()).rstrip('.')
