"""The widths of stages, and of the bottlenecks of their blocks, with the groups of their convs."""

from __future__ import annotations

from nfspec.language.spec import Spec
from nfspec.plan.arithmetic import rounded
from nfspec.plan.checks import WIDTHS_COME_FROM, Problems, stage_path
from nfspec.plan.rows import StageRow
from nfspec.plan.widths import group_hint


class Widths:
    """Computes widths, and notes those that no network can have, with a stand-in for each."""

    def __init__(self, spec: Spec, problems: Problems):
        self.spec = spec
        self.problems = problems
        self.hints: dict[int, str] = {}  # stage to words for widths of groups that work

    def of_stage(self, s: int) -> int:
        """Output channels of a stage."""
        stages, rounding = self.spec.stages, self.spec.rounding
        width = stages.width[s] * stages.width_factor
        out = rounded(width, rounding.channels, rounding.divisor, 0.9)
        if out >= 1:
            return out
        message = (
            f"{stages.width[s]}, times stages.width_factor and rounded down to a multiple "
            f"of {rounding.divisor}, is 0 channels"
        )
        self.problems.add("SPEC-WIDTH", ("stages", "width", s), message, *WIDTHS_COME_FROM)
        return max(1, stages.width[s])

    def bottleneck(
        self, row: StageRow, block: int, channels: tuple[int, int]
    ) -> tuple[int, int, int]:
        """Width asked for, width used and groups of a block with these channels in and out."""
        asked = self._asked(row, block, channels)
        place = f"the bottleneck of {asked} (stage {row.stage}, block {block})"
        if row.groups != "none":
            return self._counted(row, row.groups, asked, place)
        group_width = asked if row.group_width == "none" else row.group_width
        groups = asked // group_width
        path = stage_path(self.spec, "group_width", row.stage)
        if groups == 0:
            message = f"{group_width} is wider than {place}; {self._hint(row.stage)}"
            self.problems.add("SPEC-GROUPS", path, message, *WIDTHS_COME_FROM)
            return asked, group_width, 1
        if groups * group_width != asked and self.spec.rounding.groups == "exact":
            message = (
                f"{group_width} does not divide {place}; {self._hint(row.stage)}; or "
                f'rounding.groups = "floor" for {groups * group_width}'
            )
            self.problems.add("SPEC-GROUPS", path, message, *WIDTHS_COME_FROM)
        return asked, groups * group_width, groups

    def _counted(self, row: StageRow, groups: int, asked: int, place: str) -> tuple[int, int, int]:
        """The same where the number of groups is stated."""
        path = stage_path(self.spec, "groups", row.stage)
        if groups > asked:
            message = f"{groups} groups are more than the channels of {place}"
            self.problems.add("SPEC-GROUPS", path, message, *WIDTHS_COME_FROM)
            return asked, groups, groups
        used = asked // groups * groups
        if used != asked and self.spec.rounding.groups == "exact":
            message = (
                f'{groups} groups do not divide {place}; rounding.groups = "floor" makes it {used}'
            )
            self.problems.add("SPEC-GROUPS", path, message, *WIDTHS_COME_FROM)
        return asked, used, groups

    def _asked(self, row: StageRow, block: int, channels: tuple[int, int]) -> int:
        """The bottleneck's width, before it is cut to whole groups."""
        spec, s = self.spec, row.stage
        expansion, path = row.expansion, stage_path(spec, "expansion", s)
        if (s, block) == (0, 0) and spec.block.first_expansion != "same":
            expansion, path = spec.block.first_expansion, ("block", "first_expansion")
        base = channels[1] if spec.block.mid_from == "out" else channels[0]
        asked = rounded(base * expansion, spec.rounding.channels, spec.rounding.divisor, 0.9)
        if asked < 1:
            message = f"{expansion} of {base} channels is no bottleneck (stage {s}, block {block})"
            self.problems.add("SPEC-WIDTH", path, message, *WIDTHS_COME_FROM)
            return base
        return asked

    def _hint(self, stage: int) -> str:
        if stage not in self.hints:
            self.hints[stage] = group_hint(self.spec, stage)
        return self.hints[stage]
