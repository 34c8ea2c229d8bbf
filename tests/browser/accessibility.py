"""What of a page stands in the way of people who do not see it, or not well."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

_SCRIPT = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")

# What is said of these is their name.
_NAMED = {
    *("button", "link", "textbox", "searchbox", "checkbox", "image", "img", "application", "dialog"),
    *("region", "search", "table", "columnheader", "rowheader", "heading"),
}
_LANDMARKS = ("banner", "search", "main", "contentinfo")


def stumbling_blocks(page: Page) -> list[str]:
    """A sentence each: contrasts, sizes and structure as they are drawn; names and roles as a screen reader is told."""
    found: list[str] = page.evaluate(f"({_SCRIPT})()")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    nodes = [node for node in tree["nodes"] if not node.get("ignored")]
    roles = [str(node.get("role", {}).get("value")) for node in nodes]
    for node, role in zip(nodes, roles, strict=True):
        if role in _NAMED and not str(node.get("name", {}).get("value", "")).strip():
            found.append(f"a {role} has no name: {node.get('properties')}")
    # Behind an open dialog there is nothing else.
    if "dialog" not in roles:
        found += [f"there are {roles.count(one)} of {one}" for one in _LANDMARKS if roles.count(one) != 1]
    return found
