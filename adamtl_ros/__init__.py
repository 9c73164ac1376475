# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""AdaMTL on ROS 2: adaptive multi-task vision under a compute budget."""

from pkgutil import extend_path

# The generated messages (adamtl_ros.msg) may lie in another folder than these modules: so in an
# editable install, and where the source tree comes first on sys.path.
__path__ = extend_path(__path__, __name__)
