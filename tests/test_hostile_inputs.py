"""A few hundred damaged inputs of each kind are read or refused in the promised way, at once.

benchmarks/hostile.py reads as many as one likes, in child processes with limits.
"""

import time
import warnings

import pytest
from hostile_inputs import KINDS, input_of, read_input

COUNTS = {"image": 400, "exif": 300, "config": 8, "checkpoint": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs_are_read_or_refused(kind, tmp_path):
    mark = tmp_path / "executed"
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(COUNTS.get(kind, 150)):
            data = input_of(kind, 0, number, mark)
            start = time.process_time()
            wrong, refused = read_input(kind, data, tmp_path)
            assert not wrong, f"benchmarks/hostile.py --only {kind}:{number}: {wrong}"
            assert time.process_time() - start < 10 and not mark.exists()
            found.append(refused)
    assert any(found) or kind == "exif"  # a damaged EXIF block refuses no photograph


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_examples_are_read(kind, tmp_path):
    for data in KINDS[kind].seeds("")[:1]:
        assert read_input(kind, data, tmp_path) == ("", False)
