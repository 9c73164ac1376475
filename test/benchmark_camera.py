# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure what becomes of the frames of a camera that is started elsewhere, on default settings.

    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_camera.py
    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_camera.py --reliability best_effort
    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_camera.py --jpeg --size 1920x1080 --tasks ''

A process publishes noise (or JPEGs) with rclpy's defaults and without any Fast DDS profile, one
runs the node, this one listens to --tasks and the statistics.  Prints JSON: the fate of the
frames, and the time that the node's process had for each.  Not a test: figures depend on the
machine and on what else it does.
"""

import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from adamtl_ros.msg import GatingStats
from adamtl_ros.processes import child

CAMERA = """
import sys, time
from array import array
import cv2, numpy as np, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
width, height, rate, seconds, reliability, jpeg = sys.argv[1:]
width, height, count = int(width), int(height), round(float(rate) * float(seconds))
picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8),
                     (width, height), interpolation=cv2.INTER_CUBIC)
if jpeg == 'True':
    message = CompressedImage(format='jpeg', data=array('B', cv2.imencode(
        '.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()))
else:
    message = Image(encoding='rgb8', width=width, height=height, step=3 * width,
                    data=array('B', picture.tobytes()))
rclpy.init()
node = rclpy.create_node('camera')
images = node.create_publisher(type(message), 'image' + '/compressed' * (jpeg == 'True'),
                               QoSProfile(depth=10, reliability=ReliabilityPolicy[reliability]))
while not images.get_subscription_count():
    time.sleep(0.01)
# What is sent before the node has met it is not lost on the way.
time.sleep(2)
begin = time.monotonic()
for number in range(count):
    message.header.stamp.sec = number + 1
    message.header.frame_id = 'optical'
    images.publish(message)
    time.sleep(max(begin + (number + 1) / float(rate) - time.monotonic(), 0))
time.sleep(1)
print(len(message.data))
"""


def seconds_of(process):
    """Return the processor time of a process, in s."""
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def main():
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--rate', type=float, default=15.0, help='Hz')
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--reliability', choices=('reliable', 'best_effort'), default='reliable')
    parser.add_argument('--jpeg', action='store_true')
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME:=VALUE', help='parameter of the node')
    parser.add_argument('--tasks', default='semseg,depth', help='tasks to listen to')
    options = parser.parse_args()
    tasks = [task for task in options.tasks.split(',') if task]

    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        os.environ.pop(name, None)
    rclpy.init(args=[])
    listener = rclpy.create_node('benchmark')
    stats, values, levels = [], {}, []

    def diagnose(message):
        values.update({each.key: each.value for each in message.status[0].values})
        levels.append(message.status[0].message)

    for task in tasks:
        listener.create_subscription(Image, f'adamtl/{task}', lambda _: None, QoSProfile(depth=50))
    listener.create_subscription(GatingStats, 'adamtl/gating_stats', stats.append, 50)
    listener.create_subscription(DiagnosticArray, '/diagnostics', diagnose, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(listener)
    with tempfile.TemporaryDirectory() as folder, child(
            'adamtl_ros.nodes.node',
            ['--ros-args', *(word for each in options.set for word in ('-p', each))],
            Path(folder, 'log')) as node:
        end = time.monotonic() + 120
        while not listener.count_publishers('adamtl/gating_stats'):
            assert time.monotonic() < end, Path(folder, 'log').read_text()
            executor.spin_once(0.1)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            executor.spin_once(0.1)
        begin, before = time.monotonic(), seconds_of(node.pid)
        with subprocess.Popen(
                [sys.executable, '-c', CAMERA, *options.size.split('x'), str(options.rate),
                 str(options.seconds), options.reliability.upper(), str(options.jpeg)],
                stdout=subprocess.PIPE, text=True) as camera:
            while camera.poll() is None:
                executor.spin_once(0.05)
            level = levels[-1]
            size = int(camera.stdout.read())
        end, after = time.monotonic(), seconds_of(node.pid)
        while time.monotonic() < end + 10:
            executor.spin_once(0.1)
        idle = (seconds_of(node.pid) - after) / (time.monotonic() - end)
        busy = after - before - idle * (end - begin)
    sent, last = round(options.rate * options.seconds), stats[-1]
    print(json.dumps({
        'size': options.size, 'bytes': size, 'rate_hz': options.rate,
        'camera': options.reliability, 'image_reliability': values['image reliability'],
        'sent': sent, 'answered': int(values['frames processed']),
        'dropped': int(values['frames dropped']), 'missed': int(values['frames missed']),
        'unexplained': sent - int(values['frames received']) - int(values['frames missed']),
        'latency_ms_median': sorted(each.latency_ms for each in stats)[len(stats) // 2],
        'processor_ms_a_frame': round(1000 * busy / max(last.frames_received, 1), 2),
        'diagnostics': level,
    }, indent=1))
    executor.shutdown()
    listener.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
