# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Compiled models of OpenVINO, kept in files by what they were compiled from.

OpenVINO's own cache writes in place, while others have the same file mapped, and believes what it
finds.  Here a file appears whole, carries a checksum, and is read, not mapped.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
import io
from pathlib import Path
import re
from tempfile import TemporaryDirectory
import time
from zlib import crc32

import numpy as np
import openvino as ov

from adamtl_ros.files import ASIDE
from adamtl_ros.files import whole

KEPT_BYTES = 2**29
"""Of a folder; beyond that, what was used longest ago goes."""

LEFT_S = 3600.0
"""Age in s of a half-written file from which on nobody is writing it any more."""

CHECKSUM = 4
"""Bytes of a file before the model."""

COUNTED = re.compile(r'(?<=") name="[^"]*"(?= type=)|"(?:Parameter|Result)_\d+"')
"""Names of layers, which count all that a process has built before; none is asked for by them."""


def compile_model(
        core: ov.Core, model: ov.Model, options: Mapping[str, object], folder: Path | None
) -> ov.CompiledModel:
    """
    Compile a model for the CPU, or take it from the folder, where None keeps nothing.

    A folder or file that cannot be used is done without.
    """
    key = None if folder is None else _key(core, model, options)
    if folder is None or key is None:
        return core.compile_model(model, 'CPU', options)
    path = folder / f'{key}.blob'
    kept = _read(path)
    if kept is not None:
        try:
            return core.import_model(io.BytesIO(kept), 'CPU', options)
        except RuntimeError:  # whole, and yet not for this machine: compiled anew
            pass
    compiled = core.compile_model(model, 'CPU', options)
    stream = io.BytesIO()
    compiled.export_model(stream)
    _write(path, stream.getvalue())
    return compiled


def _key(core: ov.Core, model: ov.Model, options: Mapping[str, object]) -> str | None:
    """
    Return a name for what a model computes, how, and on which processor and release.

    None where that cannot be told: without a folder for temporary files, for one.
    """
    try:
        with TemporaryDirectory() as scratch:
            # The constants, nearly all of a model, are read where they are.
            weights = Path(scratch, 'model.bin')
            weights.symlink_to('/dev/null')
            ov.serialize(model, str(weights.with_suffix('.xml')), str(weights))
            text = weights.with_suffix('.xml').read_text(encoding='utf-8')
    except (OSError, RuntimeError):
        return None
    constants = list(_constants(model))
    if not text.rstrip().endswith('</net>') or text.count('type="Const"') != len(constants):
        return None
    digest = sha256()
    digest.update(COUNTED.sub('', text).encode())
    for constant in constants:
        digest.update(constant.data)
    digest.update(repr((sorted(options.items()), ov.get_version(), _processor(core))).encode())
    return digest.hexdigest()[:32]


def _constants(model: ov.Model) -> Iterator[np.ndarray]:
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'Constant':
            yield np.ascontiguousarray(node.data)
        elif node.get_type_name() == 'If':
            yield from _constants(node.get_then_body())
            yield from _constants(node.get_else_body())


@cache
def _processor(core: ov.Core) -> tuple[str, ...]:
    return (core.get_property('CPU', 'FULL_DEVICE_NAME'),
            *core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))


def _read(path: Path) -> bytes | None:
    """Return what a file holds; None if there is none or it is damaged."""
    try:
        with path.open('rb') as file:
            checksum, kept = file.read(CHECKSUM), file.read()
    except OSError:
        return None
    if _checksum(kept) != checksum:
        return None
    try:
        path.touch()  # the time of the last use
    except OSError:
        pass
    return kept


def _checksum(model: bytes) -> bytes:
    return crc32(model).to_bytes(CHECKSUM, 'little')


def _write(path: Path, model: bytes) -> None:
    """Keep a model; a disk that is full or read-only is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as aside:
            aside.write_bytes(_checksum(model) + model)
        _prune(path.parent)
    except OSError:
        pass


def _prune(folder: Path) -> None:
    """Remove what was used longest ago, and what a process left that was ended while writing."""
    files = []
    for file in folder.glob('*.blob'):
        try:
            status = file.stat()
        except FileNotFoundError:  # another process prunes as well
            continue
        files.append((status.st_mtime, status.st_size, file))
    total = 0
    for used, size, file in sorted(files, reverse=True):
        if file.name.startswith(ASIDE):
            gone = time.time() - used > LEFT_S
        else:
            total += size
            gone = total > KEPT_BYTES
        if gone:
            file.unlink(missing_ok=True)
