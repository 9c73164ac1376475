# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What the node listens to: pictures and their camera_info.

A subscription that asks for more than a publisher offers hears nothing of it, and one that asks
for less than it could have loses large pictures.  So what is asked for follows what the
publishers offer, and is looked at again whenever they change.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from rclpy import utilities
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.event_handler import UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.qos import qos_check_compatible
from rclpy.qos import QoSCompatibility
from rclpy.qos import QoSPolicyKind
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from adamtl_ros import dds
from adamtl_ros.calibration import Calibrations
from adamtl_ros.calibration import is_rectified
from adamtl_ros.calibration import Lens
from adamtl_ros.nodes.slot import SequenceGaps

IMAGE_TRANSPORTS = ('auto', 'raw', 'compressed')
IMAGE_RELIABILITIES = ('auto', 'reliable', 'best_effort')

DEPTH = 10
"""
Messages that may wait for the executor; only the newest is answered, but all are counted.

Publishers keep as many by default, and what was lost and is sent again comes all at once.
"""

NAMES = {
    Image: 'sensor_msgs/msg/Image', CompressedImage: 'sensor_msgs/msg/CompressedImage',
    CameraInfo: 'sensor_msgs/msg/CameraInfo'}

SUFFIX = '/compressed'
"""What image_transport appends to the topic of the pictures."""

OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DEADLINE)
FOLLOWING = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
"""What `qos_overrides.<topic>.subscription.<policy>` may set; the latter follow if it does not."""


@dataclass(frozen=True)
class Choice:
    """What a subscription asks for."""

    kind: type
    topic: str
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE

    def profile(self) -> QoSProfile:
        """Return it as a QoS profile."""
        return QoSProfile(
            depth=DEPTH, reliability=self.reliability, durability=self.durability)


def chosen_reliability(
        asked: str, offered: Sequence[ReliabilityPolicy], before: ReliabilityPolicy
) -> ReliabilityPolicy:
    """
    Return the reliability to ask for, given what each publisher offers.

    A reliable subscription hears no best-effort publisher; a best-effort one hears all, and loses
    most large pictures of a publisher without enough shared memory.  While nobody publishes,
    nothing changes.
    """
    if asked != 'auto':
        return ReliabilityPolicy[asked.upper()]
    if not offered:
        return before
    everyone = all(each == ReliabilityPolicy.RELIABLE for each in offered)
    return ReliabilityPolicy.RELIABLE if everyone else ReliabilityPolicy.BEST_EFFORT


def chosen_durability(
        offered: Sequence[DurabilityPolicy], before: DurabilityPolicy) -> DurabilityPolicy:
    """Return the durability to ask for: what was said before we came, where everyone keeps it."""
    if not offered:
        return before
    everyone = all(each == DurabilityPolicy.TRANSIENT_LOCAL for each in offered)
    return DurabilityPolicy.TRANSIENT_LOCAL if everyone else DurabilityPolicy.VOLATILE


def chosen_transport(
        asked: str, topic: str, types: Callable[[str], set[str]], before: tuple[type, str] | None
) -> tuple[type, str]:
    """
    Return the message type and the topic of the pictures that `topic` stands for.

    types: what is published on a topic.  Compressed pictures are on the topic that image_transport
    names, or on `topic` itself where that is published so.  While nobody publishes, nothing
    changes.
    """
    compressed = topic if topic.endswith(SUFFIX) else topic + SUFFIX
    if asked == 'raw':
        return Image, topic
    here = types(topic)
    if asked == 'compressed':
        own = NAMES[CompressedImage] in here
        return CompressedImage, topic if own else compressed
    if NAMES[Image] in here:
        return Image, topic
    if NAMES[CompressedImage] in here:
        return CompressedImage, topic
    if NAMES[CompressedImage] in types(compressed):
        return CompressedImage, compressed
    if before is not None and not here:
        return before
    return (CompressedImage if topic.endswith(SUFFIX) else Image), topic


def sibling(topic: str) -> str:
    """Return the topic of the camera_info beside pictures, as image_transport derives it."""
    return topic.removesuffix(SUFFIX).rpartition('/')[0] + '/camera_info'


class Following:
    """A subscription that is made anew where its publishers ask for another one."""

    def __init__(self, node: Node, callback: Callable[..., None], changed: Callable[[], None],
                 *, latched: bool) -> None:
        """
        Subscribe to nothing yet.

        changed: called when publishers come or go.  latched: heed what was said before we came.
        """
        self._node = node
        self._callback = callback
        self._changed = changed
        self._latched = latched
        self._subscription: Subscription[Any] | None = None
        self.choice: Choice | None = None

    def publishers(self) -> list[Any]:
        """Return the publishers of the right type that the graph knows of."""
        assert self.choice is not None
        return publishers(self._node, self.choice.topic, self.choice.kind)

    def follow(self, kind: type, topic: str, reliability: str) -> bool:
        """Subscribe as the publishers of now ask for; return whether anything changed."""
        before = self.choice
        if before is None or before.topic != topic or before.kind != kind:
            before = Choice(kind, topic)
        offered = [each.qos_profile for each in publishers(self._node, topic, kind)]
        choice = Choice(
            kind, topic,
            chosen_reliability(
                reliability, [each.reliability for each in offered], before.reliability),
            chosen_durability([each.durability for each in offered], before.durability)
            if self._latched else DurabilityPolicy.VOLATILE)
        if choice == self.choice and self._subscription is not None:
            return False
        self.close()
        self._subscription = self._subscribe(choice)
        self.choice = choice
        return True

    def _subscribe(self, choice: Choice) -> 'Subscription[Any]':  # no generic in Jazzy
        # One that is declared is kept, and would hold for every later choice: so only if given.
        given = [policy for policy in FOLLOWING if self._override(choice.topic, policy)]
        changed = self._changed
        # Not every middleware tells of it; what it does not tell is seen a second later.
        for matched in (lambda _: changed(), None):
            try:
                return self._node.create_subscription(
                    choice.kind, choice.topic, self._callback, choice.profile(),
                    qos_overriding_options=QoSOverridingOptions([*OVERRIDABLE, *given]),
                    event_callbacks=SubscriptionEventCallbacks(
                        incompatible_qos=lambda _: changed(),
                        incompatible_type=lambda _: changed(), matched=matched))
            except UnsupportedEventTypeError:
                continue
        raise RuntimeError('the middleware has no events')

    def _override(self, topic: str, policy: QoSPolicyKind) -> bool:
        # rclpy has no public way to ask for overrides of what is not declared.
        return (f'qos_overrides.{topic}.subscription.{policy.name.lower()}'
                in self._node._parameter_overrides)

    def overridden(self) -> bool:
        """Return whether an override decides on the reliability, whatever is chosen here."""
        return self.choice is not None and self._override(
            self.choice.topic, QoSPolicyKind.RELIABILITY)

    @property
    def profile(self) -> QoSProfile | None:
        """Return the QoS that the subscription has, overrides included."""
        return None if self._subscription is None else self._subscription.qos_profile

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = None


class Inputs:
    """Pictures and camera_info, from whoever publishes them, while the node is active."""

    def __init__(
            self, node: Node, receive: Callable[[Any, float, int], None]) -> None:
        """
        Listen to nothing yet.

        receive: called with a picture, the time it came at (monotonic seconds) and how many of its
        publisher never came since the last, which is 0 where the messages are not `numbered`.
        """
        self._node = node
        self._receive = receive
        self._guard = node.create_guard_condition(self.look)
        self._images = Following(node, self._image, self._guard.trigger, latched=False)
        self._infos = Following(node, self._info, self._guard.trigger, latched=True)
        self._calibrations = Calibrations()
        self._gaps = SequenceGaps()
        self._middleware = utilities.get_rmw_implementation_identifier()
        self.numbered = dds.numbers_messages(self._middleware)
        self._arrivals: deque[float] = deque(maxlen=9)
        self._open = False
        self._refused = ''
        self.frame_id = ''
        self.silent_since = monotonic()

    def open(self) -> None:
        """Begin to listen; raises what rclpy does where it cannot, for QoS overrides, say."""
        self._open = True
        self._gaps = SequenceGaps()
        self._arrivals.clear()
        self.silent_since = monotonic()
        self._refused = ''
        self._follow()

    def close(self) -> None:
        """Stop listening, and forget the camera."""
        self._open = False
        for each in (self._images, self._infos):
            each.close()
        self._calibrations.clear()

    def look(self) -> None:
        """
        Subscribe as the publishers of now ask for; to be called when they may have changed.

        What cannot be is logged, and told by `silence`: a camera that comes must not end the node.
        """
        if not self._open:
            return
        try:
            self._follow()
        except Exception as error:  # e.g. QoS overrides, of the topic that is published now
            reason = ' '.join(str(error).split())
            if reason != self._refused:
                self._node.get_logger().error(f'cannot listen to what is published: {reason}')
            self._refused = reason
        else:
            self._refused = ''

    def _follow(self) -> None:
        node = self._node
        reliability = node.get_parameter('image_reliability').value
        named = node.resolve_topic_name('image')
        before = self._images.choice
        kind, topic = chosen_transport(
            node.get_parameter('image_transport').value, named, self._types,
            None if before is None else (before.kind, before.topic))
        if self._images.follow(kind, topic, reliability):
            assert self._images.profile is not None
            node.get_logger().info(
                f'active, listening to {topic} ({NAMES[kind]}, '
                f'{self._images.profile.reliability.name.lower()})')
        self._infos.follow(CameraInfo, self._info_topic(named), reliability)

    def topics(self) -> list[str]:
        """Return the topics that may be listened to, whoever publishes what."""
        image = self._node.resolve_topic_name('image')
        return [image, image + SUFFIX, self._info_topic(image)]

    def _info_topic(self, image: str) -> str:
        topic = self._node.resolve_topic_name('camera_info')
        remapped = topic != self._node.resolve_topic_name('camera_info', only_expand=True)
        return topic if remapped else sibling(image)

    def _types(self, topic: str) -> set[str]:
        return {each.topic_type for each in self._node.get_publishers_info_by_topic(topic)}

    def _image(self, message: Image | CompressedImage, info: Mapping[str, Any]) -> None:
        now = monotonic()
        self.silent_since = now
        self._arrivals.append(now)
        self.frame_id = message.header.frame_id
        # Jazzy does not name the publisher: there it is the frame that tells cameras apart.
        self._receive(message, now, self._gaps.missed(
            (str(info.get('publisher_gid')), self.frame_id),
            info['publication_sequence_number'] if self.numbered else None))

    def _info(self, message: CameraInfo) -> None:
        self._calibrations.put(message)

    def lens(self, header: Any, size: tuple[int, int]) -> Lens:
        """Return what is known of the camera of a picture of `size` (width, height)."""
        return self._calibrations.lens(header, size, rectified=is_rectified(self.topic))

    @property
    def topic(self) -> str:
        """Return the topic of the pictures, empty before the first look."""
        return self._images.choice.topic if self._images.choice else ''

    @property
    def period(self) -> float:
        """Return the seconds between pictures of late, 0 before there are two."""
        times = list(self._arrivals)
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0

    def figures(self) -> dict[str, Any]:
        """Return what is listened to, for people."""
        choice, profile = self._images.choice, self._images.profile
        if choice is None or profile is None:
            return {}
        return {
            'image topic': choice.topic, 'image type': NAMES[choice.kind],
            'image reliability': profile.reliability.name.lower(),
            'image publishers': len(self._images.publishers())}

    def loss(self) -> str:
        """Return what is to be done about pictures that are lost on the way."""
        profile = self._images.profile
        if profile is None:
            return ''
        offered = {each.qos_profile.reliability for each in self._images.publishers()}
        if ReliabilityPolicy.BEST_EFFORT in offered:
            return f'the camera publishes best effort: let it publish reliable{self._memory()}'
        if profile.reliability == ReliabilityPolicy.BEST_EFFORT and offered:
            if self._images.overridden():
                return 'the camera offers reliable: take the QoS override of reliability away'
            if self._node.get_parameter('image_reliability').value != 'auto':
                return 'the camera offers reliable: set image_reliability to auto'
        return ('the camera sends more than comes through: lower its rate or size'
                f'{self._memory()}')

    def _memory(self) -> str:
        if not self._middleware.startswith(dds.FAST_DDS):
            return ''
        return (f', or give it more shared memory: start it with {dds.profiles_variable()} set to '
                "this package's config/fastdds.xml")

    def silence(self) -> str:
        """Return why no picture comes, as far as the graph tells."""
        if self._refused:
            return f'what is published cannot be listened to: {self._refused}'
        choice, profile = self._images.choice, self._images.profile
        if choice is None or profile is None:
            return ''
        found = self._node.get_publishers_info_by_topic(choice.topic)
        if not found:
            others = self._elsewhere(choice.topic)
            return 'nobody publishes it' + (
                f'; there are pictures on {", ".join(others)}: remap image to the right one'
                if others else '')
        fitting = [each for each in found if each.topic_type == NAMES[choice.kind]]
        if not fitting:
            types = ', '.join(sorted({each.topic_type for each in found}))
            advice = ('set image_transport to auto' if types in NAMES.values() else
                      'remap image to a topic of pictures')
            return f'it is published as {types}, not as {NAMES[choice.kind]}: {advice}'
        reasons = [_incompatible(each.qos_profile, profile) for each in fitting]
        if all(reasons):
            return f'incompatible QoS ({reasons[0]}): set image_reliability to auto'
        name = f'{fitting[0].node_namespace.rstrip("/")}/{fitting[0].node_name}'
        advice = ('' if profile.reliability == ReliabilityPolicy.RELIABLE
                  else f'; if it publishes, {self.loss()}')
        return f'{name} offers it, and nothing arrives{advice}'

    def _elsewhere(self, topic: str) -> list[str]:
        """Return up to three topics of pictures that somebody publishes, the likeliest first."""
        own = self._node.get_fully_qualified_name() + '/'
        kinds = {NAMES[Image], NAMES[CompressedImage]}
        names = [
            name for name, types in self._node.get_topic_names_and_types()
            if kinds & set(types) and name != topic and not name.startswith(own)
            and self._node.count_publishers(name)]
        last = topic.rpartition('/')[2]
        return sorted(names, key=lambda name: (
            name.rpartition('/')[2] != last, 'image' not in name.rpartition('/')[2], name))[:3]


def publishers(node: Node, topic: str, kind: type) -> list[Any]:
    """Return the publishers of a topic with that type, as the graph knows them now."""
    return [each for each in node.get_publishers_info_by_topic(topic)
            if each.topic_type == NAMES[kind]]


def _incompatible(offered: QoSProfile, asked: QoSProfile) -> str:
    compatible, reason = qos_check_compatible(offered, asked)
    if compatible != QoSCompatibility.ERROR:
        return ''
    return reason.removeprefix('ERROR: ').rstrip('; ').lower()
