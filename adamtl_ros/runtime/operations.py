# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pieces that graphs of OpenVINO are built from, whatever the network."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

import numpy as np
import openvino as ov
import openvino.opset13 as ops

Node: TypeAlias = Any
"""An ov.Node, or an output of one."""


def floats(values: np.ndarray | float) -> Node:
    return ops.constant(np.ascontiguousarray(values, dtype=np.float32))


def ints(*values: int) -> Node:
    return ops.constant(np.array(values, dtype=np.int32))


def named_input(shape: Sequence[int], kind: type, name: str) -> Node:
    node = ops.parameter(list(shape), kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def named_model(outputs: Mapping[str, Node], inputs: Sequence[Node], name: str) -> ov.Model:
    results = []
    for key, node in outputs.items():
        result = ops.result(node)
        result.output(0).get_tensor().set_names({key})
        results.append(result)
    return ov.Model(results, list(inputs), name)


def either(
        condition: Node, then: Sequence[Node], other: Sequence[Node],
        inputs: Sequence[tuple[Node, Node | None, Node | None]]) -> list[Node]:
    """
    Return one of two lists of nodes, each of a body of its own; only that body is computed.

    condition: bool (1).  inputs: a value, and the parameter that stands for it in either body.
    """
    node = ops.if_op(port(ops.squeeze(condition, ints(0))))
    results = [ops.result(each) for each in then], [ops.result(each) for each in other]
    for number, result in enumerate(sum(results, [])):
        # A name that is given in passing is new every time, and so would the cache's key be.
        result.output(0).get_tensor().set_names({f'body{number}'})
    for place, body in enumerate((node.set_then_body, node.set_else_body)):
        given = [row[1 + place] for row in inputs if row[1 + place] is not None]
        body(ov.Model(results[place], given, 'body'))
    for value, first, second in inputs:
        node.set_input(port(value), first, second)
    return [node.set_output(one, two) for one, two in zip(*results)]


def port(node: Node) -> ov.Output:
    return node.output(0) if isinstance(node, ov.Node) else node


def resized(x: Node, size: Sequence[int], mode: str = 'linear_onnx') -> Node:
    if list(x.shape)[2:] == list(size):
        return x
    return ops.interpolate(
        x, ints(*size), mode, 'sizes', axes=ints(2, 3), nearest_mode='floor',
        coordinate_transformation_mode='asymmetric' if mode == 'nearest' else 'half_pixel')


def rounded(
        x: Node, weight: np.ndarray, between: Sequence[float] | None) -> tuple[Node, Node]:
    """
    Return a layer's input and weights, rounded to int8 steps where its input has a range.

    weight: its first axis is that of the outputs.  between: least and largest input, or None.
    """
    if between is None:
        return x, floats(weight)
    low, high = map(floats, between)
    most = np.abs(weight).max(tuple(range(1, weight.ndim)), keepdims=True)
    bound = np.maximum(most, np.finfo(np.float32).tiny)
    ends = floats(-bound), floats(bound)
    return (ops.fake_quantize(x, low, high, low, high, 256),
            ops.fake_quantize(floats(weight), *ends, *ends, 255))
