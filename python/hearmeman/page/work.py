"""The page's sections about the work: ComfyUI and its outputs, models, uploads and voices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from hearmeman.page.blocks import Found, ago, bar, calm, card, dollars, facts, first, part, sentence
from hearmeman.page.html import Html, tag
from hearmeman.terminal import count, rate, size

SHOWN_OUTPUTS = 12
SHOWN_FILES = 12
LONGEST_TEXT = 500
"""Characters that the page's voice box speaks."""


def comfyui(found: Found) -> Html:
    """Show whether ComfyUI is usable, what it is doing, and its last outputs."""
    facts_, state, now = found["comfyui"], found["state"], found["now"]
    link = next((port["address"] for port in found["boot"].get("ports", []) if port["service"] == "ComfyUI"), "")
    opened = tag("a", "Open ComfyUI", href=link, class_="button") if link and state["word"] == "ready" else None
    shown: list[Html | None] = []
    if not facts_["answers"]:
        shown.append(tag("p", state["headline"] if state["word"] != "ready" else "Not checked yet", class_="quiet"))
        # Its own words for its progress.
        last = [line["text"] for line in found["tails"].get("comfyui", []) if line["text"].strip()][-1:]
        shown += [tag("p", tag("code", text)) for text in last if state["word"] == "starting"]
    elif facts_["running"] is None:
        shown.append(tag("p", "Idle, the queue is empty", class_="quiet"))
    else:
        running, step = facts_["running"], facts_["step"]
        text = f"Running for {calm(max(0, now - running['seen']))}, {count(running['nodes'], 'node')}"
        text += f"; {facts_['waiting']} more waiting" if facts_["waiting"] else "; nothing is waiting"
        shown.append(tag("p", text))
        if step:
            more = ", ".join(
                filter(
                    None,
                    [
                        f"step {step['value']} of {step['most']}",
                        step["speed"],
                        f"{step['left']} left" if step["left"] else "",
                    ],
                )
            )
            shown.append(bar(facts_.get("node") or "Sampling", step["value"], step["most"], more, "step"))
        elif facts_.get("node"):
            shown.append(tag("p", f"Node: {facts_['node']}"))
    failed = next((job for job in facts_["jobs"][:1] if job["problem"]), None)
    if failed:
        shown.append(tag("p", tag("strong", "The last job failed: "), failed["problem"], class_="error"))
    outputs = _outputs(facts_["jobs"], now)
    return card("comfyui", "ComfyUI", *shown, outputs, wide=True, note=_jobs(facts_), action=opened)


def _jobs(facts_: Mapping[str, Any]) -> str:
    if not facts_["ended"]:
        return ""
    failed = f", {facts_['failed']} failed" if facts_["failed"] else ""
    return f"{count(facts_['ended'], 'job')} ended{failed}"


def _outputs(jobs: list[Mapping[str, Any]], now: float) -> Html | None:
    items = [(job, media) for job in jobs for media in job["outputs"]][:SHOWN_OUTPUTS]
    if not items:
        return None
    return tag(
        "ul", *(_thumbnail(job, media, now) for job, media in items), class_="outputs", aria_label="Last outputs"
    )


def _thumbnail(job: Mapping[str, Any], media: Mapping[str, Any], now: float) -> Html:
    path = str(PurePosixPath(media["subfolder"], media["filename"]))
    address = "/output/" + quote(path, safe="/")
    if media["kind"] == "image":
        inside = tag("img", src=f"{address}?preview=1", alt="", loading="lazy", decoding="async")
    elif media["kind"] == "video":
        inside = tag("video", src=f"{address}#t=0.1", muted=True, preload="metadata", playsinline=True, tabindex="-1")
    elif media["kind"] == "audio":
        inside = tag("span", "♪", class_="sign", aria_hidden="true")
    else:
        inside = tag("span", "▤", class_="sign", aria_hidden="true")
    # Where a long name may wrap.
    pieces = re.split(r"(?<=[_.-])", media["filename"])
    name = tag("span", *((piece, tag("wbr")) for piece in pieces), class_="name")
    when = tag("span", ago(now, job["at"]), class_="when")
    return tag("li", tag("a", inside, name, when, href=address, target="_blank", rel="noopener"), data_key=path)


def models(found: Found) -> Html:
    """Show what is being fetched, how fast, and the time left."""
    state, now = found["models"], found["now"]
    if not state:
        return card("models", "Models", tag("p", "No model is enabled", class_="quiet"))
    total, done = state.get("bytes_total", 0), state.get("bytes_done", 0)
    word = _FETCH.get(str(state.get("state")), first(str(state.get("state"))))
    note = f"{state.get('files_present', 0)} of {count(state.get('files_total', 0), 'file')}"
    text = part(done, total)
    left = state.get("seconds_left")
    if state.get("state") == "fetching":
        text += f", {rate(state.get('bytes_per_second', 0))}"
        text += f", {calm(left)} left" if left is not None else ""
        word += f", seen {ago(now, state.get('updated'))}" if now - state.get("updated", now) > 10 else ""
    rows = list((state.get("files") or {}).items())
    order = {"failed": 0, "fetching": 1, "checking": 1, "verifying": 1, "waiting": 2, "present": 3}
    rows.sort(key=lambda item: order.get(item[1].get("state"), 2))
    shown = [_file(key, row) for key, row in rows[:SHOWN_FILES]]
    if len(rows) > SHOWN_FILES:
        shown.append(tag("li", f"and {len(rows) - SHOWN_FILES} more", class_="quiet", data_key="more"))
    files = tag("ul", *shown, class_="files")
    # Files that are already there need no attention.
    if state.get("state") == "complete":
        files = tag("details", tag("summary", "Files"), files, data_key="files")
    return card("models", "Models", bar(word, done, total or 1, text, "all"), files, note=note)


def _file(key: str, row: Mapping[str, Any]) -> Html:
    name, state = PurePosixPath(str(row.get("to"))).name, str(row.get("state"))
    whole, done, speed = row.get("size") or 0, row.get("done") or 0, row.get("bytes_per_second") or 0
    if state in ("fetching", "checking", "verifying"):
        text = part(done, whole) if whole else size(done)
        text += f", {rate(speed)}" if speed and state == "fetching" else "" if state == "fetching" else f", {state}"
        text += f", {calm((whole - done) / speed)} left" if speed and whole > done and state == "fetching" else ""
        return tag("li", bar(name, done, whole or 1, text, "bar"), data_key=key)
    said = {"present": "fetched"}.get(state, state)
    # The reason begins with the place, which is already shown.
    why = str(row.get("problem") or "").removeprefix(f"{row.get('to')}: ")
    problem = tag("span", sentence(why), class_="error") if why else None
    return tag(
        "li",
        tag("span", name, class_="name"),
        tag("span", f"{size(whole)}, {said}" if whole else said, class_=f"word {state}"),
        problem,
        class_="line",
        data_key=key,
    )


def sync(found: Found) -> Html:
    """Show what was uploaded and what is waiting."""
    state, now = found["sync"], found["now"]
    if not state:
        where = f"in `{found['boot']['output']}`" if found["boot"].get("output") else "on the volume"
        words = f"Outputs stay {where}. Set `ENABLE_R2_SYNC=true` to upload them to a bucket as they appear."
        return card("sync", "Uploads", tag("p", sentence(words), class_="quiet"))
    waiting = f"{count(state.get('backlog_files', 0), 'file')}, {size(state.get('backlog_bytes', 0))}"
    waiting += f", {state['uploading']} uploading" if state.get("uploading") else ""
    rows: list[tuple[str, Html | str]] = [("Waiting", waiting if state.get("backlog_files") else "nothing")]
    rows.append(
        (
            "Sent",
            f"{count(state.get('uploaded_files', 0), 'file')}, {size(state.get('uploaded_bytes', 0))} since the start",
        )
    )
    if state.get("last_success_at"):
        rows.append(("Last", f"{state.get('last_success_key')}, {ago(now, state['last_success_at'])}"))
    if state.get("bucket"):
        rows.append(("Bucket", tag("code", f"s3://{state['bucket']}")))
    cost = state.get("cost") or {}
    if cost:
        paid = dollars(cost["storage_dollars_month"] + cost["requests_dollars_month"])
        rows.append(("Costs", f"{paid} this month, with {size(cost['stored_bytes'])} stored"))
    failing = [
        tag(
            "li",
            tag("span", one["file"], class_="name"),
            tag("span", sentence(one["why"]), class_="error"),
            class_="line",
        )
        for one in (state.get("failing") or [])[:5]
    ]
    gone = tag("p", "The upload process is not running.", class_="error") if state.get("pid") is None else None
    return card("sync", "Uploads", gone, facts(rows), tag("ul", *failing, class_="files") if failing else None)


def voices(found: Found) -> Html:
    """Show the voice engines."""
    rows = []
    for name, state in found["voices"].items():
        said = [state["word"]]
        said += [f"{state[key]} {key}" for key in ("waiting", "queue") if state.get(key)][:1]
        rows.append((_NAMES.get(name, name), first(", ".join(said))))
    if not rows:
        words = "Set `ENABLE_XTTS=true` or `ENABLE_CHATTERBOX=true` for a voice API."
        return card("voices", "Voices", tag("p", sentence(words), class_="quiet"))
    options = [tag("option", _NAMES.get(name, name), value=name) for name in found["voices"]]
    box = tag(
        "form",
        tag("label", "Engine", tag("select", *options, name="engine"), class_="short"),
        tag(
            "label",
            "A sentence",
            tag(
                "input",
                name="text",
                required=True,
                maxlength=LONGEST_TEXT,
                autocomplete="off",
                placeholder="Hello from this pod.",
            ),
        ),
        tag("button", "Speak", type="submit"),
        tag("p", "", class_="answer", role="status", data_keep=True),
        method="post",
        action="/actions/speak",
        class_="act speak",
        id="speak",
        data_keep=True,
    )
    return card("voices", "Voices", facts(rows), box)


_FETCH = {"fetching": "Fetching", "complete": "All fetched", "incomplete": "Some files could not be fetched"}
_NAMES = {"xtts": "XTTS", "chatterbox": "Chatterbox"}
