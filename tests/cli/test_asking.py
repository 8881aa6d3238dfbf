"""Progress of the commands that ask a network about many images."""

from nfspec.cli import asking


def test_lines_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(asking.time, "monotonic", lambda: now[0])
    with asking.counting(1_500) as step:
        step(16)
        now[0] += 31
        step(1_000)
        step(16)
    assert capsys.readouterr().err == "1,016 of 1,500 images\n"
