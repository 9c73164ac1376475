# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Read safetensors files with NumPy alone, so that a model runs where that library is not packaged.

The layout: eight bytes with the length of a JSON header, the header, the arrays end to end.
"""

import json
from math import prod
from pathlib import Path
import struct
from typing import Any

import numpy as np

_TYPES = {
    'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4', 'I16': '<i2', 'I8': 'i1',
    'U8': 'u1', 'BOOL': '?'}
_LARGEST_HEADER = 100_000_000


def read(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """
    Return metadata and arrays (read-only, of the types that the file has) by name.

    ValueError: it is no such file, cut off, or has arrays of a type unknown to NumPy.
    """
    data = Path(path).read_bytes()
    if len(data) < 8:
        raise ValueError('the file is too short for its header')
    length, = struct.unpack_from('<Q', data)
    if length > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError(f'its header has {length} bytes, more than the file')
    header = json.loads(data[8:8 + length])
    if not isinstance(header, dict):
        raise ValueError('its header is no JSON object')
    metadata = header.pop('__metadata__', {})
    start = 8 + length
    arrays = {name: _array(data, start, name, entry) for name, entry in header.items()}
    used = sum(array.nbytes for array in arrays.values())
    if used != len(data) - start:
        raise ValueError(f'it has {len(data) - start} bytes of arrays, its header {used}')
    return metadata, arrays


def _array(data: bytes, start: int, name: str, entry: dict[str, Any]) -> np.ndarray:
    if entry['dtype'] not in _TYPES:
        raise ValueError(f'{name} is of type {entry["dtype"]}, which cannot be read')
    dtype, shape = np.dtype(_TYPES[entry['dtype']]), tuple(entry['shape'])
    first, end = entry['data_offsets']
    if not 0 <= first <= end <= len(data) - start or end - first != prod(shape) * dtype.itemsize:
        raise ValueError(f'{name} does not lie where its header says')
    return np.frombuffer(data, dtype, prod(shape), start + first).reshape(shape)
