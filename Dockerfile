# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
#
#   docker build -t adamtl_ros .
#   docker run --rm --network=host --ipc=host adamtl_ros -r image:=/camera/image_raw
#
# OpenVINO runs the network; torch, which training and exporting need, is not in the image.
ARG ROS_DISTRO=jazzy

FROM ros:${ROS_DISTRO}-ros-base AS build
SHELL ["/bin/bash", "-e", "-o", "pipefail", "-c"]
WORKDIR /ws
COPY . src/adamtl_ros
RUN . "/opt/ros/$ROS_DISTRO/setup.bash" \
 && colcon build --merge-install --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release

FROM ros:${ROS_DISTRO}-ros-core
SHELL ["/bin/bash", "-e", "-o", "pipefail", "-c"]
# Versions are those of the distribution's release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      python3-jinja2 python3-numpy python3-rich python3-venv python3-yaml \
      "ros-$ROS_DISTRO-diagnostic-msgs" "ros-$ROS_DISTRO-vision-msgs" \
 && rm -rf /var/lib/apt/lists/*
# OpenCV from PyPI: that of the distribution brings libraries for windows and codecs of hundreds of
# MB.  --no-deps: NumPy stays the distribution's, which ROS is built with.
RUN python3 -m venv --system-site-packages /opt/adamtl \
 && /opt/adamtl/bin/pip install --no-cache-dir --no-deps \
      lz4==4.4.5 mcap==1.6.0 opencv-python-headless==4.11.0.86 openvino==2026.4.1 \
      rosbags==0.11.9 ruamel.yaml==0.19.1 typing-extensions==4.16.0 zstandard==0.25.0 \
 && useradd --create-home --uid 10001 adamtl
COPY --from=build /ws/install /ws/install
COPY docker-entrypoint.sh /
# Jazzy reads the first, later distributions the second.
ENV PATH=/opt/adamtl/bin:$PATH \
    FASTRTPS_DEFAULT_PROFILES_FILE=/ws/install/share/adamtl_ros/config/fastdds.xml \
    FASTDDS_DEFAULT_PROFILES_FILE=/ws/install/share/adamtl_ros/config/fastdds.xml
USER 10001
WORKDIR /home/adamtl
# The first start is a warm one where the processor is like this one.
RUN /docker-entrypoint.sh adamtl warm
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
  CMD ["/docker-entrypoint.sh", "adamtl", "top", "--once", "3", "--healthy"]
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["adamtl_node"]
