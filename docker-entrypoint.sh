#!/usr/bin/env bash
# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
#
# Sets up ROS and runs the command; arguments alone are those of the node.
set -eo pipefail
# shellcheck source=/dev/null
. "/opt/ros/$ROS_DISTRO/setup.bash"
# shellcheck source=/dev/null
. /ws/install/local_setup.bash
case "${1:-}" in
  -*) set -- adamtl_node --ros-args "$@" ;;
esac
exec "$@"
