"""Boot's parts alone: users, shells, logs, host keys, the verdict on a stop, the image's facts, the update of nodes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman import cli, settings
from hearmeman import image as boot_image
from hearmeman.boot import execute, output, owners, plan
from hearmeman.boot import sshd as ssh_command
from hearmeman.boot.environments import guarded
from hearmeman.boot.shell import shell_file
from hearmeman.boot.supervise import verdict
from hearmeman.image import ImageError, read_image
from hearmeman.users import COMFYUI, DOOR, FETCH, JUPYTER, ROOT, SYNC, USERS, why_not_separate, wrapped
from hearmeman_build.plugins import fixups
from support.planning import IMAGE, KEY, TUNING, machine, planned
from support.waiting import PATIENCE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "is not a JSON object"),
        ('{"tier": "smoke"}', "lacks or has wrong comfyui_rev"),
    ],
)
def test_an_image_file_that_cannot_be_used_is_good_again_once_the_image_is_built_anew(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "image.json"
    path.write_text(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value) and "build or pull it again" in str(caught.value)
    path.write_text(json.dumps(dataclasses.asdict(IMAGE)))
    assert read_image(path).tier == IMAGE.tier


def test_outside_the_image_another_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, there = tmp_path / "missing.json", tmp_path / "image.json"
    there.write_text(json.dumps(dataclasses.asdict(IMAGE)))
    environ = {"VOLUME_DIR": str(tmp_path)}
    assert cli.main(["overlay", "--image-file", str(missing), "list"], environ) == 1
    [option] = re.findall(r"run this in the image, or name another file with (\S+)", capsys.readouterr().err)
    assert cli.main(["overlay", option, str(there), "list"], environ) == 0


def test_a_tier_that_is_new_in_nix_needs_no_change_here(tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text(json.dumps({**dataclasses.asdict(IMAGE), "tier": "giant"}))
    assert read_image(tmp_path / "image.json").tier == "giant"


ALL_CAPS = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"


DOCKER_CAPS = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n"


WHOLE_MAP = "         0          0 4294967295\n"


def test_the_image_knows_our_users() -> None:
    assert {user.name: user.uid for user in USERS} == fixups.USERS


@pytest.mark.parametrize(
    ("status", "uid_map", "setpriv", "why"),
    [
        (ALL_CAPS, WHOLE_MAP, True, ""),
        (DOCKER_CAPS, WHOLE_MAP, True, ""),
        (ALL_CAPS, "0 1000 1\n", True, "too few users"),
        (ALL_CAPS, "0 100000 65536\n", True, ""),
        ("Uid:\t1000\t1000\nCapEff:\t0\n", WHOLE_MAP, True, "does not run as root"),
        ("Uid:\t0\t0\nCapEff:\t0000000000000000\n", WHOLE_MAP, True, "lacks the capabilities chown"),
        (ALL_CAPS, "0 1000 1\n1 100000 992\n", True, "too few users"),
        (ALL_CAPS, WHOLE_MAP, False, "setpriv is not installed"),
        ("", "", True, "does not run as root"),
    ],
)
def test_whether_processes_can_have_users_of_their_own(status: str, uid_map: str, setpriv: bool, why: str) -> None:
    for found in (why_not_separate(status, uid_map, setpriv), why_not_separate(status, WHOLE_MAP, setpriv, uid_map)):
        assert (why in found) if why else found == ""


def test_comfyui_keeps_no_capability_and_shares_its_group_only_with_what_works_for_it() -> None:
    assert wrapped(["x"], ROOT) == ("x",)
    theirs = " ".join(wrapped(["x"], COMFYUI))
    assert "--reuid 993 --regid 993 --clear-groups" in theirs
    assert "--bounding-set -all --no-new-privs --pdeathsig KILL x" in theirs
    for user in USERS:
        assert user.uid != 0 and user.gid != 0 and 0 not in user.groups
        assert not {"dac_override", "setuid", "chown"} & set(user.keeps) or user in (SYNC, JUPYTER)
    assert {user.name for user in USERS if COMFYUI.gid in (user.gid, *user.groups)} == {
        user.name for user in (COMFYUI, FETCH, JUPYTER, SYNC)
    }
    assert "--groups 993 " in " ".join(wrapped(["x"], SYNC))
    assert "--clear-groups" in wrapped(["x"], DOOR)


def test_what_comfyui_can_write_is_not_given_to_others() -> None:
    environ = {
        "PATH": "/opt/bin:/volume/bin:relative::/usr/bin",
        "PYTHONPATH": "/lib:/volume/python",
        "AWS_CONFIG_FILE": "/volume/aws",
        "GIT_CONFIG_PARAMETERS": "'core.hooksPath=/volume/x'",
        "VOLUME_DIR": "/volume",
        "COMFYUI_ARGS": "--input-directory /volume/in",
        "LD_LIBRARY_PATH": "/volumes/lib",
        "OTHER": "a /volume",
    }
    kept, left_out = guarded(environ, ["/volume"])
    assert kept == {name: environ[name] for name in ("VOLUME_DIR", "COMFYUI_ARGS", "LD_LIBRARY_PATH")} | {
        "PATH": "/opt/bin:/usr/bin"
    }
    assert left_out == ("AWS_CONFIG_FILE", "GIT_CONFIG_PARAMETERS", "OTHER", "PYTHONPATH")


def test_without_users_of_their_own_all_run_as_they_are_and_boot_says_so() -> None:
    made = plan.make_plan(settings.load({}), machine(not_separate="it is so"), IMAGE, TUNING, {}, "/r", "python")
    assert {process.user for process in made.processes} == {ROOT}
    assert any("could read the pod's secrets" in warning for warning in made.warnings)


def test_a_person_s_command_has_the_environment_of_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").mkdir()
    held = {"R2_ACCESS_KEY_ID": "held", "PATH": "/x", "R2_BUCKET": "b"}
    (tmp_path / "env" / "sync.json").write_text(json.dumps(held))
    monkeypatch.setattr(boot_image, "RUN_DIR", tmp_path)
    assert cli._environ("upload", {"A": "1"}) == {"A": "1", **held}
    assert cli._environ("upload", {"R2_ACCESS_KEY_ID": "own"}) == {**held, "R2_ACCESS_KEY_ID": "own"}
    assert cli._environ("status", {"A": "1"}) == {"A": "1"}
    assert cli._environ("models", {"A": "1"}) == {"A": "1"}


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), st.text(min_size=1), max_size=4))
def test_a_shell_reads_back_what_was_written(environ: dict[str, str]) -> None:
    clean = {f"X{name}": value.replace("\x00", "").replace("\r", "") for name, value in environ.items()}
    clean = {name: value for name, value in clean.items() if value.isprintable() or "\n" in value}
    text = shell_file(clean, ["SECRET", "not a name"])
    script = text + 'printf "%s" "$SECRET"; for n in "$@"; do printf "%s\\0" "${!n}"; done'
    command = ["bash", "--norc", "-c", script, "bash", *clean]
    done = subprocess.run(command, env={"SECRET": "s", "LC_ALL": "C.UTF-8"}, capture_output=True, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\x00")[:-1] == [
        value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for value in clean.values()
    ]


def test_a_stop_ends_with_3_only_when_outputs_may_be_left() -> None:
    clean = {"name": "comfyui", "exit": -15, "killed": False}
    assert verdict([clean, {"name": "sync", "exit": 0}]) == (0, [])
    code, said = verdict([{**clean, "killed": True}, {"name": "sync", "exit": 0}])
    assert (code, said) == (0, ["comfyui did not stop in time and was killed"])
    code, said = verdict([clean, {"name": "sync", "exit": 3}])
    assert code == 3
    assert said[0].startswith("sync ended with 3: outputs may be left")
    code, said = verdict([clean, {"name": "sync", "exit": None, "killed": True}])
    assert code == 3
    assert "outputs may be left" in said[0]


def test_logs_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOG_BYTES", 100)
    written = output.Output("p", tmp_path / "p.log")
    for number in range(60):
        written.write(f"line {number:02}".encode())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["p.log", "p.log.1", "p.log.2", "p.log.3"]
    assert "line 59" in (tmp_path / "p.log").read_text()
    assert all(path.stat().st_size <= 108 for path in tmp_path.iterdir())
    text = "".join((tmp_path / name).read_text() for name in reversed(names))
    kept = [int(line.split()[2]) for line in text.splitlines()]
    assert kept == list(range(kept[0], 60)), "nothing is lost between the files"


def test_every_line_of_a_log_has_one_time(tmp_path: Path) -> None:
    written = output.Output("p", tmp_path / "p.log", clock=lambda: 1764104400.25)
    written.feed(b"plain\n2025-11-25T20:59:59Z ours key=value\n")
    assert (tmp_path / "p.log").read_text().splitlines() == [
        "2025-11-25T21:00:00.250Z plain",
        "2025-11-25T20:59:59Z ours key=value",
    ]


def test_what_is_redrawn_is_known_while_it_is(tmp_path: Path) -> None:
    written = output.Output("p", tmp_path / "p.log")
    written.feed(b"\r 10%|#  | 2/20 [00:01<00:09]\r 15%|## | 3/20 [00:02<00:08]")
    assert written.drawn == "15%|## | 3/20 [00:02<00:08]"
    written.feed(b"\r100%|###| 20/20 [00:10<00:00]\n")
    assert written.drawn == ""


def test_a_host_key_is_made_once(tmp_path: Path) -> None:
    key = ssh_command.host_key(tmp_path / "ssh")
    content = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert ssh_command.host_key(tmp_path / "ssh").read_bytes() == content
    if os.geteuid() == 0:
        # An older pod gave it to the door's user.
        os.chown(key, DOOR.uid, 0)
        ssh_command.host_key(tmp_path / "ssh")
        assert key.stat().st_uid == 0
    (tmp_path / "file").write_text("")
    # The advice followed: STATE_DIR is where the key is looked for, and without PUBLIC_KEY nobody looks.
    with pytest.raises(ssh_command.SshError, match="cannot be created: .*: set STATE_DIR to .*, or unset PUBLIC_KEY"):
        ssh_command.host_key(_keys_of(PUBLIC_KEY=KEY, STATE_DIR=str(tmp_path / "file"))[0])
    [folder] = _keys_of(PUBLIC_KEY=KEY, STATE_DIR=str(tmp_path / "state"))
    assert ssh_command.host_key(folder).is_relative_to(tmp_path / "state")
    assert _keys_of(STATE_DIR=str(tmp_path / "file")) == []


def _keys_of(**environ: str) -> list[Path]:
    """The folders of host keys in a pod with these variables."""
    started = [process.argv for process in planned(environ).processes if process.name == "sshd"]
    return [Path(argv[argv.index("--keys-dir") + 1]) for argv in started]


FULL = """
import sys
import tempfile
from pathlib import Path
from hearmeman.boot import execute, sshd
from hearmeman.errors import HearmemanError
place, filler = Path(sys.argv[1]), Path(sys.argv[1]) / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
steps = lambda: sshd.host_key(place), lambda: execute.write_state(place / "boot.json", {})
for step in steps:
    try:
        step()
    except HearmemanError as error:
        print(error)
filler.unlink()
for step in steps:
    step()
"""


def test_on_a_full_disk_the_start_asks_for_space_and_goes_on_with_it(tmp_path: Path) -> None:
    command = ["bwrap", "--dev-bind", "/", "/", "--size", "32768", "--tmpfs", str(tmp_path), "--", sys.executable]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run([*command, "-c", FULL, str(tmp_path)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [
        re.findall("No space left on device: .*free some space", line) != [] for line in done.stdout.splitlines()
    ] == [
        True,
        True,
    ], done.stdout


def test_folders_are_given_to_comfyui_by_root_and_only_where_it_has_a_user(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "models/loras").mkdir(parents=True)
        words = ["owners", "--run-dir", name, f"{folder}/models"]
        assert cli.main(words, {}) == 1
        assert "no pod runs here whose processes have users of their own" in capsys.readouterr().err
        (folder / "comfyui.json").write_text(json.dumps({"separate": True}))
        with owners.acting_as_comfyui():
            assert cli.main(words, {}) == 1
        assert "run this as root of the pod" in capsys.readouterr().err
        assert cli.main(words, {}) == 0
        assert (folder / "models/loras").stat().st_uid == COMFYUI.uid


def test_a_host_key_of_another_owner_serves_where_root_may_not_take_it_back(tmp_path: Path) -> None:
    key = ssh_command.host_key(tmp_path / "ssh")
    if os.geteuid() == 0:
        os.chown(key, DOOR.uid, 0)
    script = (
        f"from pathlib import Path; from hearmeman.boot.sshd import host_key; host_key(Path({str(tmp_path / 'ssh')!r}))"
    )
    without = ["setpriv", "--bounding-set", "-chown", "--inh-caps", "-chown"] if os.geteuid() == 0 else []
    command = [*without, sys.executable, "-c", script]
    env = {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "wrong", [{"services": {"xtts": "run"}}, {"services": {"xtts": []}}, {"silent_nodes": "a"}, {"jupyter_python": 1}]
)
def test_an_image_s_wrong_table_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    facts = {"tier": "smoke", "comfyui_rev": "r", "comfyui_python": "p", "comfyui_main": "m", "cuda_floor": "12.8"}
    path = tmp_path / "image.json"
    path.write_text(json.dumps({**facts, **wrong}))
    with pytest.raises(ImageError, match=next(iter(wrong))):
        read_image(path)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_nodes_on_the_volume_are_pulled_and_failures_leave_them_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream, nodes = tmp_path / "upstream", tmp_path / "volume/ComfyUI/custom_nodes"
    upstream.mkdir()
    nodes.mkdir(parents=True)
    git(upstream, "init", "-q", "-b", "main")
    git(upstream, "commit", "-q", "--allow-empty", "-m", "one")
    for name in ("behind", "changed", "gone"):
        git(tmp_path, "clone", "-q", str(upstream), str(nodes / name))
    (nodes / "plain").mkdir()
    (nodes / "changed" / "mine").write_text("x")
    git(nodes / "changed", "add", "mine")
    git(nodes / "changed", "commit", "-q", "-m", "mine")
    mine = git(nodes / "changed", "rev-parse", "HEAD")
    git(nodes / "gone", "remote", "set-url", "origin", str(tmp_path / "nowhere"))
    git(upstream, "commit", "-q", "--allow-empty", "-m", "two")
    environ = {"VOLUME_DIR": str(tmp_path / "volume"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert cli.main(["nodes", "update"], environ) == 3
    said = capsys.readouterr().err
    assert "node.updated name=behind" in said
    assert "node.failed name=gone" in said
    assert "node.failed name=changed" in said
    assert "2 of 3 custom nodes were not updated: changed, gone" in said
    assert git(nodes / "behind", "rev-parse", "HEAD") == git(upstream, "rev-parse", "HEAD")
    assert git(nodes / "changed", "rev-parse", "HEAD") == mine


def test_a_configuration_of_comfyui_manager_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "user/__manager/config.ini"
    execute._configure_manager(str(file), "[default]\n")
    assert file.read_text() == "[default]\n"
    assert "manager.configured" in capsys.readouterr().err
    file.write_text("a person's")
    execute._configure_manager(str(file), "[default]\n")
    assert file.read_text() == "a person's"
    assert capsys.readouterr().err == ""
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    execute._configure_manager(str(file), "[default]\n")
    assert not (tmp_path / "elsewhere").exists()
