"""Folders of small images, one for each class."""

from PIL import Image


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
