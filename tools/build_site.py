"""Build the documentation site with warnings as errors, and check every link inside it.

python tools/build_site.py            # into build/site; needs the extra docs and a native module
python tools/build_site.py --check    # the links of what was built before
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"


class Page(HTMLParser):
    """What a page links to and loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        found = {name: value or "" for name, value in attributes}
        for name in ("id", "name"):
            if name in found and (name == "id" or tag == "a"):
                self.anchors.add(found[name])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and "href" in found:
            self.loads.append(found["href"])
        if "src" in found:
            self.loads.append(found["src"])


def build(into: Path) -> int:
    """Build the site; the exit status of Sphinx."""
    command = [sys.executable, "-m", "sphinx", "-c", str(ROOT / "docs"), "-b", "html"]
    command += ["--fail-on-warning", "--keep-going", "--fresh-env", "--quiet"]
    return subprocess.run([*command, str(ROOT), str(into)], cwd=ROOT).returncode


def problems(site: Path) -> list[str]:
    """Return links that lead nowhere, and what would be loaded from elsewhere."""
    pages = {
        path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }
    wrong = []
    for path, page in sorted(pages.items()):
        name = path.relative_to(site.resolve())
        for load in page.loads:
            if urlsplit(load).scheme not in ("", "data") or load.startswith("//"):
                wrong.append(f"{name} loads {load}")
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file():
                wrong.append(f"{name} leads to {link}, which is not there")
                continue
            there = pages.get(target)
            if there is not None and parts.fragment:
                if unquote(parts.fragment) in there.anchors:
                    continue
                wrong.append(f"{name} leads to {link}, where there is no such place")
    return wrong


def main() -> int:
    """Build and check; exit status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="do not build")
    parser.add_argument("--into", type=Path, default=SITE, help="folder; build/site by default")
    options = parser.parse_args()
    if not options.check and build(options.into):
        return 1
    wrong = problems(options.into)
    pages = len(list(options.into.rglob("*.html")))
    print("\n".join([*wrong, f"{pages} pages, {len(wrong)} links that lead nowhere"]))
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
