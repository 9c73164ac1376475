# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of a frame, and who listens to it."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from time import monotonic
from typing import Any

from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle import LifecyclePublisher
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSPolicyKind
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from adamtl_ros import drawing
from adamtl_ros.calibration import Lens
from adamtl_ros.camera import Camera
from adamtl_ros.conversions import scaled_camera_info
from adamtl_ros.msg import GatingStats
from adamtl_ros.msg import TaskStats
from adamtl_ros.nodes.messages import compressed_from_rgb
from adamtl_ros.nodes.messages import image_from_array
from adamtl_ros.nodes.messages import memory_of_points
from adamtl_ros.nodes.messages import points_message
from adamtl_ros.nodes.parameters import Options
from adamtl_ros.nodes.slot import Counts
from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.engine import Result
from adamtl_ros.runtime.geometry import seen_by
from adamtl_ros.runtime.images import published_images
from adamtl_ros.runtime.images import stats_fields
from adamtl_ros.runtime.points import point_type
from adamtl_ros.runtime.points import points
from adamtl_ros.runtime.points import shape
from adamtl_ros.runtime.preprocess import shrink

try:
    from vision_msgs.msg import LabelInfo
    from vision_msgs.msg import VisionClass
except ImportError:  # not on PyPI; the class names are in the parameters as well
    LabelInfo = None

DELIVERY_PATIENCE = 3.5
"""
Seconds to wait for subscribers to have the last results.

By default Fast DDS asks every 3 s for what was lost; `ros2 launch` waits 5 s for the end.
"""

OVERRIDABLE = (
    QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY, QoSPolicyKind.DEADLINE, QoSPolicyKind.LIFESPAN)
"""What parameters `qos_overrides.<topic>.publisher.<policy>` may set."""


PICTURES = frozenset({'overlay', 'overlay/compressed', 'gating_map', 'camera_info'})
"""What needs a picture though no task runs."""


def shown_in(task: str, options: Options) -> frozenset[str]:
    """Return the names of what an enabled task is needed for."""
    names = {task, f'{task}/confidence', f'{task}/color'}
    if task in options.overlay_tasks:
        names |= {'overlay', 'overlay/compressed'}
    if task == 'depth' or (task == 'semseg' and 'class' in options.points.fields
                           and 'depth' in options.settings.tasks):
        names.add('points')
    return frozenset(names)


class Outputs:
    """The publishers of results, by name below the node's."""

    def __init__(self, node: LifecycleNode, classes: Mapping[str, Sequence[str]],
                 tasks: Sequence[str],
                 network_size: Callable[[tuple[int, int]], tuple[int, int]]) -> None:
        """
        Offer the topics of a model with these tasks.

        classes: the names of the classes, by task.  network_size: gives the size at
        which the network runs pictures of a size.
        """
        self._network_size = network_size
        self._node = node
        self._classes = classes
        self._publishers: dict[str, LifecyclePublisher[Any]] = {}
        for task in tasks:
            self._offer(task, Image)
        if 'semseg' in tasks:
            self._offer('semseg/confidence', Image)
            self._offer('semseg/color', Image)
        if 'depth' in tasks:
            self._offer('points', PointCloud2)
        self._offer('gating_map', Image)
        self._offer('overlay', Image)
        self._offer('overlay/compressed', CompressedImage)
        self._offer('camera_info', CameraInfo)
        self._offer('gating_stats', GatingStats)
        if LabelInfo is not None:
            for task in classes:
                self._offer(f'{task}/label_info', LabelInfo, latched=True)

    def _offer(self, name: str, kind: type, *, latched: bool = False) -> None:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        self._publishers[name] = self._node.create_lifecycle_publisher(
            kind, f'~/{name}',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=durability),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))

    def wanted(self) -> frozenset[str]:
        """Return the names of what somebody listens to."""
        return frozenset(name for name, publisher in self._publishers.items()
                         if publisher.get_subscription_count())

    def publish_results(
            self, wanted: frozenset[str], result: Result, rgb: Any, lens: Lens,
            options: Options, header: Header) -> None:
        """Publish what is wanted of a result; rgb: the frame.  lens: what took it."""
        for name, values, encoding in published_images(result):
            if name in wanted:
                self._publishers[name].publish(image_from_array(values, encoding, header))
        outputs = result.outputs
        if 'semseg/color' in wanted and 'semseg' in outputs:
            self._publishers['semseg/color'].publish(image_from_array(
                drawing.colourise('semseg', outputs['semseg']), 'rgb8', header))
        if 'points' in wanted and 'depth' in outputs:
            self._publishers['points'].publish(
                self._cloud(outputs, rgb, lens.camera, options, header))
        if wanted & {'overlay', 'overlay/compressed'}:
            picture = drawing.overlay(
                rgb, outputs, [task for task in options.overlay_tasks if task in outputs])
            if 'overlay' in wanted:
                self._publishers['overlay'].publish(image_from_array(picture, 'rgb8', header))
            if 'overlay/compressed' in wanted:
                self._publishers['overlay/compressed'].publish(
                    compressed_from_rgb(picture, header))
        if lens.info is not None and 'camera_info' in wanted:
            size = rgb.shape[1], rgb.shape[0]
            self._publishers['camera_info'].publish(scaled_camera_info(
                lens.info, size, options.settings.size(self._network_size(size), size), header))

    def _cloud(
            self, outputs: Mapping[str, Any], rgb: Any, camera: Camera | None, options: Options,
            header: Header) -> PointCloud2:
        depth, chosen = outputs['depth'], options.points
        size = depth.shape[1], depth.shape[0]
        colour = shrink(rgb, size) if 'rgb' in chosen.fields else None
        # Off while semseg is disabled.
        classes = outputs.get('semseg') if 'class' in chosen.fields else None
        kind = point_type(
            colour=colour is not None, classes=classes is not None,
            wide=classes is not None and classes.dtype.itemsize > 1)
        taken = shape(depth.shape, chosen.stride)
        picture = rgb.shape[1], rgb.shape[0]
        data, view = memory_of_points(taken, kind)
        points(
            depth, seen_by(camera, picture, size), colour=colour,
            classes=classes, stride=chosen.stride, nearest=chosen.min_range,
            farthest=chosen.max_range, edge=chosen.edge,
            reach=max(round(size[0] / self._network_size(picture)[0]), 1), out=view)
        return points_message(data, taken, kind, header)

    def publish_stats(
            self, stats: GatingResult, header: Header, counts: Counts, **beside: Any) -> None:
        """Publish the statistics of a frame; beside: guard, age_ms and latency_ms."""
        fields = stats_fields(stats)
        fields['task_stats'] = [TaskStats(**each) for each in fields['task_stats']]
        self._publishers['gating_stats'].publish(GatingStats(
            header=header, frames_received=counts.received, frames_processed=counts.processed,
            frames_dropped=counts.dropped, frames_missed=counts.missed, **beside, **fields))

    def publish_labels(self) -> None:
        """Publish the names of the classes, for all who come later as well."""
        if LabelInfo is None:
            return
        for task, names in self._classes.items():
            self._publishers[f'{task}/label_info'].publish(LabelInfo(
                header=Header(stamp=self._node.get_clock().now().to_msg()),
                class_map=[VisionClass(class_id=number, class_name=name)
                           for number, name in enumerate(names)]))

    def close(self) -> None:
        """Wait until subscribers have what was published, then withdraw the topics."""
        # What was published last is still on its way; without its publisher it would be lost.
        end = monotonic() + DELIVERY_PATIENCE
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(end - monotonic(), 0.0)))
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
