"""`python -m nfspec.conformance.report.small`: verdicts that a test compares a run with."""

from __future__ import annotations

import json

from nfspec.conformance.report.markdown import compact_verdicts
from nfspec.conformance.running.run import Settings, run

SMALL = Settings(source="timm/test_nfnet", examples=2)


def main() -> None:
    print(json.dumps(compact_verdicts(run(SMALL)), indent=1))


if __name__ == "__main__":
    main()
