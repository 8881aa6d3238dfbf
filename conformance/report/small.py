"""`python -m nfspec.conformance.report.small PATH`: verdicts that a test compares a run with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nfspec.conformance.report.markdown import compact_verdicts
from nfspec.conformance.run import Settings, run
from nfspec.weights.files import replacing

SMALL = Settings(source="timm/test_nfnet", examples=2)


def main(path: Path) -> None:
    text = json.dumps(compact_verdicts(run(SMALL)), indent=1)
    with replacing(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
