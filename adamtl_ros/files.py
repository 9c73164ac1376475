# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import secrets

ASIDE = '.new-'
"""What the names of files begin with that are not whole yet."""


@contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """
    Give a path beside this one to write to; the file moves here when the block ends well.

    Else it goes, and what lay here stays.  Its name ends as this one does, for those who choose a
    format by that.  durable: it is on the disk before it moves, whatever happens to the machine.
    OSError, naming this path, where it cannot be written.
    """
    # Whoever writes may create it anew: so the umask decides who may read it.
    aside = path.with_name(f'{ASIDE}{secrets.token_hex(4)}-{path.name}')
    try:
        yield aside
        if durable:
            with open(aside, 'rb') as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise OSError(error.errno, f'cannot be written: {error.strerror or error}', str(path)) \
            from error
    finally:
        aside.unlink(missing_ok=True)
