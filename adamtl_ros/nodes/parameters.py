# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: what there is, and how their values become one frozen Options."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
import re
from typing import Any

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter
import yaml

from adamtl_ros.nodes.inputs import IMAGE_RELIABILITIES
from adamtl_ros.nodes.inputs import IMAGE_TRANSPORTS
from adamtl_ros.nodes.rollout import Comparing
from adamtl_ros.nodes.rollout import GUARD_ACTIONS
from adamtl_ros.runtime.engine import BACKENDS
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.points import FIELDS as POINT_FIELDS
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.runtime.settings import MOST_FRAMES
from adamtl_ros.runtime.settings import OUTPUT_SIZES
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import TASKS

WORDS = {False: ('off', 'no', 'n', 'false'), True: ('on', 'yes', 'y', 'true')}
"""Words that YAML reads as something else: `guard.action: off` arrives as false."""

FROM_ROS = ('use_sim_time', 'start_type_description_service')
TOPICS_FROM_ROS = {'/clock', '/parameter_events', '/rosout'}
"""Parameters and topics that every node has."""

QOS = 'qos_overrides.'
CLASS_NAMES = re.compile(r'tasks\.\w+\.class_names')
"""Parameters that the node declares when it knows its model; a dump of it has them too."""


@dataclass(frozen=True)
class Spec:
    """
    One parameter.

    default: also sets the type.  limits: lowest and highest number, both allowed, but with
    `above`, for which the lowest is too low.  allowed: in words, for people.  choices: of a
    string, or of the strings of a list.  fixed: read once, when the process starts.  loaded: read
    when the node is configured, and cannot change until it is cleaned up.
    """

    default: Any
    description: str
    limits: tuple[float, float] | None = None
    above: bool = False
    allowed: str = ''
    choices: tuple[str, ...] = ()
    fixed: bool = False
    loaded: bool = False

    @property
    def type_name(self) -> str:
        """Return the name of the type, for people."""
        if isinstance(self.default, list):
            return 'a list of strings'
        return {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a string'}[
            type(self.default)]

    def constraint(self) -> str:
        """Return what is allowed, in words."""
        if self.choices:
            kind = 'any' if isinstance(self.default, list) else 'one'
            return f'{kind} of {", ".join(self.choices)}'
        if self.allowed or self.limits is None:
            return self.allowed
        lowest, highest = self.limits
        return f'above {lowest}, to {highest}' if self.above else f'{lowest} to {highest}'

    def checked(self, name: str, given: Any) -> Any:
        """Return the value given for the parameter of this name; ValueError if it is wrong."""
        # YAML and the command line make an integer of `budget:=1`; people mean 1.0.
        if isinstance(self.default, float) and type(given) is int:
            given = float(given)
        # An empty list in YAML arrives as no value at all, and rclpy takes it for one of bytes.
        empty = [''] if isinstance(self.default, list) else []
        if empty and (given is None or given == []):
            given = empty
        if isinstance(given, bool) and isinstance(self.default, str):
            given = next((word for word in WORDS[given] if word in self.choices), given)
        right = type(given) is type(self.default)
        if right and isinstance(given, list):
            right = all(isinstance(item, str) for item in given)
        if right and self.limits is not None:
            right = self.limits[0] <= given <= self.limits[1] and not (  # false for NaN
                self.above and given == self.limits[0])
        if right and self.choices:
            right = set([given] if isinstance(given, str) else given) <= {*self.choices, *empty}
        if not right:
            constraint = self.constraint()
            raise ValueError(f'parameter {name} is {given!r}: use {self.type_name}'
                             f'{", " + constraint if constraint else ""}')
        return given

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS description; it is changed by declaring, so each needs its own."""
        descriptor = ParameterDescriptor(
            description=self.description, additional_constraints=self.constraint(),
            read_only=self.fixed)
        if self.limits is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.limits[0], to_value=self.limits[1])]
        elif self.limits is not None:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.limits[0]), to_value=int(self.limits[1]))]
        return descriptor


PARAMETERS: dict[str, Spec] = {
    'autostart': Spec(True, 'Configure and activate at once, without a lifecycle manager.',
                      fixed=True),
    'model': Spec('glasses', 'Preset with shipped weights, or the path of a weights file.',
                  loaded=True),
    'backend': Spec('auto', 'What executes the network.', choices=BACKENDS, loaded=True),
    'device': Spec('cpu', 'Where the network runs; asked for and missing is an error.',
                   allowed='cpu, cuda or cuda:N', loaded=True),
    'num_threads': Spec(0, 'Threads that the network may use, at most the processors that the '
                           'node may use; 0 leaves it to the backend.', (0, 1024), loaded=True),
    'precision': Spec('f32', 'Of the computation; bf16 needs the backend openvino and a processor '
                      'that has it, or CUDA; int8 needs openvino and a model that `adamtl '
                      'quantize` has measured (glasses is).', choices=PRECISIONS, loaded=True),
    'image_transport': Spec('auto', 'Subscribe to image (raw) or image/compressed (compressed); '
                            'auto: to what is published, raw before compressed.',
                            choices=IMAGE_TRANSPORTS),
    'image_reliability': Spec('auto', 'Of the subscriptions to image and camera_info; auto: '
                              'reliable where every publisher offers that, else best effort, and '
                              'looked at again when publishers come and go.',
                              choices=IMAGE_RELIABILITIES),
    'hardware_id': Spec('', 'Name of the camera in /diagnostics; empty: the frame_id of its '
                            'pictures.'),
    'mode': Spec('static', 'static: policy off. shadow: dense results, and what the policy would '
                           'have saved. adaptive: the policy decides.',
                 choices=MODES),
    'budget': Spec(1.0, 'Share of the MACs of the dense network with the tasks now enabled that '
                        'frames may cost on average.', (0.0, 1.0), above=True),
    'budget_cap': Spec(1.0, 'Largest such share that a single frame may cost; not below budget.',
                       (0.0, 1.0), above=True),
    'budget_horizon': Spec(50, 'Number of frames over which the mean is held to the budget.',
                           (1, MOST_FRAMES)),
    'reuse': Spec(True, 'In mode adaptive and for the comparison in mode shadow: a frame that '
                        'looks like the one computed last has its results, and costs nothing.'),
    'warp': Spec(True, 'With reuse: a frame that moved since then has these results, warped along '
                       'the optical flow, where that is expected to be better than what the '
                       'budget pays for in every frame; what it saves pays for better frames.'),
    'fuse': Spec(True, 'With reuse: what decoders say of a computed frame is averaged with what '
                       'they said of the same places before, found along the optical flow, where '
                       'the picture shows the same.'),
    'refresh': Spec(30, 'After how many frames at most one is computed all the same.',
                    (1, MOST_FRAMES)),
    'skip_empty': Spec(True, 'In mode adaptive and for the comparison in mode shadow: a frame '
                             'without people has the empty human_parts, and its decoder does not '
                             'run.'),
    'compare_share': Spec(0.1, 'Share of the frames on which policy and dense network both run '
                               'and are compared: in mode shadow, and in mode adaptive while the '
                               'guard is on. What is published does not change by it.',
                          (0.0, 1.0)),
    'guard.action': Spec('off', 'What happens in mode adaptive when the agreement with the dense '
                                'network falls below guard.agreement. raise_budget: by 0.1 at a '
                                'time, in the end static; static: the dense network takes over. '
                                'It stays so until mode or a guard parameter is set.',
                         choices=GUARD_ACTIONS),
    'guard.agreement': Spec(0.8, 'Lowest agreement with the dense network, of any task, that the '
                                 'guard accepts.', (0.0, 1.0)),
    'guard.window': Spec(10, 'Number of compared frames over which agreement and saving are '
                             'averaged.', (1, 1000)),
    'target_latency_ms': Spec(0.0, 'Latency from image received to results ready that a '
                                   'controller holds in mode adaptive by moving the budget '
                                   'of every single frame between min_budget and budget; 0.0: '
                                   'off.', (0.0, 10000.0)),
    'min_budget': Spec(0.3, 'Lowest budget that the latency controller may choose, where budget '
                            'itself is not lower.',
                       (0.0, 1.0), above=True),
    'output_size': Spec('network', 'Size of the results: as the network works; as the camera; or '
                        'divided: that of the camera divided by a whole number, near that of the '
                        'network.',
                        choices=OUTPUT_SIZES),
    'max_rate_hz': Spec(0.0, 'Frames beyond this rate are dropped before any work; 0.0: all are '
                             'taken.', (0.0, 1000.0)),
    'points.fields': Spec(['rgb'], 'What ~/points has beside x, y and z; class needs semseg, and '
                          'runs it.', choices=POINT_FIELDS),
    'points.stride': Spec(1, 'Every so many rows and columns of the results become points; 1: all '
                             'do, so that cloud and images have one size.', (1, 64)),
    'points.min_range': Spec(0.1, 'Depth in metres below which points are NaN.', (0.0, 1000.0)),
    'points.max_range': Spec(20.0, 'Depth in metres above which points are NaN.', (0.0, 1000.0)),
    'points.edge': Spec(0.1, 'Share by which depth may change around a pixel of the network; '
                             'beyond it two surfaces meet, and points are NaN. 0.0: all are kept.',
                        (0.0, 10.0)),
    'overlay.tasks': Spec(list(TASKS), 'Tasks drawn over the frame in ~/overlay, '
                          'where enabled.', choices=tuple(TASKS)),
} | {
    f'tasks.{task}.enable': Spec(True, f'Compute {task} while it has subscribers.')
    for task in TASKS
} | {
    f'tasks.{task}.weight': Spec(1.0, f'How much the budget favours {task}.', (0.0, 10.0))
    for task in TASKS
}


@dataclass(frozen=True)
class PointOptions:
    """What ~/points is made of, as the parameters of that name say."""

    fields: tuple[str, ...]
    stride: int
    min_range: float
    max_range: float
    edge: float


@dataclass(frozen=True)
class Options:
    """All that can change while the node runs; built whole and swapped whole."""

    settings: Settings
    comparing: Comparing
    target_latency_ms: float
    min_budget: float
    max_rate_hz: float
    overlay_tasks: tuple[str, ...]
    points: PointOptions

    @classmethod
    def from_values(cls, values: Mapping[str, Any], model_tasks: Collection[str]) -> 'Options':
        """
        Return the options of the parameter values, their types and limits checked already.

        Tasks that the model does not have are left out. Raises ValueError with the reason.
        """
        if values['budget_cap'] < values['budget']:
            raise ValueError(
                f'budget is {values["budget"]} and budget_cap {values["budget_cap"]}: no frame '
                'may cost more than the cap, so the mean must not; set the cap from the budget to '
                '1.0, to raise both the cap first')
        if values['points.min_range'] >= values['points.max_range']:
            raise ValueError(
                f'points.min_range is {values["points.min_range"]} and points.max_range '
                f'{values["points.max_range"]}: the first must be the smaller')
        # See Spec.checked: a list of an empty string stands for the empty list.
        overlay = [task for task in values['overlay.tasks'] if task]
        enabled = tuple(task for task in TASKS
                        if task in model_tasks and values[f'tasks.{task}.enable'])
        return cls(
            settings=Settings(
                mode=values['mode'], budget=values['budget'], tasks=enabled,
                weights={task: values[f'tasks.{task}.weight'] for task in enabled},
                output_size=values['output_size'], cap=values['budget_cap'],
                horizon=values['budget_horizon'], reuse=values['reuse'],
                warp=values['warp'], fuse=values['fuse'], refresh=values['refresh'],
                skip_empty=values['skip_empty']),
            comparing=Comparing(
                share=values['compare_share'], action=values['guard.action'],
                agreement=values['guard.agreement'], window=values['guard.window']),
            target_latency_ms=values['target_latency_ms'], min_budget=values['min_budget'],
            max_rate_hz=values['max_rate_hz'],
            overlay_tasks=tuple(task for task in enabled if task in overlay),
            points=PointOptions(
                fields=tuple(each for each in POINT_FIELDS if each in values['points.fields']),
                stride=values['points.stride'], min_range=values['points.min_range'],
                max_range=values['points.max_range'], edge=values['points.edge']))


def reference() -> str:
    """Return a Markdown table of all parameters."""
    rows = ['| parameter | type | default | allowed | meaning |', '|---|---|---|---|---|']
    for name, spec in PARAMETERS.items():
        default = ', '.join(spec.default) if isinstance(spec.default, list) else (
            str(spec.default).lower() if isinstance(spec.default, bool) else spec.default)
        rows.append(' | '.join((
            f'| `{name}`{_when(spec)}', spec.type_name, f'`{default}`',
            spec.constraint(), f'{spec.description} |')))
    return '\n'.join(rows) + '\n'


def _when(spec: Spec) -> str:
    return ' (fixed)' if spec.fixed else ' (loaded)' if spec.loaded else ''


def overrides(node: Node) -> Mapping[str, Parameter]:
    """Return the values given at the start, by command line and files, declared or not."""
    # rclpy has no public way to ask for those that are not declared.
    return node._parameter_overrides


def declare(node: Node) -> dict[str, str]:
    """
    Declare all parameters; return what is wrong with the values given at the start, by name.

    A wrong value leaves the default in place, so that the node can still be asked and corrected;
    the caller must not go on before it is.
    """
    errors = {}
    given = overrides(node)
    for name, spec in PARAMETERS.items():
        value = spec.default
        try:
            if name in given:
                value = spec.checked(name, given[name].value)
        except ValueError as error:
            errors[name] = str(error)
        node.declare_parameter(name, value, spec.descriptor(), ignore_override=True)
    return errors


def meant(name: str, known: Iterable[str]) -> str:
    """Return a question with the name that is nearest to one that is not known, if any is near."""
    near = get_close_matches(name, list(known), 1)
    return f': did you mean {near[0]}?' if near else ''


def unknown(node: Node) -> list[str]:
    """Return what is to be said of values given at the start that no parameter takes."""
    return [
        f'parameter {name} is not known, and its value ignored{meant(name, PARAMETERS)}'
        for name in overrides(node)
        if name not in PARAMETERS and name not in FROM_ROS and not CLASS_NAMES.fullmatch(name)
        and not name.startswith(QOS)]


def unknown_qos(node: Node, topics: Iterable[str]) -> list[str]:
    """
    Return what is to be said of QoS overrides that nothing takes.

    topics: those that the node may come to have, beside those whose parameters are declared.
    """
    declared = {_topic(name) for name in node.get_parameters_by_prefix('') if name.startswith(QOS)}
    lines = []
    for name in overrides(node):
        if not name.startswith(QOS) or node.has_parameter(name):
            continue
        known = {*topics, *declared}
        if _topic(name) not in known | TOPICS_FROM_ROS:
            lines.append(f'parameter {name} is ignored: the node has no topic '
                         f'{_topic(name)}{meant(_topic(name), known)}')
        elif _topic(name) in declared:
            lines.append(f'parameter {name} is ignored: of this topic only '
                         + ', '.join(sorted(each.rpartition('.')[2] for each in
                                            node.get_parameters_by_prefix(QOS + _topic(name))))
                         + ' can be set')
    return lines


def _topic(name: str) -> str:
    return name.removeprefix(QOS).partition('.')[0]


def unmatched(path: Path, node: str) -> str:
    """Return what is to be said of a parameter file that has none for the node of that name."""
    try:
        # Of ROS's own reader, which has taken the file, values are its business: here are none.
        contents = list(yaml.load_all(path.read_text(encoding='utf-8'), yaml.BaseLoader))
    except (yaml.YAMLError, ValueError):  # what it reads otherwise
        return ''
    names = sorted({name for content in contents for name in _nodes(content)})
    if not names or any(_pattern(name).fullmatch(node) for name in names):
        return ''
    return (f'{path} has parameters of {", ".join(names)} and none of {node}: they are ignored; '
            f'put them under {node} or /**')


def _nodes(content: Any, name: str = '') -> Iterator[str]:
    """Yield the names, with wildcards, of the nodes that a parameter file is for."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == 'ros__parameters':
                yield name
            else:
                yield from _nodes(value, f'{name}/{str(key).strip("/")}')


def _pattern(name: str) -> re.Pattern[str]:
    parts = [re.escape(part).replace(r'\*', '[^/]*') for part in name.strip('/').split('/')]
    return re.compile(''.join(
        '(/[^/]+)*' if part == '[^/]*[^/]*' else f'/{part}' for part in parts))


def checked(parameters: Iterable[Parameter]) -> list[Parameter]:
    """
    Return the parameters, their values checked and brought to their types.

    rclpy checks as well, but its reason for a wrong type names neither parameter nor type. What
    may not be changed or is not ours is left to it. ValueError with the reason.
    """
    result = []
    for parameter in parameters:
        spec = PARAMETERS.get(parameter.name)
        if spec is not None and not spec.fixed and parameter.type_ != Parameter.Type.NOT_SET:
            parameter = Parameter(
                parameter.name, Parameter.Type.from_parameter_value(spec.default),
                spec.checked(parameter.name, parameter.value))
        result.append(parameter)
    return result


if __name__ == '__main__':
    print(reference(), end='')
