"""Holds the manifests of ops/k8s to Kubernetes' own schemas, and to what they promise; without a cluster.

The kinds of KEDA and of the Prometheus operator have no schema among Kubernetes' own: of those the fields that we set
are looked at here.
"""

import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2] / "ops/k8s"
VERSIONS = ["1.32", "1.37"]
# What the schemas of other projects want, as far as we use them: API group and version, and fields of `spec`.
OTHERS = {
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "triggers"}),
    "TriggerAuthentication": ("keda.sh/v1alpha1", {"secretTargetRef"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
}
CUT_OFF_S = 15  # cli/src/lifecycle.rs


def documents():
    for path in sorted(ROOT.rglob("*.yaml")):
        if path.name.endswith(".values.yaml"):
            continue
        for document in yaml.safe_load_all(path.read_text()):
            yield path.relative_to(ROOT), document


def pod_of(document: dict) -> dict | None:
    return document["spec"]["template"] if document["kind"] in ("Deployment", "Job") else None


def schema(document: dict) -> list[str]:
    wrong = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{version}: {error.message}")
    return wrong


def other(document: dict) -> list[str]:
    group, fields = OTHERS[document["kind"]]
    wrong = [] if document["apiVersion"] == group else [f"apiVersion: {group} is meant"]
    return wrong + [f"spec.{field} is missing" for field in sorted(fields - set(document["spec"]))]


def hardened(pod: dict) -> list[str]:
    """What the profile `restricted` wants, and a root that cannot be written."""
    spec, wrong = pod["spec"], []
    if spec["securityContext"].get("runAsNonRoot") is not True:
        wrong.append("runs as root")
    if spec["securityContext"].get("seccompProfile", {}).get("type") != "RuntimeDefault":
        wrong.append("has no seccompProfile")
    if spec.get("automountServiceAccountToken") is not False:
        wrong.append("has a token of the cluster's API")
    for container in spec["containers"]:
        context = container["securityContext"]
        if context.get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{container['name']} may get more rights")
        if context.get("readOnlyRootFilesystem") is not True:
            wrong.append(f"{container['name']} may write its root")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            wrong.append(f"{container['name']} keeps capabilities")
        if not {"requests", "limits"} <= set(container["resources"]):
            wrong.append(f"{container['name']} has no requests or limits")
    return wrong


def drains(pod: dict) -> list[str]:
    """The kubelet must not kill what still drains."""
    spec = pod["spec"]
    container = spec["containers"][0]
    args = container.get("args", [])
    if "--drain-ms" not in args:
        return []
    drain = int(args[args.index("--drain-ms") + 1]) / 1000
    stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = spec.get("terminationGracePeriodSeconds", 30)
    if grace < stop + drain + CUT_OFF_S:
        return [f"terminationGracePeriodSeconds: {grace} is less than {stop} + {drain} + {CUT_OFF_S}"]
    return []


def together(all_of: list[tuple[Path, dict]]) -> list[str]:
    """What refers to another manifest finds it."""
    wrong = []
    pods = [pod_of(document)["metadata"]["labels"] for _, document in all_of if pod_of(document)]
    names = {(document["kind"], document["metadata"]["name"]) for _, document in all_of if "metadata" in document}
    secret = next(d for _, d in all_of if d["kind"] == "Secret")
    if any(secret["stringData"].values()):
        wrong.append("secret.example.yaml: holds a value")
    for path, document in all_of:
        kind, spec = document["kind"], document.get("spec", {})
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            chosen = spec.get("selector") or spec.get("podSelector")
            chosen = chosen.get("matchLabels", chosen)
            if not any(chosen.items() <= labels.items() for labels in pods):
                wrong.append(f"{path}: {document['metadata']['name']} selects nothing")
        target = spec.get("scaleTargetRef", {}).get("name")
        if target and ("Deployment", target) not in names:
            wrong.append(f"{path}: there is no Deployment {target}")
        for name, key in re.findall(r"'name': '(\w+)', 'key': '([A-Z_]+)'", str(document)):
            if name != secret["metadata"]["name"] or key not in secret["stringData"]:
                wrong.append(f"{path}: secret.example.yaml has no {name}.{key}")
        if kind == "Kustomization":
            for resource in document["resources"]:
                if not (ROOT / path.parent / resource).exists():
                    wrong.append(f"{path}: there is no {resource}")
        elif kind not in ("Namespace",) and document["metadata"].get("namespace") != "cogo":
            wrong.append(f"{path}: {document['metadata']['name']} is in no namespace")
    return wrong


def main() -> int:
    all_of, wrong = list(documents()), []
    for path, document in all_of:
        kind = document["kind"]
        if kind == "Kustomization":
            continue
        found = other(document) if kind in OTHERS else schema(document)
        if pod := pod_of(document):
            found += hardened(pod) + drains(pod)
        wrong += [f"{path}: {kind} {document['metadata']['name']}: {what}" for what in found]
    wrong += together(all_of)
    print(f"{len(all_of)} manifests, by the schemas of Kubernetes {' and '.join(VERSIONS)}")
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
