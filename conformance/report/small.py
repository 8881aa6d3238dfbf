"""`python -m nfspec.conformance.report.small`: verdicts that a test compares a run with."""

from __future__ import annotations

import json
import sys

from nfspec.conformance.report import terminal
from nfspec.conformance.report.markdown import compact_verdicts
from nfspec.conformance.running.run import run
from nfspec.conformance.running.settings import Settings

SMALL = Settings(source="timm/test_nfnet", examples=2)


def main() -> None:
    """Print the verdicts; exit status 1 if the run is not conformant."""
    results = run(SMALL)
    print(json.dumps(compact_verdicts(results), indent=1))
    if not results.conformant:
        sys.exit("\n".join([*terminal.head(results), *terminal.failures(results)]))


if __name__ == "__main__":
    main()
