# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Readers of annotated frames."""

from collections.abc import Iterable
from pathlib import Path

from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.datasets.frames import Frames
from adamtl_ros.datasets.published import NYUD
from adamtl_ros.datasets.published import PascalContext


def open_dataset(
        root: str | Path, tasks: Iterable[str] | None = None, split: str = 'val') -> Frames:
    """
    Return the reader of a data set, recognised by its layout.

    root: of PASCAL-Context or NYUDv2; of the corpus a split's folder, or the one above.
    tasks: those wanted; None is all that have labels.  split: 'train', 'val', or another list.
    FileNotFoundError: nothing of the kind there.  ValueError: an empty split, tasks without
    labels.
    """
    root = Path(root)
    given = {} if tasks is None else {'tasks': tasks}
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
