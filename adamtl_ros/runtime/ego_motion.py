# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
How the camera moved between two pictures, and what that changes of what was said of the earlier.

Normals and depth are of the camera's own frame: as it turns all normals turn, and as it comes
nearer all depth shrinks.  So it is not enough to bring them along the optical flow.

What flow a camera sees is linear in how it turned and moved, if depth is known (Longuet-Higgins &
Prazdny, Proc. R. Soc. Lond. B 208, 1980): six numbers, fitted to all cells.  What
moves by itself fits badly, and counts little (Geman & McClure, as in Black & Anandan, CVIU 1996).
"""

from collections.abc import Container
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import cast

import cv2
import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.runtime.geometry import dot
from adamtl_ros.runtime.geometry import Geometry
from adamtl_ros.runtime.motion import Motion
from adamtl_ros.runtime.motion import STEP
from adamtl_ros.tasks import DEPTH_RANGE

CELLS = 2
"""Cells of the flow, a side, that count as one."""

ROUNDS = 3
"""Of fitting, each with the weights that the one before led to."""

NOISE, MOST_NOISE = 0.3, 2.0
"""Pixels of the network's input that half of the cells may be off by, at the least and at most."""

PRIOR = 0.01
"""
What is expected before anything is seen, beside the sum of squares over the cells.

That is some 25 (errors are shared by neighbours) times the square of the flow's error over that of
what is usual, of 0.002 over 0.1 (rad, m).  It decides where a flat wall leaves open whether the
camera turned or shifted.
"""

TYPICAL = 2.5
"""Metres to what a camera in a room sees, where nothing is said of that."""

MOST_TURN, MOST_SHIFT = 0.6, 1.0
"""In rad and m, between two pictures of which one has the results of the other."""

_PRIOR = PRIOR * np.eye(6, dtype=np.float32)

STANDS = 0.15
"""Pixels that half of the cells move at the least where the camera moved."""

AGREES = 0.3
"""Share of the picture that has to fit: a camera behind a crowd is not known to move."""


@dataclass(frozen=True)
class EgoMotion:
    """
    What takes points of the earlier camera's frame to this one's: P' = rotation P + shift.

    rotation: float32 (3, 3).  shift: float32 (3), in m.
    """

    rotation: np.ndarray
    shift: np.ndarray

    def normals(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (h, w, 3) of any surfaces, as this camera has them."""
        return cv2.transform(vectors, self.rotation)

    def depth(self, metres: np.ndarray, camera: Camera) -> np.ndarray:
        """
        Return how far from this camera, along its axis, the points of an earlier picture are.

        metres: float32 (h, w), above 0; camera: of any size of the picture.  At least a tenth, and
        at most ten times, what it was.
        """
        camera = camera.resized(metres.shape[1], metres.shape[0])
        across, down, along = self.rotation[2]
        x, y = camera.slopes()
        moved = metres * (across * x + (down * y + along)[:, None])
        return np.clip(
            moved + self.shift[2], metres * np.float32(0.1), metres * np.float32(10))


def ego_motion(motion: Motion, camera: Camera, depth: np.ndarray | None) -> EgoMotion | None:
    """
    Return how the camera moved since the earlier picture; None where it did not, or none can tell.

    camera: of both, at any size.  depth: float32 (h, w), what was said of the earlier picture, at
    any size; None: all is taken to be TYPICAL metres away.
    """
    lines, columns = (max(side // CELLS, 1) for side in motion.same.shape)
    same = cv2.resize(motion.same, (columns, lines), interpolation=cv2.INTER_AREA).ravel()
    flow = cv2.resize(motion.flow, (columns, lines), interpolation=cv2.INTER_AREA) * np.float32(
        columns / motion.flow.shape[1])
    pixels = motion.flow.shape[1] * STEP / columns
    known = same > 0
    enough = AGREES * same.size
    if same.sum() < enough or _middle(
            np.abs(flow).max(-1).ravel()[known]) * pixels < STANDS:
        return None
    camera = camera.resized(columns, lines)
    across, down = camera.slopes()
    seen = np.stack((flow[..., 0] / -camera.fx, flow[..., 1] / -camera.fy))
    near = np.full_like(seen[0], 1 / TYPICAL)
    if depth is not None:
        metres = _sampled(depth, across - seen[0], down[:, None] - seen[1], camera)
        # One that is no number would make all of it none.
        np.divide(1, metres, out=near, where=np.isfinite(metres) & (metres > 0))
    # The equations are of small motions.  For larger ones those of turns hold in the middle of
    # both places, to the second order, and those of shifts where the point is now, exactly.
    x, y = across - seen[0] / 2, down[:, None] - seen[1] / 2
    product = x * y
    # By term, and last what was seen: (7, 2 h w).  OpenCV's algebra, as NumPy's shares such small
    # sums among threads that the network needs.
    terms = np.zeros((7, 2, lines, columns), np.float32)
    terms[0] = -product, -1 - y * y
    terms[1] = 1 + x * x, product
    terms[2] = -y, x
    terms[3, 0] = terms[4, 1] = near
    terms[5] = -across * near, -down[:, None] * near
    terms[6] = seen
    terms = terms.reshape(7, 2, -1)
    flat = terms.reshape(7, -1)
    least, most = ((noise / pixels / camera.focal) ** 2 for noise in (NOISE, MOST_NOISE))
    fitting, found = same, np.full((1, 7), -1, np.float32)
    for _ in range(ROUNDS):
        sums = cv2.mulTransposed((terms * cv2.sqrt(fitting)[:, 0]).reshape(7, -1), False)
        found[0, :6] = cv2.solve(
            sums[:6, :6] + _PRIOR, sums[:6, 6:], flags=cv2.DECOMP_CHOLESKY)[1][:, 0]
        off = cv2.gemm(found, flat, 1.0, cast(Any, None), 0.0).reshape(2, -1)
        apart = off[0] * off[0] + off[1] * off[1]
        scale = 9 * min(max(2.2 * _middle(apart[known]), least), most)
        fitting = same / np.square(1 + apart / scale)
    turn, shift = found[0, :3], found[0, 3:6]
    # Not above is what is no number, too.
    if fitting.sum() < enough or not (
            np.linalg.norm(turn) < MOST_TURN and np.linalg.norm(shift) < MOST_SHIFT):
        return None
    return EgoMotion(cv2.Rodrigues(turn)[0], shift)


def moved_results(
        results: Mapping[str, np.ndarray], motion: Motion, camera: Camera
) -> dict[str, np.ndarray]:
    """
    Return results of the earlier picture, depth and normals as this camera has them.

    Each pixel stays where it is; `Motion.warped` moves them.
    """
    moved = dict(results)
    if ego := _found(results, motion, camera, results.get('depth')):
        if 'normals' in moved:
            moved['normals'] = ego.normals(moved['normals'])
        if 'depth' in moved:
            moved['depth'] = ego.depth(moved['depth'], camera)
    return moved


def moved_logits(
        logits: Mapping[str, np.ndarray], motion: Motion, lens: Geometry) -> dict[str, np.ndarray]:
    """
    Return what decoders of a canonical network said, as they would say it of this camera.

    Each pixel stays where it is, too.  lens: of the camera, with the size of the network's input.
    """
    moved, depth = dict(logits), None
    if 'depth' in logits:
        depth = np.float32(lens.depth_ratio) * cv2.exp(
            np.clip(logits['depth'][0], *np.log(DEPTH_RANGE, dtype=np.float32)))
    if ego := _found(logits, motion, lens.camera, depth):
        if 'normals' in logits:
            moved['normals'] = _canonical(logits['normals'], ego, lens, depth)
        if depth is not None:
            moved['depth'] = logits['depth'] + cv2.log(ego.depth(depth, lens.camera) / depth)
    return moved


def _canonical(
        planes: np.ndarray, ego: EgoMotion, lens: Geometry, depth: np.ndarray | None
) -> np.ndarray:
    """Turn canonical normals (3, h, w) to the camera, with it, and to the canonical one again."""
    height, width = planes.shape[1:]
    camera, turns = lens.camera.resized(width, height), lens.turns((height, width))
    x, y = np.meshgrid(*camera.slopes())
    away = np.full_like(x, TYPICAL) if depth is None else cv2.resize(depth, (width, height))
    x, y, z = cv2.split(
        ego.normals(cv2.merge((x * away, y * away, away))) + ego.shift)
    z = np.maximum(z, 0.1 * away)
    # What turns them depends on the pixel: on that where they were, and that where they are now.
    there = cv2.split(cv2.remap(
        cv2.merge(list(turns.reshape(9, height, width))),
        x / z * np.float32(camera.fx) + np.float32(camera.cx),
        y / z * np.float32(camera.fy) + np.float32(camera.cy), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE))
    real = cv2.split(ego.normals(cv2.merge([dot(row, planes) for row in turns])))
    return np.stack([dot(there[axis::3], real) for axis in range(3)])


def _found(
        tasks: Container[str], motion: Motion, camera: Camera, depth: np.ndarray | None
) -> EgoMotion | None:
    """Look for it only where something depends on it."""
    return ego_motion(motion, camera, depth) if 'normals' in tasks or 'depth' in tasks else None


def _middle(values: np.ndarray) -> float:
    """Return about the median, in a fifth of the time that numpy takes to find it."""
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


def _sampled(depth: np.ndarray, x: np.ndarray, y: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the depth (h, w) of the nearest pixels of rays."""
    camera = camera.resized(depth.shape[1], depth.shape[0])
    return cv2.remap(
        depth, (x * camera.fx + camera.cx).astype(np.float32), (y * camera.fy + camera.cy).astype(
            np.float32), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE, dst=cast(Any, None))
