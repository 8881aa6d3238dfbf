"""Files that broke a reader once, or were made to break one, each as the code that makes it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from fuzzing.archives import opened, safetensors, zipped
from fuzzing.pickles import doubled, name, number, program, text

CALL = name("os", "system") + text("touch ran") + b"\x85R"


def _frozensets(levels: int) -> bytes:
    """A frozenset of two that hold the same ones, and so on; writing it doubles at each level."""
    pickled = b"(K\x01\x91"
    for level in range(levels):
        place = bytes([level])
        pickled += (
            b"q" + place + b"0((h" + place + number(level) + b"t(h" + place + text("x") + b"t\x91"
        )
    return pickled


def _chain(levels: int) -> bytes:
    """A tuple that holds another one twice, each made anew: equal, and not the same object."""
    return doubled(levels, b"\x86", b")")


def pickles() -> dict[str, bytes]:
    """Pickles that run, hang, fill the memory, or raise something of their own."""
    array = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray")
    array += b"K\x00\x85C\x01b\x87R"
    dtype = name("numpy", "dtype") + text("f4") + b"\x89\x88\x87R(K\x03" + text("<")
    dtype += b"NNN" + number(-1) * 2 + b"K\x00tb"
    empty = array + b"(K\x01K\x00\x85" + dtype + b"\x89C\x00tb"
    ordered = name("collections", "OrderedDict") + b")R"
    one = array + b"(K\x01)" + dtype + b"\x89C\x04\x00\x00\x80?tb"
    shared = one + b"q\x3f0" + b"}" + text("a") + b"}("
    shared += b"".join(text(f"w{n}") + b"h\x3f" for n in range(3000)) + b"us"
    cases = {
        "a call": CALL,
        "a call as a key": b"}" + CALL + b"K\x01s",
        "a call by INST": b"(" + text("touch ran") + b"ios\nsystem\n",
        "a call by OBJ": b"(" + name("os", "system") + text("touch ran") + b"o",
        "a call by NEWOBJ": name("os", "system") + text("touch ran") + b"\x85\x81",
        "a call by BUILD": ordered + b"N}" + text("__setstate__") + name("os", "system")
        + b"s\x86b",
        "a name that is dotted": name("collections", "OrderedDict.fromkeys") + b"]\x85R",
        "frozensets that double as a key": b"}" + _frozensets(40) + b"K\x01s",
        "an empty frozenset as a key": b"}(\x91}s",
        "a set": b"}" + text("a") + b"\x8f(K\x01K\x02\x90s",
        "tuples that double as a key": b"}" + _chain(60) + b"K\x01s",
        "equal tuples that double as keys": b"}(" + _chain(25) + b"K\x01" + _chain(25) + b"K\x02u",
        "a number of 20,001 bytes as a key": b"}\x8b" + struct.pack("<i", 20_001)
        + b"\x01" * 20_001 + b"}s",
        "a number of 4,000 digits": b"}" + text("a") + b"}L" + b"9" * 4000 + b"L\n}ss",
        "a number of 400,000 digits": b"}" + text("a") + b"}L" + b"9" * 400_000 + b"L\n}ss",
        "a number as a key": b"}" + number(5) + b"}s",
        "None as a key": b"}N}s",
        "a bad key inside": b"}" + text("a") + b"}" + b")" + b"K\x01ss",
        "OrderedDict with attributes": ordered + b"}" + text("items") + b"K\x01sb",
        "OrderedDict with detach": b"}" + text("a") + b"}" + text("w") + ordered + b"N}"
        + text("detach") + name("os", "system") + b"s\x86bss",
        "OrderedDict with __array__": b"}" + text("a") + b"}" + text("w") + ordered + b"}"
        + text("__array__") + b"K\x01sbss",
        "an array under 3,000 names": shared,
        "an array of a shape that its bytes do not fill": array + b"(K\x01" + number(2**31 - 1) * 2
        + b"\x86" + dtype + b"\x89C\x00tb",
        "an empty array of a large shape": array + b"(K\x01" + number(2**40) + b"K\x00\x86" + dtype
        + b"\x89C\x00tb",
        "an array of a negative shape": array + b"(K\x01" + number(-1) + b"\x85" + dtype
        + b"\x89C\x04abcdtb",
        "a scalar for a tree": one,
        "an array for a tree": empty,
        "a list that holds itself": b"]q\x00h\x00a",
        "a dict that holds itself": b"}q\x00" + text("a") + b"h\x00s",
        "lists 100,000 deep": b"]" * 100_000 + b"a" * 99_999,
        "tuples 100,000 deep": b")" + b"\x85" * 100_000,
        "a memo number out of order": b"}r\xff\xff\xff\x7f",
        "a control character in a name": b"}" + text("a\x1b[2J\n") + b"}s",
        "a name in halves of a pair": b"}" + text("\ud800") + b"}s",
        "a long name": b"}" + text("a" * 200_000) + b"}s",
        "many names": b"}(" + b"".join(text(f"n{n}") + b"}" for n in range(20_000)) + b"u",
        "a module of that name": name("antigravity", "geohash"),
        "a persistent id": text("x") + b"Q",
        "a persistent id, in text": b"Pid\n",
        "an extension": b"\x82\x01",
        "bytes from outside": b"\x97",
        "a long list of nothing": b"](" + b"N" * 200_000 + b"e",
        "a bytearray of 32 GiB": b"\x96" + struct.pack("<Q", 2**35),
    }  # fmt: skip
    return {what: program(value, 5 if b"\x96" in value[:1] else 4) for what, value in cases.items()}


def torch_files(content: Mapping[str, bytes], root: str) -> dict[str, bytes]:
    """Archives of PyTorch's kind that are not what they seem."""
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu")

    def tensor(
        size: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ) -> bytes:
        numbers = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides))
        pickled = name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + number(size) + b"tQ"
        return pickled + number(offset) + b"".join(numbers) + b"\x89" + _ordered() + b"tR"

    def state(value: bytes) -> bytes:
        return program(b"}" + text("head.fc.bias") + value + b"s", 2)

    expanded = state(tensor(1, (20_000, 100_000), (0, 0)))
    shared = b"".join(text(f"w{n}") + b"h\x01" for n in range(3000))
    shared = program(b"}(" + text("w") + tensor(64, (64,), (1,)) + b"q\x01" + shared + b"u", 2)
    pickled = {
        "a tensor expanded to 2,000,000,000 values": expanded,
        "a tensor under 3,000 names": shared,
        "a tensor beyond its storage": state(tensor(1, (1000,), (1,))),
        "a tensor before its storage": state(tensor(1, (1,), (1,), -5)),
        "a tensor of a negative shape": state(tensor(1, (-1,), (1,))),
        "a tensor of negative strides": state(tensor(8, (8,), (-1,), 7)),
        "a tensor with an overflowing shape": state(tensor(1, (2**62, 4), (0, 0))),
        "a storage larger than its record": state(tensor(2**40, (1,), (1,))),
        "a storage of a negative size": state(tensor(-1, (1,), (1,))),
        "a tensor of 100,000 dimensions": state(tensor(1, (1,) * 30_000, (1,) * 30_000)),
        "tuples as a key": program(b"}" + doubled(60, b"\x86", b")") + b"K\x01s", 2),
    }
    rest = {key: value for key, value in content.items() if not key.endswith("data.pkl")}
    cases = {
        what: zipped(
            {f"{root}/data.pkl": data, f"{root}/version": b"3\n", f"{root}/data/0": bytes(4)}
        )
        for what, data in pickled.items()
    }
    bomb = {**content, f"{root}/data/0": bytes(100_000_000)}
    cases |= {
        "a deflated record of zeros": zipped(bomb, zipfile.ZIP_DEFLATED),
        "all records deflated": zipped(content, zipfile.ZIP_DEFLATED),
        "no pickle": zipped(rest),
        "a script": zipped({f"{root}/constants.pkl": program(b"N"), f"{root}/code/x.py": b"1"}),
        "names twice": zipped([*content.items(), *content.items()]),
        "nothing in it": zipped({}),
        "a tar file": b"pickle\0" + bytes(505),
    }
    return cases


def _ordered() -> bytes:
    return name("collections", "OrderedDict") + b")R"


def safetensors_files(valid: bytes) -> dict[str, bytes]:
    """Safetensors with a header that lies."""
    header, data = opened(valid)

    def one(dtype: str, shape: Any, offsets: Any, extra: bytes = b"") -> bytes:
        return safetensors({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, extra)

    entry = '"n{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    many = "{" + ",".join(entry.format(n) for n in range(1500)) + "}"
    return {
        "a header longer than the file": struct.pack("<Q", 2**40) + b"{}",
        "a header of the largest length": struct.pack("<Q", 2**64 - 1) + b"{}",
        "a header that is no object": safetensors([], b""),
        "an empty header": safetensors({}, b""),
        "offsets beyond the file": one("F32", [10**9], [0, 4 * 10**9]),
        "a shape that overflows": one("F32", [2**32, 2**32], [0, 0]),
        "offsets that cross": one("F32", [1], [4, 0], bytes(4)),
        "an empty tensor of a large shape": one("F32", [0, 2**62], [0, 0]),
        "a type that NumPy has not": one("BF16", [2], [0, 4], bytes(4)),
        "a type of four bits": one("F4", [2], [0, 1], bytes(1)),
        "an unknown type": one("Q9", [1], [0, 4], bytes(4)),
        "many tensors": safetensors(many.encode(), b""),
        "metadata of another kind": safetensors({"__metadata__": {"a": 1}}, b""),
        "a control character in a name": safetensors(
            {"\x1b[2J\n": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
        ),
        "a deep header": safetensors(b'{"a":' * 20_000, b""),
        "a spec of another network": safetensors(
            header.replace(b'"digest":"', b'"digest":"0').replace(b"gelu", b"\\u001b[2J"), data
        ),
        "a spec that is deep": safetensors(
            header.replace(b'"spec":"', b'"spec":"' + b"[" * 20_000).replace(
                b'"digest":"', b'"digest":"0'
            ),
            data,
        ),
        "cut": valid[:-4],
        "longer than it says": valid + bytes(4),
        "values that are no numbers": safetensors(
            header, np.full(len(data) // 4, np.nan, "<f4").tobytes()
        ),
    }


@cache
def pictures() -> dict[str, bytes]:
    """Images that start a program, are larger than their files say, or none."""
    from PIL import Image

    def saved(image: Any, form: str, **options: Any) -> bytes:
        out = io.BytesIO()
        image.save(out, form, **options)
        return out.getvalue()

    thin = saved(Image.new("L", (1, 200_000)), "PNG")
    flat = saved(Image.new("L", (200_000, 1)), "PNG")
    bomb = saved(Image.new("1", (20_000, 20_000)), "PNG")
    sixteen = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    png = saved(Image.new("RGB", (16, 16)), "PNG")
    return {
        "PostScript": eps,
        "PostScript after a preview": b"\xc5\xd0\xd3\xc6"
        + struct.pack("<II", 32, len(eps))
        + bytes(20)
        + eps,
        "one pixel wide": thin,
        "one pixel high": flat,
        "400 million pixels": bomb,
        "16 bits": saved(sixteen, "PNG"),
        "a size of 2^31": png[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png[24:],
        "no size": png[:16] + bytes(8) + png[24:],
        "a long comment": png[:33] + struct.pack(">I", 10**6) + b"tEXt" + png[33:],
        "no picture": b"GIF89a",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "a list of files": b"#EXTM3U\n/etc/passwd\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
    }
