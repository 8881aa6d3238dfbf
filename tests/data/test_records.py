"""Images in TFRecord and ArrayRecord files, and files that are none."""

import base64
import pickle
import struct

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from nfspec.data.records import is_records, recorded
from nfspec.errors import InputError

from folders import example, png, records

# What TensorFlow 2.21 wrote, with a grey pixel of 40 and one of 50.
TENSORFLOWS = base64.b85decode(
    "tpET300000KPgfe3aSAL8VV6<ZDD6+FJo+Bb8|0jVPa)$5(OFq3IPKO8wwC<ZDD6+FJo+Bb8|0rWq5QF2MPrW17l%y3K"
    "a?kVsCh5a}o>^3JM4S002J#0DwOVSPBhkZDD6+FJ*3HZ)9a;5=RO}3PXudPDc$28VUda01Zh<L{b0%00961009U90000"
    "wew$SQ000U}L_t(|oMX@c001fgDQhuQa{vGU07*qoM6N<$g6T#f%B=tZ0000006!^G7z(NZ3K|L#X>DO=WiMlFVRLgYY"
    "++($Y!U?;0}25F3L6R#X>DO=WiMlFVRLgYbY*yS5(f$e3Ik(dbP5#;1!8Y_Wpfe?5()|k0000#004kL3RnsaX>DO=WiM"
    "rJV{c?-WD-XTMG8ZSP)<h;3K|Lk000e1NJLTq000310003900000I)0l~0000ANkl<Zc${M}0ssIs05i^mByRu!002ov"
    "PDHLkV1gqRH<J"
)
ONE = example(image=png(10), label=1)


def grey(source, number):
    return source.image(number, 3).getpixel((0, 0))[0]


def test_what_tensorflow_wrote(tmp_path):
    path = tmp_path / "train.tfrecord-00000-of-00002"
    path.write_bytes(TENSORFLOWS)
    source = recorded([path])
    assert source.classes == ("1", "3") and source.labels.tolist() == [1, 0]
    assert (grey(source, 1), grey(source, 0)) == (50, 40)
    assert source.keys() == ["0", "1"]


def test_names_of_features_and_of_classes(tmp_path):
    first = records(tmp_path / "a", [example(image__encoded=png(1), label=b"dog")])
    both = {"image__class__label": 2, "image__class__text": b"cat"}
    second = records(tmp_path / "b", [ONE, example(jpg=png(2), **both)])
    assert recorded([first]).classes == ("dog",)
    source = recorded([second, second], ("ant", "cat", "dog"))
    assert source.labels.tolist() == [1, 2, 1, 2] and grey(source, 3) == 2


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a.tfrecord", True),
        ("A.TFRecords", True),
        ("a.tfrecord.gz", True),
        ("imagenet-train.tfrecord-00003-of-01024", True),
        ("train-00000-of-01024", True),
        ("a.array_record", True),
        ("a.arrayrecord", True),
        ("cats-train.array_record-00000-of-00016", True),
        ("train-00000-of-00001.parquet", False),
        ("data-00000-of-00001.arrow", False),
        ("a.jpg", False),
    ],
)
def test_names_of_files(name, known, tmp_path):
    assert is_records(tmp_path / name) == known


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no images in it; expected a tf.train.Example with the bytes of an image in image/e"),
        (b"GIF89a", r"not a TFRecord file, or damaged: at byte 0 begins a record that ends beyond"),
        (b"\x1f\x8b" + bytes(100), "compressed with gzip, so that .* unpack it"),
        (bytes(32), r"record 0: no image in it; expected .*; found nothing"),
        ([b"\xff" * 50], "record 0: damaged, or no tf.train.Example; expected a tf.train.Example"),
        ([ONE, b"\x0a\x05\x0a\xff\xff\xff\x7f"], "record 1: damaged, or no tf.train.Example"),
        ([example(picture=png(), label=1)], "record 0: no image in it; .* found label, picture"),
        ([example(image=3, label=1)], "record 0: no image in it"),
        ([example(image=png())], "no label for 1 image: .*a.tfrecord: 0; expected"),
        ([example(image=png(), label=7)], "a.tfrecord/0: the network has no class '7'; it has a"),
        (struct.pack("<QI", 2**63, 0) + bytes(99), "at byte 0 begins a record that ends beyond"),
    ],
)
def test_what_is_not_taken(content, words, tmp_path):
    path = tmp_path / "a.tfrecord"
    if isinstance(content, list):
        records(path, content)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        recorded([path], ("a", "b", "c"))


def test_a_file_that_is_cut_anywhere(tmp_path):
    path = tmp_path / "a.tfrecord"
    for end in range(1, len(TENSORFLOWS) - 1, 7):
        path.write_bytes(TENSORFLOWS[:end])
        with pytest.raises(InputError, match=r"a\.tfrecord: not a TFRecord file, or damaged"):
            recorded([path])


def test_a_record_of_gigabytes(tmp_path):
    """The file has a hole in it, and takes no room."""
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        file.write(struct.pack("<QI", 2**33, 0))
        file.truncate(2**33 + 16)
    with pytest.raises(InputError, match="a record of 8,589,934,592 bytes at byte 0; expected at"):
        recorded([path])


@pytest.fixture
def array(tmp_path):
    """Write an ArrayRecord file."""

    def write(messages, name="a.array_record"):
        path = tmp_path / name
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for message in messages:
            writer.write(message)
        writer.close()
        return path

    return write


def test_array_records(array):
    messages = [example(image=png(10 * n), label=n % 2) for n in range(4)]
    files = [array(messages), array(messages[:1], "b.array_record")]
    source = recorded(files)
    assert source.labels.tolist() == [0, 1, 0, 1, 0] and source.classes == ("0", "1")
    again = pickle.loads(pickle.dumps(source.opened))
    with again(2) as image:
        assert image.getpixel((0, 0)) == (20, 20, 20)
    assert [grey(source, n) for n in (4, 3)] == [0, 30]
    assert source.keys()[-2:] == ["a.array_record/3", "b.array_record/0"]
    with pytest.raises(InputError, match="TFRecord and ArrayRecord files together"):
        recorded([*files, files[0].with_name("c.tfrecord")])


def test_damaged_array_records(array):
    path = array([ONE, example(image=png())])
    with pytest.raises(InputError, match=r"no label for 1 image: .*a\.array_record: 1; expected"):
        recorded([path])
    whole = array([ONE] * 2).read_bytes()
    for damaged in (b"", whole[:70], whole[: len(whole) // 2], whole[:80] + bytes(9) + whole[89:],
                    bytes(70_000)):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match=r"a.array_record: not an ArrayRecord file that can be"
        ):
            recorded([path])
    with pytest.raises(InputError, match=r"none.array_record: not an .*No such file"):
        recorded([path.with_name("none.array_record")])
