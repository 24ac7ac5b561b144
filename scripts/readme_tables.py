"""Write the README's tables from the committed results they name; with --check only compare."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", re.DOTALL)


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = TABLE.sub(lambda match: f"<!-- table: {match[1]} -->\n{_table(match[1])}<!-- end of table -->", text)
    if "--check" in sys.argv:
        if wanted != text:
            print("README.md: a table differs from its results. Run python scripts/readme_tables.py", file=sys.stderr)
            return 1
        return 0
    readme.write_text(wanted, encoding="utf-8")
    return 0


def _table(source: str) -> str:
    rows = json.loads((ROOT / source).read_text(encoding="utf-8"))
    lines = [
        "| variant | score | forgetting, held out | forget accuracy, held out (95 % interval) "
        "| retain accuracy, held out | worst near domain, held out | explained variance | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        held_out = row["held_out"]
        low, high = held_out["ci95"]
        near = row["near_accuracy_by_domain"]
        worst = min(near, key=near.__getitem__)
        lines.append(
            f"| {row['variant']} | {row['unlearning_score']:.3f} | {held_out['forgetting']:.3f} "
            f"| {held_out['forget_accuracy']:.3f} ({low:.3f} to {high:.3f}) | {held_out['retain_accuracy']:.3f} "
            f"| {near[worst]:.3f}, {worst.replace('_', ' ')} "
            f"| {row['explained_variance']:.3f} | {row['train_seconds']:.0f} s |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
