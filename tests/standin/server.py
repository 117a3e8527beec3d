"""The HTTP and websocket face of the stand-in: routes, each also under /api, and the start of the process."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from standin.arguments import load_facts, parser
from standin.engine import Engine, Item
from standin.nodes import CLASSES
from standin.validate import check

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HERE = Path(__file__).resolve().parent
# In an image the facts lie beside this file; in the repository the tuner has them.
_FLAGS = (_HERE / "cli-flags.json", _HERE.parents[1] / "python/hearmeman/tune/cli-flags.json")


class Server:
    """Answers the API over one engine."""

    def __init__(
        self, engine: Engine, folders: dict[str, Path], version: str, argv: list[str], upload_mb: float
    ) -> None:
        self.engine, self.folders, self.version, self.argv, self.upload_mb = engine, folders, version, argv, upload_mb
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.number = 0
        self._outbox: asyncio.Queue[tuple[str, Json, str | None]] = asyncio.Queue()
        engine.send = lambda event, data, client: self._outbox.put_nowait((event, data, client))

    def app(self) -> web.Application:
        """The application with every route twice."""
        app = web.Application(client_max_size=round(self.upload_mb * (1 << 20)))
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/system_stats", self.system_stats),
            ("GET", "/object_info", self.object_info),
            ("GET", "/object_info/{name}", self.object_info),
            ("GET", "/models", self.models),
            ("GET", "/models/{folder}", self.models),
            ("GET", "/experiment/models", self.model_folders),
            ("GET", "/prompt", self.exec_info),
            ("POST", "/prompt", self.post_prompt),
            ("GET", "/history", self.get_history),
            ("GET", "/history/{prompt_id}", self.get_history),
            ("POST", "/history", self.post_history),
            ("GET", "/view", self.view),
            ("POST", "/upload/image", self.upload),
            ("GET", "/queue", self.get_queue),
            ("POST", "/queue", self.post_queue),
            ("POST", "/interrupt", self.interrupt),
            ("GET", "/ws", self.websocket),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
            app.router.add_route(method, f"/api{path}", handler)
        app.router.add_get("/", self.page)
        return app

    async def deliver(self) -> None:
        """Send queued websocket messages in order, for ever."""
        while True:
            event, data, client = await self._outbox.get()
            targets = list(self.sockets.items()) if client is None else [(client, self.sockets.get(client))]
            for sid, socket in targets:
                if socket is None or socket.closed:
                    continue
                try:
                    await socket.send_json({"type": event, "data": data})
                except (ConnectionError, RuntimeError):
                    self.sockets.pop(sid, None)

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        sent = form.get("image")
        if not isinstance(sent, web.FileField):
            return web.Response(status=400)
        below = str(form.get("subfolder", ""))
        folder = self.folders["input"] / below
        folder.mkdir(parents=True, exist_ok=True)
        data, name, number = sent.file.read(), Path(sent.filename), 1
        # As ComfyUI does: the same content keeps its name, another gets a number.
        replaced = form.get("overwrite") in ("true", "1")
        while not replaced and (folder / name).exists() and (folder / name).read_bytes() != data:
            name = Path(f"{Path(sent.filename).stem} ({number}){Path(sent.filename).suffix}")
            number += 1
        (folder / name).write_bytes(data)
        return web.json_response({"name": str(name), "subfolder": below, "type": "input"})

    async def page(self, request: web.Request) -> web.Response:
        text = (
            "<!doctype html><title>ComfyUI</title><p>This is a stand-in for ComfyUI: it has the API and no editor.</p>"
        )
        return web.Response(text=text, content_type="text/html")

    async def system_stats(self, request: web.Request) -> web.Response:
        unit = os.sysconf("SC_PAGE_SIZE")
        total, free = unit * os.sysconf("SC_PHYS_PAGES"), unit * os.sysconf("SC_AVPHYS_PAGES")
        system = {
            "os": sys.platform,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": self.version,
            "python_version": sys.version,
            "pytorch_version": "none (stand-in)",
            "embedded_python": False,
            "argv": self.argv,
        }
        memory = {"vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
        device = {"name": "cpu", "type": "cpu", "index": None, **memory}
        return web.json_response({"system": system, "devices": [device]})

    async def object_info(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        return web.json_response({key: node.info() for key, node in CLASSES.items() if name in (None, key)})

    async def models(self, request: web.Request) -> web.Response:
        # The folders' names, or the files of one; its nodes load none.
        return web.json_response([] if "folder" in request.match_info else ["checkpoints", "loras"])

    async def model_folders(self, request: web.Request) -> web.Response:
        folders = [
            {"name": name, "folders": [name], "extensions": [".safetensors"]} for name in ("checkpoints", "loras")
        ]
        return web.json_response(folders)

    async def exec_info(self, request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self.engine.remaining()}})

    async def post_prompt(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if "number" in body:
            number = float(body["number"])
        else:
            number = -self.number if body.get("front") else self.number
            self.number += 1
        prompt = body.get("prompt")
        if not isinstance(prompt, dict):
            message = "No prompt provided"
            error = {"type": "no_prompt", "message": message, "details": message, "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        verdict = check(prompt)
        if verdict.error is not None:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        given = body.get("extra_data")
        extra = dict(given) if isinstance(given, dict) else {}
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        extra["create_time"] = int(time.time() * 1000)
        prompt_id = str(body.get("prompt_id", uuid.uuid4()))
        self.engine.put(Item(number, prompt_id, prompt, extra, verdict.outputs))
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    async def get_history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info.get("prompt_id")
        if prompt_id is not None:
            found = self.engine.history.get(prompt_id)
            return web.json_response({} if found is None else {prompt_id: found})
        entries = list(self.engine.history.items())
        most = request.query.get("max_items", "")
        return web.json_response(dict(entries[-int(most) :] if most.isdigit() and int(most) else entries))

    async def post_history(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if body.get("clear"):
            self.engine.history.clear()
        for prompt_id in body.get("delete", []):
            self.engine.history.pop(prompt_id, None)
        return web.Response()

    async def get_queue(self, request: web.Request) -> web.Response:
        running = self.engine.running
        rows = [item.row() for item in self.engine.pending]
        return web.json_response({"queue_running": [running.row()] if running else [], "queue_pending": rows})

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await _body(request)
        gone = set(body.get("delete", []))
        keep = [item for item in self.engine.pending if not body.get("clear") and item.prompt_id not in gone]
        self.engine.pending[:] = keep
        self.engine.changed()
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.Response:
        body = await _body(request)
        self.engine.interrupt(body.get("prompt_id"))
        return web.Response()

    async def view(self, request: web.Request) -> web.StreamResponse:
        filename = request.query.get("filename", "")
        root = self.folders.get(request.query.get("type", "output"))
        if not filename:
            return web.Response(status=404)
        if filename.startswith("/") or ".." in filename or root is None:
            return web.Response(status=400)
        folder = (root / request.query.get("subfolder", "")).resolve()
        if not folder.is_relative_to(root.resolve()):
            return web.Response(status=403)
        file = folder / Path(filename).name
        if not file.is_file():
            return web.Response(status=404)
        return web.FileResponse(file, headers={"Content-Disposition": f'filename="{file.name}"'})

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self.sockets[sid] = socket
        try:
            info = {"exec_info": {"queue_remaining": self.engine.remaining()}}
            await socket.send_json({"type": "status", "data": {"status": info, "sid": sid}})
            running = self.engine.running
            if running is not None and running.extra.get("client_id") == sid and self.engine.last_node is not None:
                await socket.send_json({"type": "executing", "data": {"node": self.engine.last_node}})
            async for message in socket:
                if message.type == WSMsgType.ERROR:
                    break
        finally:
            if self.sockets.get(sid) is socket:
                del self.sockets[sid]
        return socket


async def _body(request: web.Request) -> Json:
    text = await request.text()
    try:
        body = json.loads(text) if text else {}
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not JSON") from None
    return body if isinstance(body, dict) else {}


def _folders(args: argparse.Namespace) -> dict[str, Path]:
    base = Path(args.base_directory).resolve() if args.base_directory else _HERE
    temp = Path(args.temp_directory) / "temp" if args.temp_directory else base / "temp"
    folders = {
        "output": Path(args.output_directory) if args.output_directory else base / "output",
        "input": Path(args.input_directory) if args.input_directory else base / "input",
        "temp": temp,
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return folders


async def _serve(args: argparse.Namespace, version: str, argv: list[str]) -> int:
    out = sys.stdout if args.log_stdout else sys.stderr
    folders = _folders(args)
    engine = Engine(
        output=folders["output"],
        write_seconds=float(os.environ.get("STANDIN_WRITE_SECONDS", "0.4")),
        send=lambda event, data, client: None,
        keep_metadata=not args.disable_metadata,
        keep_cache=not args.cache_none,
    )
    server = Server(engine, folders, version, argv, args.max_upload_size)
    runner = web.AppRunner(server.app(), access_log=None)
    await runner.setup()
    for host in args.listen.split(","):
        try:
            await web.TCPSite(runner, host, args.port, reuse_address=True).start()
        except OSError as error:
            print(f"cannot listen on {host}:{args.port}: {error.strerror or error}", file=sys.stderr, flush=True)
            await runner.cleanup()
            return 1
    print(
        f"Starting server\n\nTo see the GUI go to: http://{args.listen.split(',')[0]}:{args.port}", file=out, flush=True
    )
    await asyncio.gather(engine.work(), server.deliver())
    return 0


def start(argv: list[str]) -> int:
    """Parse, check what the real one checks at start, and serve; SIGTERM keeps its default, as with the real one."""
    facts = load_facts(next(path for path in _FLAGS if path.exists()))
    args = parser(facts).parse_args(argv[1:])
    for path in args.extra_model_paths_config or []:
        if not Path(path).is_file():
            print(f"--extra-model-paths-config: no such file: {path}", file=sys.stderr, flush=True)
            return 1
    if not args.cpu and not Path("/dev/nvidiactl").exists():
        message = "Found no NVIDIA driver on your system. Give --cpu to run without a GPU."
        print(f"RuntimeError: {message}", file=sys.stderr, flush=True)
        return 1
    if args.quick_test_for_ci:
        return 0
    try:
        return asyncio.run(_serve(args, facts["comfyui_version"], argv))
    except KeyboardInterrupt:
        print("\nStopped server", file=sys.stderr, flush=True)
        return 0
