"""Weight standardisation as source: what all convs share, and what each conv is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nfspec.generation.blocks import number, type_of
from nfspec.plan import Convolution, Plan, WSConv
from nfspec.plan.standardisation import COLUMNS, uneven


@dataclass(frozen=True)
class Standard:
    """Weight standardisation of a network. That of a folded one is empty.

    Attributes:
        differs: Attributes in which convs differ, and which are arguments of a conv: eps,
            eps_rule, ddof; in `whole` also `gained`.
        rules: The rules that occur, each once, without `none`.
        plain: True if some conv is not standardised.
        gained: True if all convs have a gain, False if none has, None if some have.
        without: Beginnings of the names of convs without a gain, where some have one.
        fan_in: True if the code needs the fan-in.
        common: The conv whose values are the defaults of the arguments.
    """

    differs: tuple[str, ...]
    rules: tuple[str, ...]
    plain: bool
    gained: bool | None
    without: tuple[str, ...]
    fan_in: bool
    common: Convolution

    @property
    def whole(self) -> Standard:
        """The same, with `gained` among the arguments where only some convs have a gain; for
        objects that make their own parameters."""
        return replace(self, differs=(*self.differs, "gained")) if self.gained is None else self

    def factors(self, gain: str) -> str:
        """The factors of a kernel beside its scale, with a `*` after them: gamma and gain.

        Args:
            gain: The gain as a conv's code has it.
        """
        gamma = getattr(self.common, "gamma", 1.0)
        parts = [number(gamma)] if gamma != 1.0 else []
        return "".join(
            f"{part} * " for part in [*parts, *([gain] if self.gained is not False else [])]
        )

    def norm(self, gamma: str = "") -> str:
        """The norm of a kernel that is standardised, or the factor of one that is not.

        Args:
            gamma: A word for gamma; its number if not given.
        """
        own = getattr(self.common, "gamma", 1.0)
        parts = ["gain"] if self.gained is not False else []
        parts += [gamma or number(own)] if own != 1.0 else []
        return f"`{' * '.join(parts)}`" if parts else "1"

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


def _part(name: str) -> str:
    """The beginning of the name of a conv's parameters: its stage, the stem or the final conv."""
    return ".".join(name.split(".")[: 2 if name.startswith("stages.") else 1]) + "."


def standard(plan: Plan, common: Convolution) -> Standard:
    """Weight standardisation of a plan, and the conv for its defaults."""
    convs = [op for op in plan.ops if isinstance(op, WSConv)]
    gains = {op.gained for op in convs}
    rules = tuple(dict.fromkeys(op.eps_rule for op in convs))
    return Standard(
        tuple(COLUMNS[name] for name in uneven(plan) if name != "gain"),
        tuple(rule for rule in rules if rule != "none"),
        "none" in rules,
        None if len(gains) > 1 else gains != {False},
        tuple(dict.fromkeys(_part(op.name) for op in convs if not op.gained)),
        any(op.eps_rule != "none" and (op.ddof or op.eps_rule != "max") for op in convs),
        common,
    )
