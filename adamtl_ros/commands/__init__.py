# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One file a command of `adamtl`: arguments in, calls, text out."""
