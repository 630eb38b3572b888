"""Links inside the book: to files that are there, and to the page that a chapter becomes."""

from __future__ import annotations

import re
from os.path import normpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError


def check_link(address: str, context: Context) -> None:
    """Refuse a link to a chapter or file that is not there. Fragments are checked on the built pages.

    Raises:
        FaultError: with the path.
    """
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not parts.path:
        return
    if parts.path.startswith("/"):
        raise FaultError(f"link {address} starts at the server's root; write it relative to this chapter")
    target = Path(normpath((context.src / context.chapter).parent / unquote(parts.path)))  # its folder may be no file's
    if not target.is_file():
        raise FaultError(f"dead link: {address}")


def page_address(address: str, context: Context) -> str:
    """Where a link written in Markdown leads on the built pages.

    Raises:
        FaultError: nowhere.
    """
    check_link(address, context)
    return address if urlsplit(address).scheme else re.sub(r"\.md(?=#|$)", ".html", address)
