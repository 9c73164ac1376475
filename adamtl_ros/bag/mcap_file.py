# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Reading .mcap files, whole or damaged, with an index or without.

By records and chunks, not by the package's readers: those end at the first damaged chunk, and
sort a file without an index in memory.
"""

from collections.abc import Collection
from collections.abc import Iterator
from contextlib import suppress
import heapq
from itertools import count
from pathlib import Path
import struct
from typing import Any
from typing import BinaryIO

from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel
from mcap.records import Chunk
from mcap.records import Message as McapMessage
from mcap.records import Schema
from mcap.stream_reader import breakup_chunk
from mcap.stream_reader import get_chunk_data_stream
from mcap.stream_reader import StreamReader
from mcap.summary import Summary
import zstandard

from adamtl_ros.bag.storage import Contents
from adamtl_ros.bag.storage import counted
from adamtl_ros.bag.storage import line
from adamtl_ros.bag.storage import Message
from adamtl_ros.bag.storage import Problem
from adamtl_ros.bag.storage import type_name

# https://mcap.dev/spec#message-op0x05: channel, sequence, log time, publish time.
_MESSAGE = struct.Struct('<HIQQ')


def contents(file: Path, problem: Problem) -> Contents:
    """Return what the index tells, or, where there is none, what is found by reading on."""
    with file.open('rb') as stream:
        summary = _summary(stream)
        if summary is None:
            return counted(_streamed(stream, file.name, None, problem))
    statistics = summary.statistics
    return Contents([
        (channel.topic, _type(channel, summary.schemas),
         statistics.channel_message_counts.get(channel.id, 0) if statistics else None)
        for channel in summary.channels.values()], _span(summary))


def span(file: Path) -> tuple[int, int] | None:
    """Return when the first and the last message were recorded, None where no index tells."""
    with file.open('rb') as stream:
        summary = _summary(stream)
    return _span(summary) if summary else None


def messages(file: Path, topics: Collection[str], problem: Problem) -> Iterator[Message]:
    """Read the messages of the topics: by their time with an index, else as they lie there."""
    with file.open('rb') as stream:
        summary = _summary(stream)
        if summary is None:
            yield from _streamed(stream, file.name, topics, problem)
        else:
            yield from _by_time(stream, summary, file.name, topics, problem)


def _summary(stream: BinaryIO) -> Summary | None:
    """Return the index at the end of the file, None where it does not lead to all messages."""
    try:
        summary = SeekingReader(stream).get_summary()
    except Exception:  # what the bytes happen to mean; reading on tells what is wrong
        return None
    if summary is None or not summary.chunk_indexes or not summary.channels:
        return None
    named = {number for chunk in summary.chunk_indexes for number in chunk.message_index_offsets}
    return summary if named <= summary.channels.keys() else None


def _span(summary: Summary) -> tuple[int, int]:
    return (min(chunk.message_start_time for chunk in summary.chunk_indexes),
            max(chunk.message_end_time for chunk in summary.chunk_indexes))


def _type(channel: Channel, schemas: dict[int, Schema]) -> str:
    schema = schemas.get(channel.schema_id)
    return type_name(schema.name if schema else '', channel.message_encoding)


def _by_time(
        stream: BinaryIO, summary: Summary, name: str, topics: Collection[str],
        problem: Problem) -> Iterator[Message]:
    """Read chunk by chunk; what overlaps is put in order."""
    wanted = {
        number: (channel.topic, _type(channel, summary.schemas))
        for number, channel in summary.channels.items() if channel.topic in topics}
    waiting: list[tuple[int, int, Message]] = []
    order = count()
    for chunk in sorted(summary.chunk_indexes, key=lambda each: each.message_start_time):
        while waiting and waiting[0][0] <= chunk.message_start_time:
            yield heapq.heappop(waiting)[2]
        if chunk.message_index_offsets and not wanted.keys() & chunk.message_index_offsets.keys():
            continue
        stream.seek(chunk.chunk_start_offset)
        try:
            record = next(StreamReader(stream, skip_magic=True, emit_chunks=True).records)
            if not isinstance(record, Chunk):
                raise ValueError(f'a {type(record).__name__} lies where the index has a chunk')
            for channel, time, data in _messages_of(record):
                if channel in wanted:
                    message = Message(*wanted[channel], time, data)
                    heapq.heappush(waiting, (time, next(order), message))
        except Exception as error:
            problem(f'{name} has a damaged chunk ({line(error)})')
    while waiting:
        yield heapq.heappop(waiting)[2]


def _messages_of(chunk: Chunk) -> Iterator[tuple[int, int, memoryview]]:
    """Yield channel, time and data of the messages, without copying pictures once more."""
    stream, length = get_chunk_data_stream(chunk, True)
    data, place = memoryview(stream.read(length)), 0
    while place < length:
        opcode, size = struct.unpack_from('<BQ', data, place)
        place += 9
        if place + size > length:
            raise ValueError(f'a record of {size} bytes, {length - place} are there')
        if opcode == Opcode.MESSAGE:
            channel, _, time, _ = _MESSAGE.unpack_from(data, place)
            yield channel, time, data[place + _MESSAGE.size:place + size]
        place += size


def _streamed(
        stream: BinaryIO, name: str, topics: Collection[str] | None,
        problem: Problem) -> Iterator[Message]:
    """Read from the start, past damaged chunks, as far as it goes."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    stream.seek(0)
    for record in _records(stream, name, problem):
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, McapMessage) and record.channel_id in channels:
            channel = channels[record.channel_id]
            if topics is None or channel.topic in topics:
                yield Message(
                    channel.topic, _type(channel, schemas), record.log_time, record.data)


def _records(stream: BinaryIO, name: str, problem: Problem) -> Iterator[Any]:
    records = iter(StreamReader(stream, emit_chunks=True).records)
    while True:
        start = stream.tell()
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # what the bytes happen to mean
            problem(f'{name} is damaged or ends in the middle ({line(error)})')
            with suppress(Exception):
                yield from _begun_chunk(stream, start)
            return
        if not isinstance(record, Chunk):
            yield record
            continue
        try:
            inner = breakup_chunk(record, True)
        except Exception as error:
            problem(f'{name} has a damaged chunk ({line(error)})')
            continue
        yield from inner


def _begun_chunk(stream: BinaryIO, start: int) -> Iterator[Any]:
    """Read the records of a chunk that was cut off; ends with whatever error the cut gives."""
    # https://mcap.dev/spec#chunk-op0x06: opcode, length, start, end, size, checksum, compression.
    stream.seek(start)
    opcode, length = struct.unpack('<B36xI', stream.read(41))
    if opcode != Opcode.CHUNK:
        return
    compression = stream.read(length).decode()
    stream.seek(8, 1)
    source: Any = stream
    if compression == 'zstd':
        source = zstandard.ZstdDecompressor().stream_reader(stream)
    elif compression == 'lz4':
        import lz4.frame
        source = lz4.frame.open(stream)
    elif compression:
        return
    yield from StreamReader(source, skip_magic=True).records
