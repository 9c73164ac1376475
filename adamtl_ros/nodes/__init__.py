# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ROS side: the node, its parameters, its messages, and the player of the demo."""
