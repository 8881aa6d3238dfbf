"""The table of generated files: a row for each run."""

from dataclasses import replace

from nfspec.conformance.report.sources import HEAD, markdown

from ..sample_results import all_pass


def test_a_row_for_each_run():
    run = all_pass()
    name = run.columns[0].name
    column = replace(run.columns[0], subject="torch-source")
    cells = [cell for cell in run.cells if cell.column == name]
    cells[0] = replace(cells[0], cases=0, verdict="not offered")
    spec = {"name": "moth", "source": "moth.toml", "digest": "0123456789abcdef" * 4}
    one = replace(run, columns=[column], cells=cells, spec=spec)
    *_, head, _, first, second = markdown([one, one]).splitlines()
    assert head == f"| {' | '.join(HEAD)} |"
    assert first == second
    assert first.startswith(f"| `torch-source` | moth | `0123456789abcdef` | {one.verdict} | ")
    assert f" | {len(cells) - 1} of {len(cells)} | " in first
