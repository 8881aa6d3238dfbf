"""Seeded faults: each is what it says it is, and changes something. What kills them is measured."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from nfspec.conformance.cases.case import Clip, digest
from nfspec.conformance.cases.target import CONV, SE, plan_of, target
from nfspec.conformance.faults import FAULTS, NO_FAULT, fault_named
from nfspec.conformance.faults.base import Fault, of_arrays, of_kind, of_params, parametric, patched
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.networks import weights
from nfspec.conformance.running.run import essential_cases
from nfspec.errors import InputError
from nfspec.plan import WSConv

from .exact_replies import expected_of, judged, reply

GENERAL = target(None)
CUT = plan_of(GENERAL.source, True, True)
REPLY = {"case": "0" * 64, "inputs": "1" * 64, "pid": 1, "outputs": {"y": np.ones((2, 3))}}


def test_names():
    from nfspec.conformance.faults import CLIPPING, CONVS, DROPS, HARNESS, NETWORKS

    assert len(FAULTS) == sum(map(len, (CONVS, NETWORKS, DROPS, CLIPPING, HARNESS))) >= 57
    assert all(name == fault.name for name, fault in FAULTS.items())
    assert all(fault.what for fault in FAULTS.values())


def test_hints_are_properties():
    assert {name for fault in FAULTS.values() for name in fault.first} <= set(PROPERTIES)


def changes_an_op(fault):
    return any(fault.op(op) != op for op in (*GENERAL.ops, *GENERAL.clips))


def changes_a_plan(fault):
    return fault.plan(CUT) != CUT


@cache
def calls_of_layers():
    """Each description that a property calls a subject's layer for, with the arrays of a call."""
    return [
        (case.op, call)
        for asked in PROPERTIES.values()
        if asked.request in ("call", "vjp", "twice")
        for case in asked.cases(GENERAL)
        for call in asked.calls(case)
    ]


def changes_arrays(fault):
    return any(digest([fault.arrays(op, call)]) != digest([call]) for op, call in calls_of_layers())


def changes_params(fault):
    params = weights(GENERAL.source, True, 0)
    return digest([fault.params(params)]) != digest([params])


def changes_a_reply(fault):
    def shown(reply):
        return {**reply, "outputs": digest([reply["outputs"]])}

    return shown(fault.reply(REPLY)) != shown(REPLY)


HOOKS = {
    "op": changes_an_op,
    "of_plan": changes_a_plan,
    "arrays": changes_arrays,
    "params": changes_params,
    "reply": changes_a_reply,
}


def hooks(fault):
    """Those of its fields that are not what they are without a fault."""
    default = Fault("", "")
    names = (*HOOKS, "patch")
    return [name for name in names if getattr(fault, name) is not getattr(default, name)]


def every_part(fault):
    changed = hooks(fault)
    assert changed
    for hook in changed:
        assert hook == "patch" or HOOKS[hook](fault), hook


# Of a network whose stem has an activation named act0, as nfnet-f0's has.
RAISING = ("block-no-reset", "block-late-variance")


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in RAISING])
def test_every_part_of_a_fault_changes_something(name):
    every_part(FAULTS[name])


@pytest.mark.parametrize("name", RAISING)
def test_faults_of_betas_change_something(name):
    every_part(FAULTS[name])


def test_no_fault_changes_nothing():
    assert not hooks(NO_FAULT) and not NO_FAULT.in_functions
    assert not any(changes(NO_FAULT) for changes in HOOKS.values())


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_compiled_anew(name):
    compiled = {"op", "of_plan", "patch"} & set(hooks(FAULTS[name]))
    assert FAULTS[name].in_functions == bool(compiled)


# Those that NumPy can have in it: they change descriptions, arrays or parameters, not Keras models.
# Of training, which takes long, and of networks that drop, the reports have the proof.
LEFT_OUT = ("TRAIN-01", "DROP-03")
IN_NUMPY = [
    name
    for name, fault in FAULTS.items()
    if "patch" not in hooks(fault) and fault.first and fault.first[0] not in LEFT_OUT
]


@pytest.mark.parametrize("name", IN_NUMPY)
def test_a_fault_in_the_rounded_reference_is_found(name):
    """By the first property that it names."""
    asked = PROPERTIES[FAULTS[name].first[0]]
    for case in essential_cases(asked, GENERAL, "f32", 0):
        if judged(case, reply(case, expected_of(case)[0], name)).ratio > 1.0:
            return
    pytest.fail(f"{asked.id} does not find it")


# In a process of its own, as these are parts of Keras models.
PATCHES = """
import importlib
from nfspec.conformance.faults import FAULTS, NO_FAULT, clipping, convs, drops, networks

PLACES = (
    f"{convs.LAYER}.standardised_kernel", f"{convs.LAYER}._conv", clipping.CLIP, clipping.NORMS,
    clipping.SGD, networks.POOL, networks.MEAN, networks.ACTIVATE,
    drops.CALL, drops.DRAWS, drops.ZERO, drops.NETWORK, drops.SEED, drops.FOLDED,
)

def present():
    owners = []
    for place in PLACES:
        module, _, path = place.partition(":")
        owner = importlib.import_module(module)
        for name in path.split("."):
            owner = getattr(owner, name)
        owners.append(owner)
    return owners

original = present()
count = 0
for fault in FAULTS.values():
    if fault.patch is NO_FAULT.patch:
        continue
    count += 1
    with fault.patch():
        changed = [a is not b for a, b in zip(present(), original)]
        assert sum(changed) == 1, fault.name
        assert callable(present()[changed.index(True)])
    assert present() == original, fault.name
    try:
        with fault.patch():
            raise KeyError
    except KeyError:
        pass
    assert present() == original, fault.name
print(count)
"""


def test_patches_change_one_place_and_put_it_back():
    done = subprocess.run(
        [sys.executable, "-c", PATCHES],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},  # the one that starts in the least time
    )
    assert done.returncode == 0, done.stderr
    patching = [fault for fault in FAULTS.values() if "patch" in hooks(fault)]
    assert int(done.stdout.splitlines()[-1]) == len(patching) > 10


def test_a_patched_attribute(monkeypatch):
    monkeypatch.setattr(Clip, "there", lambda self: 1, raising=False)
    original = Clip.there
    patch = patched("nfspec.conformance.cases.case:Clip.there", lambda f: lambda self: f(self) + 1)
    clip = Clip("gain", (3,), "tensor", 0.1, 0.1)
    with patch():
        assert clip.there() == 2
        with patch():
            assert clip.there() == 3
    assert clip.there() == 1 and Clip.there is original


def test_changes_of_descriptions_leave_others_alone():
    change = of_kind(Clip, eps=lambda clip: 2 * clip.eps)
    assert change(CONV) is CONV
    assert change(Clip("gain", (3,), "tensor", 0.1, 0.5)).eps == 1.0


def test_changes_of_arrays_leave_others_alone():
    change = of_arrays(WSConv, lambda op, call: {"x": 2.0 * call["x"]})
    call = {"x": np.ones(2, np.float32), "y": np.ones(2, np.float32)}
    assert change(SE, call) is call
    new = change(CONV, call)
    assert new["x"].tolist() == [2.0, 2.0] and new["x"].dtype == np.float32
    assert new["y"] is call["y"] and call["x"].tolist() == [1.0, 1.0]


def test_changes_of_parameters_leave_others_alone():
    params = {"a.gain": np.ones(2, np.float32), "a.bias": np.ones(2, np.float32)}
    new = of_params(".gain", lambda value: 0.0 * value)(params)
    assert new["a.gain"].tolist() == [0.0, 0.0] and new["a.bias"] is params["a.bias"]


def test_faults_by_name():
    assert fault_named("") is NO_FAULT
    assert fault_named("ws-ddof") is FAULTS["ws-ddof"]
    assert fault_named("gain+1e-05").what == "gain times 1.00001"


@pytest.mark.parametrize("name", ["nothing", "gain", "gain+", "gain+x", "gaim+1e-5", "+1e-5", "e"])
def test_a_fault_that_there_is_not(name):
    with pytest.raises(InputError, match=r"^no fault \"" + name.replace("+", r"\+")):
        fault_named(name)


@pytest.mark.parametrize("name", ["lambda-1e-3", "gamma+0.5", "alpha+1e-05"])
def test_faults_of_a_size(name):
    fault = parametric(name)
    kind, size = name[:5].rstrip("+-"), float(name.lstrip("abdghlmp"))
    field = {"lambd": "clipping", "gamma": "gamma", "alpha": "alpha"}[kind]
    changed = [
        (getattr(fault.op(op), field), getattr(op, field))
        for op in (*GENERAL.ops, *GENERAL.clips)
        if fault.op(op) != op
    ]
    assert changed
    assert all(new == pytest.approx(old * (1 + size), rel=1e-15) for new, old in changed)


def test_a_gain_off_by_a_size():
    call = {"gain": np.float32([1.0, -2.0])}
    gain = parametric("gain+1e-03").arrays(CONV, call)["gain"]
    np.testing.assert_array_equal(gain, np.float32([1.001, -2.002]))


def test_a_stale_reply_is_the_one_before(monkeypatch):
    from nfspec.conformance.faults import harness

    monkeypatch.setattr(harness, "_before", [])
    stale = FAULTS["reply-stale"].reply
    assert stale(REPLY)["case"] == "none yet"
    assert stale({**REPLY, "case": "second"})["case"] == REPLY["case"]
    assert stale({**REPLY, "case": "third"})["case"] == "second"
