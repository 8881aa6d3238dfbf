"""The residual blocks of a plan as calls of one function, with the numbers that differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nfspec.errors import InputError
from nfspec.plan import Block, Plan, StochasticDepth, WSConv

T = TypeVar("T")
Number = int | float | str

MOST_GROUPS = 16  # each is a conv of its own to be compiled, and NF-RegNets have dozens
STANDARD = ("eps", "eps_rule", "ddof", "gained")  # of a conv's weight standardisation
# The fields that may differ between blocks, by the names that they have in source.
CHANNELS = ("in_chs", "mid_chs", "out_chs")
FIELDS = (
    *(*CHANNELS, "groups", "kernel", "second_kernel"),
    *("stride", "dilation", "first_dilation", "alpha", "beta", "se", "eca"),
    *STANDARD,
)
TYPES = {"alpha": "float", "beta": "float", "eps": "float", "eps_rule": "str", "gained": "bool"}


def number(value: Number) -> str:
    """A number as source: the fewest digits that give the same float64; or a word in quotes."""
    return repr(value)


def type_of(field: str) -> str:
    """The type of a field, as source writes it: `int` where no other is named."""
    return TYPES.get(field, "int")


def one(values: Iterable[T], meaning: str) -> T:
    """The value that all share.

    Raises:
        InputError: They differ, as in a plan that has been rewritten.
    """
    distinct = list(dict.fromkeys(values))
    if len(distinct) != 1:
        raise InputError(
            f"generate: {meaning} differs within the network ({distinct}); give the plan that "
            "nfspec.resolve returned"
        )
    return distinct[0]


def fields(row: Block, plan: Plan) -> dict[str, Number]:
    """The numbers of a block by field; `se` is SE's hidden channels and `eca` ECA's taps, or 0.

    Raises:
        InputError: The block's convs are not standardised alike.
    """
    sizes = {kind: row.attention_size if row.attention == kind else 0 for kind in ("se", "eca")}
    values: tuple[Number, ...] = (
        row.in_channels,
        row.mid_channels,
        row.out_channels,
        row.groups,
        row.kernel,
        row.second_kernel,
    )
    values += (row.stride, row.dilation, row.first_dilation)
    values += (row.alpha, row.beta, sizes["se"], sizes["eca"])
    convs = [op for op in plan.ops if isinstance(op, WSConv) and plan.section(op) == row.name]
    for name in STANDARD:  # a folded network has none
        columns = (getattr(conv, name) for conv in convs)
        values += (one(columns, f"{name} of the convs of {row.name}") if convs else 0,)
    return dict(zip(FIELDS, values, strict=True))


@dataclass(frozen=True)
class Blocks:
    """The residual blocks as one function.

    Attributes:
        rows: The blocks in order.
        values: Name of each block to its numbers by field.
        shared: Fields that are equal in all blocks, with their values.
        derived: Fields that are one expression of others in all blocks, with the expression.
        arguments: Fields that differ, in order, with a default, or None for a field without one.
    """

    rows: tuple[Block, ...]
    values: Mapping[str, Mapping[str, Number]]
    shared: Mapping[str, Number]
    derived: Mapping[str, str]
    arguments: Mapping[str, Number | None]

    def text(self, field: str) -> str:
        """A field within the block's code: a number, an expression, or the name of an argument."""
        if field in self.shared:
            return number(self.shared[field])
        return self.derived.get(field, field)

    def call(self, row: Block, channels: Sequence[str] = CHANNELS) -> str:
        """The arguments of a block, channels first, without those that are defaults."""
        given = self.values[row.name]
        first = [number(given[name]) for name in channels]
        others = [
            f"{name}={number(given[name])}"
            for name, default in self.arguments.items()
            if name not in CHANNELS and given[name] != default
        ]
        return ", ".join((*first, *others))

    def numbers(self, row: Block, names: Iterable[str]) -> str:
        """The fields of a block that are asked for, in that order."""
        given = self.values[row.name]
        return ", ".join(number(given[name]) for name in names)

    def type(self, field: str) -> str:
        """The type of a field, as source writes it."""
        return type_of(field)

    @property
    def attentions(self) -> tuple[str, ...]:
        """Kinds of attention that occur: `se`, `eca`."""
        return tuple(kind for kind in ("se", "eca") if self.shared.get(kind) != 0)

    def always(self, attention: str) -> bool:
        """True if every block has this kind of attention."""
        return all(row.attention == attention for row in self.rows)

    @property
    def few_groups(self) -> bool:
        """True if some conv has groups, and each so few that one conv for each compiles quickly."""
        groups = [row.groups for row in self.rows]
        return 1 < max(groups) <= MOST_GROUPS

    @property
    def attended(self) -> str:
        """The condition for an attention of any kind: `True`, `False`, or an expression."""
        there = [row.attention != "none" for row in self.rows]
        return str(all(there)) if len(set(there)) == 1 else " or ".join(self.attentions)

    @property
    def projected(self) -> str:
        """The condition for a conv on the shortcut: `True`, `False`, or an expression."""
        wanted = [row.shortcut != "identity" for row in self.rows]
        if all(wanted) or not any(wanted):
            return str(all(wanted))
        tests = {
            "stride > 1": [row.stride > 1 for row in self.rows],
            "in_chs != out_chs": [row.in_channels != row.out_channels for row in self.rows],
            self.redilated: [row.dilation != row.first_dilation for row in self.rows],
        }
        some = " or ".join(text for text, holds in tests.items() if any(holds))
        return next((text for text, holds in tests.items() if holds == wanted), some)

    @property
    def dilated(self) -> bool:
        """True if some conv is dilated."""
        return any(row.dilation > 1 or row.first_dilation > 1 for row in self.rows)

    @property
    def redilated(self) -> str:
        """The condition for a block in which a stride has become dilation."""
        return f"{self.text('dilation')} != {self.text('first_dilation')}"

    @property
    def pooled(self) -> str:
        """The condition for a pool before that conv, where there is one."""
        pools = {row.shortcut == "pool_conv" for row in self.rows if row.shortcut != "identity"}
        return self.strided if len(pools) > 1 else str(True in pools)

    @property
    def strided(self) -> str:
        """The condition for a block that has a stride, or dilation in its place."""
        redilated = any(row.dilation != row.first_dilation for row in self.rows)
        tests = ["stride > 1"] if any(row.stride > 1 for row in self.rows) or not redilated else []
        return " or ".join([*tests, *([self.redilated] if redilated else [])])


def _derived(
    rows: tuple[Block, ...],
    columns: Mapping[str, Sequence[Number]],
    shared: Mapping[str, Number],
) -> dict[str, str]:
    """Fields that every block has by one expression of its channels, and the expression."""
    derived = {}
    if "second_kernel" not in shared and all(row.kernel == row.second_kernel for row in rows):
        derived["second_kernel"] = "kernel"
    widths = {row.mid_channels // row.groups for row in rows}
    if "groups" not in shared and len(widths) == 1:
        derived["groups"] = f"mid_chs // {widths.pop()}"
    if "se" in shared or any(row.attention != "se" for row in rows):
        return derived
    hidden = [row.attention_size for row in rows]
    for base in CHANNELS[1:]:
        channels = columns[base]
        ratio = max(1, int(channels[0]) // hidden[0])
        if [int(n) // ratio for n in channels] == hidden:
            derived["se"] = base if ratio == 1 else f"{base} // {ratio}"
            break
    return derived


def blocks_of(plan: Plan) -> Blocks:
    rows = plan.blocks
    values = {row.name: fields(row, plan) for row in rows}
    columns = {field: [values[row.name][field] for row in rows] for field in FIELDS}
    shared = {
        field: column[0]
        for field, column in columns.items()
        if field not in CHANNELS and len(set(column)) == 1
    }
    derived = _derived(rows, columns, shared)
    arguments: dict[str, Number | None] = {}
    for field, column in columns.items():
        if field in shared or field in derived:
            continue
        common = max(dict.fromkeys(column), key=column.count)
        often = field not in CHANNELS and 2 * column.count(common) >= len(column)
        arguments[field] = 0 if field in ("se", "eca") else common if often else None
    without = {name: value for name, value in arguments.items() if value is None}
    return Blocks(rows, values, shared, derived, {**without, **arguments})


@dataclass(frozen=True)
class Drop:
    """Stochastic depth: block i is dropped with probability `rate * i / steps`."""

    rate: float
    steps: int
    rescale: bool


def drop_of(plan: Plan) -> Drop | None:
    """The schedule that gives every block's rate, to the bit; None without stochastic depth."""
    rescales = [op.rescale for op in plan.ops if isinstance(op, StochasticDepth)]
    if not rescales:
        return None
    rescale = one(rescales, "rescaling of stochastic depth")
    rates = [row.drop_rate for row in plan.blocks]
    last = len(rates) - 1
    for digits in (3, 6, 9, 12, 15, 17):
        for steps in (last + 1, last):
            rate = round(rates[-1] * steps / last, digits)
            if [rate * i / steps for i in range(last + 1)] == rates:
                return Drop(rate, steps, rescale)
    raise InputError(
        f"generate: the drop rates of the blocks ({rates}) do not rise evenly; give the plan that "
        "nfspec.resolve returned"
    )
