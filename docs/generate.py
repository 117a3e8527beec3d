"""Writes the parts of docs/ that repeat the code: `make docs`; a test checks that they are fresh."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import events

from hearmeman.door.ports import doors
from hearmeman.errors import HearmemanError
from hearmeman.models import catalogue, lock
from hearmeman.models.asked import asked_for
from hearmeman.settings import command as env_command
from hearmeman.settings import load
from hearmeman.sync.cost import estimate, read_prices
from hearmeman.tune.tuner import ROWS, row_for
from hearmeman.workflows import library, schema, templates
from hearmeman_pod.gpus import from_names
from hearmeman_pod.plan import FETCH_BYTES_PER_SECOND

PRICES = read_prices()
DOCS = Path(__file__).resolve().parent
CATALOGUE = DOCS.parent / "python/hearmeman/models/catalogue.toml"
_EVERYTHING = {
    "ENABLE_XTTS": "true",
    "ENABLE_CHATTERBOX": "true",
    "JUPYTER_PASSWORD": "example-token",
    "PUBLIC_KEY": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody",
}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def ports() -> str:
    """Every port of a pod that has everything switched on, and who can reach it with and without ACCESS_TOKEN."""
    open_doors = {door.service: door for door in doors(load(_EVERYTHING))}
    if "SSH" not in open_doors:
        raise ValueError("the example's public key is not taken any more")
    gated = {door.service: door for door in doors(load({**_EVERYTHING, "ACCESS_TOKEN": "example-token-1"}))}

    def who(words: str) -> str:
        reach = words.partition(": ")[2].partition(";")[0]
        return reach.replace("ANYONE", "anyone")

    return table(
        ("Port", "Variable", "Protocol", "Service", "Who gets in", "With ACCESS_TOKEN"),
        (
            (
                str(door.port),
                f"`{door.variable}`",
                "TCP" if door.guard == "keys" else "HTTP",
                service,
                who(door.words()),
                who(gated[service].words()),
            )
            for service, door in open_doors.items()
        ),
    )


def memory() -> str:
    """VRAM thresholds -> tier, memory mode and ComfyUI arguments."""
    uppers = [None, *(row[0] for row in ROWS)]

    def span(low: int, high: int | None) -> str:
        if high is None:
            return f"{low} GB and more"
        return f"{low} to {high} GB" if low else f"below {high} GB"

    return table(
        ("VRAM", "Tier", "Memory mode", "ComfyUI arguments"),
        (
            (span(low, high), tier, f"`{mode}`", " ".join(f"`{words}`" for words in arguments) or "none")
            for (low, tier, mode, arguments), high in zip(ROWS, uppers, strict=False)
        ),
    )


def sizes() -> str:
    """What outputs take."""
    rows = ((one["what"], one["parameters"], f"{one['mb'][0]:g} to {one['mb'][1]:g} MB") for one in PRICES["typical"])
    return table(("Output", "With", "Size"), rows)


def storage() -> str:
    """What storage costs a month, with and without what is free."""
    found = [estimate(gigabytes, 0, PRICES) for gigabytes in PRICES["tables"]["stored_gb"]]
    rows = ((f"{one.stored_gb:,} GB", f"${one.storage_dollars:,.2f}", f"${one.dollars:,.2f}") for one in found)
    return table(("Stored", "A month", "After what is free"), rows)


def uploads() -> str:
    """What uploads cost, with and without what is free."""
    found = [estimate(0, count, PRICES) for count in PRICES["tables"]["uploads"]]
    rows = ((f"{one.uploads:,}", f"${one.uploads_dollars:,.4f}", f"${one.dollars:,.2f}") for one in found)
    return table(("Uploads a month", "Class A requests", "After what is free"), rows)


def models() -> str:
    """Every model, the variable and variant that ask for it, and each file it takes."""
    known = lock.apply(catalogue.read(CATALOGUE), lock.read(lock.place(CATALOGUE)))
    files = {file.id: file for file in known.files}
    heads = ("Variable", "Variant", "Model", "GPU GB", "File", "Folder", "GB", "Source", "Licence")
    rows = []
    for model in known.models:
        switches = [f"`{name}`" for name, value in model.when.items() if value == "true"] or ["`MODELS`"]
        variants = [f"`{name}={value}`" for name, value in model.when.items() if value != "true"]
        gpu = "" if model.vram_gb is None else f"{'~' if model.vram_estimated else ''}{model.vram_gb:g}"
        gpu += f" ({model.vram_gb_offload:g})" if model.vram_gb_offload else ""
        lead = (", ".join(switches), ", ".join(variants), f"`{model.id}`", gpu)
        for number, file in enumerate(files[name] for name in model.files):
            rows.append((*(lead if not number else ("",) * 4), *_file_cells(file)))
    return table(heads, rows)


def _file_cells(file: catalogue.File) -> tuple[str, ...]:
    folder, _, name = file.to.rpartition("/")
    size = "?" if not file.sized else f"{'~' if file.size is None else ''}{file.expected / 1e9:.3g}"
    licence = file.licence or "not stated"
    licence += " (not for commercial use)" if file.non_commercial else ""
    licence += f" ({file.gate})" if file.gate else ""
    source = str(file.source).partition("@")[0].removesuffix(f"/{name}")
    return f"`{name}`", f"`{folder}`", size, source, licence


def not_pinned() -> str:
    """What neither the catalogue nor its lock pins to its bytes."""
    known = lock.apply(catalogue.read(CATALOGUE), lock.read(lock.place(CATALOGUE)))
    rows = []
    for file in known.files:
        lacks = [] if file.sha256 or file.blob else ["hash"]
        lacks += [] if file.size is not None else ["size"]
        lacks += [] if getattr(file.source, "revision", "-") != "main" else ["commit"]
        if lacks:
            rows.append((f"`{file.to}`", ", ".join(lacks)))
    return table(("File", "Not known"), rows)


def models_page() -> str:
    """The whole page of models."""
    return "\n".join(
        [
            "# Table of models",
            "",
            "Made by `make docs` from the catalogue and its lock; do not edit by hand. How to use it: [models](models.md).",
            "",
            "A model whose variable is `MODELS` is asked for by its id. GPU GB: what it runs well with and, in brackets,",
            "what it runs slowly with, parts of it in RAM; ~ is estimated from the size of the weights. GB: on disk; ~ is a",
            "rounded figure, ? is not known before the source is asked.",
            "",
            models(),
            "",
            "## Not pinned yet",
            "",
            "What the catalogue and its lock do not say of a file; the first fetch asks its source and keeps the answer on",
            "the volume. `make lock-models` on a machine that reaches the sources writes it into the lock.",
            "",
            not_pinned(),
            "",
        ]
    )


def workflows() -> str:
    """Every workflow, the models that it needs by default, and the variables that fetch them."""
    root = DOCS.parent
    known = catalogue.read(root / "python/hearmeman/models/catalogue.toml")
    asks = {model.id: [f"`{name}={value}`" for name, value in model.when.items()] for model in known.models}
    rows = []
    for workflow in library.load(root / "workflows").values():
        needs = workflow.needs(workflow.defaults({}))
        variables = dict.fromkeys(text for name in needs for text in (asks[name] or [f"`MODELS={name}`"]))
        memory = max((model.vram_gb or 0 for model in known.models if model.id in needs), default=0)
        gpu = f"{memory:g} GB" if memory else "none" if workflow.name.startswith("smoke") else "not stated"
        rows.append((f"`{workflow.name}`", workflow.title, gpu, ", ".join(needs) or "none", ", ".join(variables)))
    return table(("Name", "What it does", "GPU memory", "Models", "Fetched by"), rows)


def downloads() -> str:
    """Variable -> what it fetches, and how long that takes at the speed that the plans count with."""
    known = lock.apply(catalogue.read(CATALOGUE), lock.read(lock.place(CATALOGUE)))
    files = {file.id: file for file in known.files}
    rows = []
    for variable in dict.fromkeys(
        name for model in known.models for name, value in model.when.items() if value == "true"
    ):
        settings = load({"ENABLE_CONTROLNET": "false", variable: "true"})
        wanted = {files[name] for model in asked_for(known, settings) for name in model.files}
        total = sum(file.expected for file in wanted)
        more = "+" if any(not file.expected and not file.to.endswith((".json", ".txt")) for file in wanted) else ""
        if total:
            minutes = total / FETCH_BYTES_PER_SECOND / 60
            rows.append((f"`{variable}`", f"{total / 1e9:.3g}{more}", f"{minutes:.0f} min"))
    return table(("Variable", "GB", "At 51 MB/s"), rows)


def gpus() -> str:
    """RunPod's GPUs by their memory, and the tier that a pod finds for each."""
    known: dict[int, list[str]] = {}
    for gpu in sorted(from_names(), key=lambda gpu: gpu.memory):
        known.setdefault(gpu.memory, []).append(gpu.id.removeprefix("NVIDIA ").removeprefix("GeForce "))
    rows = ((f"{memory} GB", ", ".join(names), row_for(memory * 1024)[1]) for memory, names in known.items())
    return table(("Memory", "GPUs", "`GPU_TIER` of `auto`"), rows)


def logged() -> str:
    """Every event of the pod and of the voice servers, with its fields."""
    packages = [events.found(DOCS.parent / "python" / name) for name in ("hearmeman", "hearmeman_voice")]
    names = sorted({name for package in packages for name in package})
    fields = ({field for package in packages for field in package.get(name, ())} for name in names)
    rows = (
        (f"`{name}`", ", ".join(f"`{field}`" for field in sorted(each)))
        for name, each in zip(names, fields, strict=True)
    )
    return table(("Event", "Fields"), rows)


def floors() -> str:
    """Which room stands on which floor, from the contract that the tests check."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(item for item in project["tool"]["importlinter"]["contracts"] if item["type"] == "layers")
    rows = []
    for number, layer in zip(range(len(contract["layers"]), 0, -1), contract["layers"], strict=True):
        rooms = [name.strip(" ()") for name in layer.split(":")]
        rows.append((str(number), ", ".join(f"`{name}`" for name in rooms)))
    return table(("Floor", "Rooms of `python/hearmeman`"), rows)


SECTIONS: dict[tuple[str, str], Callable[[], str]] = {
    ("architecture.md", "floors"): floors,
    ("log.md", "events"): logged,
    ("pod.md", "ports"): ports,
    ("runpod.md", "gpus"): gpus,
    ("runpod.md", "downloads"): downloads,
    ("pod.md", "memory"): memory,
    ("workflows.md", "workflows"): workflows,
    ("sync.md", "sizes"): sizes,
    ("sync.md", "storage"): storage,
    ("sync.md", "uploads"): uploads,
}
"""(page, marker) -> what stands between `<!-- begin marker -->` and `<!-- end marker -->` there."""

PAGES: dict[str, Callable[[], str]] = {"environment.md": env_command.markdown, "models-table.md": models_page}
"""Pages that are generated whole."""


def render() -> dict[Path, str]:
    """Every generated page, and every template of ComfyUI's own page, as it should be.

    Raises:
        ValueError: a page has lost its marker.
    """
    pages = {DOCS / name: make() for name, make in PAGES.items()}
    folder = DOCS.parent / "workflows"
    shown = templates.texts(library.load(folder), schema.read(folder / schema.FILE))
    pages |= {DOCS.parent / "comfyui_node/example_workflows" / name: text for name, text in shown.items()}
    for (name, marker), make in SECTIONS.items():
        path = DOCS / name
        text = pages.get(path) or path.read_text(encoding="utf-8")
        between = re.compile(rf"(<!-- begin {marker} -->\n).*?(<!-- end {marker} -->)", re.DOTALL)
        if len(between.findall(text)) != 1:
            raise ValueError(f"{path} must hold `<!-- begin {marker} -->` and `<!-- end {marker} -->` once")
        content = make()
        pages[path] = between.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return pages


if __name__ == "__main__":
    try:
        found = render()
    except HearmemanError as wrong:
        raise SystemExit(str(wrong)) from None
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
