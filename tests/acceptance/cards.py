"""Makes the pictures of our templates in ComfyUI's page again: a card with each workflow's title, since its page shows names alone."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from playwright.sync_api import Browser

from hearmeman.workflows import library
from hearmeman.workflows.library import Workflow
from support.browser import chromium, tab
from support.repository import ROOT

FOLDER = ROOT / "comfyui_node/example_workflows"
SIDE = 300
"""Pixels: about what a card has on a screen."""
QUALITY = 60
COLORS = {
    "video": "#245c73",
    "picture": "#7a4a26",
    "sound": "#5b3a73",
    "smoke": "#4a4f57",
}
STYLE = """
body { margin: 0; width: 300px; height: 300px; background: COLOR; color: #fff; display: flex; flex-direction: column;
       justify-content: center; box-sizing: border-box; padding: 22px; font: 22px/1.3 "DejaVu Sans", sans-serif; }
b { font-size: 25px; line-height: 1.15; margin-bottom: 14px; }
"""


def color(workflow: Workflow) -> str:
    """One colour for what makes videos, one for pictures, one for sounds."""
    classes = {node["class_type"] for node in library.graph(workflow).values()}
    kind = "sound" if "SaveAudio" in classes else "picture" if "SaveImage" in classes else "video"
    return COLORS["smoke" if workflow.name.startswith("smoke") else kind]


def page(workflow: Workflow) -> str:
    """The card as a page: the system above, what it does below."""
    system, _, what = workflow.title.partition(": ")
    return f"<style>{STYLE.replace('COLOR', color(workflow))}</style><b>{escape(system)}</b>{escape(what)}"


def with_title(picture: bytes, title: str) -> bytes:
    """Write the title into a JPEG as its comment, by which a test knows that the card is not of an older one."""
    comment = title.encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def draw(browser: Browser, workflow: Workflow, path: Path) -> None:
    """Draw one."""
    with tab(browser) as seen:
        seen.page.set_viewport_size({"width": SIDE, "height": SIDE})
        seen.page.set_content(page(workflow))
        wide, high = seen.page.evaluate("[document.body.scrollWidth, document.body.scrollHeight]")
        if max(wide, high) > SIDE:
            raise SystemExit(f"{workflow.name}: its title does not fit on the card: shorten it")
        path.write_bytes(with_title(seen.page.screenshot(type="jpeg", quality=QUALITY), workflow.title))


def is_current(workflow: Workflow, path: Path) -> bool:
    """Whether its card has the title of today."""
    return path.exists() and path.read_bytes().startswith(with_title(b"\xff\xd8", workflow.title))


def main() -> None:
    """Draw the cards that are missing or have another title than their workflow's; with --all every card."""
    with chromium() as browser:
        for workflow in library.load(ROOT / "workflows").values():
            path = FOLDER / f"{workflow.name}.jpg"
            if "--all" in sys.argv[1:] or not is_current(workflow, path):
                draw(browser, workflow, path)
                print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
