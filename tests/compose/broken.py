"""Files that break a rule each, and what must be said of them."""

import tempfile
from pathlib import Path
from typing import Callable

# The file, what stands in it, what in its place, and a part of what is to be said.
BREAKS = [
    ("local", "  hub:\n    <<: *cogo\n", "  hub:\n    <<: *cogo\n    container_name: hub\n", "container_name"),
    ("local", "${HUB_PORT:-8787}:8787", "8787:8787", "not by variables"),
    ("local", "${COGO_BIND:-127.0.0.1}:${REDIS_PORT:-6379}", "${COGO_BIND:-0.0.0.0}:${REDIS_PORT:-6379}", "published on 0.0.0.0"),
    ("local", "REDIS_PASSWORD: ${REDIS_PASSWORD:?copy .env.example to .env and fill it in}", "REDIS_PASSWORD: hunter2", "is no variable"),
    ("local", "GF_SECURITY_ADMIN_PASSWORD: ${GRAFANA_PASSWORD:-}", "GF_SECURITY_ADMIN_PASSWORD: ${GRAFANA_PASSWORD:-admin}", "everybody knows"),
    ("local", "postgres://cogo:${POSTGRES_PASSWORD:?copy .env.example to .env and fill it in}@", "postgres://cogo:cogo@", "password in its URL"),
    ("local", "redis:8.0.3-alpine", "redis:alpine", "no version"),
    ("local", "pgvector/pgvector:0.8.1-pg17", "pgvector/pgvector:pg17", "no version"),
    ("local", "target: cogo", "target: hub", "no stage hub"),
    ("local", "dockerfile: figma-context/Dockerfile", "dockerfile: figma/Dockerfile", "there is no mcp-servers/figma/Dockerfile"),
    ("local", 'user: "65534:65534"', 'user: "0:0"', "runs as root"),
    ("local", "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "keeps capabilities"),
    ("local", "read_only: true", "read_only: false", "may write its root"),
    ("local", '["no-new-privileges:true"]', "[]", "may get more rights"),
    ("local", "    mem_limit: 128m\n    networks: [tools]", "    networks: [tools]", "no limit of memory"),
    ("local", "      hub: { condition: service_healthy }", "      hub: { condition: service_started }", "waits for nothing"),
    ("local", "    depends_on:\n      hub: { condition: service_healthy }", "    depends_on: [hub]", "no conditions"),
    ("local", "./ops/prometheus/alerts.yml:", "./ops/prometheus/alert.yml:", "there is no ops/prometheus/alert.yml"),
    ("local", "/etc/grafana/cogo/cogo.json:ro", "/etc/grafana/cogo/cogo.json", "may be written"),
    ("local", "healthcheck: { disable: true }", "healthcheck: { test: [CMD, 'true'] }", "ends by itself"),
    ("local", "  tools:\n  watch:", "  tools:", "undefined network"),
    ("ci", "      test: [\"CMD\", \"/srv/mcp-servers/browser-use/serve\", \"check\"]", "      disable: true", "has no health check"),
    ("ci", "COGO_ADMIN_TOKEN: ${COGO_ADMIN_TOKEN:?made for one run, as by openssl rand -hex 32}", "COGO_ADMIN_TOKEN: ${COGO_ADMIN_TOKEN}", "variable is not set"),
    ("ci", "    command: [\"migrate\"]", "    comand: [\"migrate\"]", "comand"),
]


def unseen(root: Path, checked: Callable[[Path, str], list[str]]) -> list[str]:
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (which, old, new, says) in enumerate(BREAKS):
            name = f"docker-compose.{which}.yml"
            text = (root / name).read_text()
            if old not in text:
                wrong.append(f"broken.py: {name} has no {old!r} to break")
                continue
            file = Path(folder) / f"{number}.yml"
            file.write_text(text.replace(old, new, 1))
            found = checked(file, name)
            if not any(says in what for what in found):
                wrong.append(f"broken.py: {new!r} in {name} must be told as {says!r}, and is as {found}")
    return wrong
