# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Changes of frames for training on rendered pictures that are to serve for real ones.

Geometry comes first: mirror, zoom, aspect and rotation in one step, which the camera follows, so
that depth and normals stay right; what the network is taught of them is for the canonical camera
(`adamtl_ros.camera`).  Then people and things of another frame may be put in, by depth.  Last
comes what cameras do to light: blur, noise, exposure, colour, compression.

All of it works on batches, on the device that the network is trained on: what is drawn comes from
a numpy generator (the noise of pixels from torch's, which that one seeds), so that it depends on
nothing else.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.tasks import IGNORE
from adamtl_ros.training.pictures import SIZE
from adamtl_ros.training.pictures import UNKNOWN

Frames = dict[str, Tensor]
Rng = np.random.Generator

EDGE_ZOOM = 1.25
"""Edges are one pixel wide: of a picture that is enlarged more than this they are not learned."""

PASTED = (4, 5, 10, 11, 12, 17)
"""Classes put into other frames: person, chair, plant, screen, lamp, object of the corpus."""

REACH = 4
"""Pixels that a blur reaches to each side."""

LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99], np.float32)
CHROMA = np.full((8, 8), 99, np.float32)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Steps of quantisation at quality 50 (ITU-T T.81, annex K)."""


@dataclass(frozen=True)
class Strength:
    """
    How often and how far frames are changed; the corpus is learned with the defaults.

    zoom, rotation (degrees) and aspect (ratio) are the largest; the others are probabilities.
    """

    zoom: float = 2.0
    zoomed: float = 0.5
    rotation: float = 10.0
    rotated: float = 0.25
    aspect: float = 1.15
    pasted: float = 0.25
    photometric: float = 0.85


PICTURED = Strength(zoom=1.8, zoomed=0.6)
"""Of real pictures, of which no label depends on the lens."""

_LENS = Camera.nominal(SIZE[1], SIZE[0], 200.0)


def augmented(
        frames: Frames, cameras: Sequence[Camera], rng: Rng, size: tuple[int, int],
        others: tuple[Sequence[int], Frames, Sequence[Camera]] | None = None,
        pictures: Frames | None = None, strength: Strength = Strength()) -> Frames:
    """
    Return frames, changed, at (height, width) = size in multiples of 16, for the canonical camera.

    frames: uint8 'image' (B, h, w, 3) and labels as datasets.frames describes them, depth as
    int32.  others: numbers of frames into which things of others are put, those, and their
    cameras.  pictures: 'image', 'person' and others as `training.pictures` reads them; they come
    last, without the labels that they have not, and all frames get a 'person'.
    """
    frames = warped(frames, cameras, rng, size, strength)
    if others is not None and len(others[0]) and {'semseg', 'depth'} <= set(frames):
        rows = torch.tensor(others[0], device=frames['image'].device)
        part = paste({key: value[rows] for key, value in frames.items()},
                     warped(others[1], others[2], rng, size, strength), rng)
        frames = {key: value.index_copy(0, rows, part[key]) for key, value in frames.items()}
    if pictures is not None:
        frames = _joined(frames, warped(
            pictures, [_LENS] * len(pictures['image']), rng, size, PICTURED))
    frames['image'] = light(frames['image'], rng, strength.photometric)
    return frames


def _joined(frames: Frames, pictures: Frames) -> Frames:
    """Return frames, then pictures, each with what is unknown where it has no label."""
    count = len(pictures['image'])
    person = torch.full_like(frames['image'][..., 0], UNKNOWN)
    joined = {'person': torch.cat((person, pictures['person']))}
    for key, value in frames.items():
        if key not in pictures:
            nothing = 0 if key in ('normals', 'depth') else IGNORE
            added = value.new_full((count, *value.shape[1:]), nothing)
        else:
            added = pictures[key]
        joined[key] = torch.cat((value, added))
    return joined


def canonical(frames: Frames, cameras: Sequence[Camera]) -> Frames:
    """
    Return frames whose depth (int32 mm) and normals are those of the canonical camera.

    cameras: those of the pictures as they are.
    """
    frames = dict(frames)
    device = frames['image'].device
    if 'depth' in frames:
        scale = _column([CANONICAL_FOCAL / camera.focal for camera in cameras], device, 3)
        frames['depth'] = (frames['depth'] * scale).clamp(max=65535).to(torch.int32)
    if 'normals' in frames:
        label = frames['normals']
        height, width = label.shape[1:3]
        start = _rays(width, height, torch.tensor(
            [(c.fx, c.fy, c.cx, c.cy) for c in cameras], device=device))
        middle = Camera.nominal(width, height, CANONICAL_FOCAL)
        end = torch.from_numpy(middle.rays()).to(device).permute(2, 0, 1)[None]
        vectors = _turned(label.permute(0, 3, 1, 2).float() / 127.5 - 1, start, end)
        frames['normals'] = _bytes(vectors, label)
    return frames


def _column(values: Sequence[float] | np.ndarray, device: torch.device, dims: int) -> Tensor:
    """Return float32 (B, 1, ...), one number a frame, of so many dimensions."""
    column = torch.from_numpy(np.asarray(values, np.float32)).to(device, non_blocking=True)
    return column.view(-1, *[1] * (dims - 1))


def _rays(width: int, height: int, cameras: Tensor) -> Tensor:
    """Return (B, 3, height, width), the unit rays of cameras (B, 4): fx, fy, cx, cy."""
    x = (torch.arange(width, device=cameras.device) - cameras[:, 2:3]) / cameras[:, :1]
    y = (torch.arange(height, device=cameras.device) - cameras[:, 3:]) / cameras[:, 1:2]
    rays = torch.stack((
        x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width),
        x.new_ones(()).expand(len(cameras), height, width)), 1)
    return functional.normalize(rays, dim=1)


def _turned(vectors: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Turn vectors (B, 3, h, w) as `camera.turned` does."""
    end = end.expand_as(start)
    axis = torch.linalg.cross(start, end, dim=1)
    across = torch.linalg.cross(axis, vectors, dim=1)
    cosine = (start * end).sum(1, keepdim=True)
    return vectors + across + torch.linalg.cross(axis, across, dim=1) / (1 + cosine)


def _bytes(vectors: Tensor, label: Tensor) -> Tensor:
    # 0 is kept for what has no surface.
    values = ((vectors + 1) * 127.5).round().clamp(1, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return torch.where((label > 0).any(-1, keepdim=True), values, 0)


def warped(
        frames: Frames, cameras: Sequence[Camera], rng: Rng, size: tuple[int, int],
        strength: Strength) -> Frames:
    """Mirror, zoom, stretch and turn frames to (height, width) in one step."""
    height, width = size
    old_height, old_width = frames['image'].shape[1:3]
    device = frames['image'].device
    count, new, turns, scales = len(cameras), [], [], []
    inverse = np.empty((count, 2, 3))
    for number, camera in enumerate(cameras):
        # The least zoom at which the picture fills the new one.
        fill = max(width / camera.width, height / camera.height)
        zoom = angle = 0.0
        if rng.random() < strength.zoomed:
            zoom = rng.random() ** 1.5 * math.log(strength.zoom)
        aspect = math.exp(rng.uniform(-1, 1) * math.log(strength.aspect) / 2) if zoom else 1.0
        if rng.random() < strength.rotated:
            angle = math.radians(rng.uniform(-1, 1) * strength.rotation)
            # So that no corner of the new picture lies outside.
            longer = max(width / height, height / width)
            zoom += math.log(math.cos(angle) + abs(math.sin(angle)) * longer)
        scale = fill * math.exp(zoom) * max(aspect, 1 / aspect)
        mirror = -1 if rng.random() < 0.5 else 1
        across, down = scale * aspect, scale / aspect
        cosine, sine = math.cos(angle), math.sin(angle)
        # Mirror, then turn, then stretch; in 2 x 2 for pixels, and for x and y of vectors alike.
        turn = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
        matrix = np.diag([across, down]) @ turn
        back = np.linalg.inv(matrix)
        # Where the middle of the new picture comes from: as far from the old middle as fits.
        half = np.abs(back) @ [(width - 1) / 2, (height - 1) / 2]
        old = np.array([camera.width - 1, camera.height - 1]) / 2
        middle = old + np.maximum(old - half, 0) * rng.uniform(-1, 1, 2)
        inverse[number, :, :2] = back
        inverse[number, :, 2] = middle - back @ [(width - 1) / 2, (height - 1) / 2]
        centre = matrix @ (np.array([camera.cx, camera.cy]) - inverse[number, :, 2])
        new.append(Camera(
            width, height, camera.fx * across, camera.fy * down, *map(float, centre)))
        turns.append(turn)
        scales.append(scale)
    matrices = torch.from_numpy(inverse.astype(np.float32)).to(device, non_blocking=True)
    x, y = torch.meshgrid(
        torch.arange(width, device=device, dtype=torch.float32),
        torch.arange(height, device=device, dtype=torch.float32), indexing='xy')
    # (B, 2, height, width): where each pixel comes from.
    places = matrices[:, :, :1, None] * x + matrices[:, :, 1:2, None] * y + matrices[
        :, :, 2:, None]
    columns = places[:, 0].round().clamp(0, old_width - 1).long()
    lines = places[:, 1].round().clamp(0, old_height - 1).long()
    index = lines * old_width + columns
    rows = torch.arange(count, device=device)[:, None, None]
    result: Frames = {}
    for key, value in frames.items():
        if key == 'image':
            result[key] = _sampled(value, places, scales)
        else:
            result[key] = value.flatten(1, 2)[rows, index]
    if 'normals' in result:
        label = result['normals']
        turned = torch.from_numpy(np.asarray(turns, np.float32)).to(device, non_blocking=True)
        vectors = label.float() / 127.5 - 1
        flat = torch.einsum('bij,bhwj->bihw', turned, vectors[..., :2])
        result['normals'] = _bytes(
            torch.cat((flat, vectors[..., 2][:, None]), 1), label)
    if 'edges' in result:
        told = [1 / EDGE_ZOOM < scale < EDGE_ZOOM for scale in scales]
        result['edges'] = torch.where(
            _column(told, device, 3) > 0, result['edges'], IGNORE)
    return canonical(result, new)


def _sampled(image: Tensor, places: Tensor, scales: list[float]) -> Tensor:
    """Return uint8 (B, height, width, 3): uint8 (B, h, w, 3) at places (B, 2, height, width)."""
    value = image.permute(0, 3, 1, 2).float()
    soft = np.flatnonzero(np.asarray(scales) < 0.9)
    if len(soft):
        # What gets much smaller is averaged first.
        value[soft] = _filtered(value[soft], np.stack(
            [_gaussian(0.5 / scales[row]) for row in soft.tolist()]))
    limits = places.new_tensor([image.shape[2] - 1, image.shape[1] - 1]).view(1, 2, 1, 1)
    grid = (places / limits * 2 - 1).permute(0, 2, 3, 1)
    value = functional.grid_sample(
        value, grid, mode='bilinear', padding_mode='reflection', align_corners=True)
    return value.round().to(torch.uint8).permute(0, 2, 3, 1)


def _gaussian(sigma: float) -> np.ndarray:
    line = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / sigma) ** 2)
    kernel = np.outer(line, line)
    return (kernel / kernel.sum()).astype(np.float32)


def _motion(length: int, angle: float) -> np.ndarray:
    """Return the kernel of a movement over `length` pixels."""
    kernel = np.zeros((2 * REACH + 1, 2 * REACH + 1), np.float32)
    along = np.linspace(-(length // 2), length // 2, 4 * length)
    x, y = REACH + along * math.cos(angle), REACH + along * math.sin(angle)
    np.add.at(kernel, (np.rint(y).astype(int), np.rint(x).astype(int)), 1.0)
    return kernel / kernel.sum()


def _filtered(value: Tensor, kernels: np.ndarray) -> Tensor:
    """Filter (B, 3, h, w), each frame with its own kernel of (B, k, k)."""
    count, channels, height, width = value.shape
    weight = torch.from_numpy(kernels).to(value.device)[:, None, None].expand(
        -1, channels, -1, -1, -1).reshape(count * channels, 1, *kernels.shape[1:])
    around = functional.pad(value, (REACH,) * 4, mode='reflect')
    return functional.conv2d(
        around.reshape(1, count * channels, *around.shape[2:]), weight,
        groups=count * channels).view(value.shape)


def paste(frames: Frames, others: Mapping[str, Tensor], rng: Rng) -> Frames:
    """Put things of some classes of other frames in front of what lies behind them."""
    device = frames['image'].device
    chosen = rng.random((len(frames['image']), len(PASTED))) < 0.6
    wanted = torch.zeros(len(chosen), 256, dtype=torch.bool)
    wanted[:, list(PASTED)] = torch.from_numpy(chosen)
    rows = torch.arange(len(chosen), device=device)[:, None, None]
    mask = wanted.to(device)[rows, others['semseg'].long()] & (others['depth'] > 0)
    mask &= (others['depth'] < frames['depth']) | (frames['depth'] == 0)
    share = mask.float().mean((1, 2), keepdim=True)
    mask &= (share > 0.005) & (share < 0.6)
    solid = mask.float()
    frames = dict(frames)
    for key, value in frames.items():
        new = others[key]
        if key == 'image':
            soft = _filtered(solid[:, None], np.repeat(_gaussian(0.7)[None], len(chosen), 0))
            soft = soft.permute(0, 2, 3, 1)
            frames[key] = (value * (1 - soft) + new * soft).to(torch.uint8)
            continue
        shape = mask[..., None] if value.ndim == 4 else mask
        frames[key] = torch.where(shape, new, value)
        if key == 'edges':
            # Edges lie before a border: a pixel with those right of and below it.
            after = functional.pad(solid, (0, 1, 0, 1))
            right, below = after[:, :-1, 1:], after[:, 1:, :-1]
            right[:, :, -1], below[:, -1] = solid[:, :, -1], solid[:, -1]
            border = (solid != right) | (solid != below)
            unknown = (value == IGNORE).all((1, 2) if value.ndim == 3 else 1) | (
                new == IGNORE).all((1, 2))
            edges = torch.where(border, torch.ones_like(value), frames[key])
            used = mask.any((1, 2))
            frames[key] = torch.where(
                (unknown & used)[:, None, None], torch.full_like(value, IGNORE), edges)
    return frames


def light(image: Tensor, rng: Rng, often: float) -> Tensor:
    """Change uint8 (B, h, w, 3) as cameras and their light do, each with probability `often`."""
    count, height, width = image.shape[:3]
    device = image.device
    generator = torch.Generator(device).manual_seed(int(rng.integers(2 ** 62)))
    changed = rng.random(count) < often
    value = image.permute(0, 3, 1, 2).float() / 255
    rows = np.flatnonzero(changed & (rng.random(count) < 0.25))
    if len(rows):
        kernels = [
            _gaussian(rng.uniform(0.4, 1.8)) if rng.random() < 0.6 else
            _motion(int(rng.integers(2, 5)) * 2 + 1, rng.uniform(0, math.pi)) for _ in rows]
        value[rows] = _filtered(value[rows], np.stack(kernels))
    for row in np.flatnonzero(changed & (rng.random(count) < 0.12)):
        scale = rng.uniform(0.35, 0.8)
        small = functional.interpolate(
            value[row:row + 1], (round(height * scale), round(width * scale)), mode='bilinear',
            antialias=True)
        value[row:row + 1] = functional.interpolate(small, (height, width), mode='bilinear')
    drawn = _Light.draw(count, rng, changed)
    value = _exposed(value, drawn)
    value = torch.einsum('bij,bjhw->bihw', _column(drawn.colour, device, 1).view(-1, 3, 3), value)
    # Shot noise grows with the root of the light.
    noise = torch.randn(value.shape, generator=generator, device=device)
    noise = torch.where(_column(drawn.grey, device, 4) > 0, noise[:, :1], noise)
    value = value + noise * _column(drawn.noise, device, 4) * (0.2 + value.clamp(0, 1)).sqrt()
    value = _cut(value, rng, changed)
    value = (value * 255).clamp(0, 255).round()
    rows = np.flatnonzero(changed & (rng.random(count) < 0.4))
    if len(rows):
        value[rows] = compressed(value[rows], rng.integers(30, 96, len(rows)))
    return value.to(torch.uint8).permute(0, 2, 3, 1)


@dataclass
class _Light:
    """What is drawn for (B) frames; colour is (B, 3, 3)."""

    gain: np.ndarray
    gamma: np.ndarray
    contrast: np.ndarray
    vignette: np.ndarray
    colour: np.ndarray
    noise: np.ndarray
    grey: np.ndarray

    @classmethod
    def draw(cls, count: int, rng: Rng, changed: np.ndarray) -> '_Light':
        def some(share: float, values: np.ndarray, rest: float) -> np.ndarray:
            return np.where(rng.random(count) < share, values, rest)

        gain = np.exp(rng.normal(0, 0.3, count))
        gain *= some(0.05, rng.uniform(0.1, 0.4, count), 1.0)  # night
        gamma = np.exp(rng.normal(0, 0.25, count))
        contrast = some(0.5, rng.uniform(0.6, 1.4, count), 1.0)
        vignette = some(0.2, rng.uniform(0, 0.5, count), 0.0)
        noise = some(0.4, rng.uniform(0.005, 0.06, count), 0.0)
        colour = np.stack([_colour(rng) for _ in range(count)])
        return cls(
            np.where(changed, gain, 1), np.where(changed, gamma, 1), np.where(
                changed, contrast, 1), np.where(changed, vignette, 0),
            np.where(changed[:, None, None], colour, np.eye(3)), np.where(changed, noise, 0),
            rng.random(count) < 0.3)


def _colour(rng: Rng) -> np.ndarray:
    """Return the (3, 3) by which the colours of a frame are multiplied."""
    balance = np.diag(np.exp(rng.normal(0, 0.12, 3)))
    kind = rng.random()
    grey = np.full((3, 3), 1 / 3)
    if kind < 0.06:
        return grey @ balance
    if kind < 0.5:
        saturation, angle = rng.uniform(0.4, 1.7), rng.normal(0, 0.2)
        # A turn about the grey axis is a turn of the hue.
        cosine, sine = math.cos(angle), math.sin(angle)
        third, part = (1 - cosine) / 3, sine / math.sqrt(3)
        turn = np.array([
            [cosine + third, third - part, third + part],
            [third + part, cosine + third, third - part],
            [third - part, third + part, cosine + third]])
        return turn @ (grey + saturation * (np.eye(3) - grey)) @ balance
    if kind < 0.55:
        return np.eye(3)[rng.permutation(3)] @ balance
    return balance


def _exposed(value: Tensor, drawn: _Light) -> Tensor:
    device = value.device
    value = (value * _column(drawn.gain, device, 4)).clamp(min=1e-4)
    value = value ** _column(drawn.gamma, device, 4)
    mean = value.mean((1, 2, 3), keepdim=True)
    value = (value - mean) * _column(drawn.contrast, device, 4) + mean
    y = torch.linspace(-1, 1, value.shape[2], device=device)[:, None]
    x = torch.linspace(-1, 1, value.shape[3], device=device)[None]
    return value * (1 - _column(drawn.vignette, device, 4) * (x * x + y * y) / 2)


def _cut(value: Tensor, rng: Rng, changed: np.ndarray) -> Tensor:
    """Cover up to three rectangles of some frames with a colour each."""
    count, _, height, width = value.shape
    for row in np.flatnonzero(changed & (rng.random(count) < 0.15)):
        for _ in range(int(rng.integers(1, 4))):
            h, w = int(rng.uniform(0.05, 0.25) * height), int(rng.uniform(0.05, 0.25) * width)
            top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
            colour = _column(rng.random(3), value.device, 1)[:, None, None]
            value[row, :, top:top + h, left:left + w] = colour
    return value


def compressed(value: Tensor, quality: np.ndarray) -> Tensor:
    """
    Return (B, 3, h, w), 0 to 255, as JPEG of a quality (B), 1 to 100, leaves it.

    As ITU-T T.81 and JFIF have it: colours at half the size, blocks of 8 x 8 by the cosine
    transform, their coefficients rounded to multiples of a step each; sides in multiples of 16.
    """
    device = value.device
    mixing = torch.tensor([
        [0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]],
        device=device)
    y, colours = torch.einsum('ij,bjhw->bihw', mixing, value).split((1, 2), 1)
    scale = np.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    steps = [
        torch.from_numpy(np.clip(np.floor(
            (table.reshape(8, 8)[None] * scale + 50) / 100), 1, 255).astype(np.float32)).to(device)
        for table in (LUMA, CHROMA)]
    y = _blocks(y - 128, steps[0]) + 128
    colours = _blocks(functional.avg_pool2d(colours, 2), steps[1])
    colours = functional.interpolate(colours, scale_factor=2, mode='bilinear')
    mixed = torch.einsum('ij,bjhw->bihw', mixing.inverse(), torch.cat((y, colours), 1))
    return mixed.clamp(0, 255).round()


def _blocks(plane: Tensor, steps: Tensor) -> Tensor:
    """Quantise the cosine transform of the blocks of (B, C, h, w) by steps (B, 8, 8)."""
    count, channels, height, width = plane.shape
    place = np.arange(8)
    basis = np.cos((2 * place[None] + 1) * place[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    cosine = torch.from_numpy(basis.astype(np.float32)).to(plane.device)
    blocks = plane.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = steps[:, None, None, None]
    rounded = ((cosine @ blocks @ cosine.T) / steps).round() * steps
    return (cosine.T @ rounded @ cosine).transpose(3, 4).reshape(plane.shape)
