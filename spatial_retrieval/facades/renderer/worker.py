"""A process that renders landmarks: a job as JSON on stdin, finished numbers on stdout.

An ordinary subprocess, rather than one of `multiprocessing`, because it works from notebooks, from
scripts without a main guard, and from inside daemonic processes.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import cv2

from spatial_retrieval.facades.renderer.render import Job, render_landmark

__all__ = ["render_in_processes"]


def render_in_processes(
    job: Job, landmarks: Sequence[int], workers: int, report: Callable[[], object]
) -> None:
    """Render landmarks in `workers` processes; `report` is called after each landmark.

    Raises:
        OSError: if a worker fails, with the last line that it said.
    """
    running: list[subprocess.Popen[str]] = []
    lock = threading.Lock()

    def run(share: Sequence[int]) -> None:
        process = _start()
        running.append(process)
        assert process.stdin and process.stdout and process.stderr
        with process:
            with suppress(BrokenPipeError):  # it ended before it read; its exit code says more
                process.stdin.write(json.dumps(asdict(job) | {"landmarks": list(share)}))
            with suppress(BrokenPipeError):
                process.stdin.close()
            for _ in process.stdout:
                with lock:
                    report()
            said = process.stderr.read().strip().splitlines()
        if process.returncode:
            raise OSError(f"rendering Twin Façades failed: {said[-1] if said else 'no reason'}")

    shares = [landmarks[k::workers] for k in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(run, shares))
        finally:  # after an error or an interrupt the others need not finish
            for process in running:
                if process.poll() is None:
                    process.kill()


def _start() -> "subprocess.Popen[str]":
    home = str(Path(__file__).parents[3])
    paths = [home, os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "spatial_retrieval.facades.renderer.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)},
    )


def _main() -> None:
    cv2.setNumThreads(1)
    wanted = json.load(sys.stdin)
    landmarks = wanted.pop("landmarks")
    job = Job(**wanted)
    for landmark in landmarks:
        render_landmark(job, landmark)
        print(landmark, flush=True)


if __name__ == "__main__":
    _main()
