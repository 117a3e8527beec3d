"""Packages on the volume: installed by the real pip over the image's, held where nodes need it, left out when ComfyUI fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hearmeman.overlay import venv
from support.repository import ROOT
from support.toywheel import make_wheel

MAIN = """
import importlib.util, json, sys
try:
    import toy
    version = toy.VERSION
except ImportError:
    version = ""
if "--quick-test-for-ci" in sys.argv and version == "broken":
    sys.exit("toy breaks ComfyUI")
import shutil
pip = shutil.which("pip")
print(json.dumps({"python": sys.executable, "pip": pip, "toy": version, "arguments": sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image's environment with pip, numpy 1.0 and one cv2."""
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    for name in ("numpy", "opencv_contrib_python_headless"):
        wheel = make_wheel(folder, name, {f"{name}.py": "VERSION = '1.0'\n"})
        command = [str(folder / "env/bin/python"), "-m", "pip", "install", "-q", "--no-index", str(wheel)]
        subprocess.run(command, check=True)
    return folder / "env"


class Pod:
    """An image, a volume, and a ComfyUI that imports `toy`."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder = folder
        self.volume = folder / "volume"
        self.main = folder / "main.py"
        self.main.write_text(MAIN)
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        self.python = environment / "bin/python"
        self.site = environment / f"lib/python3.{sys.version_info.minor}/site-packages"
        self.image("one")

    def image(self, key: str) -> None:
        """Write image.json with another set of packages' name."""
        facts = {
            "tier": "smoke",
            "comfyui_rev": "x",
            "comfyui_python": str(self.python),
            "comfyui_main": str(self.main),
        }
        facts |= {"cuda_floor": "12.8", "environment_key": key}
        (self.folder / "image.json").write_text(json.dumps(facts))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `hearmeman overlay …`."""
        command = [
            sys.executable,
            "-m",
            "hearmeman",
            "overlay",
            "--image-file",
            str(self.folder / "image.json"),
            *words,
        ]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "VOLUME_DIR": str(self.volume)}
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    def start(self) -> tuple[dict[str, object], str]:
        """Start ComfyUI; what it found, and the log."""
        done = self.run("exec", "--", str(self.python), str(self.main), "--cpu")
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found, done.stderr

    @property
    def overlay(self) -> venv.Overlay:
        """The overlay of the present image."""
        key = json.loads((self.folder / "image.json").read_text())["environment_key"]
        return venv.Overlay(self.volume / ".hearmeman/comfyui/overlays" / venv.folder_name(key), self.python)

    def pip(self, python: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run pip as ComfyUI-Manager does: by its own interpreter, under the constraints of ComfyUI's environment."""
        command = [str(python), "-m", "pip", "install", "--no-index", "--find-links", str(self.wheels), *words]
        env = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull}
        if python == self.overlay.python:
            env["PIP_CONSTRAINT"] = str(self.overlay.constraints)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    def toy(self, version: str) -> Path:
        """A wheel of the package that ComfyUI imports."""
        return make_wheel(self.wheels, "toy", {"toy.py": f"VERSION = {version!r}\n"})


@pytest.fixture
def pod(tmp_path: Path, environment: Path) -> Pod:
    return Pod(tmp_path, environment)


def test_what_is_installed_lands_on_the_volume_and_is_seen(pod: Pod) -> None:
    found, _ = pod.start()
    assert (found["python"], found["toy"], found["arguments"]) == (str(pod.overlay.python), "", ["--cpu"])
    said = subprocess.run([str(found["pip"]), "--version"], capture_output=True, text=True, check=True).stdout
    assert str(pod.site) in said, "the image's pip"
    where = subprocess.run([str(found["pip"]), "config", "debug"], capture_output=True, text=True, check=False)
    assert str(pod.overlay.root) in where.stdout, "run by the overlay's Python"
    done = pod.pip(pod.overlay.python, str(pod.toy("good")))
    assert done.returncode == 0, done.stderr

    assert (pod.overlay.site / "toy.py").is_file()
    assert not (pod.site / "toy.py").exists()
    found, said = pod.start()
    assert found["toy"] == "good"
    assert "overlay.tried works=true" in said
    assert "overlay.tried" not in pod.start()[1], "it is tried once for each change"


def test_the_images_packages_are_there_for_pip_and_are_held(pod: Pod) -> None:
    pod.start()
    assert "numpy==1.0" in pod.overlay.constraints.read_text()
    assert "already satisfied: numpy" in pod.pip(pod.overlay.python, "numpy").stdout
    newer = pod.pip(pod.overlay.python, "numpy>=2")
    assert newer.returncode != 0
    assert "constraint" in newer.stdout + newer.stderr


@pytest.mark.parametrize("name", venv.CV2_NAMES)
def test_another_cv2_counts_as_installed(pod: Pod, name: str) -> None:
    pod.start()
    done = pod.pip(pod.overlay.python, name)
    assert done.returncode == 0, done.stderr
    assert f"already satisfied: {name}" in done.stdout
    assert venv.installed([pod.overlay.site]) == {}


def test_comfyui_starts_without_an_overlay_that_breaks_it(pod: Pod) -> None:
    pod.start()
    pod.pip(pod.overlay.python, str(pod.toy("broken")))
    found, said = pod.start()
    assert (found["python"], found["toy"]) == (str(pod.python), "")
    assert 'overlay.left_out why="toy breaks ComfyUI"' in said
    assert "toy==1.0" in pod.run("list").stdout
    assert "does not start with them" in pod.run("list").stdout

    assert pod.run("reset").returncode == 0
    assert pod.start()[0]["python"] == str(pod.overlay.python)
    [aside] = pod.overlay.root.parent.glob("set-aside-*")
    assert (aside / venv._SITE / "toy.py").is_file(), "nothing is lost"


def test_a_new_image_says_what_must_be_installed_again_and_does_it(pod: Pod) -> None:
    pod.start()
    other = make_wheel(pod.wheels, "other", {"other.py": ""})
    pod.pip(pod.overlay.python, str(pod.toy("good")), str(other))
    pod.image("two")
    found, said = pod.start()
    assert found["toy"] == ""
    assert "overlay.left_behind packages=other==1.0, toy==1.0" in said.replace('"', "")
    [words] = re.findall(r"run `hearmeman overlay (\w+)` to install them again", said)

    # One that is nowhere to be had keeps no other back.
    other.rename(pod.folder / other.name)
    done = pod.run(words)
    assert done.returncode == 3 and "pip could not install other; what it printed above says why" in done.stderr
    assert "No matching distribution found for other" in done.stderr
    assert pod.start()[0]["toy"] == "good"

    (pod.folder / other.name).rename(other)
    done = pod.run(words)
    assert done.returncode == 0, done.stderr
    assert "left_behind" not in pod.start()[1]


def test_a_volume_that_cannot_be_written_is_no_obstacle(pod: Pod) -> None:
    pod.volume.write_text("not a folder")
    found, said = pod.start()
    assert found["python"] == str(pod.python)
    assert "overlay.unusable" in said


def test_a_stray_pythonpath_does_not_reach_comfyui(pod: Pod) -> None:
    stray = pod.folder / "stray"
    stray.mkdir()
    (stray / "toy.py").write_text("VERSION = 'stray'\n")
    program = f"import os; os.environ['PYTHONPATH'] += ':{stray}'; from hearmeman.cli import main; import sys; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "overlay", "--image-file", str(pod.folder / "image.json"), "exec", "--"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "VOLUME_DIR": str(pod.volume)}
    done = subprocess.run(
        [*command, str(pod.python), str(pod.main)], env=env, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["toy"] == ""
    assert "variable.dropped name=PYTHONPATH" in done.stderr


def test_the_overlay_sees_the_base_below_its_environment(tmp_path: Path) -> None:
    site = tmp_path / "env" / venv._SITE
    site.mkdir(parents=True)
    (site / "_base.pth").write_text("import site; site.addsitedir('/opt/env/base/lib/python3.11/site-packages')\n")
    assert venv.image_sites(tmp_path / "env/bin/python") == [site, Path("/opt/env/base/lib/python3.11/site-packages")]
