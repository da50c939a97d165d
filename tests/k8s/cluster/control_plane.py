"""Brings up etcd, the API server, the controllers and the scheduler."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from tests.k8s.cluster.kubectl import Kubectl
from tests.k8s.cluster.processes import Programs

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
SERVER = "https://127.0.0.1:6443"
SERVICE_RANGE = "10.96.0.0/24"
HPA_SYNC_PERIOD = "5s"  # 15 s by default


def start_control_plane(programs: Programs, binaries: Path, state: Path) -> Kubectl:
    """Ready when it returns; the answer has every right."""
    certificates = state / "certificates"
    certificates.mkdir(parents=True)
    make_key_pair(state / "front-proxy", name="front-proxy")
    token = secrets.token_hex(16)
    (state / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    kubectl = Kubectl(write_kubeconfig(state, token))
    start_etcd(programs, state)
    start_api_server(programs, binaries, state)
    programs.wait("the API server is ready", lambda: kubectl.try_("get", "--raw=/readyz")[0])
    start_controllers(programs, binaries, state, kubectl.kubeconfig)
    programs.wait(
        "the controllers work", lambda: kubectl.try_("get", "serviceaccount", "default")[0]
    )
    return kubectl


def make_key_pair(path: Path, *, name: str) -> None:
    """PATH.key and PATH.crt, signed by itself, for two days."""
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}"
        f" -keyout {path}.key -out {path}.crt".split(),
        check=True,
        capture_output=True,
    )


def write_kubeconfig(state: Path, token: str) -> Path:
    path = state / "kubeconfig"
    path.write_text(
        f"""apiVersion: v1
kind: Config
clusters:
  - name: test
    cluster: {{server: "{SERVER}", certificate-authority: {state}/certificates/apiserver.crt}}
users:
  - name: admin
    user: {{token: "{token}"}}
contexts:
  - name: test
    context: {{cluster: test, user: admin}}
current-context: test
"""
    )
    return path


def start_etcd(programs: Programs, state: Path) -> None:
    programs.start(
        "etcd",
        "etcd",
        f"--data-dir={state}/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=default={ETCD_PEER}",
        "--log-level=error",
    )


def start_api_server(programs: Programs, binaries: Path, state: Path) -> None:
    proxy = state / "front-proxy"  # so that the custom metrics API may believe who asks
    programs.start(
        "kube-apiserver",
        binaries / "kube-apiserver",
        f"--etcd-servers={ETCD}",
        f"--cert-dir={state}/certificates",
        "--bind-address=127.0.0.1",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={proxy}.key",
        f"--service-account-key-file={proxy}.key",
        f"--token-auth-file={state}/tokens.csv",
        "--authorization-mode=RBAC",
        "--allow-privileged=false",
        "--endpoint-reconciler-type=none",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",  # else it looks up the node's name
        "--enable-aggregator-routing=true",
        f"--requestheader-client-ca-file={proxy}.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={proxy}.crt",
        f"--proxy-client-key-file={proxy}.key",
    )


def start_controllers(programs: Programs, binaries: Path, state: Path, kubeconfig: Path) -> None:
    common = (f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--port=0", "--secure-port=0")
    programs.start(
        "kube-controller-manager",
        binaries / "kube-controller-manager",
        *common,
        f"--service-account-private-key-file={state}/front-proxy.key",
        f"--root-ca-file={state}/certificates/apiserver.crt",
        "--controllers=*,-nodeipam,-cloud-node-lifecycle,-route,-service,-ttl",
        f"--horizontal-pod-autoscaler-sync-period={HPA_SYNC_PERIOD}",
        "--horizontal-pod-autoscaler-downscale-stabilization=10s",
    )
    programs.start("kube-scheduler", binaries / "kube-scheduler", *common)
