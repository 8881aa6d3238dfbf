"""The picture of a training: which curves are in it, and that it is written whole or not at all."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nfspec
from nfspec.training.plots import _smooth, confusion, plot


def log(steps=12, stages=("stem", "head"), evaluations=2, start=2.5):
    """Entries as a training writes them."""
    entries = []
    for step in range(1, steps + 1):
        entry = {"step": step, "epoch": step / 4, "loss": start / step, "accuracy": step / 100}
        entry |= {"rate": 0.1 * step, "images_per_second": 50.0}
        if stages:
            parts = {stage: step / (50 * (n + 1)) for n, stage in enumerate(stages)}
            entry |= {"clip_fraction": step / 80, "clip_fraction_of": parts}
        entries.append(entry)
        if evaluations and step % max(1, steps // evaluations) == 0:
            held = {"top1": step / 120, "top5": step / 60, "held_out_loss": 3.0 / step}
            entries.append({"step": step, "epoch": step / 4, **held, "held_out_images": 9})
    return entries


@pytest.fixture
def figures(monkeypatch):
    """Figures that would be saved; saving one takes half a second and is left out."""
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *arguments, **how: saved.append(self))
    return saved


def drawn(runs, path, figures):
    """The four axes of a picture."""
    plot(runs, path)
    return figures[-1].axes


def curves(axes):
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]


def legend(axes):
    return axes.get_legend() and [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("runs", [{"a": log()}, {"a": log(), "b": log(stages=())}])
def test_a_png_is_written(tmp_path, runs):
    plot(runs, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (1200, 840)
        assert len(image.getcolors(10_000)) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_one_run_has_a_curve_for_each_number_and_each_stage(tmp_path, figures):
    entries = log()
    loss, accuracy, rate, clip = drawn({"mine": entries}, tmp_path / "a.png", figures)
    epochs = [n / 4 for n in range(1, 13)]
    # Differences of running sums, each of less than 8 and so off by 2^-50 and more with each term.
    smooth = pytest.approx([2.5 / n for n in range(1, 13)], rel=0, abs=12 * 2**-50)
    assert curves(loss)[0] == (epochs, smooth)
    assert curves(loss)[1] == ([1.5, 3.0], [0.5, 0.25])
    assert curves(accuracy)[1] == ([1.5, 3.0], [6 / 120, 12 / 120])
    assert curves(rate) == [(epochs, [0.1 * n for n in range(1, 13)])]
    assert [line.get_label() for line in clip.lines] == legend(clip) == ["stem", "head"]
    for n, (at, values) in enumerate(curves(clip), 1):
        assert at == epochs
        fractions = [step / (50 * n) for step in range(1, 13)]
        assert values == pytest.approx(fractions, rel=0, abs=12 * 2**-53)  # sums of less than 2
    assert len(loss.lines) == len(accuracy.lines) == 2
    assert legend(loss) == ["mine"]
    titles = ["loss (- - held out)", "accuracy (- - held out)", "learning rate", "clip fraction"]
    assert [axes.get_title() for axes in (loss, accuracy, rate, clip)] == titles
    assert (loss.get_ylim()[0], accuracy.get_ylim()[1], clip.get_ylim()) == (0.0, 1.0, (0.0, 1.0))


def test_of_several_runs_the_whole_fraction_is_shown(tmp_path, figures):
    runs = {"a": log(), "b": log(steps=8), "c": log(steps=4)}
    loss, accuracy, rate, clip = drawn(runs, tmp_path / "a.png", figures)
    assert legend(loss) == ["a", "b", "c"]
    assert legend(clip) is None
    assert [len(axes.lines) for axes in (loss, accuracy, rate, clip)] == [6, 6, 3, 3]
    assert curves(rate)[1] == ([n / 4 for n in range(1, 9)], [0.1 * n for n in range(1, 9)])
    whole = [n / 80 for n in range(1, 5)]
    assert curves(clip)[2][1] == pytest.approx(whole, rel=0, abs=2**-52)  # a sum of four below 1


def test_each_run_has_a_colour_and_equal_ones_are_all_seen(tmp_path, figures):
    _, _, rate, clip = drawn({"a": log(), "b": log(), "c": log()}, tmp_path / "a.png", figures)
    for axes in (rate, clip):
        assert [line.get_color() for line in axes.lines] == ["C0", "C1", "C2"]
        widths = [line.get_linewidth() for line in axes.lines]
        assert widths == sorted(set(widths), reverse=True)  # what is drawn first is wider


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_runs_that_do_not_clip(tmp_path, figures, names):
    clip = drawn({name: log(stages=()) for name in names}, tmp_path / "a.png", figures)[3]
    assert curves(clip) == []
    assert legend(clip) is None


def test_one_run_clips_and_the_other_does_not(tmp_path, figures):
    runs = {"a": log(stages=()), "b": log()}
    clip = drawn(runs, tmp_path / "a.png", figures)[3]
    assert [line.get_color() for line in clip.lines] == ["C1"]


@pytest.mark.parametrize("entries", [log(1, evaluations=0), log(3, evaluations=0), log(1)])
def test_short_runs_and_runs_without_an_evaluation(tmp_path, figures, entries):
    loss = drawn({"a": entries}, tmp_path / "a.png", figures)[0]
    assert len(curves(loss)[0][0]) == sum("loss" in entry for entry in entries)


@pytest.mark.parametrize("entries", [[], log(1)[1:]])
def test_a_log_without_a_step_is_refused_and_nothing_written(tmp_path, entries):
    with pytest.raises(nfspec.InputError) as error:
        plot({"a": log(), "b": entries}, tmp_path / "a.png")
    assert str(error.value) == "b: its log has no step yet; train first"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["_mine", "a$b", "é", "a b.c-d"])
def test_a_runs_name_is_shown(tmp_path, figures, name):
    """Though matplotlib hides what begins with an underscore."""
    loss = drawn({name: log()}, tmp_path / "a.png", figures)[0]
    assert [text.replace("\\$", "$").strip() for text in legend(loss)] == [name]


def test_a_runs_name_is_not_set_as_a_formula(tmp_path):
    plot({r"lr_$1^{$": log(4)}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_a_picture_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"the old one")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"cannot be written: No space left"):
            plot({"a": log()}, path)
    assert path.read_bytes() == b"the old one"
    plot({"a": log()}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "missing" / "a.png"
    with pytest.raises(OSError, match="cannot be written: No such file"):
        plot({"a": log()}, path)


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(nfspec.InputError) as error:
        plot({"a": log()}, tmp_path / "a.png")
    assert str(error.value) == "matplotlib not installed; run: pip install matplotlib"


# smoothing


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 250, 1000, 1234])
def test_smoothing_is_the_mean_of_neighbours(count):
    """Whole numbers, whose sums are exact whatever the order."""
    values = np.random.default_rng(count).integers(-1000, 1000, count).tolist()
    half = count // 100
    expected = []
    for place in range(count):
        near = values[max(0, place - half) : place + half + 1]
        expected.append(sum(near) / len(near))
    assert _smooth(values).tolist() == expected


def test_short_curves_stay_as_they_are():
    values = [1.5, 0.25, -3.0] * 33
    assert _smooth(values).tolist() == values


def test_what_is_straight_stays_straight():
    """At the ends, neighbours are on one side alone."""
    smooth = _smooth([float(n) for n in range(1000)])
    assert smooth[10:-10].tolist() == list(range(10, 990))
    assert (smooth[0], smooth[-1]) == (5.0, 994.0)


@pytest.mark.parametrize("count", [1, 3, 41])
def test_confusion_is_drawn_for_any_number_of_classes(count, tmp_path):
    """And for names that matplotlib would take for a formula, that are long, or of letters that its
    font has not, of which it would warn."""
    names = [f"$_{n}猫" * 20 for n in range(count)]
    matrix = np.diag(np.arange(count))  # no image of the first class
    confusion(matrix, names, tmp_path / "cm.png")
    with Image.open(tmp_path / "cm.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
