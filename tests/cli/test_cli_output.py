"""Output is never what ends a run: whatever the locale, whatever the name."""

import os
import subprocess
import sys

import pytest

from spatial_retrieval import cli

ODD = os.fsdecode("Zürich→\n".encode() + b"\xff")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path, encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    call = ["data", "make", "twins", "--landmarks", "1", "--views", "1", "--size", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "spatial_retrieval", *call, "--root", str(tmp_path / ODD)],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "photographs" in done.stdout.decode(encoding)


def test_an_error_with_an_odd_name_is_one_line(tmp_path, capsys):
    assert cli.main(["embed", str(tmp_path / ODD), "-o", str(tmp_path / "x.npz")]) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "Zürich" in lines[0] and r"\udcff" in lines[0]


def test_a_lack_of_memory_is_one_line(monkeypatch, capsys):
    def run(_):
        raise MemoryError

    monkeypatch.setattr("spatial_retrieval.cli.data._make_twins", run)
    assert cli.main(["data", "make", "twins"]) == 1
    assert capsys.readouterr().err == "spatial-retrieval: out of memory\n"
