# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Files: names that can be used, and contents that are there whole or not at all."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from importlib import import_module
import math
import os
from pathlib import Path
import secrets
import sys
from typing import Any

ASIDE = '.new-'
"""What the names of files begin with that are not whole yet."""

FIGURES = ('.eps', '.jpg', '.pdf', '.png', '.ps', '.svg')
"""Endings of files that matplotlib draws to."""


@contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """
    Give a path beside this one to write to; the file moves here when the block ends well.

    Else it goes, and what lay here stays.  Its name ends as this one does, for those who choose a
    format by that.  durable: it is on the disk before it moves, whatever happens to the machine.
    A device or a pipe is written to as it is, and a link stays one.  OSError, naming this path,
    where it cannot be written.
    """
    if _is_stream(path):
        yield path
        return
    target = Path(os.path.realpath(path))
    aside = _aside(target)
    try:
        aside.touch()
        mode = aside.stat().st_mode
        yield aside
        # The umask decides who may read it, whoever wrote it, and under whatever name before.
        aside.chmod(mode)
        if durable:
            with open(aside, 'rb') as file:
                os.fsync(file.fileno())
        os.replace(aside, target)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def try_file(path: Path | str | None, endings: Sequence[str] = ()) -> None:
    """
    Raise ValueError or OSError where a file cannot be written later, before the work is done.

    Says on standard error where one is there already.  path: None is not to be written.
    endings: one of which the name must have.
    """
    if path is None:
        return
    path = Path(path)
    check_name(path.absolute())
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f'{path}: name a file that ends in {", ".join(endings)}')
    if path.is_dir():
        raise ValueError(f'{path}: is a folder; name a file')
    if _is_stream(path):
        return
    if not path.parent.is_dir():
        raise ValueError(f'{path}: there is no folder {path.parent}; make it first')
    _try(Path(os.path.realpath(path)), path)
    if path.exists():
        print(f'{path}: is replaced', file=sys.stderr)


def try_figure(path: Path | str | None) -> None:
    """Raise as try_file does, and ImportError where there is nothing to draw with."""
    if path is not None:
        try_file(path, FIGURES)
        import_module('matplotlib.figure')


def try_folder(folder: Path, names: Iterable[str] = ()) -> None:
    """
    Make a folder for results; OSError where it cannot be made or written to.

    names: of the files to come; says on standard error which of them are there already.
    """
    check_name(folder.absolute())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    _try(folder / 'x', folder)
    replaced = [name for name in names if (folder / name).exists()]
    if replaced:
        more = f' and {len(replaced) - 3} more' if len(replaced) > 3 else ''
        print(f'{folder}: {", ".join(replaced[:3])}{more}: replaced', file=sys.stderr)


def check_name(name: str | Path) -> None:
    """Raise ValueError for a name that is not UTF-8: OpenCV ends the process over it."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        raise ValueError(f'{os.fsencode(name)!r}: the name is not UTF-8; rename it') from None


def _is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or a file that is open, such as /dev/stdout."""
    return os.path.abspath(path).startswith(('/dev/', '/proc/self/fd/')) or (
        path.exists() and not path.is_file() and not path.is_dir())


def _aside(path: Path) -> Path:
    return path.with_name(f'{ASIDE}{secrets.token_hex(4)}-{path.name}')


def _try(path: Path, named: Path) -> None:
    aside = _aside(path)
    try:
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise _unwritable(named, error) from error


def _unwritable(path: Path, error: OSError) -> OSError:
    return OSError(error.errno, f'cannot be written: {error.strerror or error}', str(path))


def unique_names(paths: Sequence[Path]) -> list[str]:
    """
    Return a file stem for each path: its own where that is free, else with a number.

    a/x.png, b/x.png, x_2.png give x, x_3, x_2: a name that a path has of itself stays its own.
    """
    own = {path.stem for path in paths}
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name in taken or (number > 1 and name in own):
            number += 1
            name = f'{path.stem}_{number}'
        taken.add(name)
        names.append(name)
    return names


def plain(value: Any) -> Any:
    """Return the value as JSON has it: NaN and infinity become null, tuples lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
