"""Write evals/results/reliability.json: counts of what the tests did, from the reports of `make reliability`."""

from __future__ import annotations

import platform
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bad_input"))

from cases import CASES, ONCE  # pyright: ignore[reportMissingImports]

from sae_lens_contrastive.files import write_json

RESULTS = Path(__file__).parents[1] / "evals" / "results" / "reliability.json"


def main(reports: list[str]) -> None:
    """Sum what the tests of all reports recorded; stop if one of them failed."""
    totals: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                raise SystemExit(
                    f"{report}: {case.get('classname')}.{case.get('name')} failed. Run `make reliability`."
                )
            totals["tests"] += case.find("skipped") is None
            for recorded in case.iter("property"):
                totals[str(recorded.get("name"))] += float(str(recorded.get("value")))
    found = [{"input": f"{kind}: {wrong}", "came_to": came_to} for (kind, wrong), came_to in ONCE.items()]
    counts = {name: round(total, 4) for name, total in sorted(totals.items())}
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    write_json(RESULTS, {"counts": {"bad_inputs": len(CASES), **counts}, "found": found, "machine": machine})
    print(RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:])
