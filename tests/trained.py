"""A folder such as a training writes, without one."""

import json

import nfspec
from nfspec.training.folders import write_facts


def trained(folder, over=None, data="digits", seed=0, scores=(0.5, 0.9, 0.8)):
    """Write the spec, facts and log of a training of the nano network.

    Args:
        folder: The folder, which is made.
        over: Values that its spec has in place of its own.
        data, seed: As in run.json.
        scores: Top-1 of each evaluation.
    """
    folder.mkdir(parents=True)
    spec = nfspec.load("nfnet-nano", over or {})
    write_facts(folder, spec, ["a", "b"], data=data, backend="jax", seed=seed, held_out=0.2)
    kept = {"top5": 1, "held_out_loss": 1, "held_out_images": 9}
    lines = ({"step": n, "epoch": n, "top1": top1, **kept} for n, top1 in enumerate(scores))
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder
