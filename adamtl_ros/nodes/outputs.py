# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of a frame, and who listens to it."""

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
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from adamtl_ros import drawing
from adamtl_ros.msg import GatingStats
from adamtl_ros.nodes.conversions import image_from_array
from adamtl_ros.nodes.conversions import scaled_camera_info
from adamtl_ros.nodes.slot import Counts
from adamtl_ros.published import published_images
from adamtl_ros.published import stats_fields
from adamtl_ros.runtime.engine import GatingResult
from adamtl_ros.runtime.engine import Result

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


class Outputs:
    """The publishers of results, by name below the node's."""

    def __init__(self, node: LifecycleNode, classes: Mapping[str, Sequence[str]],
                 tasks: Sequence[str]) -> None:
        """
        Offer the topics of a model with these tasks.

        classes: the names of the classes, by task.
        """
        self._node = node
        self._classes = classes
        self._publishers: dict[str, LifecyclePublisher[Any]] = {}
        for task in tasks:
            self._offer(task, Image)
        if 'semseg' in tasks:
            self._offer('semseg/confidence', Image)
        self._offer('gating_map', Image)
        self._offer('overlay', Image)
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
            self, wanted: frozenset[str], result: Result, rgb: Any, overlay_tasks: Sequence[str],
            header: Header) -> None:
        """Publish what is wanted of a result; rgb is the frame that overlays are drawn on."""
        for name, values, encoding in published_images(result):
            if name in wanted:
                self._publishers[name].publish(image_from_array(values, encoding, header))
        if 'overlay' in wanted:
            picture = drawing.overlay(
                rgb, result.outputs, [task for task in overlay_tasks if task in result.outputs])
            self._publishers['overlay'].publish(image_from_array(picture, 'rgb8', header))

    def publish_camera_info(
            self, info: CameraInfo, size: tuple[int, int], output_size: tuple[int, int],
            header: Header) -> None:
        """Publish the camera_info of a picture of `size`, for results of `output_size`."""
        self._publishers['camera_info'].publish(
            scaled_camera_info(info, size, output_size, header))

    def publish_stats(
            self, stats: GatingResult, header: Header, latency_ms: float, counts: Counts) -> None:
        """Publish the statistics of a frame."""
        self._publishers['gating_stats'].publish(GatingStats(
            header=header, latency_ms=latency_ms, frames_received=counts.received,
            frames_processed=counts.processed, frames_dropped=counts.dropped,
            frames_missed=counts.missed, **stats_fields(stats)))

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
