"""Turns a workflow and settings into the graph to send and the files to upload; touches no network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hearmeman.errors import UsageError
from hearmeman.workflows import library, schema
from hearmeman.workflows.library import Graph, Workflow

Files = dict[library.Place, Path]
"""(node, input) -> the file to upload for it."""

_SIGNATURES = {
    "picture": (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
    "video": (b"\x1a\x45\xdf\xa3", b"GIF8", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV"),
    "sound": (
        b"fLaC",
        b"OggS",
        b"ID3",
        b"\xff\xfb",
        b"\xff\xf3",
        b"\xff\xf2",
        b"\xff\xf1",
        b"\x1a\x45\xdf\xa3",
        b"FORM",
    ),
}
"""The first bytes of each kind of file; RIFF and ISO media need a closer look."""


class StrangeFileError(UsageError):
    """A setting names a file that it may not name; nothing was read of it."""


def prepared(
    workflow: Workflow,
    settings: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    only: Collection[Path] | None = None,
) -> tuple[Graph, Files]:
    """The graph to send, checked against ComfyUI's nodes, and the files to upload for it: any, or `only` these.

    Raises:
        StrangeFileError: a setting names another file than these.
        UsageError: a setting is unknown, out of range, without effect, or names a file that is not there.
    """
    nodes = schema.read(folder / schema.FILE)
    options = library.chosen(workflow, settings, environ)
    whole = library.apply(workflow, library.choose(library.graph(workflow), workflow, options), settings)
    graph = whole if workflow.is_own else schema.reachable(whole, nodes)
    files = _files(workflow, settings, options, graph, nodes, only)
    if workflow.is_own:
        # ComfyUI knows its nodes better than the image's list, which lacks nodes added on the volume.
        return graph, files
    missing = [
        key
        for key, parameter in workflow.inputs.items()
        for node, name in parameter.places
        if node in graph and (node, name) not in files and is_upload(nodes, graph, node, name)
    ]
    if missing:
        raise UsageError(f"{workflow.name} needs " + " and ".join(f"--set {key}=FILE" for key in missing))
    wrong = schema.mistakes(graph, nodes)
    if wrong:
        raise UsageError(f"ComfyUI would refuse {workflow.name}:\n" + "\n".join(f"  {mistake}" for mistake in wrong))
    return graph, files


def _files(
    workflow: Workflow,
    settings: Sequence[str],
    options: Mapping[str, str],
    graph: Graph,
    nodes: schema.Schema,
    only: Collection[Path] | None,
) -> Files:
    files: Files = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key in workflow.choices:
            continue
        places = [place for place in workflow.inputs[key].places if place[0] in graph]
        if not places:
            chosen = ", ".join(f"{name}={value}" for name, value in options.items())
            raise UsageError(
                f"--set {key} has no effect with {chosen}: `hearmeman workflows show {workflow.name}` says when"
            )
        for node, name in places:
            if is_upload(nodes, graph, node, name):
                if only is not None and Path(text) not in only:
                    raise StrangeFileError(f"--set {key}={text}: this file may not be used here")
                files[node, name] = Path(text)
                _check_file(f"--set {key}={text}", Path(text), kind_of_file(graph[node]["class_type"]))
    return files


def is_upload(nodes: schema.Schema, graph: Graph, node: str, name: str) -> bool:
    """Tell whether an input takes a file from ComfyUI's input folder."""
    spec = nodes.spec(graph[node]["class_type"], name)
    return isinstance(spec, dict) and spec.get("folder") == "input"


def kind_of_file(class_type: str) -> str:
    """Tell what a loader loads: picture, video or sound."""
    return "video" if "Video" in class_type else "sound" if "Audio" in class_type else "picture"


def _check_file(what: str, path: Path, kind: str) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise UsageError(f"{what}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"{what}: it cannot be read: {error.strerror}") from None
    if not start:
        raise UsageError(f"{what}: the file is empty")
    found = kinds(start)
    if kind not in found:
        seen = f"a {' or '.join(sorted(found))}" if found else "not a kind of file that ComfyUI reads"
        raise UsageError(f"{what}: it takes a {kind}, but this is {seen}")


def kinds(start: bytes) -> set[str]:
    """What a file may be, by its first 16 bytes: picture, video, sound; empty if it is none of them."""
    if start[:4] == b"RIFF":
        return {b"WEBP": {"picture", "video"}, b"WAVE": {"sound"}, b"AVI ": {"video", "sound"}}.get(start[8:12], set())
    if start[4:8] == b"ftyp":
        if start[8:12] in (b"avif", b"avis", b"heic", b"mif1"):
            return {"picture"}
        # A film's sound can be used without its pictures.
        return {"sound"} if start[8:11] == b"M4A" else {"video", "sound"}
    return {kind for kind, starts in _SIGNATURES.items() if start.startswith(starts)}


def picture_setting(workflow: Workflow, path: str, folder: Path) -> str:
    """What `--image FILE` stands for: the input `image`, or the only one that takes a picture.

    Raises:
        UsageError: there is none, or there are several.
    """
    nodes, graph = schema.read(folder / schema.FILE), library.graph(workflow)
    pictures = [
        key
        for key, parameter in workflow.inputs.items()
        if is_upload(nodes, graph, *parameter.places[0])
        and kind_of_file(graph[parameter.places[0][0]]["class_type"]) == "picture"
    ]
    if "image" in pictures or len(pictures) == 1:
        return f"{'image' if 'image' in pictures else pictures[0]}={path}"
    if not pictures:
        raise UsageError(f"--image {path}: {workflow.name} takes no picture")
    ways = ", ".join(f"--set {key}=FILE" for key in pictures)
    raise UsageError(f"--image {path}: {workflow.name} takes more than one picture: give each by its name, {ways}")
