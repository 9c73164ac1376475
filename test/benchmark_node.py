# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure a running node over ROS 2: time beside the network, frames accounted for, and memory.

    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_node.py --rate 5 --frames 150
    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_node.py --rate 10 --frames 2000 --budget 0.4
    PYTHONSAFEPATH=1 .venv/bin/python test/benchmark_node.py --rate 70 --frames 1400 --still

A player sends the demo sequence, or with --still its first frame again and again, enlarged to
--size; this process listens to all tasks and the statistics.  Prints JSON.  Not a test: figures
depend on the machine and on what else it does.
"""

import argparse
import json
from pathlib import Path
import re
import statistics
import tempfile
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from adamtl_ros import dds
from adamtl_ros.msg import GatingStats
from adamtl_ros.processes import child
from adamtl_ros.sources import DEMO
from adamtl_ros.tasks import TASKS

BESIDE = 'received to published without network, median (ms)'


def resident_mb(pid):
    """Return the memory that a process holds now, in MB."""
    status = Path(f'/proc/{pid}/status').read_text()
    return int(re.search(r'VmRSS:\s*(\d+) kB', status)[1]) / 1024


def main():
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=150)
    parser.add_argument('--rate', type=float, default=5.0, help='Hz')
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--mode', default='adaptive')
    parser.add_argument('--budget', type=float, default=0.6)
    parser.add_argument('--tasks', default=','.join(TASKS), help='tasks to listen to')
    parser.add_argument('--still', action='store_true', help='nothing moves: one frame for all')
    options = parser.parse_args()
    size = tuple(int(part) for part in options.size.split('x'))
    tasks = options.tasks.split(',')

    rclpy.init()
    listener = rclpy.create_node('benchmark')
    answers = {name: {} for name in (*tasks, 'gating_stats')}
    diagnostics = []

    def keep(name):
        def receive(message):
            stamp = message.header.stamp
            answers[name][stamp.sec, stamp.nanosec] = (
                message if name == 'gating_stats' else message.header.frame_id)
        return receive

    for name in answers:
        listener.create_subscription(
            GatingStats if name == 'gating_stats' else Image, f'adamtl/{name}', keep(name),
            QoSProfile(depth=50))
    listener.create_subscription(
        DiagnosticArray, '/diagnostics',
        lambda m: diagnostics.append({v.key: v.value for v in m.status[0].values}), 10)
    executor = SingleThreadedExecutor()
    executor.add_node(listener)

    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, 'pictures')
        pictures.mkdir()
        for path in sorted(DEMO.glob('*.jpg'))[:1 if options.still else None]:
            picture = cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(pictures / path.name), picture)
        report, log = Path(folder, 'player.json'), Path(folder, 'log')
        node_arguments = ['--ros-args', '-p', f'mode:={options.mode}',
                          '-p', f'budget:={options.budget}']
        player_arguments = [
            str(pictures), '--loop', '--frames', str(options.frames), '--rate', str(options.rate),
            '--wait', '60', '--report', str(report)]
        memory, last = [], 0.0
        with child('adamtl_ros.nodes.node', node_arguments, log) as node:
            # Listening first: a frame that comes before its listeners is not answered by all.
            end = time.monotonic() + 60
            while time.monotonic() < end and not all(
                    listener.count_publishers(f'adamtl/{name}') for name in answers):
                executor.spin_once(0.1)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                executor.spin_once(0.1)
            with child('adamtl_ros.nodes.player', player_arguments, Path(folder, 'log2')) as play:
                while play.poll() is None:
                    executor.spin_once(0.05)
                    if time.monotonic() - last > 1:
                        memory.append(resident_mb(node.pid))
                        last = time.monotonic()
            end = time.monotonic() + 3
            while time.monotonic() < end:
                executor.spin_once(0.05)
        sent = len(json.loads(report.read_text())['stamps'])

    stats = list(answers['gating_stats'].values())
    final = stats[-1]
    seconds = [float(row[BESIDE]) for row in diagnostics if row.get(BESIDE)]
    complete = sum(
        all(stamp in answers[task] for task in tasks) for stamp in answers['gating_stats'])
    third = max(len(memory) // 3, 1)
    print(json.dumps({
        'size': options.size, 'mode': options.mode, 'budget': options.budget,
        'rate_hz': options.rate, 'still': options.still, 'tasks': len(tasks), 'frames_sent': sent,
        'received': final.frames_received, 'processed': final.frames_processed,
        'dropped': final.frames_dropped, 'missed': final.frames_missed,
        'answered_by_all_tasks': complete,
        'answered_per_s': round(options.rate * complete / sent, 1),
        'reused': sum(each.reused for each in stats),
        'warped': sum(each.warped for each in stats),
        'beside_network_ms_median_of_seconds': round(statistics.median(seconds), 2),
        'latency_ms_median': round(statistics.median(s.latency_ms for s in stats), 2),
        'latency_ms_p95': round(sorted(s.latency_ms for s in stats)[int(0.95 * len(stats))], 2),
        **{f'{name}_ms_median': round(statistics.median(
            getattr(s, f'{name}_ms') for s in stats), 2)
           for name in ('preprocess', 'network', 'postprocess')},
        'budget_achieved_mean': round(statistics.mean(s.budget_achieved for s in stats), 4),
        'memory_mb': {'first_third': round(max(memory[:third]), 1),
                      'last_third': round(max(memory[-third:]), 1), 'peak': round(max(memory), 1)},
    }, indent=1))
    listener.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    with dds.domain():
        main()
