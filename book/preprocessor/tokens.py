"""What in a chapter's text means something to the preprocessor, and code and comments, in which nothing does."""

from __future__ import annotations

import re

TOKEN = re.compile(
    r"(?P<fence>^[ >\t]*(?P<ticks>`{3,}|~{3,})[^\n]*\n(?:.*?\n)??[ >\t]*(?P=ticks)[ \t]*$)"
    r"|(?P<code>(?<!`)(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`))"
    r"|(?P<comment><!--.*?-->)"
    r"|\{\{#(?P<name>\w+)(?P<args>[^}]*)\}\}"
    r"|(?P<open>\{\{#)"
    r"|(?P<escape>\\[$\\])"
    r"|\$\$(?P<display>.+?)\$\$"
    r"|(?<![\w$])\$(?=\S)(?P<inline>[^$\n]+?)(?<=\S)\$(?![\w$])"
    r"|^[ ]{0,3}>[ ]*\[!(?P<alert>\w+)\]"
    r"|(?P<image>!\[(?P<alt>[^\]]*)\]\()"
    r"|\]\((?P<link>[^)\s]+)\)",
    re.DOTALL | re.MULTILINE,
)
