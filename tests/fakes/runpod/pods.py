"""/v2/pods: create, list, look, act, delete and logs, with the faults that tests order."""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any, cast

from fakes.runpod.answers import Answers


class Pods(Answers):
    """The routes below /v2/pods."""

    def _create(self, body: dict[str, Any]) -> None:
        fake = self.fake
        what = fake.creates.popleft() if fake.creates else "ok"
        refusals = {
            "capacity": (
                400,
                "Bad Request",
                "There are no longer any instances available with the requested specifications.",
            ),
            "rule": (400, "Bad Request", "mounts.persistent and mounts.network are mutually exclusive"),
            "broke": (402, "Payment Required", "insufficient balance"),
            "quota": (403, "Forbidden", "you have reached the maximum number of pods of your account"),
            "forbidden": (403, "Forbidden", "your account cannot access this pool"),
            "500-before": (500, "Internal Server Error", "upstream failed"),
        }
        if what in refusals:
            errors = ["mounts.network: remove it, or mounts.persistent"] if what == "rule" else None
            self._problem(*refusals[what], errors)
        elif what == "busy":
            self._problem(429, "Too Many Requests", "slow down", headers={"Retry-After": self.fake.retry_after})
        elif what == "html":
            self._raw(502, b"<html>bad gateway</html>", "text/html")
        else:
            with fake.lock:
                pod_id = fake.made(body)
                if what == "late":
                    fake.hidden[pod_id] = time.monotonic() + 0.3
                elif what == "overtaken":
                    fake.overtaken.add(pod_id)
                elif what.startswith("interrupted"):
                    fake.unlisted[pod_id] = 2
                    fake.interrupt_list = what == "interrupted-later"
                elif what == "then-interrupted":
                    fake.interrupt_list = True
            if what == "interrupted":
                self._interrupt()
            elif what in ("500-after", "late", "overtaken", "interrupted-later"):
                self._problem(500, "Internal Server Error", "upstream failed")
            elif what == "drop-after":
                self._drop()
            elif what == "html-after":
                self._raw(200, b"<html>log in to this network</html>", "text/html")
            elif what == "empty-after":
                self._send(201, {})
            else:
                self._send(201, fake.shown(pod_id))

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _interrupt(self) -> None:
        """Press Ctrl-C for whoever waits for this answer, which is the test's own thread; or close its terminal."""
        signal.pthread_kill(cast(int, threading.main_thread().ident), self.fake.interrupts_by)
        self.close_connection = True

    def _list(self) -> None:
        fake, now = self.fake, time.monotonic()
        if fake.interrupt_list:
            fake.interrupt_list = False
            self._interrupt()
            return
        what = fake.lists.popleft() if fake.lists else "ok"
        if what == "500":
            self._problem(500, "Internal Server Error", "upstream failed")
            return
        if what == "busy":
            self._problem(429, "Too Many Requests", "slow down", headers={"Retry-After": fake.retry_after})
            return
        if what == "odd":
            self._send(200, {"message": "try again"})
            return
        with fake.lock:
            fake.pass_time()
            unseen = fake.overtaken | {pod_id for pod_id, left in fake.unlisted.items() if left > 0}
            shown = [
                fake.shown(pod_id)
                for pod_id, pod in fake.pods.items()
                if pod.status != "TERMINATED" and fake.hidden.get(pod_id, 0) <= now and pod_id not in unseen
            ]
            fake.unlisted = {pod_id: left - 1 for pod_id, left in fake.unlisted.items()}
        self._send(200, {"pods": shown})

    def _poll(self, pod_id: str) -> None:
        pod = self.fake.pods[pod_id]
        what = self.fake.reads.popleft() if self.fake.reads else "ok"
        if what == "gone":
            pod.status = "TERMINATED"
        if what in ("500", "gone"):
            self._problem(500 if what == "500" else 404, "Error", "upstream failed")
            return
        if what == "html":
            self._raw(200, b"<html>log in to this network</html>", "text/html")
            return
        if what == "odd":
            self._send(200, {"message": "try again"})
            return
        if what == "drop":
            self._drop()
            return
        pod.polls += 1
        if pod.status in ("PROVISIONING", "STARTING"):
            pod.status = self.fake.ends_as if pod.polls > 1 else "STARTING"
        if pod.status == "RUNNING" and self.fake.later_cost is not None:
            pod.cost = self.fake.later_cost
        if pod.status == "RUNNING":
            self.fake.overtaken.clear()
        self._send(200, self.fake.shown(pod_id))

    def _action(self, pod_id: str, action: str) -> None:
        pod = self.fake.pods[pod_id]
        if action not in self.fake.shown(pod_id)["actions"]:
            self._problem(409, "Conflict", f"{action} is not allowed while {pod.status}")
            return
        what = self.fake.actions.popleft() if self.fake.actions else "ok"
        if what == "409":
            self._problem(409, "Conflict", "a network volume is attached: this pod can only be terminated")
            return
        if what == "drop-before":
            self._drop()
            return
        if action == "start" and self.fake.resumed_cuda:
            pod.cuda = self.fake.resumed_cuda
        pod.polls = 0
        pod.status = {"start": "STARTING", "stop": "EXITED", "restart": "RUNNING", "terminate": "TERMINATED"}[action]
        if what == "drop-after":
            self._drop()
        else:
            self._send(200, self.fake.shown(pod_id))

    def _delete(self, pod_id: str) -> None:
        what = self.fake.deletes.popleft() if self.fake.deletes else "ok"
        if what == "500-before":
            self._problem(500, "Internal Server Error", "upstream failed")
            return
        if what == "interrupted":
            self._interrupt()
            return
        if what == "409":
            self._problem(409, "Conflict", "belongs to a cluster")
            return
        self.fake.pods[pod_id].status = "TERMINATED"
        if what == "drop-after":
            self._drop()
            return
        self.send_response(204)
        self.end_headers()

    def _logs(self, source: str) -> None:
        fake = self.fake
        texts = fake.system_logs or fake.logs if source == "system" else fake.logs
        seen = self.headers.get("Last-Event-ID", "")
        fake.resumed_from.append(seen)
        if fake.break_logs:
            self._drop()
            return
        lines = [
            (f"2026-11-25T12:00:{number:02}Z", line)
            for number, line in enumerate(texts)
            if f"2026-11-25T12:00:{number:02}Z" > seen
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for when, line in lines[:1] if fake.cut_logs else lines:
            data = json.dumps({"source": source or "container", "line": line, "ts": when})
            self.wfile.write(f"id: {when}\ndata: {data}\n\n".encode())
            self.wfile.flush()
        if fake.holds_logs:
            fake.leaving.wait(fake.holds_logs)
