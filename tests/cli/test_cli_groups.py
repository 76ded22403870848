import csv
import shutil

import pytest

from spatial_retrieval.cli import main


@pytest.fixture
def indexed(photographs, tmp_path, capsys):
    shutil.copy(photographs / "place0/view 0.jpg", photographs / "copy <1>.jpg")
    assert main(["index", str(photographs), "-o", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    return tmp_path / "index"


def test_duplicates_names_the_copy(indexed, capsys):
    assert main(["duplicates", str(indexed), "--threshold", "0.999"]) == 0
    printed = capsys.readouterr().out
    assert "1  copy <1>.jpg\n" in printed and "1  place0/view 0.jpg\n" in printed
    assert "2 of 7 photographs in 1 groups" in printed


def test_clusters_as_csv_and_page(indexed, tmp_path, capsys):
    table, page = tmp_path / "groups.csv", tmp_path / "groups.html"
    call = ["clusters", str(indexed), "--threshold", "0", "--csv", str(table), "--html", str(page)]
    assert main(call) == 0
    assert capsys.readouterr().out == "7 of 7 photographs in 1 groups\n"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and rows[0] == {"group": "1", "name": "copy <1>.jpg"}
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == 7 and "copy &lt;1&gt;.jpg" in text and "<1>" not in text


def test_no_index_is_a_wrong_call(tmp_path, capsys):
    assert main(["duplicates", str(tmp_path / "gone")]) == 2
    assert "no such index" in capsys.readouterr().err
