# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: what there is, and how their values become one frozen Options."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import Any

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from adamtl_ros.nodes.rollout import Comparing
from adamtl_ros.nodes.rollout import GUARD_ACTIONS
from adamtl_ros.runtime.engine import BACKENDS
from adamtl_ros.runtime.engine import PRECISIONS
from adamtl_ros.runtime.settings import MODES
from adamtl_ros.runtime.settings import OUTPUT_SIZES
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import TASKS

IMAGE_TRANSPORTS = ('raw', 'compressed')


@dataclass(frozen=True)
class Spec:
    """
    One parameter.

    default: also sets the type.  limits: lowest and highest number, both allowed unless
    `allowed` says otherwise.  allowed: in words, for people.  fixed: cannot change once the node
    runs.
    """

    default: Any
    description: str
    limits: tuple[float, float] | None = None
    allowed: str = ''
    fixed: bool = False

    @property
    def type_name(self) -> str:
        """Return the name of the type, for people."""
        if isinstance(self.default, list):
            return 'a list of strings'
        return {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a string'}[
            type(self.default)]

    def constraint(self) -> str:
        """Return what is allowed, in words."""
        if self.allowed or self.limits is None:
            return self.allowed
        return f'{self.limits[0]} to {self.limits[1]}'

    def checked(self, name: str, given: Any) -> Any:
        """Return the value given for the parameter of this name; ValueError if it is wrong."""
        # YAML and the command line make an integer of `budget:=1`; people mean 1.0.
        if isinstance(self.default, float) and type(given) is int:
            given = float(given)
        # An empty list in YAML arrives as no value at all, and rclpy takes it for one of bytes.
        if isinstance(self.default, list) and (given is None or given == []):
            given = ['']
        right = type(given) is type(self.default)
        if right and isinstance(given, list):
            right = all(isinstance(item, str) for item in given)
        if right and self.limits is not None:
            right = self.limits[0] <= given <= self.limits[1]  # false for NaN
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
                  fixed=True),
    'backend': Spec('auto', 'What executes the network.',
                    allowed=f'one of {", ".join(BACKENDS)}', fixed=True),
    'device': Spec('cpu', 'Where the network runs; asked for and missing is an error.',
                   allowed='cpu, cuda or cuda:N', fixed=True),
    'num_threads': Spec(0, 'Threads that the network may use, at most the processors that the '
                        'node may use; 0 leaves it to the backend.',
                        (0, 1024), fixed=True),
    'precision': Spec('f32', 'Of the computation; bf16 and int8 need the backend openvino, bf16 a '
                      'processor that has it, int8 a model that `adamtl quantize` has measured '
                      '(glasses is).', allowed=f'one of {", ".join(PRECISIONS)}', fixed=True),
    'image_transport': Spec('raw', 'Subscribe to image (raw) or image/compressed (compressed).',
                            allowed=f'one of {", ".join(IMAGE_TRANSPORTS)}', fixed=True),
    'mode': Spec('static', 'static: policy off. shadow: dense results, and what the policy would '
                           'have saved. adaptive: the policy decides.',
                 allowed=f'one of {", ".join(MODES)}'),
    'budget': Spec(1.0, 'Share of the MACs of the dense network with the tasks now enabled that '
                        'a frame may cost on average.', (0.0, 1.0), 'above 0.0, to 1.0'),
    'compare_share': Spec(0.1, 'Share of the frames on which policy and dense network both run '
                               'and are compared: in mode shadow, and in mode adaptive while the '
                               'guard is on. What is published does not change by it.',
                          (0.0, 1.0)),
    'guard.action': Spec('off', 'What happens in mode adaptive when the agreement with the dense '
                                'network falls below guard.agreement. raise_budget: by 0.1 at a '
                                'time, in the end static; static: the dense network takes over. '
                                'It stays so until mode or a guard parameter is set.',
                         allowed=f'one of {", ".join(GUARD_ACTIONS)}'),
    'guard.agreement': Spec(0.8, 'Lowest agreement with the dense network, of any task, that the '
                                 'guard accepts.', (0.0, 1.0)),
    'guard.window': Spec(10, 'Number of compared frames over which agreement and saving are '
                             'averaged.', (1, 1000)),
    'target_latency_ms': Spec(0.0, 'Latency from image received to results ready that a '
                                   'controller holds in mode adaptive by moving the budget '
                                   'between min_budget and budget; 0.0: off.', (0.0, 10000.0)),
    'min_budget': Spec(0.3, 'Lowest budget that the latency controller may choose, where budget '
                            'itself is not lower.',
                       (0.0, 1.0), 'above 0.0, to 1.0'),
    'output_size': Spec('network', 'Size of the results: as the network works, or as the camera.',
                        allowed=f'one of {", ".join(OUTPUT_SIZES)}'),
    'max_rate_hz': Spec(0.0, 'Frames beyond this rate are dropped before any work; 0.0: all are '
                             'taken.', (0.0, 1000.0)),
    'overlay.tasks': Spec(list(TASKS), 'Tasks drawn over the frame in ~/overlay, '
                          'where enabled.', allowed=f'any of {", ".join(TASKS)}'),
} | {
    f'tasks.{task}.enable': Spec(True, f'Compute {task} while it has subscribers.')
    for task in TASKS
} | {
    f'tasks.{task}.weight': Spec(1.0, f'How much the budget favours {task}.', (0.0, 10.0))
    for task in TASKS
}


@dataclass(frozen=True)
class Options:
    """All that can change while the node runs; built whole and swapped whole."""

    settings: Settings
    budget: float
    comparing: Comparing
    target_latency_ms: float
    min_budget: float
    max_rate_hz: float
    overlay_tasks: tuple[str, ...]

    @classmethod
    def from_values(cls, values: Mapping[str, Any], model_tasks: Collection[str]) -> 'Options':
        """
        Return the options of the parameter values, their types and limits checked already.

        Tasks that the model does not have are left out. Raises ValueError with the reason.
        """
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f'{name} is {value}: use a finite number')
        for name in ('budget', 'min_budget'):
            if not 0.0 < values[name] <= 1.0:
                raise ValueError(f'{name} is {values[name]}: use a number above 0.0, to 1.0')
        if values['guard.action'] not in GUARD_ACTIONS:
            raise ValueError(f'guard.action is {values["guard.action"]!r}: use one of '
                             f'{", ".join(GUARD_ACTIONS)}')
        # See Spec.checked: a list of an empty string stands for the empty list.
        overlay = [task for task in values['overlay.tasks'] if task]
        unknown = [task for task in overlay if task not in TASKS]
        if unknown:
            raise ValueError(f'overlay.tasks has the unknown task {unknown[0]!r}: use any of '
                             f'{", ".join(TASKS)}')
        enabled = tuple(task for task in TASKS
                        if task in model_tasks and values[f'tasks.{task}.enable'])
        return cls(
            settings=Settings(
                mode=values['mode'], budget=values['budget'], tasks=enabled,
                weights={task: values[f'tasks.{task}.weight'] for task in enabled},
                output_size=values['output_size']),
            budget=values['budget'],
            comparing=Comparing(
                share=values['compare_share'], action=values['guard.action'],
                agreement=values['guard.agreement'], window=values['guard.window']),
            target_latency_ms=values['target_latency_ms'], min_budget=values['min_budget'],
            max_rate_hz=values['max_rate_hz'],
            overlay_tasks=tuple(task for task in enabled if task in overlay))


def reference() -> str:
    """Return a Markdown table of all parameters."""
    rows = ['| parameter | type | default | allowed | meaning |', '|---|---|---|---|---|']
    for name, spec in PARAMETERS.items():
        default = ', '.join(spec.default) if isinstance(spec.default, list) else (
            str(spec.default).lower() if isinstance(spec.default, bool) else spec.default)
        rows.append(' | '.join((
            f'| `{name}`{" (fixed)" if spec.fixed else ""}', spec.type_name, f'`{default}`',
            spec.constraint(), f'{spec.description} |')))
    return '\n'.join(rows) + '\n'


def declare(node: Node) -> dict[str, str]:
    """
    Declare all parameters; return what is wrong with the values given at the start, by name.

    A wrong value leaves the default in place, so that the node can still be asked and corrected;
    the caller must not go on before it is.
    """
    errors = {}
    for name, spec in PARAMETERS.items():
        # Declared without a type first: otherwise a wrong value is an exception that keeps it.
        given = node.declare_parameter(
            name, spec.default, ParameterDescriptor(dynamic_typing=True)).value
        node.undeclare_parameter(name)
        try:
            value = spec.checked(name, given)
        except ValueError as error:
            errors[name] = str(error)
            value = spec.default
        node.declare_parameter(name, value, spec.descriptor(), ignore_override=True)
    return errors


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
