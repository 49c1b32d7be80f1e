"""The programs that make the node, as the node starts them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .paths import (
    CGROUP,
    NODE,
    NODE_BIN,
    NODE_CONFIG,
    NODE_IP,
    NODE_PKI,
    SERVICES,
)


@dataclass(frozen=True)
class Component:
    """A program of the node; it logs to /var/log/NAME.log."""

    name: str
    command: list[str]


def etcd() -> Component:
    flags = _flags(
        data_dir="/var/lib/etcd",
        listen_client_urls="http://127.0.0.1:2379",
        advertise_client_urls="http://127.0.0.1:2379",
        listen_peer_urls="http://127.0.0.1:2380",
        log_level="warn",
        unsafe_no_fsync="true",  # a crash of the machine ends the cluster anyway
    )
    return _built("etcd", flags)


def api_server() -> Component:
    flags = _flags(
        etcd_servers="http://127.0.0.1:2379",
        advertise_address=NODE_IP,
        service_cluster_ip_range=SERVICES,
        client_ca_file=NODE_PKI / "ca.crt",
        tls_cert_file=NODE_PKI / "kube-apiserver.crt",
        tls_private_key_file=NODE_PKI / "kube-apiserver.key",
        kubelet_client_certificate=NODE_PKI / "kube-apiserver-kubelet-client.crt",
        kubelet_client_key=NODE_PKI / "kube-apiserver-kubelet-client.key",
        kubelet_preferred_address_types="InternalIP",  # the node's name is in no name service
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file=NODE_PKI / "service-accounts.pub",
        service_account_signing_key_file=NODE_PKI / "service-accounts.key",
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        allow_privileged="true",  # so that it is the namespace that refuses a privileged pod
    )
    return _built("kube-apiserver", flags)


def others() -> list[Component]:
    """What starts once the API server answers."""
    controller_manager = _flags(
        kubeconfig=NODE_PKI / "kube-controller-manager.kubeconfig",
        bind_address="127.0.0.1",
        leader_elect="false",
        use_service_account_credentials="true",
        service_account_private_key_file=NODE_PKI / "service-accounts.key",
        root_ca_file=NODE_PKI / "ca.crt",
        flex_volume_plugin_dir="/var/lib/kubelet/volume-plugins",  # it makes the folder
    )
    scheduler = _flags(
        kubeconfig=NODE_PKI / "kube-scheduler.kubeconfig",
        bind_address="127.0.0.1",
        leader_elect="false",
    )
    kubelet = _flags(
        config=NODE_CONFIG / "kubelet.yaml",
        kubeconfig=NODE_PKI / "kubelet.kubeconfig",
        hostname_override=NODE,
        node_ip=NODE_IP,
        cgroup_root=f"/{CGROUP}",
    )
    return [
        Component("containerd", ["containerd", *_flags(config=NODE_CONFIG / "containerd.toml")]),
        _built("kube-controller-manager", controller_manager),
        _built("kube-scheduler", scheduler),
        _built("kubelet", kubelet),
        _built("kube-proxy", _flags(config=NODE_CONFIG / "kube-proxy.yaml")),
        Component("reclaim", [sys.executable, "-m", "tests.e2e.cluster.reclaim"]),
    ]


def _built(name: str, flags: list[str]) -> Component:
    return Component(name, [str(NODE_BIN / name), *flags])


def _flags(**values: object) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
