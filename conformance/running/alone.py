"""The faults that are found where a subject offers its network and its blocks, and nothing else.

Somebody who ports a network writes `forward` first, and `block`. So each fault is tried on the
properties of these two alone, with reduced networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from nfspec.conformance.cases.case import Case
from nfspec.conformance.cases.target import target
from nfspec.conformance.faults import FAULTS, NO_FAULT, Fault
from nfspec.conformance.properties import PROPERTIES
from nfspec.conformance.properties.networks import case_plan, case_weights
from nfspec.conformance.running.answers import started
from nfspec.conformance.running.kill import Kill, KillMatrix, Progress, attempt
from nfspec.conformance.running.run import essential_cases
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.worker import Worker

METHODS = ("forward", "block")
# Networks that together have every operation but activations that no network has.
NETWORKS = ("nfnet-f0", "timm/eca_nfnet_l0", "nf-resnet-50")
QUICK = "torch"  # compiles nothing; a fault is the same mistake on each framework


def network_cases(settings: Settings) -> Iterator[Case]:
    """The cases of reduced networks and their blocks, in the first mode."""
    mode, sources = settings.modes[0], (settings.source,) if settings.source else NETWORKS
    chosen = settings.properties or tuple(PROPERTIES)
    several = [p for p in PROPERTIES.values() if p.id in chosen and mode in p.modes]
    for method in METHODS:
        for asked in (p for p in several if p.method == method):
            for source in sources:
                cases = essential_cases(asked, target(source), mode, settings.seed)
                yield from (case for case in cases if case.reduced)


def try_alone(settings: Settings, matrix: KillMatrix, progress: Progress) -> None:
    """Find, for each fault, the property that kills it in a subject that offers `METHODS` alone.

    Args:
        settings: Settings of a run. One of the subjects is enough.
        matrix: The results so far, which get these, too.
        progress: Called with a text after each fault.
    """
    subject = QUICK if QUICK in settings.subjects else settings.subjects[0]
    cases = list(network_cases(settings))
    if not cases:
        return
    one = replace(settings, subjects=(subject,))
    with threadpool_limits(1), started(one, settings.modes[0]) as (worker,):
        if worker.given_up is not None:
            return
        matrix.alone_on = worker.column.name
        for name, fault in FAULTS.items():
            if name not in matrix.alone:
                matrix.alone[name] = _kill(fault, worker, cases)
                by = matrix.alone[name].property or "nothing"
                progress(matrix, f"{name}: killed by {by} where the network alone is offered")


def _kill(fault: Fault, worker: Worker, cases: list[Case]) -> Kill:
    worker.fault = fault.name
    end = Kill()
    for case in cases:
        if not concerns(fault, case):
            continue
        kill = attempt([worker], case).get(worker, Kill())
        if kill.property:
            return replace(kill, cases=end.cases)
        end = replace(end, cases=end.cases + 1, problem=end.problem or kill.problem)
    return end


def concerns(fault: Fault, case: Case) -> bool:
    """False if the fault leaves all that a network's or a block's outputs are made of as it is."""
    if fault.patch is not NO_FAULT.patch or fault.reply is not NO_FAULT.reply:
        return True
    plan, whole = case_plan(case), case_weights(case)
    if fault.plan(plan).ops != plan.ops:
        return True
    params = {name: whole[name] for name in plan.parameters}
    changed = fault.network_params(plan, params)
    return any(not np.array_equal(changed[name], params[name]) for name in params)
