# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The AdaMTL network: encoder, policy, decoders, and their cost in MACs."""
