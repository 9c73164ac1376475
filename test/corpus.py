# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A tiny corpus for the tests."""

import json

import cv2
import numpy as np


def write_corpus(root, frames=4, cameras=False, clips=0):
    """
    Write frames of a wall and a bright box, in the layout of the corpus.

    cameras: each with its camera.  clips: so many frames belong to each clip, 0: none does.
    """
    rng = np.random.default_rng(0)
    for index in range(frames):
        left, top = rng.integers(20, 150), rng.integers(20, 100)
        box = np.zeros((192, 256), dtype=bool)
        box[top:top + 70, left:left + 80] = True
        image = np.where(box[..., None], (230, 60, 20), (60, 90, 120)).astype(np.uint8)
        normals = np.where(box[..., None], (127, 127, 0), (40, 127, 40)).astype(np.uint8)
        labels = {
            'semseg': np.where(box, 17, 0).astype(np.uint8),
            'human_parts': np.where(box, 2, 0).astype(np.uint8),
            'normals': normals, 'depth': np.where(box, 900, 2500).astype(np.uint16),
            'edge': (cv2.morphologyEx(
                box.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) * 255),
            'saliency': np.where(box, 255, 0).astype(np.uint8)}
        labels['depth'][:4] = 0
        labels['human_parts'][:4] = 255
        named = f'c{index // clips}_{index % clips}' if clips else f'f{index}'
        if cameras:
            (root / 'meta').mkdir(parents=True, exist_ok=True)
            camera = {'fx': 172.0, 'fy': 172.0, 'cx': 127.5, 'cy': 95.5}
            (root / 'meta' / f'{named}.json').write_text(json.dumps(
                {**camera, **({'timestamp': index / 30} if clips else {})}))
        for name, label in {'image': image, **labels}.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            suffix = 'jpg' if name == 'image' else 'png'
            shown = label[..., ::-1] if label.ndim == 3 else label
            assert cv2.imwrite(str(root / name / f'{named}.{suffix}'), shown)
    return root
