"""The page of exported files."""

from nfspec.conformance.report import exports

ROW = {"batch": 1, "height": 64, "width": 65, "output": "logits", "bound": 4e-6, "within": True}
PROOF = {
    "network": "net",
    "format": "onnx",
    "runtimes": ["onnxruntime 1", "OpenVINO 2"],
    "same": True,
    "bytes": 1030,
    "weights_bytes": 1000,
    "nodes": {"Conv": 2, "Relu": 1},
    "rows": [
        {**ROW, "runtime": "onnxruntime 1", "distance": 1e-6},
        {**ROW, "runtime": "onnxruntime 1", "distance": 2e-6, "width": 66},
        {**ROW, "runtime": "OpenVINO 2", "distance": 9e-6, "within": False},
    ],
}


def test_a_row_has_the_largest_distance_in_the_formats_own_runtime():
    cells = ["net", "onnx", "any", "onnxruntime 1", "yes", "1.030", "3", "2.0e-06", "0.50"]
    assert exports.row(PROOF) == cells
    one = {**PROOF, "rows": PROOF["rows"][:1], "same": False, "nodes": None}
    assert exports.row(one)[2:7] == ["64 x 65 px", "onnxruntime 1", "NO", "1.030", "0"]
    failed = {**PROOF, "rows": [{**PROOF["rows"][0], "distance": None}]}
    assert exports.row(failed)[-2:] == ["none", "none"]


def test_a_page_has_a_row_for_each_file():
    assert exports.page([PROOF, PROOF]).count("| net | onnx |") == 2
