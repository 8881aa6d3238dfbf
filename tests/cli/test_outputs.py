"""Outputs: what is there already is left as it is without --force."""

from pathlib import Path

import pytest

from nfspec.cli.outputs import place, require_free, require_own
from nfspec.errors import InputError


def test_a_file_that_exists_is_refused_without_force(tmp_path: Path) -> None:
    file = tmp_path / "a"
    require_free(file, force=False)
    file.touch()
    with pytest.raises(InputError, match="--force"):
        require_free(file, force=False)
    require_free(file, force=True)
    with pytest.raises(InputError, match="not a regular file"):
        require_free(tmp_path, force=True)


def test_a_folder_of_something_else_is_refused_without_force(tmp_path: Path) -> None:
    require_own(tmp_path, "results.json", force=False)
    (tmp_path / "notes").touch()
    with pytest.raises(InputError, match=r"no results\.json"):
        require_own(tmp_path, "results.json", force=False)
    require_own(tmp_path, "results.json", force=True)
    (tmp_path / "results.json").touch()
    require_own(tmp_path, "results.json", force=False)


def test_a_file_that_came_to_be_meanwhile_is_kept(tmp_path: Path) -> None:
    made, file = tmp_path / "made", tmp_path / "file"
    made.write_text("new")
    file.write_text("theirs")
    with pytest.raises(InputError, match="--force"):
        place(made, file, force=False)
    assert file.read_text() == "theirs"
    place(made, file, force=True)
    assert file.read_text() == "new"
