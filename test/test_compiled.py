# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Compiled models that are kept: never wrong, never half, never too many."""

import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

ov = pytest.importorskip('openvino')
ops = pytest.importorskip('openvino.opset13')
compiled = pytest.importorskip('adamtl_ros.runtime.compiled')


@pytest.fixture(scope='module')
def core():
    # Not one of its own: see openvino_parts.core.
    return pytest.importorskip('adamtl_ros.runtime.openvino_parts').core()


def scaled(factor: float, branch: float | None = None) -> 'ov.Model':
    """Return x to factor * x, or where that is given, to branch * x if `look`, else factor * x."""
    def weights(value):
        return np.full((64, 64), value, dtype=np.float32)

    x = ops.parameter([1, 64], np.float32, name='x')
    x.output(0).get_tensor().set_names({'x'})
    if branch is None:
        return ov.Model([ops.result(ops.matmul(x, weights(factor), False, False))], [x], 'm')
    look = ops.parameter([1], np.bool_, name='look')
    look.output(0).get_tensor().set_names({'look'})
    choice = ops.if_op(look)
    bodies = []
    for value in (branch, factor):
        inner = ops.parameter([1, 64], np.float32)
        bodies.append((inner, ov.Model(
            [ops.result(ops.matmul(inner, weights(value), False, False))], [inner], 'body')))
    choice.set_then_body(bodies[0][1])
    choice.set_else_body(bodies[1][1])
    choice.set_input(x.output(0), bodies[0][0], bodies[1][0])
    out = choice.set_output(bodies[0][1].get_results()[0], bodies[1][1].get_results()[0])
    return ov.Model([ops.result(out)], [x, look], 'm')


def answer(model: 'ov.CompiledModel') -> float:
    inputs = {'x': np.ones((1, 64), np.float32)}
    if len(model.inputs) > 1:
        inputs['look'] = np.array([True])
    return float(model(inputs)[0][0, 0])


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_models_are_told_apart_by_all_that_they_compute(core, tmp_path):
    models = [scaled(1.0), scaled(2.0), scaled(2.0, 3.0), scaled(2.0, 4.0), scaled(3.0, 4.0)]
    answers = [64.0, 128.0, 192.0, 256.0, 256.0]
    for _ in range(2):
        for model, expected in zip(models, answers):
            assert answer(compiled.compile_model(core, model, {}, tmp_path)) == expected
    assert len(files(tmp_path)) == len(models)
    # Options are part of it, and what was built before is not.
    compiled.compile_model(core, scaled(1.0), {'INFERENCE_NUM_THREADS': 1}, tmp_path)
    compiled.compile_model(core, scaled(2.0, 4.0), {}, tmp_path)
    assert len(files(tmp_path)) == len(models) + 1


@pytest.mark.parametrize('damage', [
    lambda content: content[:len(content) // 2] + b'\x5a\xa5' + content[len(content) // 2 + 2:],
    lambda content: content[:-8192] + bytes(4096) + content[-4096:],
    lambda content: content[:1000], lambda content: b'', lambda content: content + b'\0',
    lambda content: bytes(len(content))])
def test_what_is_damaged_is_compiled_anew(core, tmp_path, damage):
    compiled.compile_model(core, scaled(2.0), {}, tmp_path)
    file, = files(tmp_path)
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert file.read_bytes() != good
    assert answer(compiled.compile_model(core, scaled(2.0), {}, tmp_path)) == 128.0
    assert compiled._read(file) is not None, 'it was not put right'


def test_a_folder_is_never_seen_with_half_a_file(core, tmp_path, monkeypatch):
    """A process that is ended while it writes leaves nothing under a name that is read."""
    def cut_off(path, content):
        with path.open('wb') as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, 'write_bytes', cut_off)
    with pytest.raises(KeyboardInterrupt):
        compiled.compile_model(core, scaled(2.0), {}, tmp_path)
    assert files(tmp_path) == []


def test_what_was_used_longest_ago_is_removed(core, tmp_path, monkeypatch):
    for number in range(4):
        compiled.compile_model(core, scaled(float(number)), {}, tmp_path)
    old = files(tmp_path)
    for file in old:
        os.utime(file, (1.0, 1.0))
    compiled.compile_model(core, scaled(2.0), {}, tmp_path)  # used again: it is read
    used = max(old, key=lambda file: file.stat().st_mtime)
    left = tmp_path / '.new-0123-x.blob'
    left.write_bytes(b'half')
    os.utime(left, (1.0, 1.0))
    writing = tmp_path / '.new-4567-y.blob'
    writing.write_bytes(b'half')
    monkeypatch.setattr(compiled, 'KEPT_BYTES', 5 * used.stat().st_size // 2)
    compiled.compile_model(core, scaled(9.0), {}, tmp_path)
    found = set(files(tmp_path))
    assert used in found
    assert len(found & set(old)) == 1
    assert left not in found
    assert writing in found


def test_nothing_is_kept_where_that_cannot_be(core, tmp_path, monkeypatch):
    blocked = tmp_path / 'file'
    blocked.write_text('in the way')
    for folder in (None, blocked, blocked / 'below'):
        assert answer(compiled.compile_model(core, scaled(2.0), {}, folder)) == 128.0
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'nowhere'))
    assert answer(compiled.compile_model(core, scaled(2.0), {}, tmp_path)) == 128.0
    assert files(tmp_path) == [blocked]


@pytest.mark.slow
def test_many_may_start_at_once_on_an_empty_folder(tmp_path, ended):
    """Each of them ends well and gives the same results, to the bit."""
    code = (
        'import sys, hashlib\n'
        'from pathlib import Path\n'
        'import numpy as np\n'
        'from adamtl_ros.runtime.backends import openvino_backend\n'
        'print("ready", flush=True)\n'
        'for folder in sys.stdin:\n'
        '    backend = openvino_backend("glasses", num_threads=1, folder=Path(folder.strip()))\n'
        '    image = np.random.default_rng(0).integers(0, 255, (*backend.config.input_size, 3))\n'
        '    outputs, _ = backend.dense(image.astype(np.uint8), backend.config.tasks)\n'
        '    data = b"".join(each.tobytes() for each in outputs.values())\n'
        '    print(hashlib.sha256(data).hexdigest(), flush=True)')
    running = [subprocess.Popen(
        [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended.extend(running)
    assert [process.stdout.readline() for process in running] == ['ready\n'] * 3
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        for process in running:
            process.stdin.write(f'{folder}\n')
            process.stdin.flush()
        said = {process.stdout.readline() for process in running}
        assert len(said) == 1 and len(said.pop()) == 65, [
            process.communicate() for process in running]
        assert not [file for file in files(folder) if file.name.startswith('.')]
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
