"""Plans as a whole: order and names of operations, and what a plan takes over from its spec."""

import dataclasses

import pytest

from nfspec.language.loader import load, variants
from nfspec.plan import INPUT, Dense, WSConv
from nfspec.plan.resolver import resolve

from specs import HEAD, write


def planned(name):
    return resolve(load(name))


@pytest.mark.parametrize("name", variants())
def test_names_are_unique_and_every_operation_reads_earlier_ones(name):
    plan = planned(name)
    seen = {INPUT}
    for op in plan.ops:
        assert op.name not in seen
        assert set(op.inputs) <= seen
        seen.add(op.name)
    read = {each for op in plan.ops for each in op.inputs}
    assert seen - read == {"head.fc"}  # nothing is computed in vain
    assert set(plan.taps.values()) <= seen
    blocks = [block.name for block in plan.blocks]
    assert list(plan.taps) == ["stem", *blocks, "features", "pool", "logits"]
    assert {b.residual for b in plan.blocks} <= seen
    assert len(plan.parameters) == sum(len(op.parameters) for op in plan.ops)


def test_a_plan_is_frozen():
    plan = planned("nfnet-f0")
    for thing, field in ((plan, "name"), (plan.ops[0], "stride"), (plan.blocks[0], "beta")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field, None)
    for mapping in (plan.taps, plan.parameters):
        with pytest.raises(TypeError):
            mapping["stem"] = None


def test_a_plan_carries_what_its_spec_says():
    spec = load("nfnet-f1")
    plan = resolve(spec)
    assert (plan.name, plan.family, plan.channels) == ("nfnet-f1", "nfnet", 3)
    assert (plan.train_size, plan.test_size) == (224, 320)
    assert (plan.digest, plan.canonical) == (spec.digest, spec.canonical())
    conv = next(op for op in plan.ops if isinstance(op, WSConv))
    assert (conv.eps, conv.eps_rule, conv.ddof, conv.dtype) == (1e-4, "max", 0, "float32")
    assert isinstance(plan.ops[-1], Dense)


def test_the_digest_is_of_the_network_and_not_of_how_it_is_written(tmp_path, monkeypatch):
    def digest(text):
        return resolve(load(write(HEAD + text))).digest

    monkeypatch.chdir(tmp_path)
    plain = planned("nfnet-f0").digest
    same = "[stages]\nalpha = [0.2, 0.2, 0.2, 0.2]\n[agc]\nclipping = 0.02\n[recipe]\nbatch = 8\n"
    assert digest(same) == plain
    assert digest("[stages]\nalpha = [0.2, 0.2, 0.2, 0.25]\n") != plain
