import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from nfspec.errors import WeightError
from nfspec.weights.unpickle import read_pickle

TREE = {
    "a": {"w": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "s": np.array(7, np.float32)},
    "b": {"w": np.array([0.5], np.float32)},
}

# What dill writes of TREE; in 2021, when DeepMind's files were made, dill was at 0.3.3.
DILL_0_3_3 = (
    b"\x80\x03}q\x00(X\x01\x00\x00\x00aq\x01}q\x02(X\x01\x00\x00\x00wq\x03cdill._dill\n_get_attr\n"
    b"q\x04cdill._dill\n_import_module\nq\x05X\x1d\x00\x00\x00numpy._core._multiarray_umathq\x06"
    b"\x85q\x07Rq\x08X\x0c\x00\x00\x00_reconstructq\t\x86q\nRq\x0bcnumpy\nndarray\nq\x0cK\x00\x85q"
    b"\rC\x01bq\x0e\x87q\x0fRq\x10(K\x01K\x02K\x03\x86q\x11cnumpy\ndtype\nq\x12X\x02\x00\x00\x00f4"
    b"q\x13\x89\x88\x87q\x14Rq\x15(K\x03X\x01\x00\x00\x00<q\x16NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
    b"\xffK\x00tq\x17b\x89C\x18\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00"
    b"\x00\xc0@q\x18tq\x19bX\x01\x00\x00\x00sq\x1ah\x0bh\x0cK\x00\x85q\x1bh\x0e\x87q\x1cRq\x1d(K"
    b"\x01)h\x15\x89C\x04\x00\x00\xe0@q\x1etq\x1fbuX\x01\x00\x00\x00bq }q!h\x03h\x0bh\x0cK\x00\x85"
    b"q\"h\x0e\x87q#Rq$(K\x01K\x01\x85q%h\x15\x89C\x04\x00\x00\x00?q&tq'bsu."
)
DILL_0_4_1 = (
    b"\x80\x04\x95-\x01\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94}\x94(\x8c\x01w\x94\x8c\ndill._"
    b"dill\x94\x8c\r_create_array\x94\x93\x94(\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstru"
    b"ct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94(K"
    b"\x01K\x02K\x03\x86\x94h\n\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03"
    b"\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x18\x00\x00\x80?\x00\x00"
    b"\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x00\x00\xc0@\x94t\x94Nt\x94R\x94\x8c\x01s\x94h\x06"
    b"(h\th\x0cK\x00\x85\x94h\x0e\x87\x94(K\x01)h\x15\x89C\x04\x00\x00\xe0@\x94t\x94Nt\x94R\x94u"
    b"\x8c\x01b\x94}\x94h\x03h\x06(h\th\x0cK\x00\x85\x94h\x0e\x87\x94(K\x01K\x01\x85\x94h\x15\x89C"
    b"\x04\x00\x00\x00?\x94t\x94Nt\x94R\x94su."
)


def read(tmp_path, data):
    (tmp_path / "w.npz").write_bytes(data)
    return read_pickle(tmp_path / "w.npz")


def check_tree(actual, expected):
    assert list(actual) == list(expected)
    for module, arrays in expected.items():
        assert list(actual[module]) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.asarray(actual[module][name]), array, strict=True)


@pytest.mark.parametrize("data", [DILL_0_3_3, DILL_0_4_1], ids=["0.3.3", "0.4.1"])
def test_what_dill_wrote(tmp_path, data):
    check_tree(read(tmp_path, data), TREE)


def test_what_dill_wrote_with_an_older_numpy(tmp_path):
    older = DILL_0_3_3.replace(b"\x1d\x00\x00\x00numpy._core", b"\x1c\x00\x00\x00numpy.core")
    check_tree(read(tmp_path, older), TREE)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_order_dtype_and_mapping(tmp_path, protocol):
    tree = {
        "a": OrderedDict(w=np.arange(6, dtype=np.float64).reshape(2, 3).T, s=np.float32(3)),
        "b": {"w": np.arange(3, dtype=">f4"), "n": np.arange(4)[::2], "h": np.float16([[1]])},
    }
    check_tree(read(tmp_path, pickle.dumps(tree, protocol=protocol)), tree)


def test_haikus_mappings_are_dicts(tmp_path):
    data = pickle.dumps(OrderedDict, protocol=3)[2:-1].partition(b"q\x00")[0]
    assert data == b"ccollections\nOrderedDict\n"
    flat = b"chaiku._src.data_structures\nFlatMapping\n"
    inner = pickle.dumps({"w": 1.0}, protocol=3)[2:-1]
    assert read(tmp_path, b"\x80\x03" + flat + inner + b"\x85R.") == {"w": 1.0}


class Calls:
    """Pickles as a call, which unpickling would make."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_is_run(tmp_path, complaint, protocol):
    mark = tmp_path / "ran"
    data = pickle.dumps({"a": {"w": Calls(os.system, f"touch {mark}")}}, protocol=protocol)
    assert complaint(read, tmp_path, data) == (
        f"w.npz: refused to run {os.name}.system; DeepMind's files hold arrays only"
    )
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists()  # so that the pickle is one that runs something


def test_nothing_is_run_by_way_of_dills_helpers(tmp_path, complaint):
    data = (
        b"\x80\x03cdill._dill\n_get_attr\n(cdill._dill\n_import_module\nX\x02\x00\x00\x00os\x85R"
        b"X\x06\x00\x00\x00systemtR."
    )
    assert complaint(read, tmp_path, data) == (
        "w.npz: refused to run os.system; DeepMind's files hold arrays only"
    )


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "numpy load",
        "numpy.core.multiarray fromfile",
        "functools partial",
        "dill._dill _create_function",
        "collections OrderedDict.fromkeys",
    ],
)
def test_other_names_are_refused(tmp_path, complaint, name):
    module, what = name.split()
    data = f"\x8c{chr(len(module))}{module}\x8c{chr(len(what))}{what}\x93.".encode("latin1")
    assert complaint(read, tmp_path, b"\x80\x04" + data) == (
        f"w.npz: refused to run {module}.{what}; DeepMind's files hold arrays only"
    )


def test_escapes_in_a_name_do_not_warn(tmp_path, complaint):
    assert complaint(read, tmp_path, b"\x80\x03c\\y\n\\y\n.") == (
        "w.npz: refused to run \\\\y.\\\\y; DeepMind's files hold arrays only"
    )


def test_a_refused_name_is_fit_for_a_terminal(tmp_path, complaint):
    data = b"\x80\x03cos\n" + b"\x1b[2J" * 100 + b"\n."
    message = complaint(read, tmp_path, data)
    assert message.startswith("w.npz: refused to run os.\\x1b[2J")
    assert message.isprintable()
    assert len(message) < 200


DAMAGED = "a pickle that is damaged or cut short"
NOT_A_PICKLE = "not a pickle, which DeepMind's .npz files are"
ZIP = "a zip archive, as numpy.savez writes; DeepMind's .npz files are pickles"
FLOATS = pickle.dumps({"a": {"w": np.ones((2, 3), np.float32)}}, protocol=4)
BAD = {
    "text": (b"NFNet/~/final_conv w 0.1 0.2\n", NOT_A_PICKLE),
    "empty": (b"", "an empty file"),
    "zip": (b"PK\x03\x04" + bytes(30), ZIP),
    "cut": (FLOATS[:-20], DAMAGED),
    "only the first byte": (b"\x80", DAMAGED),
    "garbage": (b"\x80\x04" + bytes(range(256)), DAMAGED),
    "objects": (
        pickle.dumps({"a": {"w": np.array([None, "x"])}}),
        "holds an array of dtype 'O8', expected numbers",
    ),
    "structs": (
        pickle.dumps({"a": {"w": np.zeros(2, "f4,i4")}}),
        "holds an array of dtype 'V8', expected numbers",
    ),
    "text arrays": (
        pickle.dumps({"a": {"w": np.array(["x"])}}),
        "holds an array of dtype 'U1', expected numbers",
    ),
    "shape larger than the data": (
        FLOATS.replace(b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\x7f\x86"),
        DAMAGED,
    ),
    "bytes longer than the file": (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".", DAMAGED),
    "bytearray longer than the file": (
        b"\x80\x05\x96" + (2**35).to_bytes(8, "little") + b".",
        DAMAGED,
    ),
    "frame longer than the file": (b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b".", DAMAGED),
    "memo number out of order": (b"\x80\x04}r\xff\xff\x00\x00.", DAMAGED),
    "array by calling ndarray": (b"\x80\x03cnumpy\nndarray\nK\x02\x85\x85R.", DAMAGED),
    "byte order that is a dtype": (FLOATS.replace(b"\x8c\x01<", b"\x8c\x012"), DAMAGED),
    "tuples a million deep as a key": (b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s.", DAMAGED),
    "tuples that double as a key": (
        b"\x80\x04})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"K\x01s.",
        DAMAGED,
    ),
    "tuples that double, hidden by dicts": (
        b"\x80\x04})"
        + b"".join(b"q%ch%c" % (i, i) + b"}(K\x01K\x02u0" * 2 + b"\x86" for i in range(60))
        + b"K\x01s.",
        DAMAGED,
    ),
    "tuples that double, hidden by a call": (
        b"\x80\x04}cdill._dill\n_import_module\nq\x000)q\x010"
        + b"".join(b"h\x00h%ch%c\x86\x85Rq%c0" % (i, i, i + 1) for i in range(1, 60))
        + b"h\x3cK\x01s.",
        DAMAGED,
    ),
    "tuples that double by DUP": (b"\x80\x04})" + b"2\x86" * 60 + b"K\x01s.", DAMAGED),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_bad_pickles(tmp_path, complaint, data, message):
    assert complaint(read, tmp_path, data) == f"w.npz: {message}"


def test_more_instructions_than_weights_take(tmp_path, complaint, monkeypatch):
    monkeypatch.setattr("nfspec.weights.unpickle.MAX_OPCODES", 50)
    data = pickle.dumps({"a": list(range(60))}, protocol=4)
    assert complaint(read, tmp_path, data) == f"w.npz: {DAMAGED}"


def test_a_pickle_cannot_change_the_reader(tmp_path, complaint):
    poison = b"}X\x04\x00\x00\x00codeX\x02\x00\x00\x00f4s"
    for name in (
        b"cnumpy\ndtype\n",
        b"cdill._dill\n_import_module\n",
        b"ccollections\nOrderedDict\n",
    ):
        assert complaint(read, tmp_path, b"\x80\x03" + name + b"N" + poison + b"\x86b.") == (
            f"w.npz: {DAMAGED}"
        )
    check_tree(read(tmp_path, DILL_0_3_3), TREE)


def test_attributes_that_a_pickle_gives_are_never_called(tmp_path):
    """OrderedDict and BUILD: the instance would have an `items` of its own."""
    for name in (b"items", b"detach", b"__array__"):
        body = (
            b"\x80\x04ccollections\nOrderedDict\n)R}\x8c" + bytes([len(name)]) + name + b"K\x01sb."
        )
        path = tmp_path / "x.npz"
        path.write_bytes(body)
        with pytest.raises(WeightError, match="damaged or cut short"):
            read_pickle(path)


@pytest.mark.parametrize("opcodes", [b"\x8f", b"(K\x01\x91", b"\x8f(K\x01\x90"])
def test_sets_are_refused(opcodes, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"\x80\x04}" + opcodes + b"K\x01s.")
    with pytest.raises(WeightError, match="damaged or cut short"):
        read_pickle(path)
