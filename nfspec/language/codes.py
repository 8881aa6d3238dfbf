"""The codes of a spec's errors: when each occurs, an example, and how to fix it.

`docs/errors.md` and `nfspec explain CODE` show this table, and a test runs every example.
"""

from __future__ import annotations

from dataclasses import dataclass

FILE = "x.toml"  # the file of an example
HEAD = 'schema = "nfspec/1"\nname = "x"\nextends = "nfnet-f0"\n'


@dataclass(frozen=True)
class Code:
    """One kind of error.

    Attributes:
        name: The code, as messages and `nfspec check --json` have it.
        when: The condition under which it occurs.
        fix: The way to fix it.
        example: Text of a spec that has the error; empty if the command alone makes it.
        message: The message that the command prints.
        command: Command that has the error.
    """

    name: str
    when: str
    fix: str
    example: str
    message: str
    command: str = f"nfspec check {FILE}"


CODES = {
    code.name: code
    for code in (
        Code(
            "SPEC-NAME",
            "A spec was asked for by a name that no built-in spec has.",
            "Take a name that `nfspec list` prints, or give the path of a file that ends in .toml.",
            "",
            'no built-in spec "nfnet-f00"; did you mean "nfnet-f0"? [SPEC-NAME]',
            "nfspec check nfnet-f00",
        ),
        Code(
            "SPEC-READ",
            "A file cannot be read: it does not exist, is not a regular file, is not UTF-8 text, "
            "or begins with a byte order mark.",
            "Check the path and the permissions, and save the file as UTF-8 without a byte order "
            "mark.",
            "",
            "none.toml: cannot be read: No such file or directory [SPEC-READ]",
            "nfspec check none.toml",
        ),
        Code(
            "SPEC-TOML",
            "The text is not TOML. The place is where the reader stopped, which may be behind the "
            "mistake.",
            "Fix the syntax: strings need quotes, and each key or table is written once.",
            HEAD + "[activation]\nkind = silu\n",
            "x.toml:5:8: not TOML: invalid value; a string needs quotes [SPEC-TOML]",
        ),
        Code(
            "SPEC-LIMIT",
            "Something is larger than any network needs: the file, a line, a number, the depth of "
            "nesting, the number of blocks, parameters or patterns. Limits keep the reading of "
            "files from strangers quick.",
            "Make it smaller than the limit that the message names.",
            HEAD + "[stages]\ndepth = [1, 2, 6, 2000]\n",
            "x.toml:5:1: stages.depth: 2009 blocks in all, more than the limit of 2000 "
            "[SPEC-LIMIT]",
        ),
        Code(
            "SPEC-SCHEMA",
            "A spec does not state the version of the language, or states one that this release "
            "does not read.",
            'Make `schema = "nfspec/1"` the first line.',
            'name = "x"\nextends = "nfnet-f0"\n',
            'x.toml:1:1: schema: missing; the first line of a spec is schema = "nfspec/1" '
            "[SPEC-SCHEMA]",
        ),
        Code(
            "SPEC-EXTENDS",
            "The spec that `extends` names cannot be used: there is none, it is outside the folder "
            "of the spec that was loaded, it extends itself, or the chain is too long. Or what is "
            "put over a spec, by a file or by --set, has a parent of its own.",
            "Name a built-in spec, or a .toml file beside the spec or below its folder.",
            'schema = "nfspec/1"\nname = "x"\nextends = "nfnet-f9"\n',
            'x.toml:3:1: extends: no built-in spec "nfnet-f9"; did you mean "nfnet-f7"? '
            "[SPEC-EXTENDS]",
        ),
        Code(
            "SPEC-UNKNOWN-KEY",
            "The language has no such field or table, or not in this table.",
            "Correct the spelling, or move the field to its table; docs/language.md lists them "
            "all.",
            HEAD + "[stages]\ndepht = [1, 2, 6, 3]\n",
            'x.toml:5:1: stages.depht: unknown key; did you mean "depth"? [SPEC-UNKNOWN-KEY]',
        ),
        Code(
            "SPEC-MISSING",
            "No file of the chain states a field, and no field has a default.",
            "State the field, or extend a spec that states it.",
            'schema = "nfspec/1"\nextends = "nfnet-f0"\n',
            "x.toml:1:1: name: missing; every spec has one of its own [SPEC-MISSING]",
        ),
        Code(
            "SPEC-TYPE",
            "A value has another type than its field.",
            "Write a value of the type that the message expects.",
            HEAD + '[head]\nclasses = "10"\n',
            'x.toml:5:1: head.classes: expected a whole number; found "10" [SPEC-TYPE]',
        ),
        Code(
            "SPEC-VALUE",
            "A value has the right type and is out of range, or is not one of the known words.",
            "Take a value that docs/language.md gives for the field.",
            HEAD + "[head]\ndropout = 1.0\n",
            "x.toml:5:1: head.dropout: must be less than 1.0; found 1.0 [SPEC-VALUE]",
        ),
        Code(
            "SPEC-LENGTH",
            "A list has too few or too many entries, such as a column of another length than "
            "`stages.depth`.",
            "Give the list the length that the message names, or write one value, which serves "
            "every stage.",
            HEAD + "[stages]\nkernel = [3, 3]\n",
            "x.toml:5:1: stages.kernel: has 2 entries, but the length of stages.depth is 4 "
            "[SPEC-LENGTH]",
        ),
        Code(
            "SPEC-KERNEL",
            "A kernel has an even side. Its centre would be between two pixels.",
            "Use an odd side.",
            HEAD + "[stages]\nkernel = 4\n",
            "x.toml:5:1: stages.kernel: must be odd; found 4 [SPEC-KERNEL]",
        ),
        Code(
            "SPEC-STRIDE",
            "A stage has a stride of more than 2, and its shortcut is an average pool.",
            'Use a stride of 1 or 2, or `block.shortcut = "strided_conv"`.',
            HEAD + "[stages]\nstride = [1, 2, 4, 2]\n",
            "x.toml:5:17: stages.stride[2]: at most 2 where an average pool makes the "
            'shortcut; found 4; block.shortcut = "strided_conv" takes any [SPEC-STRIDE]',
        ),
        Code(
            "SPEC-GAIN",
            "Convs have no gain, and the last conv of a block should start from one.",
            "Let convs have gains (`ws.gain = true`), or set `block.conv2_gain_init = 1.0`.",
            HEAD + "[ws]\ngain = false\n[block]\nconv2_gain_init = 0.5\n",
            "x.toml:5:1: ws.gain: convs without a gain cannot start from block.conv2_gain_init = "
            "0.5; let them have gains, or start from 1.0 [SPEC-GAIN]",
        ),
        Code(
            "SPEC-GAMMA",
            "The gamma of the original is asked for, and its table has none for this slope of "
            "leaky_relu.",
            'Use `activation.gamma = "exact"`.',
            HEAD + '[activation]\nkind = "leaky_relu"\nslope = 0.2\n',
            'x.toml:6:1: activation.gamma: the "deepmind" table has leaky_relu of slope '
            '0.01, this one is of 0.2; use gamma = "exact" [SPEC-GAMMA]',
        ),
        Code(
            "SPEC-GROUPS",
            "A group is wider than the bottleneck, or the bottleneck's width is not a multiple of "
            'it and `rounding.groups` is "exact"; or a stage has both a number of groups and a '
            "width of them.",
            "Change `stages.group_width`, `stages.groups` or the width, or let `rounding.groups = "
            '"floor"` cut the bottleneck to whole groups.',
            HEAD + '[stages]\ngroup_width = 100\n[rounding]\ngroups = "exact"\n',
            "x.toml:5:1: stages.group_width: 100 does not divide the bottleneck of 128 "
            "(stage 0, block 0); nearest that works: stages.group_width = 64, or "
            'stages.width_factor = 1.563; or rounding.groups = "floor" for 100 [SPEC-GROUPS]',
        ),
        Code(
            "SPEC-WIDTH",
            "A width is zero after it is multiplied and rounded.",
            "Use a larger width, factor or ratio, or a smaller divisor.",
            HEAD + "[head]\nconv_ratio = 0.0001\n",
            "x.toml:5:1: head.conv_ratio: leaves the final conv no channels; for no such "
            'conv, head.conv = "none" [SPEC-WIDTH]',
        ),
        Code(
            "SPEC-FAN-IN",
            "A conv has a single weight for each output. Weight standardisation subtracts the "
            "mean of these weights, so the kernel would be zero.",
            "Use more channels in each group, or a larger kernel.",
            HEAD + "[stages]\ngroup_width = 1\nkernel = 1\n",
            "x.toml:5:1: stages.group_width: stages.0.blocks.0.conv1 would have one weight "
            "for each output (fan-in 1), which weight standardisation turns into zero; use "
            "more channels or a larger kernel [SPEC-FAN-IN]",
        ),
        Code(
            "SPEC-AGC",
            "A pattern of `agc.exclude` or `agc.names` matches the name of no parameter, so that "
            "it would change nothing.",
            "Correct the pattern; `nfspec agc SPEC` lists the parameters by name.",
            HEAD + '[agc]\nexclude = ["head.fx.*"]\n',
            'x.toml:5:12: agc.exclude[0]: no parameter is called "head.fx.*", where * stands '
            'for any run of characters; did you mean "head.fc.bias"? [SPEC-AGC]',
        ),
        Code(
            "INPUT",
            "The spec is a network, and the images that it is evaluated on are so small that "
            "nothing is left of them. Only `nfspec check` reports it, and names the code in "
            "its JSON.",
            "Use a larger `input.test`, or smaller strides.",
            HEAD + '[input]\ntest = 16\n[stem]\nkernel = 7\npadding = "valid"\n',
            "x.toml: image of 16x16 px: nothing is left of it at stem.conv1",
        ),
    )
}


def section(code: Code) -> str:
    """The section of a code in docs/errors.md."""
    example = f"In `{FILE}`:\n\n```toml\n{code.example}```\n\n" if code.example else ""
    return (
        f"## {code.name}\n\n**When it occurs.** {code.when}\n\n{example}"
        f"`{code.command}` says:\n\n```text\n{code.message}\n```\n\n**How to fix it.** {code.fix}\n"
    )
