# The edge and the order service as images:
#
#   docker build -t spikegate .                                        the edge
#   docker build -t spikegate-orders --target spikegate-orders .       the order service
#
# `make image` builds both. Nothing here needs BuildKit, and only the first stage needs a network.

# Rust 1.94 or newer on Debian, with gcc and make.
ARG BUILD_IMAGE=rust:1-bookworm
# A Debian that is as new as the first one; both binaries need nothing but its C library.
ARG RUNTIME_IMAGE=debian:bookworm-slim


FROM ${BUILD_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# `dev` builds in a fifth of the time, for those who work on this file.
ARG CARGO_PROFILE=release
RUN cargo build --locked --workspace --bins --profile "$CARGO_PROFILE" \
    && mkdir /built \
    && cp target/*/spikegate target/*/spikegate-orders /built/ \
    && rm -rf target
# So that `docker image prune --filter` finds what is left of this stage.
LABEL spikegate.stage="build"


FROM ${RUNTIME_IMAGE} AS runtime
# The numbers are fixed, so that volumes keep their owner when images are built anew. Both services have the same user,
# since the order service has to read the secret that the edge makes.
RUN groupadd --gid 10001 spikegate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/spikegate --shell /usr/sbin/nologin spikegate \
    && install -d -m 0750 -o spikegate -g spikegate /var/lib/spikegate
COPY LICENSE /usr/share/doc/spikegate/
# Everything that has to outlast the container is below this folder, from which relative paths of the settings count.
WORKDIR /var/lib/spikegate
VOLUME /var/lib/spikegate
USER spikegate
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


FROM runtime AS spikegate-orders
LABEL org.opencontainers.image.title="spikegate-orders" \
      org.opencontainers.image.description="The order service that stands behind Spikegate"
COPY --from=build /built/spikegate-orders /usr/local/bin/
# Where it listens, and where the health check asks.
ENV ORDERS_LISTEN=0.0.0.0:3001
EXPOSE 3001
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["spikegate-orders", "--health"]
ENTRYPOINT ["spikegate-orders"]


FROM runtime AS edge
LABEL org.opencontainers.image.title="spikegate" \
      org.opencontainers.image.description="An edge proxy that sells tickets: exactly what there is, in front of weighted backends"
COPY --from=build /built/spikegate /usr/local/bin/
# Sells 10,000 tickets from a ledger in the volume; its backends are to be replaced by yours.
COPY conf/spikegate.yaml /etc/spikegate/
# Where the health check and `spikegate sale` find the control listener, if the settings move it.
ENV SPIKEGATE_CONTROL=127.0.0.1:9180
# In a network of its own, as is usual, a container's user may bind every port (Docker 20.10 and newer). The binary has no
# capability of its own for port 80, since with one it could not be started under --cap-drop ALL.
EXPOSE 80
# Alive, not ready: when the ledger is away, a new edge would not find it either, and this one still proxies.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["spikegate", "health"]
ENTRYPOINT ["spikegate"]
CMD ["run", "--config", "/etc/spikegate/spikegate.yaml"]
