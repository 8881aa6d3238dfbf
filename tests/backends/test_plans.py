"""The plans of a compiled model: the network as written and what its layers do."""

import copy
import pickle
from dataclasses import replace

import keras
import pytest

import nfspec
from nfspec.plan import resolver
from nfspec.rewrites.folding import fold
from nfspec.rewrites.scalars import move_scalars, without_features

from .small import small_params, small_plan, small_spec

HOW = {
    "fast": {},
    "taps": {"taps": True},
    "plain": {"plain": True},
    "folded": {"folded": True},
}


def compiled(backend, plan=None, how="fast"):
    return nfspec.compile(plan or small_plan(), backend, small_params(), **HOW[how])


def loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


@pytest.fixture
def resolved(monkeypatch):
    """An entry for each time that a spec is resolved."""
    small_plan()  # kept from now on, with the spec, whose loading resolves it, too
    calls = []
    build = resolver._Builder.build

    def counted(builder):
        calls.append(builder.spec.name)
        return build(builder)

    monkeypatch.setattr(resolver._Builder, "build", counted)
    return calls


def test_a_spec_is_resolved_once_on_the_way_to_a_model(backend, resolved):
    model = nfspec.compile(small_spec(), backend, small_params())
    assert model.plan == small_plan() and model.executed_plan is not None
    nfspec.params_of(model)
    assert resolved == ["x"]


def test_a_plan_is_not_resolved_again(backend, resolved):
    model = compiled(backend)
    assert model.plan is small_plan()
    assert resolved == []


def test_the_executed_plan_is_what_the_layers_do(backend):
    whole = move_scalars(small_plan())
    folded = fold(small_plan(), small_params()).plan
    wanted = {
        "fast": without_features(whole),
        "taps": whole,
        "plain": without_features(small_plan()),
        "folded": without_features(folded),
    }
    for how, plan in wanted.items():
        model = compiled(backend, how=how)
        assert model.plan == (folded if how == "folded" else small_plan()), how
        assert model.executed_plan == plan, how
        layers = {layer.canonical for layer in model.layers if hasattr(layer, "canonical")}
        assert layers == {getattr(op, "block", op.name) for op in plan.ops}, how


@pytest.mark.parametrize("how", HOW)
def test_copies_and_files_keep_both_plans(backend, how, tmp_path):
    model = compiled(backend, how=how)
    copies = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded(model, tmp_path))
    for again in copies:
        assert again.plan == model.plan
        assert again.executed_plan == model.executed_plan


def test_a_changed_plan_is_kept_with_its_clipping(backend, tmp_path):
    clipping = small_plan().agc.model_copy(update={"clipping": 0.3})
    plan = replace(small_plan(), agc=clipping)
    assert loaded(compiled(backend, plan), tmp_path).plan == plan


def test_a_plan_that_no_spec_says_is_kept_by_copies_and_left_out_of_files(backend, tmp_path):
    first, *others = small_plan().ops
    plan = replace(small_plan(), ops=(replace(first, eps=0.125), *others))
    model = compiled(backend, plan)
    assert copy.deepcopy(model).plan == plan
    again = loaded(model, tmp_path)
    assert again.plan is None and again.executed_plan is None
    with pytest.raises(nfspec.InputError, match="has no plan"):
        nfspec.fold(again)
