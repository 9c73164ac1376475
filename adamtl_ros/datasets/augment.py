# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Augmentation and resizing of frames as AdaMTL and MTI-Net do both."""

from dataclasses import dataclass
import math

import cv2
import numpy as np

from adamtl_ros.tasks import IGNORE

LabelledFrame = dict[str, np.ndarray]

_SMOOTH = ('image', 'normals')
"""Interpolated by cubic splines; everything else takes the nearest pixel."""


def encode_normals(vectors: np.ndarray) -> np.ndarray:
    """Return the uint8 form of float (h, w, 3) vectors of any length; a zero vector is none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    valid = length[..., 0] > 1e-3
    coded = np.round((vectors / np.maximum(length, 1e-3) + 1) * 127.5).astype(np.uint8)
    return np.where(valid[..., None], coded, 0).astype(np.uint8)


def decode_normals(coded: np.ndarray) -> np.ndarray:
    """Return float32 (h, w, 3) vectors of about unit length, zero where there is none."""
    valid = coded.any(-1, keepdims=True)
    return np.where(valid, coded.astype(np.float32) / 127.5 - 1, 0).astype(np.float32)


@dataclass(frozen=True)
class Augmentation:
    """
    Mirroring in half of the cases, then rotation and zoom about the centre.

    rotation: at most so many degrees to either side.  scales: range of the zoom, or where
    `listed` the zooms of which one is drawn; above 1 it enlarges.
    """

    rotation: float
    scales: tuple[float, ...]
    listed: bool = False

    def __call__(
            self, frame: LabelledFrame, rng: np.random.Generator, size: tuple[int, int]
    ) -> LabelledFrame:
        """Return an augmented frame of (width, height) pixels."""
        mirror = rng.random() < 0.5
        turn = rng.uniform(-self.rotation, self.rotation) if self.rotation else 0.0
        drawn = rng.choice(self.scales) if self.listed else rng.uniform(
            self.scales[0], self.scales[-1])
        return warp(frame, mirror, turn, float(drawn), size)


def warp(
        frame: LabelledFrame, mirror: bool, turn: float, zoom: float, size: tuple[int, int]
) -> LabelledFrame:
    """
    Mirror, rotate counter-clockwise by `turn` degrees, zoom, and resize to (width, height).

    Normals are mirrored and turned with the picture; what comes nearer by the zoom has less
    depth.  Outside of the picture labels are 0, as published: background, or none.  Where no
    people are left there is no human_parts label.
    """
    height, width = frame['image'].shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, zoom)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    changed = {}
    for key, array in frame.items():
        if key == 'normals':
            array = decode_normals(array)
        if key == 'human_parts' and not _has_people(array):
            array = np.zeros_like(array)
        if mirror:
            array = cv2.flip(array, 1)
        if key == 'normals':
            x, y, z = np.moveaxis(array, -1, 0)
            x = -x if mirror else x
            array = np.stack((x * cosine + y * sine, y * cosine - x * sine, z), -1)
        if turn or zoom != 1:
            how = cv2.INTER_CUBIC if key in _SMOOTH else cv2.INTER_NEAREST
            array = cv2.warpAffine(array, matrix, (width, height), flags=how)
        if key == 'depth':
            array = np.round(array / zoom).astype(np.uint16)
        array = _resize(key, array, size)
        if key == 'human_parts' and not _has_people(array):
            array = np.full_like(array, IGNORE)
        changed[key] = array
    return changed


def to_test_size(frame: LabelledFrame, size: tuple[int, int]) -> LabelledFrame:
    """Return the frame at (width, height), as images and labels are brought to test size."""
    return {
        key: _resize(key, decode_normals(array) if key == 'normals' else array, size)
        for key, array in frame.items()}


def _resize(key: str, array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    how = cv2.INTER_CUBIC if key in _SMOOTH else cv2.INTER_NEAREST
    if array.shape[1::-1] != tuple(size):
        array = cv2.resize(array, size, interpolation=how)
    return encode_normals(array) if key == 'normals' else array


def _has_people(parts: np.ndarray) -> bool:
    return bool(((parts > 0) & (parts != IGNORE)).any())
