# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The results of a recording as a bag: the node's topics, types and stamps."""

from pathlib import Path
import secrets
import shutil
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import Connection
from rosbags.interfaces import Qos
from rosbags.interfaces import QosDurability
from rosbags.interfaces import QosHistory
from rosbags.interfaces import QosLiveliness
from rosbags.interfaces import QosReliability
from rosbags.interfaces import QosTime
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer
from rosbags.typesys import get_types_from_msg
from rosbags.typesys import get_typestore
from rosbags.typesys import Stores

from adamtl_ros import drawing
from adamtl_ros.bag.reading import CAMERA_INFO
from adamtl_ros.bag.reading import IMAGE
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.camera import Camera
from adamtl_ros.conversions import scaled_camera_info
from adamtl_ros.files import ASIDE
from adamtl_ros.paths import share
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.images import age_ms
from adamtl_ros.runtime.images import published_images
from adamtl_ros.runtime.images import stats_fields
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream

GATING_STATS = 'adamtl_ros/msg/GatingStats'
TASK_STATS = 'adamtl_ros/msg/TaskStats'
LABEL_INFO = 'vision_msgs/msg/LabelInfo'
VERSION: Any = 9

_VISION = {
    'vision_msgs/msg/VisionClass': 'uint16 class_id\nstring class_name\n',
    LABEL_INFO: (
        'std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n')}


def typestore() -> Any:
    """Return the standard types, our own and those of vision_msgs that the node uses."""
    store = get_typestore(Stores.ROS2_KILTED)
    texts = _VISION | {
        name: share('msg', f'{name.rpartition("/")[2]}.msg').read_text(encoding='utf-8')
        for name in (TASK_STATS, GATING_STATS)}
    for name, text in texts.items():
        store.register(get_types_from_msg(text, name))
    return store


def _qos(latched: bool) -> Qos:
    """Return what the node offers: reliable, depth 1."""
    never = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        never, never, QosLiveliness.AUTOMATIC, never, False)


class OutputBag:
    """
    An mcap bag of the results; each message is recorded when its frame was.

    It lies in a folder beside its path until it is closed; without a frame there is none.
    node: the full name that the topics are under.  ValueError where the path is taken.
    """

    def __init__(
            self, path: Path, engine: Engine, settings: Settings, *, node: str = '/adamtl'
    ) -> None:
        """Create the bag."""
        if path.exists():
            raise ValueError(f'{path}: exists already; give the name of a new bag')
        self.settings, self.node = settings, node
        self.frames = 0
        self._stream = Stream()
        self._store = typestore()
        self._type = self._store.types
        self._topics: dict[str, Connection] = {}
        # What a process leaves that is killed must not be in the way of the next try.
        self._path, self._aside = path, path.with_name(f'{ASIDE}{secrets.token_hex(4)}')
        self._writer = Writer(
            self._aside / path.name, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._class_names = {
            task: names for task, names in engine.class_names.items() if task in settings.tasks}

    def __enter__(self) -> 'OutputBag':
        return self

    def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None,
            trace: TracebackType | None) -> None:
        """Write the index: what was recorded can be played also after an error."""
        try:
            self._writer.close()
        finally:
            if self.frames:
                (self._aside / self._path.name).rename(self._path)
            # Of no frames nothing is worth keeping, and it would be in the way of the next try.
            shutil.rmtree(self._aside)

    def frame(self, frame: RecordedFrame, engine: Engine) -> None:
        """Process a frame and write what the node would publish for it."""
        if not self.frames:
            for task, names in self._class_names.items():
                self._write(f'{task}/label_info', LABEL_INFO, frame.time, latched=True, values={
                    'header': frame.header, 'threshold': 0.0, 'class_map': [
                        self._type['vision_msgs/msg/VisionClass'](number, name)
                        for number, name in enumerate(names)]})
        self.frames += 1
        self._stream.arrived(frame.stamp / 1e9, frame.header.frame_id)
        result = engine.infer(frame.image, self.settings, frame.camera, self._stream)
        latency_ms = 1000 * frame.seconds + sum((
            result.stats.preprocess_ms, result.stats.network_ms, result.stats.compare_ms,
            result.stats.postprocess_ms))
        images = published_images(result)
        images.append(('overlay', drawing.overlay(frame.image, result.outputs), 'rgb8'))
        for name, values, encoding in images:
            values = np.ascontiguousarray(values)
            self._write(name, IMAGE, frame.time, {
                'header': frame.header, 'height': values.shape[0], 'width': values.shape[1],
                'encoding': encoding, 'is_bigendian': 0,
                'step': values.nbytes // values.shape[0],
                'data': values.reshape(-1).view(np.uint8)})
        info = frame.info if frame.info is not None or frame.camera is None else (
            self._info_of(frame.camera))
        if info is not None:
            size = (frame.image.shape[1], frame.image.shape[0])
            output = self.settings.size(engine.network_size(size), size)
            info = scaled_camera_info(info, size, output, frame.header)
            self._put('camera_info', CAMERA_INFO, frame.time, info)
        fields = stats_fields(result.stats)
        self._write('gating_stats', GATING_STATS, frame.time, fields | {
            'header': frame.header, 'guard': self._type[GATING_STATS].GUARD_OFF,
            'latency_ms': latency_ms,
            'age_ms': age_ms(frame.stamp, frame.time + round(1e6 * latency_ms)),
            'frames_received': self.frames, 'frames_processed': self.frames,
            'frames_dropped': 0, 'frames_missed': 0,
            'task_stats': [self._type[TASK_STATS](**each) for each in fields['task_stats']],
            'block_active': np.array(fields['block_active'], bool),
            'token_fraction': np.array(fields['token_fraction'], np.float32)})

    def _info_of(self, camera: Camera) -> Any:
        """Return the CameraInfo of a camera that was given, not recorded."""
        k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1])
        return self._type[CAMERA_INFO](
            None, camera.height, camera.width, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(),
            np.insert(k, [3, 6, 9], 0.0), 0, 0,
            self._type['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False))

    def _write(
            self, name: str, kind: str, time: int, values: dict[str, Any], *,
            latched: bool = False) -> None:
        self._put(name, kind, time, self._type[kind](**values), latched)

    def _put(self, name: str, kind: str, time: int, message: Any, latched: bool = False) -> None:
        if name not in self._topics:
            self._topics[name] = self._writer.add_connection(
                f'{self.node}/{name}', kind, typestore=self._store,
                offered_qos_profiles=[_qos(latched)])
        self._writer.write(
            self._topics[name], time, self._store.serialize_cdr(message, kind))
