"""A small custom.metrics.k8s.io: for each pod the gauge that its own /metrics shows.

Stands where prometheus-adapter stands in a cluster, without Prometheus between. What it says comes
from the servers; that the autoscaler believes it is the cluster's own doing.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.k8s.cluster.control_plane import make_key_pair
from tests.k8s.cluster.kubectl import Kubectl
from tests.k8s.cluster.node import ADDRESS

PORT = 6444
GROUP = "custom.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
METRICS = ("appliance_waiting_sequences", "appliance_running_sequences")
SERVICE = {"name": "custom-metrics", "namespace": "kube-system"}

REGISTRATION: list[dict[str, Any]] = [
    {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1beta1.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": "v1beta1",
            "service": {**SERVICE, "port": PORT},
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": SERVICE,
        "spec": {"ports": [{"port": PORT, "protocol": "TCP"}]},
    },
    {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": SERVICE,
        "subsets": [{"addresses": [{"ip": ADDRESS}], "ports": [{"port": PORT}]}],
    },
]


class CustomMetrics:
    """Answers while it is entered; what it last said of each metric is in `seen`."""

    def __init__(self, kubectl: Kubectl, folder: Path) -> None:
        self.kubectl = kubectl
        self.seen: dict[str, list[int]] = {}
        make_key_pair(folder / "custom-metrics", name="custom-metrics")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "custom-metrics.crt", folder / "custom-metrics.key")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = outer.answer(self.path.partition("?")[0])
                body = json.dumps(found or {"kind": "Status", "code": 404}).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((ADDRESS, PORT), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.kubectl.apply(REGISTRATION)
        return self

    def __exit__(self, *_: object) -> None:
        self.kubectl("delete", "apiservice", f"v1beta1.{GROUP}")
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> dict[str, Any] | None:
        """Discovery, or /apis/GROUP/VERSION/namespaces/NAMESPACE/pods/*/METRIC."""
        if path == f"/apis/{VERSION}":
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": VERSION,
                "resources": [
                    {
                        "name": f"pods/{metric}",
                        "singularName": "",
                        "namespaced": True,
                        "kind": "MetricValueList",
                        "verbs": ["get"],
                    }
                    for metric in METRICS
                ],
            }
        parts = path.split("/")
        if parts[-1] not in METRICS or parts[4:5] != ["namespaces"]:
            return None
        return self.measure(namespace=parts[5], metric=parts[-1])

    def measure(self, namespace: str, metric: str) -> dict[str, Any]:
        values = {}
        for pod in self.kubectl.within(namespace).items("pods", "--selector=track=stable"):
            if (value := scrape(pod["status"].get("podIP"), metric)) is not None:
                values[pod["metadata"]["name"]] = value
        self.seen.setdefault(metric, []).append(sum(values.values()))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {
            "kind": "MetricValueList",
            "apiVersion": VERSION,
            "metadata": {},
            "items": [
                {
                    "describedObject": {
                        "kind": "Pod",
                        "namespace": namespace,
                        "name": name,
                        "apiVersion": "/v1",
                    },
                    "metricName": metric,
                    "timestamp": now,
                    "value": str(value),
                }
                for name, value in values.items()
            ],
        }


def scrape(address: str | None, metric: str) -> int | None:
    """What a pod's own /metrics says; None while it cannot be asked."""
    if address is None:
        return None
    connection = HTTPConnection(address, 8000, timeout=2)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except OSError:
        return None
    finally:
        connection.close()
    for family in text_string_to_metric_families(text):
        if family.name == metric:
            return int(family.samples[0].value)
    return None
