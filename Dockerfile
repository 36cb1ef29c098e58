# The images of the operator and of the worker:
#   docker build --target operator -t deepseek-operator .
#   docker build --target worker   -t deepseek-worker .
# and, for GPUs, one on request (the CUDA compiler comes from PyPI; building needs no GPU):
#   docker build --target worker-cuda -t deepseek-worker-cuda .
# scripts/images does it with buildah where there is no Docker and no image registry.
FROM docker.io/library/debian:bookworm-slim AS base

# The compilers and headers change seldom: they are a layer of their own, before the sources.
FROM base AS sources
COPY scripts/install-deps /usr/local/sbin/install-deps
RUN install-deps build && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /src
# llguidance, the one Rust library, is a layer of its own, too. A machine's scripts/images mounts the one that it has
# built at this path; where it is not there, it is built here with Debian's Rust, from crates.io.
ENV DSM_CACHE=/var/cache/deepseek-operator
COPY scripts/lib.sh scripts/install-deps scripts/rust-toolchain scripts/grammar-library scripts/
COPY worker/grammar/rust worker/grammar/rust
RUN scripts/grammar-library --cache && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /root/.cargo
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY base base
COPY sizing sizing
COPY kube kube
COPY operator operator
COPY kernels kernels
COPY worker worker
# A compiler cache mounted at /ccache is used when there is one (the machine's own builds can share it).
ENV CCACHE_DIR=/ccache

# The objects are not left in the layer: only the two programs are.
FROM sources AS build
RUN cmake --preset release && \
    cmake --build --preset release --target deepseek-operator deepseek-worker && \
    mkdir /out && install -s build/release/deepseek-operator build/release/deepseek-worker /out/ && \
    rm -rf build

FROM sources AS build-cuda
COPY scripts/cuda-toolchain scripts/
RUN cmake --preset cuda -DBUILD_TESTING=OFF && \
    cmake --build --preset cuda --target deepseek-worker && \
    mkdir /out && install -s build/cuda/deepseek-worker /out/ && \
    rm -rf build

# What the worker opens where GPUs are, and no driver brings: NCCL and cuBLASLt. Of all sources it sees these scripts.
FROM base AS cuda-libraries
WORKDIR /src
ENV DSM_CACHE=/var/cache/deepseek-operator
COPY scripts/lib.sh scripts/install-deps scripts/cuda-libraries scripts/
RUN libraries=$(scripts/cuda-libraries) && mkdir /out && cp -r "$libraries/lib" "$libraries/doc" /out/

FROM base AS runtime
COPY scripts/install-deps /usr/local/sbin/install-deps
RUN install-deps runtime && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/local/sbin/install-deps && \
    useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin nonroot
COPY LICENSE THIRD-PARTY /usr/share/doc/deepseek-operator/
# By number, so that Kubernetes can tell that it is not root. Nothing is written outside of mounts.
USER 65532:65532

FROM runtime AS operator
COPY --from=build /out/deepseek-operator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/deepseek-operator"]

# With the small model that the examples serve, so that a first answer needs no volume.
FROM runtime AS worker-base
COPY models/deepseek-tiny /models/deepseek-tiny
EXPOSE 8000
ENTRYPOINT ["/usr/local/bin/deepseek-worker"]

FROM worker-base AS worker
COPY --from=build /out/deepseek-worker /usr/local/bin/

# The same worker with the CUDA backend, which computes on the CPU where no GPU is. The driver's libraries are the
# node's: its container runtime mounts them.
FROM worker-base AS worker-cuda
COPY --from=cuda-libraries /out/doc /usr/share/doc/deepseek-operator/cuda
COPY --from=cuda-libraries /out/lib /usr/local/lib
USER 0
RUN ldconfig
USER 65532:65532
COPY --from=build-cuda /out/deepseek-worker /usr/local/bin/
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
