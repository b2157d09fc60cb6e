"""The container files, checked without a container engine."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from scheduling_project.environment import PROJECT_ROOT, Environment

FOLDER = PROJECT_ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("scheduling:")}
#: Variables of a container that somebody else than `Environment` reads.
OTHERS = {"ADMIN_USER", "ADMIN_PASSWORD", "FLOWER_BASIC_AUTH"}


def example() -> dict[str, str]:
    lines = (FOLDER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_all_roles_are_there() -> None:
    assert set(SERVICES) == {
        *("postgres", "redis", "prepare", "web", "beat", "worker-default", "worker-io", "flower"),
        *("prometheus", "grafana"),
    }
    assert SERVICES["beat"]["deploy"]["replicas"] == 2


def test_every_variable_has_its_line_in_the_example_and_the_other_way_round() -> None:
    used = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text()))
    assert used == set(example())


def test_secrets_have_no_default() -> None:
    secret = {"SECRET_KEY", "POSTGRES_PASSWORD", "ADMIN_PASSWORD", "FLOWER_BASIC_AUTH"}
    assert {name: value for name, value in example().items() if name in secret} == dict.fromkeys(secret, "")
    text = (FOLDER / "compose.yaml").read_text()
    for name in secret:
        assert set(re.findall(rf"\$\{{{name}([^}}]*)\}}", text)) == {":?see .env.example"}


@pytest.mark.parametrize("name", OURS)
def test_every_container_is_confined_and_knows_only_variables_that_exist(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert set(service["environment"]) <= set(Environment.model_fields) | OTHERS
    assert name == "prepare" or service["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}


def test_workers_serve_every_queue_that_there_is_by_default() -> None:
    served = [s["command"][s["command"].index("--queues") + 1] for n, s in SERVICES.items() if n.startswith("worker")]
    assert sorted(served) == sorted(Environment.model_fields["WORKFLOW_QUEUES"].default)


def test_a_container_has_longer_to_stop_than_its_steps_have_to_end() -> None:
    grace = Environment.model_fields["WORKFLOW_SHUTDOWN_GRACE_SECONDS"].default
    for name in ("worker-default", "worker-io"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > grace + 10


def test_redis_evicts_nothing() -> None:
    assert "--maxmemory-policy noeviction" in " ".join(SERVICES["redis"]["command"])


def test_ports_are_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_holds_every_package_and_is_installed_from_the_lock_file() -> None:
    packages = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for pattern in packages["include"]:
        package = pattern.removesuffix("*")
        assert f"COPY {package} ./{package}\n" in DOCKERFILE
        assert f"!{package}\n" in (FOLDER / "Dockerfile.dockerignore").read_text()
    assert "--require-hashes --requirement /tmp/requirements.txt" in DOCKERFILE
    assert "USER 10001" in DOCKERFILE  # a number, so that Kubernetes can check that it is not root
    assert 'ENTRYPOINT ["entrypoint"]' in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE


def test_monitoring_runs_only_when_asked_for() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]} == {
        *("prometheus", "grafana"),
    }


@pytest.mark.parametrize("file", ["grafana/dashboards/scheduling.json", "prometheus/alerts.yml"])
def test_dashboard_and_alerts_ask_for_metrics_that_exist(file: str) -> None:
    from scheduling_project import metrics

    known = set()
    for metric in (*metrics.METRICS, *metrics.SCRAPE):
        endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[metric.kind]
        known |= {metric.name + ending for ending in endings}
    text = (FOLDER / file).read_text()
    loaded = json.loads(text) if file.endswith("json") else yaml.safe_load(text)
    asked = set(re.findall(r"scheduling_\w+", " ".join(_expressions(loaded))))
    assert asked
    assert asked <= known


def _expressions(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["expr"]] if "expr" in node else []
        return own + [text for value in node.values() for text in _expressions(value)]
    return [text for value in node for text in _expressions(value)] if isinstance(node, list) else []


def test_what_compose_mounts_is_there() -> None:
    mounted = [v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v.startswith("./")]
    assert mounted
    assert all((FOLDER / path).exists() for path in mounted)
    scraped = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["metrics_path"] == "/metrics"
    assert scraped["static_configs"] == [{"targets": ["web:8000"]}]
