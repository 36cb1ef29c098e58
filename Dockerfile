# The images of the operator and of the worker:
#   docker build --target operator -t deepseek-operator .
#   docker build --target worker   -t deepseek-worker .
# scripts/images does it with buildah where there is no Docker and no image registry.
FROM docker.io/library/debian:bookworm-slim AS base

# The compilers and headers change seldom: they are a layer of their own, before the sources.
FROM base AS build
COPY scripts/install-deps /usr/local/sbin/install-deps
RUN install-deps build && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY base base
COPY kube kube
COPY operator operator
COPY kernels kernels
COPY worker worker
# A compiler cache mounted at /ccache is used when there is one (the machine's own builds can share it).
ENV CCACHE_DIR=/ccache
# The objects are not left in the layer: only the two programs are.
RUN cmake --preset release && \
    cmake --build --preset release --target deepseek-operator deepseek-worker && \
    mkdir /out && install -s build/release/deepseek-operator build/release/deepseek-worker /out/ && \
    rm -rf build

FROM base AS runtime
COPY scripts/install-deps /usr/local/sbin/install-deps
RUN install-deps runtime && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/local/sbin/install-deps && \
    useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin nonroot
# By number, so that Kubernetes can tell that it is not root. Nothing is written outside of mounts.
USER 65532:65532

FROM runtime AS operator
COPY --from=build /out/deepseek-operator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/deepseek-operator"]

# With the small model that the examples serve, so that a first answer needs no volume.
FROM runtime AS worker
COPY models/deepseek-tiny /models/deepseek-tiny
COPY --from=build /out/deepseek-worker /usr/local/bin/
EXPOSE 8000
ENTRYPOINT ["/usr/local/bin/deepseek-worker"]
