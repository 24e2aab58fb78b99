"""Files appear whole or not at all, and what keeps them from it is told in words."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from splatinit.errors import OutputError
from splatinit.io import atomic
from splatinit.io.atomic import append_text, atomic_path, is_temporary, remove_leftovers, write_json, write_text
from splatinit.io.ply import write_vertices


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "Choose another --out"),
        (errno.EACCES, "Choose another --out"),
        (errno.EIO, "still connected"),
        (errno.ESTALE, "still connected"),
        (errno.ENOTCONN, "still connected"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_a_failed_write_keeps_the_old_file_and_says_why(tmp_path, monkeypatch, number, hint):
    path = tmp_path / "a.json"
    write_json(path, [1])

    def fails(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, function, fails)
            with pytest.raises(OutputError, match=f"a.json could not be written: {os.strerror(number)}") as error:
                write_json(path, [2])
        assert hint in error.value.hint and (error.value.path, error.value.errno) == (path, number)
        assert path.read_text() == "[\n 1\n]\n" and list(tmp_path.iterdir()) == [path]
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", fails)
        with pytest.raises(OutputError, match="could not be written"):
            append_text(path, "x")


def test_errors_that_are_not_about_the_file_pass(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "other" / "photo.jpg").read_bytes()
    with pytest.raises(OSError, match="no number"), atomic_path(tmp_path / "a.txt"):
        raise OSError("no number")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written: Not a directory"):
        write_text(tmp_path / "file" / "sub" / "a.txt", "")


def test_a_file_that_vanished_while_it_was_written_is_told(tmp_path):
    folder = tmp_path / "folder"
    with (
        pytest.raises(OutputError, match="a.txt could not be written: No such file"),
        atomic_path(folder / "a.txt") as temporary,
    ):
        temporary.unlink()
        folder.rmdir()


def test_only_our_leftovers_are_removed(tmp_path):
    names = [".points.tmp-ab_12xyz.ply", ".a b.tmp-00000000.json", ".train.tmp-abcdefgh", ".x.tmp-abcdefgh.png"]
    mine = [".hidden.txt", "a.tmp-abcdefgh.txt", ".x.tmp-short.png", ".x.tmp-TOOUPPER.png", "train.jsonl"]
    for name in (*names, *mine):
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.tmp-abcdefgh").mkdir()
    assert is_temporary(tmp_path / names[0], tmp_path / "points.ply")
    assert not is_temporary(tmp_path / names[0], tmp_path / "splat.ply")
    assert sorted(path.name for path in remove_leftovers(tmp_path.iterdir())) == sorted(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, ".folder.tmp-abcdefgh"])
    with atomic_path(tmp_path / f"{'ß' * 100}.json") as temporary:  # the name of a real one, and not too long
        assert is_temporary(temporary, tmp_path / f"{'ß' * 100}.json") and len(os.fsencode(temporary.name)) < 120


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_ply_is_written_in_one_piece(tmp_path, n):
    vertices = np.zeros(n, [("x", "<f4"), ("red", "u1")])
    write_vertices(tmp_path / "a.ply", vertices)
    assert (tmp_path / "a.ply").read_bytes().endswith(b"end_header\n" + b"\0" * 5 * n)
