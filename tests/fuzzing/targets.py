"""All readers of files that may be a stranger's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fuzzing import conformance, pictures, shards, trained, weights, written
from fuzzing.target import Target

# Made when they are asked for: some need a framework.
TARGETS: Mapping[str, Callable[[], Target]] = {
    "spec": written.spec,
    "recipe": written.recipe,
    "run-json": written.run_json,
    "log": written.log,
    "classes": written.classes,
    "deviations": conformance.deviation,
    "case": conformance.case,
    "journal": conformance.journal,
    "faults": conformance.fault_matrix,
    "deepmind": weights.deepmind,
    "own": weights.own,
    "timm-st": weights.timm_safetensors,
    "pth": weights.pth,
    "image": pictures.image,
    "photo": pictures.photo,
    "checkpoint": trained.checkpoint,
    "list": shards.csv_list,
    "tar": shards.tar,
    "tfrecord": shards.tfrecord,
    "arrow": shards.arrow,
}
