"""Reads an exposition of /metrics from stdin with Prometheus' own parser, and holds it to metrics.json: every family
is listed there with its type and labels, has a HELP, and no label has more values than it may.

Prints what it saw as JSON: the number of samples of each family. `--want NAME` says that a family must have some.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

# The most values of one label: the largest bound of the code (pairs of role and service), and the one for the rest.
VALUES_MAX = 501


def listed() -> dict:
    return json.loads((Path(__file__).parent / "metrics.json").read_text())


def look(text: str) -> tuple[list[str], dict[str, int]]:
    known, wrong, seen = listed(), [], {}
    values = defaultdict(set)
    for family in text_string_to_metric_families(text):
        # The parser takes `_total` off counters.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        seen[name] = len(family.samples)
        if name not in known:
            wrong.append(f"{name}: not in tests/ops/metrics.json")
            continue
        kind, labels = known[name]
        if family.type != kind:
            wrong.append(f"{name}: a {family.type}, and should be a {kind}")
        if not family.documentation.strip():
            wrong.append(f"{name}: has no HELP")
        for sample in family.samples:
            extra = {"le"} if sample.name.endswith("_bucket") else set()
            if set(sample.labels) != set(labels) | extra:
                wrong.append(f"{sample.name}: has the labels {sorted(sample.labels)}")
            for label, value in sample.labels.items():
                values[name, label].add(value)
    wrong += [
        f"{name}: {len(given)} values of {label}"
        for (name, label), given in values.items()
        if len(given) > VALUES_MAX
    ]
    return wrong, seen


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--want", action="append", default=[])
    wanted = options.parse_args().want
    wrong, seen = look(sys.stdin.read())
    wrong += [f"{name}: is missing" for name in wanted if not seen.get(name)]
    print(json.dumps(seen))
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
