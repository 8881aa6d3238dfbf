"""Mistakes in templates: each must show in what the generated network computes."""

from dataclasses import dataclass
from functools import cache

import jinja2
import numpy as np

import nfspec
from nfspec import reference
from nfspec.conformance.compare import bounds, distance
from nfspec.generation import source
from nfspec.generation.targets import target_of

import networks


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        template: File of the target's folder, or of another with its folder.
        right: The text that is replaced, which must be in it.
        wrong: What replaces it.
        network: Name of the network that shows it.
        seen_by: `logits`, or the name of the check of the target's own tests.
    """

    template: str
    right: str
    wrong: str
    network: str = "two-attentions"
    seen_by: str = "logits"


def by_stage(block, conv, test, ws="net.ws"):
    """Mistakes in what a network has by stage of weight standardisation.

    Args:
        block: The template of a block, and within it the end of the line that makes conv0.
        conv: The template of a conv.
        test: The line in it for convs that are not standardised.
        ws: What the templates call weight standardisation.
    """
    passed, given = f"{{{{ {ws}.passed }}}}", f"{{{{ {ws}.given(net.final_conv) }}}}"
    template, line = block
    right, network = line.replace("...", passed), "ws-by-stage"
    return {
        "ws of a stage left out": Mutant(template, right, line.replace("...", ""), network),
        "ws of the head left out": Mutant("network.py.jinja", given, "", network),
        "a plain conv standardised": Mutant(conv, test, "if False:", network),
    }


def seed(monkeypatch, to, mutant):
    """Generate sources of a target with a mistake from now on."""
    environment = source._environment()
    path = mutant.template if "/" in mutant.template else f"{to}/{mutant.template}"
    text, _, _ = environment.loader.get_source(environment, path)
    assert mutant.right in text, f"{path} has no {mutant.right!r}"
    loaders = [jinja2.DictLoader({path: text.replace(mutant.right, mutant.wrong)})]
    altered = environment.overlay(loader=jinja2.ChoiceLoader([*loaders, environment.loader]))
    altered.cache = {}  # an overlay shares the templates that were compiled before
    monkeypatch.setattr(source, "_environment", lambda: altered)


@cache
def expected(plan):
    """Parameters, and for each batch of images the logits of the reference and their bound."""
    params, batches = networks.drawn(plan)
    cases = []
    for images in batches:
        exact = reference.forward(plan, params, images, {"logits": plan.taps["logits"]})
        cases.append((images, exact["logits"], bounds(plan, params, images, exact)["logits"]))
    return params, cases


def logits_differ(plan, to, **options):
    """True if a generated network leaves the bound at one of the sizes, or does not run."""
    params, cases = expected(plan)
    try:
        network = nfspec.native(plan, to, params=params, **options)
        return any(
            distance(np.asarray(target_of(to).logits(network, images)), exact) > bound
            for images, exact, bound in cases
        )
    except Exception:  # a mistake may be of any kind
        return True
