# The image of the coordinator and the agents: fl-core, the plugins that PLUGINS names, and no rows.
# `make image` builds it; docker, podman and buildah take it as it is.
#
# An index of your own, or a certificate authority of your own, comes as a build secret and so stays
# out of every layer: --secret id=pip,src=pip.conf --secret id=uv,src=uv.toml --secret id=ca,src=ca.crt

ARG BASE=python:3.11-slim
# Folders in plugins/. A plugin that is left out leaves its library out.
ARG PLUGINS="fl-core-mlp fl-core-xgboost"
# Empty: PyPI's torch, which for Linux carries CUDA (4.5 GB). cpu: the small build, from an index
# that keeps files of its own, so that the lock's hashes cannot cover torch there.
ARG TORCH_BACKEND=
ARG VERSION=0.1.0
ARG REVISION=

# --- dependencies: one layer, that stays as it is when only code changes, and is never copied ---
FROM ${BASE} AS dependencies
RUN echo 'fl:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd && \
    echo 'fl:x:10001:' >> /etc/group
COPY requirements/bootstrap.txt requirements/image.txt /opt/requirements/
ARG PLUGINS
ARG TORCH_BACKEND
# uv and its cache are gone when the command ends, so that no layer holds them. Mounting them from a
# stage of their own would be shorter; buildah before 1.29 mounts a stage that is cached empty.
RUN --mount=type=secret,id=pip --mount=type=secret,id=uv --mount=type=secret,id=ca \
    set -eu; cd /opt/requirements; work=$(mktemp -d); \
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1; \
    export UV_SYSTEM_CERTS=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never; \
    if [ -f /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi; \
    if [ -f /run/secrets/uv ]; then export UV_CONFIG_FILE=/run/secrets/uv; fi; \
    if [ -f /run/secrets/ca ]; then \
      export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; \
    fi; \
    python -m venv "$work/tools"; \
    "$work/tools/bin/python" -m pip install --quiet --require-hashes -r bootstrap.txt; \
    uv="$work/tools/bin/uv"; \
    pins() { awk -v left_out="^($1)==" '/^[a-z]/ { keep = $0 !~ left_out } keep'; }; \
    install() { \
      "$uv" pip install --quiet --compile-bytecode --python /opt/fl/bin/python --no-deps "$@"; \
    }; \
    "$uv" venv --quiet --python "$(command -v python)" /opt/fl; \
    case " $PLUGINS " in *" fl-core-xgboost "*) unused=none ;; *) unused=xgboost ;; esac; \
    pins "$unused" < image.txt > "$work/wanted.txt"; \
    case "$TORCH_BACKEND" in \
      "") install --require-hashes -r "$work/wanted.txt" ;; \
      cpu) pins 'torch|triton|nvidia-[^=]*|cuda-[^=]*' < "$work/wanted.txt" > "$work/cpu.txt"; \
        install --require-hashes -r "$work/cpu.txt"; \
        install --torch-backend cpu "$(grep -o '^torch==[^ ;]*' image.txt)" ;; \
      *) echo "TORCH_BACKEND is \"$TORCH_BACKEND\": leave it empty, or set it to cpu" >&2; exit 1 ;; \
    esac; \
    rm -r "$work"

# --- project: fl-core and the plugins, in a folder beside their dependencies ---
FROM dependencies AS project
COPY pyproject.toml README.md /src/
COPY fl_core /src/fl_core
COPY plugins /src/plugins
ARG PLUGINS
RUN set -eu; cd /src; set --; \
    for plugin in $PLUGINS; do \
      if [ ! -f "plugins/$plugin/pyproject.toml" ]; then \
        echo "PLUGINS: no folder plugins/$plugin; there are: $(ls plugins | tr '\n' ' ')" >&2; exit 1; \
      fi; \
      set -- "$@" "./plugins/$plugin"; \
    done; \
    python -m venv /tmp/tools; \
    /tmp/tools/bin/python -m pip --python /opt/fl/bin/python install --quiet \
      --disable-pip-version-check --no-cache-dir --no-index --no-deps --no-build-isolation \
      --target /opt/project . "$@"

# --- the image ---
FROM dependencies
COPY --from=project /opt/project /opt/project
RUN echo /opt/project > "$(/opt/fl/bin/python -c 'import site; print(site.getsitepackages()[0])')/project.pth"
# Nothing is written outside the folders that the pod mounts: the root may be read-only.
ENV PATH=/opt/project/bin:/opt/fl/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["fl"]
ARG BASE
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="fl-silos" \
      org.opencontainers.image.description="Federated learning: coordinator and agents, without data" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
