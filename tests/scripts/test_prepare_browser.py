"""scripts/prepare-browser, with an apt-get and an npm that only say what they were asked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.environment import PROJECT

PROVIDER = Path("tests") / "end_to_end" / "openid_provider"
TOOLS = ("sh", "cat", "cmp", "cp", "dirname", "env", "mktemp", "mkdir", "rm", "touch")
ALL_THERE = ("chromium", "chromedriver", "node")


class Machine:
    """A copy of the project's script, and a PATH with nothing on it but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin, self.asked = folder / "project", folder / "bin", folder / "asked"
        for made in (self.project / "scripts", self.project / PROVIDER, self.project / ".venv" / "bin", self.bin):
            made.mkdir(parents=True)
        shutil.copy(PROJECT / "scripts" / "prepare-browser", self.project / "scripts")
        (self.project / PROVIDER / "package-lock.json").write_text("{}")
        (self.project / ".venv" / "bin" / "python").symlink_to(sys.executable)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or "")

    def add(self, name: str, script: str = ":") -> None:
        """A program that notes how it was called, then does what the script says."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.asked}"\n{script}\n')
        path.chmod(0o755)

    def prepare(self) -> tuple[list[str], str]:
        """What was asked, and what was said."""
        self.asked.write_text("")
        environment = {"PATH": str(self.bin), "TMPDIR": str(self.bin.parent)}
        argv = [str(self.bin / "sh"), str(self.project / "scripts" / "prepare-browser")]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603 - our own script
        return self.asked.read_text().splitlines(), done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_whoever_may_not_install_is_told_what_to_and_nothing_fails(machine: Machine) -> None:
    machine.add("apt-get")
    machine.add("id", "echo 1000")
    asked, said = machine.prepare()
    assert "install: chromium chromium-driver nodejs npm (see" in said
    assert [line for line in asked if line.startswith("apt-get")] == []


def test_root_installs_what_is_missing_and_asks_for_new_lists_only_if_that_fails(machine: Machine) -> None:
    machine.add("id", "echo 0")
    machine.add("node")
    machine.add("npm", "mkdir -p node_modules")
    lists = machine.bin.parent / "lists"
    installed = "; ".join(f"cp '{machine.bin}/node' '{machine.bin}/{name}'" for name in ALL_THERE[:2])
    apt = f'case "$*" in *update*) touch {lists} ;; *) [ -e {lists} ] || exit 100; {installed} ;; esac'
    machine.add("apt-get", apt)
    asked, said = machine.prepare()
    words = [line.split() for line in asked if line.startswith("apt-get")]
    assert ["install" in line for line in words] == [True, False, True]
    assert words[-1][-2:] == ["chromium", "chromium-driver"]
    assert "to try the sign-in" not in said


def test_what_is_complete_is_left_alone(machine: Machine) -> None:
    for name in ALL_THERE:
        machine.add(name)
    machine.add("npm", "mkdir -p node_modules")
    asked, _ = machine.prepare()
    assert [line.split()[:2] for line in asked] == [["npm", "ci"]]
    assert machine.prepare() == ([], "")
    (machine.project / PROVIDER / "package-lock.json").write_text('{"other": 1}')
    asked, _ = machine.prepare()
    assert len(asked) == 1


def test_a_registry_that_does_not_answer_is_told_and_tried_again(machine: Machine) -> None:
    for name in ALL_THERE:
        machine.add(name)
    machine.add("npm", "exit 1")
    for _ in range(2):
        asked, said = machine.prepare()
        assert len(asked) == 1
        assert "could not install the OpenID provider" in said
    assert not list(machine.bin.parent.glob("cloche-npm*"))


def test_the_lock_holds_versions_and_hashes_and_no_registry() -> None:
    lock = json.loads((PROJECT / PROVIDER / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert [package for package in packages if "resolved" in package] == []
    wanted = json.loads((PROJECT / PROVIDER / "package.json").read_text())["dependencies"]
    assert wanted == {"oidc-provider": lock["packages"]["node_modules/oidc-provider"]["version"]}


def test_the_scripts_may_be_run() -> None:
    assert all(os.access(PROJECT / "scripts" / name, os.X_OK) for name in ("run", "test", "prepare", "prepare-browser"))
