"""`hearmeman workspace` against a bucket: saved on one pod, back on the next, nothing there overwritten or lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from fakes.r2 import R2
from fakes.s3 import S3
from hearmeman.settings import load
from hearmeman.users import COMFYUI, WORKSPACE
from hearmeman.workspace.contents import DamagedError
from hearmeman.workspace.save import save
from hearmeman.workspace.space import Space
from support.as_pod import as_user, give_to_comfyui
from support.sync_process import PYTHON

WORKFLOW = "user/default/workflows/a.json"
MIB = 1024**2


class VolumeOfPod:
    """A pod's volume, on which ComfyUI's folders are ComfyUI's own."""

    def __init__(self, folder: Path, server: R2 | S3, name: str) -> None:
        self.volume, self.server, self.name = folder / name, server, name
        self.comfyui = self.volume / "ComfyUI"
        for top in ("user", "input", "custom_nodes"):
            (self.comfyui / top).mkdir(parents=True)
        (self.volume / ".hearmeman").mkdir()
        give_to_comfyui(self.comfyui)

    def write(self, **files: str) -> None:
        """Write files as ComfyUI does; `__` stands for a slash and `_json` for the ending."""
        for name, content in files.items():
            self.put(name.replace("__", "/").replace("_json", ".json"), content.encode())

    def put(self, path: str, content: bytes) -> Path:
        target = self.comfyui / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        give_to_comfyui(self.comfyui)
        return target

    def files(self) -> dict[str, bytes]:
        tops = (self.comfyui / "user", self.comfyui / "input")
        return {str(p.relative_to(self.comfyui)): p.read_bytes() for top in tops for p in top.rglob("*") if p.is_file()}

    @property
    def environ(self) -> dict[str, str]:
        """The variables of its processes."""
        return {"VOLUME_DIR": str(self.volume), "RUNPOD_POD_ID": self.name, **self.server.environ()}

    def run(
        self,
        *words: str,
        code: int = 0,
        command: str = "workspace",
        before: Sequence[str] = (),
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PYTHON,
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environ,
            **environ,
        }
        argv = [sys.executable, "-m", "hearmeman", command, *words]
        argv = [*before, *as_user(argv, WORKSPACE if command == "workspace" else COMFYUI)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def json(self, *words: str, code: int = 0) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.run(*words, "--json", code=code).stdout)
        return found


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.mark.parametrize("kind", [R2, S3])
def test_what_one_pod_saved_is_back_on_the_next(tmp_path: Path, kind: type[R2] | type[S3]) -> None:
    with kind() as server:
        first, second = VolumeOfPod(tmp_path, server, "one"), VolumeOfPod(tmp_path, server, "two")
        first.write(user__default__workflows__a_json="{}", user__default__comfy_settings_json="{1}")
        first.put("input/photo.png", b"pixels")
        first.put("input/empty.txt", b"")
        first.put("user/comfyui.log", b"no")
        large = first.put("input/large.mp4", os.urandom(MIB) * 101)
        os.utime(large, ns=(10**18, 10**18))
        first.put(os.fsdecode(b"input/\xff.png"), b"no text")
        shown = first.run("save", "--dry-run").stdout
        assert "save 1 would be in s3://runpod/outputs/workspace: 6 files" in shown
        assert first.json("save")["new"] is True
        assert "nothing has changed since save 1" in first.run("save").stdout
        wanted = {path: content for path, content in first.files().items() if not path.endswith(".log")}
        assert "would be fetched user/default/workflows/a.json" in second.run("restore", "--dry-run").stdout
        assert second.files() == {}
        second.run("restore")
        assert second.files() == wanted
        restored = second.comfyui / "input/large.mp4"
        assert restored.stat().st_mtime_ns == 10**18
        if os.geteuid() == 0:
            assert {p.stat().st_uid for p in second.comfyui.rglob("*")} == {COMFYUI.uid}
        rows = second.json("list")["saves"]
        assert [(row["number"], row["pod"], row["files"]) for row in rows] == [(1, "one", 6)]  # type: ignore[attr-defined]


def test_voices_beside_comfyui_come_back_with_their_names(r2: R2, tmp_path: Path) -> None:
    first, second = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    for pod in (first, second):
        (pod.volume / "voices").mkdir()
        give_to_comfyui(pod.volume / "voices")
    (first.volume / "voices/me.wav").write_bytes(b"sound")
    (first.volume / "voices/.voices.json").write_text("{}")
    (first.volume / "voices/.voices.lock").write_text("")
    (first.volume / "elsewhere.txt").write_text("not ours")
    (first.volume / "voices/leak.wav").symlink_to(first.volume / "elsewhere.txt")
    first.run("save", code=3)
    (second.volume / "voices/.voices.json").write_text("its own")
    second.run("restore", "--only", "voices")
    found = {path.name: path.read_text() for path in (second.volume / "voices").iterdir()}
    assert found == {"me.wav": "sound", ".voices.json": "its own"}
    assert not (second.comfyui / "voices").exists()
    (first.volume / "voices/me.wav").unlink()
    assert first.json("save", code=3)["removed"] == ["voices/me.wav"]


def test_what_is_there_is_never_overwritten(r2: R2, tmp_path: Path) -> None:
    first, second = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    first.write(user__default__workflows__a_json="saved", user__b_json="saved")
    first.run("save")
    second.write(user__default__workflows__a_json="its own")
    done = second.json("restore")
    assert (done["missing"], done["there"]) == (["user/b.json"], 1)
    assert second.files() == {WORKFLOW: b"its own", "user/b.json": b"saved"}


def test_two_pods_keep_each_others_changes(r2: R2, tmp_path: Path) -> None:
    one, two = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    one.write(user__a_json="a", user__shared_json="old", user__gone_json="x")
    one.run("save")
    two.run("restore")
    one.write(user__shared_json="of one", user__one_json="1")
    two.write(user__two_json="2")
    (two.comfyui / "user/gone.json").unlink()
    one.run("save")
    two.run("save")
    one.run("save")
    new = VolumeOfPod(tmp_path, r2, "new")
    new.run("restore")
    wanted = {"a": "a", "shared": "of one", "one": "1", "two": "2"}
    assert new.files() == {f"user/{name}.json": text.encode() for name, text in wanted.items()}
    # What one removed is in the saves before.
    old = VolumeOfPod(tmp_path, r2, "old")
    old.run("restore", "--from", "1")
    assert (old.comfyui / "user/gone.json").read_bytes() == b"x"
    assert r2.overwritten == []


def save_patiently(pod: VolumeOfPod) -> None:
    """Save as the pod does: a server that fails is asked again.

    rclone answers 500 while an object is replaced, and gives one that is half written, which R2 never does.
    """
    passing = (ClientError, DamagedError) if isinstance(pod.server, S3) else (ClientError,)
    for _ in range(20):
        with contextlib.suppress(*passing):
            save(Space.of(load(pod.environ)), settle=0.0)
            return
    raise AssertionError("it never worked")


@pytest.mark.parametrize("kind", [R2, S3])
def test_saves_at_the_same_time_lose_nothing(tmp_path: Path, kind: type[R2] | type[S3]) -> None:
    with kind() as server:
        pods = [VolumeOfPod(tmp_path, server, f"pod{number}") for number in range(4)]
        problems: list[Exception] = []

        def work(pod: VolumeOfPod) -> None:
            try:
                for number in range(4):
                    pod.put(f"user/{pod.name}-{number}.json", pod.name.encode())
                    save_patiently(pod)
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(pod,)) for pod in pods]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        for pod in pods:  # A server without conditions may lose a race; the next save brings it in.
            save_patiently(pod)
        latest, _ = Space.of(load(pods[0].environ)).store.latest()
        assert sorted(latest.files) == sorted(f"user/{p.name}-{n}.json" for p in pods for n in range(4))


def test_a_file_removed_on_a_pod_stays_removed_at_its_next_start(r2: R2, tmp_path: Path) -> None:
    pod = VolumeOfPod(tmp_path, r2, "one")
    pod.write(user__a_json="a", user__b_json="b")
    pod.run("save")
    (pod.comfyui / "user/a.json").unlink()  # The pod is killed before this is saved.
    pod.run("restore", "--at-start", "10")
    assert sorted(pod.files()) == ["user/b.json"]
    pod.run("restore")  # Asked for by hand, it comes back.
    assert sorted(pod.files()) == ["user/a.json", "user/b.json"]


def test_an_empty_volume_is_not_saved_over_a_full_one(r2: R2, tmp_path: Path) -> None:
    pod = VolumeOfPod(tmp_path, r2, "one")
    pod.write(user__a_json="a")
    pod.run("save")
    (pod.comfyui / "user/a.json").unlink()
    assert "nothing was saved" in pod.run("save", code=1).stderr
    assert len([key for key in r2.objects if "/saves/" in key]) == 1


def test_a_start_without_a_bucket_does_not_hold_the_pod_up(r2: R2, tmp_path: Path) -> None:
    first, pod = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    first.write(user__a_json="a")
    first.run("save")
    done = pod.run("restore", "--at-start", "1", code=3, R2_ENDPOINT="http://127.0.0.1:9")
    assert done.stderr.count("workspace.waiting") == 1
    [command] = re.findall(r"ComfyUI starts without it; run `hearmeman workspace (\w+)` later", done.stderr)
    pod.run(command)
    assert pod.files() == {"user/a.json": b"a"}


def test_a_file_that_did_not_come_at_the_start_is_fetched_again(r2: R2, tmp_path: Path) -> None:
    first, second = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    first.write(user__a_json="a", user__b_json="b")
    first.run("save")

    def fail_once(operation: str, key: str) -> None:
        if "/files/" in key and not r2.faults:
            r2.fail(503, "ServiceUnavailable")

    r2.before = fail_once
    done = second.run("restore", "--at-start", "60")
    assert sorted(second.files()) == ["user/a.json", "user/b.json"]
    assert done.stderr.count("workspace.waiting") == 1


def test_a_save_that_leads_out_of_its_folder_is_not_used(r2: R2, tmp_path: Path) -> None:
    first, second = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    first.write(user__a_json="a")
    first.run("save")
    evil = json.loads(r2.contents()["outputs/workspace/saves/00000001.json"])
    (entry,) = evil["files"].values()
    evil["files"] = {"user/../../escaped": entry}
    evil["number"] = 2
    r2.lay("outputs/workspace/saves/00000002.json", json.dumps(evil).encode())
    r2.lay("outputs/workspace/saves/notanumber.json", b"{}")
    done = second.run("restore", "--from", "2", code=1)
    assert "user/../../escaped" in done.stderr
    second.run("restore")  # The newest that is whole.
    assert list(second.files()) == ["user/a.json"]
    assert not (second.volume / "escaped").exists()
    first.write(user__b_json="b")
    assert first.json("save")["number"] == 3
    assert "which no save" in first.run("list").stdout


def test_other_content_in_the_bucket_is_noticed(r2: R2, tmp_path: Path) -> None:
    first, second = VolumeOfPod(tmp_path, r2, "one"), VolumeOfPod(tmp_path, r2, "two")
    first.write(user__a_json="a", user__b_json="b")
    first.run("save")
    key = next(key for key, content in r2.contents().items() if content == b"a")
    r2.lay(key, b"x")
    done = second.run("restore", code=3)
    assert "does not match its name" in done.stderr
    assert second.files() == {"user/b.json": b"b"}


def test_links_are_left_out_and_what_was_saved_of_them_stays(r2: R2, tmp_path: Path) -> None:
    pod = VolumeOfPod(tmp_path, r2, "one")
    pod.write(user__a_json="a", input__b_png="b")
    pod.run("save")
    (tmp_path / "secret").write_text("secret")
    (pod.comfyui / "user/link").symlink_to(tmp_path / "secret")
    (pod.comfyui / "input").rename(pod.comfyui / "elsewhere")
    (pod.comfyui / "input").symlink_to(tmp_path)
    done = pod.run("save", code=3)
    assert "user/link: it is a link, and links are not followed" in done.stderr
    assert "nothing has changed since save 1" in done.stdout
    assert b"secret" not in r2.contents().values()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the pod can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="volumes-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_added_nodes_and_packages_are_listed_without_logins(r2: R2, open_folder: Path) -> None:
    first, second = VolumeOfPod(open_folder, r2, "one"), VolumeOfPod(open_folder, r2, "two")
    node = first.comfyui / "custom_nodes/A-Node"
    subprocess.run(["git", "init", "-q", "-b", "main", str(node)], check=True)
    config = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    subprocess.run(["git", "-C", str(node), *config, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run(
        ["git", "-C", str(node), "remote", "add", "origin", "https://me:hunter2@git.example.com/A-Node.git"], check=True
    )
    commit = subprocess.run(
        ["git", "-C", str(node), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (first.comfyui / "custom_nodes/by_hand").mkdir()
    (first.comfyui / "custom_nodes/by_hand/pyproject.toml").write_text('[project]\nversion = "1.2"\n')
    site = first.volume / ".hearmeman/comfyui/overlays/key-cp311/lib/python3.11/site-packages"
    (site / "color_matcher-0.5.0.dist-info").mkdir(parents=True)
    (site / "opencv_python-4.0.dist-info").mkdir()
    first.write(user__a_json="a")
    first.run("save")
    content = r2.contents()["outputs/workspace/saves/00000001.json"]
    assert b"hunter2" not in content
    listed = json.loads(content)
    assert listed["nodes"] == {
        "A-Node": {"url": "https://git.example.com/A-Node.git", "commit": commit, "version": ""},
        "by_hand": {"url": "", "commit": "", "version": "1.2"},
    }
    assert listed["packages"] == {"color-matcher": "0.5.0"}
    assert "run `hearmeman workspace restore` first" in second.run("install", command="nodes", code=1).stderr
    second.run("restore")
    second.comfyui.chmod(0o755)
    shown = second.run("install", "--dry-run", command="nodes").stdout
    assert f"A-Node from https://git.example.com/A-Node.git at {commit[:10]}" in shown
    assert "by_hand 1.2: to be installed by hand" in shown


def test_old_files_are_pruned_only_when_no_save_names_them(r2: R2, tmp_path: Path) -> None:
    pod = VolumeOfPod(tmp_path, r2, "one")
    pod.write(user__a_json="a", user__b_json="b")
    pod.run("save")
    loose = f"outputs/workspace/files/{'0' * 64}"
    young = f"outputs/workspace/files/{'1' * 64}"
    r2.lay(loose, b"old")
    r2.lay(young, b"young")
    for key, found in r2.objects.items():
        found.at -= 0 if key == young else 2 * 86400
    before = set(r2.objects)
    assert "1 file, 3 B" in pod.run("prune").stdout
    assert set(r2.objects) == before
    pod.run("prune", "--yes")
    assert set(r2.objects) == before - {loose}


def test_the_limit_of_uploads_holds_for_the_workspace(r2: R2, tmp_path: Path) -> None:
    pod = VolumeOfPod(tmp_path, r2, "one")
    for name in "ab":
        pod.put(f"input/{name}.mp4", os.urandom(2 * MIB))
    began = time.monotonic()
    save(Space.of(load({**pod.environ, "SYNC_BANDWIDTH": "1.5"})), settle=0.0)
    assert time.monotonic() - began > 2


def test_a_token_that_may_not_list_is_told_so(r2: R2, tmp_path: Path) -> None:
    r2.may_read = False
    pod = VolumeOfPod(tmp_path, r2, "one")
    pod.write(user__a_json="a")
    done = pod.run("save", code=1)
    assert "object read and write" in done.stderr
    assert done.stderr.count("\n") == 1
