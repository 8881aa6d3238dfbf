"""Operations and specs under other conventions."""

import pytest

from nfspec.conformance.cases.case import Clip
from nfspec.conformance.cases.target import CONV, SE, target
from nfspec.conformance.conventions.altered import altered_op, altered_spec
from nfspec.conformance.conventions.candidates import candidates
from nfspec.language.loader import load
from nfspec.plan import ECA, Activation, Pool

SPEC_F0 = load("nfnet-f0")
GELU = Activation("op", ("x",), "gelu_tanh", 0.01, 1.7015043497085571, 0.9, "after")


@pytest.mark.parametrize(
    ("op", "fields", "changed"),
    [
        (CONV, {"ws.eps": 1e-5, "ws.ddof": 1}, {"eps": 1e-5, "ddof": 1}),
        (CONV, {"conv.padding": "symmetric"}, {"padding": "symmetric"}),
        (CONV, {"activation.gamma_at": "weight"}, {"gamma": 1.7015043497085571}),
        (GELU, {"activation.kind": "gelu_erf"}, {"kind": "gelu_erf"}),
        (GELU, {"activation.gamma_at": "weight"}, {"gamma": 1.0}),
        (GELU, {"activation.gamma": "exact"}, {"gamma": 1.7009165617}),
        (GELU, {"activation.slope": 0.2}, {}),
        (Pool("op", ("x",), "max", 3, 2, "same"), {"conv.padding": "symmetric"},
         {"padding": "symmetric"}),
        (Pool("op", ("x",), "avg", 2, 2, "same"), {"conv.padding": "symmetric"}, {}),
        (SE, {"attention.gain": 1.0}, {"gain": 1.0}),
        (SE, {"se.gamma": "deepmind"}, {"gamma": 1.7139588594436646}),
        (ECA("op", ("x",), 8, 3, 2.0), {"attention.gain": 1.0}, {"gain": 1.0}),
        (Clip("gain", (8,), "squeeze", 0.01, 1e-3), {"agc.unit": "timm"}, {"unit": "timm"}),
    ],
)  # fmt: skip
def test_operations_under_other_conventions(op, fields, changed):
    other = altered_op(op, fields, SPEC_F0)
    for name, value in vars(op).items():
        wanted = changed.get(name, value)
        if isinstance(wanted, float):
            assert getattr(other, name) == pytest.approx(wanted, rel=1e-9)
        else:
            assert getattr(other, name) == wanted


def test_every_candidate_is_a_field_of_the_language():
    assert target(None).spec == SPEC_F0
    for fields in candidates(SPEC_F0, of_networks=False):
        altered_spec(SPEC_F0, fields)
    silu = load("timm/test_nfnet")
    assert altered_spec(silu, {"activation.kind": "gelu_erf"}).digest == silu.digest
