# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the policy is trained for, beside the tasks themselves."""

from collections.abc import Sequence

import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.network import AdaMTL
from adamtl_ros.network.network import Routing
from adamtl_ros.network.network import TEMPERATURE

OUTLIER = 4.0
"""No gate counts more than so many average ones: a few have gains far from all others."""


def gain_loss(
        network: AdaMTL, routing: Routing, block_gains: Tensor, budgets: Tensor,
        tasks: tuple[str, ...], prices: Sequence[float] = ()) -> Tensor:
    """
    Return the loss of the policy's logits against the gates that are worth their cost.

    The negative gradient of the loss to a token's gate is, to first order, what opening it gains
    or closing it loses; of a whole block that is measured, as it is far from the first order.  A
    gate should be open where its gain per MAC is among the best that the budget can pay for, and
    so should a block among the blocks; a mistake counts as much as the gain it costs.

    routing: of `forward_policy(measured=True)`, after the backward pass of the loss that counts.
    block_gains: (B, blocks), what opening each gains, the others as they are.  budgets: (B,).
    prices: by stage, what a MAC counts (1 unless given); budgets are in plain MACs all the same.
    """
    cost = network.cost
    gains = [-_gradient(gate) for gate in routing.gates]
    device = gains[0].device
    costs = torch.tensor([float(block.dense) for block in cost.blocks], device=device)
    stages = torch.tensor([
        prices[block.stage] if prices else 1.0 for block in cost.blocks], device=device)
    # Of each token gate: its block.
    owner = torch.cat([
        torch.full(gain.shape[1:], block, device=device) for block, gain in enumerate(gains)])
    cells = torch.tensor([gain.shape[1] for gain in gains], device=device)
    dense = cost.dense(tasks)
    blocks = sum(block.dense for block in cost.blocks)
    controllers = cost.controllers(tasks) * (
        sum(cost.stage_controller)
        + sum(cost.token_controller[block.stage] for block in cost.blocks))
    # Of the blocks' own cost, what the budget leaves when all else has been paid for.
    share = (((budgets.to(device) - 1) * dense - controllers) / blocks + 1).clamp(0, 1)
    loss = torch.zeros((), device=device)
    for logits, gain, price, stage in (
            (routing.tokens, torch.cat(gains, 1), (costs / cells)[owner], stages[owner]),
            (routing.blocks, block_gains, costs, stages)):
        target, weight = _worthwhile(gain / (price * stage), price, share)
        loss = loss + functional.binary_cross_entropy_with_logits(
            torch.cat([part.amax(1) for part in logits], 1), target, weight)
    return loss


def _worthwhile(worth: Tensor, price: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return which gates are the best that can be paid, as 0 and 1, and how much each matters.

    worth: (B, n), gain per price.  price: (n,) in MACs.  share: (B,) of all prices that is paid.
    """
    order = worth.argsort(1, descending=True)
    paid = price[order].cumsum(1) <= share[:, None] * price.sum()
    last = paid.sum(1, keepdim=True).clamp(max=worth.shape[1] - 1)
    margin = worth - worth.gather(1, order.gather(1, last))
    weight = margin.abs() / margin.abs().mean(1, keepdim=True).clamp(min=1e-20)
    return (margin > 0).float(), weight.clamp(max=OUTLIER)


def _gradient(gate: Tensor) -> Tensor:
    if gate.grad is None:
        raise ValueError('the gates have no gradient: run backward on a loss first')
    return gate.grad.float()


def open_loss(routing: Routing) -> Tensor:
    """Return how far every controller is from opening each of its gates, 0 to 1."""
    logits = [part.flatten() for part in (*routing.blocks, *routing.tokens)]
    return torch.stack([(1 - torch.sigmoid(part / TEMPERATURE)).mean() for part in logits]).mean()


def efficiency_loss(
        network: AdaMTL, routing: Routing, blocks_target: float, tokens_target: float,
        weighted: bool, how: str) -> Tensor:
    """
    Return the paper's efficiency objective (section 3.3): squared distances to two targets.

    blocks_target: share of open blocks.  tokens_target: share of active tokens, a token counting
    its channels where `weighted`; `how`: of the network's 'total', of each 'layer', or the mean of
    both ('mixed').
    """
    opened = torch.cat(routing.opened, 1).mean(1)
    rates = torch.stack([gate.mean(1) for gate in routing.gates], 1)
    sizes = torch.tensor([
        float(block.tokens * (network.config.width(block.stage) if weighted else 1))
        for block in network.cost.blocks], device=rates.device)
    layer = (rates - tokens_target).square().mean()
    total = ((rates * sizes).sum(1) / sizes.sum() - tokens_target).square().mean()
    tokens = {'total': total, 'layer': layer, 'mixed': (total + layer) / 2}[how]
    return (opened - blocks_target).square().mean() + tokens
