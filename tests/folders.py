"""Small images: in a folder for each class, and in files of several."""

import io
import struct
import tarfile

from PIL import Image

from nfspec.data.records import _example


def picture(path, value=0, **how):
    """Write an image of one colour, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (value, value, value)).save(path, **how)
    return path


def pictures(root, **counts):
    """A folder with so many images in each class, each grey of its own."""
    for start, (name, count) in enumerate(counts.items()):
        for n in range(count):
            picture(root / name / f"{n}.png", 16 * start + n)
    return root


def archive(path, members):
    """Write a tar file of names and their bytes; a TarInfo in place of a name is taken as it is."""
    with tarfile.open(path, "w") as file:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if data is not None:
                member.size = len(data)
            file.addfile(member, io.BytesIO(data or b""))
    return path


def png(value=0):
    """The bytes of an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def records(path, messages):
    """Write a TFRecord file, with checksums that nobody looks at."""
    framed = (struct.pack("<QI", len(m), 0) + m + bytes(4) for m in messages)
    path.write_bytes(b"".join(framed))
    return path


def example(**features):
    """A message `tf.train.Example`; a slash in a name is written as two underscores."""
    message = _example()()
    for name, value in features.items():
        feature = message.features.feature[name.replace("__", "/")]
        values = feature.int64_list if isinstance(value, int) else feature.bytes_list
        values.value.append(value)
    return message.SerializeToString()
