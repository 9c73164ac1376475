# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag`: how good adaptive is on a recording."""
