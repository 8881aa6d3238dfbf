"""The pytest plugin: `pytest --nfspec-subject my_module:MyPort --nfspec-spec nfnet-f0`.

pytest imports this module wherever nfspec is installed. It does nothing and imports nothing more
until the option --nfspec-subject is given.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nfspec", "conformance of Normalizer-Free Networks (nfspec)")
    group.addoption(
        "--nfspec-subject",
        action="append",
        metavar="SUBJECT",
        help="Implementation to test, module:object, file.py:object or a name that nfspec knows; a "
        "test for each property is added. Can be repeated.",
    )
    group.addoption(
        "--nfspec-spec",
        metavar="SPEC",
        help="A built-in spec, or the path of a .toml file. Default: a general grid of shapes.",
    )
    group.addoption(
        "--nfspec-properties",
        metavar="IDS",
        default="",
        help="Ids of properties, such as WS-01, a list with commas. Default: all.",
    )
    group.addoption(
        "--nfspec-must-offer",
        metavar="METHODS",
        default="",
        help="Methods that each subject has to offer, such as ws_conv, a list with commas. Tests "
        "of other methods are skipped where the subject does not offer them.",
    )
    group.addoption(
        "--nfspec-mode",
        metavar="MODES",
        default="f32",
        help="Modes of the arithmetic, a list with commas of f32, tf32, bf16, f16. Default: f32.",
    )
    group.addoption(
        "--nfspec-device",
        metavar="DEVICE",
        default="cpu",
        help="Device: cpu, gpu or tpu. Default: cpu.",
    )
    group.addoption(
        "--nfspec-examples",
        metavar="N",
        type=int,
        default=25,
        help="Number of cases to draw for each property, besides the essential ones. Default: 25.",
    )
    group.addoption(
        "--nfspec-seed",
        metavar="N",
        type=int,
        default=0,
        help="Random seed of the cases. Default: 0.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--nfspec-subject"):
        from nfspec.conformance.items import conformance_tests

        config.addinivalue_line("markers", "nfspec: a property of an implementation (nfspec)")
        config.pluginmanager.register(conformance_tests(config), "nfspec-conformance")
