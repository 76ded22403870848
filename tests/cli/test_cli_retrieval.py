import json
import subprocess
import sys

import numpy as np
import pytest
from pictures import draw

from spatial_retrieval.cli import main


@pytest.fixture
def indexed(photographs, tmp_path, capsys):
    assert main(["index", str(photographs), "-o", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    return tmp_path / "index"


def fails(capsys, code, *argv):
    """Run a command that must fail, and return its one line on stderr."""
    try:
        found = main([str(part) for part in argv])
    except SystemExit as stop:
        found = stop.code
    printed = capsys.readouterr()
    assert found == code, printed.err
    assert "Traceback" not in printed.err
    return printed.err.strip().splitlines()[-1]


def test_embed_writes_names_and_unit_rows(photographs, tmp_path, capsys):
    target = tmp_path / "rows.npz"
    assert main(["embed", str(photographs), "-o", str(target)]) == 0
    with np.load(target, allow_pickle=False) as found:
        assert found["names"][0] == "place0/view 0.jpg" and len(found["names"]) == 6
        assert found["descriptors"].shape[0] == 6 and found["descriptors"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found["descriptors"], axis=1), 1, atol=1e-5)
    assert "6 photographs described" in capsys.readouterr().out


def test_search_ranks_the_same_photograph_first(indexed, photographs, capsys):
    assert main(["search", str(indexed), str(photographs / "place1/view 3.jpg"), "-k", "3"]) == 0
    printed = capsys.readouterr()
    rank, score, name = printed.out.splitlines()[0].split(maxsplit=2)
    assert (rank, name) == ("1", "place1/view 3.jpg") and float(score) > 0.999
    assert len(printed.out.splitlines()) == 3
    assert all(stage in printed.err for stage in ("decode", "describe", "search"))


def test_search_as_json_with_a_box(indexed, photographs, capsys):
    image = photographs / "place0/view 0.jpg"
    assert main(["search", str(indexed), str(image), "--box", "0,0,96,64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["rank"] for r in found["results"]] == [1, 2, 3, 4, 5, 6]
    assert found["results"][0]["name"] == "place0/view 0.jpg"
    assert list(found["milliseconds"]) == ["decode", "describe", "search"]


def test_index_reports_what_it_set_aside(photographs, tmp_path, capsys):
    (photographs / "note.jpg").write_text("text")
    assert main(["index", str(photographs), "-o", str(tmp_path / "i")]) == 0
    printed = capsys.readouterr()
    assert "6 described, 6 in the index" in printed.out
    assert "set aside note.jpg" in printed.err
    assert f"set aside: 1 files; all are in {tmp_path / 'i' / 'set-aside.json'}" in printed.err
    assert list(json.loads((tmp_path / "i" / "set-aside.json").read_text())) == ["note.jpg"]


def test_a_long_list_of_set_aside_files_is_cut_on_the_screen(photographs, tmp_path, capsys):
    for i in range(30):
        (photographs / f"{i}\n.jpg").write_text("text")
    assert main(["index", str(photographs), "-o", str(tmp_path / "i")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("set aside ")]) == 20
    assert "set aside 0\\n.jpg:" in lines[0] and "set aside: 30 files" in lines[-1]


def test_shards_are_merged(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spatial_retrieval.indexing._CHUNK", 2)
    call = [str(photographs), "-o", str(tmp_path / "i")]
    assert main(["index", *call, "--shard", "1/2"]) == 0
    assert "2 described, part 1/2" in capsys.readouterr().out
    assert "are in no part; index them first" in fails(capsys, 1, "merge", *call)
    assert main(["index", *call, "--shard", "0/2"]) == 0
    assert main(["merge", *call]) == 0
    assert "0 described, 6 in the index" in capsys.readouterr().out
    for wrong in ("2/2", "1", "a/b", "-1/2"):
        assert "expected i/n with 0" in fails(capsys, 2, "index", *call, f"--shard={wrong}")


def test_verify_checks_every_byte(indexed, photographs, capsys, monkeypatch):
    monkeypatch.setattr("spatial_retrieval.index.disk._CHECKED", 0)
    call = [str(photographs), "-o", str(indexed), "--verify"]
    assert main(["index", *call]) == 0
    assert "every byte checked" in capsys.readouterr().out
    path = next(indexed.glob("segment-*"))
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert "damaged index" in fails(capsys, 1, "index", *call)


def test_the_way_of_searching_is_chosen_and_measured(indexed, photographs, capsys):
    call = ["index", str(photographs), "-o", str(indexed), "--measure"]
    assert main([*call, "--index", "SQfp16"]) == 0
    assert "SQfp16: recall@1 1.000 · " in capsys.readouterr().out
    assert main(call) == 0
    assert "SQfp16: recall@1 1.000 · " in capsys.readouterr().out
    assert main([*call, "--index", "exact"]) == 0
    assert "exact: recall@1 1.000 · " in capsys.readouterr().out
    assert "expected a FAISS factory string" in fails(capsys, 1, *call, "--index", "magic")


def test_engine_device_and_precision(photographs, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("spatial_retrieval.cli.retrieval._MANY", 1)
    rows = {}
    for name, options in {
        "torch": ["--engine", "torch"],
        "onnx": ["--engine", "onnx", "--device", "cpu"],
        "auto": [],
        "half": ["--half", "--engine", "torch"],
    }.items():
        target = tmp_path / f"{name}.npz"
        assert main(["embed", str(photographs), "-o", str(target), *options]) == 0
        with np.load(target) as found:
            rows[name] = found["descriptors"]
    for name, lowest in {"onnx": 0.99999, "auto": 0.99999, "half": 0.99}.items():
        assert (rows["torch"] * rows[name]).sum(axis=1).min() > lowest
    assert not np.array_equal(rows["torch"], rows["onnx"])  # it was another engine
    call = ["embed", str(photographs), "-o", "x.npz"]
    assert "float32" in fails(capsys, 1, *call, "--half", "--engine", "onnx")
    assert "invalid choice" in fails(capsys, 2, *call, "--engine", "magic")


def test_search_by_milvus(indexed, photographs, tmp_path, capsys):
    pytest.importorskip("milvus_lite")
    address = f"milvus://{tmp_path}/lite.db/rows"
    assert main(["index", str(photographs), "-o", str(indexed), "--index", address]) == 0
    image = str(photographs / "place1/view 3.jpg")
    assert main(["search", str(indexed), image, "--milvus", address, "-k", "2"]) == 0
    assert "place1/view 3.jpg" in capsys.readouterr().out.splitlines()[-2]
    line = fails(capsys, 1, "search", indexed, image, "--milvus", "milvus://nowhere")
    assert "expected milvus://HOST:PORT/COLLECTION" in line


def test_the_index_of_another_folder_needs_replace(indexed, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    draw(9).save(tmp_path / "b" / "b.jpg")
    call = [str(tmp_path / "b"), "-o", str(indexed)]
    assert "is the index of" in fails(capsys, 1, "index", *call)
    assert main(["index", *call, "--replace"]) == 0


@pytest.mark.parametrize("command", ["embed", "index"])
def test_wrong_folders_are_a_wrong_call(command, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    target = tmp_path / "out"
    assert "no such folder" in fails(capsys, 2, command, tmp_path / "gone", "-o", target)
    assert "holds no photograph" in fails(capsys, 2, command, tmp_path / "empty", "-o", target)
    (tmp_path / "empty" / "a.jpg").write_text("text")
    assert "none of 1 files" in fails(capsys, 1, command, tmp_path / "empty", "-o", target)
    assert not target.exists() or not any(p.is_file() for p in target.rglob("*.json"))


def test_wrong_options_are_a_wrong_call(indexed, photographs, capsys):
    image = photographs / "place0/view 0.jpg"
    wrong = [
        (["--box", "5,5,1,1"], "expected X0 < X1"),
        (["--box", "a,b,c,d"], "expected X0,Y0,X1,Y1"),
        (["--box", "500,500,600,600"], "inside the 96×64 image"),
        (["-k", "0"], "at least 1"),
        (["-k", "many"], "at least 1"),
        (["--rerank", "magic"], "--rerank: expected a re-ranker of none, aqe, dba+aqe, "),
    ]
    for options, message in wrong:
        assert message in fails(capsys, 2, "search", indexed, image, *options)
    assert "no such photograph" in fails(capsys, 2, "search", indexed, "gone.jpg")
    assert "no such index" in fails(capsys, 2, "search", "gone", image)
    assert "expected one of" in fails(
        capsys, 2, "embed", photographs, "-o", "x.npz", "--model", "lite9"
    )
    assert "required" in fails(capsys, 2, "embed", photographs)


def test_a_broken_query_fails_in_one_line(indexed, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    assert "bad.jpg" in fails(capsys, 1, "search", indexed, tmp_path / "bad.jpg")


def test_a_flipped_byte_in_an_index_is_noticed(indexed, photographs, capsys):
    path = next(indexed.glob("segment-*"))
    damaged = bytearray(path.read_bytes())
    damaged[500] ^= 1
    path.write_bytes(damaged)
    image = photographs / "place0/view 0.jpg"
    assert "damaged index" in fails(capsys, 1, "search", indexed, image)


def test_an_index_of_another_model_is_refused(indexed, photographs, tmp_path, capsys):
    from spatial_retrieval import ModelConfig, build_model

    build_model(ModelConfig(layer="stage2")).save_pretrained(tmp_path / "other")
    image = photographs / "place0/view 0.jpg"
    line = fails(capsys, 1, "search", indexed, image, "--model", tmp_path / "other")
    assert "built with another model" in line


def test_an_unreadable_file_is_set_aside(photographs, tmp_path, capsys):
    (photographs / "loop.jpg").symlink_to(photographs / "nowhere.jpg")
    assert main(["index", str(photographs), "-o", str(tmp_path / "i")]) == 0
    assert "set aside loop.jpg" in capsys.readouterr().err


def test_debug_shows_the_traceback(indexed, tmp_path):
    draw(0).save(tmp_path / "q.jpg")
    (indexed / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged index"):
        main(["--debug", "search", str(indexed), str(tmp_path / "q.jpg")])


def test_python_m_is_the_same_command():
    run = [sys.executable, "-m", "spatial_retrieval", "--help"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    for command in ("embed", "index", "search", "localize", "evaluate", "train", "data", "demo"):
        assert command in printed
