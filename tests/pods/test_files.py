"""Files go into a booted pod through its real sshd and come back: whole or not at all, once, and as ComfyUI's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from acceptance import real_pod
from fakes.runpod import KEY, RunPod
from hearmeman.users import COMFYUI
from hearmeman_build.build import Image
from hearmeman_pod import command, courier, files, there
from hearmeman_pod.courier import Courier, FileError, LostError
from hearmeman_pod.errors import PodError
from support.pod import Pod
from support.ports import free_port
from support.repository import ROOT


@dataclass
class Laptop:
    """A machine with a key, and the pod that takes it."""

    pod: Pod
    key: Path
    runpod: RunPod
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> tuple[int, Any, str]:
        """Run a verb: (exit code, what it printed, as JSON with --json, standard error)."""
        environ = {"HOME": str(self.folder), "RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": self.runpod.url}
        try:
            code = command.main([*words, "-F", str(self.folder / "config")], environ)
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.capsys.readouterr()
        return code, json.loads(said.out) if "--json" in words and said.out else said.out, said.err

    def states(self, *words: str) -> list[str]:
        """What became of each file."""
        code, found, err = self(*words, "--json")
        assert code == 0, err
        return [one["state"] for one in found["files"]]

    @property
    def comfyui(self) -> Path:
        """ComfyUI's part of the pod's volume."""
        return self.pod.volume / "ComfyUI"

    def argv(self) -> list[str]:
        """How ssh reaches the pod."""
        direct = {"host": "127.0.0.1", "port": self.runpod.ssh_port, "username": "root"}
        pod = {"id": "pod0", "status": "RUNNING", "ssh": {"direct": direct}}
        return courier.direct_words(pod, self.folder, config=self.folder / "config")


@pytest.fixture(scope="module")
def booted(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pod, Path, int]]:
    folder = tmp_path_factory.mktemp("files")
    key, port = folder / "key", free_port()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    volume = folder / "volume"
    volume.mkdir()
    pod = Pod(image, volume)
    try:
        hosts = {"COMFYUI_HOST": "127.0.0.1", "STATUS_HOST": "127.0.0.1", "HF_ENDPOINT": "http://127.0.0.1:9"}
        pod.start({**hosts, "SSH_PORT": str(port), "PUBLIC_KEY": key.with_suffix(".pub").read_text()})
        pod.wait_line("process.started name=sshd")
        pod.wait_line("Server listening")
        yield pod, key, port
    finally:
        pod.kill()


@pytest.fixture
def laptop(
    booted: tuple[Pod, Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laptop]:
    pod, key, port = booted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "PAUSE", 0.05)
    known = tmp_path / "known_hosts"
    (tmp_path / "config").write_text(f"Host *\nIdentityFile {key}\nIdentitiesOnly yes\nUserKnownHostsFile {known}\n")
    with RunPod(ssh_port=port) as runpod:
        runpod.made({"name": "film", "image": "i@sha256:" + "a" * 64, "gpu": {"id": "g", "count": 1}}, "RUNNING")
        yield Laptop(pod, key, runpod, tmp_path, capsys)
        assert runpod.invalid == []
    assert list(pod.volume.rglob(f"{there.PART}*")) == [], "what is half there fills the volume"


def test_files_go_in_once_as_comfyuis_own(laptop: Laptop) -> None:
    (laptop.folder / "set/deep").mkdir(parents=True)
    content = os.urandom(3 << 20)
    (laptop.folder / "set/deep/a ü 'b.png").write_bytes(content)
    (laptop.folder / "set/.DS_Store").write_bytes(b"x")
    (laptop.folder / "me.wav").write_bytes(b"RIFF")
    assert laptop.states("put", "set", "me.wav", "film:input") == ["sent", "sent"]
    there_now = laptop.comfyui / "input/set/deep/a ü 'b.png"
    assert there_now.read_bytes() == content
    assert not (laptop.comfyui / "input/set/.DS_Store").exists()
    assert there_now.stat().st_mtime_ns == (laptop.folder / "set/deep/a ü 'b.png").stat().st_mtime_ns
    assert laptop.states("put", "set", "me.wav", "film:input") == ["present", "present"]
    assert laptop.states("put", "me.wav", "film:voices") == ["sent"]
    assert laptop.states("put", "me.wav", "film:models/loras/mine") == ["sent"]
    if os.geteuid() == 0:
        for name in (
            "ComfyUI/input/set/deep",
            "ComfyUI/input/me.wav",
            "voices/me.wav",
            "ComfyUI/models/loras/mine/me.wav",
        ):
            assert (laptop.pod.volume / name).stat().st_uid == COMFYUI.uid, name


def test_another_file_of_the_name_is_kept_until_it_is_to_be_replaced(laptop: Laptop) -> None:
    (laptop.folder / "b.png").write_bytes(b"one")
    (laptop.folder / "c.png").write_bytes(b"other")
    assert laptop.states("put", "b.png", "film:input") == ["sent"]
    (laptop.folder / "b.png").write_bytes(b"two")
    code, _, err = laptop("put", "b.png", "c.png", "film:input")
    assert code == 3 and "give --replace, or rename yours" in err
    assert (laptop.comfyui / "input/b.png").read_bytes() == b"one"
    assert (laptop.comfyui / "input/c.png").read_bytes() == b"other"
    (laptop.folder / "b.png").rename(laptop.folder / "b2.png")
    assert laptop.states("put", "b2.png", "film:input") == ["sent"]
    (laptop.folder / "b2.png").rename(laptop.folder / "b.png")
    assert laptop.states("put", "b.png", "film:input", "--replace") == ["sent"]
    assert (laptop.comfyui / "input/b.png").read_bytes() == b"two"


def test_outputs_come_home_and_only_what_is_new(laptop: Laptop) -> None:
    output = laptop.comfyui / "output/film"
    output.mkdir()
    (output / "a.png").write_bytes(b"a" * 100)
    (output / "link.png").symlink_to("/etc/passwd")
    assert laptop.states("get", "film:output", "home") == ["sent"]
    assert (laptop.folder / "home/film/a.png").read_bytes() == b"a" * 100
    (output / "b.png").write_bytes(b"b")
    (output / "a.png").write_bytes(b"A" * 100)
    assert laptop.states("sync", "film:output", "home") == ["sent", "sent"]
    assert laptop.states("sync", "film:output", "home") == ["present", "present"]
    assert (laptop.folder / "home/film/a.png").read_bytes() == b"A" * 100
    (laptop.folder / "home/film/a.png").write_bytes(b"mine")
    code, _, err = laptop("get", "film:output", "home")
    assert code == 3 and "give --replace, or another folder" in err, "nothing of one's own is written over"
    assert laptop.states("get", "film:output", "another") == ["sent", "sent"]
    assert sorted(laptop.states("get", "film:output", "home", "--replace")) == ["present", "sent"]
    assert laptop.states("get", "film:output/film/b.png", "one") == ["sent"]
    assert (laptop.folder / "one/b.png").read_bytes() == b"b"
    assert not (laptop.folder / "home/film/link.png").exists()


def test_a_folder_is_kept_the_same_in_the_pod(laptop: Laptop) -> None:
    (laptop.folder / "loras").mkdir()
    (laptop.folder / "loras/x.safetensors").write_bytes(b"1")
    assert laptop.states("sync", "loras", "film:models/loras") == ["sent"]
    (laptop.folder / "loras/x.safetensors").write_bytes(b"2")
    assert laptop.states("sync", "loras", "film:models/loras") == ["sent"]
    assert (laptop.comfyui / "models/loras/x.safetensors").read_bytes() == b"2"


class _CutError(Exception):
    """The laptop is closed."""


@pytest.mark.parametrize("damaged", [False, True])
def test_what_was_half_sent_goes_on_and_what_is_damaged_does_not_count(laptop: Laptop, damaged: bool) -> None:
    content = os.urandom(8 << 20)
    path = laptop.folder / "half.bin"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    part = laptop.comfyui / f"input/{there.PART}{digest[:32]}.part"

    def cut(done: int) -> None:
        if done >= 4 << 20:
            raise _CutError

    with pytest.raises(_CutError), Courier(laptop.argv(), "input", "pod0") as talk:
        talk.put(path, "half.bin", digest, False, cut)
    laptop.pod.wait_for(lambda: part.is_file() and part.stat().st_size >= 4 << 20, "what was sent")
    assert not (laptop.comfyui / "input/half.bin").exists()
    if damaged:
        with part.open("r+b") as file:
            file.write(bytes(64))
    began: list[int] = []
    with Courier(laptop.argv(), "input", "pod0") as talk:
        if damaged:
            with pytest.raises(FileError, match="was not kept: send it again"):
                talk.put(path, "half.bin", digest, False, lambda done: None)
            assert not (laptop.comfyui / "input/half.bin").exists()
        assert talk.put(path, "half.bin", digest, False, began.append) == "sent"
    assert (began[0] > 4 << 20) is not damaged
    assert (laptop.comfyui / "input/half.bin").read_bytes() == content
    (laptop.comfyui / "input/half.bin").unlink()


def test_what_came_half_goes_on(laptop: Laptop) -> None:
    content = os.urandom(8 << 20)
    source = laptop.comfyui / "output/long.mp4"
    source.write_bytes(content)
    known, part = source.stat(), laptop.folder / "part"
    part.write_bytes(content[: 5 << 20])
    began: list[int] = []
    with Courier(laptop.argv(), "output", "pod0") as talk:
        assert talk.get("long.mp4", known.st_size, known.st_mtime_ns, part, began.append) == "sent"
        assert part.read_bytes() == content and began[0] > 5 << 20
        # What is no longer what was begun comes from its beginning.
        part.write_bytes(b"x" * 100)
        assert talk.get("long.mp4", known.st_size, 1, part, began.append) == "changed"
    source.unlink()


def test_a_connection_that_breaks_is_made_again(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    (laptop.folder / "again.png").write_bytes(b"x" * 1000)
    real = Courier.put
    broke: list[int] = []

    def put(self: Courier, *order: Any) -> str:
        if not broke:
            broke.append(1)
            assert self._process is not None
            self._process.kill()
        return real(self, *order)

    monkeypatch.setattr(Courier, "put", put)
    code, _, err = laptop("put", "again.png", "film:input")
    assert code == 0 and "once more" in err
    assert (laptop.comfyui / "input/again.png").read_bytes() == b"x" * 1000


def test_links_of_the_pod_lead_nowhere(laptop: Laptop) -> None:
    (laptop.folder / "d.png").write_bytes(b"d")
    outside = laptop.pod.volume / "outside"
    outside.mkdir(exist_ok=True)
    (laptop.comfyui / "input/away").symlink_to(outside)
    (laptop.comfyui / "input/d.png").symlink_to("/etc/hostname")
    assert laptop("put", "d.png", "film:input/away")[0] == 1
    code, _, err = laptop("put", "d.png", "film:input", "--replace")
    assert code == 1 and "is a link in the pod: remove it there, or rename yours" in err
    assert list(outside.iterdir()) == []
    (laptop.folder / "d.png").rename(laptop.folder / "d2.png")
    assert laptop.states("put", "d2.png", "film:input") == ["sent"]
    for name in ("away", "d.png"):
        (laptop.comfyui / "input" / name).unlink()
    (laptop.folder / "d2.png").rename(laptop.folder / "d.png")
    assert laptop.states("put", "d.png", "film:input") == ["sent"]


def test_files_are_sent_as_advised(laptop: Laptop) -> None:
    for name in ("h.png", "x/h.png"):
        (laptop.folder / name).parent.mkdir(exist_ok=True)
        (laptop.folder / name).write_bytes(name.encode())
    code, _, err = laptop("put", "h.png", "x/h.png", "film:input")
    assert code == 2 and "rename one, or send it elsewhere" in err
    (laptop.folder / "x/h.png").rename(laptop.folder / "x/i.png")
    assert laptop.states("put", "h.png", "x/i.png", "film:input") == ["sent", "sent"]
    code, _, err = laptop("put", "h.png", "film:input/h.png")
    assert code == 2 and "input/h.png is a file in the pod: name the folder that it lies in" in err
    assert laptop.states("put", "h.png", "film:input") == ["present"]
    code, _, err = laptop("put", "h.png", "film:models/../input")
    assert code == 2 and "write the path without .." in err
    assert laptop.states("put", "h.png", f"film:{os.path.normpath('models/../input')}") == ["present"]


def test_a_place_is_one_that_the_sentence_names(laptop: Laptop) -> None:
    (laptop.folder / "j.png").write_bytes(b"j")
    _, _, err = laptop("put", "j.png", "film:pictures")
    named = re.search(r"give ([\w, ]+), a folder below one such as (\S+), or a path on the volume such as (\S+)", err)
    assert named is not None, err
    assert named[1].split(", ") == [*there.PLACES]
    for place in ("user", named[2], named[3]):  # Other tests send to the other places.
        assert laptop.states("put", "j.png", f"film:{place}") == ["sent"], place


def test_what_is_being_written_is_fetched_again(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    source = laptop.comfyui / "output/writing.mp4"
    source.write_bytes(b"a" * 1000)
    listed = Courier.files

    def grows(self: Courier) -> list[tuple[str, int, int]]:
        found = listed(self)
        with source.open("ab") as file:
            file.write(b"b")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Courier, "files", grows)
        code, _, err = laptop("get", "film:output/writing.mp4", "home")
    assert code == 1 and "it is being written in the pod: fetch it again" in err
    assert laptop.states("get", "film:output/writing.mp4", "home") == ["sent"]
    assert (laptop.folder / "home/writing.mp4").read_bytes() == b"a" * 1000 + b"b"
    source.unlink()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("put", "e.png", "film:inptu"), "there is no place inptu"),
        (("put", "e.png", "film"), "POD:PLACE"),
        (("put", "e.png", "film:input/../.."), "may lead outside"),
        (("put", "gone.png", "film:input"), "gone.png is not a file"),
        (("put", "e.png", "other:input"), "there is no pod other"),
        (("put", "e.png", "x/e.png", "film:input"), "both be e.png"),
        (("sync", "here", "there"), "FROM TO"),
        (("sync", "film:output", "home", "--watch", "0"), "above 0"),
    ],
)
def test_what_is_wrongly_asked_sends_nothing(laptop: Laptop, words: tuple[str, ...], says: str) -> None:
    (laptop.folder / "e.png").write_bytes(b"e")
    (laptop.folder / "x").mkdir()
    (laptop.folder / "x/e.png").write_bytes(b"e")
    code, _, err = laptop(*words)
    assert code == 2 and says in err
    assert not (laptop.comfyui / "input/e.png").exists()


def test_a_path_beside_the_volume_and_a_folder_that_is_missing_are_refused(laptop: Laptop) -> None:
    (laptop.folder / "f.png").write_bytes(b"f")
    code, _, err = laptop("put", "f.png", "film:/etc")
    assert code == 1 and "outside the volume" in err
    code, _, err = laptop("get", "film:output/none", "home")
    assert code == 1 and "there is no" in err
    if os.geteuid() == 0:
        code, _, err = laptop("put", "f.png", "film:/workspace/.hearmeman")
        assert code == 1 and "Permission denied" in err


def test_a_pod_that_cannot_be_reached_says_why(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TRIES", 2)
    (laptop.folder / "g.png").write_bytes(b"g")
    put = ("put", "g.png", "film:input")
    port = laptop.runpod.ssh_port
    laptop.runpod.ssh_port = 0
    assert "no public TCP port" in laptop(*put)[2]
    laptop.runpod.ssh_port = free_port()
    code, _, err = laptop(*put)
    assert code == 1 and "Connection refused" in err and "Run the same command again" in err
    laptop.runpod.ssh_port = port
    config = laptop.folder / "config"
    key, other = config.read_text(), laptop.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    config.write_text(
        f"Host *\nIdentityFile {other}\nIdentitiesOnly yes\nUserKnownHostsFile {laptop.folder}/known_hosts\n"
    )
    code, _, err = laptop(*put)
    assert code == 1 and "SSH public keys" in err
    [option] = re.findall(r"(--\w+) FILE names another key", err)
    assert laptop("put", "g.png", "film:user", option, str(laptop.key))[0] == 0
    config.write_text(key)
    wrong = other.with_suffix(".pub").read_text()
    (laptop.folder / "known_hosts").write_text(f"runpod-pod0 {wrong}")
    code, _, err = laptop(*put)
    assert code == 1
    [advice] = re.findall(r"(ssh-keygen -R \S+)", err)
    assert not (laptop.comfyui / "input/g.png").exists()
    subprocess.run([*shlex.split(advice), "-f", str(laptop.folder / "known_hosts")], check=True, capture_output=True)
    assert laptop.states(*put) == ["sent"], "the same command again"


def test_a_pods_names_lead_nowhere_here(tmp_path: Path) -> None:
    for name in ("../x", "/etc/x", "a/../../x", "a\0b"):
        with pytest.raises(PodError, match="leads out"):
            files._safe(name)


def test_a_shell_that_prints_first_and_one_that_ends_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    talks = ["sh", "-c", 'echo welcome; exec python3 -I -c "$0"', _PROGRAM]
    with pytest.raises(FileError, match="outside"), Courier(talks, "/etc", "p", ""):
        pass
    with pytest.raises(LostError, match="broke"), Courier(["sh", "-c", "exit 255"], "input", "p", ""):
        pass
    with pytest.raises(PodError, match="ended \\(3\\)"), Courier(["sh", "-c", "exit 3"], "input", "p", ""):
        pass


_PROGRAM = "import sys; i = sys.stdin.buffer; exec(compile(i.read(int(i.readline())), 'there', 'exec'))"


def test_the_steps_for_a_real_pod_that_need_ssh(laptop: Laptop, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "HOME": str(laptop.folder)}
    environ |= {"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": laptop.runpod.url}
    processes = real_pod.processes(environ)

    def run(module: str, *words: str) -> real_pod.Done:
        if words[0] == "ssh":
            # What the far command prints passes by this process's own standard output.
            return processes(module, *words)
        return real_pod.Done(command.main(words, environ), laptop.capsys.readouterr().out)

    ssh = ("-F", str(laptop.folder / "config"))
    trip = real_pod.Trip(run, environ, "film", tmp_path, ssh=ssh, pause=0.02)
    steps = [step for step in real_pod.STEPS if step[0] in ("SSH", "put and get")]
    real_pod.travel(trip, [], steps)
    assert (laptop.comfyui / "input/film.bin").stat().st_size == 8 << 20
    assert laptop.runpod.live == []
