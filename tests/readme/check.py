#!/usr/bin/env python3
"""README.md and README.ko.md say the same, as far as a program can see; and pages quote what is in the files that they name.

Of the two READMEs: as many headings of each level in the same order, the same code blocks, the same links (but for the one to
the other language), tables of the same shape. Prose is for people to compare. Links to files lead to files.

Of the pages: a code block below `<!-- from FILE -->` has its lines in FILE, in that order; lines of other kinds may lie between.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
QUOTE = re.compile(r"<!-- from (\S+) -->\n```\w*\n(.*?)^```$", re.M | re.S)


def parts(text):
    prose = FENCE.sub("", text)
    links = re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]+)>", prose)
    return {
        "headings": [len(level) for level in re.findall(r"^(#+) ", prose, re.M)],
        "code blocks": FENCE.findall(text),
        "links": sorted(one or other for one, other in links if not (one or other).startswith("README")),
        "cells of tables": [row.count(" | ") for row in re.findall(r"^\|.*\|$", prose, re.M)],
        "code in the text": sorted(set(re.findall(r"`[^`\n]+`", prose))),
    }


def readmes():
    english, korean = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    ours, theirs = parts(english), parts(korean)
    for what, expected in ours.items():
        if expected == theirs[what]:
            continue
        yield f"README.ko.md: {what} differ from README.md"
        for sign, some, others in (("-", expected, theirs[what]), ("+", theirs[what], expected)):
            yield from (f"  {sign} {str(it).splitlines()[0]}" for it in some if it not in others)
    for name, text, other in (("README.md", english, "README.ko.md"), ("README.ko.md", korean, "README.md")):
        if f"]({other})" not in "".join(text.splitlines(True)[:5]):
            yield f"{name}: no link to {other} at its top"
    for link in ours["links"]:
        path = link.split("#")[0]
        if "://" not in link and not (ROOT / path).exists():
            yield f"README.md: {link} leads nowhere"


def quotes(page):
    text = page.read_text(encoding="utf-8")
    for name, block in QUOTE.findall(text):
        source = ROOT / name
        if not source.is_file():
            yield f"{page.name}: there is no {name}"
            continue
        lines = iter(line.strip() for line in source.read_text(encoding="utf-8").splitlines())
        for line in filter(None, map(str.strip, block.splitlines())):
            if line not in lines:  # goes on behind the last one that was found
                yield f"{page.name}: {name} does not say, or not there: {line}"
                break


def main():
    pages = sorted((ROOT / "docs").glob("*.md"))
    problems = [*readmes(), *(problem for page in pages for problem in quotes(page))]
    quoted = sum(len(QUOTE.findall(page.read_text(encoding="utf-8"))) for page in pages)
    if quoted == 0:
        problems.append("docs: no page quotes anything, which cannot be")
    print("\n".join(problems) or f"readme: both READMEs agree, and {quoted} quotations are in their files")
    sys.exit(bool(problems))


main()
