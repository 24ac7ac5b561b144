"""What W&B wrote offline: its log of records, which it reads back with code of its own that is not in Python."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _FILE_HEADER, _CHUNK_HEADER = 32768, 7, 7
_FULL_OR_LAST = (1, 4)


@dataclass
class OfflineRun:
    name: str = ""
    id: str = ""
    project: str = ""
    entity: str = ""
    group: str = ""
    config: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: list = field(default_factory=list)
    exit_code: int | None = None

    def steps_of(self, key):
        return [row["_step"] for row in self.history if key in row]


def offline_runs(folder: Path) -> dict[str, OfflineRun]:
    # Its process may write a little later than a run is finished.
    wandb.teardown()
    runs = [_run(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
    return {run.name: run for run in runs}


def _run(path):
    run = OfflineRun()
    for record in _records(path.read_bytes()):
        if record.HasField("run"):
            sent = record.run
            run.id, run.name, run.group = sent.run_id, sent.display_name, sent.run_group
            run.project, run.entity = sent.project, sent.entity
            run.config.update({item.key: json.loads(item.value_json) for item in record.run.config.update})
        if record.HasField("history"):
            run.history.append(_items(record.history.item))
        if record.HasField("summary"):
            run.summary.update(_items(record.summary.update))
        if record.HasField("exit"):
            run.exit_code = record.exit.exit_code
        artifact = record.artifact if record.HasField("artifact") else record.request.log_artifact.artifact
        if artifact.name:
            files = tuple(sorted(entry.path for entry in artifact.manifest.contents))
            run.artifacts.append((artifact.type, artifact.name, files, tuple(artifact.aliases)))
    return run


def _items(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data):
    place, parts = _FILE_HEADER, b""
    while place + _CHUNK_HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _CHUNK_HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        place += _CHUNK_HEADER
        parts += data[place : place + length]
        place += length
        if kind in _FULL_OR_LAST:
            yield Record.FromString(parts)
            parts = b""
