# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is published against what torch makes of the same logits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from adamtl_ros.runtime.publish import confidence
from adamtl_ros.runtime.publish import published
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import WIDE_IGNORE

SIZE = (48, 64)


def logits(channels: int, seed: int = 0) -> np.ndarray:
    """Return float32 (channels, 12, 16)."""
    return np.random.default_rng(seed).normal(0, 3, (channels, 12, 16)).astype(np.float32)


def full(values: np.ndarray) -> torch.Tensor:
    """Return (channels, *SIZE), upsampled as the reference does."""
    return functional.interpolate(
        torch.from_numpy(values)[None], SIZE, mode='bilinear', align_corners=False)[0]


@pytest.mark.parametrize('channels', [1, 2, 7, 18])
def test_classes_are_the_argmax_after_upsampling(channels):
    values = logits(channels)
    found = published('semseg', values, SIZE)
    assert found.dtype == np.uint8 and found.shape == SIZE
    # Rounding may decide between logits that are as good as equal.
    chosen = np.take_along_axis(full(values).numpy(), found[None].astype(np.int64), 0)[0]
    np.testing.assert_allclose(chosen, full(values).amax(0).numpy(), atol=1e-5)
    assert len(np.unique(found)) == channels


@pytest.mark.parametrize('count, kind', [
    (254, np.uint8), (255, np.uint16), (256, np.uint16), (300, np.uint16)])
def test_ids_have_as_many_bits_as_the_classes_need(count, kind):
    """Every class has an id of its own, and none has that of pixels without a class."""
    values = np.full((count, 20, 20), -1, np.float32)
    there = np.arange(400).reshape(20, 20) % count
    np.put_along_axis(values, there[None], 1, 0)
    found = published('semseg', values, (20, 20))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, there)
    assert found.max() < (IGNORE if kind == np.uint8 else WIDE_IGNORE)


def test_of_equal_logits_the_first_class_is_taken():
    assert not published('semseg', np.zeros((5, 12, 16), np.float32), SIZE).any()


def test_maps_and_depth():
    values = logits(1)
    np.testing.assert_allclose(
        published('edges', values, SIZE), full(values)[0].sigmoid().numpy(), atol=1e-5)
    np.testing.assert_allclose(
        published('depth', values, SIZE), full(values)[0].exp().clamp(0.05, 50).numpy(), rtol=1e-4)
    metres = np.abs(values) * 30
    np.testing.assert_allclose(
        published('depth', metres, SIZE, linear_depth=True),
        full(metres)[0].clamp(0.05, 50).numpy(), rtol=1e-4)


def test_normals_are_unit_face_the_camera_and_zero_is_invalid():
    values = logits(3)
    values[:, 4:7, 4:7] = 0
    normals = published('normals', values, SIZE)
    invalid = np.isnan(normals).any(-1)
    assert invalid[22, 22] and 0 < invalid.sum() < 100
    np.testing.assert_allclose(np.linalg.norm(normals[~invalid], axis=-1), 1, atol=1e-5)
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    rays = np.stack((x - 31.5, y - 23.5, np.full(SIZE, 0.67 * 64)), -1)
    assert np.nanmax((normals * rays).sum(-1)) <= 1e-4
    turned = published('normals', values, SIZE, axes=(-1, 1, -1))
    expected = published('normals', values * np.float32([-1, 1, -1])[:, None, None], SIZE)
    np.testing.assert_array_equal(turned, expected)
    assert np.nanmax(np.abs(turned - normals)) > 0.1


def test_confidence_is_the_softmax_of_the_chosen_class():
    values = logits(7)
    expected = full(values).softmax(0).amax(0).numpy() * 255
    assert np.abs(confidence(values, SIZE) - expected).max() < 0.51
