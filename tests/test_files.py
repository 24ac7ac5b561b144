import gzip
import json
import math
import os
import stat
import zlib

import pytest

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import file_sha256, input_sha256, read_json, read_jsonl, write_bytes_atomic, write_json


def test_json_is_strict_readable_text(tmp_path):
    path = write_json(tmp_path / "new" / "a.json", {"é": (1, 2.5), "bad": [math.nan, {"x": -math.inf}]})
    assert path.read_text(encoding="utf-8").splitlines()[:3] == ["{", '  "é": [', "    1,"]
    assert path.read_text(encoding="utf-8").endswith("]\n}\n")
    assert read_json(path) == {"é": [1, 2.5], "bad": [None, {"x": None}]}


def test_a_written_file_is_readable_by_others_and_leaves_nothing_beside_it(tmp_path):
    path = write_bytes_atomic(tmp_path / "a.bin", b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, error):
    path = write_json(tmp_path / "a.json", "old")

    def fail(_descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_json(path, "new")
    assert read_json(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_json_lacks_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.json is not a readable JSON file.*Delete it or write it anew"):
        read_json(path)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No file at .*gone\.json.*existing JSON file"):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_yields_records_with_their_line_numbers(tmp_path, name):
    path = tmp_path / name
    content = '{"a": "ü"}\n\n  \n{"a": 2}\n'.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert list(read_jsonl(path)) == [(1, {"a": "ü"}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{'a': 1}", r"a\.jsonl, line 2: not JSON"), ("[1]", r"a\.jsonl, line 2: expected a JSON object, got list")],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        list(read_jsonl(path))


def _truncated(content):
    return gzip.compress(content)[:-12]


def _no_gzip(content):
    return content


def _overwritten(content):
    whole = gzip.compress(content, mtime=0)
    damaged = whole[:10] + b"\xff" * 4 + whole[14:]
    with pytest.raises(zlib.error):
        gzip.decompress(damaged)
    return damaged


@pytest.mark.parametrize("damage", [_truncated, _no_gzip, _overwritten])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damage(b'{"a": 1}\n' * 50))
    with pytest.raises(UserError, match=r"a\.jsonl\.gz cannot be read"):
        list(read_jsonl(path))


def test_a_missing_jsonl_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No file at .*gone\.jsonl"):
        list(read_jsonl(tmp_path / "gone.jsonl"))


def test_an_input_is_hashed_again_when_it_has_changed(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == input_sha256(path) == known
    with monkeypatch.context() as patch:
        patch.setattr("sae_lens_contrastive.files.file_sha256", lambda _path: pytest.fail("read twice"))
        assert input_sha256(path) == known
    path.write_bytes(b"longer")
    assert input_sha256(path) == file_sha256(path) != known


def test_an_input_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none cannot be read: No such file"):
        input_sha256(tmp_path / "none")
