# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node: what they do, and what is said of wrong ones."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

from rcl_interfaces.msg import ParameterType  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.parameter import parameter_dict_from_yaml_file  # noqa: E402
import yaml  # noqa: E402

from adamtl_ros.nodes.parameters import PARAMETERS  # noqa: E402
from adamtl_ros.nodes.parameters import reference  # noqa: E402
from adamtl_ros.nodes.parameters import unmatched  # noqa: E402
from adamtl_ros.paths import share  # noqa: E402
from adamtl_ros.tasks import TASKS  # noqa: E402
from instant import InstantEngine  # noqa: E402
from ros_graph import FAILURE  # noqa: E402
from ros_graph import SUCCESS  # noqa: E402


def test_parameters_take_effect_on_the_next_frame(bench):
    node = bench.running()
    bench.listen('gating_stats', 'semseg', 'depth')
    assert bench.set(node, mode='adaptive', budget=0.6).successful
    after = bench.answer()
    assert (after.mode, after.budget_requested) == ('adaptive', pytest.approx(0.6))
    assert bench.set(node, mode='shadow').successful
    after = bench.answer()
    assert after.mode == 'shadow'
    assert 0 <= after.agreement <= 1  # the first one is compared
    assert bench.set(node, tasks__semseg__enable=False).successful
    assert [each.name for each in bench.answer().task_stats] == ['depth']
    assert bench.set(node, output_size='camera').successful
    assert bench.answer('depth').width == 64
    # ROS tools make an integer of a whole number.
    assert bench.set(node, budget=1).successful
    assert bench.answer().budget_requested == 1.0


REFUSED = [
    ({'budget': 0.0}, ('budget',)),
    ({'budget': 1.5}, ('budget', '1.5')),
    ({'budget': float('nan')}, ('budget', 'nan')),
    ({'budget': 'half'}, ('budget', 'half', 'a number')),
    ({'budget_cap': 0.4}, ('budget is 1.0', 'budget_cap 0.4', 'set the cap from the budget')),
    ({'budget_cap': 0.0}, ('budget_cap', '0.0')),
    ({'budget_horizon': 0}, ('budget_horizon', '0', '1 to 100000')),
    ({'refresh': 0}, ('refresh', '0', '1 to 100000')),
    ({'reuse': 'sometimes'}, ('reuse', 'sometimes', 'true or false')),
    ({'skip_empty': 'sometimes'}, ('skip_empty', 'sometimes', 'true or false')),
    ({'budget': True}, ('budget', 'True', 'a number')),
    ({'mode': 'fast'}, ('mode', 'fast', 'adaptive')),
    ({'mode': 3}, ('mode', '3', 'a string')),
    ({'output_size': 'huge'}, ('output_size', 'huge', 'camera')),
    ({'overlay__tasks': ['semseg', 'pose']}, ('overlay.tasks', 'pose', 'depth')),
    ({'overlay__tasks': 'semseg'}, ('overlay.tasks', 'a list of strings')),
    ({'tasks__depth__enable': 1}, ('tasks.depth.enable', 'true or false')),
    ({'tasks__depth__weight': -1.0}, ('tasks.depth.weight', '-1.0')),
    ({'tasks__depth__weight': float('nan')}, ('tasks.depth.weight', 'nan')),
    ({'target_latency_ms': float('inf')}, ('target_latency_ms', 'inf')),
    ({'min_budget': 0.0}, ('min_budget', '0.0')),
    ({'compare_share': 1.5}, ('compare_share', '1.5')),
    ({'guard__action': 'panic'}, ('guard.action', 'panic', 'raise_budget')),
    ({'guard__agreement': float('nan')}, ('guard.agreement', 'nan')),
    ({'guard__window': 0}, ('guard.window', '0')),
    ({'max_rate_hz': -1.0}, ('max_rate_hz',)),
    ({'model': 'swin_tiny'}, ('model', 'random', 'clean it up')),
    ({'device': 'cuda'}, ('device', 'cpu', 'clean it up')),
    ({'autostart': False}, ('autostart', 'read-only')),
    ({'image_transport': 'theora'}, ('image_transport', 'theora', 'compressed')),
    ({'image_reliability': 'sure'}, ('image_reliability', 'sure', 'best_effort')),
    ({'tasks__semseg__class_names': ['a']}, ('class_names', 'read-only')),
    ({'min_budget': 0.5, 'budget': 0.0}, ('budget',)),
]


def test_bad_values_are_refused_and_nothing_changes(bench):
    node = bench.running()
    before = node._options, node._values()
    for values, words in REFUSED:
        result = bench.set(node, **values)
        assert not result.successful, values
        assert all(word in result.reason for word in words), result.reason
        assert (node._options, node._values()) == before
        name = next(iter(values)).replace('__', '.')
        assert node.describe_parameter(name).type == Parameter.Type.from_parameter_value(
            node.get_parameter(name).value).value


def test_a_task_that_the_model_lacks_cannot_be_enabled(stage):
    node = stage.running()
    result = stage.set(node, tasks__semseg__enable=True)
    assert not result.successful
    assert 'does not have the task semseg: it has depth' in result.reason
    assert node._options.settings.tasks == ('depth',)


def test_parameters_are_described(bench):
    node = bench.running()
    for name, spec in PARAMETERS.items():
        descriptor = node.describe_parameter(name)
        assert descriptor.description
        assert descriptor.read_only == spec.fixed
        if descriptor.type == ParameterType.PARAMETER_DOUBLE:
            assert len(descriptor.floating_point_range) == 1, name
        if descriptor.type == ParameterType.PARAMETER_INTEGER:
            assert len(descriptor.integer_range) == 1, name
    for task in ('semseg', 'human_parts'):
        names = node.get_parameter(f'tasks.{task}.class_names').value
        assert list(names) == list(TASKS[task].classes)
        assert 'read-only' in node.describe_parameter(
            f'tasks.{task}.class_names').additional_constraints


@pytest.mark.slow
def test_a_node_with_a_bad_value_cannot_be_configured(bench, capfd):
    for name, value, words in [
            ('budget', 0.0, ('budget', '0.0')),
            ('budget', 'half', ('budget', 'half', 'a number')),
            ('mode', 'fast', ('mode', 'fast', 'adaptive')),
            ('backend', 'tvm', ('backend', 'tvm', 'torch')),
            ('device', 'tpu', ('device', 'tpu', 'cpu')),
            ('num_threads', -1, ('num_threads', '-1')),
            ('num_threads', 'all', ('num_threads', 'all', 'an integer')),
            ('overlay.tasks', ['pose'], ('overlay.tasks', 'pose', 'human_parts')),
            ('tasks.depth.enable', 'yes', ('tasks.depth.enable', 'yes', 'true or false')),
            ('model', 'nothing', ('nothing', 'glasses')),
            ('model', '/dev/null', ('/dev/null',))]:
        node = bench.node(**{name: value})
        assert node.trigger_configure() == FAILURE
        log = capfd.readouterr().err
        assert log.count('cannot configure') == 1
        assert all(word in log for word in words), log
        assert 'Traceback' not in log
        bench.leave(node)


def test_a_bad_value_from_the_start_can_be_corrected(stage):
    node = stage.node(budget='half')
    assert node.trigger_configure() == FAILURE
    assert stage.set(node, budget=0.5).successful
    assert node.trigger_configure() == SUCCESS
    assert node._options.settings.budget == 0.5


def test_whole_numbers_and_empty_lists_are_taken_as_meant(stage):
    node = stage.node(budget=1, overlay__tasks=[''])
    assert node.trigger_configure() == SUCCESS
    assert node._options.overlay_tasks == ()
    assert stage.set(node, overlay__tasks=['depth']).successful
    assert node._options.overlay_tasks == ('depth',)
    assert stage.set(node, overlay__tasks=[]).successful
    assert node._options.overlay_tasks == ()


def test_the_shipped_parameters_are_the_defaults():
    given = yaml.safe_load(share('config', 'glasses.yaml').read_text())['/**']['ros__parameters']
    tasks = given.pop('tasks')
    for group in ('guard', 'points'):
        given |= {f'{group}.{name}': value for name, value in given.pop(group).items()}
    flat = given | {f'tasks.{task}.{name}': value
                    for task, values in tasks.items() for name, value in values.items()}
    assert flat == {name: spec.default for name, spec in PARAMETERS.items()}


DOCS = Path(__file__).parents[1] / 'docs'


@pytest.mark.skipif(not DOCS.is_dir(), reason='the documentation is not beside the tests')
def test_the_parameter_reference_is_of_these_parameters():
    assert reference() in (DOCS / 'parameters.md').read_text(), (
        'run  python -m adamtl_ros.nodes.parameters  and put its table into docs/parameters.md')


class NamedEngine(InstantEngine):
    """Knows what it was made of, and has classes."""

    def __init__(self, model: str, **values: Any) -> None:
        """Keep the values."""
        super().__init__(model)
        self.values = values
        self.tasks = tuple(TASKS)
        self.class_names = {'semseg': ('wall', 'floor') if model == 'glasses' else ('sky',)}


def test_what_is_loaded_can_be_set_until_it_is(stage):
    node = stage.node(NamedEngine)

    def classes():
        return list(node.get_parameter('tasks.semseg.class_names').value)

    def set_all():
        return node.set_parameters([
            Parameter('model', value='other'), Parameter('backend', value='torch'),
            Parameter('num_threads', value=3)])

    assert node.trigger_configure() == SUCCESS
    assert classes() == ['wall', 'floor']
    for result in set_all():
        assert not result.successful
        assert 'clean it up' in result.reason
    assert node.trigger_cleanup() == SUCCESS
    assert all(result.successful for result in set_all())
    assert node.trigger_configure() == SUCCESS
    assert (node._engine.model, node._engine.values['backend']) == ('other', 'torch')
    assert node._engine.values['num_threads'] == 3
    assert classes() == ['sky']
    (result,) = node.set_parameters([Parameter('tasks.semseg.class_names', value=['a'])])
    assert not result.successful
    assert 'read-only' in result.reason


def test_a_whole_file_can_be_loaded_into_a_node_that_runs(stage):
    node = stage.running(NamedEngine)
    # As `ros2 param load` reads it: each value once more through YAML.
    parameters = [
        Parameter.from_parameter_msg(each) for each in parameter_dict_from_yaml_file(
            str(share('config', 'glasses.yaml')), use_wildcard=True).values()]
    assert {each.name for each in parameters} == set(PARAMETERS)
    for each, result in zip(parameters, node.set_parameters(parameters)):
        assert result.successful, (each.name, result.reason)


@pytest.mark.parametrize(('name', 'given', 'taken'), [
    ('guard.action', False, 'off'), ('budget', 1, 1.0), ('guard.agreement', 0, 0.0)])
def test_values_that_yaml_reads_otherwise(stage, name, given, taken):
    node = stage.node(**{name: given})
    assert node.get_parameter(name).value == taken
    assert node.trigger_configure() == SUCCESS
    node.set_parameters([Parameter(name, value=taken)])
    (result,) = node.set_parameters([Parameter(name, value=given)])
    assert result.successful, result.reason
    assert node.get_parameter(name).value == taken
    result = node.set_parameters_atomically([Parameter('mode', value=given)])
    assert not result.successful
    assert 'mode' in result.reason


def test_what_is_not_known_is_said_with_what_was_meant(stage, capfd):
    node = stage.running(InstantEngine, '-r', 'image:=/cam/image_raw', buget=0.5, zzz=1, **{
        'tasks.depth.enabled': False, 'tasks.semseg.class_names': ['a'],
        'qos_overrides./cam/image_ra.subscription.reliability': 'reliable',
        'qos_overrides./cam/image_raw.subscription.reliability': 'best_effort',
        'qos_overrides./adamtl/depth.publisher.liveliness': 'automatic',
        'qos_overrides./cam/image_raw/compressed.subscription.depth': 3})
    log = capfd.readouterr().err
    for words in ('parameter buget is not known, and its value ignored: did you mean budget?',
                  'parameter zzz is not known, and its value ignored\n',
                  'tasks.depth.enabled is not known, and its value ignored: did you mean '
                  'tasks.depth.enable?',
                  'the node has no topic /cam/image_ra: did you mean /cam/image_raw?',
                  'liveliness is ignored: of this topic only deadline, depth, durability'):
        assert words in log, words
    for word in ('class_names is', 'image_raw.subscription.reliability is', 'compressed.'):
        assert word not in log, word
    (result,) = node.set_parameters([Parameter('buget', value=0.5)])
    assert not result.successful
    assert 'did you mean budget?' in result.reason


@pytest.mark.parametrize(('content', 'node', 'said'), [
    ('/**: {ros__parameters: {a: 1}}', '/adamtl', False),
    ('/**/adamtl: {ros__parameters: {a: 1}}', '/adamtl', False),
    ('/**/adamtl: {ros__parameters: {a: 1}}', '/x/y/adamtl', False),
    ('/*/adamtl: {ros__parameters: {a: 1}}', '/left/adamtl', False),
    ('/*/adamtl: {ros__parameters: {a: 1}}', '/adamtl', True),
    ('adamtl: {ros__parameters: {a: 1}}', '/adamtl', False),
    ('left: {adamtl: {ros__parameters: {a: 1}}}', '/left/adamtl', False),
    ('adamtl: {ros__parameters: {a: 1}}', '/left/adamtl', True),
    ('{adamtll: {ros__parameters: {a: 1}}, /b/c: {ros__parameters: {}}}', '/adamtl', True),
    ('', '/adamtl', False)])
def test_a_file_for_another_node_is_told(tmp_path, content, node, said):
    path = tmp_path / 'p.yaml'
    path.write_text(content)
    words = unmatched(path, node)
    assert bool(words) == said
    if said:
        assert all(word in words for word in (str(path), node, 'they are ignored'))
