"""What is shipped for operators is what the server understands: container, compose file, board and chart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from paraformer.cli.options import parser

HERE = Path(__file__).parent
DEPLOY = HERE.parent / "deploy"
TOOLS = Path(os.environ.get("PARAFORMER_CLIENTS", HERE.parent / ".venv-peers" / "clients")) / "deploy" / "bin"
CHART = DEPLOY / "helm" / "paraformer"


def rendered(template: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """A template of the chart with its values, as far as it uses the language: names, if, add, toYaml, quote."""

    def lookup(path: str) -> Any:
        value: Any = {"Values": values, "Release": {"Name": "demo"}}
        for name in path.strip(".").split("."):
            value = value[name]
        return value

    def put(match: re.Match[str]) -> str:
        words = match[1].strip(" -").split()
        if words[0] == "add":
            return str(lookup(words[1]) + int(words[2]))
        if words[0] == "toYaml":
            pad = " " * int(words[-1])
            return "\n" + "\n".join(pad + line for line in yaml.safe_dump(lookup(words[1])).splitlines())
        value = lookup(words[0])
        return json.dumps(value) if "quote" in words else str(value)

    text = (CHART / "templates" / template).read_text()

    def chosen(match: re.Match[str]) -> str:
        negated, path, body = match.groups()
        return body if bool(lookup(path)) != bool(negated) else ""

    text = re.sub(r" *\{\{- if (not )?(\S+) \}\}\n(.*?) *\{\{- end \}\}\n", chosen, text, flags=re.DOTALL)
    return [one for one in yaml.safe_load_all(re.sub(r"\{\{(.*?)\}\}", put, text)) if one]


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def test_the_chart_renders_to_what_kubernetes_knows(values: dict[str, Any]) -> None:
    (deployment,) = rendered("deployment.yaml", values)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["terminationGracePeriodSeconds"] == values["server"]["drainSeconds"] + 15
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"] == values["resources"]
    assert {one["mountPath"] for one in container["volumeMounts"]} == {"/tmp", "/run/keys"}
    assert "replicas" not in deployment["spec"]
    parsed = parser().parse_args(["serve", *container["args"]])
    assert (parsed.workers, parsed.host, str(parsed.keys)) == (1, "0.0.0.0", "/run/keys/keys")
    labels = deployment["spec"]["selector"]["matchLabels"]
    service, budget = rendered("service.yaml", values)
    assert service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    (autoscaler,) = rendered("autoscaler.yaml", values)
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_without_autoscaling_the_chart_has_its_replicas(values: dict[str, Any]) -> None:
    values["autoscaling"]["enabled"] = False
    assert rendered("deployment.yaml", values)[0]["spec"]["replicas"] == values["replicas"]
    assert rendered("autoscaler.yaml", values) == []


@pytest.mark.peers
def test_helm_and_kubernetes_know_the_chart(values: dict[str, Any]) -> None:
    """Rendered by Helm, with values and names of all kinds; values that it could not serve with are refused."""
    if not (TOOLS / "python").exists():
        pytest.skip("Helm is not installed; scripts/peers installs it")
    command = [TOOLS / "python", HERE / "peer_chart.py", CHART]
    done = subprocess.run(command, capture_output=True, timeout=200, check=False, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    told = json.loads(done.stdout.decode().splitlines()[-1])
    assert told["found"] == told["accepted"] == []
    assert told["valid"] == 2 * 3 * 2 * 3 * 3 + 3 * 2 * 3
    ours = [one for name in ("deployment", "service", "autoscaler") for one in rendered(f"{name}.yaml", values)]
    assert sorted(told["demo"], key=str) == sorted(ours, key=str)


@pytest.mark.peers
def test_hadolint_has_nothing_to_say() -> None:
    if not (TOOLS / "hadolint").exists():
        pytest.skip("hadolint is not installed; scripts/peers installs it")
    done = subprocess.run([TOOLS / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_what_the_container_is_built_of_is_there_and_no_more() -> None:
    """pip finds all that pyproject.toml names, and no checkout's own files are sent along."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    asked = [line for line in lines if line and not line.startswith("#")]
    assert asked[0] == "*"
    taken = [line[1:] for line in asked if line.startswith("!")]
    assert all((HERE.parent / name).exists() for name in taken)
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    assert all(name.split("/")[0] in taken for name in (project["readme"], *project["license-files"], "hatch_build.py"))


def test_the_container_starts_the_server() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    entry, command = (json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(("ENTRYPOINT", "CMD [")))
    assert entry[0] == "paraformer"
    assert parser().parse_args([*entry[1:], *command]).host == "0.0.0.0"
    assert any(line.startswith("USER 10001") for line in lines)


def test_compose_names_files_that_there_are() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            assert (DEPLOY / volume.split(":")[0]).is_file()
    assert compose["services"]["paraformer"]["read_only"] is True
    assert compose["services"]["paraformer"]["build"]["dockerfile"] == "deploy/Dockerfile"
    target = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0][
        "targets"
    ]
    assert target == ["paraformer:10096"]


def test_the_board_shows_numbers_that_there_are() -> None:
    from paraformer.serve.metrics import Meters

    known = {one.name for one in text_string_to_metric_families(Meters().text().decode())}
    board = json.loads((DEPLOY / "grafana" / "paraformer.json").read_text())
    shown = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    used = set(re.findall(r"paraformer_\w+", shown))
    assert used
    assert {re.sub(r"_(bucket|total)$", "", name) for name in used} <= known


def test_the_manual_names_flags_that_there_are() -> None:
    manual = (DEPLOY.parent / "docs" / "serving.md").read_text()
    serve = next(a for a in parser()._actions if a.dest == "command").choices["serve"]  # type: ignore[union-attr,call-overload]
    flags = {flag for action in serve._actions for flag in action.option_strings} | {"--latency", "--values"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", manual)) <= flags
