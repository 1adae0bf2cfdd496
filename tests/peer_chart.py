"""The chart by Helm itself: what its linter says, what is rendered and whether Kubernetes knows it, which values are
refused. `python peer_chart.py CHART` prints JSON; runs where there are helm-python-sdk and kubernetes-validate, and
imports nothing of ours.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import helm_python
import kubernetes_validate
import yaml

VERSIONS = ("1.29", "1.37")
"""Of Kubernetes: the oldest with what the chart says, and a new one."""
WRONG: tuple[dict[str, Any], ...] = (
    {"sevrer": {}},
    {"server": {"worker": 2}},
    {"server": {"drainSeconds": "60s"}},
    {"server": {"workers": 0}},
    {"replicas": "two"},
    {"image": {"tag": 1.10}},
    {"keysSecret": ""},
    {"spool": "2 GB"},
    {"service": {"type": "Ingress"}},
    {"autoscaling": {"minReplicas": 0}},
)


def documents(chart: helm_python.Chart, values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """All that is rendered."""
    files = chart.render(values, name=name).values()
    return [one for text in files for one in yaml.safe_load_all(text) if one]


def cases(chart: helm_python.Chart) -> int:
    """How many documents Kubernetes knows: all that values and names of all kinds make; the first other one raises."""
    count = 0
    for enabled, kind, drain, name in itertools.product(
        (True, False), ("ClusterIP", "NodePort", "LoadBalancer"), (0, 3600), ("demo", "a" * 53, "1e3")
    ):
        values = {"autoscaling": {"enabled": enabled}, "service": {"type": kind}, "server": {"drainSeconds": drain}}
        for one in documents(chart, values, name):
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)
            count += 1
    return count


def refused(chart: helm_python.Chart, values: dict[str, Any]) -> bool:
    """Whether Helm would install nothing with these values."""
    try:
        chart.validate_schema(values)
    except helm_python.HelmError:
        return True
    return False


def main(path: str) -> dict[str, Any]:
    """All of it."""
    report = helm_python.lint(path, strict=True)
    with helm_python.Chart.load(path) as chart:
        return {
            "found": [one["error"] for one in report["messages"] if one["severity"] > 1] + report["errors"],
            "demo": documents(chart, {}, "demo"),
            "valid": cases(chart),
            "accepted": [values for values in WRONG if not refused(chart, values)],
        }


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1])))
