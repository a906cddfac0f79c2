"""fastnoise review is killed at any moment, and loses no decision that it has acknowledged."""

import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _forked import Forked
from _review_cases import made_cleaning, photos

from fastnoise.cleaning.decisions import read_decisions
from fastnoise.cleaning.review import DECISIONS
from fastnoise.cli import main

CLASSES = ("a cat", "dög", "owl")

SERVERS = """
import os, random, sys, time
from pathlib import Path
from fastnoise.cleaning.review import ReviewServer

write = os.pwrite


def in_two_parts(file, line, place):
    cut = random.randrange(len(line) + 1)
    written = write(file, line[:cut], place)
    time.sleep(random.random() * 0.004)  # which is when many of the kills come
    return written + write(file, line[cut:], place + cut)


os.pwrite = in_two_parts
for _ in sys.stdin:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("ended", flush=True)
        continue
    with ReviewServer(Path(sys.argv[1])) as server:
        print(os.getpid(), server.address, flush=True)
        server.serve_forever()
"""
"""Serves a review in a new process for each line that it is given, and says when that process has ended."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cleaned")
    photos(root / "photos", CLASSES, 30)
    return made_cleaning(root / "photos", root / "cleaned", lambda path: CLASSES[len(path.name) % 3])


@pytest.fixture
def cleaned(made: Path) -> Path:
    (made / DECISIONS).unlink(missing_ok=True)
    return made


@pytest.fixture
def servers(cleaned: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVERS, str(cleaned)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()


def logged(path: Path) -> list[tuple[str, str | None]]:
    """The decisions in a log, each whole; a last line may be cut off."""
    lines = path.read_bytes().split(b"\n")[:-1]
    fields = [json.loads(line[:-9]) for line in lines]
    return [(each["file"], each["label"]) for each in fields]


def killed_reviews(servers: "subprocess.Popen[str]", cleaned: Path, kills: int, decisions: int) -> tuple[int, int]:
    """Take random decisions while the server is killed again and again, and compare the log after each kill; returns
    how many decisions were acknowledged and how many kills came inside of one."""
    assert servers.stdin is not None
    assert servers.stdout is not None
    random_, path = random.Random(0), cleaned / DECISIONS
    kept: list[tuple[str, str | None]] = []  # what the log must hold
    acknowledged = inside = done = 0
    while done < kills or acknowledged < decisions:
        servers.stdin.write("\n")
        servers.stdin.flush()
        pid, address = servers.stdout.readline().split()
        with urllib.request.urlopen(address) as answer:
            page = answer.read().decode()
        token = re.findall(r'data-token="([^"]+)"', page)[0]
        files = re.findall(r'data-file="([^"]+)"', page)
        threading.Timer(random_.random() * 0.25, os.kill, (int(pid), signal.SIGKILL)).start()
        while True:
            number, label = random_.randrange(len(files)), random_.choice([*CLASSES, None])
            body = json.dumps({"suspect": number, "label": label}).encode()
            request = urllib.request.Request(address + "decide", body, {"X-Token": token})
            try:
                with urllib.request.urlopen(request) as answer:
                    assert answer.read() == b"kept"
            except (OSError, http.client.HTTPException):
                break  # killed
            kept.append((files[number], label))
            acknowledged += 1
        assert servers.stdout.readline() == "ended\n"
        done += 1
        found = logged(path) if path.exists() else []
        inside += not path.read_bytes().endswith(b"\n") if found else 0
        if found != kept:  # the last one may have been written without the answer arriving
            assert found == [*kept, (files[number], label)]
            kept = found
        state: dict[str, Any] = {}
        for file, label in kept:
            state.pop(file, None) if label is None else state.__setitem__(file, label)
        assert read_decisions(path) == state
    return acknowledged, inside


def test_acknowledged_decisions_survive_kills(servers: "subprocess.Popen[str]", cleaned: Path) -> None:
    acknowledged, _ = killed_reviews(servers, cleaned, 12, 20)
    assert acknowledged >= 20


@pytest.mark.slow
def test_a_thousand_decisions_survive_a_hundred_kills(servers: "subprocess.Popen[str]", cleaned: Path) -> None:
    acknowledged, inside = killed_reviews(servers, cleaned, 100, 1000)
    print(f"{acknowledged} decisions acknowledged, {inside} kills inside of a write")
    assert acknowledged >= 1000
    assert inside >= 5, "some kills cut a line off"


def test_a_second_review_is_refused_and_the_first_ends_with_its_decisions_applied(cleaned: Path) -> None:
    first = Forked("review", str(cleaned))
    line = first.stdout.readline()
    address = re.findall(r"http://\S+", line)[0]
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    token, file = (re.findall(rf'{name}="([^"]+)"', page)[0] for name in ("data-token", "data-file"))
    body = json.dumps({"suspect": 0, "label": "owl"}).encode()
    urllib.request.urlopen(urllib.request.Request(address + "decide", body, {"X-Token": token})).close()
    second = Forked("review", str(cleaned))
    said, error = second.communicate(timeout=300)
    assert (second.returncode, said) == (2, "")
    assert error.splitlines() == [
        f"fastnoise: error: {cleaned / DECISIONS}: another review writes to it; end that one first"
    ]
    first.send_signal(signal.SIGINT)
    said, error = first.communicate(timeout=300)
    assert first.returncode == 0, error
    assert f"1 label is decided, in {cleaned / DECISIONS}" in said
    assert (cleaned / "corrected" / "owl" / Path(file).name).is_symlink()


def test_sigterm_ends_a_review_as_ctrl_c_does(cleaned: Path) -> None:
    process = Forked("review", str(cleaned))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (0, "")
    assert "0 labels are decided" in said


def test_decisions_are_applied_without_a_browser(cleaned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(cleaned), "--apply"]) == 0
    assert f"0 labels are decided, in {cleaned / DECISIONS}" in capsys.readouterr().out
