"""The page's sections about the pod itself: its state, what is wrong, its start, machine, ports, processes and logs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from hearmeman.page.html import Html, tag
from hearmeman.status.collect import countdown
from hearmeman.terminal import age, binary_size, duration, size

Found = Mapping[str, Any]
"""What `snapshot.Snapshot.look` gives."""

_PHASES = {
    "settings": "Settings read",
    "gpu": "GPU looked at",
    "storage": "Disks looked at",
    "plan": "Plan made",
    "prepared": "Folders ready",
    "comfyui_exec": "ComfyUI started",
    "comfyui_ready": "ComfyUI ready",
    "models": "Models fetched",
}
_CODE = re.compile(r"`([^`]+)`")


def card(key: str, title: str, *content: Html | str | None, wide: bool = False, note: str = "") -> Html:
    """Make a section with its heading."""
    head = tag("h2", title, id=f"h-{key}")
    beside = tag("span", note, class_="note") if note else None
    return tag(
        "section",
        tag("header", head, beside),
        *content,
        id=key,
        class_="card wide" if wide else "card",
        aria_labelledby=f"h-{key}",
    )


def facts(rows: list[tuple[str, Html | str]]) -> Html:
    """Make a list of names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows))


def sentence(text: str) -> Html:
    """Escape a sentence; `commands` in it are shown as such."""
    pieces = _CODE.split(text)
    return tag("span", *(tag("code", piece) if number % 2 else piece for number, piece in enumerate(pieces)))


def bar(label: str, value: float, most: float, text: str, key: str, level: str = "") -> Html:
    """Make a bar with what it means in words beside it."""
    shown = tag(
        "progress",
        value=f"{min(value, most):.6g}",
        max=f"{most:.6g}" if most > 0 else "1",
        aria_label=label,
        class_=level,
    )
    return tag(
        "div", tag("span", label, class_="label"), shown, tag("span", text, class_="value"), class_="bar", data_key=key
    )


def top(found: Found) -> Html:
    """Say how the pod is."""
    state, boot, now = found["state"], found["boot"], found["now"]
    said = [f"up {duration(now - boot['started'])}"] if boot.get("started") else []
    gpus = (found["usage"] or {}).get("gpus") or (boot.get("machine") or {}).get("gpus") or []
    said.append(", ".join(gpu["name"] for gpu in gpus) or "no GPU")
    if ends := countdown(found.get("idle") or {}, now):
        said.append(ends)
    words = [tag("p", sentence(state["detail"]), class_="detail")] if state["detail"] else []
    return tag(
        "header",
        tag(
            "p",
            tag("span", "hearmeman", class_="brand"),
            tag("span", boot.get("pod") or "pod", class_="pod"),
            class_="names",
        ),
        tag("div", tag("h1", tag("span", "", class_="dot", aria_hidden="true"), state["headline"]), role="status"),
        *words,
        tag("p", " · ".join(said), class_="said"),
        id="top",
        class_=f"state-{state['word']}",
    )


def problems(found: Found) -> Html:
    """List what is wrong, each with what to do."""
    rows = [
        tag(
            "li",
            tag("strong", "Error: " if one["level"] == "error" else "Warning: "),
            sentence(one["what"]),
            tag("span", sentence(f"{one['fix'][:1].upper()}{one['fix'][1:]}"), class_="fix") if one["fix"] else None,
            class_=one["level"],
        )
        for one in found["problems"]
    ]
    return tag(
        "section", tag("ul", *rows) if rows else None, id="problems", aria_label="What needs attention", hidden=not rows
    )


def start(found: Found) -> Html:
    """Show the start as a timeline."""
    phases = {name: float(at) for name, at in found["phases"].items()}
    models, began = found["models"] or {}, found["boot"].get("started")
    # The fetch of this start, and not one that an older pod on the volume reported.
    if began and models.get("state") == "complete" and models.get("started", 0) >= began:
        phases["models"] = models["updated"] - began
    rows, before = [], 0.0
    for name, at in sorted(phases.items(), key=lambda item: item[1]):
        took = tag("span", f"+{duration(at - before)}" if at - before >= 0.05 else "", class_="took")
        rows.append(tag("li", tag("span", _PHASES.get(name, name)), tag("b", duration(at)), took, class_="done"))
        before = at
    if "comfyui_ready" not in phases and found["state"]["word"] == "starting" and began:
        rows.append(tag("li", tag("span", "ComfyUI ready"), tag("b", "…"), class_="now"))
    return card("start", "Start", tag("ol", *rows, class_="timeline"))


def machine(found: Found) -> Html:
    """Show what this container uses of the machine."""
    usage = found["usage"] or {}
    rows = []
    for number, gpu in enumerate(usage.get("gpus", [])):
        name = gpu["name"] if len(usage["gpus"]) == 1 else f"{number}: {gpu['name']}"
        more = [f"{gpu['celsius']} °C"] if gpu["celsius"] is not None else []
        more += [f"{gpu['watts']:.0f} W"] if gpu["watts"] is not None else []
        if gpu["percent"] is not None:
            rows.append(
                bar(f"GPU {name}", gpu["percent"], 100, ", ".join([f"{gpu['percent']} %", *more]), f"gpu{number}")
            )
        text = f"{binary_size(gpu['used'])} of {binary_size(gpu['total'])}"
        rows.append(
            bar("GPU memory", gpu["used"], gpu["total"], text, f"vram{number}", _level(gpu["used"], gpu["total"]))
        )
    cpu, ram = usage.get("cpu") or {}, usage.get("ram") or {}
    if cpu.get("cores_used") is not None:
        rows.append(
            bar("CPU", cpu["cores_used"], cpu["cores"], f"{cpu['cores_used']:.1f} of {cpu['cores']:g} cores", "cpu")
        )
    if ram.get("used") is not None and ram.get("limit"):
        text = f"{binary_size(ram['used'])} of {binary_size(ram['limit'])}"
        rows.append(bar("Memory", ram["used"], ram["limit"], text, "ram", _level(ram["used"], ram["limit"])))
    for disk in usage.get("disks", []):
        text = f"{size(disk['free'])} free of {size(disk['total'])}"
        whole = disk["used"] + disk["free"]
        rows.append(
            bar(
                f"{disk['what']}, {disk['path']}",
                whole - disk["free"],
                whole,
                text,
                disk["path"],
                _level(whole - disk["free"], whole),
            )
        )
    findings = (found["machine"] or {}).get("findings", [])
    words = {True: "sound", False: "unsound"}
    checks = [tag("li", f"{one['name']} {words.get(one['ok'], 'unknown')}: {one['what']}") for one in findings]
    tried = (
        tag("details", tag("summary", "Checks at the start"), tag("ul", *checks), data_key="checks") if checks else None
    )
    return card("machine", "Machine", tag("div", *rows, class_="bars"), tried, note="this container's share")


def _level(used: float, total: float) -> str:
    return "high" if total and used / total >= 0.95 else ""


def doors(found: Found) -> Html:
    """List every port and who can reach it."""
    rows = []
    for port in found["boot"].get("ports", []):
        who = port["words"].partition(": ")[2]
        address = port["address"]
        if address.startswith("http"):
            where = tag("a", address.removeprefix("https://").removeprefix("http://").rstrip("/"), href=address)
        else:
            where = tag("code", address) if address else tag("span", "—")
        open_ = port["public"] and not port["guard"]
        rows.append(
            tag(
                "li",
                tag("span", tag("b", port["service"]), tag("span", port["port"], class_="port"), class_="what"),
                where,
                tag(
                    "span",
                    who[:1].upper() + who[1:] if not open_ else "Everybody who knows the address",
                    class_="open" if open_ else "who",
                ),
                data_key=str(port["port"]),
            )
        )
    return card("doors", "Doors", tag("ul", *rows, class_="rows"), note="who can come in")


def processes(found: Found) -> Html:
    """List the processes, each with its last lines."""
    shown = [_process(one, found["tails"].get(one["name"], [])) for one in found["processes"]]
    return card("processes", "Processes", tag("ul", *shown, class_="rows"))


def _process(one: Mapping[str, Any], tail: list[Mapping[str, Any]]) -> Html:
    keep, name = one["keep"], one["name"]
    if keep.get("done"):
        word = "ended" if keep.get("exit") in (0, 3) else "failed"
    elif keep.get("pid"):
        word = "running"
    else:
        word = (
            "stopped"
            if one["statename"] == "STOPPED"
            else "waiting"
            if keep.get("waits") or not keep.get("starts")
            else "failed"
        )
    restarts = max(0, int(keep.get("starts") or 0) - 1)
    again = tag("span", f"{restarts} restart{'' if restarts == 1 else 's'}", class_="restarts") if restarts else None
    lines = tag("ol", *(tag("li", line["text"]) for line in tail), class_="log") if tail else None
    button = tag(
        "form",
        tag("input", type="hidden", name="name", value=name),
        tag(
            "button",
            "Restart",
            type="submit",
            aria_label=f"Restart {name}",
            data_confirm=f"Restart {name}? What it does now is lost.",
        ),
        method="post",
        action="/actions/restart",
        class_="act",
    )
    body = [tag("p", sentence(one["what"]), class_="what"), lines, button]
    head = tag("summary", tag("b", name), tag("span", word, class_=f"word {word}"), again)
    return tag("li", tag("details", head, *body, data_key=f"process-{name}"), data_key=name)


def logs(found: Found) -> Html:
    """Show the last lines of all processes."""
    rows = [
        tag(
            "li",
            tag("time", time.strftime("%H:%M:%S", time.gmtime(line["at"]))),
            tag("b", line["name"]),
            tag("span", line["text"]),
        )
        for line in found["logs"]
    ]
    lines = tag("ol", *rows)
    content = tag(
        "div", lines, class_="log tall", tabindex="0", role="log", aria_label="Last log lines", aria_live="off"
    )
    return card("logs", "Logs", content, wide=True, note="UTC; hearmeman logs -f in a shell shows the same")


def about(found: Found) -> Html:
    """Say what this pod is made of."""
    boot = found["boot"]
    image, tuning = boot.get("image", {}), boot.get("tuning", {})
    rows: list[tuple[str, Html | str]] = []
    if boot.get("digest"):
        rows.append(("Image", tag("code", boot["digest"])))
    if image.get("tier"):
        rows.append(("Image's tier", image["tier"]))
    if image.get("comfyui_rev"):
        rows.append(("ComfyUI", tag("code", image["comfyui_rev"])))
    if tuning.get("memory_mode"):
        rows.append(("Memory mode", f"{tuning.get('tier')}, {tuning['memory_mode']}"))
        rows.append(("Arguments", tag("code", " ".join(tuning.get("arguments", [])) or "none")))
    volume = boot.get("volume", {})
    if volume.get("path"):
        kind = "a volume" if volume.get("is_mount") else "no volume: what is here goes with the pod"
        rows.append(("Storage", f"{volume['path']}, {kind}"))
    links = tag("p", tag("a", "JSON", href="/status"), " · ", tag("a", "metrics", href="/metrics"), class_="links")
    return card("about", "About", facts(rows), links, wide=True)


def ago(now: float, at: object) -> str:
    """Render how long ago something was; empty where that is unknown."""
    return age(now - at) if isinstance(at, int | float) and at else ""
