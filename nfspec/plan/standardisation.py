"""Weight standardisation over a network: alike in all convs, or with columns of `[ws]`."""

from __future__ import annotations

from nfspec.plan.plan import Plan, WSConv

# Columns of `[ws]`, and the attributes of a conv that have them.
COLUMNS = {"eps": "eps", "eps_rule": "eps_rule", "ddof": "ddof", "gain": "gained"}


def uneven(plan: Plan) -> tuple[str, ...]:
    """The columns of `[ws]` in which the convs of a plan differ, such as `eps`."""
    convs = [op for op in plan.ops if isinstance(op, WSConv)]
    return tuple(
        name for name, own in COLUMNS.items() if len({getattr(op, own) for op in convs}) > 1
    )


def one_for_all(plan: Plan) -> str:
    """The reason why a network cannot be said where all convs are standardised, and alike; empty if
    it can."""
    if fields := uneven(plan):
        return f"has another {' and '.join(f'ws.{name}' for name in fields)} in some stages"
    if any(isinstance(op, WSConv) and op.eps_rule == "none" for op in plan.ops):
        return 'has convs that are not standardised (ws.eps_rule = "none")'
    if any(isinstance(op, WSConv) and not op.gained for op in plan.ops):
        return "has convs without a gain (ws.gain = false)"
    return ""
