"""What both compose files promise, beyond being such files."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import yaml

PORT = re.compile(r"\$\{COGO_BIND:-127\.0\.0\.1\}:\$\{[A-Z0-9_]+:-(\d+)\}:(\d+)")
# A version down to where it is one: not `17`, not `latest`.
TAG = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|_AUTH$")
# Their roots are written, and why stands in the file.
WRITES_ITS_ROOT = {"neo4j"}


def all_of(root: Path, name: str, text: str, raw: dict, resolved: dict) -> list[str]:
    wrong = [] if "container_name" not in text else ["container_name: two projects could not be up at once"]
    services = resolved["services"]
    once = {
        on
        for service in services.values()
        for on, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    for service, is_ in services.items():
        found = (
            image(raw["services"][service], root, {each["image"] for each in raw["services"].values() if "build" in each})
            + hardened(service, is_)
            + health(is_, service in once)
            + order(raw["services"][service], services, once)
            + ports(raw["services"][service], is_)
            + secrets(raw["services"][service])
            + mounts(is_, root)
        )
        wrong += [f"{service}: {what}" for what in found]
    return wrong


def image(raw: dict, root: Path, built: set[str]) -> list[str]:
    if "build" not in raw:
        return [] if raw["image"] in built or TAG.fullmatch(raw["image"]) else [f"image {raw['image']}: no version"]
    build = raw["build"]
    dockerfile = root / build["context"] / build["dockerfile"]
    if not dockerfile.is_file():
        return [f"build: there is no {dockerfile.relative_to(root)}"]
    stages = re.findall(r"(?im)^FROM .* AS (\S+)", dockerfile.read_text())
    if "target" in build and build["target"] not in stages:
        return [f"build: {build['dockerfile']} has no stage {build['target']}"]
    return [] if re.fullmatch(r"\$\{\w+_IMAGE:-[\w-]+:(local|ci)\}", raw["image"]) else ["image: is no variable"]


def hardened(name: str, service: dict) -> list[str]:
    wrong = []
    if service.get("user", "0").split(":")[0] in ("0", "root"):
        wrong.append("runs as root")
    if service.get("read_only") is not True and name not in WRITES_ITS_ROOT:
        wrong.append("may write its root")
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
        wrong.append("keeps capabilities")
    if service.get("security_opt") != ["no-new-privileges:true"]:
        wrong.append("may get more rights")
    if not service.get("mem_limit") or not service.get("pids_limit"):
        wrong.append("has no limit of memory or of processes")
    if service.get("privileged") or service.get("network_mode") or service.get("pid"):
        wrong.append("shares what is the machine's")
    return wrong


def health(service: dict, once: bool) -> list[str]:
    check = service.get("healthcheck", {})
    if once:
        return [] if check.get("disable") else ["ends by itself, and has a health check"]
    return [] if check.get("test") and not check.get("disable") else ["has no health check"]


def order(raw: dict, services: dict, once: set[str]) -> list[str]:
    needs = raw.get("depends_on", {})
    if isinstance(needs, list):
        return ["depends_on: has no conditions"]
    wrong = []
    for name, how in needs.items():
        if how.get("condition") not in ("service_healthy", "service_completed_successfully"):
            wrong.append(f"depends_on {name}: waits for nothing")
    return wrong


def ports(raw: dict, service: dict) -> list[str]:
    wrong = [f"port {port}: not by variables" for port in raw.get("ports", []) if not PORT.fullmatch(str(port))]
    return wrong + [
        f"port {port['target']}: is published on {port.get('host_ip', 'all addresses')}"
        for port in service.get("ports", [])
        if port.get("host_ip") != "127.0.0.1"
    ]


def secrets(raw: dict) -> list[str]:
    wrong = []
    for name, value in raw.get("environment", {}).items():
        value = str(value)
        if SECRET.search(name) and not re.search(r"\$\{\w+:[?-]\}?", value):
            wrong.append(f"environment {name}: is no variable")
        if SECRET.search(name) and re.search(r"\$\{\w+:-[^}]+\}", value):
            wrong.append(f"environment {name}: has a default that everybody knows")
        if re.search(r"://[^:/]*:(?!\$\{)[^@/]+@", value):
            wrong.append(f"environment {name}: has a password in its URL")
    return wrong


def mounts(service: dict, root: Path) -> list[str]:
    wrong = []
    for mount in service.get("volumes", []):
        if mount["type"] != "bind":
            continue
        source = Path(mount["source"])
        if not source.exists():
            wrong.append(f"mount: there is no {source.relative_to(root)}")
        if not mount.get("read_only"):
            wrong.append(f"mount {mount['target']}: may be written")
    return wrong


def together(root: Path, files: dict[str, dict]) -> list[str]:
    """What must agree with files elsewhere."""
    local, ci = files["docker-compose.local.yml"], files["docker-compose.ci.yml"]
    wrong = toolsets(root, "docker-compose.local.yml", local, "ops/compose/mcp.json")
    wrong += toolsets(root, "docker-compose.ci.yml", ci, "ops/compose/mcp.ci.json")
    wrong += published(root, local) + variables(root, local) + watched(root, local)
    calls = ci["x-gate"]
    known = json.loads((root / "ops/compose/mcp.ci.json").read_text())["toolsets"]
    wrong += [f"x-gate.{call}: there is no such toolset" for call in ("call", "dead_letter") if calls[call]["toolset"] not in known]
    return wrong


def toolsets(root: Path, name: str, file: dict, mcp: str) -> list[str]:
    """Each toolset of the containers' mcp.json is a service, whose server listens where the toolset says."""
    wrong = []
    for toolset, is_ in json.loads((root / mcp).read_text())["toolsets"].items():
        url = urlsplit(is_["url"])
        service = file["services"].get(url.hostname, {})
        if str(url.port) != service.get("environment", {}).get("PORT"):
            wrong.append(f"{mcp}: {toolset}: no service of {name} listens at {is_['url']}")
    if not any(f"./{mcp}:/etc/cogo/mcp.json:ro" in str(service) for service in file["services"].values()):
        wrong.append(f"{name}: does not mount {mcp}")
    return wrong


def published(root: Path, local: dict) -> list[str]:
    """`cogo up` beside the containers finds their servers with configs/mcp.json as it is, and by servers.json."""
    at_home = json.loads((root / "configs/mcp.json").read_text())["toolsets"]
    inside = json.loads((root / "ops/compose/mcp.json").read_text())["toolsets"]
    servers = json.loads((root / "mcp-servers/servers.json").read_text())
    wrong = []
    if not set(at_home) == set(inside) == set(servers):
        wrong.append(f"toolsets: {sorted(at_home)}, {sorted(inside)} and {sorted(servers)} differ")
    for toolset in set(at_home) & set(inside):
        service = local["services"][urlsplit(inside[toolset]["url"]).hostname]
        ports = {PORT.fullmatch(port).group(1): PORT.fullmatch(port).group(2) for port in service.get("ports", [])}
        outside = str(urlsplit(at_home[toolset]["url"]).port)
        if ports.get(outside) != str(urlsplit(inside[toolset]["url"]).port):
            wrong.append(f"{toolset}: configs/mcp.json has port {outside}, and compose publishes {sorted(ports)}")
        if Path(servers[toolset]["serve"]).parent.name != Path(service["build"]["dockerfile"]).parent.name:
            wrong.append(f"{toolset}: servers.json and compose name different servers")
    return wrong


def variables(root: Path, local: dict) -> list[str]:
    """.env.example has what the file takes, and nothing else."""
    text = (root / "docker-compose.local.yml").read_text()
    # `$${…}` is the container's shell's.
    taken = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    lines = (root / ".env.example").read_text()
    listed = set(re.findall(r"(?m)^#?([A-Z][A-Z0-9_]+)=", lines))
    memory = {name for name in taken if name.endswith("_MEMORY")}
    for name in memory:
        if re.search(rf"\b{name.removesuffix('MEMORY')}(, |MEMORY| and )", lines):
            listed.add(name)
    wrong = [f".env.example: has no {name}" for name in sorted(taken - listed)]
    wrong += [f".env.example: {name} is taken by nothing" for name in sorted(listed - taken)]
    must = set(re.findall(r"\$\{(\w+):\?", text))
    empty = set(re.findall(r"(?m)^([A-Z][A-Z0-9_]+)=$", lines))
    if not must <= empty:
        wrong.append(f".env.example: {sorted(must - empty)} must be there to be filled in")
    if filled := set(re.findall(r"(?m)^([A-Z][A-Z0-9_]+)=.+$", lines)):
        wrong.append(f".env.example: {sorted(filled)} have values")
    return wrong


def watched(root: Path, local: dict) -> list[str]:
    """Prometheus asks services that are there, under a job that the alerts look for; Grafana asks Prometheus."""
    prometheus = yaml.safe_load((root / "ops/compose/prometheus.yml").read_text())
    wrong = []
    mounts = str(local["services"]["prometheus"]["volumes"])
    wrong += [f"prometheus.yml: {file} is not mounted" for file in prometheus["rule_files"] if f":{file}:" not in mounts]
    networks = set(local["services"]["prometheus"]["networks"])
    for job in prometheus["scrape_configs"]:
        if not re.search("cogo", job["job_name"]):
            wrong.append(f"prometheus.yml: no alert looks for the job {job['job_name']}")
        for target in job["static_configs"][0]["targets"]:
            host, port = target.split(":")
            service = local["services"].get(host, {})
            if port not in str(service.get("environment")) or not networks & set(service.get("networks", [])):
                wrong.append(f"prometheus.yml: {target} cannot be asked")
    provider = yaml.safe_load((root / "ops/compose/grafana/dashboards/cogo.yml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    if f"./ops/grafana/cogo.json:{folder}/cogo.json:ro" not in local["services"]["grafana"]["volumes"]:
        wrong.append(f"grafana: the dashboard is not in {folder}")
    source = yaml.safe_load((root / "ops/compose/grafana/datasources/prometheus.yml").read_text())
    if urlsplit(source["datasources"][0]["url"]).hostname not in local["services"]:
        wrong.append("grafana: its source is no service")
    return wrong
