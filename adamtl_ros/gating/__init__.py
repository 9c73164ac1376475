# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From what a policy predicts of a frame to the gates that are opened for it; numpy alone."""
