# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Numbers that anyone can make again: weights, images and gates of the reference comparison.

A tensor's values follow from its name: the raw 64-bit outputs of NumPy's PCG64 bit generator
(whose stream never changes), seeded with the CRC-32 of the name, their upper 53 bits scaled to
u in [-1, 1).
"""

import zlib

import numpy as np


def uniform(name, shape):
    """Return float64 u in [-1, 1) of a shape, by name."""
    count = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count)
    return ((raw >> np.uint64(11)) * 2.0 ** -52 - 1.0).reshape(shape)


def weight(name, shape):
    """
    Return the float32 tensor of a checkpoint.

    Matrices and kernels: variance 1 / fan-in.  Bias tables: u.  Running variances: 1 + u / 2.
    Norm weights: 1 + u / 10.  Other vectors: u / 10.  Buffers that are computed: 0.
    """
    if name.endswith(('relative_position_index', 'attn_mask', 'num_batches_tracked')):
        return np.zeros(shape, dtype=np.float32)
    value = uniform(name, shape)
    if name.endswith('relative_position_bias_table'):
        pass
    elif len(shape) > 1:
        value *= np.sqrt(3 / np.prod(shape[1:]))
    elif name.endswith('running_var'):
        value = 1 + value / 2
    else:
        value = value / 10 + name.endswith('.weight')
    return value.astype(np.float32)


def image(size):
    """Return the normalised image (1, 3, size, size)."""
    return (2 * uniform(f'image {size}', (1, 3, size, size))).astype(np.float32)


def gates(case, stage, block, task, tokens, share):
    """Return bool (tokens): the gates of a block, for a task or '' for all; 1 in 5 closed."""
    closed = uniform(f'{case} block {stage} {block} {task}', (1,))[0] < -0.6
    return (uniform(f'{case} gates {stage} {block} {task}', (tokens,)) < 2 * share - 1) & ~closed
