"""Spreads a limited number of connections over the files, in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from hearmeman.models.http import Http


class Task(Protocol):
    """What the engine works on: a file, or a snapshot whose files are to be listed."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""

    def wants_connection(self, spare: bool = False) -> bool:
        """Whether one more thread would be of use now, or one that no other task wants; the lock is held."""

    def join(self) -> None:
        """Announce a thread; the lock is held."""

    def work(self, http: Http) -> None:
        """Do a piece of work."""

    def tend(self) -> None:
        """End it if nothing moves any more; the lock is held."""


def run(tasks: list[Task], http: Http, lock: threading.Condition, connections: int, tick: Callable[[], None]) -> None:
    """Work on `tasks` with at most `connections` threads until all are over; `tick` is called five times a second.

    Work may append tasks, with the lock held.
    """
    stop = threading.Event()
    count = min(connections, 64 * len(tasks))
    for number in range(count):
        name = f"fetch {number}"
        threading.Thread(target=_worker, args=(tasks, http, lock, stop), name=name, daemon=True).start()
    try:
        while not all(task.over for task in tasks):
            with lock:
                lock.wait(0.2)
                for task in tasks:
                    task.tend()
            tick()
    finally:
        stop.set()
        with lock:
            lock.notify_all()


def _worker(tasks: list[Task], http: Http, lock: threading.Condition, stop: threading.Event) -> None:
    while True:
        with lock:
            while (task := _choose(tasks)) is None:
                if stop.is_set():
                    return
                # No one says when a pause is over.
                lock.wait(0.25)
            if stop.is_set():
                return
            task.join()
        task.work(http)


def _choose(tasks: Sequence[Task]) -> Task | None:
    for spare in (False, True):
        for task in tasks:
            if task.wants_connection(spare):
                return task
    return None
