"""A preprocessor of mdBook: what pages link to outside docs/ becomes pages of the book.

The pages are read on GitHub too, where `../configs/hub.json` leads to the file. A book has nothing outside itself, and
the repository no public address yet. So each file that a page links to is shown in the book's last part, and the links
lead there; those of its own are followed likewise. A link to what does not exist fails the build.
"""

import json
import os
import re
import sys
from pathlib import PurePosixPath

# Where the files stand in the book, and what the part is called.
HOME, PART = "repository", "Files of the repository"
LANGUAGES = {".yml": "yaml", ".rs": "rust,ignore", ".md": "markdown", ".sh": "bash", ".ps1": "powershell"}
# Code is passed over, fenced and inline.
PIECES = re.compile(r"(^ *(`{3,}|~{3,}).*?^ *\2[`~]* *$|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))", re.M | re.S)
LINK = re.compile(r"(?P<before>\]\(<?|^\[[^\]\n]+\]: +)(?P<target>[^\s()<>]+)(?P<after>[^)\n]*)", re.M)


class Repository:
    def __init__(self, root: str):
        self.root = root
        self.shown: dict[str, dict] = {}

    def show(self, target: str, page: str) -> str:
        """The page of a file or folder, made if there is none yet: where it stands in the book."""
        place = os.path.join(self.root, target)
        if os.path.isfile(os.path.join(place, "README.md")):
            target = os.path.normpath(f"{target}/README.md")
        elif not os.path.exists(place):
            raise SystemExit(f"{page}: links to {target}, which is not in the repository")
        # Without the dots of .github and .env: many servers give nothing that begins so.
        parts = [HOME, *(part.lstrip(".") for part in target.split("/"))]
        path = "/".join(parts) if target.endswith(".md") else "/".join(parts) + ".md"
        if path not in self.shown:
            # Known before its own links are followed: they may lead back.
            self.shown[path] = {"name": target, "path": path}
            self.shown[path]["content"] = self.content(target, path)
        return path

    def content(self, target: str, path: str) -> str:
        place = os.path.join(self.root, target)
        if os.path.isdir(place):
            return f"# {target}\n\n" + "\n".join(f"- `{name}`" for name in sorted(os.listdir(place)))
        with open(place, encoding="utf-8") as file:
            text = file.read()
        if target.endswith(".md"):
            return self.relinked(text, target, path)
        fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
        suffix = PurePosixPath(target).suffix
        return f"# {target}\n\n{fence}{LANGUAGES.get(suffix, suffix[1:])}\n{text.rstrip()}\n{fence}\n"

    def relinked(self, text: str, source: str, path: str) -> str:
        """`text` of the repository's file `source`, with its links as they must be on the book's page `path`."""
        def link(match: re.Match) -> str:
            target, mark, anchor = match["target"].partition("#")
            if not target or ":" in target or target.startswith("/"):
                return match[0]
            found = os.path.normpath(os.path.join(os.path.dirname(source), target))
            if found.startswith("docs/"):
                page = found.removeprefix("docs/")
            else:
                page = self.show(found, source)
                if not found.endswith(".md") and not page.endswith("README.md"):
                    mark = anchor = ""  # a line's number
            page = os.path.relpath(page, os.path.dirname(path) or ".")
            return f"{match['before']}{page}{mark}{anchor}{match['after']}"

        out, end = [], 0
        for code in PIECES.finditer(text):
            out += [LINK.sub(link, text[end : code.start()]), code[0]]
            end = code.end()
        return "".join([*out, LINK.sub(link, text[end:])])


def chapters(items: list) -> list[dict]:
    found = [item["Chapter"] for item in items if isinstance(item, dict) and "Chapter" in item]
    return found + [below for chapter in found for below in chapters(chapter["sub_items"])]


def main() -> None:
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    repository = Repository(os.path.join(context["root"], ".."))
    for chapter in chapters(book["items"]):
        if path := chapter["path"]:
            source = chapter["source_path"] or path
            chapter["content"] = repository.relinked(chapter["content"], f"docs/{source}", path)
    if repository.shown:
        book["items"].append({"PartTitle": PART})
    for _, page in sorted(repository.shown.items()):
        more = {"number": None, "sub_items": [], "source_path": None, "parent_names": []}
        book["items"].append({"Chapter": {**page, **more}})
    json.dump(book, sys.stdout)


main()
