"""Weight standardisation as source: what all convs share, and what each conv is given."""

from __future__ import annotations

from dataclasses import dataclass

from nfspec.generation.blocks import number, type_of
from nfspec.plan import Convolution, Plan, WSConv
from nfspec.plan.standardisation import uneven


@dataclass(frozen=True)
class Standard:
    """Weight standardisation of a network. That of a folded one is empty.

    Attributes:
        differs: The columns of `[ws]` in which convs differ, and which are arguments of a conv.
        rules: The rules that occur, each once, without `none`.
        plain: True if some conv is not standardised.
        fan_in: True if the code needs the fan-in.
        common: The conv whose values are the defaults of the arguments.
    """

    differs: tuple[str, ...]
    rules: tuple[str, ...]
    plain: bool
    fan_in: bool
    common: Convolution

    @property
    def signature(self) -> str:
        """The parameters of a conv, with a comma before each."""
        return "".join(
            f", {name}: {type_of(name)} = {number(getattr(self.common, name))}"
            for name in self.differs
        )

    @property
    def passed(self) -> str:
        """The arguments of a block's convs, which the block was given."""
        return "".join(f", {name}={name}" for name in self.differs)

    def given(self, conv: Convolution) -> str:
        """The arguments of a conv of stem or head, without those that are defaults."""
        values = {name: getattr(conv, name) for name in self.differs}
        return "".join(
            f", {name}={number(value)}"
            for name, value in values.items()
            if value != getattr(self.common, name)
        )

    def text(self, name: str, own: str = "") -> str:
        """A field within a conv's code: a number, or the argument, with `own` before its name."""
        return f"{own}{name}" if name in self.differs else number(getattr(self.common, name))

    def test(self, rule: str, own: str = "") -> str:
        """The line before the code of a rule, if there are several: `if`, `elif` or `else`."""
        if rule == self.rules[-1]:
            return "else:"
        return f"{'if' if rule == self.rules[0] else 'elif'} {own}eps_rule == {number(rule)}:"


def standard(plan: Plan, common: Convolution) -> Standard:
    """Weight standardisation of a plan, and the conv for its defaults."""
    convs = [op for op in plan.ops if isinstance(op, WSConv)]
    rules = tuple(dict.fromkeys(op.eps_rule for op in convs))
    return Standard(
        uneven(plan),
        tuple(rule for rule in rules if rule != "none"),
        "none" in rules,
        any(op.eps_rule != "none" and (op.ddof or op.eps_rule != "max") for op in convs),
        common,
    )
