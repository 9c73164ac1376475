# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the gated path sends between host and device, counted on a device that is made up."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils._pytree import tree_map_only

from networks import random_image
from networks import random_network
from networks import SWIN

aten = torch.ops.aten
SYNCHRONISES = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2}


class Remote(torch.Tensor):
    """A tensor of the made-up device: torch sees no data, `here` has it."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> 'Remote':
        remote = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype, device='meta')
        remote.here = here
        return remote

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f'{func} outside of the device')


class Device(TorchDispatchMode):
    """Computes with Remote tensors; refuses what CUDA would, counts what makes the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.downloads: list[str] = []
        self.uploads: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        remote = [x for x in tensors if isinstance(x, Remote)]
        target = kwargs.get('device')
        if func is aten._to_copy.default and target is not None:
            kwargs['device'] = 'cpu'
            if target.type == 'meta':
                self.uploads += [str(func)] * (not remote)
                return Remote(func(*(x.here if remote else x for x in args), **kwargs))
            self.downloads += [str(func)] * bool(remote)
        elif not remote:
            return func(*args, **kwargs)
        else:
            mixed = [x for x in tensors if not isinstance(x, Remote) and x.dim()]
            assert not mixed, f'{func} takes tensors of the host and of the device'
            by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) and any(
                x is not None and x.dtype == torch.bool for x in args[1])
            if func.overloadpacket in SYNCHRONISES or by_mask:
                self.downloads.append(str(func))
            if target is not None:
                kwargs['device'] = 'cpu'
        args, kwargs = tree_map_only(Remote, lambda x: x.here, (args, kwargs))
        result = func(*args, **kwargs)
        if target is not None and target.type == 'cpu':
            return result
        return tree_map_only(torch.Tensor, Remote, result)


@pytest.mark.parametrize('name', [name for name in SWIN if name != 'swin_tiny'])
@pytest.mark.parametrize('budget', [0.9, 0.65])
def test_the_gates_cost_one_transfer_a_decision(name, budget):
    network = random_network(name)
    config, image = network.config, random_image(network)
    expected, wanted = network.run_policy(image, config.tasks, budget)
    network.eval()  # forgets the attention biases that it kept on the host
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({
                key: Remote(x.detach()) for key, x in tensors.items() if x is not None})
    with Device() as device:
        outputs, trace = network.run_policy(Remote(image), config.tasks, budget)
    for gate, other in zip(trace.gates, wanted.gates, strict=True):
        assert (gate == other).all()
    for task, value in outputs.items():
        torch.testing.assert_close(value.here, expected[task], rtol=1e-3, atol=1e-3)
    # A block that is paid whole asks for no logits of its tokens.
    whole = sum(bool(gate.all()) for gate in trace.gates)
    partial = sum(bool(gate.any()) for gate in trace.gates) - whole
    asked = len(device.downloads) - len(config.depths)
    assert partial <= asked <= len(trace.gates) - whole
    assert whole and (asked or budget < 0.9)
    assert len(device.uploads) <= asked + 2
