"""Reads every expression of the alerts and the dashboard with a PromQL parser, and holds what they name to
metrics.json, and that to the sources; every alert has its annotations and its runbook."""

import json
import re
import sys
from pathlib import Path

import promql_parser
import yaml

from metrics import listed

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["src/metrics.rs", "workers/mcp-gateway/src/metrics.rs"]
# What the scrape adds, and what a histogram has in its samples.
ADDED = {"instance", "job", "__name__"}
PARTS = {"_bucket": {"le"}, "_sum": set(), "_count": set()}
SEVERITIES = {"info", "warning", "critical"}


def labels_of(name: str) -> set[str] | None:
    """The labels of a metric or of a histogram's part; none if there is no such metric."""
    known = listed()
    if name == "up":
        return set(ADDED)
    if name in known:
        kind, labels = known[name]
        return None if kind == "histogram" else {*labels, *ADDED}
    for part, extra in PARTS.items():
        base = name.removesuffix(part)
        if base != name and known.get(base, [""])[0] == "histogram":
            return {*known[base][1], *extra, *ADDED}
    return None


def check(expression: str) -> list[str]:
    """What is wrong with an expression."""
    try:
        tree = promql_parser.parse(expression)
    except ValueError as error:
        return [str(error)]
    wrong, labels = [], set()

    def walk(node, grouped: set[str]):
        if isinstance(node, promql_parser.VectorSelector):
            have = labels_of(node.name)
            if have is None:
                return wrong.append(f"there is no metric {node.name}")
            used = {matcher.name for matcher in node.matchers.matchers} | grouped
            labels.update(have)
            if used - have:
                wrong.append(f"{node.name} has no label {sorted(used - have)}")
        elif isinstance(node, promql_parser.AggregateExpr):
            by = node.modifier
            names = set(by.labels) if by and by.type == promql_parser.AggModifierType.By else set()
            walk(node.expr, names)
        else:
            for name in ("expr", "lhs", "rhs", "vector_selector", "vs"):
                child = getattr(node, name, None)
                if child is not None:
                    walk(child, grouped)
            for child in getattr(node, "args", None) or []:
                walk(child, grouped)

    walk(tree, set())
    if not labels and not wrong:
        wrong.append("names no metric")
    return wrong


def anchors(markdown: str) -> set[str]:
    """The places in a page that a link can lead to."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def alerts() -> list[str]:
    wrong, places = [], anchors((ROOT / "docs/runbooks.md").read_text())
    groups = yaml.safe_load((ROOT / "ops/prometheus/alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        name, notes = rule["alert"], rule["annotations"]
        wrong += [f"{name}: {what}" for what in check(rule["expr"])]
        if rule["labels"].get("severity") not in SEVERITIES:
            wrong.append(f"{name}: severity: one of {sorted(SEVERITIES)}")
        missing = {"summary", "description", "runbook_url"} - set(notes)
        if missing:
            wrong.append(f"{name}: has no {sorted(missing)}")
        elif notes["runbook_url"] != f"docs/runbooks.md#{name.lower()}" or name.lower() not in places:
            wrong.append(f"{name}: docs/runbooks.md has no heading {name}")
    print(f"{len(rules)} alerts")
    return wrong


def dashboard() -> list[str]:
    wrong, count = [], 0
    board = json.loads((ROOT / "ops/grafana/cogo.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    if len(ids) != len(set(ids)):
        wrong.append("dashboard: two panels have one id")
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            count += 1
            # What Grafana puts in, before Prometheus reads it.
            expression = target["expr"].replace("$__rate_interval", "5m")
            wrong += [f"{panel['title']}: {what}: {expression}" for what in check(expression)]
    print(f"{count} expressions of the dashboard")
    unused = [name for name in listed() if name not in json.dumps(board)]
    return wrong + [f"dashboard: does not show {name}" for name in unused if name != "cogo_hub_down"]


def sources() -> list[str]:
    """What the sources name is what is listed."""
    named = {
        name
        for path in SOURCES
        for name in re.findall(r'&str = "((?:cogo|process)_\w+)"', (ROOT / path).read_text())
    }
    known = set(listed())
    return [f"{name}: not in tests/ops/metrics.json" for name in sorted(named - known)] + [
        f"{name}: in tests/ops/metrics.json, and nowhere in {SOURCES}" for name in sorted(known - named)
    ]


def main() -> int:
    wrong = sources() + alerts() + dashboard()
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
