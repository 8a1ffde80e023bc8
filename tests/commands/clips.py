"""Clips that a real ffmpeg makes, and what a real ffprobe says of files."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

#: One clip: a picture that moves, and a tone.
MAKE = (
    "ffmpeg -v error -nostdin -y -f lavfi -i testsrc=size=160x90:rate=25:duration={seconds} "
    "-f lavfi -i sine=frequency=440:duration={seconds} "
    "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -threads 1 {path}"
)
#: Another codec in another container.
TRANSCODE = "ffmpeg -v error -nostdin -y -i {input} -c:v libx264 -preset ultrafast -crf {params[crf]} -c:a copy -threads 1 {video}"


def make(path: Path, seconds: float) -> Path:
    """A clip."""
    subprocess.run(shlex.split(MAKE.format(seconds=seconds, path=shlex.quote(str(path)))), check=True)
    return path


def probe(path: Path | str) -> tuple[float, set[str]]:
    """How long a file plays, and its codecs."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration:stream=codec_name", "-of", "json", str(path)]
    told: Any = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return float(told["format"]["duration"]), {stream["codec_name"] for stream in told["streams"]}


def at_work(words: str) -> Iterator[psutil.Process]:
    """Every ffmpeg on this machine whose command line has these words."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if command and Path(command[0]).name == "ffmpeg" and words in " ".join(command):
                yield process
