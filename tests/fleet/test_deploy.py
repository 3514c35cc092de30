"""What lies in deploy/ names options, paths, ports and figures that the code has."""

import importlib
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from kiku.serve.app import OPEN_PATHS, SOCKETS
from kiku.serve.metrics import Metrics
from kiku.serve.settings import PREFIX, Settings
from tests.conftest import ROOT

yaml = pytest.importorskip("yaml", reason="pyyaml reads the manifests, and is not installed")

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OTHER_VARIABLES = {"KIKU_CACHE": "src/kiku/converted/cache.py"}
"""Of the environment, that are no settings, and where they are read."""

GOODBYES_S = 8
"""At the end of a drain: telling clients (3 s), and uvicorn's own patience (5 s)."""


def documents(name: str) -> Any:
    (found,) = yaml.safe_load_all((KUBERNETES / name).read_text())
    return found


@pytest.fixture(scope="module")
def deployment() -> Any:
    return documents("deployment.yaml")


@pytest.fixture(scope="module")
def pod(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (found,) = pod["containers"]
    return found


@pytest.fixture(scope="module")
def settings(container: Any) -> Settings:
    """As a replica would have them."""
    return Settings.gathered({}, environment(container))


@pytest.fixture
def local_fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("local_fleet")


def environment(container: Any) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def variables_of(text: str) -> set[str]:
    return set(re.findall(r"\bKIKU_[A-Z_]+\b", text))


def test_every_variable_is_a_setting():
    known = {PREFIX + one.name.upper() for one in fields(Settings)}
    files = [*DEPLOY.rglob("*.yaml"), DEPLOY / "Dockerfile", ROOT / "docs" / "fleet.md"]
    seen: set[str] = set()
    for path in files:
        if path.is_file():
            seen |= variables_of(path.read_text())
    assert {"KIKU_DRAIN_S", "KIKU_SLOTS"} <= seen
    for name in seen - known:
        assert name in OTHER_VARIABLES, name
        assert f'"{name}"' in (ROOT / OTHER_VARIABLES[name]).read_text(), name


def test_every_container_has_settings_that_can_be(container: Any, settings: Settings):
    assert all(isinstance(value, str) for value in environment(container).values())
    gpu = yaml.safe_load((DEPLOY / "kubernetes-gpu" / "kustomization.yaml").read_text())
    (patch,) = [yaml.safe_load(one["patch"]) for one in gpu["patches"]]
    (changed,) = patch["spec"]["template"]["spec"]["containers"]
    assert changed["name"] == container["name"]
    assert Settings.gathered({}, environment(container) | environment(changed)).device == "cuda"
    assert settings.device is None


def test_sessions_in_redis_are_reached_and_drains_are_short(container: Any):
    folder = DEPLOY / "kubernetes-sessions"
    (patch,) = yaml.safe_load((folder / "kustomization.yaml").read_text())["patches"]
    changed = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]
    (ours,) = changed["containers"]
    assert ours["name"] == container["name"]
    given = {one["name"]: one.get("value", "a secret") for one in ours["env"]}
    settings = Settings.gathered({}, environment(container) | given)
    kinds = {one["kind"]: one for one in yaml.safe_load_all((folder / "redis.yaml").read_text())}
    service = kinds["Service"]
    (port,) = service["spec"]["ports"]
    where = f"redis://{service['metadata']['name']}:{port['port']}/0"
    assert settings.session_store == where
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert changed["terminationGracePeriodSeconds"] >= wait + settings.drain_s + GOODBYES_S


def test_a_service_of_the_same_name_does_not_set_the_port(pod: Any):
    # Kubernetes would set KIKU_PORT=tcp://10.0.0.1:8080.
    assert documents("service.yaml")["metadata"]["name"] == "kiku"
    assert pod["enableServiceLinks"] is False


def test_keys_are_where_the_secret_is_mounted(
    pod: Any, container: Any, settings: Settings, tmp_path: Path
):
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert settings.api_keys_file is not None
    volume = mounts[str(settings.api_keys_file.parent)]
    (found,) = [one for one in pod["volumes"] if one["name"] == volume]
    assert (
        f"create secret generic {found['secret']['secretName']} --from-file=keys"
        in (KUBERNETES / "deployment.yaml").read_text()
    )
    assert settings.api_keys_file.name == "keys"


def test_the_grace_is_as_long_as_the_drain(pod: Any, container: Any, settings: Settings):
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    grace = pod["terminationGracePeriodSeconds"]
    assert grace >= int(seconds) + settings.drain_s + GOODBYES_S
    assert grace <= int(seconds) + settings.drain_s + 30


def test_probes_ask_paths_that_want_no_key(container: Any):
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert probes["readiness"]["path"] == "/ready"
    assert probes["liveness"]["path"] == "/health"
    assert {probe["path"] for probe in probes.values()} <= OPEN_PATHS
    assert {probe["port"] for probe in probes.values()} == {"http"}


def test_ports_are_the_services(deployment: Any, container: Any, settings: Settings):
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("http", settings.port)
    (service,) = documents("service.yaml")["spec"]["ports"]
    assert (service["targetPort"], service["port"]) == ("http", settings.port)
    # Whoever goes by annotations has no key for /metrics.
    assert "annotations" not in deployment["spec"]["template"]["metadata"]
    assert f"EXPOSE {Settings().port}" in (DEPLOY / "Dockerfile").read_text()


def test_all_choose_the_pods_of_the_deployment(deployment: Any):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert documents("service.yaml")["spec"]["selector"] == labels
    assert documents("disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    target = documents("autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    (job,) = documents("prometheus-scrape.yaml")["scrape_configs"]
    chosen = {tuple(one["source_labels"]): one.get("regex") for one in job["relabel_configs"]}
    ((name, value),) = labels.items()
    label = "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", name)
    assert chosen[(label,)] == value


def test_a_rolling_update_never_has_fewer_replicas(deployment: Any):
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in deployment["spec"]  # else each apply undoes the autoscaler


def test_the_autoscaler_goes_by_figures_that_there_are():
    (rule,) = documents("prometheus-adapter.yaml")["rules"]["custom"]
    told = Metrics().text().decode()
    of_a_pod = "{<<.LabelMatchers>>}) by (<<.GroupBy>>)"
    assert rule["metricsQuery"] == (
        f"sum(kiku_slots_used{of_a_pod} / (sum(kiku_slots{of_a_pod} > 0)"
    )
    assert rule["seriesQuery"].startswith("kiku_slots_used{")
    for name in ("kiku_slots_used", "kiku_slots"):
        assert f"# TYPE {name} gauge" in told, name
    (metric,) = documents("autoscaler.yaml")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert re.fullmatch(rule["name"]["matches"], "kiku_slots_used")
    share = metric["pods"]["target"]["averageValue"]
    assert 500 <= int(share.removesuffix("m")) <= 900


def test_prometheus_asks_the_path_that_there_is_with_a_key():
    (job,) = documents("prometheus-scrape.yaml")["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["metrics_path"] not in OPEN_PATHS
    assert job["authorization"]["type"] == "Bearer"


@pytest.mark.parametrize("folder", ["kubernetes", "kubernetes-gpu", "kubernetes-sessions"])
def test_what_is_applied_is_valid_by_the_published_schemas(folder: str):
    validating = pytest.importorskip("kubernetes_validate", reason="it is not installed")
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / folder)], check=True, capture_output=True, text=True
    )
    found = list(yaml.safe_load_all(done.stdout))
    kinds = {one["kind"] for one in found}
    assert {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"} <= kinds
    for one in found:
        validating.validate(one, "1.31", strict=True)


def test_there_are_never_two_stores_of_sessions():
    text = (DEPLOY / "kubernetes-sessions" / "redis.yaml").read_text()
    (store,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "Deployment"]
    assert (store["spec"]["replicas"], store["spec"]["strategy"]) == (1, {"type": "Recreate"})


def test_kustomizations_name_files_that_there_are():
    for path in DEPLOY.rglob("kustomization.yaml"):
        for one in yaml.safe_load(path.read_text())["resources"]:
            assert (path.parent / one).exists(), one
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    kinds = {documents(one)["kind"] for one in listed}
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}


def test_the_image_is_the_command_and_no_shell():
    text = (DEPLOY / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["kiku", "serve"]' in text
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in ignored:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line


def test_balancers_wait_longer_than_the_service_lets_clients_be_silent():
    settings = Settings()
    for path in (DEPLOY / "nginx" / "nginx.conf", DEPLOY / "haproxy" / "haproxy.cfg"):
        text = path.read_text()
        names = r"proxy_(?:read|send)_timeout|timeout (?:client|server|tunnel)"
        found = re.findall(rf"^\s*(?:{names})\s+(\d+)h;?$", text, re.MULTILINE)
        assert len(found) in (2, 3), path
        assert min(int(one) for one in found) * 3600 > settings.idle_s
        assert "/metrics" in text
    assert "client_max_body_size 1g;" in (DEPLOY / "nginx" / "nginx.conf").read_text()
    assert settings.max_upload_bytes == 2**30


def test_balancers_send_a_new_stream_to_the_replica_with_the_fewest():
    for name in ("haproxy.cfg", "wyoming.cfg"):
        text = (DEPLOY / "haproxy" / name).read_text()
        assert re.findall(r"^ *balance +(.*)$", text, re.MULTILINE) == ["leastconn"], name
    text = (DEPLOY / "nginx" / "nginx.conf").read_text()
    upstreams = dict(re.findall(r"upstream (\w+) \{(.*?)\}", text, re.DOTALL))
    assert "least_conn;" in upstreams["kiku"]
    assert "zone kiku " in upstreams["kiku"]  # without it each worker counts only its own
    assert re.search(r'""\s+kiku;', text)  # which those without a session go to


def test_balancers_send_to_the_ports_of_the_service():
    texts = [(DEPLOY / "haproxy" / "haproxy.cfg"), (DEPLOY / "nginx" / "kiku-replicas.conf")]
    for path in texts:
        ports = re.findall(r"server (?:\w+ )?10\.0\.0\.1\d:(\d+)", path.read_text())
        assert ports == [str(Settings().port)] * 2, path
    checked = re.findall(r"port (\d+)$", (DEPLOY / "haproxy" / "wyoming.cfg").read_text(), re.M)
    assert checked == [str(Settings().port)] * 2


def test_sessions_have_the_name_that_the_protocols_read():
    assert "url_param(session)" in (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    assert "$arg_session" in (DEPLOY / "nginx" / "nginx.conf").read_text()
    assert {"/api/stream", "/api/asr-streaming"} <= SOCKETS.keys()


def test_nginx_takes_the_file(local_fleet: Any, tmp_path: Path):
    if local_fleet.found("nginx") is None:
        pytest.skip("nginx is not installed")
    local_fleet.make_certificate(tmp_path)
    command = local_fleet.nginx_command(tmp_path, 8443, [8081, 8082])
    check(command, "-t")
    (tmp_path / "kiku-replicas.conf").write_text("server nowhere.invalid:x;\n")
    with pytest.raises(subprocess.CalledProcessError):
        check(command, "-t")


def test_haproxy_takes_the_files(local_fleet: Any, tmp_path: Path):
    if local_fleet.found("haproxy") is None:
        pytest.skip("HAProxy is not installed")
    local_fleet.make_certificate(tmp_path)
    check(local_fleet.haproxy_command(tmp_path, 8443, [8081, 8082], [10300, 10301, 10302]), "-c")


def test_haproxy_takes_what_docs_say_of_a_cluster(local_fleet: Any, tmp_path: Path):
    if local_fleet.found("haproxy") is None:
        pytest.skip("HAProxy is not installed")
    page = (ROOT / "docs" / "fleet.md").read_text()
    (said,) = re.findall(r"^```haproxy\n(.*?)^```", page, re.M | re.S)
    local_fleet.make_certificate(tmp_path)
    command = local_fleet.haproxy_command(tmp_path, 8443, [8081, 8082])
    text = (tmp_path / "haproxy.cfg").read_text()
    text, count = re.subn(r"^    server \w+ .*\n", "", text, flags=re.M)
    assert count == 2
    (tmp_path / "haproxy.cfg").write_text(text + said)
    check(command, "-c")
    service = documents("service.yaml")
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert f" {name}.default.svc.cluster.local:{port} " in said
    (servers,) = re.findall(r"server-template kiku (\d+) ", said)
    surge = documents("deployment.yaml")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    assert int(servers) > documents("autoscaler.yaml")["spec"]["maxReplicas"] + surge
    # A question of 57 bytes, and 16 for each address.
    (payload,) = re.findall(r"accepted_payload_size (\d+)", said)
    assert int(payload) >= 57 + 16 * int(servers)


def check(command: list[str], option: str) -> None:
    done = subprocess.run([*command, option], check=True, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert "warning" not in said.lower(), said
