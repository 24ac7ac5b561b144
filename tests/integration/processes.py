"""Commands as processes of their own, and what they leave behind."""

import contextlib
import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch

from sae_lens_contrastive.cli import main

# Forked from a process that has imported everything and started nothing: a command begins in a moment.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sae_lens_contrastive.study", "sae_lens_contrastive.sweep", "matplotlib.pyplot"])


def command(arguments, folder, prepare=None, said=os.devnull):
    """What a process does: `prepare`, then a command of ours in a folder, with what it says in a file."""
    os.chdir(folder)
    torch.set_num_threads(1)
    with Path(said).open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        if prepare is not None:
            prepare()
        sys.exit(main(arguments))


def started(arguments, folder, prepare=None, said=os.devnull):
    """A process that runs a command."""
    process = CONTEXT.Process(target=command, args=(arguments, folder, prepare, said))
    process.start()
    return process


def ended(arguments, folder, prepare=None, said=os.devnull):
    """Exit code of a command."""
    process = started(arguments, folder, prepare, said)
    process.join()
    return process.exitcode


def contents(out):
    """Every file below a folder that is a result; times apart."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        content = path.read_bytes()
        # SAEBench's format names the moment and a new identity of every evaluation; figures draw what is compared.
        if path.suffix == ".json" and "saebench" not in path.parts:
            found[path.relative_to(out)] = _without_seconds(json.loads(content))
        elif path.suffix == ".safetensors":
            found[path.relative_to(out)] = content
        else:
            found[path.relative_to(out)] = None
    return found


def _without_seconds(value):
    if isinstance(value, dict):
        return {key: _without_seconds(item) for key, item in value.items() if "seconds" not in key}
    return [_without_seconds(item) for item in value] if isinstance(value, list) else value
