"""The command line: what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import make_model
from tests.reader_files import SmallFace, write_basel_h5, write_ict, write_tddfa_folder
from twodasl_lite.apps import cli
from twodasl_lite.apps.commands.progress import ProgressBar
from twodasl_lite.base.cache import CACHE_VARIABLE
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.readers import FORMATS, ict_download
from twodasl_lite.geometry.coefficients import Whitening


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "small.npz"
    make_model().save(path)
    return path


def test_help_names_every_command(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown and line in shown for name, line, _ in cli.COMMANDS)
    with pytest.raises(SystemExit) as caught:
        cli.main(["models", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(action in shown for action in ("list", "info", "convert", "get"))


def test_help_loads_no_command() -> None:
    code = "import sys; from twodasl_lite.apps.cli import make_parser; make_parser().format_help(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scipy", "twodasl_lite.apps.commands.models", "twodasl_lite.faces"} & set(run.stdout.split())


@pytest.mark.parametrize("words", [[], ["nothing"], ["models"], ["models", "info"], ["models", "get", "bfm"]])
def test_words_that_are_not_understood(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: twodasl" in capsys.readouterr().err


def test_list_shows_every_format(capsys) -> None:
    assert cli.main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(entry.kind in shown and entry.title in shown and entry.license in shown for entry in FORMATS)
    assert 'pip install "twodasl_lite[models]"' in shown


def test_info(model_file, capsys) -> None:
    assert cli.main(["models", "info", str(model_file)]) == 0
    shown = capsys.readouterr().out
    for line in ("kind        twodasl", "vertices    90, 90 triangles", "licence     none", "regions     face, last",
                 "shape       5 components, std 1 to 2", "colours     mean and 4 components"):  # fmt: skip
        assert line in shown
    assert cli.main(["models", "info", "--license", str(model_file)]) == 0
    assert capsys.readouterr().out.endswith("\nnone\n")


def test_what_goes_wrong_is_one_message(tmp_path, model_file, capsys) -> None:
    for words, found in (
        (["info", str(tmp_path / "gone.npz")], "gone.npz: found no such file; expected a face model"),
        (["info", str(model_file), "--vertices", "front"], "--vertices: not an option for twodasl"),
        (["convert", str(model_file), str(tmp_path / "out.mat")], "found the suffix '.mat'; expected .npz"),
        (["convert", str(model_file), str(model_file)], "exists already; --force overwrites it"),
        (
            ["convert", str(model_file), str(tmp_path / "out.npz"), "--shape", "9"],
            "num_shape: found 9; expected 0 to 5",
        ),
        (
            ["convert", str(model_file), str(tmp_path / "o.npz"), "--save-whitening", str(tmp_path / "w.npz")],
            "has none",
        ),
    ):
        assert cli.main(["models", *words]) == 1
        shown = capsys.readouterr().err
        assert found in shown
        assert shown.startswith("twodasl: ")
        assert "Traceback" not in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.npz"]


def test_convert(tmp_path, capsys) -> None:
    source = write_basel_h5(tmp_path / "model2019_face12.h5", SmallFace())
    np.savetxt(tmp_path / "marks.txt", np.arange(68), fmt="%d")
    out = tmp_path / "new" / "bfm.npz"
    words = ["models", "convert", str(source), str(out), "--landmarks", str(tmp_path / "marks.txt"), "--units", "cm"]
    assert cli.main([*words, "--shape", "4", "--expression", "2"]) == 0
    assert f"TWODASL_FACE_MODEL={out.resolve()}" in capsys.readouterr().out
    model = MorphableModel.load(out)
    assert (model.num_shape, model.num_expression, model.units) == (4, 2, "cm")
    assert "non-commercial" in model.license
    assert "from marks.txt" in model.source
    assert cli.main([*words, "--force"]) == 0
    assert MorphableModel.load(out).num_shape == 5


def test_convert_with_the_whitening(tmp_path) -> None:
    folder = write_tddfa_folder(tmp_path / "train.configs", SmallFace(40, 10))
    out, whitening = tmp_path / "bfm.npz", tmp_path / "whitening.npz"
    assert cli.main(["models", "convert", str(folder), str(out), "--save-whitening", str(whitening)]) == 0
    assert Whitening.load(whitening).mean.shape == (62,)


def test_get_ict(tmp_path, capsys, monkeypatch) -> None:
    repository = tmp_path / "ICT-FaceKit"
    write_ict(repository, expressions=("cheekRaiser_L", "cheekRaiser_R", "jawOpen"))
    monkeypatch.setattr(ict_download, "_NUM_IDENTITY", 2)
    monkeypatch.setattr(ict_download, "SHA256", ict_download.digest(repository / "FaceXModel"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    words = ["models", "get", "ict", "--source", str(repository)]
    assert cli.main(words) == 0
    assert "MIT" in capsys.readouterr().out
    (out,) = (tmp_path / "cache").glob("*.npz")
    model = MorphableModel.load(out)
    assert "Copyright (c) 2020 Somebody" in model.license
    assert ict_download.COMMIT in model.source
    # Once there, it is not fetched again.
    shutil.rmtree(repository)
    assert cli.main(words) == 0
    assert f"written: {out}" not in capsys.readouterr().err
    # Another version is refused, and what was there stays.
    write_ict(repository, expressions=("cheekRaiser_L", "cheekRaiser_R", "mouthClose"))
    assert cli.main([*words, "--force"]) == 1
    assert "files with the checksum" in capsys.readouterr().err
    assert MorphableModel.load(out).num_expression == 3
    assert cli.main([*words[:-1], str(tmp_path / "nowhere"), "--force"]) == 1
    assert "git clone https://github.com/ICT-VGL/ICT-FaceKit" in capsys.readouterr().err


def test_interruptions(monkeypatch, capsys) -> None:
    def interrupted(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("twodasl_lite.apps.commands.models._list", interrupted)
    assert cli.main(["models", "list"]) == 130
    assert capsys.readouterr().err == "twodasl: interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = (
        f"{sys.executable} -c \"import sys; from twodasl_lite.apps import cli; sys.exit(cli.main(['models', 'list']))\""
    )
    run = subprocess.run(["sh", "-c", f"{command} | true"], capture_output=True, text=True, check=False)
    assert run.stderr == ""


def test_the_progress_bar_draws_on_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        bar = ProgressBar("reading", stream)
        for done in range(1, 1001):
            bar(done, 1000)
    assert file.getvalue() == ""
    assert terminal.getvalue().count("\r") == 101
    assert terminal.getvalue().endswith(f"\rreading [{'#' * 30}] 100 % (1000/1000)\n")


@pytest.mark.parametrize(("option", "value"), [("--jobs", "0"), ("--jobs", "-2"), ("--threads", "0")])
def test_numbers_of_processes_are_at_least_one(option: str, value: str, tmp_path, capsys) -> None:
    assert cli.main(["ablate", option, value, "--out", str(tmp_path / "runs")]) == cli.FAILED
    assert f"{option}: found {value}; expected 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
