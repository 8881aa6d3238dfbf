"""The command line as a whole: exit statuses, errors on stderr, and what it imports."""

import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import nfspec
from nfspec.cli import app
from nfspec.cli.commands import COMMANDS as KNOWN
from nfspec.cli.commands import GROUPS
from nfspec.cli.show import show

COMMANDS = dict(typer.main.get_command(app).commands)
FRAMEWORKS = ("keras", "torch", "jax", "tensorflow")
MODES = ("float32", "f32", "cpu")  # values, which have no capital letters


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options
    )


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"nfspec {nfspec.__version__}\n")


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    for title, commands in GROUPS.items():
        section = result.stdout.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        shown = [line.split()[0] for line in section.splitlines() if line[2] != " "]
        assert shown == list(commands)
    assert "..." not in result.stdout.partition(next(iter(GROUPS)))[2]


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("show",), ("show", "nfnet-f0", "--size", 0)]
)
def test_bad_usage_exits_with_2(arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


def test_an_error_of_ours_is_a_message_on_stderr_and_exit_status_2():
    result = run("show", "nfnet-f00")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nfnet-f00" in result.stderr
    assert result.stderr.endswith("[SPEC-NAME]\n")
    assert "Traceback" not in result.stderr


def made_of(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(28, "No space left on device", "out"), 2, "out: No space left on device\n"),
        (OSError("odd"), 2, "odd\n"),
        (made_of(ImportError("a module's"), KeyboardInterrupt()), 130, "interrupted\n"),
    ],
)
def test_what_may_happen_to_any_command(monkeypatch, raised, status, message):
    def interrupted(source, over):
        raise raised

    monkeypatch.setitem(show.__globals__, "load", interrupted)
    result = run("show", "nfnet-f0")
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", message)


def test_a_mistake_of_our_own_is_not_hidden(monkeypatch):
    def broken(source, over):
        raise ZeroDivisionError

    monkeypatch.setitem(show.__globals__, "load", broken)
    assert isinstance(run("show", "nfnet-f0").exception, ZeroDivisionError)


@pytest.mark.parametrize(("line", "module"), [("list", "listing"), ("--help", None)])
def test_a_command_is_imported_when_it_is_asked_for(line, module):
    """And no framework, nor what draws bars and tables."""
    code = f"""
import sys
from nfspec.cli import main
sys.argv = ["nfspec", {line!r}]
try:
    main()
except SystemExit as end:
    print(end.code, *sys.modules)
"""
    status, *modules = python(code).stdout.splitlines()[-1].split()
    assert status == "0"
    assert not {*FRAMEWORKS, "rich"} & set(modules)
    commands = [name for name in modules if name.startswith("nfspec.cli.")]
    assert commands == ["nfspec.cli.commands", *([f"nfspec.cli.{module}"] if module else [])]


def test_the_summaries_are_the_beginnings_of_the_helps():
    assert list(COMMANDS) == list(KNOWN)
    for name, command in COMMANDS.items():
        assert command.name == name
        assert command.get_short_help_str(limit=80) == KNOWN[name].summary


def test_a_reader_who_leaves_early_is_no_error():
    code = "import sys; sys.argv[1:] = ['list']; from nfspec.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_terminal_that_lacks_a_character_gets_the_rest():
    code = (
        "import sys; sys.argv[1:] = ['show', 'nf-regnet-b1']; from nfspec.cli import main; main()"
    )
    result = python(code, env={**os.environ, "PYTHONIOENCODING": "cp437"}, encoding="cp437")
    assert (result.returncode, result.stderr) == (0, "")
    assert "nf-regnet-b1\nsource       arXiv:2101.08692 ?5; " in result.stdout


POOR = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
POOR |= {"COLUMNS": "20", "TMPDIR": "/nowhere"}


def test_a_poor_environment_is_no_hindrance(tmp_path):
    """Sources and file names have letters that are not ASCII; there is no home, either."""
    env = {name: value for name, value in os.environ.items() if name != "HOME"} | POOR
    code = "from nfspec.cli import app; import sys\nfor line in sys.argv[1:]:\n"
    code += "    try: app(line.split())\n    except SystemExit as end: assert end.code == 0, line"
    lines = ("show nf-regnet-b1", "list", "agc nfnet-nano", "cost nfnet-f0", "train --help")
    lines += (f"new e --output {tmp_path}/é.toml", f"check {tmp_path}/é.toml")
    result = subprocess.run(
        [sys.executable, "-c", f"from nfspec import streams; streams.ready()\n{code}", *lines],
        capture_output=True, timeout=60, env=env,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("command", ["new moth", "conform"])
def test_a_present_folder_that_was_deleted_is_a_sentence(command, tmp_path):
    code = (
        "import os, sys; os.rmdir(os.getcwd()); sys.argv[1:] = sys.argv[1].split(); "
        "from nfspec.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code, command],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "the current folder was deleted; change to another one\n"


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"list", "explain"}))
def test_help_says_what_is_run_of_files_from_strangers(command):
    said = " ".join(run(command, "--help").stdout.split())
    assert " run, whoever wrote it" in said
    runs_code = "A --subject is code, which is imported and run: test only what you trust." in said
    assert runs_code == any("--subject" in each.opts for each in COMMANDS[command].params)


@pytest.mark.parametrize("command", COMMANDS)
def test_helps_are_phrases_that_begin_with_what_they_name(command):
    helps = [parameter.help for parameter in COMMANDS[command].params if parameter.help]
    for text in (*helps, KNOWN[command].summary):
        assert text[0].isupper() or text.split()[0].strip(",") in (*FRAMEWORKS, *MODES), text
        assert text.endswith(".") and not text.startswith(("Of ", "Instead of ")), text


def sections(text):
    """The lines of each section of a help by its title."""
    found = {}
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            lines = found.setdefault(line[:-1], [])
        elif line and found:
            lines.append(line)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_helps_are_in_groups_and_fit_a_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run(command, "--help").stdout
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 80
    titles = sections(text)
    options = {each.opts[0] for each in COMMANDS[command].params if each.opts[0].startswith("-")}
    shown = {line.split()[0].strip(",") for lines in titles.values() for line in lines}
    assert options <= shown
    if len(options) > 12:
        assert set(KNOWN[command].groups) < set(titles) and len(KNOWN[command].examples) >= 2
    for title, options in KNOWN[command].groups.items():
        lines = [line for line in titles[title] if line[2] == "-"]
        assert [line.split()[0].strip(",") for line in lines] == list(options)


@pytest.mark.parametrize("command", [name for name in KNOWN if KNOWN[name].examples])
def test_examples_are_command_lines_that_can_be_copied(command):
    shown = sections(run(command, "--help").stdout)["Examples"]
    for purpose, line in KNOWN[command].examples.items():
        assert shown[shown.index(f"  {purpose}:") + 1] == f"    {line}"
        program, name, *arguments = shlex.split(line)
        assert (program, name) == ("nfspec", command)
        assert COMMANDS[command].make_context(command, arguments).params


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_have_the_same_names_everywhere(command):
    arguments = [each for each in COMMANDS[command].params if not each.opts[0].startswith("-")]
    known = {"SPEC", "RUN", "SPEC|RUN", "SPEC|RUN|FILE", "FILE", "DATA", "IMAGE", "NAME", "PATTERN"}
    known |= {"CODE", "CASE", "A", "B", "IN", "OUT"}
    assert {(each.metavar or each.name.upper()).rstrip(".") for each in arguments} <= known
    assert {each.metavar for each in arguments if each.name == "variant"} <= {"SPEC", "SPEC|RUN"}
    shown = sections(run(command, "--help").stdout)["Arguments"] if arguments else []
    assert "<" not in "".join(shown)  # the name of a type
