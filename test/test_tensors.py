# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Our reader of safetensors files beside the library that writes them."""

import json
import struct

from hypothesis import given
from hypothesis import strategies
from hypothesis.extra import numpy as arrays
import numpy as np
import pytest

from adamtl_ros.network import tensors

safetensors = pytest.importorskip('safetensors.numpy', reason='pip install safetensors')

TYPES = strategies.sampled_from(['f8', 'f4', 'f2', 'i8', 'i4', 'i2', 'i1', 'u1', '?'])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(strategies.dictionaries(strategies.text(min_size=1, max_size=8).filter(
    lambda name: name != '__metadata__'), arrays.arrays(TYPES, SHAPES), max_size=4),
    strategies.dictionaries(strategies.text(max_size=5), strategies.text(max_size=5), min_size=1))
def test_reads_what_the_library_writes(tmp_path_factory, written, notes):
    path = tmp_path_factory.mktemp('tensors') / 'file.safetensors'
    safetensors.save_file(written, path, notes)
    metadata, read = tensors.read(path)
    assert metadata == notes and read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(('change', 'words'), [
    (lambda data: data[:5], 'too short'),
    (lambda data: data[:-1], 'does not lie'),
    (lambda data: data + b'\0', 'bytes of arrays'),
    (lambda data: struct.pack('<Q', len(data)) + data[8:], 'more than the file'),
    (lambda data: data.replace(b'"F32"', b'"F8_"'), 'F8_'),
    (lambda data: data.replace(b'[2,3]', b'[3,3]'), 'does not lie'),
    (lambda data: data.replace(b'[2,3]', b'[-2,]'), ''),
    (lambda data: b'\xff' * len(data), 'more than the file'),
])
def test_damage_is_an_error(tmp_path, change, words):
    path = tmp_path / 'file.safetensors'
    safetensors.save_file({'a': np.ones((2, 3), np.float32)}, path)
    data = path.read_bytes()
    assert json.loads(data[8:8 + struct.unpack('<Q', data[:8])[0]])['a']['dtype'] == 'F32'
    path.write_bytes(change(data))
    with pytest.raises(ValueError, match=words):
        tensors.read(path)
