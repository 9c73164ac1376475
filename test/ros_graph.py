# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
ROS graphs of the tests: nodes in one executor, spun until what the test waits for is so.

Nothing waits by luck.  A publisher and a subscription have met once both have matched: what is
sent reliably from then on arrives.  Of a node in another process one side alone can be seen:
there, frames are sent until one is answered.
"""

from array import array
from collections.abc import Callable
import gc
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from rcl_interfaces.srv import GetParameters
from rcl_interfaces.srv import SetParametersAtomically
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from adamtl_ros.nodes.lifecycle import AdamtlNode
from adamtl_ros.runtime.engine import Engine
from instant import InstantEngine

WAIT = 120.0
"""Seconds after which a wait fails."""

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE


def picture(encoding: str = 'rgb8', width: int = 64, height: int = 48, **changes: Any) -> Image:
    """Return an image of noise."""
    channels = {'mono8': 1}.get(encoding, 3)
    data = array('B', np.random.default_rng(0).bytes(width * height * channels))
    message = Image(encoding=encoding, width=width, height=height, step=width * channels,
                    data=data)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


class Graph:
    """Nodes in one executor, among them a client."""

    def __init__(self) -> None:
        """Start a ROS context."""
        # What others left, nodes of another thread or of main(), is collected before this graph
        # meets it.  All that stays is out of the way of later collections, which take no time.
        gc.collect()
        gc.freeze()
        rclpy.init()
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Node] = []
        self._contexts: list[rclpy.Context] = []
        self.client = self.join('client')

    def join(self, name: str, *, apart: bool = False, **kwargs: Any) -> Node:
        """
        Return a new node.

        apart: with a participant of its own, as a node in another process has; it is not spun.
        """
        context = None
        if apart:
            context = rclpy.Context()
            context.init()
            self._contexts.append(context)
        return self.add(rclpy.create_node(name, context=context, **kwargs), spun=not apart)

    def add(self, node: Any, *, spun: bool = True) -> Any:
        """Take a node, which is ended with the graph, and return it."""
        if spun:
            self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def until(self, condition: Callable[[], Any], process: Any = None) -> None:
        """Spin until the condition holds; a process must live as long."""
        end = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < end, f'waited {WAIT:.0f} s in vain'
            assert process is None or process.poll() is None, process.communicate()
            self.executor.spin_once(0.02)

    def met(self, publisher: Any) -> Any:
        """Wait until a publisher and its subscriptions here know of each other; return it."""
        self.until(lambda: publisher.get_subscription_count() and all(
            each.get_publisher_count() for node in self.nodes for each in node.subscriptions
            if each.topic_name == publisher.topic_name))
        return publisher

    def hear(self, topic: str, kind: type | None = None, depth: int = 10) -> list[Any]:
        """
        Return the list that messages of a topic will be in, once its publishers are met.

        kind: of the messages, where none of these nodes publishes them.
        """
        got: list[Any] = []
        known = [each for node in self.nodes for each in node.publishers
                 if each.topic_name == topic]
        subscription = self.client.create_subscription(
            kind or known[0].msg_type, topic, got.append, depth)
        listeners = sum(each.topic_name == subscription.topic_name
                        for node in self.nodes for each in node.subscriptions)
        self.until(lambda: subscription.get_publisher_count() >= max(len(known), 1) and all(
            each.get_subscription_count() >= listeners for each in known))
        return got

    def taken(self, publisher: Any, name: str = 'adamtl') -> None:
        """
        Wait until the node of that name has taken all that a reliable publisher sent.

        Its executor serves a question that is asked once the messages are there after them.
        """
        assert publisher.wait_for_all_acked(Duration(seconds=WAIT))
        self.call(GetParameters, f'{name}/get_parameters', GetParameters.Request(names=['mode']))

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service; return the response."""
        client: Any = self.client.create_client(kind, name)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        self.client.destroy_client(client)
        return future.result()

    def leave(self, node: Any) -> None:
        """End a node."""
        self.nodes.remove(node)
        if isinstance(node, AdamtlNode):
            node.end()
        node.destroy_node()

    def close(self) -> None:
        """End everything."""
        while self.nodes:
            self.leave(self.nodes[-1])
        self.executor.shutdown()
        del self.executor  # which has what was left to do, and the nodes of that
        for context in self._contexts:
            context.shutdown()
        rclpy.try_shutdown()
        # rclpy leaves a lifecycle node's services to be collected, once the executor has let go of
        # the node; until then all nodes of this domain see it, and find its services not ready.
        gc.collect()


class Stage(Graph):
    """Nodes under test, a camera before them, and what they say."""

    def __init__(self, engine: type[Engine] = InstantEngine, **values: Any) -> None:
        """Let the nodes have an engine and parameters, if a test does not say otherwise."""
        super().__init__()
        self._engine, self._values = engine, values
        self.camera = self.client.create_publisher(Image, 'image', 10)
        reports: list[DiagnosticStatus] = []
        self.client.create_subscription(
            DiagnosticArray, '/diagnostics', lambda m: reports.append(m.status[0]), 10)
        self.reports = reports
        self.got: dict[str, list[Any]] = {}
        self.frames = 0

    def node(self, engine: type[Engine] | None = None, *arguments: str,
             **values: Any) -> AdamtlNode:
        """Return a node, unconfigured; '__' stands for '.' in the names of parameters."""
        node = AdamtlNode(
            engine_class=engine or self._engine, cli_args=['--ros-args', *arguments],
            parameter_overrides=[Parameter(name.replace('__', '.'), value=value)
                                 for name, value in {**self._values, **values}.items()])
        # What it says of itself does not depend on how often that is: here ten times as often.
        (timer,) = node.timers
        assert timer.timer_period_ns == 10**9
        timer.timer_period_ns = 10**8
        timer.reset()
        return self.add(node)

    def running(self, engine: type[Engine] | None = None, *arguments: str,
                **values: Any) -> AdamtlNode:
        """Return an active node."""
        node = self.node(engine, *arguments, **values)
        assert (node.trigger_configure(), node.trigger_activate()) == (SUCCESS, SUCCESS)
        return node

    def listen(self, *names: str) -> Any:
        """
        Subscribe to topics of the newest node.

        Return the list that messages of it will be in, of several topics a tuple; they are in
        `got` as well.
        """
        newest = next(node for node in reversed(self.nodes) if isinstance(node, AdamtlNode))
        own = newest.get_fully_qualified_name()
        self.got |= {name: self.hear(f'{own}/{name}') for name in names}
        lists = tuple(self.got[name] for name in names)
        return lists if len(names) > 1 else lists[0]

    def header(self, message: Any) -> Any:
        """Give a message a stamp of its own and the frame of the camera; return it."""
        self.frames += 1
        message.header.stamp.sec = self.frames
        message.header.stamp.nanosec = 123456789 + self.frames
        message.header.frame_id = 'camera'
        return message

    def send(self, message: Any = None, camera: Any = None) -> Any:
        """Send a frame, by default a good one of 64 x 48, once somebody listens; return it."""
        message = self.header(picture() if message is None else message)
        self.met(camera or self.camera).publish(message)
        return message

    def send_until(self, condition: Callable[[], Any], process: Any = None, message: Any = None,
                   camera: Any = None) -> None:
        """
        Send frames until the condition holds; a process must live as long.

        Of a subscription that has just come in place of another, the camera may not know yet; of
        one in another process, nobody here knows whether it knows the camera.
        """
        def holds() -> bool:
            if not condition():
                self.send(message, camera)
            return bool(condition())

        self.until(holds, process)

    def answer(self, *names: str, message: Any = None) -> Any:
        """
        Send a frame; return what comes of it on topics that are listened to.

        names: by default the statistics; of several topics, a tuple is returned.
        """
        names = names or ('gating_stats',)
        header = self.send(message).header
        self.until(lambda: all(
            self.got[name] and self.got[name][-1].header == header for name in names))
        last = tuple(self.got[name][-1] for name in names)
        return last if len(names) > 1 else last[0]

    def set(self, node: Node, **values: Any) -> Any:
        """Set parameters of a node together over the service; return the result."""
        name = f'{node.get_fully_qualified_name()}/set_parameters_atomically'
        return self.call(
            SetParametersAtomically, name, SetParametersAtomically.Request(parameters=[
                Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
                for name, value in values.items()])).result

    def report(self, level: bytes | None = None, word: str = '') -> DiagnosticStatus:
        """Return the next report of this level, by default of any, that says the word."""
        del self.reports[:]
        # The first that comes may have been on its way.
        first = 0 if level or word else 1
        self.until(lambda: any(
            level in (None, each.level) and word in each.message
            for each in self.reports[first:]))
        return next(each for each in reversed(self.reports)
                    if level in (None, each.level) and word in each.message)

    def values(self) -> dict[str, str]:
        """Return the values of the next report."""
        return {each.key: each.value for each in self.report().values}

    def drops(self) -> dict[str, int]:
        """Return the drops by cause that the next report tells."""
        values = self.values()
        by_cause = {key.removeprefix('dropped: '): int(value) for key, value in values.items()
                    if key.startswith('dropped: ')}
        assert int(values['frames dropped']) == sum(by_cause.values())
        assert int(values['frames received']) == int(values['frames processed']) + sum(
            by_cause.values())
        return by_cause
