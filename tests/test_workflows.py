"""Continuous integration's files say nothing that does not run here: steps are scripts of this checkout, and no more is
allowed than is needed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in FILES}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"].values()]
STEPS = [(name, step) for name, job in JOBS for step in job.get("steps", [])]
TRIGGERS = {"push", "pull_request", "workflow_call"}
PINNED = re.compile(r"[\w-]+/[\w-]+@(v\d+|release/v\d+|[0-9a-f]{40})")


def test_there_are_workflows_for_changes_documentation_wheels_and_releases() -> None:
    assert set(WORKFLOWS) == {"ci.yml", "docs.yml", "wheels.yml", "release.yml"}
    for workflow in WORKFLOWS.values():
        assert set(workflow[True]) <= TRIGGERS  # `on` is true in YAML; nothing runs with rights over others' code


@pytest.mark.parametrize(("name", "step"), [found for found in STEPS if "run" in found[1]])
def test_every_step_is_a_script_of_this_checkout(name: str, step: dict[str, Any]) -> None:
    script, *arguments = step["run"].split()
    path = ROOT / script
    assert path.parent == ROOT / "scripts" and os.access(path, os.X_OK), f"{name}: {step['run']}"
    for argument in arguments:  # what others wrote, such as a title, never becomes shell
        assert argument in ("${{", "}}", "matrix.kind", '"$GITHUB_REF_NAME"')


@pytest.mark.parametrize(("name", "step"), [found for found in STEPS if "uses" in found[1]])
def test_actions_are_pinned(name: str, step: dict[str, Any]) -> None:
    assert PINNED.fullmatch(step["uses"]), f"{name}: {step['uses']}"


def test_no_more_is_allowed_than_is_needed() -> None:
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
    granted = {(name, *job["permissions"].items()) for name, job in JOBS if "permissions" in job}
    assert granted == {
        ("release.yml", ("id-token", "write")),
        ("docs.yml", ("pages", "write"), ("id-token", "write")),
    }
    assert "secrets" not in "".join(path.read_text("utf-8") for path in FILES)


def test_a_release_waits_for_all_tests() -> None:
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    called = {Path(job["uses"]).name for job in jobs.values() if "uses" in job}
    assert called == {"ci.yml", "wheels.yml"}
    assert all("workflow_call" in WORKFLOWS[name][True] for name in called)


def test_every_job_ends_and_needs_what_there_is() -> None:
    for name, job in JOBS:
        assert "uses" in job or 0 < job["timeout-minutes"] <= 60
        wanted = job.get("needs", [])
        assert set([wanted] if isinstance(wanted, str) else wanted) <= set(WORKFLOWS[name]["jobs"])


def test_a_tag_must_say_the_version_that_the_changelog_describes(tmp_path: Path) -> None:
    for name in ("scripts/release_check", "src/paraformer/__init__.py", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    dist, command = tmp_path / "dist", ["bash", str(tmp_path / "scripts" / "release_check")]
    dist.mkdir()

    def refusal(tag: str) -> str:
        return subprocess.run([*command, tag], capture_output=True, text=True, check=False).stderr

    (tmp_path / "src/paraformer/__init__.py").write_text('__version__ = "1.2.3"\n')
    assert "the tag is v1.2.4" in refusal("v1.2.4")
    assert "no heading ## [1.2.3]" in refusal("v1.2.3")
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.3] - today\n")
    assert "lacks the source" in refusal("v1.2.3")
    for name in ("paraformer-1.2.3.tar.gz", "paraformer-1.2.3-py3-none-win_amd64.whl"):
        (dist / name).touch()
    assert refusal("v1.2.3") == ""
    (dist / "paraformer-1.2.2-py3-none-win_amd64.whl").touch()
    assert "is no part of 1.2.3" in refusal("v1.2.3")
