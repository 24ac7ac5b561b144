"""Write the documents' tables from the committed results they name.

A marker names a file, and with `#` one of several tables of it.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import scale_tables
from recipe_tables import VIEWS

from sae_lens_contrastive.report.seeds import Spread

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_SELF = "python scripts/document_tables.py"
TABLE = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare, and fail where a table differs")
    check = parser.parse_args().check
    differing = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        wanted = TABLE.sub(lambda match: f"<!-- table: {match[1]} -->\n{_table(match[1])}<!-- end of table -->", text)
        if wanted != text:
            differing.append(document)
            if not check:
                document.write_text(wanted, encoding="utf-8")
    if differing and check:
        for document in differing:
            print(f"{document.name}: a table differs from its results. Run {_SELF}", file=sys.stderr)
        return 1
    return 0


def _table(marker: str) -> str:
    source, _, view = marker.partition("#")
    content = json.loads((ROOT / source).read_text(encoding="utf-8"))
    lines = {**VIEWS, **scale_tables.VIEWS, "found": _found}[view] if view else _LINES[Path(source).stem]
    return "\n".join(lines(content)) + "\n"


def _demo(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| variant | score | forgetting, held out | forget accuracy, held out (95 % interval) "
        "| random features instead | retain accuracy, held out | worst near domain, held out | explained variance "
        "| training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        held_out = row["held_out"]
        low, high = held_out["ci95"]
        near = row["near_accuracy_by_domain"]
        worst = min(near, key=near.__getitem__)
        lines.append(
            f"| {row['variant']} | {row['unlearning_score']:.3f} | {held_out['forgetting']:.3f} "
            f"| {held_out['forget_accuracy']:.3f} ({low:.3f} to {high:.3f}) "
            f"| {row['measures']['random_baseline']['mean_forget_accuracy']:.3f} | {held_out['retain_accuracy']:.3f} "
            f"| {near[worst]:.3f}, {worst.replace('_', ' ')} "
            f"| {row['explained_variance']:.3f} | {row['train_seconds']:.0f} s |"
        )
    return lines


def _study(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| setting | variant | d_sae | score | forgetting, held out | retain accuracy, held out | explained variance "
        "| l0 | dead | features below the retain threshold | cause of a zero | training |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for setting, variant in dict.fromkeys((row["study_setting"], row["variant"]) for row in rows):
        seeds = [row for row in rows if (row["study_setting"], row["variant"]) == (setting, variant)]
        surviving = [max((s["n_surviving"] for s in row["frontier"]), default=0) for row in seeds]
        causes = dict.fromkeys(row["cause_of_zero"] or "-" for row in seeds)
        lines.append(
            f"| {setting.replace('_', ' ')} | {variant} | {seeds[0]['d_sae']} "
            f"| {_spread(seeds, lambda row: row['unlearning_score'])} "
            f"| {_spread(seeds, lambda row: row['held_out']['forgetting'])} "
            f"| {_spread(seeds, lambda row: row['held_out']['retain_accuracy'])} "
            f"| {fmean(row['explained_variance'] for row in seeds):.3f} | {fmean(row['l0'] for row in seeds):.0f} "
            f"| {fmean(row['dead_features'] for row in seeds):.0f} | {fmean(surviving):.0f} | {', '.join(causes)} "
            f"| {fmean(row['train_seconds'] for row in seeds):.0f} s |"
        )
    return lines


def _parity(content: dict[str, Any]) -> list[str]:
    lines = [
        "| model | SAE | prompt | questions | settings | answers equal | of them turned wrong | score, ours | SAEBench "
        "| seconds, ours | SAEBench | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(content["rows"], key=lambda row: (row["model"], row["model_class"], row["prompt"])):
        lines.append(
            f"| {row['model']}, {row['model_class'].replace('_', ' ')} | {row['sae']} | {row['prompt']} "
            f"| {sum(row['questions'].values())} | {row['settings']} "
            f"| {row['answers_agreeing']:,} of {row['answers_compared']:,} | {row['answers_turned_wrong']} "
            f"| {row['score_ours']:.6f} | {row['score_saebench']:.6f} "
            f"| {row['seconds_ours']:.1f} | {row['seconds_saebench']:.1f} | {row['ratio']:.1f} x |"
        )
    return lines


def _evaluation_memory(content: dict[str, Any]) -> list[str]:
    scaled = content["scaled"]
    lines = ["| model | cache_gib | kept in memory | kept in files | memory used |", "|---|---|---|---|---|"]
    for row in scaled["rows"]:
        lines.append(
            f"| width {scaled['d_model']}, run | {row['cache_gib']:.2f} | {row['kept_in_memory_gib']:.2f} GiB "
            f"| {row['kept_in_files_gib']:.2f} GiB | {row['peak_beyond_start_gib']:.2f} GiB |"
        )
    real = content["gemma-2-2b"]
    lines.append(
        f"| Gemma-2-2B, calculated | {real['cache_gib']:.0f} | {real['host_gib']:.1f} GiB | "
        f"{real['files_gib']:.1f} GiB | {real['host_with_weights_gib']:.1f} GiB with the weights |"
    )
    return lines


def _side_by_side(content: dict[str, Any]) -> list[str]:
    return [
        f"| tokens | {content['one']} alone | runs 0 to 4 side by side | ratio |",
        "|---|---|---|---|",
        f"| {content['tokens']:,} | {content['seconds_one']:.0f} s | {content['seconds_five']:.0f} s "
        f"| {content['ratio']:.2f} x |",
    ]


def _reliability(content: dict[str, Any]) -> list[str]:
    counts = content["counts"]
    rows = {
        "tests": f"{counts['tests']:,.0f}",
        "processes killed at a random moment, then finished": f"{counts['kills']:.0f}",
        "processes killed before a change of a file, then finished": f"{counts['kills_before_a_file_step']:.0f}",
        "disks that filled": f"{counts['full_disks']:.0f}",
        "evaluations at once over one cache": f"{counts['evaluations_at_once']:.0f}",
        "bad inputs, each with its message": f"{counts['bad_inputs']}",
        "inputs that the fuzzer made": f"{counts['fuzzed_inputs']:,.0f} in {counts['fuzzed_seconds'] / 60:.0f} minutes",
        "training at a stretch": f"{counts['minutes_trained']:.0f} minutes, after warm-up "
        f"{counts['memory_growth']:.3f} x the memory",
        "bad inputs that were not refused when first tried, now fixed": f"{len(content['found'])}",
    }
    return ["| what | how many |", "|---|---|", *(f"| {what} | {count} |" for what, count in rows.items())]


def _found(content: dict[str, Any]) -> list[str]:
    found = [f"| {each['input']} | {each['came_to']} |" for each in content["found"]]
    return ["| input | what it came to |", "|---|---|", *found]


def _spread(seeds: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> str:
    return Spread(tuple(value(row) for row in seeds)).text()


_LINES: dict[str, Callable[[Any], list[str]]] = {
    "demo": _demo,
    "study": _study,
    "bench": scale_tables.summary,
    "bench_data_parallel": scale_tables.data_parallel,
    "bench_side_by_side": _side_by_side,
    "bench_evaluation_memory": _evaluation_memory,
    "saebench_parity": _parity,
    "reliability": _reliability,
}
"""How the results of a file become the lines of a table."""


if __name__ == "__main__":
    sys.exit(main())
