# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The kinds of networks: what belongs to a configuration. Torch is imported where it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import TypeAlias

from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import LiteCost

if TYPE_CHECKING:
    from adamtl_ros.network.lite_network import LiteNetwork
    from adamtl_ros.network.network import AdaMTL

Config: TypeAlias = NetworkConfig | LiteConfig
Cost: TypeAlias = CostModel | LiteCost


def cost_of(config: Config) -> Cost:
    """Return the cost model of a network."""
    return LiteCost(config) if isinstance(config, LiteConfig) else CostModel(config)


def network_of(config: Config) -> LiteNetwork | AdaMTL:
    """Return a new network in torch, its weights random."""
    if isinstance(config, LiteConfig):
        from adamtl_ros.network.lite_network import LiteNetwork
        return LiteNetwork(config)
    from adamtl_ros.network.network import AdaMTL
    return AdaMTL(config)
