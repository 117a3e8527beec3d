"""The page's sections about the pod itself: its state, problems, startup, machine, ports and versions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any

from hearmeman.page.blocks import NOT_FROM_HERE, Found, bar, calm, card, dollars, facts, first, part, restart, sentence
from hearmeman.page.html import Html, tag
from hearmeman.status.collect import countdown
from hearmeman.status.timeline import timeline
from hearmeman.terminal import binary_size, duration, size

_RESTART = re.compile(r"`hearmeman restart ([\w-]+)`")


def top(found: Found) -> Html:
    """Show the pod's state."""
    state, boot, now = found["state"], found["boot"], found["now"]
    said = [f"up {calm(now - boot['started'])}"] if boot.get("started") else []
    gpus = (found["usage"] or {}).get("gpus") or (boot.get("machine") or {}).get("gpus") or []
    said.append(", ".join(gpu["name"] for gpu in gpus) or "no GPU")
    if boot.get("dollars_per_hour"):
        said.append(_price(float(boot["dollars_per_hour"]), now - boot.get("started", now)))
    if ends := countdown(found.get("idle") or {}, now):
        said.append(ends)
    # Failures are listed right below, with their fixes.
    detail = (state["detail"] or _coming(found["models"] or {})) if state["word"] != "failing" else ""
    words = [tag("p", sentence(first(detail)), class_="detail")] if detail else []
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


def _price(hourly: float, seconds: float) -> str:
    """Show what the pod costs, and has cost since this start."""
    so_far = hourly * (seconds // 60) / 60
    return f"${hourly:.2f} an hour" + (f", {dollars(so_far)} since this start" if so_far else "")


def _coming(models: Mapping[str, Any]) -> str:
    if models.get("state") != "fetching":
        return ""
    left = models.get("seconds_left")
    said = f"Models are being fetched: {part(models.get('bytes_done', 0), models.get('bytes_total', 0))}"
    return f"{said}, {calm(left)} left" if left is not None else said


def problems(found: Found) -> Html:
    """List every problem with its fix, and a button if one can fix it."""
    there = {process["name"] for process in found["processes"]}
    rows = [_problem(one, there) for one in found["problems"]]
    return tag(
        "section", tag("ul", *rows) if rows else None, id="problems", aria_label="What needs attention", hidden=not rows
    )


def _problem(one: Mapping[str, Any], there: Set[str]) -> Html:
    again = _RESTART.search(one["fix"])
    return tag(
        "li",
        tag("p", tag("strong", "Error: " if one["level"] == "error" else "Warning: "), sentence(one["what"])),
        tag("p", sentence(first(one["fix"])), class_="fix") if one["fix"] else None,
        restart(again[1]) if again and again[1] in there - NOT_FROM_HERE else None,
        class_=one["level"],
        data_key=one["what"],
    )


def start(found: Found) -> Html:
    """Show startup as a timeline."""
    phases = {name: float(at) for name, at in found["phases"].items()}
    models, began = found["models"] or {}, found["boot"].get("started")
    # The fetch of this start, not one reported by an older pod on the volume.
    if began and models.get("state") == "complete" and models.get("started", 0) >= began:
        phases["models"] = models["updated"] - began
    rows = [
        tag(
            "li",
            tag("span", first(step.what)),
            tag("b", duration(step.at)),
            tag("span", f"+{duration(step.took)}", class_="took"),
            class_="done",
        )
        for step in timeline(phases)
    ]
    ready, starting = phases.get("comfyui_ready"), found["state"]["word"] == "starting"
    if ready is None and starting and began:
        rows.append(tag("li", tag("span", "ComfyUI ready"), tag("b", "…"), tag("span", class_="took"), class_="now"))
    steps = tag("ol", *rows, class_="timeline")
    if ready is None:
        return card("start", "Start", steps)
    # Afterwards it is only history.
    said = tag("summary", f"ComfyUI was ready after {duration(ready)}")
    return card("start", "Start", tag("details", said, steps, data_key="timeline", open=starting))


def machine(found: Found) -> Html:
    """Show how much of the machine this container uses."""
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
                first(f"{disk['what']}, {disk['path']}"),
                whole - disk["free"],
                whole,
                text,
                disk["path"],
                _level(whole - disk["free"], whole),
            )
        )
    findings = (found["machine"] or {}).get("findings", [])
    words = {True: "sound", False: "UNSOUND"}
    checks = [tag("li", f"{one['name']} {words.get(one['ok'], 'unknown')}: {one['what']}") for one in findings]
    tried = (
        tag("details", tag("summary", "Checks at startup"), tag("ul", *checks), data_key="checks") if checks else None
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
        where: Html | None
        if address.startswith("http"):
            where = tag("a", address.removeprefix("https://").removeprefix("http://").rstrip("/"), href=address)
        else:
            where = tag("code", address) if address else None
        open_ = port["public"] and not port["guard"]
        rows.append(
            tag(
                "li",
                tag("span", tag("b", first(port["service"])), tag("span", port["port"], class_="port"), class_="what"),
                where,
                tag(
                    "span",
                    first(who) if not open_ else "Anyone who knows the address",
                    class_="open" if open_ else "who",
                ),
                data_key=str(port["port"]),
            )
        )
    proxied = any(".proxy.runpod.net" in port["address"] for port in found["boot"].get("ports", []))
    # ComfyUI's page does not say this when an upload fails.
    limit = tag("p", "RunPod's proxy takes uploads of up to 100 MB: send larger files over SSH.", class_="note")
    return card("doors", "Doors", tag("ul", *rows, class_="rows"), limit if proxied else None, note="who can connect")


def about(found: Found) -> Html:
    """Show versions, settings and volume."""
    boot = found["boot"]
    image, tuning = boot.get("image", {}), boot.get("tuning", {})
    rows: list[tuple[str, Html | str]] = []
    if boot.get("digest"):
        rows.append(("Image", tag("code", boot["digest"])))
    if image.get("tier"):
        rows.append(("Tier", image["tier"]))
    if image.get("comfyui_rev"):
        rows.append(("ComfyUI", tag("code", image["comfyui_rev"])))
    if tuning.get("memory_mode"):
        rows.append(("Tuned for", f"{tuning.get('tier')}, memory mode {tuning['memory_mode']}"))
        rows.append(("Arguments", tag("code", " ".join(tuning.get("arguments", [])) or "none")))
    volume = boot.get("volume", {})
    if volume.get("path"):
        kind = "a volume" if volume.get("is_mount") else "no volume: everything here is lost with the pod"
        rows.append(("Storage", f"{volume['path']}, {kind}"))
    links = tag("p", tag("a", "JSON", href="/status"), " · ", tag("a", "metrics", href="/metrics"), class_="links")
    return card("about", "About", facts(rows), links, wide=True)
