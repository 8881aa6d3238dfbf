"""The derived table of `nfspec show`: stem, blocks by stage, and head, in 80 columns."""

from __future__ import annotations

import math

from nfspec.console import bold, compact, table
from nfspec.plan import Block, Dense, Dropout, Plan, Pool, WSConv
from nfspec.plan.counting import Count, Row

COLUMNS = (
    *("", "in", "mid", "out", "grp", "k", "s"),
    *("alpha", "beta", "std", "attn", "drop", "params", "MACs"),
)
ALIGN = "<>>>>>>>>><>>>"


def _block(block: Block) -> list[str]:
    floored = "*" if block.mid_channels != block.requested_mid_channels else ""
    attention = f"{block.attention} {block.attention_size}" if block.attention_size else ""
    return [
        f"blocks.{block.index}",
        str(block.in_channels),
        f"{floored}{block.mid_channels}",
        str(block.out_channels),
        str(block.groups),
        ",".join(str(kernel) for kernel in dict.fromkeys((block.kernel, block.second_kernel))),
        str(block.stride),
        f"{block.alpha:.4g}",
        f"{block.beta:.4g}",
        f"{math.sqrt(block.expected_variance):.4g}",
        attention,
        f"{block.drop_rate:.3f}" if block.drop_rate else "",
    ]


def _end(plan: Plan, name: str) -> list[str]:
    """The cells of stem or head: first, middle and last width, kernels and total stride."""
    ops = [op for op in plan.ops if plan.section(op) == name]
    convs = [op for op in ops if isinstance(op, WSConv)]
    dense = [op for op in ops if isinstance(op, Dense)]
    steps = [op.stride for op in ops if isinstance(op, WSConv | Pool)]
    drop = [f"{op.rate:.3f}" for op in ops if isinstance(op, Dropout)]
    widths = [str(convs[0].in_channels)] if convs else [str(dense[0].in_features)]
    widths += [str(dense[0].in_features) if dense and convs else ""]
    widths += [str(dense[0].out_features if dense else convs[-1].out_channels)]
    kernel = ",".join(sorted({str(conv.kernel) for conv in convs}))
    stride = str(math.prod(steps)) if steps else ""
    return [name, *widths, "", kernel, stride, "", "", "", "", *(drop or [""])]


def _notes(plan: Plan) -> list[str]:
    """One line for each bottleneck that did not divide into groups."""
    floored = {
        (b.stage, b.requested_mid_channels, b.mid_channels, b.groups): None
        for b in plan.blocks
        if b.mid_channels != b.requested_mid_channels
    }
    return [
        f"* stages.{stage}: mid {asked} floored to {used}, {groups} "
        f'group{"s" if groups > 1 else ""} (rounding.groups = "floor")'
        for stage, asked, used, groups in floored
    ]


def block_table(plan: Plan, counted: Count) -> list[str]:
    """Lines of the table; `std` is the expected one of a block's input at initialisation."""
    rows = {row.name: row for row in counted.blocks}

    def counts(row: Row) -> list[str]:
        return [compact(row.parameters), compact(row.macs)]

    cells = [list(COLUMNS), _end(plan, "stem") + counts(rows["stem"])]
    cells += [_block(block) + counts(rows[block.name]) for block in plan.blocks]
    cells += [_end(plan, "head") + counts(rows["head"])]
    header, stem, *lines, head = table(cells, ALIGN, gap=" ")
    printed = [bold(header), stem]
    for block, line in zip(plan.blocks, lines, strict=True):
        if block.index == 0:
            height, width, _ = rows[block.name].shape
            dilated = f", dilation {block.dilation}" if block.dilation > 1 else ""
            printed.append(bold(f"stages.{block.stage}  {height} x {width} px{dilated}"))
        printed.append(line)
    return [*printed, head, *_notes(plan)]
