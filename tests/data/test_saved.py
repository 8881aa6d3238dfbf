"""Datasets that Hugging Face's save_to_disk wrote; their form is that of datasets 5.2."""

import json
import pickle

import pyarrow
import pytest

from nfspec.data.saved import is_saved, saved
from nfspec.errors import InputError

from folders import png

NAMES = ["cat", "dog", "eel"]
CLASS = {"names": NAMES, "_type": "ClassLabel"}
IMAGE = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})


def table(images, labels, features=None, kind=None, **names):
    """A table with what datasets says of its columns."""
    features = {"image": {"_type": "Image"}, "label": CLASS} if features is None else features
    facts = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    cells = [{"bytes": image, "path": None} for image in images]
    columns = {
        names.get("image", "image"): pyarrow.array(cells, IMAGE),
        names.get("label", "label"): pyarrow.array(labels, kind),
    }
    return pyarrow.table(columns).replace_schema_metadata(facts)


def write(folder, *tables):
    folder.mkdir(exist_ok=True)
    files = []
    for n, each in enumerate(tables):
        files.append(f"data-{n:05d}-of-{len(tables):05d}.arrow")
        with pyarrow.ipc.new_stream(folder / files[-1], each.schema) as file:
            file.write_table(each)
    state = {"_data_files": [{"filename": name} for name in files], "_fingerprint": "f"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


@pytest.fixture
def folder(tmp_path):
    images = table([png(n) for n in range(3)], [0, 2, 2]), table([png(9)], [0])
    return write(tmp_path / "saved", *images)


def test_images_and_names_of_classes(folder):
    source = saved(folder)
    assert is_saved(folder) and not is_saved(folder.parent)
    assert source.classes == tuple(NAMES) and source.labels.tolist() == [0, 2, 2, 0]
    assert source.keys() == ["0", "1", "2", "3"]
    for number, grey in ((3, 9), (1, 1)):
        assert source.image(number, 3).getpixel((0, 0)) == (grey,) * 3
    with pickle.loads(pickle.dumps(source.opened))(2) as image:
        assert image.getpixel((0, 0)) == (2, 2, 2)
    assert saved(folder, ("eel", "dog", "cat")).labels.tolist() == [2, 0, 0, 2]
    with pytest.raises(InputError, match="row 0: the network has no class 'cat'; it has a, b"):
        saved(folder, ("a", "b"))


def test_labels_that_are_text_or_numbers(tmp_path):
    for labels, classes in ((["b", "a"], ("a", "b")), ([7, 3], ("3", "7"))):
        for features in ({}, {"image": {"_type": "Image"}}, {"image": 3, "target": "x"}):
            made = table([png(), png()], labels, features, label="target")
            source = saved(write(tmp_path / "saved", made))
            assert source.classes == classes and source.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (table([], [], kind=pyarrow.int64()), "no images in it; expected a column of images"),
        (table([png()], [-1]), "row 0: no label, or one of no class: -1"),
        (table([png()], [3]), "row 0: no label, or one of no class: 3"),
        (table([png()], [None]), "row 0: no label, or one of no class: None"),
        (table([png()], [0.5]), "row 0: no label, or one of no class: 0.5"),
        (table([png()], [0], label="mood"), "expected a column of images .* found image, mood"),
        (table([png()], [0], {"image": {"_type": "Audio"}}), "expected a column of images"),
        (table([png()], [0], {"label": {**CLASS, "names": 3}}), "the classes of label are no nam"),
        (table([png()], [0], {"label": {**CLASS, "names": ["a", "a"]}}), "of label are no names"),
    ],
)
def test_what_is_not_taken(made, words, tmp_path):
    with pytest.raises(InputError, match=words):
        saved(write(tmp_path / "saved", made))


def test_images_without_bytes(tmp_path):
    source = saved(write(tmp_path / "saved", table([None, b"no image"], [0, 0])))
    with pytest.raises(InputError, match=r"saved/0: cannot be read \(no bytes of an image"):
        source.image(0, 3)
    with pytest.raises(InputError, match=r"saved/1: cannot be read \(none of"):
        source.image(1, 3)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("{", "state.json: damaged: not what datasets writes"),
        ("[]", "state.json: damaged: not what datasets writes"),
        ("{}", "damaged: expected the names of files in its folder"),
        ('{"_data_files": []}', "damaged: expected the names of files"),
        ('{"_data_files": [3]}', "damaged: expected the names of files"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "damaged: expected the names of files"),
        ('{"_data_files": [{"filename": "b.arrow"}]}', "b.arrow: not an Arrow .*No such file"),
        ('{"_data_files": [{"filename": "a"}], "_indices_files": ["b"]}', "flatten_indices()"),
    ],
)
def test_a_damaged_state(state, words, folder):
    (folder / "state.json").write_text(state)
    with pytest.raises(InputError, match=words):
        saved(folder)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_tables(codec, tmp_path):
    """A few thousand bytes may be as many gigabytes."""
    folder = write(tmp_path / "saved", made := table([bytes(10_000)], [0]))
    options = pyarrow.ipc.IpcWriteOptions(compression=codec)
    with pyarrow.ipc.new_stream(
        folder / "data-00000-of-00001.arrow", made.schema, options=options
    ) as file:
        file.write_table(made)
    with pytest.raises(InputError, match=r"arrow: compressed, so that it could take any amount of"):
        saved(folder)


def test_damaged_tables(folder):
    """Cut, or with places of images that lead out of the file."""
    path = folder / "data-00000-of-00002.arrow"
    whole = path.read_bytes()
    for end in (0, 3, 100, len(whole) // 2):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"00002\.arrow: not an Arrow file that can be read"):
            saved(folder)
    sizes = [len(png(n)) for n in range(3)]
    places = b"".join(n.to_bytes(4, "little") for n in (sizes[0], sum(sizes[:2])))
    assert whole.count(places) == 1
    path.write_bytes(whole.replace(places, (2**30).to_bytes(4, "little") + places[4:]))
    with pytest.raises(InputError, match=r"00002\.arrow: not an Arrow file that can be read"):
        saved(folder)
    path.write_bytes(whole)
    other = table([png()], ["a"])
    write(folder, table([png()], [1]), other)
    with pytest.raises(InputError, match="its files have different columns; save the dataset anew"):
        saved(folder)
