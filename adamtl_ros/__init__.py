# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""AdaMTL on ROS 2: adaptive multi-task vision under a compute budget."""

from pkgutil import extend_path
import sys

# The generated messages (adamtl_ros.msg) may lie in another folder than these modules: so in an
# editable install, and where the source tree comes first on sys.path.
__path__ = extend_path(__path__, __name__)

# The import of openvino tells an analytics host of itself, unless this module is not to be had.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
