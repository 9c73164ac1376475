# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Readers of annotated frames."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adamtl_ros.datasets.benchmarks import NYUD
from adamtl_ros.datasets.benchmarks import PascalContext
from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.datasets.frames import Frames


def open_dataset(
        root: str | Path, tasks: Iterable[str] | None = None, split: str = 'val', *,
        cameras: bool = False) -> Frames:
    """
    Return the reader of a data set, recognised by its layout.

    root: of PASCAL-Context or NYUDv2; of the corpus a split's folder, or the one above.
    tasks: those wanted; None is all that have labels.  split: 'train', 'val', or another list.
    cameras: whether the camera of every frame must be known.
    FileNotFoundError: nothing of the kind there.  ValueError: an empty split, tasks without
    labels, no cameras where they must be known.
    """
    data = _open(Path(root), {} if tasks is None else {'tasks': tasks}, split)
    if cameras and data.camera(0) is None:
        raise ValueError(
            f'{data.root}: the frames have no intrinsics, which depth in metres and normals need: '
            'give meta/ID.json with fx, fy, cx and cy as docs/datasets.md describes, or leave '
            'both tasks out')
    return data


def _open(root: Path, given: dict[str, Any], split: str) -> Frames:
    if (root / 'ImageSets' / 'Context').is_dir():
        return PascalContext(root, split=split, **given)
    if (root / 'gt_sets').is_dir():
        return NYUD(root, split=split, **given)
    for folder in (root, root / split):
        if (folder / 'image').is_dir():
            return EgoRooms(folder, **given)
    raise FileNotFoundError(
        f'no data set in {root}: expected ImageSets/Context (PASCAL-Context), gt_sets (NYUDv2), '
        f'image or {split}/image (the corpus); docs/datasets.md describes the layouts')
