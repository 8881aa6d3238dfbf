"""The README's blocks run, in the order in which a reader meets them."""

from pages import ROOT, blocks, python, within

import nfspec


def test_its_length():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_python_runs(tmp_path):
    (variant,) = blocks("README.md", "toml")
    (tmp_path / "moth.toml").write_text(variant)
    (program,) = blocks("README.md", "python")
    python(program, tmp_path)


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks("README.md", "sh")
    for command in commands.splitlines():
        within(command)


def test_the_parity_table_is_of_todays_form():
    (table,) = [text for text in blocks("README.md", "text") if "Distance" in text]
    taps = nfspec.resolve(nfspec.load("nfnet-f0")).taps
    rows = [line.split() for line in table.splitlines() if "e-0" in line and ":" not in line]
    assert len(rows) == 8 and {row[0] for row in rows} <= set(taps)
    for _, *distances, bound in rows:
        assert len(distances) == 3
        assert max(map(float, distances)) <= float(bound)
    assert table.splitlines()[-1].startswith("THE SAME NETWORK on jax, torch, tensorflow")
    assert max(map(len, table.splitlines())) <= 80
