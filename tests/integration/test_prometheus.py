"""Debian's Prometheus against a running server: every expression of the dashboard gives a finite sample."""
import concurrent.futures
import json
import math
import re
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from conftest import MODEL_ID, ROOT, Server, free_port, serve_config

REQUESTS = 60


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    running = Server("--config", serve_config(tmp_path_factory.mktemp("metrics") / "config.yaml"))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def prometheus(own_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    text = (ROOT / "monitoring" / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:8000", own_server.http).replace("scrape_interval: 5s",
                                                                    "scrape_interval: 1s")
    text = text.replace("rules/muselet.yml", str(ROOT / "monitoring" / "rules" / "muselet.yml"))
    (folder / "prometheus.yml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    with open(folder / "log", "w") as log:
        child = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml",
                                  f"--storage.tsdb.path={folder}/data",
                                  f"--web.listen-address={address}"], stdout=log, stderr=log)
    yield f"http://{address}"
    child.terminate()
    child.wait(20)


def query(prometheus, expression):
    url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    answer = json.load(urllib.request.urlopen(url))
    assert answer["status"] == "success"
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


def wait_for(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "Prometheus did not get there in time"
        time.sleep(0.2)


def ask(server, number):
    body = {"model": MODEL_ID, "max_tokens": 12, "temperature": 0.7, "seed": number,
            "messages": [{"role": "system", "content": "You are a friendly guide. " * 4},
                         {"role": "user", "content": f"Tell me a fact about the number {number}."}]}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    return urllib.request.urlopen(request).status


# What only the leader of a sharded replica has; tests/monitoring and tests/node/rank look at it.
SHARDED = "muselet_rank"


def expressions():
    dashboard = json.loads((ROOT / "monitoring" / "dashboards" / "overview.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            if SHARDED in target["expr"]:
                continue
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], re.sub(r"\$\w+", ".*", expression)


def test_every_series_exists_at_zero_before_the_first_request(own_server):
    page = urllib.request.urlopen(f"{own_server.url}/metrics").read().decode()
    names = set(re.findall(r"muselet_\w+", (ROOT / "monitoring" / "metrics.cc").read_text()))
    for name in names:
        if name.startswith(SHARDED):
            continue
        assert re.search(rf"^{name}(_count)?(\{{.*\}})? ", page, re.M), name


def test_the_metrics_page_is_clean_for_promtool(own_server):
    page = urllib.request.urlopen(f"{own_server.url}/metrics").read()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not checked.stderr, checked.stderr


def test_every_dashboard_expression_gives_a_finite_sample(own_server, prometheus):
    wait_for(lambda: query(prometheus, 'up{job="muselet"}') == [1.0])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: ask(own_server, n), range(REQUESTS)))
    assert statuses == [200] * REQUESTS
    counted = f'sum(muselet_requests_total{{model="{MODEL_ID}"}})'
    wait_for(lambda: query(prometheus, counted) == [float(REQUESTS)])
    missing = [(title, expression) for title, expression in expressions()
               if not any(math.isfinite(value) for value in query(prometheus, expression))]
    assert missing == []


def test_the_committed_dashboard_is_what_its_generator_writes():
    generator = ROOT / "monitoring" / "dashboards" / "generate.py"
    assert subprocess.run([str(generator), "--check"]).returncode == 0


def test_alert_rules_are_valid():
    rules = ROOT / "monitoring" / "rules" / "muselet.yml"
    assert subprocess.run(["promtool", "check", "rules", str(rules)]).returncode == 0
