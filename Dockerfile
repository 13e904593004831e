# The program as a container image: `cogo` is everything but a Postgres of its own, `worker` a small worker.
# docs/images.md has what is in them, how they are run, and what was not tried.

# Debian 12, since the runtime below has its C library. The tag follows rust-toolchain.toml (a test compares them).
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
# Debian's C library, libgcc, root certificates, a user 65532; no shell, no package manager. Its tags move: for a build that can
# be repeated give `…@sha256:…`.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot
# Cargo's. For a try `dev` is much faster to build.
ARG PROFILE=dist
ARG WORKER_PROFILE=dist-worker

# The manifests, and instead of sources the empty files that Cargo looks for. They are the same until a manifest
# changes, and so is the layer below that compiles the dependencies.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN set -eu; \
    mkdir /manifests; \
    find . \( -name Cargo.toml -o -name Cargo.lock \) -exec cp --parents -t /manifests {} +; \
    find . \( -path '*/src/lib.rs' -o -path '*/src/main.rs' -o -path '*/benches/*/main.rs' -o -name build.rs \) \
        -exec cp --parents -t /manifests {} +; \
    find /manifests -name lib.rs -exec truncate --size=0 {} +; \
    find /manifests -name '*.rs' ! -name lib.rs -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} +; \
    find /manifests -exec touch --no-dereference --date=@0 {} +

# Where the compiler runs is the machine that builds; what it makes is for TARGETARCH.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG TARGETARCH
# Nothing to install where that is the same machine. Else a linker, a C library, and a standard library for it.
# hadolint ignore=DL3008
RUN set -eu; \
    case "${TARGETARCH:=$(dpkg --print-architecture)}" in \
        amd64) triple=x86_64-unknown-linux-gnu debian=x86-64-linux-gnu ;; \
        arm64) triple=aarch64-unknown-linux-gnu debian=aarch64-linux-gnu ;; \
        *) echo "TARGETARCH is $TARGETARCH; only amd64 and arm64 are built" >&2; exit 1 ;; \
    esac; \
    echo "$triple" >/triple; \
    if [ "$TARGETARCH" != "$(dpkg --print-architecture)" ]; then \
        apt-get update; \
        apt-get install -y --no-install-recommends "gcc-$debian" "libc6-dev-$TARGETARCH-cross"; \
        rm -rf /var/lib/apt/lists/*; \
        rustup target add "$triple"; \
    fi
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CC_x86_64_unknown_linux_gnu=x86_64-linux-gnu-gcc \
    CARGO_TERM_COLOR=never \
    CARGO_INCREMENTAL=0
WORKDIR /src

FROM build AS build-cogo
ARG PROFILE
ARG FEATURES=full
COPY --from=manifests /manifests ./
RUN cargo build --locked --profile "$PROFILE" --target "$(cat /triple)" -p cogo-cli --no-default-features --features "$FEATURES"
COPY . .
ARG REVISION
# Cargo goes by times, and those of a checkout may be older than what the empty files were compiled to. Offline, since
# everything is there by now: whatever is missing should have been in the layer above.
RUN set -eu; \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} +; \
    if [ -n "${REVISION:-}" ]; then export COGO_COMMIT="$REVISION"; fi; \
    cargo build --offline --locked --profile "$PROFILE" --target "$(cat /triple)" -p cogo-cli --no-default-features --features "$FEATURES"; \
    case "$PROFILE" in dev) made=debug ;; *) made=$PROFILE ;; esac; \
    install -D -t /out "target/$(cat /triple)/$made/cogo"

FROM build AS build-worker
ARG WORKER_PROFILE
ARG WORKER_FEATURES=worker
COPY --from=manifests /manifests ./
RUN cargo build --locked --profile "$WORKER_PROFILE" --target "$(cat /triple)" -p cogo-cli --no-default-features --features "$WORKER_FEATURES"
COPY . .
ARG REVISION
RUN set -eu; \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} +; \
    if [ -n "${REVISION:-}" ]; then export COGO_COMMIT="$REVISION"; fi; \
    cargo build --offline --locked --profile "$WORKER_PROFILE" --target "$(cat /triple)" -p cogo-cli --no-default-features --features "$WORKER_FEATURES"; \
    case "$WORKER_PROFILE" in dev) made=debug ;; *) made=$WORKER_PROFILE ;; esac; \
    install -D -t /out "target/$(cat /triple)/$made/cogo"

# What has to be there on a root that nobody can write to, and belong to the user. The runtime has no shell to make it.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS folders
RUN mkdir -p /out/data/artifacts /out/cogo

FROM ${RUNTIME_IMAGE} AS runtime
COPY --from=folders --chown=65532:65532 /out/data /data
COPY --from=folders /out/cogo /etc/cogo
# Configuration is looked for in /etc/cogo; without files there the built-in defaults hold.
ENV COGO_DATA_DIR=/data \
    COGO_CONFIG_DIR=/etc/cogo
VOLUME ["/data"]
WORKDIR /data
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/cogo"]
# Ready, not only alive, since others wait for it. It follows COGO_LISTEN and COGO_METRICS_LISTEN; what is told by a flag instead
# it cannot know.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/cogo", "status", "--probe"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.licenses=Apache-2.0

FROM runtime AS worker
COPY --from=build-worker --chmod=0755 /out/cogo /usr/local/bin/cogo
ENV COGO_METRICS_LISTEN=0.0.0.0:9464
EXPOSE 9464
LABEL org.opencontainers.image.title="COGO worker" \
      org.opencontainers.image.description="Lends the tools of MCP servers to a COGO bus"
CMD ["worker", "mcp-gateway"]

# Last, so that it is what is built when no target is named.
FROM runtime AS cogo
COPY --from=build-cogo --chmod=0755 /out/cogo /usr/local/bin/cogo
ENV COGO_LISTEN=0.0.0.0:8787
EXPOSE 8787
LABEL org.opencontainers.image.title="COGO" \
      org.opencontainers.image.description="A durable, event-sourced message bus for AI agents, on Postgres"
CMD ["hub"]
