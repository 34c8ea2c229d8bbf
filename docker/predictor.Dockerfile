# The demo's predictor: this project's own network behind KServe's server, V1, V2 and gRPC.
# Build it from the root of the repository:  make image   (or: docker build -f docker/predictor.Dockerfile .)
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/mnist-pipeline
ENV PIP_CONSTRAINT=/build/requirements.lock PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
# Of the extra [local] only what the predictor needs: no broker, no gateway.
RUN /opt/pip/bin/pip --python /opt/mnist-pipeline/bin/python install --no-compile kserve onnxruntime pillow
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/pip/bin/pip wheel --no-deps --wheel-dir dist . && \
    /opt/pip/bin/pip --python /opt/mnist-pipeline/bin/python install --no-compile --no-deps dist/*.whl && \
    /opt/mnist-pipeline/bin/python -m compileall -q /opt/mnist-pipeline/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mnist-pipeline-predictor" \
      org.opencontainers.image.description="A KServe predictor of handwritten digits, for demonstrations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/mnist-pipeline /opt/mnist-pipeline
ENV PATH=/opt/mnist-pipeline/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /
EXPOSE 8080 8081
# Without the proxy that Docker's own configuration gives every container: urllib would ask it for 127.0.0.1.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8080/v2/health/live', timeout=4)"]
# KServe's controller gives a custom predictor no arguments at all.
ENTRYPOINT ["python", "-m", "mnist_pipeline.local.predictor"]
CMD ["--model_name", "mnist"]
